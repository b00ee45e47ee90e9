"""Published checkpoints by name, for `atrous pull`: where they are, and the first digits of their SHA-256 where known.

torchvision/NAME           torchvision keeps the addresses of its own
drn/NAME                   the authors' backbones
mmseg/CONFIG               mmsegmentation's model zoo (`openmmlab.py`)
tensorflow/NAME            Google's DeepLab model zoo: an archive of a checkpoint and a frozen graph; digest unknown
paddle/CONFIG              PaddleSeg's; digest unknown
huggingface/OWNER/NAME     any repository of the Hugging Face hub with config.json and weights, as those of timm,
                           transformers and segmentation_models; the listed ones are examples
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from atrous.backbones.weights import DRN, DRN_FILES
from atrous.download import NotThere, download, unpack
from atrous.errors import InputError, choose
from atrous.importers import openmmlab

Progress = Callable[[int, int], None] | None

TORCHVISION = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")
# https://github.com/tensorflow/models/blob/master/research/deeplab/g3doc/model_zoo.md
TENSORFLOW = "http://download.tensorflow.org/models/{}.tar.gz"
TENSORFLOW_FILES = {
    "mobilenetv2_coco_voc_trainaug": "deeplabv3_mnv2_pascal_train_aug_2018_01_29",
    "mobilenetv2_coco_voc_trainval": "deeplabv3_mnv2_pascal_trainval_2018_01_29",
    "xception_coco_voc_trainaug": "deeplabv3_pascal_train_aug_2018_01_04",
    "xception_coco_voc_trainval": "deeplabv3_pascal_trainval_2018_01_04",
    "mobilenetv2_coco_cityscapes_trainfine": "deeplabv3_mnv2_cityscapes_train_2018_02_05",
    "xception_cityscapes_trainfine": "deeplabv3_cityscapes_train_2018_02_06",
    "xception_ade20k_train": "deeplabv3_xception_ade20k_train_2018_05_29",
    "xception_41": "xception_41_2018_05_09",
    "xception_65": "deeplabv3_xception_2018_01_04",
    "xception_71": "xception_71_2018_05_09",
    "resnet_v1_50_beta": "resnet_v1_50_2018_05_04",
    "resnet_v1_101_beta": "resnet_v1_101_2018_05_04",
}
# configs/deeplabv3/README.md and configs/deeplabv3p/README.md of https://github.com/PaddlePaddle/PaddleSeg
PADDLE = "https://bj.bcebos.com/paddleseg/dygraph/{}/{}/model.pdparams"
PADDLE_DATA = {"cityscapes": "cityscapes", "voc12aug": "pascal_voc12"}
PADDLE_CONFIGS = (
    "deeplabv3_resnet50_os8_cityscapes_1024x512_80k",
    "deeplabv3_resnet101_os8_cityscapes_1024x512_80k",
    "deeplabv3_resnet50_os8_voc12aug_512x512_40k",
    "deeplabv3_resnet101_os8_voc12aug_512x512_40k",
    "deeplabv3p_resnet50_os8_cityscapes_1024x512_80k",
    "deeplabv3p_resnet101_os8_cityscapes_1024x512_80k",
    "deeplabv3p_resnet101_os8_cityscapes_769x769_80k",
    "deeplabv3p_resnet50_os8_voc12aug_512x512_40k",
    "deeplabv3p_resnet101_os8_voc12aug_512x512_40k",
)
HUB = "https://huggingface.co/{}/resolve/main/{}"
HUB_EXAMPLES = ("google/deeplabv3_mobilenet_v2_1.0_513",)
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there
HUB_BESIDE = ("config.json", "preprocessor_config.json")
OF_ARCHIVE = (".index", ".data-00000-of-00001", ".pb")  # what is taken out of a TensorFlow archive


def names() -> list[str]:
    """What can be pulled."""
    return [
        *(f"torchvision/{name}" for name in TORCHVISION),
        *(f"drn/{name}" for name in DRN_FILES),
        *(f"mmseg/{name}" for name in openmmlab.MODELS),
        *(f"tensorflow/{name}" for name in TENSORFLOW_FILES),
        *(f"paddle/{name}" for name in PADDLE_CONFIGS),
        *(f"huggingface/{name}" for name in HUB_EXAMPLES),
    ]


def pull(name: str, progress: Progress = None) -> Path:
    """The file or folder of a published checkpoint, in torch hub's folder (TORCH_HOME), downloaded if it is not there.

    Raises InputError for an unknown name, and without a network: it says which file to put where.
    """
    project, _, model = name.partition("/")
    if project == "huggingface" and len(model.split("/")) == 2 and ".." not in model:
        return _pull_repository(model, progress)
    choose("checkpoint", name, names())
    if project == "tensorflow":
        archive = download(
            TENSORFLOW.format(TENSORFLOW_FILES[model]), _cache(f"{model}.tar.gz"), None, progress
        )
        return unpack(archive, _cache(model), OF_ARCHIVE)
    if project == "paddle":
        data = PADDLE_DATA[model.split("_")[3]]
        return download(PADDLE.format(data, model), _cache(f"{model}.pdparams"), None, progress)
    if project == "torchvision":
        from torchvision.models import get_model_weights

        url = get_model_weights(model).DEFAULT.url
    else:
        url = openmmlab.address(model) if project == "mmseg" else DRN.format(DRN_FILES[model])
    file = url.rsplit("/", 1)[-1]
    digest = file.rsplit("-", 1)[-1].split(".")[0]  # all three end their names in the digits
    return download(url, _cache(file), digest, progress)


def _cache(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _pull_repository(repository: str, progress: Progress) -> Path:
    """config.json and the weights of a repository of the hub, in a folder of their own."""
    folder = _cache(repository.replace("/", "--"))
    for file in HUB_BESIDE:
        try:
            download(HUB.format(repository, file), folder / file)
        except NotThere:
            if file == HUB_BESIDE[0]:
                raise
    for file in HUB_WEIGHTS:
        try:
            download(HUB.format(repository, file), folder / file, None, progress)
        except NotThere:
            continue
        return folder
    raise InputError(f"huggingface/{repository}: no {' and no '.join(HUB_WEIGHTS)} there")
