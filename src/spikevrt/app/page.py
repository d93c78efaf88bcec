"""The web page over `restore`: upload, health, a restoration with progress, a slider, downloads.

Gradio draws it; `session` does the work and `turns` is the queue. `serve` puts it on the network of this machine: it
listens on loopback unless told otherwise, and nothing is loaded from elsewhere, neither by gradio (its environment is
set before it is imported) nor by the browser (Content-Security-Policy).
"""

from __future__ import annotations

import asyncio
import html
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from spikevrt import shipped
from spikevrt.align.health import HealthReport
from spikevrt.app import session
from spikevrt.app.session import Footage, Place, Result
from spikevrt.app.turns import Progress, Ticket, Turns
from spikevrt.app.uploads import read_stated
from spikevrt.bench.demo import SCENES, VIDEO
from spikevrt.recording.sidecar import TICK_RATE_HZ
from spikevrt.report.recording_pages import findings_table, network_of, restored_words

POLL_S = 0.2  # between two looks at a job
FIELDS = {  # of `Stated`: label and hint
    "spike_width": ("Spike width (pixels)", "a packed .dat does not tell it"),
    "spike_height": ("Spike height (rows)", "a packed .dat does not tell it"),
    "tick_rate_hz": ("Tick rate (Hz)", f"empty: {TICK_RATE_HZ:g}"),
    "first_tick": ("First tick", "empty: 0"),
    "exposure_ticks": ("Exposure (ticks)", "empty: the period"),
    "period_ticks": ("Period (ticks)", "empty: all ticks over all frames"),
}
CAPTION = (
    "The spikes as pictures: firing rate around the middle frame (TFP), inverse interval there (TFI), mean of all "
    "ticks; then that frame of the colour camera (and the sharp one, where it is known). Not restored yet. Check that "
    "the spikes are upright and show the same scene."
)
INTRO = """# SpikeVRT
Sharp video from a blurry colour video and the stream of a spike camera beside it. Everything runs on this machine."""


