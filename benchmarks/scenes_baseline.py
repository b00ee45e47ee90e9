"""What colour alone tells in the drawn scenes: classifiers that see one pixel at a time, trained and measured.

    python benchmarks/scenes_baseline.py

A 1x1 convolution on RGB, several of them with ReLU between, and the latter with the pixel's place as well. All
stay far below what a network with a view of the surroundings reaches on the same scenes.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atrous.data import SCENES, open_dataset


def pixels(split: str, count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """All pixels of `count` scenes: (N, 5) float32 R, G, B, y, x, each about -1..1, and (N,) int64 classes."""
    dataset = open_dataset("scenes", split, length=count, size=size)
    samples = [dataset[index] for index in range(count)]
    colours = (
        torch.stack([torch.as_tensor(sample.image) for sample in samples]).permute(0, 2, 3, 1) / 127.5 - 1
    )
    y, x = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    places = torch.stack([y, x], dim=-1).expand(count, *size, 2)
    classes = torch.stack([torch.as_tensor(sample.mask) for sample in samples]).long()
    return torch.cat([colours, places], dim=-1).reshape(-1, 5), classes.reshape(-1)


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(x), (8192,))
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def class_iou(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    count = len(SCENES)
    predicted = torch.cat([model(part).argmax(1) for part in x.split(1 << 18)])
    confusion = torch.bincount(y * count + predicted, minlength=count * count).reshape(count, count).double()
    return confusion.diag() / (confusion.sum(0) + confusion.sum(1) - confusion.diag()).clamp(min=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train-scenes", type=int, default=300)
    parser.add_argument("--val-scenes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()

    torch.manual_seed(0)
    size = (args.size[0], args.size[1])
    x, y = pixels("train", args.train_scenes, size)
    val_x, val_y = pixels("val", args.val_scenes, size)
    classes = len(SCENES)

    def layers(channels: int) -> nn.Module:  # 1x1 convolutions, as matrix products over the list of pixels
        hidden = [nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes)]
        return nn.Sequential(*hidden)

    models = {
        "1x1 convolution on RGB": (3, nn.Linear(3, classes)),
        "three 1x1 convolutions on RGB": (3, layers(3)),
        "three 1x1 convolutions on RGB and place": (5, layers(5)),
    }
    print(f"{'':42}mIoU   " + " ".join(f"{name:>8}" for name in SCENES.names))
    for name, (channels, model) in models.items():
        train(model, x[:, :channels], y, args.steps)
        iou = class_iou(model, val_x[:, :channels], val_y)
        print(f"{name:42}{iou.mean():.3f}  " + " ".join(f"{value:8.3f}" for value in iou.tolist()))


if __name__ == "__main__":
    main()
