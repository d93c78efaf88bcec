"""Other people's dataset folders as recordings, read where they lie: nothing is copied, converted or written.

A clip becomes a `Recording` whose stream is the spike files of its frames in a row and whose exposures are the middle
of each file. What is wrong with a frame is in `dropped`; a clip of which nothing is left is an error.

Words: split ("train", "val"), clip (a folder of consecutive frames), stem (a file's name without its suffix).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from spikevrt.config import PrepareOptions, SpikeSource, Split
from spikevrt.data.prepare import Sources
from spikevrt.formats.clip_files import (
    SpikeFiles,
    by_stem,
    clip_format,
    source_notes,
    spike_streams,
    wrong_ticks,
    wrong_voxels,
)
from spikevrt.formats.dataset_trees import (
    GOPRO_TICKS,
    LAYOUTS,
    NO_OPTIONS,
    Layout,
    LayoutOptions,
    averaged_ticks,
    base_folder,
    clips_with,
    find_layout,
    frame_numbers,
    frame_places,
)
from spikevrt.formats.voxel_files import VoxelStream
from spikevrt.recording.frames import IMAGE_SUFFIXES, image_size
from spikevrt.recording.recording import Recording, find_recordings, open_recording, recordings_in
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.stream import JoinedStream, SpikeStream
from spikevrt.simulate.folders import footage_advice

TAKES_NONE = "a recording tells all by itself; allowed: options of layouts for dataset folders alone"
__all__ = ["LayoutOptions", "LayoutRecording", "find_layout", "layout_recordings", "open_recordings", "open_sources"]


@dataclass(frozen=True)
class LayoutRecording(Recording):
    """A clip of a dataset folder; its root is the folder of its blurry frames, which is seldom a name."""

    clip: str = ""

    @property
    def name(self) -> str:
        return self.clip.replace("/", "_")


def layout_recordings(root: str | Path, options: LayoutOptions = NO_OPTIONS) -> dict[Split, list[LayoutRecording]]:
    """Every clip of a dataset folder by the split that it came with ("val" is what most call test).

    A frame that lacks a file, or whose spike file has another size than it should, is in its recording's `dropped`.
    Raises ValueError: no known layout, an option that it cannot obey, or a clip of which no frame can be used.
    """
    root = Path(root)
    layout = find_layout(root, options)
    if layout is None:
        raise ValueError(f"{root}: no dataset of a known layout; allowed: {', '.join(kind.name for kind in LAYOUTS)}")
    folder = base_folder(root, layout)
    blur = _choose_blur(folder, layout, options)
    source = _spike_source(folder, layout, options, blur)
    found: dict[Split, list[LayoutRecording]] = {split: [] for split in get_args(Split)}
    for split in layout.splits:
        clips = clips_with(folder, layout, layout.blur, split, blur)
        for clip in _listed(folder, layout, split, clips):
            found[split].append(_recording(folder, layout, options, split, clip, blur, source))
    return found


def open_recordings(
    paths: Iterable[str | Path],
    options: LayoutOptions = NO_OPTIONS,
    *,
    split: Split | None = None,
    keep_outside: bool = False,
) -> list[Recording]:
    """Recordings, folders of recordings and dataset folders of a known layout (of these `split` alone, if it is given).

    `keep_outside` as in `open_recording`: to restore every frame.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a path is none of the three, or damaged, or takes no options.
    """
    opened: list[Recording] = []
    for path in map(Path, paths):
        parts = _opened(path, options, keep_outside=keep_outside)
        opened += [one for part in parts if part is None or split in (None, part) for one in parts[part]]
        if options != NO_OPTIONS and find_layout(path, options) is None:
            raise ValueError(f"{path}: {TAKES_NONE}")
    return opened


def _opened(path: Path, options: LayoutOptions, *, keep_outside: bool = False) -> dict[Split | None, list[Recording]]:
    """The recordings of a path by the split that they bring: a dataset folder's own, that of the folders train and val
    (else test) in which `simulate` keeps it, or none."""
    if find_layout(path, options) is not None:
        return {None: [], **{part: [*clips] for part, clips in layout_recordings(path, options).items()}}
    train, val = (recordings_in(path / name) for name in ("train", "val"))
    if val and train and recordings_in(path / "test"):
        print(f"spikevrt: {path / 'test'}: left out; {path / 'val'} is for validation", file=sys.stderr)
    val = val or recordings_in(path / "test")
    parts: dict[Split | None, list[Path]] = {None: [], "train": train, "val": val}
    if not (train and val) or recordings_in(path):
        parts = {None: find_recordings([path], footage_advice), "train": [], "val": []}
    return {part: [open_recording(one, keep_outside=keep_outside) for one in found] for part, found in parts.items()}


def open_clip(root: Path, name: str | None = None, options: LayoutOptions = NO_OPTIONS) -> Recording:
    """A clip of a dataset folder, by its name; without one, the only clip. Raises ValueError: as `open_recordings`; or
    several clips and no name, or no clip of that name."""
    clips = {clip.name: clip for clip in open_recordings([root], options)}
    if name is None and len(clips) == 1:
        return next(iter(clips.values()))
    if name not in clips:
        what = "a dataset folder; name one of its clips with --clip" if name is None else f"no clip {name!r}"
        raise ValueError(f"{root}: {what}; allowed: {', '.join(list(clips)[:20])}{', ...' if len(clips) > 20 else ''}")
    return clips[name]


def open_sources(
    paths: Iterable[str | Path],
    val: Iterable[str | Path] = (),
    layout: LayoutOptions = NO_OPTIONS,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 (immutable)
) -> Sources:
    """What a dataset is made from: recordings, folders of them, and dataset folders, which bring their split.

    `val` are recordings (or folders of them) for validation. With `options.without_sharp` dataset folders that bring a
    test set alone are split like recordings.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: as `open_recordings`; a choice for validation that a dataset folder has made already.
    """
    places, val, theirs = list(map(Path, paths)), list(val), list[Path]()
    own: list[tuple[Recording, Split]] = []
    loose: list[Recording] = []
    for path in places:
        parts = _opened(path, layout)
        loose += parts[None]
        if options.without_sharp and not parts["train"]:
            loose += parts["val"]
        elif parts["val"] or parts["train"]:
            theirs.append(path)
            own += [(recording, split) for split in get_args(Split) for recording in parts[split]]
    if places and all(find_layout(path, layout) is None for path in places) and layout != NO_OPTIONS:
        raise ValueError(f"{places[0]}: {TAKES_NONE}")
    if own and val:
        raise ValueError(f"val: {val[0]}, but {theirs[0]} brings its own split; allowed: none with a dataset folder")
    for recording, _ in own:
        found = recording.voxel_bins
        if found is not None and found % options.num_bins:
            raise ValueError(
                f"num_bins: {options.num_bins}; {recording.root.parent} has voxels of {found}; allowed: "
                f"{found}, or what divides it"
            )
    for name, value in (("val_fraction", options.val_fraction), ("seed", options.seed)):
        if own and not loose and value is not None:
            raise ValueError(f"{name}: {value}, but {places[0]} brings its own split; allowed: none")
    return Sources(loose, [open_recording(path) for path in find_recordings(val)], own)


def _spike_source(root: Path, layout: Layout, options: LayoutOptions, blur: str) -> SpikeSource | None:
    """Which spikes are read; None: there are none. Raises ValueError where those that were asked for are not there."""
    templates: dict[SpikeSource, str | None] = {"raw": layout.spikes, "precomputed": layout.voxels}
    there: list[SpikeSource] = [
        source
        for source, template in templates.items()
        if template and any(clips_with(root, layout, template, split, blur) for split in layout.splits)
    ]
    if options.voxels is not None and options.voxels not in there:
        raise ValueError(
            f"voxels: {options.voxels}; allowed for {root}: {', '.join(there) or 'none, it has no spikes'}"
        )
    return options.voxels or next(iter(there), None)


def _choose_blur(root: Path, layout: Layout, options: LayoutOptions) -> str:
    if options.blur is not None and options.blur not in layout.blurs:
        allowed = (
            f"allowed for {layout.name}: {', '.join(layout.blurs)}" if layout.blurs != ("",) else "it has one kind"
        )
        raise ValueError(f"blur: {options.blur!r}; {allowed}")
    for blur in layout.blurs if options.blur is None else (options.blur,):
        if any(clips_with(root, layout, layout.blur, split, blur) for split in layout.splits):
            return blur
    raise ValueError(f"{root}: no blurry frames of kind {options.blur!r}; allowed: a `blur` that is there")


def _recording(
    root: Path,
    layout: Layout,
    options: LayoutOptions,
    split: Split,
    clip: str,
    blur: str,
    source: SpikeSource | None,
) -> LayoutRecording:
    def place(template: str) -> Path:
        return root / template.format(split=layout.splits[split], clip=clip, blur=blur)

    folder = place(layout.blur)
    pictures = by_stem(folder, IMAGE_SUFFIXES)
    sharp = by_stem(place(layout.sharp), IMAGE_SUFFIXES) if layout.sharp else {}
    there = SpikeFiles(
        tuple(by_stem(place(layout.spikes), (".dat",)).values()),
        tuple(by_stem(place(layout.voxels), (".npy",)).values()) if layout.voxels else (),
    )
    files = {path.stem: path for path in (there.raw if source == "raw" else there.voxels if source else ())}
    no_spikes = source is None
    numbers = frame_numbers(folder, {*pictures, *files}, layout)
    if not pictures:
        raise ValueError(f"{folder}: no images in it; allowed: {', '.join(IMAGE_SUFFIXES)}")
    stems = sorted(pictures, key=lambda stem: numbers[stem])
    places = frame_places(numbers, layout)
    sizes = {stem: _size(pictures[stem]) for stem in stems}
    known = [size for size in sizes.values() if isinstance(size, tuple)]
    if not known:
        raise ValueError(f"{folder}: no frame can be used; the first: {sizes[stems[0]]}")
    height, width = known[0]
    form = clip_format(root, layout, options, folder, (width, height), there, source)
    ticks = _ticks_of(layout, clip, blur)
    needs_sharp = bool(sharp)
    kept: list[str] = []
    dropped = [(places[s], f"no blurry frame for {files[s]}") for s in files if s not in pictures]
    for stem in stems:
        reason, size = None, sizes[stem]
        if isinstance(size, str):
            reason = size
        elif size != (height, width):
            reason = f"{pictures[stem]}: not {width}x{height} pixels as the frames before it"
        elif needs_sharp and stem not in sharp:
            reason = f"no sharp frame for {pictures[stem]}"
        elif not no_spikes and stem not in files:
            reason = f"no spike file for {pictures[stem]}"
        elif not no_spikes:
            path = files[stem]
            reason = wrong_ticks(path, form, ticks) if source == "raw" else wrong_voxels(path, form)
        if reason is None:
            kept.append(stem)
        else:
            dropped.append((places[stem], reason))
    if not kept:
        raise ValueError(f"{folder}: no frame can be used; the first: {sorted(dropped)[0][1]}")
    streams = spike_streams(options, source, [files[stem] for stem in kept] if source else [], form)
    frames = [(places[stem], numbers[stem]) for stem in kept]
    exposures, fps = _exposures(layout, options, streams, frames, min(places.values()), ticks)
    return LayoutRecording(
        root=folder,
        width=width,
        height=height,
        tick_rate_hz=layout.tick_rate_hz,
        exposures=exposures,
        spikes=JoinedStream(streams) if streams else None,
        blur=tuple(pictures[stem] for stem in kept),
        sharp=tuple(sharp[stem] for stem in kept) if sharp else (),
        fps=fps,
        provenance={"layout": layout.name, "split": split, "clip": clip} | ({"blur": blur} if blur else {}),
        dropped=tuple(sorted(dropped)),
        clip=clip,
        notes=source_notes(there, streams),
        voxel_bins=next((stream.shape[0] for stream in streams if isinstance(stream, VoxelStream)), None),
    )


def _size(path: Path) -> tuple[int, int] | str:
    """(height, width) of a picture, or what is wrong with it."""
    try:
        return image_size(path)
    except ValueError as error:
        return str(error)


def _ticks_of(layout: Layout, clip: str, blur: str) -> tuple[int, ...]:
    """What the files of a clip may hold."""
    if layout.name == "spk-x4k":
        return (int(blur),)
    averaged = averaged_ticks(clip) if layout.file_ticks == tuple(GOPRO_TICKS.values()) else None
    return layout.file_ticks if averaged is None else (averaged,)


def _exposures(
    layout: Layout,
    options: LayoutOptions,
    streams: Sequence[SpikeStream],
    frames: list[tuple[int, int]],
    first: int,
    ticks: tuple[int, ...],
) -> tuple[tuple[Exposure, ...], float]:
    """The middle of each file, and frames per second; `frames` are places and numbers. The clock runs on through frames
    that were dropped.

    Without spikes every exposure holds no tick, as in any recording of frames alone.
    """
    rate = layout.tick_rate_hz
    exposures, begins, period = [], 0, 0
    for index, (place, number) in enumerate(frames):
        held = streams[index].num_ticks if streams else (*ticks, 1)[0]
        wanted = options.exposure_ticks or layout.exposure_ticks or held
        if wanted > held:
            raise ValueError(f"exposure_ticks: {wanted}; allowed: 1 to {held}, the ticks of {streams[index].files[0]}")
        margin = (held - wanted) // 2
        period = period or layout.period_ticks or held
        if layout.name == "spk-x4k":  # numbers count ticks, and name the middle of the exposure
            clock = number - held // 2 + margin
        else:
            clock = (place - first) * period + margin
        start, stop = (begins + margin, begins + margin + wanted) if streams else (0, 0)
        exposures.append(Exposure(place, start, stop, clock / rate, (clock + wanted) / rate))
        begins += held
    return tuple(exposures), rate / (layout.number_step if layout.name == "spk-x4k" and layout.number_step else period)


def _listed(root: Path, layout: Layout, split: Split, clips: list[str]) -> list[str]:
    """The clips that a meta_info file of S-VRT names (lines: clip, frames, 0, first index), or all."""
    if layout.name != "s-vrt":
        return clips
    lists = sorted((root / "GOPRO_Large").glob(f"meta_info*{layout.splits[split]}*.txt"))
    if not lists:
        return clips
    chosen = []
    for line in lists[0].read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 4 or not (words[1].isdecimal() and words[3].isdecimal()) or words[0] not in clips:
            raise ValueError(f"{lists[0]}: {line[:80]!r}; allowed: clip that is there, frames, 0, first index")
        folder = root / layout.blur.format(split=layout.splits[split], clip=words[0], blur="")
        numbers = frame_numbers(folder, set(by_stem(folder, IMAGE_SUFFIXES)), layout).values()
        if (len(numbers), min(numbers, default=-1)) != (int(words[1]), int(words[3])):
            raise ValueError(
                f"{lists[0]}: {line[:80]!r}, but {folder} has {len(numbers)} frames from {min(numbers, default=0)} on"
            )
        chosen.append(words[0])
    return chosen
