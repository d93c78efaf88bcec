"""`spikevrt app`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_verb


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "app", _app, "spikevrt app --open", computes=True)
    parser.add_argument("--folder", type=Path, default=Path("out/app"), help="for uploads and results (out/app)")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0: any that is free (7860)")
    parser.add_argument("--max-upload-mb", type=int, default=2000, metavar="MB", help="largest upload (2000)")
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


def _app(parsed: argparse.Namespace) -> None:
    """The web page: upload footage or choose an example, look at it, restore it, compare, download."""
    from spikevrt.app.serve import serve

    serve(
        parsed.folder, host=parsed.host, port=parsed.port, max_upload_mb=parsed.max_upload_mb, open_browser=parsed.open
    )
