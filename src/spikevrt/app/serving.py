"""The page on the network of this machine: it listens on loopback unless told otherwise, and nothing is loaded
from elsewhere, neither by gradio (its environment is set before it is imported) nor by the browser
(Content-Security-Policy).
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from spikevrt.app import session
from spikevrt.app.page import build_page
from spikevrt.app.session import Place
from spikevrt.app.turns import Turns

CLOSE_S = 30.0  # for the clip at hand when the page is closed
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:"
)


def serve(folder: Path, *, host: str, port: int, max_upload_mb: int, open_browser: bool) -> None:
    """Serve the page until it is interrupted; then the running job is stopped, and nothing of it is left.

    Raises:
        ValueError: gradio is missing, or `port`, `host` or `max_upload_mb` cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("app: needs gradio; pip install 'spikevrt[web]'")
    port = free_port(host, port)
    place = session.make_place(folder, max_upload_mb)
    set_environment(place)
    turns = Turns()
    page = build_page(place, turns)
    if not is_loopback(host):
        print(
            f"spikevrt: warning: --host {host}: whoever reaches port {port} of this machine can upload files and use "
            "the page; it asks for no password",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        url = launch(page, place, host, port, open_browser)
        print(f"{url} (folder {place.folder}; Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("spikevrt: closing", file=sys.stderr)
    finally:
        turns.close(CLOSE_S)
        page.close(verbose=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. Raises ValueError for what is no address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ValueError(f"--host: {host!r}; allowed: an address of this machine, such as 127.0.0.1") from None


def free_port(host: str, port: int) -> int:
    """The port, or any free one for 0. Raises ValueError where it is taken or no port."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port: {port}; allowed: 0 (any that is free) to 65535")
    is_loopback(host)  # refuses what is no address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"--port: {port} on {host}: {error.strerror}; allowed: a free port, or 0 for any"
            ) from None
        return int(probe.getsockname()[1])


def set_environment(place: Place) -> None:
    """What gradio reads when it is imported: no analytics, no look at a hub, uploads into our folder, no proxy here."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ["GRADIO_TEMP_DIR"] = str(place.cache)
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost,::1")))


def launch(page: Any, place: Place, host: str, port: int, open_browser: bool) -> str:
    """Start serving in the background; returns the address."""
    import gradio as gr

    theme = gr.themes.Default(  # the visitor's own fonts: the theme's would be fetched
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    _, url, _ = page.launch(
        server_name=host, server_port=port, inbrowser=open_browser, prevent_thread_lock=True, quiet=True,
        share=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, footer_links=[],
        allowed_paths=[str(path) for path in place.shown], max_file_size=place.max_upload_bytes, show_error=False,
        theme=theme,
        css=(resources.files("spikevrt.app") / "app.css").read_text(encoding="utf-8"), head=policy,
    )  # fmt: skip
    return str(url)
