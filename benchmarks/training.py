"""Our training loop beside torchvision's reference loop, in one run: images/s, losses, loading, share of matmul rate.

    python benchmarks/training.py [--models v3_resnet50 ...] [--precisions fp32 bf16] [--crop 257] [--batch 8]
                                  [--data FOLDER] [--threads 2] [--workers 0] [--rounds 5] [--steps 3] [--compile]
    python benchmarks/training.py --device cuda --crop 513 --batch 16 --workers 12 --precisions bf16 --compile

The reference: torchvision's own model, its training script's loop and augmentation (whole picture scaled by 0.5 to 2,
cropped, mirrored, normalised on the CPU), SGD of the same groups. Ours: `atrous.train.take_step` on a run that
`atrous.train.set_up` made, with the same weights, crop, batch and precision. `v3plus_*` is our network in both loops:
torchvision has none. The two alternate in blocks of steps, and medians of the blocks are compared. "cpu" ratios are of
processor time, which other work on the machine disturbs less.

Without --data, photograph-sized pictures are drawn into a temporary folder.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.models.segmentation as torchvision_models
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as picture

from atrous.config import Recipe
from atrous.data import open_dataset
from atrous.data.base import SegmentationDataset
from atrous.importers import import_checkpoint
from atrous.kernels.depthwise import DepthwiseConv2d
from atrous.models import create_model
from atrous.train import set_up, take_step
from atrous.training.batches import Batch, steps
from atrous.training.run import Run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUX_WEIGHT = 0.5  # torchvision's reference script
MODELS = ("v3_resnet50", "v3_resnet101", "v3_mobilenet_v3_large", "v3plus_resnet50", "v3plus_mobilenet_v2")


class Times(NamedTuple):
    """Seconds of one block, by the clock and of the processor."""

    wall: float
    cpu: float


class ReferenceData(Dataset[tuple[Tensor, Tensor]]):
    """The same files with the augmentation of torchvision's reference script."""

    def __init__(self, data: SegmentationDataset, crop: int) -> None:
        self.data, self.crop = data, crop

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = Image.fromarray(self.data.image(index)), Image.fromarray(self.data.mask(index))
        factor = random.uniform(0.5, 2.0)
        size = [max(1, round(side * factor)) for side in (image.height, image.width)]
        image = picture.resize(image, size, antialias=True)
        mask = picture.resize(mask, size, InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, mask = picture.hflip(image), picture.hflip(mask)
        missing = [0, 0, max(0, self.crop - size[1]), max(0, self.crop - size[0])]
        image, mask = picture.pad(image, missing, fill=0), picture.pad(mask, missing, fill=255)
        top = random.randint(0, image.height - self.crop)
        left = random.randint(0, image.width - self.crop)
        image = picture.crop(image, top, left, self.crop, self.crop)
        mask = picture.crop(mask, top, left, self.crop, self.crop)
        x = picture.normalize(picture.to_tensor(image), list(MEAN), list(STD))
        return x, torch.from_numpy(np.array(mask, np.int64))


class Reference:
    """torchvision's reference training: model, optimiser, one step."""

    def __init__(self, name: str, classes: int, device: torch.device, precision: str) -> None:
        self.device, self.half = device, precision == "bf16"
        kind, backbone = name.split("_", 1)
        if kind == "v3":
            build = getattr(torchvision_models, f"deeplabv3_{backbone}")
            self.model: Any = build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)
            aux = list(self.model.aux_classifier.parameters())
        else:
            self.model, aux = Whole(create_model("deeplab_v3plus", backbone, num_classes=classes)), []
            for module in self.model.modules():
                if isinstance(module, DepthwiseConv2d):
                    module.__class__ = nn.Conv2d  # torch's own
        self.model.to(device).train()
        known = {id(p) for p in aux}
        rest = [p for p in self.model.parameters() if id(p) not in known]
        groups = [{"params": rest}, *([{"params": aux, "lr": 0.1}] if aux else [])]
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.PolynomialLR(self.optimizer, 10_000, power=0.9)

    def step(self, image: Tensor, target: Tensor) -> float:
        image, target = image.to(self.device), target.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            found = self.model(image)
            losses = {name: F.cross_entropy(x, target, ignore_index=255) for name, x in found.items()}
            loss = losses["out"] + (AUX_WEIGHT * losses["aux"] if "aux" in losses else 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.item())