def build_page(place: Place, turns: Turns) -> Any:
    """The page (`gradio.Blocks`), not yet served. Jobs of all its visitors take their turn in `turns`."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="(gradio|starlette|fastapi|websockets).*")
    import gradio as gr

    with gr.Blocks(title="SpikeVRT", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        footage, ticket, result = gr.State(), gr.State(), gr.State()
        gr.Markdown(INTRO)
        with gr.Tabs():
            with gr.Tab("Example"):
                kinds = {name: "video" if file == VIDEO else "photograph" for name, file in SCENES.items()}
                scenes = [(f"{name} ({kind})", name) for name, kind in kinds.items()]
                example = gr.Radio(scenes, label="Shipped footage")
                gr.Markdown("A recording is simulated from it when it is first chosen: a few seconds.")
                look_example = gr.Button("Check it", variant="primary", elem_id="look-example")
            with gr.Tab("Your footage", elem_id="yours"):
                with gr.Row():
                    video = gr.File(label="Video, or .zip of a recording or of images", height=175, elem_id="video")
                    spikes = gr.File(label="Spike file (and its .json)", file_count="multiple", height=175,
                                     elem_id="spikes")  # fmt: skip
                with gr.Accordion("What the spike file does not tell: size, rows, timing", open=False):
                    with gr.Row():
                        numbers = [
                            gr.Textbox(label=label, info=hint, min_width=240, max_lines=1, elem_id=name)
                            for name, (label, hint) in FIELDS.items()
                        ]  # fmt: skip
                    top_down = gr.Checkbox(label="The first stored row is the top one", elem_id="top_down")
                look_upload = gr.Button("Check it", variant="primary", elem_id="look-upload")
        told = gr.HTML(elem_id="told", elem_classes="told", padding=False)

        with gr.Column(visible=False, elem_id="looked") as looked:
            gr.Markdown("## The recording")
            about = gr.HTML(elem_id="about", elem_classes="told", padding=False)
            preview = gr.Image(
                label="Firing rates, and the blurry frame", show_label=False, type="filepath", interactive=False,
                buttons=["fullscreen"], elem_id="preview",
            )  # fmt: skip
            caption = gr.Markdown(CAPTION)
            findings = gr.HTML(elem_id="findings", padding=False)
            health_page = gr.DownloadButton("Health report (HTML)", size="sm", elem_id="health")
            gr.Markdown("## Restore")
            ignore = gr.CheckboxGroup(label="Restore in spite of these findings", elem_id="ignore")
            weights = gr.Dropdown(label="Network (weights)", elem_id="weights")
            with gr.Row():
                start = gr.Button("Restore", variant="primary", elem_id="start")
                cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")
            running = gr.HTML(elem_id="running", elem_classes="told", padding=False)

        with gr.Column(visible=False, elem_id="restored") as restored:
            gr.Markdown("## Blurry and restored")
            slider = gr.ImageSlider(interactive=False, type="filepath", elem_id="slider",
                                    max_height=600, buttons=["fullscreen"])  # fmt: skip
            frame = gr.Slider(0, 1, 0, step=1, label="Frame", buttons=[], elem_id="frame")
            film = gr.Video(interactive=False, loop=True, elem_id="film", buttons=[])
            made_by = gr.Markdown()
            with gr.Row():
                names = ("Frames (.zip of PNG)", "Video (.mp4)", "Report (.html)", "Settings (restored.json)")
                downloads = [
                    gr.DownloadButton(name, min_width=160, elem_id=f"take-{k}") for k, name in enumerate(names)
                ]

        recording_parts = [footage, about, preview, caption, findings, health_page, ignore, weights]

        def show(take: Callable[[], Footage]) -> dict[Any, Any]:
            """What changes on the page when footage was taken, or could not be."""
            try:
                taken = take()
            except Exception as error:
                return {
                    footage: None, told: _error(error, place), running: "",
                    looked: gr.Column(visible=False), restored: gr.Column(visible=False),
                }  # fmt: skip
            choices = [(f"{name}: {shipped.ABOUT[name]}", name) for name in taken.weights]
            return {
                footage: taken, told: "", running: "", about: _about(taken), preview: str(taken.preview),
                caption: gr.Markdown(visible=taken.report is not None),
                findings: "" if taken.report is None else findings_table(taken.report.findings),
                health_page: gr.DownloadButton(
                    value=None if taken.health_page is None else str(taken.health_page),
                    visible=taken.health_page is not None,
                ),
                ignore: gr.CheckboxGroup(choices=list(taken.refused), value=[], visible=bool(taken.refused)),
                weights: gr.Dropdown(choices=choices, value=taken.weights[0]),
                looked: gr.Column(visible=True), restored: gr.Column(visible=False),
            }  # fmt: skip

        def show_example(name: str | None) -> dict[Any, Any]:
            return show(lambda: session.take_example(place, name))

        def show_upload(frames: str | None, files: list[str] | None, is_top_down: bool, *texts: str) -> dict[Any, Any]:
            fields = dict(zip(FIELDS, texts, strict=True))
            return show(lambda: session.take_upload(place, frames, files or [], read_stated(fields, is_top_down)))

        def submit(taken: Footage, name: str, ignored: list[str]) -> dict[Any, Any]:
            def work(tell: Progress) -> Result:
                return session.restore(taken, name, ignore_health=ignored, progress=tell)

            hidden = gr.Column(visible=False)
            try:
                queued = turns.add(work)
            except ValueError as error:
                return {ticket: None, running: _error(error, place), restored: hidden}
            return {ticket: queued, running: _state(turns, queued, place), restored: hidden, **_buttons(is_busy=True)}

        def _buttons(*, is_busy: bool) -> dict[Any, Any]:
            idle = [start, look_example, look_upload]
            return {cancel: gr.Button(interactive=is_busy), **{one: gr.Button(interactive=not is_busy) for one in idle}}

        async def follow(queued: Ticket | None) -> AsyncIterator[dict[Any, Any]]:
            if queued is None:
                return
            try:
                last = None
                while not queued.finished.is_set():
                    if (now := _state(turns, queued, place)) != last:
                        yield {running: now}
                    last = now
                    await asyncio.sleep(POLL_S)
            finally:
                turns.cancel(queued)  # the visitor has gone; of a job that has ended this changes nothing
            made = _shown_result(queued.result) if queued.state == "done" else {}
            yield {running: _state(turns, queued, place), **_buttons(is_busy=False), **made}

        def stop(queued: Ticket | None) -> None:
            if queued is not None:
                turns.cancel(queued)

        def _shown_result(made: Result) -> dict[Any, Any]:
            last, network, fps = len(made.frames) - 1, network_of(made.summary), made.summary["fps"]
            speed = f", shown at {made.watch_fps:.3g} frames a second (recorded at {fps:.4g})"
            files = zip(downloads, made.downloads, strict=True)
            return {
                result: made,
                restored: gr.Column(visible=True),
                slider: gr.ImageSlider(_pair(made, 0), label=f"blurry | restored by {network}"),
                frame: gr.Slider(maximum=max(last, 1), value=0, visible=last > 0),
                film: gr.Video(
                    value=str(made.watch), label=f"Restored by {network}{speed if made.watch_fps < fps else ''}"
                ),
                made_by: f"## Download what {network} restored",
                **{button: gr.DownloadButton(value=str(file)) for button, file in files},
            }

        def choose(made: Result | None, index: float) -> tuple[str, str] | None:
            return None if made is None else _pair(made, int(index))

        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        once: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "look"}
        shown = [told, looked, running, restored, *recording_parts]
        look_example.click(show_example, [example], shown, **once, show_progress_on=[told])
        look_upload.click(show_upload, [video, spikes, top_down, *numbers], shown, **once, show_progress_on=[told])
        changed = [running, start, cancel, look_example, look_upload, restored]
        result_parts = [result, slider, frame, film, made_by, *downloads]
        start.click(submit, [footage, weights, ignore], [ticket, *changed], queue=False, **quiet).then(
            follow, [ticket], [*changed, *result_parts], concurrency_limit=None, **quiet
        )
        cancel.click(stop, [ticket], None, queue=False, **quiet)
        frame.input(choose, [result, frame], [slider], trigger_mode="always_last", queue=False, **quiet)
    return page


def _pair(made: Result, index: int) -> tuple[str, str]:
    return str(session.blurry_picture(made.footage, index)), str(made.frames[index])


def _told(kind: str, text: str, more: str = "", role: str = "status") -> str:
    return f'<div class="{kind}" role="{role}">{html.escape(text)}{more}</div>'


def _error(error: Exception, place: Place) -> str:
    """The user's mistake in one line; of ours the page says that it is ours, and stderr all."""
    if isinstance(error, ValueError | OSError):
        return _told("error", session.one_line(error, place), role="alert")
    traceback.print_exception(error, file=sys.stderr)
    return _told("error", "That should not have happened; the terminal of `spikevrt app` says more.", role="alert")


