"""The page in a browser: its script runs, slider, choices and spikes do what they say, nothing is wider than a phone.

Headless Chromium opens copies of the page with a few lines of script at their end, which use the controls as a visitor
does and leave what they found in the page; `--dump-dom` prints it. Skipped where there is no Chromium.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.evaluate.results import read_results
from spikevrt.recording.recording import open_recording
from spikevrt.report import results_page as page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=8000",
)  # fmt: skip
PHONE_PX = 360

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def text(made_scores) -> str:
    return page.page(read_results(made_scores), 1)[0]


def browse(folder: Path, text: str) -> str:
    """The page as it is after its scripts ran."""
    (folder / "page.html").write_text(text, encoding="utf-8")
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers(folder: Path, text: str, script: str) -> Any:
    """What `script`, the body of a function, returns inside the page."""
    answer = f"document.body.dataset.answer = JSON.stringify((() => {{ {script} }})());"
    added = f"<script>addEventListener('load', () => {{ {answer} }});</script></body>"
    shown = browse(folder, text.replace("</body>", added))
    found = re.search(r'<body data-answer="([^"]*)"', shown)
    assert found is not None, shown[:2000]
    return json.loads(html.unescape(found[1]))


def test_the_script_runs_to_its_end_from_a_file(tmp_path, text):
    assert 'data-ready="yes"' in browse(tmp_path, text)[:500]
    assert 'data-ready="yes"' not in text


def test_the_slider_uncovers_the_right_picture_and_the_choices_pick_the_two(tmp_path, text):
    found = answers(
        tmp_path,
        text,
        """
        const figure = document.querySelector(".compare");
        const set = (control, value) => { control.value = value; control.dispatchEvent(new Event("input")); };
        const seen = () => [...figure.querySelectorAll(".view.shown")].map((view) => {
          const picture = view.querySelector("img");
          return [picture.alt, view.style.clipPath, view.style.zIndex, picture.naturalWidth];
        });
        const before = seen();
        set(figure.querySelector("input[type=range]"), "30");
        set(figure.querySelector("select.left"), "vrt_tiny");
        set(figure.querySelector("select.right"), "sharp");
        const after = seen();
        set(figure.querySelector("select.left"), "sharp");
        const tags = [...figure.querySelectorAll(".tag")].map((tag) => tag.textContent);
        return [before, after, seen(), tags];
        """,
    )
    half, most = "inset(0px 0px 0px 50%)", "inset(0px 0px 0px 30%)"
    assert found[0] == [["blur", "", "", 128], ["spikevrt_tiny", half, "1", 128]]  # at first: the best here
    assert found[1] == [["vrt_tiny", "", "", 128], ["sharp", most, "1", 128]]
    assert found[2] == [["sharp", "", "1", 128]] and found[3] == ["sharp", "sharp"]


def test_a_click_and_two_numbers_show_the_spikes_of_that_pixel(tmp_path, text, made_scores):
    found = answers(
        tmp_path,
        text,
        """
        const section = document.querySelector(".spikes");
        const [row, column] = ["row", "column"].map((name) => section.querySelector(`input.${name}`));
        const seen = () => [+row.value, +column.value,
          (section.querySelector(".ticks").getAttribute("d").match(/M/g) || []).length,
          section.querySelector("output").textContent];
        const stack = document.querySelector(".stack");
        const box = stack.getBoundingClientRect();
        const click = (x, y) => stack.dispatchEvent(new MouseEvent("click",
          { clientX: box.left + box.width * x, clientY: box.top + box.height * y, bubbles: true }));
        const first = seen();
        click(0.01, 0.01);
        const corner = seen();
        click(0.99, 0.508);
        const edge = seen();
        column.value = +column.value - 3;
        column.dispatchEvent(new Event("change"));
        const typed = seen();
        row.value = 9999;
        row.dispatchEvent(new Event("change"));
        return [first, corner, edge, typed, seen()];
        """,
    )
    entry = read_results(made_scores).recordings[0]
    recording = open_recording(entry.path)
    exposure = recording.exposures[1]
    half = exposure.num_ticks // 2
    spikes = recording.spikes.read(exposure.start_tick - half, exposure.stop_tick + half).astype(np.int64)
    inside = recording.read_exposure_spikes(1).astype(np.int64)
    first, corner, edge, typed, refused = found
    for row, column, num_drawn, told in (first, corner, edge, typed):
        assert num_drawn == spikes[:, row, column].sum()
        assert f"row {row}, column {column}: {inside[:, row, column].sum()} spikes in the 37 ticks" in told
    assert (edge[1] - corner[1], edge[0] - corner[0]) == (63, 32) and typed[:2] == [edge[0], edge[1] - 3]
    assert (first[0] - corner[0], first[1] - corner[1]) == (32, 32)
    assert refused[2] == 0 and "is not among the pixels that this page holds" in refused[3]


def test_a_point_tells_its_value_when_it_is_focused_or_tapped(tmp_path, text):
    focused, tapped, away = answers(
        tmp_path,
        text,
        """
        const points = document.querySelectorAll("#stress [data-tip]");
        const tip = document.getElementById("tip");
        points[0].dispatchEvent(new FocusEvent("focusin", { bubbles: true }));
        const focused = [tip.hidden, tip.textContent === points[0].dataset.tip];
        points[3].dispatchEvent(new MouseEvent("click", { bubbles: true }));
        const tapped = [tip.hidden, tip.textContent === points[3].dataset.tip];
        document.querySelector("h1").dispatchEvent(new MouseEvent("click", { bubbles: true }));
        return [focused, tapped, tip.hidden];
        """,
    )
    assert focused == tapped == [False, True] and away is True


def test_nothing_is_wider_than_a_phone(tmp_path, text):
    """The page in a frame as wide as a phone: a window of headless Chromium can be no narrower than 500 pixels."""
    frame = f'<iframe style="width: {PHONE_PX}px; height: 700px; border: 0" srcdoc="{html.escape(text)}"></iframe>'
    outer = f"<!doctype html><html><body>{frame}<script>addEventListener('load', () => {{ const inner = " \
        "document.querySelector('iframe').contentDocument; document.body.dataset.answer = JSON.stringify([" \
        "inner.documentElement.clientWidth, inner.documentElement.scrollWidth, inner.documentElement.dataset.ready])" \
        "});</script></body></html>"  # fmt: skip
    shown = browse(tmp_path, outer)
    answer = re.search(r'<body data-answer="([^"]*)"', shown)
    assert answer is not None, shown[-500:]
    width, needed, ready = json.loads(html.unescape(answer[1]))
    assert width <= PHONE_PX and needed <= width and ready == "yes"
