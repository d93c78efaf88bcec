"""What the web page does, without the page: an example or an upload becomes footage that was looked at, then a result.

All lies in one folder, and nothing outside it is read or written for a visitor:

    examples/NAME/           a recording, simulated when it is first chosen
    cache/                   what a browser uploaded, and copies of what it was shown
    jobs/ID/                 one visit: upload/, health.html, preview.png, blur/, result-1/, result-2/ ...
    jobs/ID/aligned-1/       the same footage aligned: health.html, preview.png, alignment.png, result-1/ ...
    jobs/ID/result-1/        frames/ (000000.png ..., restored.json, restored.mp4), frames.zip, watch.mp4, report.html
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikevrt import shipped
from spikevrt.align.describe import draw_preview
from spikevrt.align.estimate import estimate_alignment
from spikevrt.align.health import HealthReport, admit, check_health
from spikevrt.align.settings import HALF_WINDOW_TICKS, AlignOptions
from spikevrt.app.labels import on_page
from spikevrt.app.uploads import open_upload
from spikevrt.atomic import complete_or_absent
from spikevrt.bench.demo import ASSETS, OPTIONS, SCENES, simulate_scene
from spikevrt.mux.join import write_video
from spikevrt.mux.pieces import video_pieces
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import list_images, read_image, write_image
from spikevrt.recording.recording import Recording, open_recording, with_alignment
from spikevrt.recording.sidecar import Stated
from spikevrt.report.recording_pages import write_health_page, write_restored_page
from spikevrt.restore.job import restore_recording
from spikevrt.restore.options import JobOptions, Output, RestoreOptions
from spikevrt.restore.writer import SUMMARY_FILE
from spikevrt.simulate.setup import SimulateOptions

MB = 1 << 20
UNZIPPED = 4  # times the largest upload: what a zip may hold
PREVIEW, HEALTH, OVERLAY = "preview.png", "health.html", "alignment.png"
WATCH_S = 2.0  # a result that lasts less is shown slower
_making_example = threading.Lock()


@dataclass(frozen=True)
class Place:
    """The page's folder, and how large an upload may be."""

    folder: Path
    max_upload_bytes: int

    @property
    def shown(self) -> tuple[Path, Path]:
        """The folders that a browser may read from, besides the cache."""
        return self.folder / "examples", self.folder / "jobs"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


@dataclass(frozen=True)
class Footage:
    """A recording that was looked at: `report` is None where it has no spikes.

    `before`: what it was before the page aligned it; `lines` tell the estimate.
    """

    folder: Path
    recording: Recording
    report: HealthReport | None
    credit: str | None
    before: Footage | None = None
    lines: tuple[str, ...] = ()

    @property
    def preview(self) -> Path:
        return self.folder / PREVIEW

    @property
    def health_page(self) -> Path | None:
        return None if self.report is None else self.folder / HEALTH

    @property
    def overlay(self) -> Path | None:
        """The picture before and after the alignment."""
        return None if self.before is None else self.folder / OVERLAY

    @property
    def refused(self) -> tuple[str, ...]:
        """The findings that refuse it."""
        findings = () if self.report is None else self.report.findings
        return tuple(finding.name for finding in findings if finding.verdict == "bad")

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the shipped weights that can restore it, the default of the command first."""
        return shipped.NAMES if self.recording.spikes is not None else (shipped.TWIN,)


@dataclass(frozen=True)
class Result:
    """Restored frames, and the files to download (zip of the frames, video, report, summary); `watch_fps` is the speed
    of `watch`, the video that the page plays."""

    footage: Footage
    frames: tuple[Path, ...]
    downloads: tuple[Path, Path, Path, Path]
    watch: Path
    watch_fps: float
    summary: dict[str, Any]


def make_place(folder: Path, max_upload_mb: int) -> Place:
    """The page's folder, made where it is missing. Raises ValueError for an upload limit below 1 MB."""
    if max_upload_mb < 1:
        raise ValueError(f"--max-upload-mb: {max_upload_mb}; allowed: 1 or more")
    place = Place(Path(folder).resolve(), max_upload_mb * MB)
    for part in (*place.shown, place.cache):
        part.mkdir(parents=True, exist_ok=True)
    return place