class Whole(nn.Module):
    """One of our networks with torchvision's interface."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.network(x)}


def ours(name: str, args: argparse.Namespace, precision: str, data: Path, out: Path) -> Run:
    """A run of our own on the same data, crop, batch, precision and optimiser."""
    kind, backbone = name.split("_", 1)
    options: dict[str, Any] = {}
    if kind == "v3":  # what torchvision's form is in our options
        mobile = backbone.startswith("mobilenet")
        options = {"extra_conv": True, "dropout": 0.5, "atrous_rates": [12, 24, 36], "aux": True}
        options |= (
            {"aux_stage": 2, "stage_features": "first"}
            if mobile
            else {"multi_grid": [1], "dilate_from": "second"}
        )
    stride = 8 if kind == "v3" and backbone.startswith("resnet") else 16
    return set_up(
        Recipe(
            data=str(data), train_split=args.split, val_split=args.split,
            model={"v3": "deeplab_v3", "v3plus": "deeplab_v3plus"}[kind], backbone=backbone, output_stride=stride,
            model_options=options, crop_size=args.crop, batch_size=args.batch, iterations=10_000, aux_weight=AUX_WEIGHT,
            learning_rate=0.01, lr_groups="uniform", weight_decay=1e-4, device=args.device, workers=args.workers,
            precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision], compile=args.compile, out=str(out),
        )
    )  # fmt: skip


def same_losses(reference: Reference, run: Run, images: Tensor, masks: Tensor) -> tuple[float, float]:
    """Both losses of one batch with the same weights, dropout off and nothing learnt. images: uint8."""
    weights = reference.model.state_dict()
    if isinstance(reference.model, Whole):
        run.network.load_state_dict(reference.model.network.state_dict())
    else:
        run.network.load_state_dict(import_checkpoint(weights).state_dict())
    found = []
    for network, take in ((reference.model, lambda: reference.step(normal(images), masks)),
                          (run.network, lambda: take_step(run, [batch(run, images, masks)]))):  # fmt: skip
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
        shares = [module.p for module in dropouts]
        for module in dropouts:
            module.p = 0.0
        network.train()
        found.append(take())
        for module, share in zip(dropouts, shares, strict=True):
            module.p = share
        network.load_state_dict(kept)
    return found[0], found[1]


def normal(images: Tensor) -> Tensor:
    """As the reference's loader normalises."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def batch(run: Run, images: Tensor, masks: Tensor) -> Batch:
    return Batch(images.to(run.fabric.device), masks.to(run.fabric.device), ["-"] * len(images), [])


def endless(loader: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    while True:
        yield from loader()


def block(take: Callable[[], Any], count: int, device: str) -> Times:
    """Seconds of `count` calls."""
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        take()
    if device == "cuda":
        torch.cuda.synchronize()
    return Times((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def alternate(
    theirs: Callable[[], Any], mine: Callable[[], Any], args: argparse.Namespace
) -> tuple[Times, Times]:
    """Medians of blocks that alternate, after one of each to warm up."""
    block(theirs, 2, args.device), block(mine, 2, args.device)
    found: tuple[list[Times], list[Times]] = ([], [])
    for _ in range(args.rounds):
        found[0].append(block(theirs, args.steps, args.device))
        found[1].append(block(mine, args.steps, args.device))
    medians = [Times(*(statistics.median(x) for x in zip(*times, strict=True))) for times in found]
    return medians[0], medians[1]


def report(what: str, theirs: Times, mine: Times, images: int) -> None:
    print(
        f"  {what:20} torchvision {images / theirs.wall:7.2f} img/s   atrous {images / mine.wall:7.2f} img/s   "
        f"ratio {theirs.wall / mine.wall:.2f} (cpu {theirs.cpu / mine.cpu:.2f})",
        flush=True,
    )


def matmul_rate(precision: str, device: str) -> float:
    """FLOP/s of a large matrix product."""
    side = 8192 if device == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return float(2 * side**3 / min(block(lambda: a @ a, 3, device).wall for _ in range(5)))


def drawn_folder(folder: Path) -> Path:
    """32 drawn scenes as JPEG and PNG files of a photograph's size."""
    scenes = open_dataset("scenes", "train", length=32, size=[375, 500])
    for index in range(len(scenes)):
        sample = scenes[index]
        for kind, array, suffix in (
            ("images", sample.image.permute(1, 2, 0), "jpg"),
            ("masks", sample.mask, "png"),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.numpy()).save(folder / kind / f"{index:02d}.{suffix}")
    return folder


def compare(name: str, precision: str, args: argparse.Namespace, data: Path, out: Path) -> None:
    print(f"{name}, {precision}, {args.batch} crops of {args.crop}, {args.device}, {args.threads} threads")
    run = ours(name, args, precision, data, out)
    device = run.fabric.device
    reference = Reference(name, len(run.train_data.labels), device, precision)
    plain = open_dataset(data, args.split)
    loader = DataLoader(
        ReferenceData(plain, args.crop), args.batch, shuffle=True, drop_last=True, num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )  # fmt: skip
    epochs = itertools.count()

    def our_steps() -> Iterator[list[Batch]]:
        run.batches.begin(next(epochs))
        return steps(run.loader)

    their_batches, our_batches = endless(lambda: iter(loader)), endless(our_steps)
    first = next(our_batches)[0]
    theirs, mine = same_losses(reference, run, first.images.cpu(), first.masks.cpu())
    print(f"  loss of one batch    torchvision {theirs:.5f}   atrous {mine:.5f}")

    loading = alternate(lambda: next(their_batches), lambda: next(our_batches), args)
    report("loading alone", *loading, args.batch)
    x, y = next(their_batches)
    one = [next(our_batches)[0]]
    stepping = alternate(lambda: reference.step(x, y), lambda: take_step(run, one), args)
    report("step alone", *stepping, args.batch)
    whole = alternate(
        lambda: reference.step(*next(their_batches)), lambda: take_step(run, next(our_batches)), args
    )
    report("loop with loading", *whole, args.batch)
    print(f"  our loading is {stepping[1].wall / loading[1].wall:.1f} times as fast as our step")
    if not args.compile:
        with FlopCounterMode(display=False) as counter:
            take_step(run, one)
        rate, peak = counter.get_total_flops() / stepping[1].wall, matmul_rate(precision, args.device)
        print(f"  {rate / 1e12:.3f} TFLOP/s in our step, {rate / peak:.0%} of a matmul's {peak / 1e12:.3f}")
    if args.device == "cuda":
        print(f"  peak memory of both {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS[:3]), choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--crop", type=int, default=257)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="in a block")
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or drawn_folder(Path(folder) / "data")
        for number, (name, precision) in enumerate(itertools.product(args.models, args.precisions)):
            compare(name, precision, args, data, Path(folder) / str(number))


if __name__ == "__main__":
    main()
