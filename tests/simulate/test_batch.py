"""Many recordings in one call: the same bytes whoever makes them, and however often the call is killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikevrt import cli
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import open_recording
from spikevrt.simulate.batch import simulate_many

from .conftest import OPTIONS, fingerprint, textured

SOURCE_ROOT = Path(__file__).resolve().parents[2] / "src"


def test_many_take_sources_in_turn_and_repeat_to_the_same_bytes(
    photo: Path, other_photo: Path, footage: Path, tmp_path: Path
):
    sources = [photo, other_photo, footage]
    made = simulate_many(sources, tmp_path / "a", OPTIONS, count=4)
    assert [path.name for path in made] == ["photo_000", "other_001", "footage_002", "photo_003"]
    seeds = {open_recording(path).provenance["options"]["seed"] for path in made}
    assert len(seeds) == 4
    again = simulate_many(sources, tmp_path / "b", OPTIONS, count=4)
    assert [fingerprint(path) for path in made] == [fingerprint(path) for path in again]


def test_several_workers_make_what_one_makes(photo: Path, tmp_path: Path):
    one = simulate_many([photo], tmp_path / "one", OPTIONS, count=2)
    two = simulate_many([photo], tmp_path / "two", OPTIONS, count=2, workers=2)
    assert [fingerprint(path) for path in one] == [fingerprint(path) for path in two]


def test_many_taken_up_again_keep_what_is_complete(photo: Path, tmp_path: Path):
    first = simulate_many([photo], tmp_path / "out", OPTIONS, count=2)
    times = [(path / "recording.json").stat().st_mtime_ns for path in first]
    told = []
    simulate_many([photo], tmp_path / "out", OPTIONS, count=3, progress=lambda *call: told.append(call))
    assert [(path / "recording.json").stat().st_mtime_ns for path in first] == times
    assert told == [(3, 3)]


def test_many_refuse_recordings_made_with_other_settings(photo: Path, tmp_path: Path):
    simulate_many([photo], tmp_path / "out", OPTIONS, count=1)
    other = dataclasses.replace(OPTIONS, motion_px=9.0)
    with pytest.raises(
        FileExistsError, match=r"photo_000: exists, made otherwise; choose another --out or pass --over"
    ):
        simulate_many([photo], tmp_path / "out", other, count=1)
    write_image(photo, textured(149, 211, seed=9))
    with pytest.raises(FileExistsError, match=r"photo_000: exists, made otherwise"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1)


def test_many_without_sources_or_count_is_refused(photo: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"^sources: none given$"):
        simulate_many([], tmp_path / "out", OPTIONS, count=1)
    with pytest.raises(ValueError, match=r"^count: 0; must be 1 or more$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=0)
    with pytest.raises(ValueError, match=r"^workers: 0; must be 1 or more$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1, workers=0)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such photograph"):
        simulate_many([photo, tmp_path / "gone.png"], tmp_path / "out", OPTIONS, count=1)
    assert not (tmp_path / "out").exists()


def test_ray_makes_what_one_process_makes(photo: Path, tmp_path: Path):
    pytest.importorskip("ray")
    one = simulate_many([photo], tmp_path / "one", OPTIONS, count=3)
    relative = Path(os.path.relpath(tmp_path))  # as a user gives it; Ray's workers need not run in the same folder
    told = []
    two = simulate_many(
        [relative / "photo.png"], relative / "two", OPTIONS, count=3, workers=2, engine="ray",
        progress=lambda *call: told.append(call),
    )  # fmt: skip
    assert [fingerprint(path) for path in one] == [fingerprint(path) for path in two]
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"^ray_address: 127\.0\.0\.1:1; no cluster answers there$"),
        ("cluster", r"^ray_address: cluster; must be HOST:PORT$"),
    ],
)
def test_a_cluster_that_does_not_answer_is_named_and_nothing_is_left(
    photo: Path, tmp_path: Path, address: str, message: str
):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=message):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1, engine="ray", ray_address=address)
    assert not (tmp_path / "out").exists()


def test_without_ray_its_engine_is_refused_before_anything_is_made(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^engine: ray is not installed; pip install 'spikevrt\[ray\]'$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1, engine="ray")
    assert not (tmp_path / "out").exists()


def test_an_engine_that_does_not_exist_is_refused(photo: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"^engine: dask; must be one of processes, ray$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1, engine="dask")
    with pytest.raises(ValueError, match=r"^ray_address: only with engine ray, not processes$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1, ray_address="10.0.0.1:6379")


def test_a_batch_that_was_killed_and_started_again_equals_one_that_was_not(photo: Path, tmp_path: Path):
    arguments = [str(photo), "--count", "6", "--workers", "2", "--width", "160", "--height", "96"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "killed"
    run = subprocess.Popen(
        [sys.executable, "-m", "spikevrt", "simulate", *arguments, "--out", str(out)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline_s = time.monotonic() + 60
    while not list(out.glob("photo_*")) and run.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.005)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    assert run.wait() == -signal.SIGKILL  # in the midst of it
    assert len(workers) >= 2
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert not any(is_alive(worker) for worker in workers)  # nobody goes on writing
    complete = {path: path.stat().st_mtime_ns for path in out.glob("photo_*/recording.json")}
    assert 1 <= len(complete) < 6
    (out / ".photo_005.partial-1" / "blur").mkdir(parents=True)  # as a worker leaves it, wherever it was just then

    again = ["--count", "6", *arguments[5:]]
    assert cli.main(["simulate", str(photo), *again, "--out", str(out)]) == 0
    assert cli.main(["simulate", str(photo), *again, "--out", str(tmp_path / "whole")]) == 0
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in complete.items())
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    assert sorted(path.name for path in out.iterdir()) == [f"photo_{number:03d}" for number in range(6)]


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_second_call_into_the_same_folder_is_refused_while_the_first_is_at_work(photo: Path, tmp_path: Path):
    def again(done: int, total: int) -> None:
        with pytest.raises(FileExistsError, match=r"out: another simulation is at work there; choose another --out$"):
            simulate_many([photo], tmp_path / "out", OPTIONS, count=3)

    simulate_many([photo], tmp_path / "out", OPTIONS, count=2, progress=again)
    assert len(simulate_many([photo], tmp_path / "out", OPTIONS, count=3)) == 3


def test_a_recording_made_before_an_option_existed_counts_as_made_with_its_default(photo: Path, tmp_path: Path):
    (path,) = simulate_many([photo], tmp_path / "out", OPTIONS, count=1)
    sidecar = path / "recording.json"
    values = json.loads(sidecar.read_text())
    del values["provenance"]["options"]["rig"], values["provenance"]["options"]["sensor"]["dark_cv"]
    sidecar.write_text(json.dumps(values))
    simulate_many([photo], tmp_path / "out", OPTIONS, count=1)
    values["provenance"]["options"]["interpolate"] = 4
    sidecar.write_text(json.dumps(values))
    with pytest.raises(FileExistsError, match=r"photo_000: exists, made otherwise"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1)
