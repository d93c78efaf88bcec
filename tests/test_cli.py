"""The command line: it answers at once, says a user's mistake in one line, and leaves nothing half-written."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml

from spikevrt import cli, verbs
from spikevrt.align.settings import AlignOptions
from spikevrt.config import ExportOptions
from spikevrt.formats.dataset_trees import LayoutOptions
from spikevrt.restore.options import Output, RestoreOptions, VideoFormat
from spikevrt.simulate.setup import CameraConfig, RigConfig, SensorConfig, SimulateOptions
from tests.formats.test_layouts import make_reference, make_s_vrt, make_spk_gopro

ROOT = Path(__file__).resolve().parents[1]
VERBS = (
    "simulate",
    "inspect",
    "convert",
    "prepare",
    "config",
    "train",
    "runs",
    "restore",
    "evaluate",
    "bench",
    "report",
    "accept",
    "export",
    "demo",
    "app",
)


def run_outside(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as from a shell."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "spikevrt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> str:
    """Run a command that must fail; returns its message after checking that it is one line and nothing was written."""
    before = snapshot(tmp_path)
    capsys.readouterr()
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert status == 2
    assert err.startswith("spikevrt: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert out == ""
    assert snapshot(tmp_path) == before
    return err.removeprefix("spikevrt: ").rstrip("\n")


# --- answers at once ---


def test_the_help_of_every_verb_loads_the_standard_library_and_settings_alone():
    """So that it answers at once."""
    script = (
        "import sys\n"
        "from spikevrt.cli import main\n"
        f"for verb in [[], *([v] for v in {VERBS!r}), ['config', 'import']]:\n"
        "    try:\n"
        "        main([*verb, '--help'])\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code == 0\n"
        "foreign = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(name for name in foreign if name[0] != '_'), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, env=environment)
    assert (answer.returncode, answer.stderr) == (0, "['spikevrt']\n")
    assert answer.stdout.count("usage: spikevrt") == len(VERBS) + 2


def test_help_shows_every_verb_in_the_order_of_the_data_flow():
    text = cli.build_parser().format_help()
    places = [text.index(f"\n    {verb} ") for verb in VERBS]
    assert places == sorted(places)


def test_the_version_is_the_packages():
    from spikevrt import __version__

    assert run_outside(["--version"]).stdout == f"spikevrt {__version__}\n"


# --- the options are the fields of the dataclasses ---


@dataclasses.dataclass(frozen=True)
class Settings:
    tile_px: Annotated[int, "side of a tile, 50% of it"] = 17
    scale: Annotated[float | None, "how much larger (as it is)"] = None
    kind: Annotated[Literal["a", "b"], "which"] = "b"
    names: Annotated[tuple[str, ...], "some"] = ()
    size: Annotated[tuple[int, int], "rows and columns"] = (3, 5)
    strict: Annotated[bool, "be strict"] = False
    time: Annotated[bool, "leave the time as it is"] = True
    tick_rate_hz: Annotated[float | None, "how fast", "HZ"] = 20000.0
    axes: Annotated[str | None, "in which order", ("THW", "HWT")] = None
    check: Annotated[bool | None, "compare"] = None
    inner: int = 11


def test_every_field_with_a_help_text_is_an_option_with_its_default():
    parser = argparse.ArgumentParser(prog="x")
    verbs.add_fields(parser, Settings, prefix="rig_", without=("names",))
    told = re.sub(r"\s+", " ", parser.format_help())
    assert "--rig-tile-px N side of a tile, 50% of it (17) " in told
    assert "--rig-scale X how much larger (as it is) " in told
    assert "--rig-kind {a,b} which (b) " in told
    assert "--rig-size N N rows and columns (3, 5) " in told
    assert "--rig-strict be strict --no-rig-time leave the time as it is --rig-tick-rate-hz HZ how fast (20000)" in told
    assert "--rig-axes {THW,HWT} in which order --rig-check, --no-rig-check compare" in told
    assert "names" not in told and "inner" not in told


def test_what_is_not_given_is_left_to_the_dataclass():
    parser = argparse.ArgumentParser()
    verbs.add_fields(parser, Settings)
    assert verbs.chosen(Settings, parser.parse_args([])) == {}
    line = "--tile-px 0 --scale 2 --kind a --names x y --size 7 11 --strict --no-check --no-time --axes HWT"
    given = verbs.options_of(Settings, parser.parse_args(line.split()), inner=3)
    assert given == Settings(0, 2.0, "a", ("x", "y"), (7, 11), True, time=False, axes="HWT", check=False, inner=3)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("tile_px: 7; allowed: 8", "--tile-px: 7; allowed: 8"),
        ("rig.scale: 3; allowed", "--rig-scale: 3; allowed"),
        ("--bits: 9", "--bits: 9"),
        ("scale, bits: both", "--scale, --bits: both"),
        ("bits: 1, and less than tile_px 7", "--bits: 1, and less than --tile-px 7"),
        ("a/b: 2 frames from tile_px 3 on", "a/b: 2 frames from --tile-px 3 on"),
        ("frames: no such folder", "frames: no such folder"),  # typed, so a path
        ("a: x/tile_px/y, tile_px.png, scale", "a: x/tile_px/y, tile_px.png, scale"),
        ("other_word: 3", "other_word: 3"),
    ],
)
def test_a_field_in_a_message_is_told_as_the_option_that_the_user_knows(message: str, told: str):
    parser = argparse.ArgumentParser()
    for option in ("--tile-px", "--scale", "--rig-scale", "--bits", "--frames"):
        parser.add_argument(option)
    assert verbs.spelled(message, parser, ["frames", "--out", "x"]) == told


def test_every_setting_of_a_stage_is_an_option():
    parser = cli.build_parser()
    for verb, kinds, inner in (
        ("simulate", (SimulateOptions, SensorConfig, CameraConfig, RigConfig), {"sensor", "camera", "rig"}),
        ("restore", (RestoreOptions, Output, VideoFormat, LayoutOptions), {"format"}),
        ("export", (ExportOptions,), set()),
        ("align", (AlignOptions,), {"max_frames"}),
    ):
        found = parser.parse_args([verb, "x", *([] if verb == "align" else ["--out", "y"])])
        for kind in kinds:
            prefix = "rig_" if kind is RigConfig else ""
            names = {field.name for field in dataclasses.fields(kind)} - inner
            assert not [name for name in names if not hasattr(found, prefix + name)], kind


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every verb, by its name."""
    (verbs_action,) = (one for one in cli.build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(verbs_action.choices)


def test_every_verb_names_the_same_default_weights():
    """As an option or an argument `weights`; `demo` and `app`, which take none, name theirs in their description."""
    told = {
        verb: action.help
        for verb, parser in parsers().items()
        for action in parser._actions
        if "weights" in (action.dest, str(action.metavar).lower())
    }
    assert set(told) == {"restore", "evaluate", "bench", "export"}
    told |= {verb: parsers()[verb].description for verb in ("demo", "app")}
    assert [verb for verb, text in told.items() if "spikefold_tiny" not in (text or "")] == []


# --- mistakes in the command itself ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB"),
        (["restor", "x"], "argument VERB: invalid choice: 'restor'"),
        (["restore", "x"], "the following arguments are required: --out"),
        (["restore", "x", "--out", "y", "--ovrwrite"], "unknown argument --ovrwrite; did you mean --overwrite?"),
        (["restore", "x", "--out", "y", "--over"], "unknown argument --over"),
        (["restore", "x", "--out", "y", "--tile-px", "big"], "argument --tile-px: invalid int value: 'big'"),
        (["restore", "x", "--out", "y", "--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["restore", "x", "--out", "y", "--spike-width", "8"], "--spike-width: only with --spikes"),
        (["restore", "x", "--out", "y", "--top-down"], "--top-down: only with --spikes"),
        (["simulate", "a", "b", "--out", "y"], "SOURCE: 2 given; allowed: one, or several with --count"),
        (["simulate", "a", "--out", "y", "--workers", "2"], "--workers: only with --count"),
        (["simulate", "a", "--out", "y", "--engine", "ray"], "--engine: only with --count"),
        (["simulate", "a", "--out", "y", "--sensor", "dim"], "--sensor: dim; must be one of ideal, bright, lowlight"),
        (["simulate", "a", "--out", "y", "--bits", "9"], "--bits: 9; must be from 1 to 8"),
        (["simulate", "a", "--out", "y", "--rig-scale", "3"], "--rig-scale: 3.0; must be 0.5 to 2"),
        (["simulate", "a", "--out", "y", "--interpolate", "3"], "--interpolate: 3; must be a power of two: 1, 2, 4, 8"),
        (["simulate", "a", "--out", "y", "--count", "2", "--layer-photos", "b"], "--layer-photos: not with --count"),
        (["simulate", "a", "--out", "y", "--frames", "0"], "--frames: 0; must be 1 or more"),
        (["simulate", "a", "--out", "y", "--width", "81"], "--width: 81; must be a multiple of --ratio = 2"),
        (["prepare", "a", "--out", "y", "--val", "b", "--val-fraction", "0.5"], "--val-fraction: not with --val"),
        (["prepare", "a", "--out", "y", "--val", "b", "--seed", "5"], "--seed: not with --val"),
        (["restore", "x", "--out", "y", "--tile-px", "0", "--overlap-px", "16"], "--overlap-px: not with --tile-px 0"),
        (["evaluate", "x", "--out", "y", "--clip-frames", "0", "--overlap-frames", "2"], "--overlap-frames: not with"),
        (["restore", "x", "--out", "y.mp4", "--video"], "--video: not with --out y.mp4, which is a video"),
        (["train", "x.yaml", "--out", "y", "--dry-run", "--resume"], "--resume: not with --dry-run"),
        (["train", "x.yaml", "--out", "y", "--dry-run", "--overwrite"], "--overwrite: not with --dry-run"),
        (["evaluate", "a", "--out", "y", "--clip-frames", "1"], "--clip-frames: 1; allowed: 0 (the whole recording)"),
        (["train", "none.yaml", "--out", "y"], "none.yaml: no such config file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistaken_command_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
):
    assert refused(capsys, tmp_path, *arguments).startswith(message)


@pytest.mark.slow
def test_a_mistake_exits_with_status_two_and_no_traceback():
    answer = run_outside(["inspect", "nothing/here"])
    assert answer.returncode == 2
    assert answer.stderr.startswith("spikevrt: nothing/here: ") and answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "option", "message"),
    [
        ("waves/sharp", ["--motion-px", "3"], "--motion-px: for photographs; not for "),
        ("waves/sharp", ["--num-layers", "0"], "--num-layers: for photographs; not for "),
        ("waves/sharp", ["--layer-photos", "photo.png"], "--layer-photos: for photographs; not for "),
        ("photo.png", ["--ticks-per-frame", "3"], "--ticks-per-frame: for videos and folders of frames; not for "),
        ("photo.png", ["--count", "2", "--engine", "dask"], "--engine: dask; must be one of processes, ray"),
        ("photo.png", ["--interpolate", "2"], "--interpolate: for videos and folders of frames; not for "),
        ("photo.png", ["--start-frame", "0"], "--start-frame: for videos and folders of frames; not for "),
        ("photo.png", ["--start-frame", "0", "--count", "2"], "--start-frame: for videos and folders of frames; not "),
        ("photo.png", ["--num-layers", "0", "--layer-photos", "x.png"], "--layer-photos: not with --num-layers 0"),
        ("waves/sharp", ["--width", "82", "--height", "64"], "waves/sharp: frames of 80x64 pixels are smaller than"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_no_source_can_obey_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photo: Path,
    recording_folder: Path, source: str, option: list[str], message: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, tmp_path, "simulate", source, "--out", "y", *option).startswith(message)


def test_spikes_beside_weights_that_read_none_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    from spikevrt.checkpoint import WeightsInfo, save_weights
    from spikevrt.config import Config

    weights = tmp_path / "rgb.safetensors"
    save_weights(weights, {}, WeightsInfo(Config.from_dict({"model": {"spikes": None}}).model, 0.0, 1.0, {}))
    spikes = ["--spikes", recording_folder / "spikes.dat", "--spike-width", 40, "--spike-height", 32]
    timing = ["--exposure-ticks", 19, "--period-ticks", 23]
    arguments = [recording_folder / "blur", *spikes, *timing, "--weights", weights, "--out", tmp_path / "out"]
    message = refused(capsys, tmp_path, "restore", *arguments)
    assert message.startswith(f"--spikes: {weights} is a network without spikes")


def test_options_of_loose_files_are_refused_for_a_folder_of_recordings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    message = refused(capsys, tmp_path, "restore", tmp_path, "--first-tick", 3, "--out", tmp_path / "out")
    assert message == f"--first-tick: not with {tmp_path}, a folder of recordings"


CLIPS = "GOPR0372_07_00, GOPR0884_11_00, GOPR0854_13_00"


def test_a_clip_of_a_dataset_folder_is_chosen_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    root, out = make_spk_gopro(tmp_path / "set"), tmp_path / "out"
    message = refused(capsys, tmp_path, "restore", root, "--out", out)
    assert message == f"{root}: a dataset folder; name one of its clips with --clip; allowed: {CLIPS}"
    message = refused(capsys, tmp_path, "restore", root, "--clip", "c", "--out", out)
    assert message == f"{root}: no clip 'c'; allowed: {CLIPS}"
    message = refused(capsys, tmp_path, "restore", recording_folder, "--clip", "a", "--out", out)
    assert message == f"--clip: {recording_folder} is a recording, one clip"
    message = refused(capsys, tmp_path, "restore", recording_folder / "blur", "--clip", "a", "--out", out)
    assert message == f"--clip: {recording_folder / 'blur'} is no dataset folder of a known layout"


def test_a_dataset_that_does_not_tell_its_sensor_opens_with_the_size_that_the_user_states(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    root, out = make_reference(tmp_path / "set", voxels=False), tmp_path / "out"
    size = ["--spike-width", 14, "--spike-height", 10]
    for verb in (["inspect"], ["restore", "--out", out]):
        message = refused(capsys, tmp_path, *verb, root)
        assert message.endswith("does not tell the size of its spikes; pass --spike-width, --spike-height")
    message = refused(capsys, tmp_path, "restore", root, *size, "--out", out)
    assert message.startswith(f"{root}: a dataset folder; name one of its clips with --clip; allowed: ")
    assert cli.main(["inspect", str(root), *map(str, size)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{root}: dataset of layout reference\n") and "14 x 10 spikes" in told
    message = refused(capsys, tmp_path, "inspect", root, "--spike-width", 14)
    assert message == "--spike-width, --spike-height: one is missing; allowed: both or none"


def test_evaluate_reads_a_dataset_folder_as_it_is_told_to(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    root = make_reference(tmp_path / "set", voxels=False)
    weights = tmp_path / "none.safetensors"
    arguments = ["evaluate", root, "--out", tmp_path / "out"]
    message = refused(capsys, tmp_path, *arguments)
    assert message.endswith("does not tell the size of its spikes; pass --spike-width, --spike-height")
    size = ["--spike-width", 14, "--spike-height", 10, "--ignore-health", "orientation"]
    assert cli.main([str(one) for one in [*arguments, *size, "--weights", weights]]) == 2
    assert f"spikevrt: {weights}: no such weights file; allowed" in capsys.readouterr().err


def test_a_dataset_that_fits_several_layouts_opens_as_the_one_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    root, out = make_s_vrt(make_spk_gopro(tmp_path / "set")), tmp_path / "out"
    for verb in (["inspect"], ["restore", "--out", out]):
        message = refused(capsys, tmp_path, *verb, root)
        assert message == f"{root}: several layouts fit; allowed: --layout spk-gopro or s-vrt"
    named = ["--layout", "spk-gopro", "--blur", "blur"]
    message = refused(capsys, tmp_path, "restore", root, *named, "--out", out)
    assert "name one of its clips with --clip; allowed: GOPR0372_07_00, " in message
    assert cli.main(["inspect", str(root), *named]) == 0
    assert capsys.readouterr().out.startswith(f"{root}: dataset of layout spk-gopro\n")


@pytest.mark.parametrize(
    ("verb", "path", "option", "message"),
    [
        ("inspect", "waves", ["--layout", "rsb"], "waves: no folders of --layout rsb; docs/datasets.md draws"),
        ("inspect", "waves", ["--blur", "33"], "waves: --blur is for dataset folders of a known layout; this is none"),
        ("inspect", "waves/spikes.dat", ["--exposure-ticks", "9"], "waves/spikes.dat: --exposure-ticks is for dataset"),
        ("inspect", ".", ["--blur", "33"], ".: --blur is for dataset folders of a known layout; this is none"),
        ("restore", "waves", ["--layout", "rsb"], "--layout: only with a dataset folder; waves is none"),
        ("restore", "waves/blur", ["--blur", "33"], "--blur: only with a dataset folder; waves/blur is none"),
        ("restore", "waves", ["--spike-width", "40"], "--spike-width: only with --spikes or a dataset folder"),
        ("restore", "set", ["--tick-rate-hz", "1000"], "--tick-rate-hz: only with --spikes; set is a dataset folder"),
        ("restore", "set", ["--blur", "33"], "--blur: '33'; allowed for spk-gopro: blur_gamma, blur"),
        (
            "prepare",
            "waves",
            ["--ignore-health", "colour"],
            "--ignore-health: 'colour'; allowed: spikes, dead pixels, ",
        ),
        (
            "prepare",
            "set",
            ["--val", "waves"],
            "--val: waves, but set brings its own split; allowed: none with a dataset",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_of_dataset_folders_is_refused_where_it_means_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recording_folder: Path,
    verb: str, path: str, option: list[str], message: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make_spk_gopro(tmp_path / "set")
    out = [] if verb == "inspect" else ["--out", "y"]
    assert refused(capsys, tmp_path, verb, path, *option, *out).startswith(message)


def test_a_stated_size_is_compared_with_an_array_of_spikes_and_not_taken_for_packed_bits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path
):
    array, out = tmp_path / "spikes.npy", tmp_path / "out"
    assert cli.main(["convert", str(recording_folder), str(array)]) == 0
    frames = [recording_folder / "blur", "--spikes", array, "--exposure-ticks", 19, "--period-ticks", 23]
    arguments = ["restore", *frames, "--weights", micro_weights, "--out", out, "--device", "cpu"]
    message = refused(capsys, tmp_path, *arguments, "--spike-width", 41, "--spike-height", 32)
    assert message == f"{array}: 40x32 spikes, but what was stated says 41x32"
    assert cli.main([str(one) for one in [*arguments, "--spike-width", 40, "--spike-height", 32]]) == 0
    assert len(list(out.glob("*.png"))) == 3


def test_a_video_is_restored_by_its_own_timestamps(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path
):
    from fractions import Fraction

    from spikevrt.mux.encode import VideoTags, write_segment
    from spikevrt.recording.frames import list_images, read_image
    from spikevrt.restore.options import VideoFormat

    images = [read_image(path) for path in list_images(recording_folder / "blur")]
    video, out = tmp_path / "a.mkv", tmp_path / "out"
    write_segment(
        video,
        zip((7, 30, 46), images, strict=True),  # of ticks
        time_base=Fraction(1, 20000),
        fps=1000,
        format=VideoFormat(lossless=True),
        tags=VideoTags(),
    )
    spikes = ["--spikes", recording_folder / "spikes.dat", "--spike-width", 40, "--spike-height", 32]
    arguments = ["restore", video, *spikes, "--weights", micro_weights, "--out", out, "--device", "cpu"]
    assert refused(capsys, tmp_path, *arguments, "--exposure-ticks", 17).startswith(
        "--exposure-ticks: 17; allowed: 1 to 16 ticks"
    )
    assert cli.main([str(one) for one in arguments]) == 0
    assert len(list(out.glob("*.png"))) == 3


def test_options_of_loose_files_are_refused_where_nothing_obeys_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    blur, out = recording_folder / "blur", ["--out", tmp_path / "out"]
    message = refused(capsys, tmp_path, "restore", blur, "--by-counting", *out)
    assert message == "--by-counting: only with --spikes"
    spikes = ["--spikes", recording_folder / "spikes.dat", "--spike-width", 40, "--spike-height", 32]
    message = refused(capsys, tmp_path, "restore", blur, *spikes, "--by-counting", *out)
    assert message == "--by-counting: needs --period-ticks or --fps"
    message = refused(capsys, tmp_path, "restore", recording_folder, "--first-tick", 3, *out)
    assert message == "--first-tick: only with --spikes"
    message = refused(capsys, tmp_path, "restore", recording_folder, "--linear", *out)
    assert message == f"--linear: only with a folder of images; {recording_folder} is none"
    root = make_spk_gopro(tmp_path / "set")
    message = refused(capsys, tmp_path, "restore", root, "--clip", CLIPS.split(", ")[0], "--linear", *out)
    assert message == f"--linear: only with a folder of images; {root} is a dataset folder"


def test_prepare_says_how_many_frames_it_dropped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    arguments = [str(recording_folder), "--num-bins", "16", "--val-fraction", "0"]
    assert cli.main(["prepare", *arguments, "--out", str(tmp_path / "all")]) == 0
    assert capsys.readouterr().out.startswith(f"3 frames -> {tmp_path / 'all'} (")
    sidecar = recording_folder / "recording.json"
    values = json.loads(sidecar.read_text())
    values["exposures"][1]["t1_s"] += 1.0
    sidecar.write_text(json.dumps(values))
    assert cli.main(["prepare", *arguments, "--out", str(tmp_path / "some")]) == 0
    expected = f"2 frames, 1 dropped (each sequence's dropped.log says why) -> {tmp_path / 'some'} ("
    assert capsys.readouterr().out.startswith(expected)


def test_prepare_without_sharp_says_which_parts_have_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    shutil.rmtree(recording_folder / "sharp", ignore_errors=True)
    arguments = ["prepare", str(recording_folder), "--num-bins", "16", "--val-fraction", "0"]
    assert cli.main([*arguments, "--out", str(tmp_path / "set")]) == 2
    assert "has no sharp frames; training and validation need them, unless --without-sharp" in capsys.readouterr().err
    assert cli.main([*arguments, "--out", str(tmp_path / "set"), "--without-sharp"]) == 0
    assert capsys.readouterr().out.startswith(f"3 frames, without sharp frames: train -> {tmp_path / 'set'} (")


def test_a_preview_is_replaced_only_when_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    out = tmp_path / "preview.png"
    arguments = ["inspect", str(recording_folder), "--half-window", "3", "--out", str(out)]
    assert cli.main(arguments) == 0
    before = out.stat().st_mtime_ns
    assert refused(capsys, tmp_path, *arguments) == f"{out}: exists; choose another --out or pass --overwrite"
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert out.stat().st_mtime_ns != before


# --- missing files ---


def test_a_missing_recording_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path, out = tmp_path / "stret", tmp_path / "out"
    for verb in ("restore", "evaluate", "prepare"):
        assert refused(capsys, tmp_path, verb, path, "--out", out) == f"{path}: no such recording"


def test_missing_weights_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path):
    weights = tmp_path / "none.safetensors"
    for verb in ("restore", "evaluate"):
        message = refused(capsys, tmp_path, verb, recording_folder, "--weights", weights, "--out", tmp_path / "out")
        assert message.startswith(f"{weights}: no such weights file; allowed: a file, or spikefold_tiny")


def test_a_missing_source_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    message = refused(capsys, tmp_path, "simulate", tmp_path / "none.jpg", "--out", tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'none.jpg'}: no such")


def test_a_missing_dataset_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, micro_config: dict[str, Any]):
    path = write_config(tmp_path, micro_config, tmp_path / "no_dataset")
    assert str(tmp_path / "no_dataset") in refused(capsys, tmp_path, "train", path, "--out", tmp_path / "out")


# --- damaged files ---


def test_a_size_that_does_not_fit_the_spike_file_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    spikes = recording_folder / "spikes.dat"
    message = refused(capsys, tmp_path, "inspect", spikes, "--width", 41, "--height", 31)
    assert str(spikes) in message
    assert str(spikes.stat().st_size) in message


def test_a_spike_file_of_unsaid_size_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    spikes = Path(shutil.copy(recording_folder / "spikes.dat", tmp_path / "unsaid.dat"))
    arguments = ["restore", recording_folder / "blur", "--spikes", spikes, "--out", tmp_path / "out"]
    message = refused(capsys, tmp_path, *arguments)
    assert message.startswith(f"{spikes}: a spike file without a header does not tell its geometry")


def test_what_a_spike_file_may_hold_is_listed_with_status_2_until_one_reading_is_confirmed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    spikes = tmp_path / "unsaid.dat"
    spikes.write_bytes((recording_folder / "spikes.dat").read_bytes())
    frames = str(recording_folder / "blur")
    asking = ["inspect", str(spikes), "--size", "40x32", "--rgb", frames]
    assert cli.main(asking) == 2
    out, err = capsys.readouterr()
    assert (
        err.startswith(f"spikevrt: {spikes}: ") and err.count("\n") == 1 and "confirm one with --confirm NUMBER" in err
    )
    best = out.splitlines()[1]
    assert "packed, 40 x 32, rows bottom-up: 65 ticks" in best
    assert [file.name for file in tmp_path.glob("unsaid*")] == ["unsaid.dat"]
    number = best.split()[0]
    assert cli.main([*asking, "--confirm", number, "--tick-rate-hz", "1000"]) == 0
    assert "65 ticks at 1000 Hz -> " in capsys.readouterr().out
    assert cli.main(["inspect", str(spikes)]) == 0
    assert "packed spike stream, 40 x 32, rows bottom-up, 160 bytes per tick (says unsaid.dat.json)" in (
        capsys.readouterr().out
    )


def test_half_a_geometry_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "a.dat").write_bytes(bytes(100))
    for half in (["--width", "10"], ["--top-down"], ["--tag-bits", "16"]):
        message = refused(capsys, tmp_path, "inspect", tmp_path / "a.dat", *half)
        assert message.startswith("--width, --height: a file without a header needs both"), half
    message = refused(capsys, tmp_path, "inspect", tmp_path / "a.dat", "--size", "10by10")
    assert message.startswith("argument --size: '10by10'; allowed: WIDTHxHEIGHT, for example 400x250")


def test_the_health_report_is_written_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    page = tmp_path / "page.html"
    assert cli.main(["inspect", str(recording_folder), "--report", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"report -> {page}\n")
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("lost", [1, 160], ids=["one byte", "one tick"])
def test_a_truncated_stream_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path, lost: int
):
    spikes = recording_folder / "spikes.dat"
    spikes.write_bytes(spikes.read_bytes()[:-lost])
    for verb in ("restore", "evaluate", "inspect", "prepare"):
        weights = ["--weights", micro_weights] if verb in ("restore", "evaluate") else []
        out = tmp_path / ("out.png" if verb == "inspect" else "out")
        message = refused(capsys, tmp_path, verb, recording_folder, *weights, "--out", out)
        assert message.startswith(f"{spikes}: ")


def test_fewer_frames_than_exposures_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path
):
    (recording_folder / "blur" / "000001.png").unlink()
    message = refused(
        capsys, tmp_path, "restore", recording_folder, "--weights", micro_weights, "--out", tmp_path / "out"
    )
    assert message == f"{recording_folder / 'blur'}: 2 images for 3 exposures"


def test_a_truncated_picture_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path
):
    picture = recording_folder / "blur" / "000001.png"
    picture.write_bytes(picture.read_bytes()[:-999])
    message = refused(
        capsys, tmp_path, "restore", recording_folder, "--weights", micro_weights, "--out", tmp_path / "out"
    )
    assert str(picture) in message


def test_damaged_weights_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path
):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(micro_weights, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(micro_weights)
    name = sorted(state)[5]
    state[name].view(-1)[0] = float("nan")
    save_file(state, micro_weights, metadata=metadata)
    for verb in ("restore", "evaluate"):
        message = refused(
            capsys, tmp_path, verb, recording_folder, "--weights", micro_weights, "--out", tmp_path / "out"
        )
        what = "damaged: its tensors or settings are not those that were written"
        assert message == f"{micro_weights}: {what}; copy or download it again"


def test_truncated_weights_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, micro_weights: Path
):
    micro_weights.write_bytes(micro_weights.read_bytes()[:-99])
    message = refused(
        capsys, tmp_path, "restore", recording_folder, "--weights", micro_weights, "--out", tmp_path / "out"
    )
    assert message.startswith(f"{micro_weights}: not a complete safetensors file")


# --- convert ---


def test_convert_cuts_and_says_what_it_made(capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path):
    import numpy as np

    from spikevrt.recording.recording import open_recording

    out = tmp_path / "cut.npz"
    assert (
        cli.main(["convert", str(recording_folder), str(out), "--start", "3", "--stop", "14", "--to", "npz-hwt"]) == 0
    )
    told = capsys.readouterr().out
    assert told.startswith(f"11 ticks (npz, 40 x 32, rows top-down, key arr_0, axes HWT) -> {out} (")
    spikes = open_recording(recording_folder).spikes
    assert spikes is not None
    with np.load(out) as archive:
        np.testing.assert_array_equal(np.moveaxis(archive["arr_0"], -1, 0), spikes.read(3, 14))
    values = json.loads((tmp_path / "cut.npz.json").read_text())
    assert (values["num_ticks"], values["tick_rate_hz"]) == (11, 20000.0)
    message = refused(capsys, tmp_path, "convert", out, out.with_suffix(".dat"), "--axes", "HWT", "--start", "12")
    assert message == f"{out}: ticks [12, 11) asked for; allowed: inside [0, 11)"
    assert refused(capsys, tmp_path, "convert", recording_folder, out).startswith(f"{out}: exists; choose another name")


def test_convert_says_what_of_a_raw_file_it_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    import numpy as np

    from spikevrt.recording.stream import pack_sps100

    (tmp_path / "a.dat").write_bytes(pack_sps100(np.zeros((3, 4, 1000), dtype=np.uint8))[64:-16])
    stated = ["--kind", "sps100", "--width", "1000", "--height", "4"]
    assert cli.main(["convert", str(tmp_path / "a.dat"), str(tmp_path / "b.dat"), *stated]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'a.dat'}: the first 448 bytes are the end of a tick, left out"
    assert lines[1] == f"{tmp_path / 'a.dat'}: the last 496 bytes are the beginning of a tick, left out"
    assert lines[2].startswith(f"1 tick (packed, 1000 x 4, rows bottom-up) -> {tmp_path / 'b.dat'} (")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["b.npy", "--to", "packed"], "--to: packed in a file b.npy; allowed: the suffix that belongs to it"),
        (["b.dat", "--to", "npz"], "--to: npz in a file b.dat; allowed: the suffix that belongs to it"),
        (["b.dat", "--to", "packed-416"], "--to: packed-416 for spikes 40 wide; allowed: 400 pixels and 16 tag bits"),
        (["b.dat", "--to", "sps100"], "sps100: 40x32; allowed: 1000 columns"),
        (["b.dat", "--width", "40"], "--width: {a} is a recording, which tells what its spikes are"),
        (["b.dat", "--tick-rate-hz", "nan"], "--tick-rate-hz: nan; allowed: above 0"),
        (["b.dat", "--stop", "0"], "{a}/spikes.dat: ticks [0, 0) are none; allowed: one or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_conversion_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path, options: list[str], message: str
):
    arguments = [recording_folder, tmp_path / options[0], *options[1:]]
    assert refused(capsys, tmp_path, "convert", *arguments).startswith(message.format(a=recording_folder))


def test_convert_refuses_a_size_that_a_sidecar_contradicts_and_a_stream_whose_checksum_differs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recording_folder: Path
):
    a, b = tmp_path / "a.dat", tmp_path / "b.dat"
    assert cli.main(["convert", str(recording_folder), str(a)]) == 0
    capsys.readouterr()
    message = refused(capsys, tmp_path, "convert", a, b, "--width", "20", "--height", "64")
    assert message.startswith(f"{a}: --width: an option says 20, a.dat.json says 40; allowed: the same, or delete")
    data = bytearray(a.read_bytes())
    data[7] ^= 1
    for path in (a, recording_folder / "spikes.dat"):
        path.write_bytes(data)
        source = a if path == a else recording_folder
        assert refused(capsys, tmp_path, "convert", source, b).startswith(f"{path}: sha256 ")
    assert refused(capsys, tmp_path, "convert", a, recording_folder / "spikes.dat", "--overwrite").endswith(
        "recording.json names it as its spikes; choose another name"
    )


# --- settings ---


def write_config(tmp_path: Path, config: dict[str, Any], root: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**config, "data": {**config["data"], "root": str(root)}}), encoding="utf-8")
    return path


