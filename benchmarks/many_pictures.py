"""Pictures a second from files to files, and of each stage alone: what limits a large folder.

    python benchmarks/many_pictures.py CKPT [--pictures 200] [--size 480 360] [--batch_sizes 1 4 16] [--device auto]

Draws scenes, writes them as JPEG, and times: decoding, the network, encoding and writing (each alone, one thread for
the first and last), then `segment_files`, where they overlap. Prints a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from atrous.data.pictures import read_image
from atrous.data.scenes import draw_scene
from atrous.finding import find_pictures
from atrous.predict import Predictor
from atrous.record import Record
from atrous.results import write_segmentation
from atrous.segment_files import segment_files


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 360), help="width and height")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=(1, 4, 16))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    width, height = given.size
    predictor = Predictor(given.checkpoint, device=given.device)
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder, "photos"), Path(folder, "out")
        photos.mkdir()
        for number in range(given.pictures):
            Image.fromarray(draw_scene(number, size=(height, width))[0]).save(
                photos / f"{number:05}.jpg", quality=90
            )
        files = find_pictures([photos])
        images = [read_image(path) for path in files.values()]
        predictor.predict_batch(images[: max(given.batch_sizes)])  # first calls compile and choose algorithms

        print(f"{given.pictures} pictures of {width}x{height} on {predictor.device}, {predictor.protocol}\n")
        print("| stage | pictures/s |\n|---|---:|")
        rows = [("decode, one thread", lambda: [read_image(path) for path in files.values()])]
        for size in given.batch_sizes:
            batches = [images[i : i + size] for i in range(0, len(images), size)]
            rows.append(
                (
                    f"network, batches of {size}",
                    lambda batches=batches: [*map(predictor.predict_batch, batches)],
                )
            )
        results = [predictor.predict(image) for image in images]
        rows.append(
            (
                "encode and write, one thread",
                lambda: [
                    write_segmentation(result, image, out / "alone", name)
                    for result, image, name in zip(results, images, files, strict=True)
                ],
            )
        )
        for size in given.batch_sizes:
            target = out / str(size)
            rows.append(
                (
                    f"files to files, batches of {size}",
                    lambda size=size, target=target: segment_files(
                        predictor, files, target, Record(target, {}), batch_size=size
                    ),
                )
            )
        for name, work in rows:
            print(f"| {name} | {given.pictures / seconds(work):.1f} |", flush=True)


if __name__ == "__main__":
    main()
