"""Where the page listens, and what is refused before anything is started. The page itself: test_app."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from spikevrt import cli
from spikevrt.app import serving, session


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["app", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("spikevrt: ") and err.count("\n") == 1
    return err.removeprefix("spikevrt: ").rstrip("\n")


def test_without_gradio_the_line_says_what_to_install(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refused(capsys, "--folder", tmp_path / "app") == "app: needs gradio; pip install 'spikevrt[web]'"
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port: 70000; allowed: 0 (any that is free) to 65535"),
        (["--host", "example"], "--host: 'example'; allowed: an address of this machine, such as 127.0.0.1"),
        (["--max-upload-mb", "0", "--port", "0"], "--max-upload-mb: 0; allowed: 1 or more"),
    ],
)
def test_an_option_that_cannot_be_is_told_in_one_line(capsys, monkeypatch, tmp_path, options, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert refused(capsys, "--folder", tmp_path / "app", *options) == message
    assert not (tmp_path / "app").exists()


def test_a_port_that_is_taken_is_told(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = refused(capsys, "--folder", tmp_path / "app", "--port", port)
    assert text.startswith(f"--port: {port} on 127.0.0.1: ") and text.endswith("; allowed: a free port, or 0 for any")


def test_any_free_port_is_found():
    port = serving.free_port("127.0.0.1", 0)
    assert 1024 <= port < 65536 and serving.free_port("127.0.0.1", port) == port


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_only_loopback_is_local(host, is_local):
    assert serving.is_loopback(host) is is_local


def test_gradio_asks_nobody_and_keeps_uploads_in_the_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"NO_PROXY": "example.org", "HTTP_PROXY": "http://proxy"})
    place = session.make_place(tmp_path / "app", 1)
    serving.set_environment(place)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and os.environ["HF_HUB_OFFLINE"] == "1"
    assert Path(os.environ["GRADIO_TEMP_DIR"]) == place.folder / "cache"
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"


def test_the_browser_may_fetch_from_the_page_alone():
    sources = {word for part in serving.POLICY.split(";") for word in part.split()[1:]}
    assert sources == {"'self'", "data:", "blob:", "'unsafe-inline'", "'unsafe-eval'"}
