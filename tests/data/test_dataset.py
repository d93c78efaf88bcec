"""ClipDataset: the same sample by every path, one field of view, settings obeyed or refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.data.dataset import ClipDataset, collate, draw_crop, open_dataset
from spikevrt.data.prepare import prepare
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import open_recording
from spikevrt.represent.voxel import spike_voxels
from tests.data.conftest import NUM_BINS, NUM_TICKS, MakeRecording

CROP = 6


@pytest.fixture
def root(make_recording: MakeRecording, tmp_path: Path) -> Path:
    """Two training sequences and one for validation, seven frames each."""
    train = [make_recording(name, seed=seed, num_frames=7) for seed, name in enumerate("ab")]
    return prepare(train, tmp_path / "set", num_bins=NUM_BINS, val=[make_recording("c", seed=9, num_frames=7)])


def clips(root: Path, split: str = "train", **changes) -> ClipDataset:
    return ClipDataset(root, split, **{"clip_frames": 3, "crop_px": CROP, "augment": True, **changes})


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys() and first["meta"] == second["meta"]
    for key in first.keys() - {"meta"}:
        assert torch.equal(first[key], second[key]), key


# --- what a sample is -----------------------------------------------------------------------------------------------


def test_a_sample_has_the_shapes_types_and_meta_of_the_specification(root: Path):
    sample = clips(root, augment=False)[1]
    assert {key: tuple(sample[key].shape) for key in ("blur", "sharp", "spike_vox")} == {
        "blur": (3, 3, 6, 6),
        "sharp": (3, 3, 6, 6),
        "spike_vox": (3, NUM_BINS, 3, 3),
    }
    assert all(
        sample[key].dtype == torch.float32 and sample[key].is_contiguous() for key in ("blur", "sharp", "spike_vox")
    )
    assert sample["meta"] == {
        "seq": "a",
        "frame_idx": [1, 2, 3],
        "t0": [0.02, 0.04, 0.06],
        "t1": [0.037, 0.057, 0.077],
    }
    assert sample["blur"].min() >= 0 and sample["blur"].max() <= 1


@pytest.mark.parametrize("augment", [False, True])
def test_voxels_from_the_cache_equal_voxels_from_the_stream_bit_for_bit(root: Path, augment: bool):
    """Fault 3: log1p and standardisation on one loading path and not on the other."""
    for crop_px in (CROP, 14):
        cached = clips(root, crop_px=crop_px, augment=augment, voxels="precomputed")
        streamed = clips(root, crop_px=crop_px, augment=augment, voxels="raw")
        for item in range(len(cached)):
            assert_same(cached[item], streamed[item])


@pytest.mark.parametrize("voxels", ["precomputed", "raw"])
def test_voxels_equal_those_that_the_restorer_makes_of_the_recording_bit_for_bit(
    root: Path, tmp_path: Path, voxels: str
):
    recording = open_recording(tmp_path / "recordings" / "a")
    dataset = clips(root, crop_px=None, augment=False, voxels=voxels)
    for frame, voxels_Khw in enumerate(dataset[2]["spike_vox"], start=2):
        spikes = torch.from_numpy(recording.read_exposure_spikes(frame))
        expected = spike_voxels(spikes, num_bins=NUM_BINS, stats=dataset.info.stats)
        assert torch.equal(voxels_Khw, expected)


def test_training_voxels_have_mean_zero_and_deviation_one(root: Path):
    dataset = clips(root, crop_px=None, augment=False, clip_frames=7)
    voxels = torch.stack([dataset[item]["spike_vox"] for item in range(len(dataset))]).double()
    assert voxels.mean().item() == pytest.approx(0, abs=1e-6)
    assert voxels.std(correction=0).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("bottom_up", [True, False])
def test_crops_and_augmentations_show_the_same_scene_in_frames_and_voxels(
    make_recording: MakeRecording, tmp_path: Path, ratio: int, bottom_up: bool
):
    """Faults 8 and 15: every crop, mirror and row order keeps picture and spikes on top of each other."""
    scene_Thw = np.random.default_rng(3).integers(0, 2, (5, 7, 11), dtype=np.uint8)
    frames = np.repeat(scene_Thw.repeat(ratio, 1).repeat(ratio, 2)[..., None] * 255, 3, axis=-1)
    spikes = scene_Thw.repeat(NUM_TICKS + 3, axis=0)  # a pixel fires at every tick or at none
    recording = make_recording("a", frames=frames, spikes=spikes, ratio=ratio, bottom_up=bottom_up)
    root = prepare([recording], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    for voxels in ("precomputed", "raw"):
        dataset = clips(root, crop_px=4 * ratio, voxels=voxels)
        for epoch in range(20):
            dataset.set_epoch(epoch)
            sample = dataset[epoch % len(dataset)]
            fires = (sample["spike_vox"][:, 0] > 0).float()
            seen = fires.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
            assert torch.equal(sample["blur"][:, 1], seen) and torch.equal(sample["sharp"][:, 1], seen)


@pytest.mark.parametrize(
    ("voxels", "name", "content", "message"),
    [
        ("precomputed", "spike_vox/000003.npy", b"", r"000003\.npy: damaged voxels \("),
        ("precomputed", "spike_vox/000003.npy", np.full((NUM_BINS, 7, 11), np.nan), r"000003\.npy: float64 of shape"),
        ("raw", "spike/000003.dat", bytes(10 * (NUM_TICKS - 1)), r"000003\.dat: 16 ticks; allowed: 17"),
        ("raw", "spike/000003.dat", bytes(10 * NUM_TICKS - 1), r"000003\.dat: 169 bytes are no whole number of ticks"),
        (
            "raw",
            "blur/000003.png",
            np.zeros((15, 22, 3), np.uint8),
            r"000003\.png: 22x15 pixels; the sequence has 22x14",
        ),
    ],
)
def test_a_file_that_was_exchanged_or_cut_is_named(
    root: Path, voxels: str, name: str, content: bytes | np.ndarray, message: str
):
    path = root / "train" / "a" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".png":
        write_image(path, content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=message):
        clips(root, voxels=voxels)[1]


def test_truncated_voxels_are_named(root: Path):
    path = root / "train" / "a" / "spike_vox" / "000003.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000003\.npy: damaged voxels \("):
        clips(root)[1]


def test_crops_reach_every_place_between_spike_pixels(root: Path):
    sequence, generator = open_dataset(root).train[0], torch.Generator().manual_seed(1)
    crops = [draw_crop(sequence, CROP, generator) for _ in range(1000)]
    assert {(c.top_px, c.left_px) for c in crops} == set(itertools.product(range(0, 9, 2), range(0, 17, 2)))
    assert {(c.height_px, c.width_px) for c in crops} == {(CROP, CROP)}


def test_without_spikes_no_spike_file_is_opened(root: Path):
    for path in [*root.glob("train/*/spike/*"), *root.glob("train/*/spike_vox/*")]:
        path.unlink()
    assert set(clips(root, spikes=False)[0]) == {"blur", "sharp", "meta"}


def test_the_twin_without_spikes_sees_the_same_pictures(root: Path):
    with_spikes, without = clips(root)[4], clips(root, spikes=False)[4]
    assert torch.equal(with_spikes["blur"], without["blur"]) and with_spikes["meta"] == without["meta"]


# --- randomness -----------------------------------------------------------------------------------------------------


def test_an_item_depends_on_seed_epoch_and_number_only(root: Path):
    first, second = clips(root), clips(root)
    for item in (3, 0, 2):
        first[item]
    assert_same(first[1], second[1])


def test_another_seed_and_another_epoch_give_another_sample(root: Path):
    base = [clips(root)[i]["blur"] for i in range(4)]
    later = clips(root)
    later.set_epoch(1)
    other = clips(root, seed=124)
    assert not all(torch.equal(later[i]["blur"], base[i]) for i in range(4))
    assert not all(torch.equal(other[i]["blur"], base[i]) for i in range(4))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(root: Path, num_workers: int):
    def batches(workers: int) -> list[dict]:
        dataset = clips(root)
        dataset.set_epoch(5)
        return list(torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=collate))

    for alone, shared in zip(batches(0), batches(num_workers), strict=True):
        assert_same(alone, shared)


def test_cached_pictures_are_the_decoded_ones(root: Path):
    plain, cached = clips(root), clips(root, cache_bytes=1 << 20)
    for item in [0, 1, 0, 1]:
        assert_same(plain[item], cached[item])


def test_the_cache_never_grows_past_its_limit(root: Path):
    picture_bytes = 22 * 14 * 3
    dataset = clips(root, cache_bytes=5 * picture_bytes + 1)
    for item in range(len(dataset)):
        dataset[item]
    assert dataset.images.num_bytes == 5 * picture_bytes


# --- clips ----------------------------------------------------------------------------------------------------------


def test_training_offers_every_stretch_of_consecutive_frames(root: Path):
    dataset = clips(root, augment=False)
    seen = [
        (sample["meta"]["seq"], sample["meta"]["frame_idx"][0]) for sample in (dataset[i] for i in range(len(dataset)))
    ]
    assert seen == [(name, start) for name in "ab" for start in range(5)]


def test_validation_holds_every_frame_exactly_once(root: Path):
    """Fault 11: frames counted twice by overlapping clips."""
    for clip_frames in range(1, 9):
        dataset = clips(root, "val", clip_frames=clip_frames, crop_px=None, augment=False)
        indices = [dataset[i]["meta"]["frame_idx"] for i in range(len(dataset))]
        assert sum(indices, []) == list(range(7))
        lengths = [len(part) for part in indices]
        assert max(lengths) <= clip_frames and max(lengths) - min(lengths) <= 1


def test_no_clip_runs_across_a_dropped_frame(make_recording: MakeRecording, tmp_path: Path):
    recording = make_recording("a", num_frames=6, t1_late_ticks=5)  # drops frame 2
    root = prepare([recording], tmp_path / "gap", num_bins=NUM_BINS, val_fraction=0)
    dataset = clips(root, clip_frames=2, augment=False)
    assert [dataset[i]["meta"]["frame_idx"] for i in range(len(dataset))] == [[0, 1], [3, 4], [4, 5]]


def test_a_batch_stacks_samples_and_lists_their_meta(root: Path):
    dataset = clips(root)
    batch = collate([dataset[0], dataset[5]])
    assert batch["blur"].shape == (2, 3, 3, 6, 6) and batch["spike_vox"].shape == (2, 3, NUM_BINS, 3, 3)
    assert [meta["seq"] for meta in batch["meta"]] == ["a", "b"]
    assert torch.equal(batch["sharp"][1], dataset[5]["sharp"])


def test_an_item_past_the_end_is_an_index_error(root: Path):
    dataset = clips(root)
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert_same(dataset[-1], dataset[len(dataset) - 1])


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_bins": 32}, "num_bins: 32, but .*set was prepared with 5; allowed: 5, or prepare again"),
        ({"crop_px": 16}, "crop_px: 16 does not fit a of 22x14; allowed: 1 to 14"),
        ({"crop_px": 0}, "crop_px: 0 does not fit a of 22x14"),
        ({"crop_px": 7}, "crop_px: 7 cuts through spike pixels of a; allowed: a multiple of 2"),
        ({"clip_frames": 0}, "clip_frames: 0; allowed: 1 or more"),
        ({"clip_frames": 8}, "clip_frames: 8, but the longest run of frames in .*train is 7; allowed: 1 to 7"),
        ({"voxels": "rwa"}, "voxels: 'rwa'; allowed: precomputed, raw"),
        ({"split": "test"}, "split: 'test'; allowed: train, val"),
        ({"crop_px": None}, "augment: true needs crop_px"),
        ({"cache_bytes": -1}, "cache_bytes: -1; allowed: 0 or more"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused(root: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        clips(root, **{"split": "train", **changes})
    assert "\n" not in str(caught.value)


def test_sequences_of_two_spike_ratios_cannot_be_cropped_alike(make_recording: MakeRecording, tmp_path: Path):
    paths = [make_recording(f"r{ratio}", ratio=ratio) for ratio in (1, 2)]
    root = prepare(paths, tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    with pytest.raises(ValueError, match=r"crop_px: 6 over sequences of spike ratios \[1, 2\]; allowed: one ratio"):
        clips(root)
    assert len(clips(root, spikes=False)) == 6


def test_an_empty_split_is_refused(make_recording: MakeRecording, tmp_path: Path):
    root = prepare([make_recording("a")], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    with pytest.raises(ValueError, match="val: holds no sequence"):
        clips(root, "val")


def test_a_missing_dataset_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such dataset \(dataset.json is missing"):
        open_dataset(tmp_path / "nowhere")


def test_a_missing_sequence_is_named(root: Path):
    (root / "train" / "b" / "sequence.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"train/b: no such sequence \(sequence.json is missing\)"):
        open_dataset(root)


@pytest.mark.parametrize("name", ["dataset.json", "train/a/sequence.json"])
def test_damaged_descriptions_are_named(root: Path, name: str):
    path = root / name
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name}: not JSON"):
        open_dataset(root)
    path.write_text(json.dumps({**json.loads(whole), "version": 99}))
    with pytest.raises(ValueError, match=f"{name}: format 'spikevrt-.*' version 99; allowed: .* version 1"):
        open_dataset(root)
    values = json.loads(whole)
    del values["num_bins" if name == "dataset.json" else "exposures"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{name}: damaged or incomplete"):
        open_dataset(root)


def test_a_voxel_file_of_another_shape_is_named(root: Path):
    path = root / "train" / "a" / "spike_vox" / "000000.npy"
    np.save(path, np.zeros((NUM_BINS, 11, 7), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"000000.npy: uint8 of shape \(5, 11, 7\); allowed: uint8 or uint16 of shape \(5, 7, 11\)"
    ):
        clips(root)[0]
