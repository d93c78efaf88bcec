"""What a visitor hands over, as a recording: a recording folder in a zip, or frames and perhaps a spike file.

A zip is written by strangers: every name, kind and size in it is checked, and what it holds is counted as it comes out.
"""

from __future__ import annotations

import errno
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from spikevrt.align.exposure import with_exposure
from spikevrt.align.geometry import Reading, list_readings, read_frame
from spikevrt.recording.frames import IMAGE_SUFFIXES
from spikevrt.recording.loose import loose_recording, open_beside
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import SIDECAR, SPIKE_KINDS, Stated
from spikevrt.recording.spike_formats import UnknownGeometry
from spikevrt.recording.video import VIDEO_SUFFIXES

MAX_ZIP_FILES = 20_000
PIECE_BYTES = 1 << 20
MOST_READINGS = 12  # that are offered
MOST_TIMES = 8  # pixels of a frame to one of the spike camera, either way, in sizes that are offered
BESIDE_SPIKES = (".json", ".yaml")  # a spike file's sidecar, SpikeCV's config.yaml


class SizesWanted(ValueError):
    """A spike file does not tell its size; `readings` fit it, the likeliest first."""

    def __init__(self, spikes: Path, readings: Sequence[Reading]) -> None:
        self.readings = tuple(readings)
        fit = "none of the sizes that are known fits"
        if readings:
            fit = "choose one of the sizes that fit, the likeliest first"
        super().__init__(f"{spikes.name}: does not tell its size: {fit}; or state `spike_width` and `spike_height`")


def open_upload(frames: Path, spikes: Sequence[Path], stated: Stated, unpacked: Path, max_bytes: int) -> Recording:
    """The recording in the uploads: a zip of a recording folder; or a video or a zip of images, and a spike file.

    `spikes` holds at most one spike file, and its sidecar or config.yaml in the same folder. A zip is unpacked into the
    folder `unpacked`, at most `max_bytes` in all. An exposure that nobody states is estimated, another compared with
    the footage, as the commands do.

    Raises:
        SizesWanted: nobody tells the size of the spikes.
        ValueError, FileNotFoundError: as `loose_recording`, `open_stream` and `open_recording`; or the uploads are of
            another kind; one line says what is allowed.
    """
    about = [name for name, value in vars(stated).items() if value is not None and value is not False]
    streams = [path for path in spikes if path.suffix.lower() not in BESIDE_SPIKES]
    if spikes and len(streams) != 1:
        raise ValueError(f"spike file: {len(streams)} given; allowed: one, and its .json or config.yaml beside it")
    if frames.suffix.lower() == ".zip":
        root = unpack(frames, unpacked / frames.stem, max_bytes)
        if (root / SIDECAR).is_file():
            if spikes or about:
                what = "a spike file" if spikes else about[0]
                raise ValueError(f"{what}: not with {frames.name}, a recording with spikes of its own")
            return open_recording(root, keep_outside=True)
        if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir()):
            raise ValueError(f"{frames.name}: holds no {SIDECAR} and no images; allowed: a recording folder, or images")
        frames = root
    elif frames.suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(
            f"{frames.name}: no video and no zip; allowed: {', '.join(VIDEO_SUFFIXES)}, or the .zip of a recording "
            "folder or of images"
        )
    if not streams:
        if needless := [name for name in about if name not in ("fps", "linear")]:
            raise ValueError(f"{needless[0]}: only with a spike file")
        return loose_recording(frames, None, stated)
    try:
        return with_exposure(open_beside(frames, streams[0], stated), unchecked=stated.unchecked)
    except UnknownGeometry:
        raise SizesWanted(streams[0], _readings(streams[0], frames)) from None


def _readings(spikes: Path, frames: Path) -> list[Reading]:
    """The known sizes and whole fractions of the frame's that fit a spike file, as far as the page's fields can say."""
    frame = read_frame(frames)
    sizes = [(frame.shape[1] // times, frame.shape[0] // times) for times in range(1, MOST_TIMES + 1)]
    found = list_readings(spikes, sizes=sizes, frame=frame)
    told = [one for one in found if SPIKE_KINDS[one.format.kind].bottom_up or not one.format.is_bottom_up]
    return told[:MOST_READINGS]


def unpack(archive: Path, out: Path, max_bytes: int) -> Path:
    """Unpack a zip into the new folder `out` and return the folder that matters: the only one in it, or `out` itself.

    Raises:
        ValueError: no zip or a damaged one; a name that leads out of the folder; a link, or anything but a plain file;
            an encrypted file; more than `MAX_ZIP_FILES` files or `max_bytes` bytes. Then nothing is left of it.
        FileExistsError: `out` exists.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ZIP_FILES:
                raise ValueError(f"{archive.name}: {len(entries)} files; allowed: at most {MAX_ZIP_FILES}")
            for entry in entries:
                _refuse(archive, entry)
            out.mkdir(parents=True)
            try:
                _extract(opened, entries, archive, out, max_bytes)
            except BaseException:
                shutil.rmtree(out)
                raise
    except Exception as error:  # zipfile raises many types of error for a damaged archive
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # the disk's; that one is of a wrong offset
            raise
        if isinstance(error, ValueError) and str(error).startswith(f"{archive.name}: "):
            raise
        raise ValueError(f"{archive.name}: no zip, or a damaged one ({' '.join(str(error).split())})") from None
    root = out
    while len(inside := list(root.iterdir())) == 1 and inside[0].is_dir():
        root = inside[0]
    return root


def _refuse(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    shown = f"{archive.name}: {name[:80]!r}"
    is_outside = name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts
    if is_outside or not name.isprintable() or not PurePosixPath(name).parts:
        raise ValueError(f"{shown}: leads out of the folder; allowed: names inside it")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ValueError(f"{shown}: a link or a special file; allowed: plain files")
    if entry.flag_bits & 1:
        raise ValueError(f"{shown}: encrypted; allowed: a zip without password")


def _extract(
    opened: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], archive: Path, out: Path, max_bytes: int
) -> None:
    left = max_bytes
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if parts[0] == "__MACOSX" or parts[-1].startswith("."):
            continue  # what a file manager adds
        path = out.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as source, open(path, "xb") as target:
            while piece := source.read(PIECE_BYTES):
                left -= len(piece)  # counted here, for the size in the header may be a lie
                if left < 0:
                    raise ValueError(f"{archive.name}: more than {max_bytes} bytes when unpacked; allowed: fewer")
                target.write(piece)
