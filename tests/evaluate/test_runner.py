"""The runner: what it counts, when it reads the clock, what it writes and what it refuses."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from spikevrt import runtime, shipped
from spikevrt.evaluate import metrics, pictures, runner
from spikevrt.evaluate.scores import score_table
from spikevrt.recording.frames import read_image, to_float, write_image
from spikevrt.recording.recording import open_recording
from spikevrt.restore.restorer import RestoreOptions
from tests.evaluate.conftest import evaluate, write_recording

CPU = RestoreOptions(device="cpu")


def test_a_network_that_does_nothing_scores_exactly_as_the_blurry_input(tmp_path, offset_weights):
    recordings = [write_recording(tmp_path / "a", seed=3), write_recording(tmp_path / "b", seed=5)]
    results = evaluate([offset_weights(0.0)], recordings, tmp_path / "out", CPU)
    blur, _, _, network = results["methods"]
    assert [method["name"] for method in results["methods"]] == ["blur", "spike_ratio", "interval_ratio", "offset"]
    for name in metrics.METRICS:
        assert network["mean"][name] == pytest.approx(blur["mean"][name], abs=1e-9)


def test_frames_where_clips_overlap_are_scored_once(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a", num_frames=7)
    options = RestoreOptions(device="cpu", clip_frames=3, overlap_frames=1)
    results = evaluate([offset_weights(0.0)], [recording], tmp_path / "out", options)
    for method in results["methods"]:
        assert [frame["frame_idx"] for frame in method["sequences"][0]["frames"]] == list(range(7))


def test_the_total_is_the_mean_over_sequences_of_the_mean_over_frames(tmp_path, offset_weights):
    recordings = [write_recording(tmp_path / "a", num_frames=2), write_recording(tmp_path / "b", num_frames=5, seed=7)]
    method = evaluate([offset_weights(0.01)], recordings, tmp_path / "out", CPU)["methods"][-1]
    means = []
    for sequence, path in zip(method["sequences"], recordings, strict=True):
        recording = open_recording(path)
        values = [
            metrics.psnr_rgb(
                (to_float(recording.read_blur(i)) + 0.01)[None], to_float(recording.read_sharp(i))[None]
            ).item()
            for i in range(recording.num_frames)
        ]
        assert sequence["mean"]["psnr_rgb"] == pytest.approx(sum(values) / len(values))
        means.append(sum(values) / len(values))
    assert method["mean"]["psnr_rgb"] == pytest.approx(sum(means) / 2)


def test_the_clock_is_read_only_after_the_device_has_been_waited_for(monkeypatch):
    import torch

    events: list[str] = []
    monkeypatch.setattr(runtime, "synchronise", lambda device: events.append("wait"))
    monkeypatch.setattr(runner.time, "perf_counter", lambda: events.append("clock") or float(len(events)))

    def restoring():
        for _ in range(2):
            events.append("work")
            yield torch.zeros(3, 5, 7)

    for _ in runner._timed(restoring(), torch.device("cpu")):
        events.append("score")
    one_frame = ["wait", "clock", "work", "wait", "clock", "score"]
    assert events == [*one_frame, *one_frame, "wait", "clock", "wait"]


def test_results_json_is_strict_json_and_holds_what_was_returned(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a")
    for index in range(3):
        shutil.copy(recording / "sharp" / f"{index:06d}.png", recording / "blur" / f"{index:06d}.png")
    results = evaluate([offset_weights(0.0)], [recording], tmp_path / "out", CPU)
    assert results["methods"][0]["mean"]["psnr_rgb"] == math.inf

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    stored = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=refuse)
    assert stored["methods"][0]["mean"]["psnr_rgb"] == "inf"
    assert stored["data"] == results["data"]
    method = stored["methods"][-1]
    assert method["parameters"] == 1 and method["training"] == {"seed": 5} and method["spikes"] is False
    assert method["ms_per_frame"] > 0 and method["peak_memory_bytes"] > 0
    assert stored["options"]["tile_px"] == CPU.tile_px
    assert {"versions", "commit", "device"} <= set(stored["environment"])


def test_the_data_hash_knows_contents_and_not_names(tmp_path):
    first, same, other = (open_recording(write_recording(tmp_path / name, seed=3)) for name in ("a", "b", "c"))
    assert runner._data_hash(first) == runner._data_hash(same)
    for changed in ("spikes.dat", "sharp/000001.png", "blur/000002.png"):
        before = runner._data_hash(other)
        path = other.root / changed
        if path.suffix == ".png":
            write_image(path, 255 - read_image(path))
        else:
            path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        assert runner._data_hash(other) != before, changed


def test_weights_are_named_by_stem_and_by_folder_where_stems_meet(tmp_path):
    files = [tmp_path / "one" / "best.safetensors", tmp_path / "two" / "best.safetensors", tmp_path / "x.safetensors"]
    assert runner.method_names(files) == ["one_best", "two_best", "x"]


def test_with_keep_frames_every_restored_frame_is_written_(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a")
    out = tmp_path / "out"
    evaluate([offset_weights(1 / 255)], [recording], out, CPU, keep_frames=True)
    for index in range(3):
        restored = read_image(pictures.frame_path(out, "offset", "a", index))
        assert (restored == read_image(recording / "blur" / f"{index:06d}.png") + 1).all()


def test_the_table_names_every_method_and_metric(tmp_path, offset_weights):
    results = evaluate([offset_weights(0.0)], [write_recording(tmp_path / "a")], tmp_path / "out", CPU)
    header, blur, counts, lengths, network = score_table(results).splitlines()
    assert all(name in header for name in metrics.METRICS)
    assert blur.startswith("blur ") and counts.startswith("spike_ratio ") and network.startswith("offset ")
    assert lengths.startswith("interval_ratio ")


def test_a_network_that_gives_nan_is_an_error_and_leaves_nothing(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a")
    with pytest.raises(ValueError, match="not finite"):
        evaluate([offset_weights(math.nan)], [recording], tmp_path / "results" / "out", CPU)
    assert list((tmp_path / "results").iterdir()) == []


def test_an_existing_folder_is_refused_and_untouched(tmp_path, offset_weights):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FileExistsError, match=r"out: exists; choose another --out or pass --overwrite"):
        evaluate([offset_weights(0.0)], [write_recording(tmp_path / "a")], out, CPU)
    assert list(out.iterdir()) == []


def test_overwrite_replaces_an_earlier_result_only(tmp_path, offset_weights):
    out, recording = tmp_path / "out", write_recording(tmp_path / "a")
    evaluate([offset_weights(0.0)], [recording], out, CPU)
    (out / "stale").write_text("")
    evaluate([offset_weights(0.1)], [recording], out, CPU, overwrite=True)
    assert not (out / "stale").exists() and (out / "results.json").is_file()
    with pytest.raises(FileExistsError, match=r"a: exists and holds no results\.json"):
        evaluate([offset_weights(0.0)], [recording], recording, CPU, overwrite=True)
    assert (recording / "spikes.dat").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "offset.safetensors", "out"]


def test_a_recording_without_sharp_frames_is_refused(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a", sharp=False)
    with pytest.raises(ValueError, match="a: no sharp frames to compare with"):
        evaluate([offset_weights(0.0)], [recording], tmp_path / "out", CPU)


def test_two_recordings_of_one_name_are_refused(tmp_path, offset_weights):
    recordings = [write_recording(tmp_path / "x" / "a"), write_recording(tmp_path / "y" / "a")]
    with pytest.raises(ValueError, match="two recordings are called a; rename one"):
        evaluate([offset_weights(0.0)], recordings, tmp_path / "out", CPU)


def test_two_weights_of_one_name_are_refused(tmp_path):
    files = [tmp_path / "x" / "run" / "best.safetensors", tmp_path / "y" / "run" / "best.safetensors"]
    with pytest.raises(ValueError, match="two weights files would both be called run_best; rename one"):
        runner.method_names(files)


def test_missing_weights_are_refused_before_any_network_runs(tmp_path, offset_weights, capsys):
    weights = [offset_weights(0.0), tmp_path / "nowhere.safetensors"]
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors: no such weights file"):
        evaluate(weights, [write_recording(tmp_path / "a")], tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()


def test_skipping_sharp_tiles_is_refused_for_weights_without_spikes_before_any_network_runs(tmp_path):
    options = RestoreOptions(device="cpu", skip_sharp=2.0)
    with pytest.raises(ValueError, match=r"skip_sharp: 2\.0; allowed for weights without spikes: none"):
        evaluate([shipped.find("vrt_tiny")], [write_recording(tmp_path / "a")], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
