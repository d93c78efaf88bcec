"""The web page over `restore`: upload, health, alignment, a restoration with progress, a slider, downloads.

Gradio draws it; `session` does the work, `turns` is the queue, `labels` has the words, and `serving` puts it on the
network.
"""

from __future__ import annotations

import asyncio
import dataclasses
import html
import sys
import traceback
import typing
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from spikevrt import shipped
from spikevrt.align.describe import alignment_words
from spikevrt.align.findings import Finding
from spikevrt.app import labels, session
from spikevrt.app.session import Footage, Place, Result
from spikevrt.app.turns import Progress, Ticket, Turns
from spikevrt.app.uploads import SizesWanted
from spikevrt.bench.demo import SCENES, VIDEO
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.sidecar import ROWS, Stated, StreamFormat
from spikevrt.report.recording_pages import findings_table, network_of, restored_words
from spikevrt.typed import amount

POLL_S = 0.2  # between two looks at a job


JOBS = {  # what is said of a kind of job: at first, of each step, at the end, while it stops, when it was cancelled
    "restore": (
        "Loading the network; restoring the first frames.", "Frame", "All {} frames; writing video and report.",
        "the clip at hand is finished first", "No frame was kept; the footage stays, and can be restored again.",
    ),
    "align": (
        "Reading frames and spikes.", "Fit", "Drift and registration; then what was aligned is checked.",
        "the fit at hand is finished first", "Nothing was changed.",
    ),
}  # fmt: skip
CAPTION = (
    "The spikes as pictures: firing rate around the middle frame (TFP), inverse interval there (TFI), mean of all "
    "ticks; then that frame of the colour camera (and the sharp one, where it is known). Not restored yet. Check that "
    "the spikes are upright and show the same scene."
)
SIZE_TITLE, TIME_TITLE = "Spike file: size and order of rows", "Times: exposure, rates, a table of times"
OVERLAY_TITLE = "The middle frame (red) and the spikes (cyan) one over the other: as written, and aligned"
SIZES_INFO = (
    "How well each holds together (rows, columns, time: 1 is best; frame: against the video's middle frame). A click "
    "fills in the fields; then check it again."
)
ALIGN_INFO = (
    "Where the spike camera looks in the frames, and how late its clock runs, is estimated from the footage itself. "
    "The aligned recording is checked anew and restored; the files stay as they are."
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
                with gr.Accordion(SIZE_TITLE, open=False, elem_id="size") as size:
                    sizes = gr.Radio(label="Sizes that fit the spike file", info=SIZES_INFO, visible=False,
                                     elem_id="sizes")  # fmt: skip
                    with gr.Row():
                        size_fields = [_field(name, *words) for name, words in labels.SIZE_FIELDS.items()]
                with gr.Accordion(TIME_TITLE, open=False, elem_id="times") as times, gr.Row():
                    time_fields = [_field(name, *words) for name, words in labels.TIME_FIELDS.items()]
                fields = dict(zip(labels.LABELS, [*size_fields, *time_fields], strict=False))
                look_upload = gr.Button("Check it", variant="primary", elem_id="look-upload")
        told = gr.HTML(elem_id="told", elem_classes="told", padding=False)

        with gr.Column(visible=False, elem_id="looked") as looked:
            gr.Markdown("## The recording")
            about = gr.HTML(elem_id="about", elem_classes="told", padding=False)
            notes = gr.HTML(elem_id="notes", padding=False)
            preview = gr.Image(
                label="Firing rates, and the blurry frame", show_label=False, type="filepath", interactive=False,
                buttons=["fullscreen"], elem_id="preview",
            )  # fmt: skip
            caption = gr.Markdown(CAPTION)
            findings = gr.HTML(elem_id="findings", padding=False)
            health_page = gr.DownloadButton("Health report (HTML)", size="sm", elem_id="health")
            with gr.Column(elem_id="place") as placing:
                gr.Markdown("## Place and time of the two cameras")
                gr.Markdown(ALIGN_INFO)
                estimate = gr.HTML(elem_id="estimate", padding=False)
                overlay = gr.Image(label=OVERLAY_TITLE, type="filepath", interactive=False, buttons=["fullscreen"],
                                   elem_id="overlay")  # fmt: skip
                with gr.Row():
                    reach = gr.Textbox(label=labels.REACH[0], info=labels.REACH[1], max_lines=1, elem_id="reach")
                    align = gr.Button(labels.ALIGN, elem_id="align")
                    undo = gr.Button(labels.UNDO, visible=False, elem_id="undo")
                    stop_align = gr.Button("Cancel", variant="stop", interactive=False, elem_id="stop-align")
                aligning = gr.HTML(elem_id="aligning", elem_classes="told", padding=False)
            gr.Markdown("## Restore")
            ignore = gr.CheckboxGroup(label=labels.IGNORE, elem_id="ignore")
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

        recording_parts = [footage, about, notes, preview, caption, findings, health_page, ignore, weights]
        recording_parts += [placing, estimate, overlay, undo, aligning]
        lines, idle = {"restore": running, "align": aligning}, [start, align, undo, look_example, look_upload]

        def show(take: Callable[[], Footage]) -> dict[Any, Any]:
            """What changes on the page when footage was taken, or could not be."""
            hidden = {restored: gr.Column(visible=False), running: "", aligning: ""}
            try:
                return {**_shown_footage(take()), **hidden, told: "", sizes: gr.Radio(visible=False)}
            except Exception as error:
                line = _error(error, place)
                fit = error.readings if isinstance(error, SizesWanted) else ()
                choices = [(one.line().split(maxsplit=1)[1], _said(one.format)) for one in fit]
                groups = {size: labels.SIZE_FIELDS, times: labels.TIME_FIELDS}
                named = {name for name, quoted in labels.QUOTED.items() if html.escape(quoted) in line}
                return {
                    footage: None, told: line, looked: gr.Column(visible=False), **hidden,
                    sizes: gr.Radio(choices=choices, value=None, visible=bool(choices)),
                    **{part: gr.Accordion(open=True) for part, group in groups.items() if named & group.keys()},
                }  # fmt: skip

        def _shown_footage(taken: Footage) -> dict[Any, Any]:
            choices = [(f"{name}: {shipped.ABOUT[name]}", name) for name in taken.weights]
            report, laid_over = taken.report, None if taken.overlay is None else str(taken.overlay)
            return {
                footage: taken, about: _about(taken), notes: _list(_notes(taken, place)),
                preview: str(taken.preview), caption: gr.Markdown(visible=report is not None),
                findings: "" if report is None else _findings(report.findings, place),
                health_page: gr.DownloadButton(
                    value=taken.health_page and str(taken.health_page), visible=report is not None
                ),
                ignore: gr.CheckboxGroup(choices=list(taken.refused), value=[], visible=bool(taken.refused)),
                weights: gr.Dropdown(choices=choices, value=taken.weights[0]),
                looked: gr.Column(visible=True), placing: gr.Column(visible=report is not None),
                undo: gr.Button(visible=taken.before is not None, interactive=True),
                estimate: _list(session.shown_text(line, place) for line in taken.lines),
                overlay: gr.Image(laid_over, visible=laid_over is not None),
            }  # fmt: skip

        def show_example(name: str | None) -> dict[Any, Any]:
            return show(lambda: session.take_example(place, name))

        def show_upload(frames: str | None, files: list[str] | None, *given: Any) -> dict[Any, Any]:
            values = dict(zip(fields, given, strict=True))
            return show(lambda: session.take_upload(place, frames, files or [], labels.read_stated(values)))

        def show_before(taken: Footage) -> dict[Any, Any]:
            return show(lambda: taken.before or taken)

        def fill_in(said: str) -> list[Any]:
            kind, width, height, rows, tag_bits = said.split()
            return [width, height, kind, tag_bits, "", "", rows == ROWS[False]]  # in the order of SIZE_FIELDS

        def submit(kind: str, work: Callable[[Progress], Any]) -> dict[Any, Any]:
            hidden = gr.Column(visible=False)
            try:
                queued = turns.add(work, kind)
            except ValueError as error:
                return {ticket: None, lines[kind]: _error(error, place), restored: hidden}
            return {ticket: queued, lines[kind]: _state(turns, queued, place), restored: hidden, **_buttons(kind)}

        def submit_restore(taken: Footage, name: str, ignored: list[str]) -> dict[Any, Any]:
            return submit("restore", lambda tell: session.restore(taken, name, ignore_health=ignored, progress=tell))

        def submit_align(taken: Footage, most: str) -> dict[Any, Any]:
            return submit("align", lambda tell: session.align(taken, most, progress=tell))

        def _buttons(running_kind: str | None) -> dict[Any, Any]:
            return {
                cancel: gr.Button(interactive=running_kind == "restore"),
                stop_align: gr.Button(interactive=running_kind == "align"),
                **{one: gr.Button(interactive=running_kind is None) for one in idle},
            }

        async def follow(queued: Ticket | None) -> AsyncIterator[dict[Any, Any]]:
            if queued is None:
                return
            try:
                last = None
                while not queued.finished.is_set():
                    if (now := _state(turns, queued, place)) != last:
                        yield {lines[queued.kind]: now}
                    last = now
                    await asyncio.sleep(POLL_S)
            finally:
                turns.cancel(queued)  # the visitor has gone; of a job that has ended this changes nothing
            made: dict[Any, Any] = {}
            if queued.state == "done":
                is_result = isinstance(queued.result, Result)
                made = _shown_result(queued.result) if is_result else _shown_footage(queued.result)
            yield {**_buttons(None), **made, lines[queued.kind]: _state(turns, queued, place)}

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
        shown = [told, looked, running, restored, sizes, size, times, *recording_parts]
        look_example.click(show_example, [example], shown, **once, show_progress_on=[told])
        look_upload.click(show_upload, [video, spikes, *fields.values()], shown, **once, show_progress_on=[told])
        undo.click(show_before, [footage], shown, **quiet)
        sizes.input(fill_in, [sizes], size_fields, queue=False, **quiet)
        changed = [ticket, running, aligning, cancel, stop_align, *idle, restored]
        result_parts = [result, slider, frame, film, made_by, *downloads]
        for button, asked, given in ((start, submit_restore, [footage, weights, ignore]),
                                     (align, submit_align, [footage, reach])):  # fmt: skip
            button.click(asked, given, changed, queue=False, **quiet).then(
                follow, [ticket], [*dict.fromkeys([*changed, *result_parts, *recording_parts, looked])],
                concurrency_limit=None, **quiet,
            )  # fmt: skip
        for button in (cancel, stop_align):
            button.click(stop, [ticket], None, queue=False, **quiet)
        frame.input(choose, [result, frame], [slider], trigger_mode="always_last", queue=False, **quiet)
    return page


def _field(name: str, label: str, hint: str) -> Any:
    """The page's field for what `Stated` calls so: a box to tick, a file, a list of what is allowed, or a text."""
    import gradio as gr

    told: dict[str, Any] = {"label": label, "elem_id": name}
    kind, _, *how = typing.get_args(typing.get_type_hints(Stated, include_extras=True)[name])
    if kind is bool:
        return gr.Checkbox(info=hint or None, min_width=240, **told)
    if Path in typing.get_args(kind):
        return gr.File(height=150, **told)
    if how and isinstance(how[0], tuple):
        return gr.Dropdown(["", *how[0]], value="", info=hint, min_width=200, **told)
    return gr.Textbox(info=hint or None, min_width=200, max_lines=1, **told)


def _said(form: StreamFormat) -> str:
    """A format as the value of a choice."""
    return f"{form.kind} {form.width} {form.height} {ROWS[form.is_bottom_up]} {form.tag_bits}"


def _notes(taken: Footage, place: Place) -> list[str]:
    """What was assumed or seen, and the alignment."""
    alignment = taken.recording.alignment
    lines = [] if alignment == Alignment() else [f"aligned: {alignment_words(alignment)}"]
    return lines + [f"{about}: {session.shown_text(note, place)}" for about, note in taken.recording.notes.items()]


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _findings(findings: Sequence[Finding], place: Place) -> str:
    shown = [dataclasses.replace(one, sentence=session.shown_text(one.sentence, place)) for one in findings]
    return findings_table(shown)


def _pair(made: Result, index: int) -> tuple[str, str]:
    return str(session.blurry_picture(made.footage, index)), str(made.frames[index])


def _told(kind: str, text: str, more: str = "", role: str = "status") -> str:
    return f'<div class="{kind}" role="{role}">{html.escape(text)}{more}</div>'


def _error(error: Exception, place: Place) -> str:
    """The user's mistake in one line; of ours the page says that it is ours, and stderr all."""
    if isinstance(error, ValueError | OSError):
        return _told("error", session.one_line(error, place), role="alert")
    traceback.print_exception(error, file=sys.stderr)
    return _told(
        "error",
        "That should not have happened, and is no mistake of yours; the log of the page says more.",
        role="alert",
    )


def _about(taken: Footage) -> str:
    recording = taken.recording
    text = f"{recording.name}: {amount(recording.num_frames, 'frame')} of {recording.width} x {recording.height}"
    if recording.spikes is None:
        return _told("note", f"{text}; no spikes: restored from the frames alone, by a network that reads none.")
    assert taken.report is not None
    text += (
        f"; {recording.spikes.width} x {recording.spikes.height} spikes, {amount(recording.num_ticks, 'tick')} at "
        f"{recording.tick_rate_hz:g} Hz. "
    )
    if outside := sum(not recording.is_inside(index) for index in range(recording.num_frames)):
        text += f"Frames outside the stream, restored from the frames alone: {outside}. "
    unknown = [one for one in taken.report.findings if one.verdict == "cannot tell"]
    mattering, others = (", ".join(o.name for o in unknown if o.matters is m) for m in (True, False))
    kind, end = {
        "ok": ("good", "In order: the spikes fit the frames in place and time."),
        "cannot tell": ("note", f"Cannot tell whether all is in order: {mattering}. See the findings."),
        "bad": ("error", "Not in order, and not to be restored so: see the findings, the first of which says why."),
    }[taken.report.verdict]
    if kind == "good" and others:
        kind, end = "note", f"The spikes fit the frames in place and time. Cannot tell, which matters little: {others}."
    return _told(kind, text + end, role="alert" if kind == "error" else "status")


def _state(turns: Turns, queued: Ticket, place: Place) -> str:
    """Where a job stands, for the page."""
    if queued.state == "failed":
        assert queued.error is not None
        return _error(queued.error, place)
    begins, step, ends, stops, cancelled = JOBS[queued.kind]
    if queued.state == "done":
        if not isinstance(queued.result, Result):
            return ""
        report = queued.result.footage.report
        is_sound = report is not None and report.verdict == "ok"
        return _told("good" if is_sound else "note", restored_words(queued.result.summary))
    if queued.state == "cancelled":
        return _told("note", f"Cancelled. {cancelled}")
    if queued.is_cancelled:
        return _told("note", f"Cancelling: {stops}.", "<progress></progress>")
    if queued.state == "waiting":
        before = turns.num_before(queued)
        jobs = "1 job" if before == 1 else f"{before} jobs"
        return _told("note", f"Waiting: {jobs} before yours." if before else "Starting.", "<progress></progress>")
    if not queued.done:
        return _told("note", begins, "<progress></progress>")
    if queued.done == queued.total:
        return _told("note", ends.format(queued.total), "<progress></progress>")
    left = "" if queued.left_s is None else f", about {max(1, round(queued.left_s))} s left"
    bar = f'<progress value="{queued.done}" max="{queued.total}"></progress>'
    return _told("note", f"{step} {queued.done} of {queued.total}{left}.", bar)
