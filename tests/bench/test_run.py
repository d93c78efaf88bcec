"""`spikevrt bench`: which methods run where, that an interrupted call is taken up, what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spikevrt import shipped
from spikevrt.bench import benchmark, run
from spikevrt.bench.benchmark import SCENES, chosen
from spikevrt.cli import main
from spikevrt.evaluate.scores import Measure
from spikevrt.recording.recording import Recording
from spikevrt.restore.restorer import RestoreOptions

CPU = RestoreOptions(device="cpu")
CONDITIONS = ["medium", "medium_threshold_4", "medium_exposure_56", "medium_no_spikes"]
OTHER = "copied=tests.bench.test_run:copied"
calls: list[str] = []


def copied(recording: Recording) -> Iterator[np.ndarray]:
    """A method that returns its input."""
    calls.append(str(recording.root))
    return (recording.read_blur(index) for index in range(recording.num_frames))


def broken(recording: Recording) -> Iterator[np.ndarray]:
    """A method that fails after its first frame."""
    yield recording.read_blur(0)
    raise RuntimeError("out of memory")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One scene of the benchmark."""
    patch = pytest.MonkeyPatch()
    for module in (benchmark, run):
        patch.setattr(module, "SCENES", (SCENES[4],))
    root = tmp_path_factory.mktemp("bench") / "recordings"
    benchmark.prepare_benchmark(root, chosen(CONDITIONS))
    yield root
    patch.undo()


@pytest.mark.slow
def test_methods_run_where_they_can_and_the_results_say_what_the_cameras_were(recordings: Path, tmp_path: Path):
    weights = [shipped.find(name) for name in ("vrt_tiny", "spikefold_tiny")]
    results = run.run_benchmark(
        tmp_path / "out", weights, [OTHER], chosen(CONDITIONS), CPU, Measure(), recordings=recordings
    )
    ran = {method["name"]: [s["name"] for s in method["sequences"]] for method in results["methods"]}
    own_frames = ["medium_city", "medium_exposure_56_city"]
    with_spikes = ["medium_city", "medium_threshold_4_city", "medium_exposure_56_city"]
    assert ran == {
        "blur": own_frames,
        "spike_ratio": with_spikes,
        "interval_ratio": with_spikes,
        "vrt_tiny": own_frames,
        "spikefold_tiny": [*with_spikes, "medium_no_spikes_city"],
        "copied": with_spikes,
    }
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["benchmark"]["name"] == "spikebench-v1" and len(stored["benchmark"]["sha256"]) == 64
    conditions = {entry["name"]: entry["condition"] for entry in stored["data"]["recordings"]}
    assert conditions["medium_threshold_4_city"]["threshold"] == 4 and not conditions["medium_no_spikes_city"]["spikes"]
    kept = sorted(path.name for path in (tmp_path / "out" / "frames" / "spikefold_tiny").iterdir())
    assert (
        kept == ["medium_city"] and len(list((tmp_path / "out" / "frames" / "copied" / "medium_city").iterdir())) == 5
    )
    by_name = {method["name"]: method["sequences"] for method in results["methods"]}
    fold = {s["name"]: s["mean"]["psnr_rgb"] for s in by_name["spikefold_tiny"]}
    twin = {s["name"]: s["mean"]["psnr_rgb"] for s in by_name["vrt_tiny"]}
    assert fold["medium_city"] > twin["medium_city"] + 1
    assert abs(fold["medium_no_spikes_city"] - twin["medium_city"]) < 1


@pytest.mark.slow
def test_a_network_is_scored_once_by_its_weights_options_and_metrics_and_others_every_time(
    recordings: Path, tmp_path: Path, capsys, monkeypatch
):
    conditions, weights, out = chosen(["medium"]), [shipped.find("spikefold_tiny")], tmp_path / "out"
    scored: list[str] = []
    real = run.score

    def counted(method, *arguments, **options):
        scored.append(method.name)
        return real(method, *arguments, **options)

    monkeypatch.setattr(run, "score", counted)

    def results(options: RestoreOptions = CPU, measure: Measure = Measure()) -> list[dict]:  # noqa: B008
        scored.clear()
        return run.run_benchmark(out, weights, [OTHER], conditions, options, measure, recordings=recordings)["methods"]

    first = results()
    assert scored == ["blur", "spike_ratio", "interval_ratio", "spikefold_tiny", "copied"]
    capsys.readouterr()
    again = results()
    assert scored == ["copied"] and again[:4] == first[:4]
    told = capsys.readouterr().out
    assert "spikebench-v1: 1 recording, sha256 " in told and "spikefold_tiny: scored before, at commit " in told
    results(RestoreOptions(device="cpu", tile_px=128))
    assert "spikefold_tiny" in scored
    results(measure=Measure(("psnr_rgb", "tof")))
    assert "spikefold_tiny" in scored
    assert results()[3] == first[3] and scored == ["copied"]  # none of it was lost


@pytest.mark.slow
def test_a_method_that_fails_is_one_line_and_leaves_no_frames(recordings: Path, tmp_path: Path, capsys):
    with pytest.raises(ValueError, match="broken: city: RuntimeError: out of memory"):
        run.run_benchmark(
            tmp_path / "out", [], ["broken=tests.bench.test_run:broken"], chosen(["medium"]), CPU, Measure(),
            recordings=recordings,
        )  # fmt: skip
    assert not (tmp_path / "out" / "frames" / "broken").exists()
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.slow
def test_a_function_is_found_in_the_folder_where_the_command_is_given(tmp_path: Path):
    (tmp_path / "mine_alone.py").write_text("def restore(recording):\n    return []\n")
    script = "from spikevrt.evaluate.methods import other_method; print(other_method('a=mine_alone:restore').name)"
    environment = os.environ | {"PYTHONPATH": str(Path(run.__file__).parents[2])}
    command = [sys.executable, "-c", "import sys; sys.path.remove(''); " + script]
    told = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert told == "a\n"


@pytest.mark.slow
def test_the_table_has_a_line_per_condition_and_a_dash_where_nothing_ran(recordings: Path, tmp_path: Path, capsys):
    run.run_benchmark(tmp_path / "out", [], [OTHER], chosen(CONDITIONS[:2]), CPU, Measure(), recordings=recordings)
    _, head, medium, threshold = capsys.readouterr().out.splitlines()
    assert head.split() == ["psnr_rgb", "blur", "spike_ratio", "interval_ratio", "copied"]
    assert medium.split()[0] == "medium" and medium.split()[1] == medium.split()[4]
    assert threshold.split()[:2] == ["medium_threshold_4", "-"]


def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, capsys):
    out = tmp_path / "out"
    for arguments, message in (
        (["--conditions", "middle"], "conditions: middle; allowed: slow"),
        (["--method", "mine"], "method: 'mine'; allowed: NAME=MODULE:FUNCTION"),
        (["--weights", str(tmp_path / "no.safetensors")], "no.safetensors: no such weights file"),
        (["--method", OTHER, "--method", OTHER], "--method: copied twice"),
    ):
        assert main(["bench", "--out", str(out), *arguments]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
        assert not out.exists()
    (out / "else").mkdir(parents=True)
    assert main(["bench", "--out", str(out)]) == 2
    assert "exists and holds no benchmark's results" in capsys.readouterr().err
