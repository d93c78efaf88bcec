"""What is known of other people's dataset folders: how each tree is told, and the facts that it does not tell itself.

Each layout has one packed spike file for every blurry frame. The size of the sensor, the ticks of a file and the rate
are facts of the layout, stated here and checked against every file (`layouts`). docs/datasets.md draws the trees.

Words: split ("train", "val"), clip (a folder of consecutive frames).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from spikevrt.config import SpikeSource, Split
from spikevrt.recording.sidecar import TICK_RATE_HZ, Rows

GOPRO_TICKS = {"07": 56, "11": 88, "13": 104}  # by the frames averaged, which the clip's name tells: 8 ticks a frame
GOPRO_RATE_HZ, X4K_RATE_HZ, CAMERA_RATE_HZ = 1920.0, 4000.0, TICK_RATE_HZ  # 240 fps x 8, 1000 fps x 4, assumed


@dataclass(frozen=True)
class Layout:
    """What is known of a layout. Its templates: {split} is one of `splits`, {clip} any folder, {blur} of `blurs`."""

    name: str
    splits: dict[Split, str]
    blur: str
    sharp: str | None
    spikes: str
    tick_rate_hz: float
    ratio: int | None = None  # frame pixels per spike pixel; None: whatever the spikes' size makes it
    size: tuple[int, int] | None = None  # width and height of the spikes; None: frames / ratio
    file_ticks: tuple[int, ...] = ()  # what a file may hold; none: anything
    exposure_ticks: int | None = None  # the middle of a file that is the exposure; None: all of it
    period_ticks: int | None = None  # from frame to frame; None: the ticks of a file
    number_step: int | None = 1  # from one frame's name to the next one's; None: the smallest there is
    blurs: tuple[str, ...] = ("",)  # which blurry frames there are; the first that exists unless told
    voxels: str | None = None  # precomputed, of each exposure (`voxel_files`); may be there instead of the spikes
    clips: tuple[str, ...] = ("*",)  # how deep the folders of clips lie


LAYOUTS = (
    Layout(
        "spk-gopro",
        {"train": "train", "val": "test"},
        "GOPRO_Large/{split}/{clip}/{blur}",
        "GOPRO_Large/{split}/{clip}/sharp",
        "GOPRO_Large_spike_seq/{split}/{clip}/spike",
        GOPRO_RATE_HZ,
        ratio=2,
        file_ticks=tuple(GOPRO_TICKS.values()),
        blurs=("blur_gamma", "blur"),
    ),
    Layout(
        "spk-x4k",
        {"train": "train", "val": "val"},
        "{split}_blurry_{blur}/{clip}",
        "{split}_fullRGB/{clip}",
        "{split}_spike_2xds_{blur}/{clip}",
        X4K_RATE_HZ,
        ratio=2,
        number_step=15,
        blurs=("33", "65"),
        clips=("*/*",),  # SCENE/occXXX
    ),
    Layout(
        "s-sdm",
        {"train": "train", "val": "test"},
        "{split}/blur_data/{clip}",
        "{split}/sharp_data/{clip}",
        "{split}/spike_data/{clip}",
        GOPRO_RATE_HZ,
        ratio=4,
        file_ticks=(137,),
        exposure_ticks=97,
        period_ticks=104,
        number_step=None,
    ),
    Layout(
        "rsb",
        {"val": ""},
        "blur_data/{clip}",
        None,
        "spike_data/{clip}",
        CAMERA_RATE_HZ,
        ratio=4,
        size=(400, 250),
        number_step=None,
    ),
    Layout(
        "s-vrt",
        {"train": "train", "val": "test"},
        "GOPRO_Large/{split}_GT_blurred/{clip}",
        "GOPRO_Large/{split}_GT/{clip}",
        "GOPRO_Large_spike_seq/{split}/{clip}/spike",
        GOPRO_RATE_HZ,
        ratio=2,
        file_ticks=tuple(GOPRO_TICKS.values()),
    ),
    Layout(
        "reference",
        {"train": "train", "val": "val"},
        "{split}/{clip}/blur",
        "{split}/{clip}/sharp",
        "{split}/{clip}/spike",
        CAMERA_RATE_HZ,
        number_step=None,
        voxels="{split}/{clip}/spike_vox",
        clips=("*", "*/*"),
    ),
)
CHOOSE_BLUR = ", ".join(layout.blurs[0] for layout in LAYOUTS if len(layout.blurs) > 1)
NEEDS_SPIKES = ("s-sdm", "rsb", "reference")  # their other folders' names are too common to tell a layout by


@dataclass(frozen=True)
class LayoutOptions:
    """What the user may say about a dataset folder, as options of verbs that read one; None: what the layout has."""

    layout: Annotated[str | None, "of a dataset folder (told from its folders)"] = None
    blur: Annotated[str | None, f"which blurry frames, where a dataset has several ({CHOOSE_BLUR})"] = None
    exposure_ticks: Annotated[int | None, "ticks in the middle of each spike file (the layout's)"] = None
    spike_width: Annotated[int | None, "columns of the sensor, where the dataset does not tell"] = None
    spike_height: Annotated[int | None, "rows of the sensor"] = None
    spike_rows: Annotated[Rows | None, "of spike files (bottom-up; of voxels top-down)"] = None
    voxels: Annotated[
        SpikeSource | None, "spikes: spike/*.dat (raw), or spike_vox/*.npy (what is there, raw first)"
    ] = None
    voxel_mean: Annotated[float, "with which spike_vox/*.npy was standardised"] = 0.0
    voxel_std: Annotated[float, "likewise"] = 1.0

    def __post_init__(self) -> None:
        names = [layout.name for layout in LAYOUTS]
        if self.layout is not None and self.layout not in names:
            raise ValueError(f"layout: {self.layout!r}; allowed: {', '.join(names)}")
        if not (math.isfinite(self.voxel_mean) and 0 < self.voxel_std < math.inf):
            raise ValueError(
                f"voxel_mean, voxel_std: {self.voxel_mean}, {self.voxel_std}; allowed: finite, std above 0"
            )
        if self.voxels == "raw" and (self.voxel_mean, self.voxel_std) != (0, 1):
            raise ValueError(
                "voxel_mean, voxel_std: with `voxels` raw, which are counted; allowed: with precomputed ones"
            )
        if (self.spike_width is None) != (self.spike_height is None):
            raise ValueError("spike_width, spike_height: one is missing; allowed: both or none")
        for name in ("exposure_ticks", "spike_width", "spike_height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value}; allowed: 1 or more")


NO_OPTIONS = LayoutOptions()


def find_layout(root: str | Path, options: LayoutOptions = NO_OPTIONS) -> Layout | None:
    """The layout of a dataset folder, told from its folders; None when it has none of the known ones.

    Raises:
        ValueError: it fits several, or not the one that the options name.
    """
    root = Path(root)
    known = [_with_split(root, layout) for layout in LAYOUTS]
    fits = [] if (root / "dataset.json").is_file() else [layout for layout in known if _fits(root, layout)]
    if options.layout is not None:
        for layout in fits:
            if layout.name == options.layout:
                return layout
        raise ValueError(f"{root}: no folders of `layout` {options.layout}; docs/datasets.md draws each layout's tree")
    if len(fits) > 1:
        raise ValueError(
            f"{root}: several layouts fit; allowed: --layout {' or '.join(layout.name for layout in fits)}"
        )
    return fits[0] if fits else None


def base_folder(root: Path, layout: Layout) -> Path:
    return root / "GOPRO" if layout.name == "s-sdm" and (root / "GOPRO").is_dir() else root


def _with_split(root: Path, layout: Layout) -> Layout:
    """`reference` calls its second split val, or test."""
    if layout.name == "reference" and not (root / "val").is_dir():
        return replace(layout, splits={"train": "train", "val": "test"})
    return layout


def _fits(root: Path, layout: Layout) -> bool:
    folder = base_folder(root, layout)

    def has(template: str) -> bool:
        return any(
            clips_with(folder, layout, template, split, blur) for split in layout.splits for blur in layout.blurs
        )

    has_spikes = has(layout.spikes) or (layout.voxels is not None and has(layout.voxels))
    return has(layout.blur) and (layout.name not in NEEDS_SPIKES or has_spikes)


def clips_with(root: Path, layout: Layout, template: str, split: Split, blur: str) -> list[str]:
    """Names of the clips that have this folder, sorted; hidden ones are skipped."""
    before, after = template.format(split=layout.splits[split], clip="\0", blur=blur).split("\0")
    base, inside = root / before, after.count("/")
    folders = [folder for clip in layout.clips for folder in base.glob(clip + after)] if base.is_dir() else []
    names = ["/".join(folder.relative_to(base).parts[: -inside or None]) for folder in folders if folder.is_dir()]
    return sorted(name for name in names if not any(piece.startswith(".") for piece in name.split("/")))


def averaged_ticks(clip: str) -> int | None:
    """The ticks of a file of a GoPro clip, whose name tells the frames averaged (GOPR0372_07_00: 7), or None."""
    averaged = re.search(r"_(07|11|13)_", clip)
    return GOPRO_TICKS[averaged[1]] if averaged else None


def frame_numbers(folder: Path, stems: set[str], layout: Layout) -> dict[str, int]:
    """Each frame's number: its name, or in base 4 (of Spk-X4K1000FPS: NNNN, then NNNN_000 to NNNN_002).

    Raises ValueError when a name is none, or two are the same number.
    """
    numbers: dict[str, int] = {}
    is_base_4 = layout.name == "spk-x4k" or (layout.name == "reference" and any("_" in stem for stem in stems))
    form = r"([0-9]{1,9})(?:_([0-9]{3}))?" if is_base_4 else r"([0-9]{1,9})"
    for stem in sorted(stems):
        match = re.fullmatch(form, stem)
        if match is None:
            raise ValueError(f"{folder}: a frame is named {stem!r}; allowed: numbers")
        numbers[stem] = int(match[1])
        if is_base_4:
            numbers[stem] = 4 * int(match[1]) + (0 if match[2] is None else 1 + int(match[2]))
    if len(set(numbers.values())) < len(numbers):
        raise ValueError(f"{folder}: two frames have the same number; allowed: each once")
    return numbers


def frame_places(numbers: dict[str, int], layout: Layout) -> dict[str, int]:
    """Each frame's index, which rises by one from a frame to the next: so a frame that is missing leaves a gap."""
    rising = sorted(numbers.values())
    step = layout.number_step or min((b - a for a, b in zip(rising, rising[1:], strict=False)), default=1)
    if step == 1:
        return numbers
    if any((number - rising[0]) % step for number in rising):
        return {stem: rising.index(number) for stem, number in numbers.items()}
    return {stem: (number - rising[0]) // step for stem, number in numbers.items()}
