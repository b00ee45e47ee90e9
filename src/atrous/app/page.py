"""The gradio page, and its HTTP API: `segment` and `refine`. What they do is in work.py.

    picture, model, protocol, scales, flip  -> network -+-> CRF -> slider, legend -> downloads
    CRF and view ---------------------------------------+

What belongs to one visitor is in two `gr.State`s: `work`, which the network writes, and `results`, which the CRF
writes. The models are shared, and only read.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atrous.app import drawing, work
from atrous.app.offline import CONTENT_SECURITY, import_gradio
from atrous.app.work import Limits, Models, Scores, Upload, Wish
from atrous.crf import DenseCRF
from atrous.data.scenes import draw_scene
from atrous.errors import InputError
from atrous.predict import Segmentation
from atrous.protocols import PRESETS, SCALES

gr = import_gradio()

HERE = Path(__file__).parent
OWN = "the checkpoint's own"
NO_MODEL = "none"
SAMPLES = (1, 5, 0)  # scenes
SAMPLE_SIZE = (375, 500)
FORGET = 2 * 3600  # seconds after which a visitor's pictures and scores are dropped
HANDED_OVER = 60  # seconds after which gradio surely has its copy of a file

# Largest values of the sliders; the papers search bi_w 3..6, bi_xy_std 30..100, bi_rgb_std 3..10 (v2 sec. 4.1)
RANGES: dict[str, tuple[float, float, float, str]] = {
    "iter_max": (0, 20, 1, "mean-field iterations"),
    "bi_w": (0, 20, 0.5, "appearance: weight"),
    "bi_xy_std": (1, 160, 1, "appearance: reach, pixels"),
    "bi_rgb_std": (1, 40, 0.5, "appearance: reach, colour"),
    "pos_w": (0, 20, 0.5, "smoothness: weight"),
    "pos_xy_std": (0.5, 20, 0.5, "smoothness: reach, pixels"),
}


@dataclass(frozen=True)
class Work:
    """What a visitor has: a picture, and what one or two models say of it."""

    upload: Upload
    scores: tuple[Scores, ...]


def passing_folder(home: Path) -> Path:
    """A new folder for files that are handed over; those that have been are removed: gradio keeps copies of its own."""
    for old in home.iterdir():
        with suppress(OSError):  # another visitor's turn removes it
            if time.time() - old.stat().st_mtime > HANDED_OVER:
                shutil.rmtree(old)
    return Path(tempfile.mkdtemp(dir=home))


def file_of(home: Path, payload: Any) -> str | None:
    """An upload under the name that it has with the visitor: gradio changes some letters."""
    if payload is None or payload.path is None:
        return None
    path = Path(payload.path)
    if not payload.orig_name or payload.orig_name == path.name:
        return str(path)
    named = passing_folder(home) / Path(payload.orig_name.replace("\\", "/")).name
    try:
        named.symlink_to(path)
    except OSError:  # a name that cannot be one here
        return str(path)
    return str(named)


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
            names, wish = _wishes(*how)
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
            crf, shown = _crf(*tuned), list[Any]()
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
            names, wish = _wishes(*how)
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

        _add_api(models, limits, mine, picture, model, protocol, scales, flip, use_crf, sliders, home)
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


def _add_api(
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
        (name,), wish = _wishes(model, NO_MODEL, protocol, scales, flip)
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
            return answer(mine, _crf(crf, iter_max, bi_w, bi_xy_std, bi_rgb_std, pos_w, pos_xy_std))
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


def _wishes(
    model: str, other: str, protocol: str, scales: Sequence[str], flip: str
) -> tuple[tuple[str, ...], Wish]:
    """The models that are asked for, and how they are to look."""
    names = (model,) if other == NO_MODEL else (model, other)
    return names, Wish(
        None if protocol == OWN else protocol,
        tuple(float(scale) for scale in scales) or None,
        {"yes": True, "no": False}.get(flip),
    )


def _crf(use: bool, *values: float) -> dict[str, float] | None:
    return dict(zip(RANGES, map(float, values), strict=True)) if use else None


def draw_samples(folder: Path) -> list[Path]:
    """Scenes as files."""
    from PIL import Image

    paths = []
    for index in SAMPLES:
        paths.append(folder / f"scene_{index}.png")
        Image.fromarray(draw_scene(index, "test", size=SAMPLE_SIZE)[0]).save(paths[-1])
    return paths


class Address(str):
    """Where a page is served."""

    def wait(self) -> None:
        """Until Ctrl-C."""
        threading.Event().wait()


@contextmanager
def serve(models: Models, limits: Limits, host: str = "127.0.0.1", port: int = 7860) -> Iterator[Address]:
    """Serve the page while the context is open. port 0: any that is free. InputError where the port is taken."""
    from starlette.middleware import Middleware

    port = free_port(host, port)
    temporary = partial(tempfile.TemporaryDirectory, prefix="atrous-app-", ignore_cleanup_errors=True)
    with temporary() as folder, temporary() as home:
        page = build(models, limits, draw_samples(Path(folder)), Path(home))
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=int(limits.megabytes * 1e6),
            app_kwargs={"middleware": [Middleware(OwnServerOnly)]},
            footer_links=["api"],
            show_error=True,
            theme=_theme(),
            css_paths=[HERE / "page.css"],
            js=(HERE / "page.js").read_text(encoding="utf-8"),
            allowed_paths=[folder],
            ssr_mode=False,
            pwa=False,
        )
        try:
            yield Address(f"http://{host}:{port}")
        finally:
            page.close(verbose=False)


def free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. InputError where it is taken or the address is not this machine's."""
    try:
        with socket.create_server((host, port)) as listening:
            found: int = listening.getsockname()[1]
            return found
    except (OSError, OverflowError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(f"{host}:{port}: {why}: give another --port") from None


class OwnServerOnly:
    """Middleware that tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", CONTENT_SECURITY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def _theme() -> Any:
    """gradio's base theme in the reader's own fonts: its default fetches fonts from elsewhere."""
    return gr.themes.Soft(
        primary_hue="teal",
        neutral_hue="slate",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        block_title_text_weight="600",
        block_label_background_fill="*block_background_fill",
        block_label_background_fill_dark="*block_background_fill",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
    )


HEADER = (
    "<h1>atrous</h1><p>Semantic segmentation with DeepLab v1 to v3+ and PSPNet. "
    "Pictures stay on the machine that runs this page.</p>"
)
WELCOME = (
    '<p class="welcome">Drop a picture, paste one, or take a drawn scene. '
    "Drag the line across the result; point at it to see class and probability.</p>"
)


def _complaint(text: str) -> str:
    import html

    return f'<p class="complaint" role="alert">{html.escape(text)}</p>'


def _report(upload: Upload, scores: Sequence[Scores]) -> str:
    import html

    height, width = upload.image.shape[:2]
    times = ", ".join(f"{each.model} {each.seconds:.2f} s" for each in scores)
    lines = [f"{upload.file_name}, {width}x{height}; {times}", *upload.notes]
    return f'<p class="report">{"<br>".join(map(html.escape, lines))}</p>'
