"""The words of a mistake are the user's: options as the verb spells them, and commands that exist.

Every text that is raised is read from the syntax tree; what a verb makes of it is `verbs.spelled`.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from spikevrt import cli
from spikevrt.app.labels import on_page
from spikevrt.verbs import spelled

SOURCE = Path(cli.__file__).parent
ELSEWHERE = {"--nproc-per-node"}  # torchrun's


@cache
def verbs() -> dict[str, argparse.ArgumentParser]:
    """Every verb's parser by its name: "config import" too."""
    found: dict[str, argparse.ArgumentParser] = {}

    def collect(parser: argparse.ArgumentParser, name: str) -> None:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not below:
            found[name] = parser
        for action in below:
            for word, sub in action.choices.items():
                collect(sub, f"{name} {word}".strip())

    collect(cli.build_parser(), "")
    return found


def fields(parser: argparse.ArgumentParser) -> set[str]:
    return {action.dest for action in parser._actions if action.option_strings}


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """(where, text) of whatever is raised; what is filled in is shown as ?."""
    return tuple(
        (f"{path.relative_to(SOURCE)}:{node.lineno}", _text(node.exc.args[0]))
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args
    )


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(_text(part) if isinstance(part, ast.Constant) else "?" for part in getattr(node, "values", ()))


def found_in(pattern: str) -> Iterator[tuple[str, str]]:
    return ((where, match[1]) for where, text in texts() for match in re.finditer(pattern, text))


def test_every_raised_text_is_read():
    assert len(texts()) > 500 and sum(text == "" for _, text in texts()) < 20


def test_a_name_in_backticks_is_an_option_of_some_verb():
    known = set().union(*map(fields, verbs().values()))
    names = list(found_in(r"`([a-z][a-z_]*)`"))
    assert len(names) > 15
    assert [(where, name) for where, name in names if not {name, f"spike_{name}"} & known] == []


def test_a_field_of_one_word_that_a_user_shall_state_stands_in_backticks():
    words = {name for parser in verbs().values() for name in fields(parser) if "_" not in name}
    stating = r"(?<![\w-])(?<!training )(?:state|stated|pass|give|only with|not with) ([a-z]+)\b"
    assert [(where, word) for where, word in found_in(stating) if word in words] == []