def test_an_unknown_key_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, micro_config: dict[str, Any]
):
    micro_config["optim"]["warm_up_steps"] = 3
    path = write_config(tmp_path, micro_config, tmp_path)
    message = refused(capsys, tmp_path, "train", path, "--out", tmp_path / "out")
    assert message == f"{path}: unknown key optim.warm_up_steps; did you mean optim.warmup_steps?"


def test_an_unknown_override_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, micro_config: dict[str, Any]
):
    path = write_config(tmp_path, micro_config, tmp_path)
    message = refused(capsys, tmp_path, "train", path, "--out", tmp_path / "out", "--set", "optim.stepz=3")
    assert message.endswith("unknown key optim.stepz; did you mean optim.steps?")


# --- output that exists ---


@pytest.mark.parametrize("verb", ["simulate", "prepare", "train", "restore", "evaluate", "demo"])
def test_an_output_that_exists_is_refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    photo: Path,
    recording_folder: Path,
    micro_weights: Path,
    micro_config: dict[str, Any],
    verb: str,
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.txt").write_text("a month of work")
    inputs: dict[str, list[object]] = {
        "simulate": [photo],
        "prepare": [recording_folder],
        "train": [write_config(tmp_path, micro_config, tmp_path)],
        "restore": [recording_folder, "--weights", micro_weights],
        "evaluate": [recording_folder, "--weights", micro_weights],
        "demo": [],
    }
    message = refused(capsys, tmp_path, verb, *inputs[verb], "--out", out)
    assert message == f"{out}: exists; choose another --out or pass --overwrite"


