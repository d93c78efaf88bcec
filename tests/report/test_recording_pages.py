"""The health page: one file, nothing loaded from elsewhere, nothing unescaped."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spikevrt.align.health import NAMES, check_health
from spikevrt.align.pairing import ORIENTATIONS
from spikevrt.recording.recording import open_recording
from spikevrt.report.recording_pages import write_health_page

VOID = {"meta", "img", "path", "use"}


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack and self.stack.pop() == tag, (tag, self.stack)


def test_the_page_shows_every_finding_and_orientation_in_one_file(recording_folder: Path, tmp_path: Path) -> None:
    recording = open_recording(recording_folder)
    write_health_page(tmp_path / "a.html", recording, check_health(recording))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    for name in (*NAMES, *ORIENTATIONS):
        assert f">{name}<" in page, name
    assert "nan" not in page.lower().replace("nance", "") and "inf," not in page
    assert all(source.startswith("data:image/webp;base64,") for source in re.findall(r' (?:src|href)="([^"]*)"', page))
    assert (
        not {"http:", "https:", "<script"} & set(re.findall("https?:|<script", page)) and "default-src 'none'" in page
    )
    balance = _Balance()
    balance.feed(page)
    assert balance.stack == []
    assert [path.name for path in tmp_path.glob("*a.html*")] == ["a.html"]


def test_a_page_that_goes_to_others_has_no_path_of_this_machine(recording_folder: Path, tmp_path: Path) -> None:
    recording = open_recording(recording_folder)
    report = check_health(recording)
    finding = dataclasses.replace(report.findings[0], sentence=f"run `spikevrt align {recording_folder}`")
    write_health_page(tmp_path / "a.html", recording, dataclasses.replace(report, findings=(finding,)))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert f"`spikevrt align {recording.name}`" in page and str(tmp_path) not in page


def test_a_name_cannot_become_markup(recording_folder: Path, tmp_path: Path) -> None:
    hostile = recording_folder.rename(tmp_path / "<b onclick=x>&")
    recording = open_recording(hostile)
    report = check_health(recording)
    finding = dataclasses.replace(report.findings[0], sentence="<script>alert(1)</script>")
    write_health_page(
        tmp_path / "a.html", recording, dataclasses.replace(report, findings=(finding, *report.findings[1:]))
    )
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b onclick" not in page and "&lt;b onclick=x&gt;&amp;" in page


def test_a_page_that_fails_leaves_nothing_behind(
    recording_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = open_recording(recording_folder)
    report = check_health(recording)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_health_page(tmp_path / "a.html", recording, report)
    assert not list(tmp_path.glob("*a.html*"))
