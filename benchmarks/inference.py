"""Inference beside torchvision and segmentation_models.pytorch: the same weights, in one run, taking turns.

    python benchmarks/inference.py [--size 512] [--rounds 9] [--threads 2] [--models v3plus_mobilenet_v2 ...]
    python benchmarks/inference.py --cuda                          # batch 1 and 16 on a GPU

Timed: a normalised picture (1, 3, S, S) to its labels (S, S). Theirs is `model(x).argmax(1)`, eager, compiled with
torch.compile, and exported by hand the way users do. Ours is what `Predictor` runs. The largest difference of the
logits is printed beside every time, and the share of the rate of the machine's best convolution. Extras: `export`, and
segmentation_models_pytorch for its two models.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import atrous
from atrous import quantize
from atrous.info import describe
from atrous.kernels.upsampling import resized_labels
from atrous.models import Model
from atrous.runtimes import Exported, installed, load, prepare

CPU = torch.device("cpu")
PAUSE = (
    0.05  # seconds: the threads of the one that ran before wait for more in a busy loop, and then fall asleep
)
Labels = Callable[[Tensor], Tensor]


def torchvision_model(name: str) -> nn.Module:
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)


def smp_model(encoder: str) -> nn.Module:
    import segmentation_models_pytorch

    return segmentation_models_pytorch.DeepLabV3Plus(encoder, encoder_weights=None, classes=21)


# name -> (project, its model)
MODELS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "v3_resnet50": ("torchvision", lambda: torchvision_model("deeplabv3_resnet50")),
    "v3_mobilenet_v3": ("torchvision", lambda: torchvision_model("deeplabv3_mobilenet_v3_large")),
    "v3plus_mobilenet_v2": ("smp", lambda: smp_model("mobilenet_v2")),
    "v3plus_resnet50": ("smp", lambda: smp_model("resnet50")),
}


def pair(name: str) -> tuple[nn.Module, Model]:
    """Their model and ours with the same weights."""
    theirs = their_model(name)
    return theirs, atrous.import_checkpoint(theirs.state_dict(), MODELS[name][0]).eval()


def their_model(name: str) -> nn.Module:
    """Random weights, and statistics that keep the activations alive."""
    torch.manual_seed(0)
    theirs = MODELS[name][1]().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.2, 1)
    return theirs


class TheirLogits(nn.Module):
    """torchvision answers with a dict, smp with the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(x)
        return out["out"] if isinstance(out, dict) else out


def ways(
    theirs: nn.Module, ours: Model, folder: Path, size: int, compile: bool
) -> dict[str, tuple[Labels, Labels]]:
    """What is timed: name -> (picture to logits, picture to labels)."""
    their_logits = TheirLogits(theirs).eval()
    found: dict[str, tuple[Labels, Labels]] = {}

    def they(name: str, logits: Labels) -> None:
        found[f"theirs, {name}"] = logits, lambda x: logits(x).argmax(1)[0]

    def we(name: str, network: nn.Module) -> None:
        def labels(x: Tensor) -> Tensor:
            return resized_labels(network.scores(x)["out"][0], x.shape[-2:], network.align_corners)

        found[f"ours, {name}"] = network, labels

    they("eager", their_logits)
    if compile:
        they("torch.compile", torch.compile(their_logits))
    by_hand(they, their_logits, folder, size)
    we("eager", ours)
    we("torch", prepare(ours, CPU, "torch"))
    we("torch bf16", prepare(ours, CPU, "torch", "bf16"))
    converted = [runtime for runtime in ("onnxruntime", "openvino") if can_convert(runtime)]
    checkpoint = folder / "ours.safetensors"
    atrous.save(ours, checkpoint)
    for runtime in converted:
        we(runtime, prepare(ours, CPU, runtime, source=checkpoint))
    if "openvino" in converted:
        we("openvino bf16", prepare(ours, CPU, "openvino", "bf16", source=checkpoint))
        if installed("nncf"):
            we("openvino int8", int8(folder, size))
    return found


def can_convert(runtime: str) -> bool:
    return installed(runtime) and installed("onnx") and installed("onnxscript")


def by_hand(they: Callable[[str, Labels], None], model: nn.Module, folder: Path, size: int) -> None:
    """torch.onnx.export for the one size, into ONNX Runtime and OpenVINO with their own settings."""
    if not can_convert("onnxruntime"):
        return
    path = folder / "theirs.onnx"
    x = torch.rand(1, 3, size, size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    they("onnxruntime", lambda x: torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0]))
    if installed("openvino"):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.compile_model(path, "CPU", settings)
        they("openvino", lambda x: torch.from_numpy(compiled(x.contiguous().numpy())[0]))


def int8(folder: Path, size: int) -> Exported:
    """The conversion in the cache, calibrated on noise: the time is that of a real one, the scores are not."""
    (plain,) = folder.glob("atrous/*.xml")
    float_file, path = load(plain), folder / "int8.xml"
    assert isinstance(float_file, Exported)
    header = float_file.header | {"graph": float_file.graph | {"precision": "int8"}}
    noise = [
        np.random.default_rng(i).standard_normal((1, 3, size, size)).astype(np.float32) for i in range(4)
    ]
    quantize.FORMATS["openvino"].write(plain, path, noise, header)
    network = load(path)
    assert isinstance(network, Exported)
    return network