def _about(taken: Footage) -> str:
    recording = taken.recording
    text = f"{recording.name}: {recording.num_frames} frames of {recording.width} x {recording.height}"
    if recording.spikes is None:
        return _told("note", f"{text}; no spikes: restored from the frames alone, by a network that reads none.")
    assert taken.report is not None
    text += (
        f"; {recording.spikes.width} x {recording.spikes.height} spikes, {recording.num_ticks} ticks at "
        f"{recording.tick_rate_hz:g} Hz. "
    )
    if outside := sum(not recording.is_inside(index) for index in range(recording.num_frames)):
        text += f"Frames outside the stream, restored from the frames alone: {outside}. "
    kind, end = {
        "ok": ("good", "In order: the spikes fit the frames in place and time."),
        "cannot tell": ("note", f"Cannot tell whether all is in order: {_unknown(taken.report)}. See the findings."),
        "bad": ("error", "Not in order, and not to be restored so: see the findings, the first of which says why."),
    }[taken.report.verdict]
    return _told(kind, text + end, role="alert" if kind == "error" else "status")


def _unknown(report: HealthReport) -> str:
    return ", ".join(one.name for one in report.findings if one.matters and one.verdict == "cannot tell")


def _state(turns: Turns, queued: Ticket, place: Place) -> str:
    """Where a job stands, for the page."""
    if queued.state == "failed":
        assert queued.error is not None
        return _error(queued.error, place)
    if queued.state == "done":
        return _told("good", restored_words(queued.result.summary))
    if queued.state == "cancelled":
        return _told("note", "Cancelled. Nothing was kept.")
    if queued.is_cancelled:
        return _told("note", "Cancelling: the clip at hand is finished first.", "<progress></progress>")
    if queued.state == "waiting":
        before = turns.num_before(queued)
        jobs = "1 job" if before == 1 else f"{before} jobs"
        return _told("note", f"Waiting: {jobs} before yours." if before else "Starting.", "<progress></progress>")
    if not queued.done:
        return _told("note", "Loading the network; restoring the first frames.", "<progress></progress>")
    if queued.done == queued.total:
        return _told("note", f"All {queued.total} frames; writing video and report.", "<progress></progress>")
    left = "" if queued.left_s is None else f", about {max(1, round(queued.left_s))} s left"
    bar = f'<progress value="{queued.done}" max="{queued.total}"></progress>'
    return _told("note", f"Frame {queued.done} of {queued.total}{left}.", bar)


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
