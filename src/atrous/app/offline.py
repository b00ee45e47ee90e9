"""gradio, told to talk to nobody but the browser before it."""

from __future__ import annotations

import importlib
import os
from typing import Any

from atrous.errors import InputError

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # also its question for a newer version
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}

# The page may load and ask only what its own server has.
CONTENT_SECURITY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob: ws: wss:; frame-ancestors 'self'"
)


def import_gradio() -> Any:
    """The module; InputError with the pip command where it is not installed."""
    os.environ.update(QUIET)
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("gradio", "gradio_client"):
            raise
        raise InputError("the page needs gradio: pip install 'atrous[app]'") from None