# --- what is no user's mistake ---


def test_an_interrupt_exits_with_status_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spikevrt.align.inspect.inspect", interrupted)
    assert cli.main(["inspect", "x"]) == 130
    assert capsys.readouterr().err == "spikevrt: interrupted\n"


def test_our_own_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def mistaken(*_: object, **__: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("spikevrt.align.inspect.inspect", mistaken)
    with pytest.raises(AssertionError, match="ours"):
        cli.main(["inspect", "x"])


def test_a_users_mistake_shows_its_traceback_when_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SPIKEVRT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["restore", str(tmp_path / "none"), "--out", str(tmp_path / "out")])


def test_a_message_of_several_lines_is_told_in_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def wordy(*_: object, **__: object) -> None:
        raise ValueError("first\n  second")

    monkeypatch.setattr("spikevrt.align.inspect.inspect", wordy)
    assert refused(capsys, tmp_path, "inspect", "x") == "first second"


def test_a_missing_name_of_several_lines_is_told_in_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file", "first\n  second")

    monkeypatch.setattr("spikevrt.align.inspect.inspect", missing)
    assert refused(capsys, tmp_path, "inspect", "x") == "first second: No such file"


@pytest.mark.slow
def test_a_name_that_is_no_utf8_is_shown_and_no_failure(tmp_path: Path, recording_folder: Path):
    out = os.fsencode(tmp_path) + b"/\xff.dat"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "spikevrt", "convert", str(recording_folder), out]
    answer = subprocess.run(command, capture_output=True, env=environment)
    assert answer.returncode == 0 and b"\\udcff.dat" in answer.stdout, answer.stderr


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(recording_folder: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = f'"{sys.executable}" -m spikevrt inspect "{recording_folder}" | true; exit ${{PIPESTATUS[0]}}'
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert answer.stderr == ""
    assert answer.returncode in (0, 141)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_command_that_runs_the_network_sets_the_allocator_that_is_read_at_the_start(monkeypatch):
    started = []
    monkeypatch.setattr(cli.os, "execv", lambda path, arguments: started.append((path, arguments)))
    monkeypatch.setattr(cli.sys, "orig_argv", ["python", "-m", "spikevrt", "restore", "x"])
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    cli.restart_with_tuned_allocator()
    assert started == [(sys.executable, [sys.executable, "-m", "spikevrt", "restore", "x"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.tcache_count=0"
    cli.restart_with_tuned_allocator()  # the new process finds it set, as by a user
    assert len(started) == 1


@pytest.mark.slow
def test_a_restarted_command_is_the_same_command(tmp_path):
    """Through the installed program: the error that only the second start can print, one line, status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "spikevrt", "restore", str(tmp_path / "missing"), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "missing" in done.stderr, done.stderr
