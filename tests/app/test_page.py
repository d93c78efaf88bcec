"""The page in a browser, end to end: upload, look, restore, compare, download; mistakes, cancelling, waiting, a phone.

The command runs in a process of its own and headless Chromium visits it. Skipped where gradio, playwright or Chromium
is missing.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from spikevrt import shipped
from spikevrt.bench.demo import ASSETS
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import list_images, read_image
from spikevrt.recording.recording import open_recording
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SOON_MS, START_S = 120_000, 180  # a machine may be busy with other things
PHONE = {"width": 360, "height": 740}

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="no gradio"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="no playwright"),
    pytest.mark.slow,
]


class Server:
    """The command, serving from a folder that is deleted with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder.with_name("log")
        command = [sys.executable, "-m", "spikevrt", "app", "--folder", str(folder), "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, "--max-upload-mb", "3"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline() if readable else ""
        match = re.match(r"(http://127\.0\.0\.1:\d+/) \(folder ", line)
        assert match is not None, (line, self.log.read_text())
        self.url = match[1]

    def results(self) -> list[str]:
        """Everything that restorations wrote, half-written things included."""
        return sorted(path.name for path in self.folder.glob("jobs/*/*") if "result" in path.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("served") / "app")
    yield made
    made.process.send_signal(signal.SIGINT)
    assert made.process.wait(60) == 0
    told = made.log.read_text()
    refusals = told.count("gradio.exceptions.InvalidPathError")  # gradio's own, of the path that no upload put there
    assert told.count("Traceback") == refusals and told.endswith("spikevrt: closing\n"), told


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, server) -> Iterator[Any]:
    """Opens the page as another visitor each time; in the end nothing may have been asked of anybody else."""
    contexts, asked = [], []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SOON_MS)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(server.url)
        page.locator("#look-example").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    hosts = {urllib.parse.urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urllib.parse.urlsplit(server.url).netloc}


def zipped(folder: Path, out: Path) -> Path:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if "sharp" not in file.parts:
                archive.write(file, file.relative_to(folder.parent))
    return out


def upload(page: Any, file: Path, spikes: Path | None = None) -> None:
    page.get_by_role("tab", name="Your footage").click()
    for where, path in (("#video", file), ("#spikes", spikes)):
        if path is not None:
            page.locator(f"{where} input[type=file]").set_input_files(path)
            page.locator(where).get_by_text(path.stem, exact=False).first.wait_for()
    page.locator("#look-upload").click()


def told(page: Any, where: str) -> str:
    """The line that appears there."""
    line = page.locator(f"{where} [role=status], {where} [role=alert]").first
    line.wait_for()
    return line.inner_text().strip()


def downloaded(page: Any, button: str) -> tuple[str, Path]:
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value.suggested_filename, Path(download.value.path())


def shown_frames(page: Any) -> list[str]:
    pictures = page.locator("#slider img").evaluate_all("all => all.map(i => i.naturalWidth ? i.src : '')")
    return [source.rsplit("/", 1)[-1] for source in pictures]


@pytest.fixture(scope="module")
def off_rig(tmp_path_factory) -> Path:
    """A recording whose spikes lie 5 frame pixels beside the frames and 9 of 40 ticks late."""
    rig = RigConfig(margin_ticks=40, shift_x_px=5.0, offset_ticks=9)
    options = SimulateOptions(
        frames=3, width=128, height=96, exposure_ticks=40, period_ticks=48, motion_px=8.0, rig=rig
    )
    return simulate_recording(ASSETS / "astronaut.jpg", tmp_path_factory.mktemp("off") / "off", options).root


@pytest.fixture(scope="module")
def long_film(_made_photo, tmp_path_factory) -> Path:
    """A recording that takes several clips: 41 frames, in a zip."""
    folder = tmp_path_factory.mktemp("long")
    options = SimulateOptions(
        frames=41, width=80, height=64, exposure_ticks=37, period_ticks=41, motion_px=3.0, num_layers=0
    )
    simulate_recording(_made_photo, folder / "film", options)
    return zipped(folder / "film", folder / "film.zip")


