"""The page: one file that asks for nothing, with every number at its place, and nothing unescaped."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spikevrt import cli
from spikevrt.evaluate.results import merge, read_results
from spikevrt.report import results_page as page
from tests.evaluate.made_results import CONDITIONS, SCENES, read_values, write_results, write_values

VOID = {"meta", "img", "input", "br", "path", "rect", "use"}


class Reader(HTMLParser):
    """Tables as lists of rows, sections by id, all that is referred to; fails where tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.bold: list[tuple[int, int, int]] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [values[key] or "" for key in ("src", "href", "srcset", "action", "data") if key in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "b":
            table = self.tables[-1]
            self.bold.append((len(self.tables) - 1, len(table) - 1, len(table[-1]) - 1))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack and self.stack.pop() == tag, (tag, self.stack)

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.stack):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def made(made_scores) -> tuple[str, Reader]:
    text, pictured = page.page(read_results(made_scores))
    assert [entry.name for entry in pictured][:2] == ["medium_astronaut", "medium_coffee"] and len(pictured) == 4
    return text, Reader(text)


def test_the_page_asks_for_nothing(made):
    text, reader = made
    assert all(re.match(r"data:image/(webp|jpeg);base64,|#", reference) for reference in reader.references)
    assert "default-src 'none'" in text
    outside_of_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for forbidden in (
        "http:",
        "https:",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "<link",
        'src="//',
    ):
        assert forbidden not in outside_of_pictures, forbidden


def test_the_page_is_smaller_than_six_megabytes(made):
    assert 100_000 < len(made[0].encode()) < page.MAX_PAGE_BYTES


def test_every_section_has_a_link_and_ids_are_distinct(made):
    text, reader = made
    sections = ["summary", "results", "conditions", "stress", "recordings", "pictures", "protocol"]
    assert [name for name in reader.ids if name in sections] == sections
    assert len(set(reader.ids)) == len(reader.ids)
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(reader.ids)


def test_the_main_table_shows_methods_metrics_and_costs_with_the_best_in_bold(made):
    _, reader = made
    head, *rows = reader.tables[0]
    assert head == [
        "method", "psnr_rgb dB\xa0\u2191", "ssim_rgb\xa0\u2191", "lpips_alex\xa0\u2193",
        "edge_rise_px\xa0\u2193", "novel", "reads spikes", "parameters", "ms/frame", "peak MB",
    ]  # fmt: skip
    blur, ours, twin = rows
    assert blur[0] == "blur" and blur[2:] == ["0.7000", "0.3000", "7.00", "1.0000", "no", "-", "-", "-"]
    assert ours[2:] == ["0.9000", "0.1000", "2.50", "2.0000", "yes", "728,357", "1374", "1407"]
    assert twin[2:] == ["0.8000", "0.2000", "5.00", "3.0000", "no", "531,533", "1132", "1344"]
    assert float(blur[1]) < float(twin[1]) < float(ours[1])
    assert [place for place in reader.bold if place[0] == 0] == [(0, 2, column) for column in (1, 2, 3, 4)]


def test_the_table_of_conditions_marks_the_base_and_leaves_open_what_was_not_measured(made):
    head, *rows = made[1].tables[1]
    assert head == ["condition", "recordings", "blur", "spikevrt_tiny", "vrt_tiny"]
    assert [row[:2] for row in rows] == [["medium (base)", "2"], ["medium_threshold_2", "2"], ["medium_offset_8", "2"]]
    assert [row[4] != "-" for row in rows] == [True, False, False]


def test_stress_curves_have_a_line_a_method_and_a_level_one_of_what_reads_no_spikes(made, made_scores):
    text, _ = made
    stress = text[text.index('<section id="stress">') : text.index('<section id="recordings">')]
    figures = re.findall(r"<figure>.*?</figure>", stress, flags=re.DOTALL)
    titles = [re.findall("<figcaption>(.*?)</figcaption>", figure)[0] for figure in figures]
    assert titles == ["medium: psnr_rgb against threshold", "medium: psnr_rgb against time offset (ticks)"]
    for figure in figures:
        assert figure.count("stroke-dasharray") == 2  # the level line, and its key in the legend
        assert all(f">{name}</text>" in figure for name in ("blur", "spikevrt_tiny", "vrt_tiny"))
        assert figure.count("data-tip=") == 4  # two points of two methods
    ours = read_results(made_scores).methods[1]
    expected = sum(ours.scores[f"medium_offset_8_{scene}"].mean["psnr_rgb"] for scene in SCENES) / 2
    assert f'data-tip="spikevrt_tiny: {expected:.2f} at time offset (ticks) = 8"' in figures[1]


def test_each_pictured_recording_has_a_slider_two_choices_error_maps_a_profile_and_spikes(made):
    text, _ = made
    pictures = text[text.index('<section id="pictures">') : text.index('<section id="protocol">')]
    parts = pictures.split('class="compare"')[1:]
    assert len(parts) == 4
    for part, num_methods in zip(parts, (3, 3, 2, 2), strict=True):  # the twin was measured at the base alone
        assert part.count("<select") == 2 and part.count('type="range"') == 1
        assert part.count("<option") == 2 * (num_methods + 1)
        assert part.count('alt="error of ') == num_methods
        assert part.count("<figcaption>Across the strongest edge") == 1 and part.count(">sharp</text>") == 1
        [held] = re.findall(r'<script type="application/json">(.*?)</script>', part, flags=re.DOTALL)
        assert json.loads(held)["ticks"] > 37
    assert "No frame was kept of vrt_tiny." in parts[2]


