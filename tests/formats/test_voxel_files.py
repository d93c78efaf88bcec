"""Trees of an older VRT+Spike: precomputed voxels and their own values, odd sizes, files with pauses between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevrt.align.defects import scan
from spikevrt.align.health import check_health
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import DataConfig, ModelConfig, PrepareOptions, SpikeConfig
from spikevrt.data.dataset import ClipDataset
from spikevrt.data.prepare import prepare
from spikevrt.formats.layouts import LayoutOptions, layout_recordings, open_sources
from spikevrt.formats.voxel_files import VoxelStream, VoxelValues, open_voxels
from spikevrt.recording.stream import JoinedStream, count_slices
from spikevrt.represent.voxel import voxelise
from spikevrt.restore.restorer import check_spikes
from tests.formats.test_layouts import picture, spike_file, stream

BINS = 7
Values = Callable[[np.ndarray], np.ndarray]


def make_tree(
    root: Path,
    *,
    frame: tuple[int, int] = (28, 20),
    sensor: tuple[int, int] = (14, 10),
    as_values: Values | None = np.log1p,
    ticks: int | None = None,
    second: str = "test",
) -> Path:
    """ROOT/{train,test}/CLIP with three frames; `as_values` makes spike_vox of counts, `ticks` gives spike/*.dat."""
    for split, clip in (("train", "a"), (second, "b")):
        for number in (1, 2, 3):
            folder, name = root / split / clip, f"{number:06d}"
            for kind in ("blur", "sharp"):
                picture(folder / kind / f"{name}.png", 100, frame)
            spikes = stream(ticks or 37, *sensor, seed=number)
            if ticks:
                spike_file(folder / "spike" / f"{name}.dat", spikes)
            if as_values is not None:
                counts = voxelise(torch.from_numpy(spikes), num_bins=BINS, binning="start").numpy()
                (folder / "spike_vox").mkdir(exist_ok=True)
                np.save(folder / "spike_vox" / f"{name}.npy", as_values(counts).astype(np.float32))
    return root


def counts_of(number: int, ticks: int = 37, sensor: tuple[int, int] = (14, 10)) -> np.ndarray:
    return voxelise(torch.from_numpy(stream(ticks, *sensor, seed=number)), num_bins=BINS, binning="start").numpy()


# --- what the values are ---


VALUES: dict[str, tuple[Values, str]] = {
    "counts": (lambda counts: counts, "counts"),
    "log1p": (np.log1p, "log1p of counts"),
    "rate": (lambda counts: counts / 6, "counts over 6"),
    "half": (lambda counts: np.log1p(counts).astype(np.float16), "log1p of counts"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_users_own_values_come_back_as_the_counts_they_are_made_of(tmp_path: Path, kind: str):
    as_values, told = VALUES[kind]
    recording = layout_recordings(make_tree(tmp_path, as_values=as_values))["train"][0]
    assert f"{BINS} bins of {told}: " in recording.notes["voxels"]
    assert isinstance(recording.spikes, JoinedStream) and recording.num_frames == 3
    for index in range(3):
        per_bin = recording.exposures[index].num_ticks // BINS
        found = recording.count_exposure(index, [per_bin * k for k in range(BINS + 1)])
        assert np.array_equal(found, counts_of(index + 1))
        assert set(np.unique(recording.read_exposure_spikes(index))) <= {0, 1}


def test_standardised_values_are_counts_again_with_the_mean_and_std_that_are_stated(tmp_path: Path):
    make_tree(tmp_path, as_values=lambda counts: (np.log1p(counts) - 0.9) / 0.4)
    with pytest.raises(
        ValueError, match=r"are neither counts, nor log1p of counts, .*--voxel-mean, --voxel-std: DATA.N"
    ):
        layout_recordings(tmp_path)
    recording = layout_recordings(tmp_path, LayoutOptions(voxel_mean=0.9, voxel_std=0.4))["train"][0]
    per_bin = recording.exposures[0].num_ticks // BINS
    assert np.array_equal(recording.count_exposure(0, [per_bin * k for k in range(BINS + 1)]), counts_of(1))
    assert "log1p of counts, standardised with 0.9 and 0.4" in recording.notes["voxels"]


def test_ticks_of_a_bin_are_spread_evenly_and_read_alike_in_any_window(tmp_path: Path):
    np.save(tmp_path / "v.npy", np.array([[[0]], [[1]], [[3]], [[4]]], dtype=np.float32))
    one = VoxelStream(tmp_path / "v.npy", VoxelValues(False), (4, 1, 1), 4)
    whole = one.read(0, 16)
    assert whole.ravel().tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    for start in range(16):
        assert np.array_equal(one.read(start, 16), whole[start:])
        assert np.array_equal(one.read(0, start), whole[:start])
    assert one.count([3, 9, 16]).ravel().tolist() == [1, 7]


@given(st.lists(st.integers(0, 35), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_counting_is_reading_and_summing(tmp_path_factory: pytest.TempPathFactory, edges: list[int]):
    path = tmp_path_factory.getbasetemp() / "counted.npy"
    np.save(path, np.random.default_rng(3).integers(0, 8, (5, 3, 11)))
    one, edges = VoxelStream(path, VoxelValues(False), (5, 3, 11), 7), sorted(edges)
    assert np.array_equal(one.count(edges), count_slices(one.read(edges[0], edges[-1]), edges))


def test_more_spikes_than_the_looked_at_files_hold_are_refused_by_the_file(tmp_path: Path):
    paths = [tmp_path / f"{index}.npy" for index in range(9)]
    for path in paths:
        np.save(path, np.full((2, 3, 5), 9 if path.name == "1.npy" else 1))
    streams = open_voxels(paths)
    with pytest.raises(ValueError, match=r"1\.npy: 9 to 9 spikes in a bin; allowed: 0 to 2, half as many again"):
        streams[1].read(0, 2)


def test_packed_bits_read_as_bytes_are_refused(tmp_path: Path):
    np.save(tmp_path / "v.npy", np.full((32, 3, 5), 255.0))
    with pytest.raises(ValueError, match="up to 255 spikes in each of 32 bins; allowed: 85. Packed bits"):
        open_voxels([tmp_path / "v.npy"])


# --- the tree ---


def test_voxels_alone_are_prepared_and_the_cache_equals_the_stream_bit_for_bit(tmp_path: Path):
    make_tree(tmp_path / "old")
    sources = open_sources([tmp_path / "old"], options=PrepareOptions(num_bins=BINS, binning="start"))
    root = prepare(sources, tmp_path / "new", PrepareOptions(num_bins=BINS, binning="start"))
    for number in (1, 2, 3):
        stored = np.load(root / "train" / "a" / "spike_vox" / f"{number:06d}.npy")
        assert np.array_equal(stored, counts_of(number))
    spikes = SpikeConfig(num_bins=BINS, binning="start")
    settings = {"root": str(root), "clip_frames": 3, "crop_px": 20}
    cached, raw = (ClipDataset(DataConfig(voxels=voxels, **settings), spikes) for voxels in ("precomputed", "raw"))
    assert torch.equal(cached[0]["spike_vox"], raw[0]["spike_vox"])


def test_other_numbers_of_bins_than_divide_the_voxels_are_refused(tmp_path: Path):
    make_tree(tmp_path)
    with pytest.raises(ValueError, match=r"num_bins: 5; .*a has voxels of 7; allowed: 7, or what divides it"):
        open_sources([tmp_path], options=PrepareOptions(num_bins=5))


def test_weights_that_read_other_bins_than_the_voxels_have_are_refused(tmp_path: Path):
    recording = layout_recordings(make_tree(tmp_path))["train"][0]
    with pytest.raises(
        ValueError, match="voxels of 7 bins; allowed for weights that read 32: as many or a multiple, or"
    ):
        check_spikes(WeightsInfo(ModelConfig(), 0.0, 1.0), recording)


def test_weights_of_an_unknown_training_set_give_no_warning_of_its_density(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recording = layout_recordings(make_tree(tmp_path))["train"][0]
    model = ModelConfig(spikes=SpikeConfig(num_bins=BINS, binning="start"))
    check_spikes(WeightsInfo(model, 0.0, 1.0), recording)
    assert capsys.readouterr().err == ""
    check_spikes(WeightsInfo(model, 9.0, 1.0), recording)
    assert "against 9 in training; expect poor frames" in capsys.readouterr().err


def test_where_both_are_there_ticks_are_counted_and_the_voxels_are_read_when_asked_for(tmp_path: Path):
    make_tree(tmp_path, ticks=37, as_values=lambda counts: np.zeros_like(counts))
    recording = layout_recordings(tmp_path)["train"][0]
    assert recording.exposures[0].num_ticks == 37
    assert recording.notes == {
        "voxels": "spike/*.dat is counted, spike_vox/*.npy not read (--voxels precomputed reads it)"
    }
    read = layout_recordings(tmp_path, LayoutOptions(voxels="precomputed"))["train"][0]
    assert not read.read_exposure_spikes(0).any()


def test_a_source_of_spikes_that_is_not_there_is_refused(tmp_path: Path):
    make_tree(tmp_path)
    with pytest.raises(ValueError, match="voxels: raw; allowed for .*: precomputed"):
        layout_recordings(tmp_path, LayoutOptions(voxels="raw"))


def test_the_second_split_is_called_val_or_test(tmp_path: Path):
    for second in ("val", "test"):
        found = layout_recordings(make_tree(tmp_path / second, second=second))
        assert [clip.name for clip in found["val"]] == ["b"] and [clip.name for clip in found["train"]] == ["a"]


def test_clips_in_folders_and_names_in_base_four_are_those_of_x4k(tmp_path: Path):
    make_tree(tmp_path)
    (tmp_path / "train" / "002").mkdir()
    (tmp_path / "train" / "a").rename(tmp_path / "train" / "002" / "a")
    for kind, suffix in (("blur", "png"), ("sharp", "png"), ("spike_vox", "npy")):
        folder = tmp_path / "train" / "002" / "a" / kind
        for old, new in (("000001", "0004"), ("000002", "0007_002"), ("000003", "0011_001")):  # 16, 31, 46
            (folder / f"{old}.{suffix}").rename(folder / f"{new}.{suffix}")
    clip = layout_recordings(tmp_path)["train"][0]
    assert clip.name == "002_a" and [one.frame_idx for one in clip.exposures] == [0, 1, 2]


# --- sizes ---


@pytest.mark.parametrize(("frame", "sensor"), [((21, 15), (14, 10)), ((29, 21), (14, 10)), ((1600, 1000), (400, 250))])
def test_a_ratio_that_is_not_whole_is_taken(tmp_path: Path, frame: tuple[int, int], sensor: tuple[int, int]):
    recording = layout_recordings(make_tree(tmp_path, frame=frame, sensor=sensor))["train"][0]
    assert recording.spikes is not None and (recording.spikes.width, recording.spikes.height) == sensor


def test_a_size_of_two_ratios_is_refused_with_what_the_files_would_hold(tmp_path: Path):
    """88 x 360 x 640 packed bits are as many bytes as 10 x 396 x 640: a quarter of that here."""
    make_tree(tmp_path, frame=(640, 360), sensor=(320, 180), ticks=88, as_values=None)
    for split, clip in (("train", "a"), ("test", "b")):
        (tmp_path / split / clip / "spike_vox").mkdir()
        for number in (1, 2, 3):
            np.save(tmp_path / split / clip / "spike_vox" / f"{number:06d}.npy", np.zeros((BINS, 198, 320), np.float32))
    with pytest.raises(
        ValueError, match="spikes of 320x198: no one ratio, .*read as bytes; state .* 88 ticks of 320x180"
    ):
        layout_recordings(tmp_path)
    stated = layout_recordings(tmp_path, LayoutOptions(spike_width=320, spike_height=180))["train"][0]
    assert stated.exposures[0].num_ticks == 88


def test_the_name_of_a_gopro_clip_and_the_size_of_its_files_tell_the_sensor(tmp_path: Path):
    """11 frames averaged are 88 ticks; voxels that were made of bytes do not count."""
    make_tree(tmp_path, frame=(32, 24), sensor=(16, 12), ticks=88, as_values=None)
    for split, clip in (("train", "a"), ("test", "b")):
        (tmp_path / split / clip).rename(tmp_path / split / "GOPR0384_11_00")
    recording = layout_recordings(tmp_path)["train"][0]
    assert recording.spikes is not None and (recording.spikes.width, recording.spikes.height) == (16, 12)
    assert recording.exposures[0].num_ticks == 88


def test_a_stated_size_is_taken_whatever_the_ratio(tmp_path: Path):
    make_tree(tmp_path, frame=(128, 72), sensor=(40, 25), ticks=37, as_values=None)
    options = LayoutOptions(spike_width=40, spike_height=25)
    recording = layout_recordings(tmp_path, options)["train"][0]
    assert recording.sensor_positions is not None and recording.exposures[0].num_ticks == 37


def test_files_of_one_byte_a_pixel_are_read_as_such(tmp_path: Path):
    make_tree(tmp_path, ticks=37)
    for path in tmp_path.rglob("*.dat"):
        path.write_bytes(stream(37, 14, 10, seed=int(path.stem))[:, ::-1].tobytes())
    recording = layout_recordings(tmp_path)["train"][0]
    assert recording.exposures[0].num_ticks == 37 and "one byte a pixel" in recording.notes["spikes"]
    assert np.array_equal(recording.read_exposure_spikes(1), stream(37, 14, 10, seed=2))


# --- pauses ---


def test_pauses_between_the_files_of_frames_are_no_missing_ticks(tmp_path: Path):
    """Pixels of one steady rhythm each; between two files 13 ticks passed that nobody kept."""
    rng = np.random.default_rng(4)
    period, phase = rng.integers(5, 9, (30, 42)), rng.integers(0, 9, (30, 42))
    for split, clip in (("train", "a"), ("test", "b")):
        for number in range(4):
            ticks = np.arange(number * 73, number * 73 + 60)[:, None, None]
            for kind in ("blur", "sharp"):
                picture(tmp_path / split / clip / kind / f"{number:06d}.png", 100, (84, 60))
            path = tmp_path / split / clip / "spike" / f"{number:06d}.dat"
            spike_file(path, ((ticks + phase) % period == 0).astype(np.uint8))
    recording = layout_recordings(tmp_path, LayoutOptions(spike_width=42, spike_height=30))["train"][0]
    assert check_health(recording).finding("gaps").verdict == "ok"
    assert recording.spikes is not None
    spikes = recording.spikes.read(0, 240)
    assert scan(_Whole(spikes), [(0, 240)]).breaks == (60, 120, 180)  # as one file they would be
    parts = JoinedStream((_Whole(spikes[:120]), _Whole(spikes[120:])))
    assert scan(parts, [(0, 240)]).breaks == (60, 180)  # what lies within a file is found


class _Whole:
    """A stream in memory, of one piece."""

    files = (Path("memory"),)

    def __init__(self, spikes: np.ndarray) -> None:
        self.spikes = spikes
        self.num_ticks, self.height, self.width = spikes.shape

    def read(self, start_tick: int, stop_tick: int) -> np.ndarray:
        return self.spikes[start_tick:stop_tick]
