"""The page in a real browser: upload, see the mask, move a slider, point, download."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.data.scenes import draw_scene

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AFTER = "#slider_0 img.fixed"  # the picture that lies over the other
UPLOAD = "#picture input[type=file]"


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """A page of the browser; it asks nobody but its own server."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(30_000)
        page.goto(address)
        page.wait_for_selector(UPLOAD, state="attached")
        yield page
        browser.close()
        assert all(url.startswith((address, "data:", "blob:")) for url in asked), asked


def picture(path: Path, index: int = 4) -> Path:
    Image.fromarray(draw_scene(index, size=(120, 160))[0]).save(path)
    return path


def shown(page: Any, before: str = "") -> str:
    """The address of the picture after the slider, when it is another than `before`."""
    page.wait_for_function(
        "([selector, before]) => { const image = document.querySelector(selector);"
        " return image && image.complete && image.naturalWidth && image.src !== before; }",
        arg=[AFTER, before],
    )
    return str(page.get_attribute(AFTER, "src"))


def test_a_visit(page: Any, tmp_path: Path, scene_checkpoint: Path) -> None:
    path = picture(tmp_path / "my street.png")
    page.set_input_files(UPLOAD, path)
    page.wait_for_selector("#legend_0 li")
    first = shown(page)
    result = atrous.Predictor(scene_checkpoint, device="cpu").predict(path, probabilities=True)

    box = page.locator(AFTER).bounding_box()
    for y, x in ((30, 60), (100, 140)):  # the middle of a pixel
        page.mouse.move(box["x"] + (x + 0.5) / 160 * box["width"], box["y"] + (y + 0.5) / 120 * box["height"])
        page.wait_for_selector("#tip:not([hidden])")
        number = result.labels[y, x]
        assert result.probabilities is not None
        name, percent = page.inner_text("#tip span").rsplit(" ", 2)[:2]
        assert name == result.names[number]
        assert abs(float(percent) - 100 * result.probabilities[number, y, x]) <= 1

    with page.expect_download() as download:
        page.click("#mask_0")
    assert download.value.suggested_filename == "my street_mask.png"
    download.value.save_as(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), result.labels)

    page.check("#crf input[type=checkbox]")
    refined = shown(page, first)
    page.fill("#bi_w input[type=number]", "12")
    page.press("#bi_w input[type=number]", "Enter")
    stronger = shown(page, refined)
    assert len({first, refined, stronger}) == 3


def test_a_broken_upload_gets_a_line(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    page.set_input_files(UPLOAD, tmp_path / "broken.jpg")
    page.wait_for_selector("#message .complaint")
    assert page.inner_text("#message").startswith("broken.jpg: not a picture")
    assert "Traceback" not in page.content()
