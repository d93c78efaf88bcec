"""Does a video come out as it went in? `python benchmarks/media_matrix.py [--slice N]`

Makes the files of media_files.py, in which every pair of values that can be had stands at least once (containers,
codecs, depths, ranges, matrices, chroma, alpha, HDR, sizes, rates, rotations, pixel aspects, interlaced, sound, its
offset, clocks). Each is restored twice as a user would, by `spikevrt restore`, with a network that returns its frames:
lossy, to .mp4 (of .mov to .mov) as it is by default, or with `--codec hevc` or `av1`, and `--crf 1` (by the loss of 16
alone, patches of so small a picture are up to 4 levels and edges 0.2 px off); and without loss to .mkv (FFV1). What
comes out is compared with what the file itself holds, which is computed in float64 from its coded samples by the
formulas of the standards, never by FFmpeg's scaler:

    frames       as many, in order (their numbers are in the picture)
    times        from the first frame on: exact in .mp4 and .mov; in .mkv to its millisecond, and told
    rate         the summary's frames a second
    sound        as many streams, unless told; from a frame to the beep to 1 ms, which is what two roundings to
                 milliseconds explain (packets are copied, so a codec's run-up is the same in both)
    geometry     upright and of the right size
    colour       eight flat patches: to 2 levels of 255; without loss to half a step of the file's bits
    chroma       the place of two edges between colours, to 0.1 px
    tags         primaries and transfer are the file's; matrix and range are stated
    aspect       of pixels, upright, unless told
    depth        the file's bits, at least 10 of more, unless told
    alpha        told where there is one, for nothing that is written holds it
    interlaced   refused, in a line

Prints tables in Markdown. Exit status 1 where anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from media_files import (  # fmt: skip
    BEEP_S,
    DIMENSIONS,
    HEIGHT,
    LUMA,
    NUM_FRAMES,
    PATCHES,
    SIGNAL,
    TAGS,
    TRANSFERS,
    WIDTH,
    Case,
    covering,
    make_file,
    untagged_matrix,
    valued,
)
from torch import Tensor

from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.cli import main as spikevrt
from spikevrt.config import ModelConfig
from spikevrt.model.flow import Flows
from spikevrt.model.network import Network

MATRICES = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020nc"}
FLASH = 6  # the frame from which the beep is measured
COLOUR_LEVELS, EDGE_PX, SOUND_S = 2.0, 0.1, Fraction(1, 1000)


class Same(Network):
    """Returns its frames."""

    pad_multiple = min_frames = 1
    min_size_px = min_free_px = 16

    def forward(
        self,
        blur: Tensor,
        spike_vox: Tensor | None = None,
        spikes_present: Tensor | None = None,
        flows: Flows | None = None,
    ) -> Tensor:
        return blur.clone()

    def start_at_identity(self) -> None:
        """It is the identity."""

    def bytes_per_pixel(self) -> float:
        return 24.0


# --- what a file shows ------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a file holds, decoded by PyAV: frames as RGB, not clamped, float64 (H, W, 3), as they are stored."""

    frames: list[np.ndarray]
    times: list[Fraction]
    bits: int
    alpha: bool
    matrix: int
    primaries: int
    transfer: int
    range: int
    rotation: int
    aspect: Fraction
    is_interlaced: bool
    num_sounds: int
    beep: Fraction | None