def multiply_rate(precision: torch.dtype, channels: int = 512, side: int = 64, rounds: int = 7) -> float:
    """Floating point operations in a second of oneDNN's 3x3 convolution of the best shape, the best of some.

    torch's float32 matrix product is no measure: its library leaves this processor's widest instructions unused.
    """
    x, weight = torch.rand(1, channels, side, side), torch.rand(channels, channels, 3, 3)
    x, weight = (each.to(precision).contiguous(memory_format=torch.channels_last) for each in (x, weight))
    work = partial(torch.nn.functional.conv2d, x, weight, padding=1)
    work()
    return 2 * 9 * channels**2 * side**2 / min(seconds(work) for _ in range(rounds))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.inference_mode()
def on_cpu(given: argparse.Namespace) -> None:
    rates = {
        kind: multiply_rate(dtype) for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(
        f"{torch.get_num_threads()} threads, batch 1, {given.size}x{given.size}, medians of {given.rounds} rounds"
    )
    print(f"best convolution {rates['fp32'] / 1e9:.0f} GFLOP/s, {rates['bf16'] / 1e9:.0f} in bf16")
    for name in given.models:
        project = MODELS[name][0]
        if project == "smp" and not installed("segmentation_models_pytorch"):
            print(f"\n{name}: left out, segmentation_models_pytorch is not installed")
            continue
        theirs, ours = pair(name)
        x = torch.randn(1, 3, given.size, given.size)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder  # of the conversions
            with torch.inference_mode(False):
                found = ways(theirs, ours, Path(folder), given.size, given.compile)
            expected = found["theirs, eager"][0](x)
            top = float(expected.abs().max())
            far = {way: float((logits(x) - expected).abs().max()) for way, (logits, _) in found.items()}
            times: dict[str, list[float]] = {way: [] for way in found}
            for _, labels in found.values():
                labels(x)
            for _ in range(given.rounds):
                for way, (_, labels) in found.items():
                    time.sleep(PAUSE)
                    times[way].append(seconds(lambda: labels(x)))  # noqa: B023
        with torch.inference_mode(False):  # in which nothing is counted
            flop = 2 * describe(ours, (given.size, given.size)).multiply_adds
        base = statistics.median(times["theirs, eager"])
        print(f"\n{name} of {project}: {flop / 2e9:.1f} B multiply-adds, largest logit {top:.2g}")
        for way, found_times in times.items():
            middle = statistics.median(found_times)
            kind = way.split()[-1]
            share = (
                ""
                if kind == "int8"
                else f"{flop / middle / rates['bf16' if kind == 'bf16' else 'fp32']:4.0%}"
            )
            print(
                f"  {way:24s} {1e3 * middle:8.1f} ms   {base / middle:5.2f}x eager   "
                f"{share:4s} of the best   logits differ by {far[way]:.1e}",
                flush=True,
            )


@torch.inference_mode()
def on_cuda(given: argparse.Namespace) -> None:
    """Pictures in a second: eager float32, then channels_last, bfloat16, and compiled with CUDA graphs."""
    device = torch.device("cuda")
    print(torch.cuda.get_device_name())
    for name in given.models:
        if MODELS[name][0] == "smp" and not installed("segmentation_models_pytorch"):
            continue
        theirs, ours = pair(name)
        theirs = TheirLogits(theirs).to(device).eval()
        with torch.inference_mode(False):
            networks: dict[str, Labels] = {
                "theirs, eager": theirs,
                "ours, torch": prepare(ours, device, "torch"),
                "ours, torch bf16": prepare(ours, device, "torch", "bf16"),
            }
            half = prepare(ours, device, "torch", "bf16")
            networks["ours, bf16 compiled"] = torch.compile(half, mode="reduce-overhead", dynamic=False)
        for batch in (1, 16):
            x = torch.randn(batch, 3, given.size, given.size, device=device)
            rates: dict[str, list[float]] = {way: [] for way in networks}
            far = {}
            expected = theirs(x)
            for way, network in networks.items():
                for _ in range(3):  # compiles, captures
                    logits = network(x)
                far[way] = float((logits - expected).abs().max())
            for _ in range(given.rounds):
                for way, network in networks.items():

                    def work(network: Labels = network, x: Tensor = x) -> None:
                        network(x).argmax(1)
                        torch.cuda.synchronize()

                    rates[way].append(batch / seconds(work))
            base = statistics.median(rates["theirs, eager"])
            print(f"\n{name}, batch {batch}, {given.size}x{given.size}")
            for way, found in rates.items():
                middle = statistics.median(found)
                print(
                    f"  {way:24s} {middle:8.1f} pictures/s   {middle / base:5.2f}x   logits differ by {far[way]:.1e}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no_compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--cuda", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.cuda:
        on_cuda(given)
    else:
        on_cpu(given)


if __name__ == "__main__":
    main()