def take_example(place: Place, name: str | None, options: SimulateOptions = OPTIONS) -> Footage:
    """A shipped photograph or video as a recording, simulated when it is first asked for, and looked at.

    Raises ValueError for None and for a name that is no example's.
    """
    if name is None or name not in SCENES:
        raise ValueError(f"example: {'none chosen' if name is None else repr(name)}; allowed: {', '.join(SCENES)}")
    out = place.folder / "examples" / name
    with _making_example:
        if not out.exists():
            simulate_scene(name, out, options)
    return look_at(open_recording(out), _new_job(place), credit_of(SCENES[name]))


def take_upload(place: Place, frames: str | Path | None, spikes: Sequence[str | Path], stated: Stated) -> Footage:
    """What was uploaded (files in the cache), moved into a job of its own, opened and looked at; `stated.timestamps` is
    such a file, too.

    Raises:
        ValueError: nothing uploaded, a file from outside the cache or above the limit, or as `open_upload`. Then the
            job is gone again.
    """
    if frames is None:
        raise ValueError("video: none given; allowed: a video, or the .zip of a recording folder or of images")
    table = stated.timestamps
    for path in (frames, *spikes, *([] if table is None else [table])):
        _check_upload(place, Path(path))
    job = _new_job(place)
    try:
        upload = job / "upload"
        upload.mkdir()
        moved = [_kept(Path(path), upload) for path in (frames, *spikes)]
        if table is not None:
            stated = dataclasses.replace(stated, timestamps=_kept(table, upload))
        limit = UNZIPPED * place.max_upload_bytes
        recording = open_upload(moved[0], moved[1:], stated, job / "unpacked", limit)
        return look_at(recording, job, None)
    except BaseException:
        shutil.rmtree(job)
        raise


