"""The CRF as the last layer of v1 and v2: the same mathematics as `DenseCRF`, trained with the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawn import picture

import atrous
from atrous.config import Recipe
from atrous.crf import CRFHead, DenseCRF
from atrous.errors import InputError
from atrous.models import create_model
from atrous.train import train

OPTIONS = {"iter_max": 3, "bi_xy_std": 20.0, "bi_rgb_std": 13.0}
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.5])


@pytest.mark.parametrize(
    ("name", "options"), [("deeplab_v1", {}), ("deeplab_v2", {}), ("deeplab_v2", {"msc": True})]
)
def test_scores_are_the_crfs_of_the_plain_models(name: str, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    plain = create_model(name, "resnet18", num_classes=4, **options).eval()
    for last in (plain.head.fc8,) if name == "deeplab_v1" else plain.branches:
        last.weight.data *= 20  # a fresh model's scores are nearly flat
    model = create_model(name, "resnet18", num_classes=4, crf=OPTIONS, **options).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert model.crf is not None
    model.crf.set_normalization(MEAN.tolist(), STD.tolist())
    image = torch.from_numpy(picture(33, 41))
    x = ((image.permute(2, 0, 1).float() / 255 - MEAN.view(-1, 1, 1)) / STD.view(-1, 1, 1))[None]
    with torch.no_grad():
        expected = DenseCRF(**OPTIONS).infer(image, -plain(x)[0].log_softmax(0))  # type: ignore[arg-type]
        found = model(x)[0].exp()
        assert float((expected - plain(x)[0].softmax(0)).abs().max()) > 0.05  # it does something
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_training_moves_its_weights_and_the_checkpoint_keeps_them(tmp_path: Path) -> None:
    recipe = Recipe(
        model="deeplab_v1", backbone="resnet18", model_options={"crf": OPTIONS}, crop_size=48, batch_size=2,
        iterations=3, learning_rate=0.5, lr_groups="uniform", max_val=2, workers=0, device="cpu",
        precision="32-true", data_options={"size": (48, 64)}, out=str(tmp_path / "run"),
    )  # fmt: skip
    run = train(recipe)
    head = run.network.crf
    assert isinstance(head, CRFHead)
    assert float(head.layer.bi_w.detach()) != 4
    assert float(head.layer.pos_w.detach()) != 3
    loaded = atrous.load(tmp_path / "run" / "last.safetensors")
    x = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), run.network.eval()(x), atol=1e-5, rtol=1e-5)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="crf: got an unexpected keyword argument 'bi_std'"):
        create_model("deeplab_v1", "resnet18", crf={"bi_std": 3})
    with pytest.raises(InputError, match="bi_rgb_std: wanted a positive number"):
        create_model("deeplab_v2", "resnet18", crf={"bi_rgb_std": 0})
    grey = create_model("deeplab_v1", "resnet18", in_channels=1, crf=True).eval()
    with pytest.raises(InputError, match="these have 1 channels"):
        grey(torch.zeros(1, 1, 16, 16))
