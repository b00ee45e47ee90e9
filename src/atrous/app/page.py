"""The gradio page. What it does is in work.py.

    picture, model, protocol, scales, flip  -> network -+-> CRF -> slider, legend -> downloads
    CRF and view ---------------------------------------+

What belongs to one visitor is in two `gr.State`s: `work`, which the network writes, and `results`, which the CRF
writes. The models are shared, and only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from atrous.app import drawing, work
from atrous.app.api import add_api
from atrous.app.offline import import_gradio
from atrous.app.visit import NO_MODEL, OWN, RANGES, Work, crf_of, file_of, passing_folder, wishes
from atrous.app.work import Limits, Models, Scores, Upload
from atrous.crf import DenseCRF
from atrous.errors import InputError
from atrous.predict import Segmentation
from atrous.protocols import PRESETS, SCALES

gr = import_gradio()

FORGET = 2 * 3600  # seconds after which a visitor's pictures and scores are dropped


def build(models: Models, limits: Limits, samples: Sequence[Path], home: Path) -> Any:
    """The page as gradio Blocks. home: a folder for files on their way."""
    crf_of_box = DenseCRF()
    with gr.Blocks(
        title="atrous", analytics_enabled=False, fill_width=True, delete_cache=(FORGET, FORGET)
    ) as page:
        mine = gr.State(None, time_to_live=FORGET)
        results = gr.State((), time_to_live=FORGET)
        gr.HTML(HEADER, elem_id="header")
        with gr.Row(elem_id="bench"):
            with gr.Column(scale=2, min_width=300, elem_id="controls"):
                picture = gr.Image(
                    label="picture",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=240,
                    elem_id="picture",
                )
                # gradio's own decodes it; that is for `read_upload`, and its limits
                picture.preprocess = partial(file_of, home)
                gr.Examples([[str(path)] for path in samples], [picture], label="or a drawn scene")
                model = gr.Dropdown(models.names, value=models.names[0], label="model", elem_id="model")
                other = gr.Dropdown(
                    [NO_MODEL, *models.names], value=NO_MODEL, label="beside it", elem_id="other"
                )
                with gr.Accordion("Protocol", open=False):
                    protocol = gr.Dropdown(
                        [OWN, *PRESETS], value=OWN, label="protocol", info="as a paper evaluates"
                    )
                    scales = gr.CheckboxGroup(
                        [f"{scale:g}" for scale in SCALES], label="scales", info="none: the protocol's"
                    )
                    flip = gr.Radio(["protocol's", "yes", "no"], value="protocol's", label="flip")
                with gr.Accordion("Dense CRF", open=True, elem_id="crf"):
                    use_crf = gr.Checkbox(False, label="CRF", info="sharpen with the dense CRF of v1 and v2")
                    sliders = [
                        gr.Slider(
                            low,
                            high,
                            value=float(getattr(crf_of_box, name)),
                            step=step,
                            label=name,
                            info=info,
                            elem_id=name,
                        )
                        for name, (low, high, step, info) in RANGES.items()
                    ]
            with gr.Column(scale=5, min_width=320, elem_id="results"):
                message = gr.HTML(WELCOME, elem_id="message")
                with gr.Row(elem_id="places"):
                    places = [_place(number) for number in range(2)]
                with gr.Row(elem_id="look"):
                    view = gr.Radio(
                        list(drawing.VIEWS), value="overlay", label="view", scale=1, min_width=160
                    )
                    opacity = gr.Slider(0, 1, value=0.55, step=0.05, label="opacity", scale=2, min_width=160)

        asked = [picture, model, other, protocol, scales, flip]
        tuned = [use_crf, *sliders, view, opacity]
        seen = [part for place in places for part in (place.slider, place.legend)]
        files = [button for place in places for button in place.downloads]

        def look(*values: Any) -> tuple[Any, ...]:
            """The network, on all models that are asked for."""
            path, *how = values
            if path is None:
                return None, WELCOME, gr.update(visible=False)
            names, wish = wishes(*how)
            try:
                upload = work.read_upload(path, limits)
                scores = tuple(work.segment(models, name, upload, wish) for name in names)
            except InputError as error:
                return None, _complaint(str(error)), gr.update(visible=False)
            return Work(upload, scores), _report(upload, scores), gr.update(visible=len(names) > 1)

        def sharpen(mine: Work | None, *values: Any) -> tuple[Any, ...]:
            """The CRF, and the pictures."""
            *tuned, view, opacity = values
            if mine is None:
                return (), *[None, ""] * len(places)
            crf, shown = crf_of(*tuned), list[Any]()
            results = tuple(work.refine(scores, mine.upload, crf) for scores in mine.scores)
            for scores, result in zip(mine.scores, results, strict=True):
                shown += [
                    drawing.before_after(mine.upload, result, view, opacity),
                    drawing.legend(scores, result),
                ]
            return results, *shown, *[None, ""] * (len(places) - len(results))

        def save(mine: Work | None, results: tuple[Segmentation, ...]) -> list[Any]:
            """The files of the buttons."""
            paths: list[Any] = []
            for result in results if mine is not None else ():
                assert mine is not None
                folder = passing_folder(home)
                paths += [
                    gr.update(value=str(path), interactive=True)
                    for path in work.write_downloads(folder, mine.upload, result)
                ]
            return paths + [gr.update(value=None, interactive=False)] * (len(files) - len(paths))

        def settled(*how: Any) -> list[Any]:
            """The CRF's controls as model and protocol have them."""
            names, wish = wishes(*how)
            try:
                crf = models.crf(names[0], wish)
            except InputError:  # `look` says it
                crf = None
            values = (
                {} if crf is None else {name: crf.get(name, getattr(crf_of_box, name)) for name in RANGES}
            )
            return [
                crf is not None,
                *(gr.update(value=float(values[n])) if values else gr.skip() for n in RANGES),
            ]

        network: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        hidden: dict[str, Any] = {"api_visibility": "private"}
        looked = {"fn": look, "inputs": asked, "outputs": [mine, message, places[1].column]}
        sharpened = {"fn": sharpen, "inputs": [mine, *tuned], "outputs": [results, *seen]}
        saved = {"fn": save, "inputs": [mine, results], "outputs": files}

        def then_show(event: Any) -> None:
            event.then(**sharpened, show_progress="hidden", **hidden).then(
                **saved, show_progress="hidden", **hidden
            )

        new_picture = gr.on([picture.change, scales.input, flip.input], **looked, **network, **hidden)
        then_show(new_picture)
        new_model = gr.on(
            [model.input, other.input, protocol.input],
            settled,
            [model, other, protocol, scales, flip],
            [use_crf, *sliders],
            **hidden,
        )
        then_show(new_model.then(**looked, **network, **hidden))
        gr.on(
            [use_crf.input, view.input, *(slider.input for slider in (*sliders, opacity))],
            **sharpened,
            trigger_mode="always_last",
            show_progress="hidden",
            **hidden,
        ).then(**saved, show_progress="hidden", **hidden)

        add_api(models, limits, mine, picture, model, protocol, scales, flip, use_crf, sliders, home)
    return page


