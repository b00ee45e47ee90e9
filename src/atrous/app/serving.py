"""The page on an address of this machine, and what its answers forbid the browser."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from atrous.app.offline import CONTENT_SECURITY, import_gradio
from atrous.app.page import build
from atrous.app.work import Limits, Models
from atrous.data.scenes import draw_scene
from atrous.errors import InputError

gr = import_gradio()

HERE = Path(__file__).parent
SAMPLES = (1, 5, 0)  # scenes
SAMPLE_SIZE = (375, 500)


def draw_samples(folder: Path) -> list[Path]:
    """Scenes as files."""
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
