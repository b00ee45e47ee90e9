"""Write the tables of test_tensorflow.py, and the small files that TensorFlow itself wrote.

python tests/parity/make_tensorflow.py FOLDER

FOLDER: research of https://github.com/tensorflow/models, or research/deeplab and research/slim/nets put together: it
has deeplab/ and slim/nets/. Needs tensorflow, tf_slim and tf_keras; the code is for TensorFlow 1, so its `contrib` is
put in place first.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from seeded import TABLES, draw_picture
from tensorflow_weights import CASES, SIZES, SMALL, SMALL_FILES, STEP, draw_tensorflow


def tensorflow_1() -> Any:
    import tensorflow.compat.v1 as tf
    import tf_slim

    tf.disable_v2_behavior()
    tf.logging.set_verbosity("ERROR")
    tf.contrib = types.SimpleNamespace(slim=tf_slim, layers=tf_slim, framework=tf_slim)
    sys.modules |= {"tensorflow": tf, "tensorflow.contrib": tf.contrib, "tensorflow.contrib.slim": tf_slim}
    sys.modules["tensorflow.contrib.slim.nets"] = importlib.import_module("tf_slim.nets")
    for name in ("", ".normalization", ".convolutional", ".base", ".core", ".pooling"):
        legacy = f"legacy_tf_layers{name}"
        sys.modules[f"tf_keras.{legacy}"] = importlib.import_module(f"tf_keras.src.{legacy}")
    return tf


def small_files(tf: Any, folder: Path) -> None:
    """A checkpoint and a frozen graph of a few variables, for the readers."""
    folder.mkdir(exist_ok=True)
    tf.reset_default_graph()
    shapes = {**SMALL, "small/Momentum": (3,)}
    weights = draw_tensorflow(shapes)
    for name, shape in shapes.items():
        tf.get_variable(name, shape, tf.float32)
    tf.get_variable("global_step", initializer=tf.constant(30000, tf.int64))
    tf.constant(1.5, tf.float32, [2, 3], name="one_value")
    tf.constant(["a", "bc"], name="strings")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values = {v.initializer.inputs[1]: weights[v.op.name].numpy() for v in tf.global_variables()[:-1]}
        session.run([v.initializer for v in tf.global_variables()[:-1]], values)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False)
        names = [*SMALL, "one_value", "strings"]
        graph = tf.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), names)
        (folder / "frozen_inference_graph.pb").write_bytes(graph.SerializeToString())
    (folder / "checkpoint").unlink()


def main(folder: Path) -> None:
    sys.path[:0] = [str(folder), str(folder / "slim")]
    tf = tensorflow_1()
    argv, sys.argv = sys.argv, sys.argv[:1]
    from deeplab import common, model

    tf.flags.FLAGS(sys.argv)
    only = argv[2:]
    small_files(tf, SMALL_FILES)
    for name, (variant, settings, _) in CASES.items():
        if only and name not in only:
            continue
        tf.reset_default_graph()
        options = common.ModelOptions(
            {"semantic": 21}, None, settings["atrous_rates"], settings["output_stride"]
        )
        options = options._replace(
            model_variant=variant,
            decoder_output_stride=settings.get("decoder"),
            multi_grid=settings.get("multi_grid"),
            depth_multiplier=settings.get("depth_multiplier", 1.0),
            aspp_with_separable_conv=settings.get("separable", True),
            decoder_use_separable_conv=settings.get("separable", True),
            add_image_level_feature=True,
            aspp_with_batch_norm=True,
        )
        # in the network's own range, behind its preprocessing
        from deeplab.core import feature_extractor

        for key in feature_extractor._PREPROCESS_FN:
            feature_extractor._PREPROCESS_FN[key] = lambda pictures: pictures
        pictures = tf.placeholder(tf.float32, [1, None, None, 3])
        scores = model.multi_scale_logits(pictures, options, [1.0])["semantic"]["merged_logits"]
        logits = tf.image.resize_bilinear(scores, tf.shape(pictures)[1:3], align_corners=True)
        shapes = {v.op.name: tuple(v.shape.as_list()) for v in tf.global_variables()}
        weights = draw_tensorflow(shapes)
        found = {}
        with tf.Session() as session:
            values = {v.initializer.inputs[1]: weights[v.op.name].numpy() for v in tf.global_variables()}
            session.run([v.initializer for v in tf.global_variables()], values)
            for height, width in SIZES:
                picture = draw_picture(height, width).permute(0, 2, 3, 1).numpy()
                values = session.run(logits, {pictures: picture})
                found[f"{height}x{width}"] = values.transpose(0, 3, 1, 2)[..., ::STEP, ::STEP]
        header = json.dumps({"shapes": shapes, "step": STEP, "tensorflow": tf.__version__})
        TABLES.mkdir(exist_ok=True)
        np.savez_compressed(TABLES / f"tensorflow_{name}.npz", header=np.array(header), **found)
        print(name, {k: (v.shape, float(v.std())) for k, v in found.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