@dataclass(frozen=True)
class Place:
    """Where the answer of one model is shown."""

    column: Any
    slider: Any
    legend: Any
    downloads: list[Any]


def _place(number: int) -> Place:
    with gr.Column(visible=number == 0, min_width=300, elem_classes="place") as column:
        slider = gr.ImageSlider(
            label=("result", "the model beside it")[number],
            show_label=False,
            type="filepath",
            format="jpeg",
            slider_position=12,
            max_height=560,
            interactive=False,
            buttons=["fullscreen"],
            elem_id=f"slider_{number}",
            elem_classes="segmented",
        )
        legend = gr.HTML("", elem_id=f"legend_{number}")
        with gr.Row(elem_classes="downloads"):
            downloads = [
                gr.DownloadButton(
                    name, interactive=False, size="sm", min_width=80, elem_id=f"{name}_{number}"
                )
                for name in ("mask", "overlay", "polygons")
            ]
    return Place(column, slider, legend, downloads)


HEADER = (
    "<h1>atrous</h1><p>Semantic segmentation with DeepLab v1 to v3+ and PSPNet. "
    "Pictures stay on the machine that runs this page.</p>"
)
WELCOME = (
    '<p class="welcome">Drop a picture, paste one, or take a drawn scene. '
    "Drag the line across the result; point at it to see class and probability.</p>"
)


def _complaint(text: str) -> str:
    return f'<p class="complaint" role="alert">{escape(text)}</p>'


def _report(upload: Upload, scores: Sequence[Scores]) -> str:
    height, width = upload.image.shape[:2]
    times = ", ".join(f"{each.model} {each.seconds:.2f} s" for each in scores)
    lines = [f"{upload.file_name}, {width}x{height}; {times}", *upload.notes]
    return f'<p class="report">{"<br>".join(map(escape, lines))}</p>'