def test_the_protocol_and_the_run_are_told(made):
    text, _ = made
    for told in ("dB, 8 bit after clamp and round", "0123456789abcdef0123", "7" * 64, "spikebench-v1, sha256 55555",
                 "spikevrt evaluate &#39;a folder&#39;", "x86_64, 1 threads", "torch 2.13.0"):  # fmt: skip
        assert told in text, told


def test_recordings_that_are_gone_leave_a_line_and_all_numbers(tmp_path):
    scores = write_results(tmp_path / "made")
    shutil.rmtree(tmp_path / "made" / "recordings" / "medium")
    text, pictured = page.page(read_results(scores), 4)
    assert len(pictured) == 4
    assert text.count(f"No pictures and no spikes: {tmp_path}/made/recordings/medium/astronaut: no such recording") == 1
    assert text.count('class="missing"') == 2 and text.count('class="compare"') == 2
    assert len(Reader(text).tables[0]) == 4


def test_results_without_conditions_make_a_page_without_curves(made_scores, tmp_path):
    values = read_values(made_scores)
    for recording in values["data"]["recordings"]:
        recording["condition"] = None
    values["benchmark"] = None
    text, _ = page.page(read_results(write_values(tmp_path, values)), 0)
    reader = Reader(text)
    assert {"stress", "conditions", "pictures"} & set(reader.ids) == set()
    assert "<h3>all recordings, 6 recordings</h3>" in text
    twin = reader.tables[0][3]
    assert twin[0] == "vrt_tiny" and twin[2] == "0.8000 (2 of 6)"
    assert all(row != 3 for table, row, _ in reader.bold if table == 0)  # partly measured is never the best


def test_results_without_any_score_are_refused(made_scores, tmp_path):
    values = read_values(made_scores)
    for method in values["methods"]:
        method["sequences"] = []
    with pytest.raises(ValueError, match=rf"^{tmp_path}/results.json: no score of any method; allowed: one or more"):
        page.page(read_results(write_values(tmp_path, values)))


def test_the_methods_of_two_files_stand_in_one_table(made_scores, tmp_path):
    values = read_values(made_scores)
    values["methods"] = values["methods"][:2]
    values["methods"][1]["name"] = "unet"
    other = write_values(tmp_path / "other", values)
    text, _ = page.page(merge([read_results(made_scores), read_results(other)]), 0)
    assert [row[0] for row in Reader(text).tables[0]] == ["method", "blur", "spikevrt_tiny", "vrt_tiny", "unet"]
    assert f"<h3>{other}/results.json</h3>" in text


def test_nothing_from_files_becomes_markup(made_scores, tmp_path):
    hostile = '</script><img src=x onerror="alert(1)">'
    values = read_values(made_scores)
    for entry in [*values["data"]["recordings"], *(s for m in values["methods"] for s in m["sequences"])]:
        entry["name"] += hostile
    for entry in values["data"]["recordings"]:
        entry["condition"]["suite"] = entry["condition"]["sensor"] = hostile
    values["methods"][1]["name"] = values["methods"][1]["weights"] = hostile
    values["protocol"][hostile] = values["environment"]["commit"] = values["benchmark"]["name"] = hostile
    values["environment"]["command"] = [hostile]
    values["methods"][0]["sequences"][0]["mean"][hostile] = 1.0
    text, _ = page.page(read_results(write_values(tmp_path, values)), 1)
    assert "<img src=x" not in text and "&lt;/script&gt;&lt;img src=x" in text
    Reader(text)


@pytest.mark.slow
def test_a_page_that_would_grow_too_large_has_fewer_pictures_unless_their_number_is_stated(made_scores, monkeypatch):
    monkeypatch.setattr(page, "MAX_PAGE_BYTES", 150_000)
    results = read_results(made_scores)
    assert len(page.page(results)[1]) == 1
    assert len(page.page(results, 3)[1]) == 3


def test_the_command_writes_the_page_and_says_where(made_scores, tmp_path, capsys):
    out = tmp_path / "new" / "report.html"
    assert cli.main(["report", str(made_scores), "--out", str(out), "--pictures", "1"]) == 0
    assert re.fullmatch(rf"report -> {re.escape(str(out))} \(\d+\.\d s\)\n", capsys.readouterr().out)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert out.read_text(encoding="utf-8").count('class="compare"') == 1


def test_an_existing_page_is_replaced_only_when_told(made_scores, tmp_path, capsys):
    out = tmp_path / "report.html"
    out.write_text("old")
    arguments = ["report", str(made_scores), "--out", str(out), "--pictures", "0"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"spikevrt: {out}: exists; choose another --out or pass --overwrite\n"
    assert out.read_text() == "old"
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert out.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "report.pdf"], "--out: report.pdf; allowed: a name that ends in .html"),
        (["--out", "a.html", "--pictures", "-1"], "--pictures: -1; allowed: 0 or more"),
    ],
    ids=("suffix", "pictures"),
)
def test_a_value_that_is_not_allowed_is_refused(made_scores, capsys, arguments, message):
    assert cli.main(["report", str(made_scores), *arguments]) == 2
    assert capsys.readouterr().err == f"spikevrt: {message}\n"


def test_the_results_folder_is_not_changed(made_scores):
    before = {path: path.stat().st_mtime_ns for path in Path(made_scores).rglob("*")}
    page.page(read_results(made_scores), 1)
    assert {path: path.stat().st_mtime_ns for path in Path(made_scores).rglob("*")} == before
    assert len(CONDITIONS) * len(SCENES) == len(read_results(made_scores).recordings)
