"""Folders of other people's sharp footage: which clips are in them, with the split and the name that each comes with.

GoPro, REDS, Vimeo-90K, any folder of folders of frames and any folder of videos are told from the names of files and
folders alone; no picture is opened. docs/simulation.md draws the trees.

Words: split ("train", "val", "test"), clip (a folder of consecutive frames, or a video file).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spikevrt.recording.frames import IMAGE_SUFFIXES
from spikevrt.recording.sidecar import SIDECAR
from spikevrt.recording.video import VIDEO_SUFFIXES
from spikevrt.typed import amount

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SHARP = re.compile(r"(?:([a-z]+)_)?(?:sharp|gt)", re.IGNORECASE)  # GoPro: sharp; REDS: train_sharp
BLURRY = re.compile(r"(?:.*_)?blur(?:ry|red)?(?:_.*)?", re.IGNORECASE)  # blur, blur_gamma, train_blur_comp
BETWEEN = "sequences"  # Vimeo-90K: a folder between the root and its clips that says nothing
PREPARED = "dataset.json"


class SharpClip(NamedTuple):
    """Sharp footage and what its recording is called: SPLIT/NAME, or NAME."""

    source: Path
    name: str


@dataclass(frozen=True)
class FootageFolder:
    """The clips of a folder, and in `notes` what of it is left out and why, one fact a line."""

    clips: tuple[SharpClip, ...]
    notes: tuple[str, ...]

    def in_words(self) -> str:
        """How many clips there are of each split."""
        counts = Counter(clip.name.rpartition("/")[0] for clip in self.clips)
        parts = [f"{num} {split}" for split, num in counts.items() if split]
        return amount(len(self.clips), "clip") + (f" ({', '.join(parts)})" if parts else "")


def find_clips(root: Path) -> FootageFolder | None:
    """The clips in a folder of folders or videos. None: it is no folder, holds images itself (it is one clip), or is a
    recording or a prepared dataset.

    Where some clips have a folder `sharp` (or SPLIT_sharp, `gt`), these alone are taken; of others, those whose names
    do not say that they are blurry. Raises ValueError: there is no sharp footage, or two clips would have one name.
    """
    if not root.is_dir() or (root / SIDECAR).is_file() or (root / PREPARED).is_file():
        return None
    found, notes = list[tuple[str, ...]](), list[str]()
    for path, kind in _walk(root):
        if path == root and kind == "frames":
            return None
        parts = path.relative_to(root).parts
        if kind == "recording":
            notes.append(f"{path}: left out: it is a recording already")
        elif kind == "empty":
            notes.append(f"{path}: left out: it holds no frames")
        else:
            found.append(parts)
    have_sharp, have_recordings = any(map(_is_sharp, found)), any("is a recording" in note for note in notes)
    taken = [parts for parts in found if (_is_sharp(parts) if have_sharp else not _is_blurry(parts))]
    listed = _listed(root)
    clips, num_unlisted = dict[str, SharpClip](), 0
    for parts in taken:
        split, names = _named(parts, listed)
        if listed and not split:
            num_unlisted += 1
            continue
        clip = SharpClip(root.joinpath(*parts), "/".join(filter(None, (split, "_".join(names) or root.resolve().name))))
        if clip.name in clips:
            both = f"{clips[clip.name].source} and {clip.source}"
            raise ValueError(f"{both}: would both be called {clip.name}; allowed: one of the two folders at a time")
        clips[clip.name] = clip
    notes += _left_out(root, found, taken)
    if num_unlisted:
        left_out = amount(num_unlisted, "clip")
        notes.append(f"{root}: {left_out} left out, in no list (*_trainlist.txt, *_testlist.txt)")
    if not clips:
        what = "blurry frames alone" if found else "recordings alone" if have_recordings else "no frames, no videos"
        raise ValueError(f"{root}: {what}; allowed: folders of sharp frames (sharp/ beside blur/), or videos")
    return FootageFolder(tuple(clips.values()), tuple(notes))


def footage_advice(path: Path) -> str:
    """What ends the line that refuses sharp footage where recordings are wanted; empty where it is none."""
    try:
        is_footage = find_clips(path) is not None
    except ValueError:
        return ""
    return "; its sharp footage becomes recordings by `spikevrt simulate`" if is_footage else ""


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Each folder of frames, video, recording, and folder without anything, in the order of names."""
    seen = set[str]()
    for name, folders, files in os.walk(root, followlinks=True):
        folder, real = Path(name), os.path.realpath(name)
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        if real in seen or SIDECAR in files:
            folders.clear()
        if real not in seen:
            seen.add(real)
            media = sorted(file for file in files if not file.startswith("."))
            videos = [file for file in media if Path(file).suffix.lower() in VIDEO_SUFFIXES]
            if SIDECAR in files:
                yield folder, "recording"
            elif any(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in media):
                yield folder, "frames"
            elif not videos and not folders:
                yield folder, "empty"
            yield from ((folder / file, "video") for file in videos)


def _is_sharp(parts: tuple[str, ...]) -> bool:
    return any(_sharp_split(part) is not None for part in parts)


def _sharp_split(part: str) -> str | None:
    """Of the name of a folder of sharp frames, the split in it, or an empty text; None: it is the name of no such."""
    match = SHARP.fullmatch(part)
    return None if match is None else "" if match[1] is None else SPLITS.get(match[1].lower())


def _is_blurry(parts: tuple[str, ...]) -> bool:
    return any(map(BLURRY.fullmatch, parts))


def _named(parts: tuple[str, ...], listed: dict[str, str]) -> tuple[str, list[str]]:
    """(split, what of the path names the clip): what stands behind the split, without `sharp` and the like."""
    split, names = "", list[str]()
    for part in (*parts[:-1], Path(parts[-1]).stem if parts[-1].lower().endswith(VIDEO_SUFFIXES) else parts[-1]):
        own = _sharp_split(part)
        if not split and part.lower() in SPLITS:
            split, names = SPLITS[part.lower()], []
        elif own is not None:
            split = split or own
        elif not (part == BETWEEN and not names):
            names.append(part)
    return split or listed.get("/".join(names), ""), names


def _listed(root: Path) -> dict[str, str]:
    """The split of each clip that Vimeo-90K's lists name ("00001/0001")."""
    files = [(path, split) for split in ("train", "test") for path in sorted(root.glob(f"*_{split}list.txt"))]
    return {name: split for path, split in files for name in path.read_text(encoding="utf-8").split()}


def _left_out(root: Path, found: list[tuple[str, ...]], taken: list[tuple[str, ...]]) -> list[str]:
    """What is said of the folders that are not taken: in one line what is beside sharp frames, others by name."""
    beside, notes, clips = Counter[str](), list[str](), {_without_kind(parts) for parts in taken}
    for parts in sorted(set(found) - set(taken)):
        if _without_kind(parts) in clips:
            beside[next(part for part in parts if BLURRY.fullmatch(part))] += 1
        else:
            why = "blurry frames without sharp ones" if _is_blurry(parts) else "others here have a folder sharp"
            notes.append(f"{root.joinpath(*parts)}: left out: {why}")
    if beside:
        names = ", ".join(f"{name} ({num})" for name, num in beside.items())
        notes.insert(0, f"{root}: left out: {names} beside sharp frames")
    return notes


def _without_kind(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in parts if _sharp_split(part) is None and not BLURRY.fullmatch(part))
