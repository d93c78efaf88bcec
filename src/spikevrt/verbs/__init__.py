"""The verbs: one file a stage of the work, with the options of each verb and a thin call into its package.

Everything heavy is imported inside the verb, so that `--help` loads neither torch nor NumPy. An option that a verb
cannot obey is refused here or by the package that it is meant for.

In this file: the options of the verbs, derived from the dataclasses that hold them, and mistakes told in the user's
spelling. A field `tile_px: Annotated[int, "side of a tile"] = 256` is the option `--tile-px N` with that help and that
default; behind the help, a text is another word for N, a tuple the values allowed. A field that is true by default is
`--no-NAME`, and one without a help text no option. The parser holds no defaults: what the user does not give is left to
the dataclass. So the files of these dataclasses must load neither torch nor NumPy when they are imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spikevrt import shipped
from spikevrt.atomic import UNFINISHED
from spikevrt.formats.dataset_trees import LayoutOptions
from spikevrt.recording.sidecar import NOTHING_STATED, Stated
from spikevrt.restore.options import RestoreOptions, names_a_file
from spikevrt.typed import renamed

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording

T = TypeVar("T")
HELP_LAYOUT = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=32, width=110)
METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}
DATASET_GROUP = "dataset folders (docs/datasets.md)"
OF_DATASETS = tuple(  # what is said of dataset folders alone, not of loose files too
    field.name for field in dataclasses.fields(LayoutOptions) if field.name not in vars(NOTHING_STATED)
)


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], example: str, *, computes: bool = False
) -> argparse.ArgumentParser:
    """A parser that calls `run`, whose docstring is the verb's help; it may return an exit status. `computes`: it runs
    the network.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=run.__doc__, description=run.__doc__, epilog=f"example:\n  {example}", allow_abbrev=False,
        formatter_class=HELP_LAYOUT,
    )  # fmt: skip
    parser.set_defaults(run=run, parser=parser, computes=computes)
    return parser


def add_fields(
    parser: Any, kind: type, *, prefix: str = "", only: Iterable[str] | None = None, without: Iterable[str] = ()
) -> None:
    """An option for each field of the dataclass `kind` that has a help text; of `prefix` and the field's name."""
    for field, hint in _told_fields(kind):
        if field.name not in without and (only is None or field.name in only):
            dest = prefix + field.name
            option = f"no_{dest}" if field.default is True else dest
            parser.add_argument(dashed(option), dest=dest, default=None, **_argument(hint, field.default))


def options_of(kind: type[T], parsed: argparse.Namespace, *, prefix: str = "", **others: Any) -> T:
    """A `kind` of what the user gave, and of `others`."""
    return kind(**others, **chosen(kind, parsed, prefix=prefix))


def chosen(kind: type, parsed: argparse.Namespace, *, prefix: str = "") -> dict[str, Any]:
    """The fields of `kind` that the user gave, as `add_fields` named their options."""
    values = {field.name: getattr(parsed, prefix + field.name, None) for field, _ in _told_fields(kind)}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if v is not None}


def _told_fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields that have a help text, each with its Annotated type."""
    hints = typing.get_type_hints(kind, include_extras=True)
    named = [(field, hints[field.name]) for field in dataclasses.fields(kind)]
    return [(field, hint) for field, hint in named if typing.get_origin(hint) is typing.Annotated]


def _argument(hint: Any, default: Any) -> dict[str, Any]:
    """What argparse is told of a field: how it is read, and its help with its default."""
    kind, text, *how = typing.get_args(hint)
    is_optional = typing.get_origin(kind) in (typing.Union, types.UnionType)
    if is_optional:
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if kind is bool:
        action = argparse.BooleanOptionalAction if is_optional else "store_false" if default else "store_true"
        return {"action": action, "help": text}
    if default not in (None, "", ()):
        values = default if isinstance(default, tuple) else (default,)
        text += f" ({', '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in values)})"
    told: dict[str, Any] = {"help": text.replace("%", "%%")}
    if typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        told["nargs"], kind = "+" if items[-1] is Ellipsis else len(items), items[0]
    if typing.get_origin(kind) is typing.Literal:
        return told | {"choices": typing.get_args(kind)}
    if how and isinstance(how[0], tuple):
        return told | {"choices": how[0]}
    return told | {"type": kind, "metavar": how[0] if how else METAVARS[kind]}


def refuse(parsed: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise ValueError for the first of these options that the user gave."""
    for name in names:
        if getattr(parsed, name) is not None and getattr(parsed, name) is not False:
            raise ValueError(f"{dashed(name)}: {why}")