def _check_upload(place: Place, path: Path) -> None:
    """Refuse what no upload of this page put there. Raises ValueError, FileNotFoundError."""
    real = path.resolve()
    if not real.is_relative_to(place.cache):
        raise ValueError(f"{path.name}: not among the files uploaded to this page; allowed: uploads")
    if not real.is_file():
        raise FileNotFoundError(f"{path.name}: the upload is gone; upload it again")
    if real.stat().st_size > place.max_upload_bytes:
        size, most = -(-real.stat().st_size // MB), place.max_upload_bytes // MB
        raise ValueError(f"{path.name}: {size} MB; allowed: at most {most} MB, the limit of this page")


def look_at(recording: Recording, job: Path, credit: str | None) -> Footage:
    """Look at the recording's health and draw it; without spikes the preview is its first frame.

    Frames outside the stream are not looked at. Raises ValueError where all are.
    """
    footage = Footage(job, recording, None, credit)
    if recording.spikes is None:
        write_image(footage.preview, recording.read_blur(0))
        return footage
    inside = recording.inside_stream()
    report = check_health(inside)
    write_health_page(job / HEALTH, inside, report)
    middle = inside.exposures[inside.num_frames // 2]
    centre = (middle.start_tick + middle.stop_tick) // 2
    draw_preview(
        footage.preview,
        recording.spikes.read,
        report.evidence.scan.counts / report.evidence.scan.num_ticks,
        num_ticks=recording.num_ticks,
        centre=centre,
        half_window=min(HALF_WINDOW_TICKS, centre, recording.num_ticks - 1 - centre),
        recording=inside,
    )
    return dataclasses.replace(footage, report=report)


def align(footage: Footage, reach: str, *, progress: Callable[[int, int], None] | None = None) -> Footage:
    """Align the two cameras by `estimate_alignment`, as the command does, and look at the aligned recording.

    What is on the disk of the recording stays as it is. `reach`: `AlignOptions.max_offset_ticks` as a text, or nothing.
    Nothing is there before all of it is. `progress` may raise to stop it.

    Raises:
        ValueError: another reach, or the footage does not tell, as `estimate_alignment`.
    """
    if reach.strip() and not reach.strip().isdecimal():
        raise ValueError(f"max_offset_ticks: {reach.strip()[:40]!r}; allowed: a whole number, or nothing")
    before = footage.before or footage
    recording = dataclasses.replace(before.recording)  # with a video reader of its own
    if recording.alignment != Alignment():
        recording = open_recording(recording.root, apply_alignment=False, keep_outside=True)
    folder = _next(before.folder, "aligned")
    with complete_or_absent(folder) as partial:
        partial.mkdir()
        options = AlignOptions(preview=partial / OVERLAY, max_offset_ticks=int(reach) if reach.strip() else None)
        estimate = estimate_alignment(recording, options, progress=progress)
        if progress is not None:
            progress(1, 1)
        seen = look_at(with_alignment(recording, estimate.alignment, keep_outside=True), partial, before.credit)
        if progress is not None:
            progress(1, 1)
    return dataclasses.replace(seen, folder=folder, before=before, lines=estimate.lines)


def restore(
    footage: Footage,
    weights: str,
    *,
    ignore_health: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Restore the footage by `restore_recording`, as the command does, with the weights of a name in `shipped.NAMES`.

    Nothing of the result's folder is there before all of it is. `progress` may raise to stop it.

    Raises:
        ValueError: unknown weights, and as `restore_recording`.
    """
    if weights not in shipped.NAMES:
        raise ValueError(f"weights: {weights!r}; allowed: {', '.join(shipped.NAMES)}")
    options = RestoreOptions(ignore_health=tuple(ignore_health))
    recording = dataclasses.replace(footage.recording)  # with a video reader of its own
    out = _next(footage.folder, "result")
    with complete_or_absent(out) as partial:
        partial.mkdir()
        frames = partial / "frames"
        job = JobOptions(output=Output(video=True), video_pieces=video_pieces, keep=False)
        summary = restore_recording(weights, recording, frames, options, job, gate=admit, progress=progress)
        pictures = list_images(frames)

        def may_stop() -> None:
            if progress is not None:
                progress(len(pictures), len(pictures))

        watch_fps = min(recording.fps, len(pictures) / WATCH_S)
        if watch_fps < recording.fps:
            write_video(partial / "watch.mp4", map(read_image, pictures), watch_fps)
        may_stop()
        with zipfile.ZipFile(partial / "frames.zip", "w", zipfile.ZIP_STORED) as archive:  # PNGs are packed already
            for file in (*pictures, frames / SUMMARY_FILE):
                archive.write(file, file.name)
        may_stop()
        write_restored_page(partial / "report.html", recording, pictures, footage.report, summary, footage.credit)
        may_stop()
    video = out / "frames" / "restored.mp4"
    return Result(
        footage=footage,
        frames=tuple(list_images(out / "frames")),
        downloads=(out / "frames.zip", video, out / "report.html", out / "frames" / SUMMARY_FILE),
        watch=out / "watch.mp4" if watch_fps < recording.fps else video,
        watch_fps=watch_fps,
        summary=summary,
    )


def blurry_picture(footage: Footage, index: int) -> Path:
    """Blurry frame `index` as a PNG: the recording's own, or one that is written into the job's folder once."""
    recording = footage.recording
    if not isinstance(recording.blur, Path) and recording.blur[index].suffix.lower() == ".png":
        return recording.blur[index]
    path = footage.folder / "blur" / f"{index:06d}.png"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_image(path, dataclasses.replace(recording).read_blur(index))  # with a video reader of its own
    return path


def credit_of(asset: str) -> str:
    """What CREDITS.md says of a shipped asset, in one line."""
    entries = (ASSETS / "CREDITS.md").read_text(encoding="utf-8").split("\n- ")[1:]
    found = next(entry for entry in entries if entry.startswith(f"`{asset}`"))
    return " ".join(found.replace("`", "").split())


def one_line(error: Exception, place: Place) -> str:
    """A user's mistake as the page shows it: one line in the page's words."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return shown_text(text, place)


def shown_text(text: str, place: Place) -> str:
    """A message of the package in one line and in the page's words, without the folders that only this machine
    knows."""
    ours = rf"{re.escape(str(place.folder))}/(jobs/[^/\s]+/((upload|unpacked)/)?)?"
    return on_page(re.sub(ours, "", " ".join(text.split())))


def _next(folder: Path, name: str) -> Path:
    number = 1
    while (out := folder / f"{name}-{number}").exists():
        number += 1
    return out


def _new_job(place: Place) -> Path:
    job = place.folder / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}"
    job.mkdir(parents=True)
    return job


def _kept(path: Path, folder: Path) -> Path:
    """The file under its name in `folder`: the same bytes on the disk where that is possible."""
    out = folder / path.name
    if out.exists():
        raise ValueError(f"{path.name}: given twice; allowed: files of different names")
    try:
        os.link(path, out)
    except OSError:
        shutil.copyfile(path, out)
    return out
