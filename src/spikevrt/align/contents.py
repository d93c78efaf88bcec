"""What a folder, a spike file or footage is, in a line each; nothing is judged.

Dimension key: none; sizes are told as width x height.
"""

from __future__ import annotations

from pathlib import Path

from spikevrt.formats.dataset_trees import find_layout
from spikevrt.formats.layouts import NO_OPTIONS, LayoutOptions, layout_recordings
from spikevrt.recording.frames import IMAGE_SUFFIXES, image_size, list_images
from spikevrt.recording.recording import Recording, open_recording, recordings_in
from spikevrt.recording.sidecar import ROWS, SPIKECV_CONFIG
from spikevrt.recording.spike_formats import Found, find_format, open_stream
from spikevrt.recording.spike_kinds import SPIKE_KINDS, SUFFIX_KINDS
from spikevrt.recording.stream import PackedStream, SpikeStream
from spikevrt.recording.video import probe_video

STATED = "the command line"  # the source of a format that the user states


def folder_lines(path: Path, options: LayoutOptions = NO_OPTIONS) -> list[str]:
    """Recordings, the clips of a dataset of a known layout, SpikeCV's spike files, or images."""
    inside = recordings_in(path)
    if inside:
        return [summary_line(open_recording(root)) for root in inside]
    layout = find_layout(path, options)
    if layout is not None:
        parts = layout_recordings(path, options)
        lines = [f"{path}: dataset of layout {layout.name}"]
        return lines + [
            f"{part}, clip {one.name}: {summary_line(one)}" for part, clips in parts.items() for one in clips
        ]
    if (path / SPIKECV_CONFIG).is_file():
        return _tell_spikecv(path)
    return footage_lines(path)


def _tell_spikecv(path: Path) -> list[str]:
    """The spike files beside a SpikeCV config.yaml, one a line."""
    streams = sorted(file for file in path.iterdir() if file.suffix.lower() in (".dat", *SUFFIX_KINDS))
    if not streams:
        raise ValueError(f"{path}: a {SPIKECV_CONFIG} but no spike file beside it")
    lines = []
    for file in streams:
        stream, found = open_stream(file), find_format(file)
        lines.append(f"{stream_line(file, stream, found)}, {stream.num_ticks} ticks")
    return lines


def footage_lines(path: Path) -> list[str]:
    """A folder of images, an image or a video."""
    if path.is_dir():
        images = list_images(path)
        sizes = [image_size(image) for image in images]
        height, width = sizes[0]
        lines = [
            f"{path}: {len(images)} images, {width} x {height}",
            f"first {images[0].name}, last {images[-1].name}",
        ]
        num_others = sum(size != sizes[0] for size in sizes)
        return lines + ([f"warning: {num_others} images have another size than the first"] if num_others else [])
    if path.suffix.lower() in IMAGE_SUFFIXES:
        height, width = image_size(path)
        return [f"{path}: image, {width} x {height}"]
    info = probe_video(path)
    seconds = info.num_frames / info.fps
    return [f"{path}: video, {info.width} x {info.height}, {info.num_frames} frames, {info.fps:g} fps, {seconds:.3f} s"]


def summary_line(recording: Recording) -> str:
    """A recording in one line."""
    spikes = recording.spikes
    told = "no spikes" if spikes is None else f"{recording.num_ticks} ticks of {spikes.width} x {spikes.height} spikes"
    return (
        f"{recording.root}: {recording.num_frames} frames of {recording.width} x {recording.height}, "
        f"{sharp_words(recording)}, exposures of {exposure_words(recording)} ticks, {told}"
    )


def sharp_words(recording: Recording) -> str:
    return "with sharp frames" if recording.sharp else "without sharp frames"


def exposure_words(recording: Recording) -> str:
    lengths = sorted({exposure.num_ticks for exposure in recording.exposures})
    return f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def stream_line(path: Path, stream: SpikeStream, found: Found) -> str:
    """A spike file's format and size, and who says so."""
    size = f"{stream.width} x {stream.height}"
    said = "" if _needs_no_witness(found) else f" (says {found.source})"
    if isinstance(stream, PackedStream):
        return f"{path}: {packed_words(stream)}{said}"
    if found.format.kind == "sps100":
        return f"{path}: SPS100 half-rows, {size}, line tags right{said}"
    return f"{path}: {'bit' if SPIKE_KINDS[found.format.kind].in_bits else 'un'}packed spike stream, {size}{said}"


def _needs_no_witness(found: Found) -> bool:
    """Whether the geometry needs no witness: the user said it, or the file has a header."""
    return found.source in (STATED, "the file itself")


def packed_words(stream: PackedStream) -> str:
    geometry = stream.geometry
    tags = f", {geometry.tag_bits} tag bits a row" if geometry.tag_bits else ""
    return (
        f"packed spike stream, {geometry.width} x {geometry.height}, rows {ROWS[geometry.bottom_up]}{tags}, "
        f"{geometry.bytes_per_tick} bytes per tick"
    )