def test_a_recording_is_uploaded_looked_at_restored_compared_and_taken_away(visit, server, street, tmp_path):
    page = visit()
    upload(page, zipped(street, tmp_path / "street.zip"))
    assert told(page, "#about").startswith("street: 3 frames of 80 x 64; 40 x 32 spikes, 119 ticks at 20000 Hz.")
    verdicts = page.locator("#findings tr td:nth-child(2)").all_inner_texts()
    assert len(verdicts) == 13 and set(verdicts) <= {"ok", "cannot tell"}
    assert page.locator("#preview img").evaluate("i => i.decode().then(() => i.naturalWidth)") >= 960
    assert "Health of street" in downloaded(page, "#health")[1].read_text(encoding="utf-8")

    assert page.locator("#weights input").input_value() == f"{shipped.DEFAULT}: {shipped.ABOUT[shipped.DEFAULT]}"
    page.locator("#start").click()
    page.locator("#restored").wait_for()
    for where, words in (("#slider", "blurry | restored by spikefold_tiny"),
                         ("#film", "Restored by spikefold_tiny, shown at 1.5 frames a second"),
                         ("#restored", "Download what spikefold_tiny restored")):  # fmt: skip
        assert words in page.locator(where).inner_text(), where
    assert re.fullmatch(
        r"3 frames restored by spikefold_tiny \(U-Net on blocks of 2x2 pixels, spike-corrected frames\) in [\d.]+ s\.",
        told(page, "#running"),
    )
    page.wait_for_function("document.querySelectorAll('#slider img').length == 2")
    assert shown_frames(page) == ["000000.png"] * 2

    handle, edge = page.locator("#slider [data-testid=slider]"), "i => i.style.clipPath"
    over = page.locator("#slider img").nth(1)
    assert over.evaluate(edge) == "inset(0px 0px 0px 50%)"
    handle.scroll_into_view_if_needed()
    box, field = handle.bounding_box(), page.locator("#slider .slider-wrap").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, field["y"] + field["height"] / 2)
    page.mouse.down()
    page.mouse.move(field["x"] + 0.2 * field["width"], field["y"] + field["height"] / 2, steps=5)
    page.mouse.up()
    moved = re.fullmatch(r"inset\(0px 0px 0px ([\d.]+)%\)", over.evaluate(edge))
    assert moved is not None and 10 < float(moved[1]) < 30

    page.locator("#frame input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("[...document.querySelectorAll('#slider img')].every(i => i.src.endsWith('000001.png'))")

    film = page.locator("#film video")
    film.evaluate("v => new Promise(ready => v.readyState >= 2 ? ready() : v.addEventListener('loadeddata', ready))")
    assert film.evaluate("v => [v.videoWidth, v.videoHeight, Math.round(v.duration)]") == [80, 64, 2]

    (job,) = [
        path.parent
        for path in server.folder.glob("jobs/*/result-1")
        if "street.zip" in os.listdir(path.parent / "upload")
    ]
    name, archive = downloaded(page, "#take-0")
    with zipfile.ZipFile(archive) as opened:
        assert name == "frames.zip"
        assert opened.namelist() == ["000000.png", "000001.png", "000002.png", "restored.json"]
        assert opened.read("000002.png") == (job / "result-1" / "frames" / "000002.png").read_bytes()
    assert downloaded(page, "#take-1")[0] == "restored.mp4"
    name, report = downloaded(page, "#take-2")
    assert name == "report.html" and "3 frames restored by spikefold_tiny" in report.read_text(encoding="utf-8")
    name, summary = downloaded(page, "#take-3")
    assert name == "restored.json" and json.loads(summary.read_text())["num_frames"] == 3


def test_mistakes_are_told_in_one_line_and_can_be_mended_there(visit, server, street, tmp_path):
    recording = open_recording(street)
    blurry, bad, spikes = tmp_path / "blurry.mp4", tmp_path / "bad.mp4", tmp_path / "car.dat"
    write_video(blurry, [read_image(path) for path in list_images(street / "blur")], recording.fps)
    bad.write_bytes(b"no video")
    spikes.write_bytes((street / "spikes.dat").read_bytes())

    page = visit()
    page.locator("#look-example").click()
    assert told(page, "#told") == "example: none chosen; allowed: bridge, clock, astronaut, city"
    upload(page, bad)
    page.get_by_text("bad.mp4: not a video, or a damaged one").wait_for()
    assert not page.locator("#looked").is_visible()

    page = visit()
    upload(page, blurry, spikes)
    assert told(page, "#told") == (
        "car.dat: does not tell its size: choose one of the sizes that fit, the likeliest first; or state "
        '"Spike width (pixels)" and "Spike height (rows)"'
    )
    page.get_by_label("Spike width (pixels)").fill("forty")  # which stands open
    page.locator("#look-upload").click()
    page.get_by_text("\"Spike width (pixels)\": 'forty'; allowed: a whole number, or nothing").wait_for()
    page.get_by_label("Spike width (pixels)").fill("")
    page.locator("#look-upload").click()
    page.locator("#sizes input").first.check()
    page.wait_for_function("document.querySelector('#spike_height input, #spike_height textarea').value == '32'")
    assert page.get_by_label("Spike width (pixels)").input_value() == "40"
    assert not page.locator("#top_down input").is_checked()
    page.get_by_text("Times: exposure, rates").click()
    page.locator("#exposure input").fill("37")
    page.locator("#look-upload").click()
    page.get_by_text("\"Exposure\": '37'; allowed: a time with its unit: 6.4ms").wait_for()
    page.locator("#exposure input").fill("37ticks")
    page.locator("#look-upload").click()
    assert told(page, "#about").startswith("blurry: 3 frames of 80 x 64; 40 x 32 spikes, 119 ticks")
    assert page.locator("#told").inner_text().strip() == "" and not page.locator("#sizes").is_visible()
    notes = page.locator("#notes li").all_inner_texts()
    assert 'tick rate: 20000 read-outs a second are assumed; "Spike rate (Hz)" states another' in notes


def test_cameras_are_aligned_on_the_page_and_the_alignment_is_undone(visit, server, off_rig, tmp_path):
    files = zipped(off_rig, tmp_path / "off.zip")
    page = visit()
    upload(page, files)
    told(page, "#about")
    before = page.locator("#findings").inner_text()
    assert "In order" not in page.locator("#about").inner_text() and not page.locator("#overlay img").is_visible()
    page.locator("#align").click()
    page.locator("#stop-align:enabled").wait_for()
    page.locator("#stop-align").click()
    page.locator("#aligning").get_by_text("Cancelled. Nothing was changed.").wait_for()
    assert not list(server.folder.glob("jobs/*/*aligned*")) and page.locator("#start").is_enabled()

    page.locator("#align").click()
    page.locator("#aligning").get_by_text(re.compile(r"^Fit \d+ of \d+")).wait_for()
    page.locator("#estimate").get_by_text("residual").wait_for()
    after = re.search(r"residual ([\d.]+) -> ([\d.]+) px", page.locator("#estimate").inner_text())
    assert after is not None and float(after[1]) > 2 > 0.7 > float(after[2])
    assert page.locator("#overlay img").evaluate("i => i.decode().then(() => i.naturalWidth)") >= 640
    assert page.locator("#notes li").first.inner_text().startswith("aligned: offset ")
    assert page.locator("#findings").inner_text() != before
    page.locator("#start").click()
    page.locator("#restored").wait_for()
    summary = json.loads(downloaded(page, "#take-3")[1].read_text())
    assert abs(summary["alignment"]["offset_ticks"] - 9) < 0.6 and summary["alignment"]["homography"] is not None

    page.locator("#undo").click()
    page.locator("#undo").wait_for(state="hidden")
    assert page.locator("#findings").inner_text() == before and not page.locator("#restored").is_visible()


def test_a_file_that_is_too_large_is_refused_by_the_browser(visit, tmp_path):
    big = tmp_path / "big.mp4"
    big.write_bytes(bytes((3 << 20) + 1))
    page = visit()
    page.get_by_role("tab", name="Your footage").click()
    page.locator("#video input[type=file]").set_input_files(big)
    page.get_by_text("exceed the maximum allowed size of 3").wait_for()


def choose_weights(page, name: str) -> None:
    """As a visitor does, who looks whether the page took it: under load the list may open late."""
    from playwright.sync_api import expect

    chosen = page.locator("#weights input")
    chosen.click()
    page.get_by_role("option", name=f"{name}:").click()
    expect(chosen).to_have_value(re.compile(f"^{name}:"), timeout=60_000)


def test_a_second_job_waits_says_so_and_starts_when_the_first_is_cancelled(visit, server, long_film, street, tmp_path):
    before = server.results()
    first, second = visit(), visit()
    upload(first, long_film)
    upload(second, zipped(street, tmp_path / "street.zip"))
    told(first, "#about")
    told(second, "#about")
    choose_weights(first, "spikevrt_tiny")
    first.locator("#start").click()
    first.locator("#running").get_by_text(re.compile(r"^Frame \d+ of 41, about \d+ s left\.")).wait_for()
    assert 0 < float(first.locator("#running progress").get_attribute("value")) < 41
    assert first.locator("#start").is_disabled() and first.locator("#look-upload").is_disabled()

    second.locator("#start").click()
    second.locator("#running").get_by_text("Waiting: 1 job before yours.").wait_for()
    assert not second.locator("#restored").is_visible()

    first.locator("#cancel").click()
    first.locator("#running").get_by_text(
        "Cancelled. No frame was kept; the footage stays, and can be restored again."
    ).wait_for()
    assert not first.locator("#restored").is_visible() and first.locator("#start").is_enabled()
    second.locator("#restored").wait_for()
    assert server.results() == sorted([*before, "result-1"])  # the second's; of the first not even a part


def test_a_visitor_who_leaves_stops_his_job(visit, server, long_film):
    before = server.results()
    page = visit()
    upload(page, long_film)
    told(page, "#about")
    choose_weights(page, "spikevrt_tiny")
    page.locator("#start").click()
    page.locator("#running").get_by_text(re.compile(r"^Frame \d+ of 41")).wait_for()
    page.close()
    page = visit()
    page.get_by_label("bridge (photograph)").check()
    for _ in range(SOON_MS // 100):
        if server.results() == before:
            break
        page.wait_for_timeout(100)
    assert server.results() == before


def test_nothing_outside_the_folder_is_read_for_a_visitor(server, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_text("do not tell")
    for path in (
        "/etc/hostname",
        secret,
        f"{server.folder}/jobs/../../log",
        f"{server.folder}/../log",
        ROOT / "README.md",
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}gradio_api/file={path}", timeout=20)
        assert caught.value.code in (403, 404), path

    config = json.load(urllib.request.urlopen(f"{server.url}config", timeout=20))
    (number,) = [entry["id"] for entry in config["dependencies"] if entry["api_name"] == "show_upload"]
    assert {entry["api_visibility"] for entry in config["dependencies"]} == {"private"}
    video = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    event = {"data": [video, None, *[None] * 16], "fn_index": number, "session_hash": "visitor"}
    request = urllib.request.Request(
        f"{server.url}gradio_api/queue/join", json.dumps(event).encode(), {"Content-Type": "application/json"}
    )
    json.load(urllib.request.urlopen(request, timeout=20))
    answers = ""
    with urllib.request.urlopen(f"{server.url}gradio_api/queue/data?session_hash=visitor", timeout=60) as stream:
        for line in stream:
            answers += line.decode()
            if "process_completed" in answers:
                break
    last = json.loads(answers.strip().splitlines()[-1].removeprefix("data: "))
    assert last["success"] is False and "do not tell" not in answers
    assert not list(server.folder.rglob("secret*"))


def test_nothing_is_wider_than_a_phone(visit, server, street, tmp_path):
    page = visit(viewport=PHONE)
    upload(page, zipped(street, tmp_path / "street.zip"))
    told(page, "#about")
    page.get_by_text("Spike file: size").click()
    page.get_by_text("Times: exposure, rates").click()
    page.locator("#start").click()
    page.locator("#restored").wait_for()
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1] == PHONE["width"]
    boxes = page.locator("button:visible, input:visible, table:visible, img:visible, video:visible")
    for box in boxes.evaluate_all("all => all.map(e => [e.getBoundingClientRect().right, e.outerHTML.slice(0, 200)])"):
        assert box[0] <= PHONE["width"], box