def look(path: Path) -> Seen:
    """What PyAV does not tell is as everywhere: chroma in the middle of its pixels in Motion JPEG, else at the left;
    grey FFV1 of no stated range is full."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        decoded, codec = list(container.decode(stream)), stream.codec_context.codec.canonical_name
        first = decoded[0]
        for frame in decoded:
            if codec == "ffv1" and first.format.name.startswith("gray") and not int(frame.color_range):
                frame.color_range = 2
        components = first.format.components
        is_interlaced = any(frame.interlaced_frame for frame in decoded) or int(stream.codec_context.field_order) > 1
        aspect, num_sounds = stream.sample_aspect_ratio or Fraction(1), len(container.streams.audio)
        times = [frame.pts * stream.time_base for frame in decoded]
    beep = beep_time(path) if num_sounds else None
    return Seen(
        [as_rgb(frame, is_centred=codec == "mjpeg") for frame in decoded], times, max(one.bits for one in components),
        any(one.is_alpha for one in components) and first.format.name != "bgr0",
        int(first.colorspace), int(first.color_primaries), int(first.color_trc), int(first.color_range),
        first.rotation % 360, aspect, is_interlaced, num_sounds, beep,
    )  # fmt: skip


def beep_time(path: Path) -> Fraction | None:
    """When the sound is first loud, in seconds."""
    loudest = {"s16": 2**15, "s16p": 2**15, "s32": 2**31, "s32p": 2**31}
    frame: Any
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            loud = np.flatnonzero(np.abs(frame.to_ndarray().reshape(-1) / loudest.get(frame.format.name, 1)) > 0.2)
            if len(loud):
                return frame.pts * frame.time_base + Fraction(int(loud[0]), frame.sample_rate)
    return None


def as_rgb(frame: Any, *, is_centred: bool) -> np.ndarray:
    """A decoded frame as RGB by the formulas of BT.601, BT.709 and BT.2020, chroma interpolated between samples."""
    name, bits = frame.format.name, frame.format.components[0].bits
    if name in ("bgr0", "bgra", "rgb24"):
        return frame.to_ndarray(format="rgb24") / 255  # no more than another order of bytes
    dtype = np.uint8 if bits == 8 else np.uint16
    planes = [
        np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].astype(float) for plane in frame.planes
    ]
    top, step = (1 << bits) - 1, 1 << (bits - 8)
    if name.startswith("gbr"):
        return np.stack([planes[2], planes[0], planes[1]], -1) / top
    is_full = frame.color_range == 2 or name.startswith("yuvj")
    luma = planes[0] / top if is_full else (planes[0] - 16 * step) / (219 * step)
    if name.startswith("gray"):
        return np.repeat(luma[..., None], 3, -1)
    scale = top if is_full else 224 * step
    blue_chroma, red_chroma = (upsampled((plane - 128 * step) / scale, luma.shape, is_centred) for plane in planes[1:3])
    red, blue = LUMA[MATRICES.get(int(frame.colorspace)) or untagged_matrix(frame.height)]
    r, b = luma + 2 * (1 - red) * red_chroma, luma + 2 * (1 - blue) * blue_chroma
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], -1)


def upsampled(plane: np.ndarray, shape: tuple[int, ...], is_centred: bool) -> np.ndarray:
    """Bring chroma to every pixel, linearly. A sample lies between two rows; in columns at the left of two, or
    between them."""
    shifts = 0.5, 0.5 if is_centred else 0.0
    for axis, shift in enumerate(shifts):
        lines = np.moveaxis(plane, axis, -1)
        factor = round(shape[axis] / lines.shape[-1])
        if factor > 1:
            at, places = (np.arange(shape[axis]) - shift) / factor, np.arange(lines.shape[-1])
            plane = np.moveaxis(np.stack([np.interp(at, places, line) for line in lines]), -1, axis)
    return plane


def number_of(image: np.ndarray) -> int:
    """The frame's number, as the blocks have it."""
    return sum(int(image[40:48, 5 + 11 * bit : 9 + 11 * bit].mean() > 0.5) << bit for bit in range(4))


def patch_colours(frames: list[np.ndarray]) -> np.ndarray:
    """The mean colour of the middle of each patch, (8, 3)."""
    image = np.mean(frames, 0)[:HEIGHT, :WIDTH]
    corners = [divmod(index, 4) for index in range(len(PATCHES))]
    return np.stack([image[16 * i + 5 : 16 * i + 11, 24 * j + 8 : 24 * j + 16].mean((0, 1)) for i, j in corners])


def edge_places(frames: list[np.ndarray]) -> tuple[float, float]:
    """Where blue minus red changes from one side's value to the other's: the column, the row, in pixels."""
    image = np.mean(frames, 0)
    difference = image[..., 2] - image[..., 0]
    across, down = difference[38:58, 54:66].mean(0), difference[42:54, 78:90].mean(1)

    def place(line: np.ndarray) -> float:
        one, other = line[:3].mean(), line[-3:].mean()
        return float(((other - line) / (other - one)).sum())

    return place(across), place(down)


