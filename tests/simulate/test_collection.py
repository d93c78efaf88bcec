"""Many recordings in one call: the same bytes whoever makes them, and however often the call is killed."""

from __future__ import annotations

import contextlib
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
from spikevrt.engine import Engine
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import open_recording
from spikevrt.simulate import collection
from spikevrt.simulate.collection import simulate_many
from tests.simulate.conftest import OPTIONS, fingerprint, textured

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


@pytest.mark.slow
def test_several_workers_make_what_one_makes(photo: Path, tmp_path: Path):
    one = simulate_many([photo], tmp_path / "one", OPTIONS, count=2)
    two = simulate_many([photo], tmp_path / "two", OPTIONS, count=2, engine=Engine(workers=2))
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


def test_many_refuse_recordings_whose_layers_may_come_from_another_photograph(
    photo: Path, other_photo: Path, tmp_path: Path
):
    simulate_many([photo, other_photo], tmp_path / "out", OPTIONS, count=1)
    with pytest.raises(FileExistsError, match=r"photo_000: exists, made otherwise"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1)  # the other one is held out now
    simulate_many([photo], tmp_path / "out", OPTIONS, count=1, overwrite=True)
    with pytest.raises(FileExistsError, match=r"photo_000: exists, made otherwise"):
        simulate_many([photo, other_photo], tmp_path / "out", OPTIONS, count=2)
    assert not (tmp_path / "out" / "other_001").exists()


def test_recordings_without_layers_are_kept_whatever_other_photographs_there_are(
    photo: Path, other_photo: Path, footage: Path, tmp_path: Path
):
    bare = dataclasses.replace(OPTIONS, num_layers=0)
    for source, options in ((photo, bare), (footage, OPTIONS)):
        out = tmp_path / f"of_{source.stem}"
        (path,) = simulate_many([source], out, options, count=1)
        before = (path / "recording.json").stat().st_mtime_ns
        simulate_many([source, other_photo], out, options, count=2)
        assert (path / "recording.json").stat().st_mtime_ns == before


def test_a_recording_with_layers_that_does_not_say_from_what_counts_as_made_otherwise(photo: Path, tmp_path: Path):
    (path,) = simulate_many([photo], tmp_path / "out", OPTIONS, count=1)
    sidecar = path / "recording.json"
    values = json.loads(sidecar.read_text())
    assert values["provenance"].pop("layer_photos_sha256") == [values["provenance"]["source_sha256"]]
    sidecar.write_text(json.dumps(values))
    with pytest.raises(FileExistsError, match=r"photo_000: exists, made otherwise"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1)


def test_a_file_where_the_folder_of_recordings_should_be_is_refused_and_kept(photo: Path, tmp_path: Path):
    (tmp_path / "out").write_text("years")
    with pytest.raises(FileExistsError, match=r"out: is a file; allowed for many recordings: a folder$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1)
    assert (tmp_path / "out").read_text() == "years"


def test_what_already_stands_is_decided_only_once_nobody_else_is_at_work(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, alone_in = tmp_path / "out", collection.alone_in

    def after_another_call(folder: Path, work: str) -> contextlib.AbstractContextManager[None]:
        monkeypatch.setattr(collection, "alone_in", alone_in)
        simulate_many([photo], out, OPTIONS, count=1)  # ends just before this call takes the lock
        return alone_in(folder, work)

    monkeypatch.setattr(collection, "alone_in", after_another_call)
    assert simulate_many([photo], out, OPTIONS, count=1) == [out / "photo_000"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_an_error_in_one_recording_leaves_no_half_of_another(photo: Path, tmp_path: Path, engine: str):
    if engine == "ray":
        pytest.importorskip("ray")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    longer = dataclasses.replace(OPTIONS, frames=40, num_layers=0)  # still at work when the other fails
    with pytest.raises(ValueError, match=r"broken\.png"):
        simulate_many([photo, broken], tmp_path / "out", longer, count=2, engine=Engine(engine, workers=2))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo_000"]


def test_many_without_sources_or_count_is_refused(photo: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"^sources: none given$"):
        simulate_many([], tmp_path / "out", OPTIONS, count=1)
    with pytest.raises(ValueError, match=r"^count: 0; must be 1 or more$"):
        simulate_many([photo], tmp_path / "out", OPTIONS, count=0)
    with pytest.raises(ValueError, match=r"^workers: 0; must be 1 or more$"):
        Engine(workers=0)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such photograph"):
        simulate_many([photo, tmp_path / "gone.png"], tmp_path / "out", OPTIONS, count=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_makes_what_one_process_makes(photo: Path, tmp_path: Path):
    pytest.importorskip("ray")
    one = simulate_many([photo], tmp_path / "one", OPTIONS, count=3)
    relative = Path(os.path.relpath(tmp_path))  # as a user gives it; Ray's workers need not run in the same folder
    told = []
    two = simulate_many(
        [relative / "photo.png"], relative / "two", OPTIONS, count=3, engine=Engine("ray", workers=2),
        progress=lambda *call: told.append(call),
    )  # fmt: skip
    assert [fingerprint(path) for path in one] == [fingerprint(path) for path in two]
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
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
        simulate_many([photo], tmp_path / "out", OPTIONS, count=1, engine=Engine("ray", ray_address=address))
    assert not (tmp_path / "out").exists()


def test_without_ray_its_engine_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^engine: ray is not installed; pip install 'spikevrt\[ray\]'$"):
        Engine("ray")


def test_an_engine_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^engine: dask; must be one of processes, ray$"):
        Engine("dask")
    with pytest.raises(ValueError, match=r"^ray_address: only with `engine` ray, not processes$"):
        Engine(ray_address="10.0.0.1:6379")


@pytest.mark.slow
def test_a_batch_that_was_killed_and_started_again_equals_one_that_was_not(photo: Path, tmp_path: Path):
    arguments = [str(photo), "--count", "6", "--workers", "2", "--width", "160", "--height", "96"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "killed"
    run = subprocess.Popen(
        [sys.executable, "-m", "spikevrt", "simulate", *arguments, "--out", str(out)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline_s = time.monotonic() + 240
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