def dashed(name: str) -> str:
    """The option of a field: --tile-px of tile_px."""
    return f"--{name.replace('_', '-')}"


def spelled(message: str, parser: argparse.ArgumentParser, typed: Sequence[str]) -> str:
    """The message of an error with the names of fields as the options that the user knows (`renamed`). What the user
    `typed` (a folder called frames) is no field. A file that is unfinished goes by the name that it will have."""
    actions = [action for action in reversed(parser._actions) if action.option_strings]
    options = {option.lstrip("-").replace("-", "_"): option for action in actions for option in action.option_strings}
    options |= {action.dest: action.option_strings[0] for action in actions}
    return renamed(UNFINISHED.sub(r"\g<name>", message), options, typed)


def say_made(what: str, where: Path, start_s: float) -> None:
    print(f"{what} -> {where} ({time.perf_counter() - start_s:.1f} s)")


# --- options that several verbs share ---


def folder(text: str) -> Path:
    """The value of an option that names a folder to be made."""
    if names_a_file(Path(text)):
        raise argparse.ArgumentTypeError(f"{text}, the name of a file; allowed: the name of a folder")
    return Path(text)


def add_out(parser: argparse.ArgumentParser, what: str, kind: Callable[[str], Path] = folder) -> None:
    parser.add_argument("--out", type=kind, required=True, metavar="PATH", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def add_recordings(parser: argparse.ArgumentParser) -> None:
    text = "recording, folder of them, or dataset folder of a known layout (docs/datasets.md)"
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help=text)


def add_compared_weights(parser: argparse.ArgumentParser, nargs: str) -> None:
    """`--weights` of verbs that compare networks."""
    text = f"networks: names of shipped ones, or files ({', '.join(shipped.COMPARED)})"
    parser.add_argument("--weights", nargs=nargs, metavar="WEIGHTS", help=text)


def compared_weights(parsed: argparse.Namespace) -> list[Path]:
    return [shipped.find(name) for name in (shipped.COMPARED if parsed.weights is None else parsed.weights)]


def add_loose(parser: argparse.ArgumentParser, without: Iterable[str] = ()) -> None:
    """`--spikes` and what is stated of it and of the frames, as `open_loose` obeys it."""
    group = parser.add_argument_group("frames and spikes that are no recording; * of a dataset folder, too")
    group.add_argument("--spikes", type=Path, metavar="FILE", help="spike file beside the frames or the video")
    add_fields(group, Stated, without=without)


def add_sharp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sharp", type=Path, metavar="FOLDER", help="sharp images, one a frame, to score against")


LARGE_VIDEO_BYTES = 50_000_000  # some seconds


def open_loose(frames: Path, parsed: argparse.Namespace) -> Recording:
    """Frames, and the spike file beside them where one is given, as a recording; `settled` is to follow."""
    from spikevrt.recording.loose import loose_recording, open_beside

    if frames.is_file() and frames.stat().st_size > LARGE_VIDEO_BYTES:
        print(f"spikevrt: {frames}: its frames are counted, each is decoded for it", file=sys.stderr)
    if parsed.spikes is None:
        refuse(parsed, chosen(Stated, parsed).keys() - {"linear", "fps"}, "only with --spikes")
        return loose_recording(frames, None, options_of(Stated, parsed))
    return open_beside(frames, parsed.spikes, options_of(Stated, parsed))


def settled(recording: Recording, parsed: argparse.Namespace) -> Recording:
    """The recording, of which the exposure was estimated, or compared with what is stated; on stderr what is assumed
    of loose files, a line each, with the options that state it."""
    from spikevrt.align.exposure import with_exposure

    recording = with_exposure(recording, unchecked=bool(parsed.unchecked))
    for about, note in recording.notes.items():
        print(f"spikevrt: {about}: {spelled(note, parsed.parser, ())}", file=sys.stderr)
    return recording


def restore_options(parsed: argparse.Namespace) -> RestoreOptions:
    if parsed.tile_px == 0 and parsed.overlap_px:
        raise ValueError("--overlap-px: not with --tile-px 0, one tile over the whole picture")
    if parsed.clip_frames == 0 and parsed.overlap_frames:
        raise ValueError("--overlap-frames: not with --clip-frames 0, one clip over the whole recording")
    return options_of(RestoreOptions, parsed)
