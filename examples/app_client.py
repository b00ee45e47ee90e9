"""The page of `atrous app` as an HTTP API: `python examples/app_client.py PICTURE [ADDRESS] [OUT]`.

`segment` runs the network and answers with a mask, an overlay, polygons and a summary; `refine` goes on from the scores
that it left for this client, so other parameters of the CRF cost the CRF alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from gradio_client import Client, handle_file


def main(picture: str, address: str = "http://127.0.0.1:7860", out: str = "from_the_page") -> None:
    client = Client(address, verbose=False)
    mask, overlay, polygons, summary = client.predict(handle_file(picture), api_name="/segment")
    for found in summary["classes"]:
        print(f"{100 * found['share']:5.1f} %  {found['name']}, probability {found['probability']:.2f}")
    Path(out).mkdir(parents=True, exist_ok=True)
    for file in (mask, overlay, polygons):
        shutil.copy(file, out)

    for weight in (2, 4, 8):
        *_, summary = client.predict(crf=True, bi_w=weight, api_name="/refine")
        print(f"bi_w {weight}: {len(summary['classes'])} classes, CRF {summary['seconds']['crf']:.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