# --- what is compared -------------------------------------------------------------------------------------------------


def check_made(case: Case, seen: Seen) -> None:
    """Raises ValueError where the file is not what was asked for: then a rule of media_files.py is missing."""
    told = {"matrix": case.chroma == "grey" or MATRICES.get(seen.matrix) == MATRICES.get(TAGS[case.matrix][0])}
    told["range"] = (seen.range == 2) == (case.range == "full")
    told["transfer"] = case.transfer == "sdr" or seen.transfer == TRANSFERS[case.transfer]
    for name in ("bits", "alpha", "rotation"):
        told[name] = getattr(seen, name) == getattr(case, name)
    told["aspect"] = seen.aspect == Fraction(case.aspect)
    told["scan"] = seen.is_interlaced == (case.scan == "interlaced")
    told["sound"] = (seen.beep is not None) == (case.sound != "none")
    times, wanted = seen.times, case.times()
    told["times"] = len(times) == NUM_FRAMES and all(
        abs(one - times[0] - other + wanted[0]) <= Fraction(1, 1000) for one, other in zip(times, wanted, strict=False)
    )
    if seen.beep is not None and told["times"]:
        asked = max(Fraction(0), Fraction(case.offset)) + BEEP_S - wanted[FLASH]
        told["beep"] = abs(seen.beep - seen.times[FLASH] - asked) < Fraction(6, 100)  # with a codec's run-up
    drawn, wanted_colours = patch_colours(seen.frames), np.array(list(PATCHES.values())) / 255
    if case.chroma == "grey":
        drawn, wanted_colours = drawn[:3], wanted_colours[:3]
    told["numbers"] = [number_of(frame) for frame in seen.frames] == list(range(NUM_FRAMES))
    told["picture"] = bool(np.abs(drawn - wanted_colours).max() < 0.03)
    if wrong := [name for name, holds in told.items() if not holds]:
        raise ValueError(f"made otherwise than asked: {', '.join(wrong)}; {case.words()}")


def compare(case: Case, source: Seen, out: Seen, fps: float, told: str, *, is_lossy: bool) -> list[tuple[str, str]]:
    """What is wrong with a result, as (check, figures)."""
    tags = (out.primaries, out.transfer), (source.primaries, source.transfer)
    is_stated = out.matrix in (1, 9) and out.range == 1 if is_lossy else out.matrix in (0, 2)
    aspect = 1 / source.aspect if case.rotation % 180 else source.aspect
    claims = [
        *same_pictures(case, source, out, is_lossy=is_lossy),
        ("times", *same_times(source.times, out.times, told, is_lossy=is_lossy)),
        ("rate", case.rate == "variable" or abs(fps / Fraction(case.rate) - 1) < 1e-3, f"{fps:.3f} frames a second"),
        ("sound", *same_sound(source, out, told)),
        ("tags", tags[0] == tags[1], f"primaries, transfer {tags[0]}, not {tags[1]}"),
        ("tags", is_stated, f"matrix {out.matrix}, range {out.range}"),
        ("aspect", out.aspect == aspect or "pixel aspect" in told, f"{out.aspect}, not {aspect}"),
        ("depth", out.bits >= source.bits or (out.bits >= 10 and "bits" in told), f"{out.bits} of {source.bits} bits"),
        ("alpha", not source.alpha or out.alpha or "alpha" in told, "not told that it is lost"),
    ]
    return [(check, figures) for check, holds, figures in claims if not holds]


