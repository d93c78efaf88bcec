"""What several verbs share: a parser with our layout, options of a dataclass, the last line."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikevrt.evaluate.runner import Measure
    from spikevrt.formats.layouts import LayoutOptions
    from spikevrt.restore.restorer import RestoreOptions

LAYOUT = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=32, width=110)


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], example: str, *, computes: bool = False
) -> argparse.ArgumentParser:
    """A parser that calls `run`, whose docstring is the verb's help; it may return an exit status. `computes`: it runs
    the network.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=run.__doc__, description=run.__doc__, epilog=f"example:\n  {example}", allow_abbrev=False,
        formatter_class=LAYOUT,
    )  # fmt: skip
    parser.set_defaults(run=run, parser=parser, computes=computes)
    return parser


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def given(parsed: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options that the user gave: the defaults live in the dataclasses, not here."""
    return {name: getattr(parsed, name) for name in names if getattr(parsed, name) is not None}


def dashed(name: str) -> str:
    """The option of a field: --tile-px of tile_px."""
    return f"--{name.replace('_', '-')}"


def say_made(what: str, where: Path, start_s: float) -> None:
    print(f"{what} -> {where} ({time.perf_counter() - start_s:.1f} s)")


RESTORE = (  # RestoreOptions
    ("tile_px", int, "side of a spatial tile, 0: the whole picture (256)"),
    ("overlap_px", int, "overlap of spatial tiles (32)"),
    ("clip_frames", int, "frames restored together, 0: all (5)"),
    ("overlap_frames", int, "frames that two clips share (1)"),
    ("skip_sharp", float, "leave tiles where little moves: activity below X, about 1 where nothing does (none)"),
)


LAYOUT_FIELDS = ("layout", "blur", "exposure_ticks", "spike_width", "spike_height")  # LayoutOptions


def add_layout_choice(parser: Any) -> None:
    """Those options of dataset folders whose names mean nothing else."""
    parser.add_argument("--layout", metavar="NAME", help="of a dataset folder (told from its folders)")
    parser.add_argument(
        "--blur", metavar="KIND", help="which blurry frames, where a dataset has several (blur_gamma, 33)"
    )


def add_layout_options(parser: Any) -> None:
    """Options of dataset folders, as `LayoutOptions` has them."""
    add_layout_choice(parser)
    parser.add_argument("--exposure-ticks", type=int, help="ticks in the middle of each spike file (the layout's)")
    parser.add_argument("--spike-width", type=int, help="columns of the sensor, where the dataset does not tell")
    parser.add_argument("--spike-height", type=int, help="rows of the sensor")


def layout_options(parsed: argparse.Namespace) -> LayoutOptions:
    from spikevrt.formats.layouts import LayoutOptions

    return LayoutOptions(**given(parsed, LAYOUT_FIELDS))


def add_ignore_health(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ignore-health", nargs="+", metavar="FINDING", help="findings of `inspect` that shall not refuse (none)"
    )


def add_restore_options(parser: argparse.ArgumentParser, *, gated: bool = True) -> None:
    """`gated`: recordings pass the health gate first."""
    for name, kind, text in RESTORE:
        parser.add_argument(dashed(name), type=kind, help=text)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="auto takes a GPU where there is one (auto)")
    if gated:
        add_ignore_health(parser)
        parser.add_argument("--strict", action="store_true", help="warnings of the health gate refuse a recording too")
    else:
        parser.set_defaults(ignore_health=None, strict=False)
    parser.add_argument(
        "--without-spikes",
        action="store_true",
        help="run a network that reads spikes on the frames alone",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="of the network's arithmetic (fp32)")


def add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="all, or some of those in docs/evaluation.md (PSNR and SSIM)"
    )
    parser.add_argument("--lpips-vgg", type=Path, metavar="FILE", help="weights of VGG-16, for lpips_vgg (none)")


def measure_options(parsed: argparse.Namespace) -> Measure:
    """What `add_metrics` was told. Raises ValueError where a metric is unknown, or cannot be taken here."""
    from spikevrt.evaluate import scores
    from spikevrt.evaluate.runner import Measure

    return Measure(scores.choose(parsed.metrics or scores.DEFAULT, parsed.lpips_vgg), parsed.lpips_vgg)


def restore_options(parsed: argparse.Namespace) -> RestoreOptions:
    from dataclasses import replace

    from spikevrt.restore.restorer import RestoreOptions

    if parsed.tile_px == 0 and parsed.overlap_px:
        raise ValueError("--overlap-px: not with --tile-px 0, one tile over the whole picture")
    if parsed.clip_frames == 0 and parsed.overlap_frames:
        raise ValueError("--overlap-frames: not with --clip-frames 0, one clip over the whole recording")
    options = given(parsed, [name for name, _, _ in RESTORE] + ["device", "precision"])
    return replace(
        RestoreOptions(),
        **options,
        ignore_health=tuple(parsed.ignore_health or ()),
        without_spikes=parsed.without_spikes,
        strict=parsed.strict,
    )
