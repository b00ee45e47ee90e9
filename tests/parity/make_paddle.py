"""Write the tables of test_paddle.py, and two small files that Paddle itself wrote.

python tests/parity/make_paddle.py FOLDER [NAME ...]

FOLDER: a clone of https://github.com/PaddlePaddle/PaddleSeg. NAME: a table to write; none: all. Needs paddlepaddle.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from paddle_weights import CASES, SIZES, SMALL, SMALL_FILES, STEP, XCEPTIONS, draw_paddle
from seeded import TABLES, draw_picture


def peer(folder: Path) -> Any:
    """Its models without the packages that only its training needs."""
    for name in ("", ".models", ".models.backbones", ".utils", ".cvlibs", ".models.layers"):
        module = types.ModuleType(f"paddleseg{name}")
        module.__path__ = [str(folder / "paddleseg" / name.replace(".", "/").lstrip("/"))]
        sys.modules[f"paddleseg{name}"] = module
    nothing = types.SimpleNamespace(load_pretrained_model=lambda *_: None)
    sys.modules["paddleseg.utils"].utils = nothing  # type: ignore[attr-defined]
    sys.modules["paddleseg.utils"].logger = types.SimpleNamespace()  # type: ignore[attr-defined]
    registry = types.SimpleNamespace(add_component=lambda found: found)
    sys.modules["paddleseg.cvlibs"].manager = types.SimpleNamespace(  # type: ignore[attr-defined]
        MODELS=registry, BACKBONES=registry
    )
    layers = sys.modules["paddleseg.models.layers"]
    sys.modules["paddleseg.models"].layers = layers  # type: ignore[attr-defined]
    from paddleseg.models.layers import activation, layer_libs, wrap_functions

    for module in (activation, wrap_functions, layer_libs):
        vars(layers).update({k: v for k, v in vars(module).items() if not k.startswith("_")})
    from paddleseg.models.layers import pyramid_pool

    layers.ASPPModule, layers.PPModule = pyramid_pool.ASPPModule, pyramid_pool.PPModule  # type: ignore[attr-defined]
    from paddleseg.models import deeplab, pspnet
    from paddleseg.models.backbones import resnet_vd, xception_deeplab

    return types.SimpleNamespace(**vars(deeplab) | vars(pspnet) | vars(resnet_vd) | vars(xception_deeplab))


def main(folder: Path, names: list[str]) -> None:
    import paddle

    project = peer(folder)
    for name in names or CASES:
        model, depth, backbone, options, _ = CASES[name]
        encoder = (
            project.XceptionDeeplab(f"xception_{depth}", **backbone)
            if depth in XCEPTIONS
            else project.ResNet_vd(depth, **backbone)
        )
        network = getattr(project, model)(21, encoder, **options)
        state = network.state_dict()
        shapes = {key: list(value.shape) for key, value in state.items()}
        network.set_state_dict({k: v.numpy() for k, v in draw_paddle(shapes).items()})
        network.eval()
        found = {}
        with paddle.no_grad():
            for height, width in SIZES:
                logits = network(paddle.to_tensor(draw_picture(height, width).numpy()))[0].numpy()
                found[f"{height}x{width}"] = logits[..., ::STEP, ::STEP]
        header = json.dumps({"shapes": shapes, "step": STEP, "paddle": paddle.__version__})
        np.savez_compressed(TABLES / f"paddle_{name}.npz", header=np.array(header), **found)
        print(name, {k: (v.shape, float(v.std())) for k, v in found.items()})
    SMALL_FILES.mkdir(exist_ok=True)
    weights = {key: paddle.to_tensor(value.numpy()) for key, value in draw_paddle(SMALL).items()}
    for protocol in (2, 4):
        paddle.save(weights, str(SMALL_FILES / f"protocol{protocol}.pdparams"), protocol=protocol)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
