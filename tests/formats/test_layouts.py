"""Other people's dataset folders: each layout from a miniature of its exact tree, and what is wrong with a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.formats.dataset_trees import LAYOUTS
from spikevrt.formats.layouts import LayoutOptions, find_layout, layout_recordings, open_recordings
from spikevrt.recording.frames import write_image
from spikevrt.recording.spike_file import SpikeGeometry, pack

SIZE = (28, 20)  # width and height of the frames: halves and quarters are whole


def picture(path: Path, value: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((size[1], size[0], 3), value, dtype=np.uint8))


def stream(ticks: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (ticks, height, width), dtype=np.uint8)


def spike_file(path: Path, spikes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(spikes, SpikeGeometry(spikes.shape[2], spikes.shape[1])))


def make_spk_gopro(root: Path, *, spikes: bool = True) -> Path:
    """Three clips of 7, 11 and 13 averaged frames; `blur` is dark, `blur_gamma` bright, `sharp` white."""
    clips = [("train", "GOPR0372_07_00", 56), ("train", "GOPR0884_11_00", 88), ("test", "GOPR0854_13_00", 104)]
    for part, clip, ticks in clips:
        for number in (47, 48):
            for kind, value in (("blur", 40), ("blur_gamma", 90), ("sharp", 255)):
                picture(root / "GOPRO_Large" / part / clip / kind / f"{number:06d}.png", value)
            if spikes:
                folder = root / "GOPRO_Large_spike_seq" / part / clip / "spike"
                spike_file(folder / f"{number:06d}.dat", stream(ticks, 14, 10, seed=number))
                (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return root


def make_spk_x4k(root: Path) -> Path:
    """Centres 16, 31 and 46 of a 33-tick blur, 32 and 47 of a 65-tick one: 4 = 0001, 5 = 0001_000, 6 = 0001_001."""
    for part, scene in (("train", "002/occ008.320_f2881"), ("train", "003/occ008.320_f2881"), ("val", "Type1/TEST01")):
        for length, names in (("33", ["0004", "0007_002", "0011_001"]), ("65", ["0008", "0011_002"])):
            for name in names:
                picture(root / f"{part}_blurry_{length}" / scene / f"{name}.png", int(length))
                folder = root / f"{part}_spike_2xds_{length}" / scene
                spike_file(folder / f"{name}.dat", stream(int(length), 14, 10))
        for number in range(60):  # the whole interpolated clip, of which few frames are centres
            name = f"{number // 4:04d}" + (f"_{number % 4 - 1:03d}" if number % 4 else "")
            picture(root / f"{part}_fullRGB" / scene / f"{name}.png", number)
    return root


def make_s_sdm(root: Path) -> Path:
    for part, clip in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00")):
        for number in (1, 2):
            for kind in ("raw_data", "blur_data", "sharp_data"):
                picture(root / "GOPRO" / part / kind / clip / f"{number}.png")
            spike_file(root / "GOPRO" / part / "spike_data" / clip / f"{number}.dat", stream(137, 7, 5, number))
    return root


def make_rsb(root: Path) -> Path:
    for number in (0, 10):
        picture(root / "blur_data" / "car" / f"{number}.jpg", size=(1600, 1000))
        spike_file(root / "spike_data" / "car" / f"{number}.dat", stream(41, 400, 250))
    return root


def make_s_vrt(root: Path, *, sensor: tuple[int, int] = (14, 10)) -> Path:
    for part, clip in (("train", "GOPR0374_11_00"), ("train", "GOPR0374_11_01"), ("test", "GOPR0396_11_00")):
        for number in (150, 151):
            picture(root / "GOPRO_Large" / f"{part}_GT" / clip / f"{number:06d}.png", 255)
            picture(root / "GOPRO_Large" / f"{part}_GT_blurred" / clip / f"{number:06d}.png", 40)
            spike_file(root / "GOPRO_Large_spike_seq" / part / clip / "spike" / f"{number:06d}.dat", stream(88, 14, 10))
    (root / "GOPRO_Large_spike_seq" / "config.yaml").write_text(
        f"filename: x\nspike_w: {sensor[0]}\nspike_h: {sensor[1]}\nis_labeled: false\nlabeled_data_type: [0]\n"
    )
    return root


def make_reference(root: Path, *, voxels: bool = True) -> Path:
    for part, clip in (("train", "a"), ("val", "b")):
        for number in (0, 1, 3):
            folder = root / part / clip
            picture(folder / "blur" / f"{number:06d}.png")
            picture(folder / "sharp" / f"{number:06d}.png")
            spike_file(folder / "spike" / f"{number:06d}.dat", stream(37, 14, 10))
            if voxels:
                (folder / "spike_vox").mkdir(exist_ok=True)
                np.save(folder / "spike_vox" / f"{number:06d}.npy", np.zeros((5, 10, 14), dtype=np.float32))
    return root


MAKERS = {
    "spk-gopro": make_spk_gopro,
    "spk-x4k": make_spk_x4k,
    "s-sdm": make_s_sdm,
    "rsb": make_rsb,
    "s-vrt": make_s_vrt,
    "reference": make_reference,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_layout_is_told_from_its_folders_alone(tmp_path: Path, name: str):
    layout = find_layout(MAKERS[name](tmp_path))
    assert layout is not None and layout.name == name
    assert set(MAKERS) == {known.name for known in LAYOUTS}


@pytest.mark.parametrize("name", MAKERS)
def test_reading_a_dataset_leaves_every_file_as_it_was(tmp_path: Path, name: str):
    MAKERS[name](tmp_path)

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = state()
    for recordings in layout_recordings(tmp_path).values():
        for recording in recordings:
            recording.read_blur(0)
            recording.read_exposure_spikes(0)
    assert state() == before


# --- each layout ----------------------------------------------------------------------------------------------------


def test_spk_gopro_has_eight_ticks_for_each_averaged_frame_and_spikes_of_half_size(tmp_path: Path):
    parts = layout_recordings(make_spk_gopro(tmp_path))
    assert [(r.name, r.num_frames) for r in parts["train"]] == [("GOPR0372_07_00", 2), ("GOPR0884_11_00", 2)]
    assert [r.name for r in parts["val"]] == ["GOPR0854_13_00"]
    for recording, ticks in [*zip(parts["train"], [56, 88], strict=True), (parts["val"][0], 104)]:
        assert recording.spikes is not None
        assert (recording.spikes.width, recording.spikes.height, recording.num_ticks) == (14, 10, 2 * ticks)
        assert [(e.frame_idx, e.start_tick, e.stop_tick) for e in recording.exposures] == [
            (47, 0, ticks),
            (48, ticks, 2 * ticks),
        ]
        assert recording.exposures[1].t0_s == ticks / 1920 and recording.fps == 1920 / ticks
        np.testing.assert_array_equal(recording.read_exposure_spikes(1), stream(ticks, 14, 10, seed=48))
        assert recording.dropped == ()  # .DS_Store is no frame
    assert (parts["val"][0].read_blur(0) == 90).all() and (parts["val"][0].read_sharp(0) == 255).all()


def test_the_other_blur_and_the_middle_of_the_files_can_be_chosen(tmp_path: Path):
    parts = layout_recordings(make_spk_gopro(tmp_path), LayoutOptions(blur="blur", exposure_ticks=56))
    recording = parts["val"][0]
    assert (recording.read_blur(0) == 40).all() and recording.provenance["blur"] == "blur"
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(24, 80), (128, 184)]
    np.testing.assert_array_equal(recording.read_exposure_spikes(0), stream(104, 14, 10, seed=47)[24:80])
    assert recording.exposures[1].t0_s == (104 + 24) / 1920


def test_gopro_without_spikes_is_frames_alone(tmp_path: Path):
    recording = layout_recordings(make_spk_gopro(tmp_path, spikes=False))["train"][0]
    assert recording.spikes is None and [e.num_ticks for e in recording.exposures] == [0, 0]
    assert (recording.read_sharp(1) == 255).all()


def test_spk_x4k_numbers_are_of_base_four_and_name_the_middle_of_the_exposure(tmp_path: Path):
    parts = layout_recordings(make_spk_x4k(tmp_path))
    assert [r.name for r in parts["train"]] == ["002_occ008.320_f2881", "003_occ008.320_f2881"]
    recording = parts["val"][0]
    assert [e.frame_idx for e in recording.exposures] == [0, 1, 2] and recording.fps == 4000 / 15
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 33), (33, 66), (66, 99)]
    assert [(e.t0_s, e.t1_s) for e in recording.exposures[:2]] == [(0, 33 / 4000), (15 / 4000, 48 / 4000)]
    assert [int(recording.read_sharp(i)[0, 0, 0]) for i in range(3)] == [16, 31, 46]
    assert (recording.read_blur(0) == 33).all()


def test_frames_whose_numbers_rise_by_more_than_one_are_neighbours_until_one_is_missing(tmp_path: Path):
    make_spk_x4k(tmp_path)
    (tmp_path / "val_spike_2xds_33/Type1/TEST01/0007_002.dat").unlink()
    recording = layout_recordings(tmp_path)["val"][0]
    assert [e.frame_idx for e in recording.exposures] == [0, 2]
    assert [number for number, _ in recording.dropped] == [1]
    assert recording.exposures[1].t0_s == 30 / 4000


def test_frames_are_in_the_order_of_their_numbers_and_not_of_letters(tmp_path: Path):
    for number in (2, 12, 7):
        picture(tmp_path / "test/blur_data/a" / f"{number}.png", number)
        spike_file(tmp_path / "test/spike_data/a" / f"{number}.dat", stream(137, 7, 5, number))
    recording = layout_recordings(tmp_path)["val"][0]
    assert [int(recording.read_blur(i)[0, 0, 0]) for i in range(3)] == [2, 7, 12]
    assert [e.frame_idx for e in recording.exposures] == [0, 1, 2]
    picture(tmp_path / "test/blur_data/a/9.png", 9)  # no step fits any more: the order alone counts
    spike_file(tmp_path / "test/spike_data/a/9.dat", stream(137, 7, 5, 9))
    assert [e.frame_idx for e in layout_recordings(tmp_path)["val"][0].exposures] == [0, 1, 2, 3]


def test_the_longer_blur_of_spk_x4k_has_65_ticks(tmp_path: Path):
    recording = layout_recordings(make_spk_x4k(tmp_path), LayoutOptions(blur="65"))["val"][0]
    assert [e.t0_s for e in recording.exposures] == [0, 15 / 4000]
    assert [e.num_ticks for e in recording.exposures] == [65, 65] and (recording.read_blur(0) == 65).all()


def test_s_sdm_exposes_the_97_ticks_between_two_margins_of_20(tmp_path: Path):
    parts = layout_recordings(make_s_sdm(tmp_path))
    recording = parts["val"][0]
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(20, 117), (157, 254)]
    assert recording.exposures[1].t0_s == (104 + 20) / 1920  # 13 frames later, 8 ticks each
    np.testing.assert_array_equal(recording.read_exposure_spikes(1), stream(137, 7, 5, 2)[20:117])
    assert layout_recordings(tmp_path / "GOPRO")["val"][0].num_frames == 2  # the folder itself will do


def test_rsb_is_for_validation_and_has_no_sharp_frames(tmp_path: Path):
    parts = layout_recordings(make_rsb(tmp_path))
    (recording,) = parts["val"]
    assert parts["train"] == [] and recording.sharp == ()
    assert recording.spikes is not None and (recording.spikes.width, recording.spikes.height) == (400, 250)
    assert [e.frame_idx for e in recording.exposures] == [0, 1]
    assert (recording.width, recording.height) == (1600, 1000)


def test_s_vrt_pairs_two_trees_of_pictures_with_the_spikes_of_spk_gopro(tmp_path: Path):
    parts = layout_recordings(make_s_vrt(tmp_path))
    assert [r.name for r in parts["train"]] == ["GOPR0374_11_00", "GOPR0374_11_01"]
    recording = parts["val"][0]
    assert (recording.read_blur(0) == 40).all() and (recording.read_sharp(0) == 255).all()
    assert [(e.frame_idx, e.num_ticks) for e in recording.exposures] == [(150, 88), (151, 88)]


def test_a_meta_info_file_chooses_the_clips(tmp_path: Path):
    make_s_vrt(tmp_path)
    (tmp_path / "GOPRO_Large" / "meta_info_GoPro_train_GT.txt").write_text("GOPR0374_11_01 2 0 150\n\n")
    assert [r.name for r in layout_recordings(tmp_path)["train"]] == ["GOPR0374_11_01"]


def test_the_reference_layout_learns_the_sensor_from_the_voxels(tmp_path: Path):
    recording = layout_recordings(make_reference(tmp_path))["train"][0]
    assert recording.spikes is not None and (recording.spikes.width, recording.spikes.height) == (14, 10)
    assert [(e.frame_idx, e.num_ticks) for e in recording.exposures] == [(0, 37), (1, 37), (3, 37)]
    assert recording.exposures[2].t0_s == 3 * 37 / 20000


def test_the_reference_layout_without_voxels_is_told_the_sensor(tmp_path: Path):
    make_reference(tmp_path, voxels=False)
    with pytest.raises(ValueError, match="a: does not tell the size of its spikes; pass --spike-width, --spike-height"):
        layout_recordings(tmp_path)
    options = LayoutOptions(spike_width=14, spike_height=10)
    assert layout_recordings(tmp_path, options)["val"][0].num_ticks == 3 * 37


# --- what is wrong with a frame -------------------------------------------------------------------------------------


def gopro_clip(root: Path) -> tuple[Path, Path]:
    make_spk_gopro(root)
    return root / "GOPRO_Large/train/GOPR0372_07_00", root / "GOPRO_Large_spike_seq/train/GOPR0372_07_00/spike"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda frames, spikes: (spikes / "000047.dat").unlink(), r"no spike file for .*blur_gamma/000047\.png"),
        (lambda frames, spikes: (frames / "sharp/000047.png").unlink(), r"no sharp frame for .*/000047\.png"),
        (lambda frames, spikes: (frames / "blur_gamma/000047.png").unlink(), r"no blurry frame for .*/000047\.dat"),
        (
            lambda frames, spikes: spike_file(spikes / "000047.dat", stream(55, 14, 10)),
            r"000047\.dat: 55 ticks of 14x10; allowed: 56",
        ),
        (
            lambda frames, spikes: (spikes / "000047.dat").write_bytes(bytes(18 * 56 - 1)),
            r"000047\.dat: 1007 bytes are no whole number of ticks of 14x10",
        ),
        (lambda frames, spikes: (spikes / "000047.dat").write_bytes(b""), r"000047\.dat: an empty spike file"),
    ],
)
def test_a_frame_that_lacks_something_is_dropped_with_the_reason(tmp_path: Path, damage, reason: str):
    damage(*gopro_clip(tmp_path))
    recording = layout_recordings(tmp_path)["train"][0]
    ((number, why),) = recording.dropped
    assert number == 47 and why.count("\n") == 0
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(why)
    assert [(e.frame_idx, e.start_tick, e.stop_tick) for e in recording.exposures] == [(48, 0, 56)]
    assert recording.exposures[0].t0_s == 56 / 1920  # the clock runs on
    np.testing.assert_array_equal(recording.read_exposure_spikes(0), stream(56, 14, 10, seed=48))


def test_a_frame_that_is_no_picture_is_dropped(tmp_path: Path):
    frames, _ = gopro_clip(tmp_path)
    (frames / "blur_gamma/000047.png").write_bytes(b"not a picture")
    ((number, why),) = layout_recordings(tmp_path)["train"][0].dropped
    assert number == 47 and why.endswith("000047.png: not an image, or a damaged one")
    (frames / "blur_gamma/000048.png").write_bytes(b"")
    refused(tmp_path, "blur_gamma: no frame can be used; the first: .*000047.png: not an image")


def test_a_frame_of_another_size_is_dropped(tmp_path: Path):
    frames, _ = gopro_clip(tmp_path)
    picture(frames / "blur_gamma/000048.png", size=(30, 20))
    ((number, why),) = layout_recordings(tmp_path)["train"][0].dropped
    assert number == 48 and why.endswith("000048.png: not 28x20 pixels as the frames before it")


def test_a_clip_of_which_nothing_is_left_is_named(tmp_path: Path):
    _, spikes = gopro_clip(tmp_path)
    for path in spikes.glob("*.dat"):
        path.unlink()
    with pytest.raises(ValueError, match=r"GOPR0372_07_00/blur_gamma: no frame can be used; the first: no spike file"):
        layout_recordings(tmp_path)


# --- refusals -------------------------------------------------------------------------------------------------------


def refused(root: Path, message: str, **options: object) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        layout_recordings(root, LayoutOptions(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "gopro"}, "layout: 'gopro'; allowed: spk-gopro, spk-x4k, s-sdm, rsb, s-vrt, reference"),
        ({"layout": "rsb"}, "no folders of `layout` rsb; docs/datasets.md draws each layout's tree"),
        ({"blur": "33"}, "blur: '33'; allowed for spk-gopro: blur_gamma, blur"),
        ({"exposure_ticks": 57}, r"exposure_ticks: 57; allowed: 1 to 56, the ticks of .*000047\.dat"),
        ({"exposure_ticks": 0}, "exposure_ticks: 0; allowed: 1 or more"),
        ({"spike_width": 7}, "spike_width, spike_height: one is missing; allowed: both or none"),
        ({"spike_width": 7, "spike_height": 5}, "spikes of 7x5 stated; spk-gopro has 14x10"),
    ],
)
def test_an_option_that_cannot_be_obeyed_is_refused(tmp_path: Path, options: dict, message: str):
    refused(make_spk_gopro(tmp_path), message, **options)


def test_an_absent_kind_of_blur_is_refused(tmp_path: Path):
    make_spk_x4k(tmp_path)
    for folder in tmp_path.glob("*_blurry_65"):
        folder.rename(folder.with_name("away" + folder.name))
    refused(tmp_path, "no blurry frames of kind '65'", blur="65")


def test_a_layout_with_one_kind_of_blur_offers_none(tmp_path: Path):
    refused(make_s_sdm(tmp_path), "blur: 'blur'; it has one kind", blur="blur")


def test_two_layouts_in_one_folder_are_ambiguous(tmp_path: Path):
    make_spk_gopro(tmp_path)
    make_s_vrt(tmp_path)
    with pytest.raises(ValueError, match="several layouts fit; allowed: --layout spk-gopro or s-vrt"):
        find_layout(tmp_path)
    layout = find_layout(tmp_path, LayoutOptions(layout="s-vrt"))
    assert layout is not None and layout.name == "s-vrt"


def test_a_folder_of_no_layout_is_none_of_them(tmp_path: Path):
    picture(tmp_path / "000000.png")
    assert find_layout(tmp_path) is None and find_layout(tmp_path / "000000.png") is None
    assert find_layout(tmp_path / "nowhere") is None
    refused(tmp_path, "no dataset of a known layout; allowed: spk-gopro, spk-x4k")


def test_frames_that_are_no_multiple_of_the_sensor_are_refused(tmp_path: Path):
    make_rsb(tmp_path)
    for number in (0, 10):
        picture(tmp_path / "blur_data" / "car" / f"{number}.jpg", size=(800, 500))
    refused(tmp_path, "frames of 800x500 and spikes of 400x250; allowed: frames 4 times as wide and high")


def test_a_sensor_that_contradicts_the_config_is_refused(tmp_path: Path):
    refused(make_s_vrt(tmp_path, sensor=(400, 250)), "spikes of 400x250 stated; s-vrt has 14x10")


def test_a_config_without_a_size_is_refused(tmp_path: Path):
    (make_s_vrt(tmp_path) / "GOPRO_Large_spike_seq" / "config.yaml").write_text("spike_w: 14")
    refused(tmp_path, r"config.yaml: spike_h: 0 lines of it; allowed: one line with a whole number of pixels")


@pytest.mark.parametrize(
    "line",
    ["GOPR0374_11_09 2 0 150", "GOPR0374_11_01 3 0 150", "GOPR0374_11_01 2 0 151", "GOPR0374_11_01 2", "a b c d"],
)
def test_a_meta_info_line_that_contradicts_the_folders_is_refused(tmp_path: Path, line: str):
    make_s_vrt(tmp_path)
    (tmp_path / "GOPRO_Large" / "meta_info_GoPro_train_GT.txt").write_text(line)
    refused(tmp_path, f"meta_info_GoPro_train_GT.txt: '{line}'")


def test_damaged_voxels_do_not_tell_a_size(tmp_path: Path):
    make_reference(tmp_path)
    path = tmp_path / "train/a/spike_vox/000000.npy"
    head = b"\x93NUMPY\x01\x00\xff\x0f"
    tuple_type = b"{'descr': (), 'fortran_order': False, 'shape': (1, 2, 3), }".ljust(4095)
    signs = b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"-" * 4000 + b"1, 2, 3), }"
    for content in (b"", b"\x93NUMPY\x01\x00\x05\x00{'a':", head + tuple_type, head + signs.ljust(4095)):
        path.write_bytes(content)
        refused(tmp_path, r"000000\.npy: damaged array \(.+\)")
    np.save(path, np.zeros((10, 14)))
    refused(tmp_path, r"000000\.npy: voxels of shape \(10, 14\); allowed: \(bins, height, width\)")


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.png", "a frame is named 'x'; allowed: numbers"), ("47.png", "two frames have the same number")],
)
def test_names_that_are_no_numbers_or_not_unique_are_refused(tmp_path: Path, name: str, message: str):
    frames, _ = gopro_clip(tmp_path)
    picture(frames / "blur_gamma" / name)
    refused(tmp_path, message)


def test_one_frame_as_two_files_is_refused(tmp_path: Path):
    frames, _ = gopro_clip(tmp_path)
    picture(frames / "blur_gamma" / "000047.jpg")
    refused(tmp_path, r"000047\.png: 000047\.jpg is the same frame; allowed: one of the two")


# --- datasets and recordings alike ----------------------------------------------------------------------------------


def test_recordings_folders_of_them_and_datasets_open_alike(tmp_path: Path, recording_folder: Path):
    dataset = make_spk_gopro(tmp_path / "dataset")
    opened = open_recordings([recording_folder, dataset], split="val")
    assert [recording.name for recording in opened] == ["waves", "GOPR0854_13_00"]
    assert [len(open_recordings([dataset], split=split)) for split in (None, "train", "val")] == [3, 2, 1]


def test_options_of_layouts_are_refused_for_recordings(recording_folder: Path):
    with pytest.raises(ValueError, match="waves: a recording tells all by itself; allowed: options of layouts for"):
        open_recordings([recording_folder], LayoutOptions(exposure_ticks=5))


def test_a_missing_path_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such recording"):
        open_recordings([tmp_path / "nowhere"])
