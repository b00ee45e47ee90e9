"""The page as an HTTP API: `segment`, and `refine` on the scores that the same client's `segment` left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atrous.app import work
from atrous.app.offline import import_gradio
from atrous.app.visit import NO_MODEL, Work, crf_of, passing_folder, wishes
from atrous.app.work import Limits, Models
from atrous.errors import InputError

gr = import_gradio()


def add_api(
    models: Models,
    limits: Limits,
    mine: Any,
    picture: Any,
    model: Any,
    protocol: Any,
    scales: Any,
    flip: Any,
    use_crf: Any,
    sliders: Sequence[Any],
    home: Path,
) -> None:
    """/segment and /refine: the mask, overlay and polygon files, and a summary. `refine` goes on with the scores that
    the same client's `segment` left."""
    with gr.Column(visible=False):
        files = [gr.File(label=name) for name in ("mask", "overlay", "polygons")]
        summary = gr.JSON(label="summary")
        buttons = gr.Button("segment"), gr.Button("refine")

    def answer(mine: Work, crf: dict[str, float] | None) -> tuple[Any, ...]:
        begun = time.perf_counter()
        result = work.refine(mine.scores[0], mine.upload, crf)
        seconds = time.perf_counter() - begun
        paths = work.write_downloads(passing_folder(home), mine.upload, result)
        return *map(str, paths), {
            "model": mine.scores[0].model,
            "protocol": mine.scores[0].protocol,
            "size": list(result.labels.shape),
            "classes": [
                {
                    "class": share.number,
                    "name": share.name,
                    "share": round(share.share, 6),
                    "probability": round(share.confidence, 4),
                }
                for share in work.shares(result)
            ],
            "notes": list(mine.upload.notes),
            "crf": crf,
            "seconds": {"network": round(mine.scores[0].seconds, 3), "crf": round(seconds, 3)},
        }

    def segment(
        picture: str | None, model: str, protocol: str, scales: list[str], flip: str
    ) -> tuple[Any, ...]:
        if picture is None:
            raise gr.Error("which picture?", print_exception=False)
        (name,), wish = wishes(model, NO_MODEL, protocol, scales, flip)
        try:
            upload = work.read_upload(picture, limits)
            mine = Work(upload, (work.segment(models, name, upload, wish),))
            return mine, *answer(mine, models.crf(name, wish))
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def refine(
        mine: Work | None,
        crf: bool,
        iter_max: float,
        bi_w: float,
        bi_xy_std: float,
        bi_rgb_std: float,
        pos_w: float,
        pos_xy_std: float,
    ) -> tuple[Any, ...]:
        if mine is None:
            raise gr.Error("call segment first: refine works on its scores", print_exception=False)
        try:
            return answer(mine, crf_of(crf, iter_max, bi_w, bi_xy_std, bi_rgb_std, pos_w, pos_xy_std))
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None

    buttons[0].click(
        segment,
        [picture, model, protocol, scales, flip],
        [mine, *files, summary],
        api_name="segment",
        concurrency_id="network",
        concurrency_limit=1,
    )
    buttons[1].click(refine, [mine, use_crf, *sliders], [*files, summary], api_name="refine")