def test_commands_and_options_in_messages_exist():
    names = set(verbs()) | {name.split()[0] for name in verbs()}
    assert [(where, verb) for where, verb in found_in(r"(?<![\w'/])spikevrt ([a-z]+)") if verb not in names] == []
    options = {option for parser in verbs().values() for option in parser._option_string_actions} | ELSEWHERE
    assert [(where, option) for where, option in found_in(r"(--[a-z][a-z0-9-]*)") if option not in options] == []


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_no_field_with_an_underscore_is_shown_where_the_verb_has_it_as_an_option(verb: str):
    parser = verbs()[verb]
    left = [
        (where, name)
        for where, text in texts()
        for name in re.findall(r"(?<![\w./-])[a-z]+(?:_[a-z]+)+(?![\w/-]|\.\w)", spelled(text, parser, ()))
        if name in fields(parser)
    ]
    assert left == []


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Spike files that leave something to be stated, beside two images."""
    from spikevrt.recording.frames import write_image

    for index in range(2):
        write_image(tmp_path / "frames" / f"{index:06d}.png", np.zeros((32, 40, 3), np.uint8))
    (tmp_path / "bare.dat").write_bytes(bytes(24 * 5 * 4))
    two = {name: np.zeros((4, 16, 20), np.uint8) for name in ("left", "right")}
    np.savez(tmp_path / "two.npz", **two)
    np.savez(tmp_path / "axes.npz", other=two["left"])
    np.save(tmp_path / "hwt.npy", np.zeros((16, 20, 48), np.uint8))
    return tmp_path


BESIDE = "restore frames --spikes bare.dat --spike-width 20 --spike-height 16 --out out"
SIMULATE = "simulate bare.dat --out made"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("restore frames --spikes bare.dat --out out", "state --spike-width and --spike-height, or see"),
        ("convert bare.dat out.npy", "state --width and --height, or see"),
        ("convert two.npz out.dat", "holds left, right; state which one is meant with --key"),
        ("convert axes.npz out.dat", "does not tell its axes; state --axes: THW"),
        ("inspect frames --width 20 --height 16", "--width, --height, --rows and the like are for spike files"),
        ("inspect frames --spikes bare.dat", "state --spike-width and --spike-height, or see"),
        (
            "inspect frames --spikes bare.dat --width 20 --height 16",
            "--width, --height: of a spike file alone; allowed with --spikes: --spike-width, --spike-height",
        ),
        (
            f"{BESIDE} --exposure 7ticks",
            "1 to 6 ticks; images without --fps: the stream split equally gives 6 ticks from",
        ),
        (f"{BESIDE} --exposure 7ticks --period-ticks 5", "1 to 5 ticks; the frames are at least 5 ticks apart"),
        (
            "restore frames --spikes hwt.npy --period-ticks 20 --out out",
            "or --spike-axes HWT, which makes it 48 ticks of 20x16",
        ),
        (
            "convert bare.dat out.npy --width 20 --height 17",
            "if it was cut short, head -c 473 keeps its 11 whole ticks",
        ),
        (
            "restore frames --out out.avi",
            "--out: out.avi: no .avi is written; allowed: a video (.mp4, .mov, .mkv), or a folder, in which",
        ),
        ("record frames --spikes bare.dat --out o.avi", "--out: o.avi, the name of a file; allowed: the name of a f"),
        ("simulate frames --out o.mp4", "--out: o.mp4, the name of a file"),
        ("prepare frames --out set.npz", "--out: set.npz, the name of a file"),
        ("align frames --spikes bare.dat --out o.dat", "--out: o.dat, the name of a file"),
        ("train frames --out best.safetensors", "--out: best.safetensors, the name of a file"),
        ("evaluate frames --out report.html", "--out: report.html, the name of a file"),
        ("bench --out results.json", "--out: results.json, the name of a file"),
        ("demo --out o.png", "--out: o.png, the name of a file"),
        ("app --folder o.zip", "--folder: o.zip, the name of a file"),
        ("convert bare.dat o.avi --width 20 --height 16", "o.avi: not the name of a spike file"),
        ("restore frames --out o.h5", "--out: o.h5: no .h5 is written"),
        ("restore frames --out o.gif --video", "--out: o.gif: no .gif is written"),
        ("inspect frames --out a.png", "--out is for spikes"),
        ("inspect frames --confirm 1", "--confirm is for spike files"),
        ("inspect bare.dat --overwrite", "--overwrite: is for the preview; allowed: only with --out, --report or"),
        ("inspect bare.dat --tick-rate-hz 9", "--tick-rate-hz: is kept in the sidecar; allowed: only with --confirm"),
        ("inspect bare.dat --report a.html", "--report is for recordings"),
        (f"{SIMULATE} --bayer RGGB --response 1 0 0", "must be left alone where --bayer chooses"),
        (f"{SIMULATE} --width 33 --ratio 2", "must be a multiple of --ratio = 2"),
        (f"{SIMULATE} --count 2 --ray-address a:1", "only with --engine ray"),
        ("restore frames --out a.mkv --lossless --crf 3", "--crf: 3 with --lossless"),
        ("restore frames --out a.mkv --codec av1 --lossless", "--lossless: not with --codec av1"),
    ],
)
def test_a_mistake_names_the_options_of_its_verb(
    capsys: pytest.CaptureFixture[str], files: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
):
    monkeypatch.chdir(files)
    assert cli.main(command.split()) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and "`" not in told


@pytest.mark.parametrize("verb", ["inspect", "record", "restore", "align", "evaluate"])
def test_the_order_of_rows_is_told_by_the_option_of_the_verb(verb: str) -> None:
    sentence = "state the other order of rows: with `top_down`, or without it"
    assert spelled(sentence, verbs()[verb], ()) == "state the other order of rows: with --top-down, or without it"


@pytest.mark.parametrize("suffix", ["", ".mp4", ".mkv", ".mov", ".npy"])
def test_what_is_unfinished_is_told_under_its_name(suffix: str) -> None:
    def told(message: str) -> str:
        shown = spelled(message, cli.build_parser(), ())
        assert on_page(message) == shown
        return shown

    hidden = f"/a/b/.out.v1{suffix}.partial-24906{suffix}"
    assert told(f"[Errno 28] full: '{hidden}'") == f"[Errno 28] full: '/a/b/out.v1{suffix}'"
    assert told(f".o{suffix}.partial-1{suffix}: no sound") == f"o{suffix}: no sound"
    assert told(f"a.partial-1 and .git/partial-2{suffix}") == f"a.partial-1 and .git/partial-2{suffix}"
