"""Many recordings in one call: each on its own, resumable, and none stopped by another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikevrt import cli
from spikevrt.checkpoint import load_weights, save_weights
from spikevrt.engine import Engine
from spikevrt.recording.frames import list_images
from spikevrt.restore.batch import Outcome, restore_many, visible_gpus
from spikevrt.restore.options import JobOptions, RestoreOptions

SOURCE_ROOT = Path(__file__).resolve().parents[2] / "src"
CPU = RestoreOptions(device="cpu")


@pytest.fixture
def folder(recording_folder: Path, tmp_path: Path) -> Path:
    """Three recordings, a to c."""
    folder = tmp_path / "recordings"
    for name in "abc":
        shutil.copytree(recording_folder, folder / name)
    return folder


def spoil(recording: Path) -> None:
    with open(recording / "spikes.dat", "ab") as file:
        file.write(b"x")


def pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*.png"))}


def said(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(one.name, one.status) for one in outcomes]


@pytest.mark.slow
def test_all_are_restored_by_two_workers_as_each_would_be_alone_and_what_stands_is_kept(
    folder: Path, micro_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    arguments = ["restore", str(folder), "--weights", str(micro_weights), "--device", "cpu"]
    assert cli.main([*arguments, "--workers", "2", "--out", str(out)]) == 0
    table = capfd.readouterr().out.splitlines()
    assert table[0].split() == ["recording", "frames", "seconds", "status"]
    assert [line.split()[:2] + line.split()[3:] for line in table[1:4]] == [[n, "3", "restored"] for n in "abc"]
    assert table[4].startswith(f"3 recordings: 3 restored -> {out} (") and len(table) == 5
    alone = ["restore", str(folder / "a"), *arguments[2:], "--out", str(tmp_path / "alone" / "a")]
    assert cli.main(alone) == 0
    assert {k: v for k, v in pictures(out).items() if k[0] == "a"} == pictures(tmp_path / "alone")
    assert len(list_images(out / "c")) == 3

    made = (out / "a" / "restored.json").stat().st_mtime_ns
    shutil.rmtree(out / "b")
    capfd.readouterr()
    assert cli.main([*arguments, "--out", str(out)]) == 0
    rows = [line.split()[:2] + line.split()[3:] for line in capfd.readouterr().out.splitlines()[1:4]]
    assert rows == [["a", "3", "kept"], ["b", "3", "restored"], ["c", "3", "kept"]]
    assert (out / "a" / "restored.json").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_bad_recording_stops_no_other_and_is_told_with_status_1(
    folder: Path, micro_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch
):
    spoil(folder / "a")
    monkeypatch.chdir(folder.parent)
    out = Path("out")
    arguments = ["restore", folder.name, "--weights", str(micro_weights), "--device", "cpu", "--out", str(out)]
    assert cli.main(arguments) == 1
    told = capfd.readouterr()
    last = told.out.splitlines()[-1]
    assert last.startswith(f"3 recordings: 2 restored, 1 failed -> {out} (")
    assert "; a: " in last and "spikes.dat" in last
    assert [line[:13] for line in told.err.splitlines() if "spikevrt" in line[:8]] == ["spikevrt: a: "]
    assert f"{folder.name}/a/spikes.dat" in told.err and str(tmp_path) not in told.err + told.out  # as it was stated
    entries = {entry["name"]: entry for entry in json.loads((out / "summary.json").read_text())["recordings"]}
    assert [entries[name]["status"] for name in "abc"] == ["failed", "restored", "restored"]
    assert entries["a"]["error"].startswith(f"{folder.name}/a/spikes.dat: ") and entries["b"]["error"] is None
    assert sorted(path.name for path in out.iterdir()) == ["b", "c", "summary.json"]


@pytest.mark.slow
def test_what_was_restored_otherwise_is_refused_or_on_demand_replaced(
    folder: Path, micro_weights: Path, tmp_path: Path
):
    out, others = tmp_path / "out", RestoreOptions(device="cpu", clip_frames=2)
    for name in "bc":
        shutil.rmtree(folder / name)
    restore_many(micro_weights, folder, out, CPU)

    def refused(options: RestoreOptions = CPU) -> None:
        (outcome,) = restore_many(micro_weights, folder, out, options)
        assert outcome.status == "failed" and outcome.error is not None
        assert outcome.error.endswith("a: exists, restored otherwise; choose another --out or pass --overwrite")

    refused(others)
    weights = micro_weights.read_bytes()
    tensors, info = load_weights(micro_weights)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_weights(micro_weights, tensors | {name: tensors[name] * 1.01}, info)
    refused()
    changed = micro_weights.read_bytes()
    micro_weights.write_bytes(weights)
    assert said(restore_many(micro_weights, folder, out, CPU)) == [("a", "kept")]
    sidecar = folder / "a" / "recording.json"
    sidecar.write_text(sidecar.read_text() + "\n")
    refused()
    micro_weights.write_bytes(changed)
    replace = JobOptions(overwrite=True)
    assert said(restore_many(micro_weights, folder, out, others, replace)) == [("a", "restored")]
    assert said(restore_many(micro_weights, folder, out, others, replace)) == [("a", "kept")]


@pytest.mark.slow
def test_a_batch_that_was_killed_goes_on_where_it_was(folder: Path, micro_weights: Path, tmp_path: Path):
    out = tmp_path / "out"
    arguments = ["restore", str(folder), "--weights", str(micro_weights), "--device", "cpu", "--out", str(out)]
    run = subprocess.Popen(
        [sys.executable, "-m", "spikevrt", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE_ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    deadline_s = time.monotonic() + 240
    while not (out / "a").exists() and run.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.005)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    assert run.wait() == -signal.SIGKILL  # in the midst of it
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert workers and not any(is_alive(worker) for worker in workers)
    before = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/restored.json")}
    assert 1 <= len(before) < 3
    assert cli.main(arguments) == 0
    after = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/restored.json")}
    assert sorted(after) == ["a", "b", "c"] and all(after[name] == made for name, made in before.items())
    assert cli.main(["restore", str(folder / "a"), *arguments[2:-1], str(tmp_path / "whole" / "a")]) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "a").glob("*.png")}
    assert pictures(out) == {f"{name}/{file}": content for name in "abc" for file, content in whole.items()}
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c", "summary.json"]


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_ray_restores_what_processes_restore(folder: Path, micro_weights: Path, tmp_path: Path):
    pytest.importorskip("ray")
    spoil(folder / "b")
    shutil.rmtree(folder / "c")
    mine = restore_many(micro_weights, folder, tmp_path / "mine", CPU)
    rays = restore_many(micro_weights, folder, tmp_path / "rays", CPU, engine=Engine("ray", 2))
    assert said(rays) == said(mine) == [("a", "restored"), ("b", "failed")]
    assert pictures(tmp_path / "rays") == pictures(tmp_path / "mine")


def test_what_cannot_work_is_refused_before_anything_is_made(folder: Path, micro_weights: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"^workers: 0; must be 1 or more$"):
        restore_many(micro_weights, folder, out, CPU, engine=Engine(workers=0))
    with pytest.raises(ValueError, match=r"^engine: dask; must be one of processes, ray$"):
        restore_many(micro_weights, folder, out, CPU, engine=Engine("dask"))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        restore_many(tmp_path / "gone.safetensors", folder, out, CPU)
    with pytest.raises(ValueError, match=r"neither a recording nor a folder of recordings"):
        restore_many(micro_weights, tmp_path / "nothing", out, CPU)
    with pytest.raises(FileExistsError, match=r"recordings: holds the recordings; choose another --out$"):
        restore_many(micro_weights, folder, folder, CPU)
    assert not out.exists()
    out.write_text("years")
    with pytest.raises(FileExistsError, match=r"out: is a file; allowed for many recordings: a folder$"):
        restore_many(micro_weights, folder, out, CPU)
    assert out.read_text() == "years"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "x"], r"--clip: not with .*recordings, a folder of recordings$"),
        (["--spike-width", "40"], r"--spike-width: not with .*recordings, a folder of recordings$"),
        (["--out", "x.mp4"], r"--out: x\.mp4; allowed for a folder of recordings: a folder \(--video adds videos\)$"),
    ],
)
def test_options_of_a_single_recording_are_refused(folder: Path, arguments: list[str], message: str):
    parsed = cli.build_parser().parse_args(["restore", str(folder), "--out", "x", *arguments])
    with pytest.raises(ValueError, match=message):
        parsed.run(parsed)


def test_options_of_a_batch_are_refused_for_a_single_recording(recording_folder: Path):
    parsed = cli.build_parser().parse_args(["restore", str(recording_folder), "--out", "x", "--workers", "2"])
    with pytest.raises(ValueError, match=r"^--workers: only with a folder of recordings, which .*waves is not$"):
        parsed.run(parsed)


def test_the_gpus_that_the_environment_allows_are_shared_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7")
    assert visible_gpus() == ["2", "GPU-7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