def same_pictures(case: Case, source: Seen, out: Seen, *, is_lossy: bool) -> list[tuple[str, bool, str]]:
    """(check, whether it holds, figures) of what the pictures show."""
    size = height, width = case.shape[::-1] if case.rotation % 180 else case.shape
    grown = (height + height % 2, width + width % 2) if is_lossy else size
    if out.frames[0].shape[:2] != grown:
        return [("geometry", False, f"{out.frames[0].shape[:2]}, not {grown}")]
    frames = [np.rot90(frame[:height, :width], -case.rotation // 90) for frame in out.frames]
    found, right = patch_colours(frames), np.clip(patch_colours(source.frames), 0, 1)
    others = [patch_colours([frame[::-1, ::step] for frame in frames]) for step in (1, -1)]
    if np.abs(found - right).sum() > min(np.abs(other - right).sum() for other in others):
        return [("geometry", False, "upside down")]
    numbers, off = [number_of(frame) for frame in frames], np.abs(found - right).max(1) * 255
    limit, worst = COLOUR_LEVELS if is_lossy else 0.55 * 255 / ((1 << out.bits) - 1), int(off.argmax())
    claims = [
        ("frames", numbers == list(range(NUM_FRAMES)), f"{numbers}"),
        ("colour", bool(off[worst] <= limit), f"{list(PATCHES)[worst]} off by {off[worst]:.2f} levels"),
    ]
    if case.chroma != "grey":
        across, down = np.subtract(edge_places(frames), edge_places(source.frames))
        is_near = max(abs(across), abs(down)) <= EDGE_PX
        claims.append(("chroma", bool(is_near), f"edges moved by {across:+.2f}, {down:+.2f} px"))
    return claims


def same_times(source: list[Fraction], out: list[Fraction], told: str, *, is_lossy: bool) -> tuple[bool, str]:
    """Whether they agree from the first frame on, and what does not."""
    if len(source) != len(out):
        return False, f"{len(out)} frames, not {len(source)}"
    steps = [[one - times[0] for one in times] for times in (source, out)]
    off = max(abs(one - other) for one, other in zip(*steps, strict=True))
    if is_lossy or off == 0:
        return off == 0, f"off by {float(off) * 1e3:.3f} ms"
    return off <= Fraction(
        1, 1000
    ) and "rounded" in told, f"off by {float(off) * 1e3:.3f} ms, told: {'rounded' in told}"


def same_sound(source: Seen, out: Seen, told: str) -> tuple[bool, str]:
    """Whether it is there, or told, and as far from the frames as it was."""
    if source.num_sounds != out.num_sounds:
        return "not carried over" in told, f"{out.num_sounds} streams, and not told"
    if source.beep is None:
        return True, ""
    if out.beep is None or len(out.times) <= FLASH:
        return False, "no beep"
    off = (out.beep - out.times[FLASH]) - (source.beep - source.times[FLASH])
    return abs(off) <= SOUND_S, f"{float(off) * 1e3:+.2f} ms late"


def judge(case: Case, weights: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Make the file and restore it; what is wrong, as (output, check, figures)."""
    path = folder / f"in.{case.container}"
    make_file(case, path)
    source = look(path)
    check_made(case, source)
    wrong = []
    suffix = ".mov" if case.container == "mov" and case.written != "av1" else ".mp4"
    lossy = ["--crf", "1", *([] if case.written == "default" else ["--codec", case.written])]
    for name, options in ((f"lossy{suffix}", lossy), ("lossless.mkv", ["--codec", "ffv1"])):
        kind, out = Path(name).stem, folder / name
        for old in (out, folder / f"{name}.json"):
            old.unlink(missing_ok=True)
        command = ["restore", str(path), "--weights", str(weights), "--trust-custom", factory(), "--out", str(out)]
        with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
            status = spikevrt([*command, *options, "--device", "cpu"])
        told = stderr.getvalue()
        last = told.strip().splitlines()[-1] if told.strip() else ""
        if case.scan == "interlaced":
            if status != 2 or "interlaced" not in last or told.count("\n") != 1 or out.exists():
                wrong.append((kind, "interlaced", f"not refused in a line (status {status})"))
        elif status != 0:
            wrong.append((kind, "refused", last.replace(str(folder), "").replace("spikevrt: ", "")))
        else:
            fps = float(json.loads((folder / f"{name}.json").read_text())["fps"])
            seen = look(out)
            wrong += [(kind, *one) for one in compare(case, source, seen, fps, told, is_lossy=kind == "lossy")]
    return wrong


def factory() -> str:
    """What makes the network, by a name that the command can import."""
    return f"{Path(__file__).stem}:Same"


# --- what is printed --------------------------------------------------------------------------------------------------


def explained(failed: set[int], cases: list[tuple[str, ...]]) -> list[tuple[tuple[str, ...], int]]:
    """The fewest values with which everything failed: (values, how many failed), until all failures are told."""
    left, found = set(failed), []
    while left:
        ranked: list[tuple[int, int, tuple[str, ...]]] = []
        for size in (1, 2, 3):
            together = Counter(
                values for index in left for values in itertools.combinations(cases[index], size)
            )  # fmt: skip
            for values, count in together.items():
                if all(index in failed for index, case in enumerate(cases) if set(values) <= set(case)):
                    ranked.append((-count, size, values))
            if ranked and -min(ranked)[0] * 2 >= len(left):
                break
        if not ranked:
            found += [(cases[index], 1) for index in sorted(left)]
            break
        count, _, values = min(ranked)
        found.append((values, -count))
        left = {index for index in left if not set(values) <= set(cases[index])}
    return found


def print_tables(cases: list[Case], results: list[list[tuple[str, str, str]]]) -> None:
    """By value of each dimension; then every kind of failure, with the fewest values that show it."""
    print("| | passed | failed |\n| --- | ---: | ---: |")
    for name, values in DIMENSIONS.items():
        for value in values:
            of_value = [bool(wrong) for case, wrong in zip(cases, results, strict=True) if getattr(case, name) == value]
            print(f"| {name}: {valued(name, value)} | {of_value.count(False)} | {of_value.count(True)} |")
    kinds = sorted({(check, output) for wrong in results for output, check, _ in wrong})
    of_signal = {"colour", "chroma", "depth", "alpha", "tags"}  # which times and sound have nothing to do with
    for check, output in kinds:
        failed = {i for i, wrong in enumerate(results) if any((c, o) == (check, output) for o, c, _ in wrong)}
        tested = [i for i, case in enumerate(cases) if (case.scan == "interlaced") == (check == "interlaced")]
        place = {index: number for number, index in enumerate(tested)}
        names = SIGNAL if check in of_signal else tuple(DIMENSIONS)
        said = [tuple(valued(name, getattr(case, name)) for name in names) for case in cases]
        print(f"\n{check}, {output}: {len(failed)} of {len(tested)} fail")
        for values, count in explained({place[i] for i in failed if i in place}, [said[i] for i in tested]):
            shown = next(i for i in sorted(failed) if set(values) <= set(said[i]))
            figures = next(text for o, c, text in results[shown] if (c, o) == (check, output))
            print(f"- {', '.join(values)}: {count}; such as {cases[shown].words()}: {figures}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverings", type=int, default=4, metavar="N", help="sets of all pairs, of N seeds (4)")
    parser.add_argument("--slice", type=int, metavar="N", help="N of the files, evenly chosen (all)")
    parser.add_argument("--only", nargs="+", default=(), metavar="VALUE", help='files of these values, as "10 bits"')
    parsed = parser.parse_args()
    start_s = time.perf_counter()
    cases: dict[Case, None] = {}
    for seed in range(parsed.coverings):
        chosen, impossible = covering(seed)
        cases |= dict.fromkeys(chosen)
    tried = [one for one in cases if all(f", {value}," in f", {one.words()}," for value in parsed.only)]
    if parsed.slice is not None:
        tried = tried[:: max(1, len(tried) // parsed.slice)][: parsed.slice]
    results = run(tried)
    seconds = f"{time.perf_counter() - start_s:.0f} s; Python {platform.python_version()}, PyAV {av.__version__}"
    print(f"\n{len(tried)} files, {sum(map(bool, results))} with a failure, {seconds}\n")
    print_tables(tried, results)
    num_pairs = sum(len(one) * len(other) for one, other in itertools.combinations(DIMENSIONS.values(), 2))
    had = num_pairs - impossible.total()
    print(f"\n{had} of {num_pairs} pairs of values can be had. What stands in the way of the others:\n")
    for why, count in impossible.most_common():
        print(f"- {count}: {why}")
    return 1 if any(results) else 0


def run(cases: list[Case]) -> list[list[tuple[str, str, str]]]:
    """`judge` of each, with progress on stderr."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "same.safetensors"
        save_weights(weights, {}, WeightsInfo(ModelConfig(spikes=None, custom=factory()), 0.0, 1.0))
        for index, case in enumerate(cases):
            results.append(judge(case, weights, folder))
            if results[-1]:
                print(f"{index + 1}/{len(cases)} {case.words()}: {results[-1]}", file=sys.stderr, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
