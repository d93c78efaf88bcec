"""Recordings: what is written opens again, and every contradiction is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevrt.formats.convert import write_stream
from spikevrt.light import linear_to_srgb
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import to_float, write_pixels
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.recording import find_recordings, open_recording, with_alignment
from spikevrt.recording.sidecar import Exposure, Stated, StreamFormat
from spikevrt.recording.spike_file import SpikeWriter
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.stored import write_sidecar
from spikevrt.restore.options import VideoFormat
from tests.recording.conftest import (
    EXPOSURE_TICKS,
    GEOMETRY,
    NUM_FRAMES,
    NUM_TICKS,
    PERIOD_TICKS,
    SPIKES,
    frame_of,
    make_recording,
)


def _edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads((root / "recording.json").read_text())
    change(values)
    (root / "recording.json").write_text(json.dumps(values))


def test_what_was_written_is_what_opens(root: Path) -> None:
    recording = open_recording(root)
    assert (recording.name, recording.num_frames, recording.num_ticks) == ("street", 3, NUM_TICKS)
    assert (recording.width, recording.height, recording.tick_rate_hz) == (14, 10, 1000.0)
    assert recording.spikes.geometry == GEOMETRY
    assert recording.provenance == {"seed": 3}
    assert recording.exposures[1] == Exposure(1, 13, 24, 0.013, 0.024)
    for index in range(NUM_FRAMES):
        np.testing.assert_array_equal(recording.read_blur(index), frame_of(index))
        np.testing.assert_array_equal(recording.read_sharp(index), frame_of(index) + 100)
        start = index * PERIOD_TICKS
        np.testing.assert_array_equal(recording.read_exposure_spikes(index), SPIKES[start : start + EXPOSURE_TICKS])


def test_sharp_frames_are_optional_but_not_invented(tmp_path: Path) -> None:
    recording = open_recording(make_recording(tmp_path / "a", sharp=False))
    assert recording.sharp == ()
    with pytest.raises(ValueError, match="no sharp frames in this recording"):
        recording.read_sharp(0)


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="stret: no such recording"):
        open_recording(tmp_path / "stret")


def test_a_folder_without_a_sidecar_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no recording \(it has no recording.json\)"):
        open_recording(tmp_path)


def test_a_sidecar_that_is_not_json_is_refused(root: Path) -> None:
    (root / "recording.json").write_text("{")
    with pytest.raises(ValueError, match=r"recording\.json: not JSON"):
        open_recording(root)


def _set(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("version", value=2), "format 'spikevrt-recording' version 2; allowed: 'spikevrt-recording' version 1$"),
        (_set("spikes", "rows", value="sideways"), "spikes.rows: 'sideways'; allowed: bottom-up, top-down"),
        (_set("spikes", "bit_order", value="msb"), "spikes.bit_order: 'msb'; allowed: lsb-first"),
        (_set("spikes", "width", value="7"), "spikes.width: '7'; allowed: int"),
        (_set("spikes", "width", value=17), "no whole number of ticks of 17x5"),
        (_set("spikes", "num_ticks", value=36), "37 ticks, but recording.json says 36"),
        (_set("spikes", "tick_rate_hz", value=0), "spikes.tick_rate_hz: 0.0; allowed: above 0"),
        (_set("frames", value={}), "frames.width is missing"),
        (_set("frames", "count", value=4), "4 frames, but 3 exposures"),
        (_set("frames", "width", value=15), "000000.png: 14x10 pixels; the recording has 15x10"),
        (_set("exposures", value=[]), "no exposures"),
        (_set("exposures", 2, "stop_tick", value=26), r"exposures\[2\]: ticks \[26, 26\); allowed: at least one tick"),
        (_set("exposures", 1, "start_tick", value=10), r"exposures\[1\]: .* begin before the exposure before it ends"),
        (_set("exposures", 1, "frame_idx", value=0), r"exposures\[1\]: frame_idx 0 is not in rising order"),
        (_set("exposures", 1, "t1_s", value=0.0), r"exposures\[1\]: t0_s 0.013 is not before t1_s 0.0"),
        (_set("exposures", 1, value={}), r"exposures\[1\].frame_idx is missing"),
    ],
)
def test_a_contradiction_is_refused(root: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    _edit(root, change)
    with pytest.raises(ValueError, match=message):
        open_recording(root)


def test_a_frame_outside_the_stream_is_left_out_and_named_or_kept_when_asked(root: Path) -> None:
    _edit(root, _set("exposures", 2, "stop_tick", value=38))
    recording = open_recording(root)
    assert [one.frame_idx for one in recording.exposures] == [0, 1]
    assert recording.dropped == ((2, "its ticks are [26, 38); allowed: inside [0, 37)"),)
    assert open_recording(root, keep_outside=True).num_frames == 3


def test_a_recording_written_by_hand_needs_neither_provenance_nor_checksum(root: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        del values["provenance"], values["spikes"]["sha256"]

    _edit(root, change)
    recording = open_recording(root)
    assert (recording.provenance, recording.stored_sha256) == ({}, None)


def test_a_lost_frame_is_refused(root: Path) -> None:
    (root / "blur" / "000001.png").unlink()
    with pytest.raises(ValueError, match="blur: 2 images for 3 exposures"):
        open_recording(root)


def test_a_lost_spike_file_is_refused(root: Path) -> None:
    (root / "spikes.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"spikes\.dat: no such spike file"):
        open_recording(root)


def test_a_sidecar_that_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with SpikeWriter(tmp_path / "spikes.dat", GEOMETRY) as writer:
        writer.append(np.zeros((5, 5, 7), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"exposures\[0\]"):
        write_sidecar(
            tmp_path / "out",
            spikes=writer,
            tick_rate_hz=1000.0,
            width=14,
            height=10,
            fps=25.0,
            exposures=[Exposure(0, 0, 6, 0.0, 0.006)],
            provenance={},
        )
    assert list((tmp_path / "out").iterdir()) == []


# --- folders of recordings -------------------------------------------------------------------------------------------


def test_a_folder_of_recordings_stands_for_those_in_it_by_name(tmp_path: Path) -> None:
    b, a, alone = (make_recording(tmp_path / name) for name in ("many/b", "many/a", "alone"))
    assert find_recordings([tmp_path / "many", alone]) == [a, b, alone]
    assert find_recordings([b, str(a)]) == [b, a]


def test_a_recording_in_the_making_is_not_found(tmp_path: Path) -> None:
    a = make_recording(tmp_path / "many" / "a")
    make_recording(tmp_path / "many" / ".b.partial-17")
    assert find_recordings([tmp_path / "many"]) == [a]


def test_a_path_that_neither_is_nor_holds_a_recording_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="stret: no such recording$"):
        find_recordings([tmp_path / "stret"])
    for path in (root / "blur", root / "spikes.dat"):
        with pytest.raises(ValueError, match=rf"{path.name}: neither a recording nor a folder of recordings \(no "):
            find_recordings([path])


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("a.npz", StreamFormat("npz", axes="HWT")),
        ("b.npz", StreamFormat("packed-time")),
        ("c.raw", StreamFormat("bytes", rows="bottom-up")),
        ("d.dat", StreamFormat("packed", tag_bits=3, rows="top-down")),
    ],
    ids=["npz", "packed along time", "bytes", "tag bits"],
)
def test_a_recording_may_hold_its_stream_in_any_format(root: Path, name: str, stated: StreamFormat) -> None:
    written = write_stream(root / name, open_stream(root / "spikes.dat"), stated)
    (root / f"{name}.json").unlink()
    _edit(root, lambda values: values["spikes"].update(written.format.values(), file=name, sha256=written.sha256))
    recording = open_recording(root)
    assert recording.spikes is not None and recording.spikes.files == (root / name,)
    np.testing.assert_array_equal(recording.read_exposure_spikes(1), SPIKES[13:24])
    _edit(root, lambda values: values["spikes"].update(num_ticks=36))
    with pytest.raises(ValueError, match=rf"{name}: 37 ticks, but recording\.json says 36"):
        open_recording(root)


def test_full_depth_of_8_bits_is_bit_for_bit_the_path_of_8_bits(root: Path, tmp_path: Path) -> None:
    recording = open_recording(root)
    images = [frame_of(index) for index in range(2)]
    write_segment(
        tmp_path / "a.mp4",
        enumerate(images),
        time_base=Fraction(1, 25),
        fps=25,
        format=VideoFormat(),
        tags=VideoTags(),
    )
    for footage in (recording, loose_recording(tmp_path / "a.mp4", None)):
        for index in range(footage.num_frames):
            assert torch.equal(footage.read_blur_deep(index), to_float(footage.read_blur(index)))


def _one_frame(folder: Path, name: str, image: np.ndarray) -> Path:
    folder.mkdir()
    write_pixels(folder / name, image)
    return folder


SIXTEEN = np.random.default_rng(3).integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def test_16_bits_of_display_values_are_read_at_full_depth(tmp_path: Path) -> None:
    recording = loose_recording(_one_frame(tmp_path / "a", "0.png", SIXTEEN), None)
    assert not recording.linear
    assert torch.equal(recording.read_blur_deep(0), to_float(SIXTEEN))
    np.testing.assert_array_equal(recording.read_blur(0), SIXTEEN >> 8)


@pytest.mark.parametrize("name", ["0.png", "0.tif"])
def test_linear_light_of_16_bits_becomes_display_values(tmp_path: Path, name: str) -> None:
    recording = loose_recording(_one_frame(tmp_path / "a", name, SIXTEEN), None, Stated(linear=True))
    expected = linear_to_srgb(to_float(SIXTEEN))
    torch.testing.assert_close(recording.read_blur_deep(0), expected, rtol=0, atol=1e-6)
    shown = recording.read_blur(0).astype(float) / 255
    np.testing.assert_allclose(shown, expected.permute(1, 2, 0).numpy(), atol=0.5 / 255 + 1e-6)


def test_linear_says_nothing_of_images_of_8_bits(tmp_path: Path) -> None:
    eight = (SIXTEEN >> 8).astype(np.uint8)
    recording = loose_recording(_one_frame(tmp_path / "a", "0.png", eight), None, Stated(linear=True))
    assert torch.equal(recording.read_blur_deep(0), to_float(eight))
    np.testing.assert_array_equal(recording.read_blur(0), eight)


def test_exr_is_linear_light_and_clipped_at_white(tmp_path: Path) -> None:
    light = np.array([[[0.0, 0.5, 1.0], [4.0, -0.25, 0.0031308]]], dtype=np.float32)
    recording = loose_recording(_one_frame(tmp_path / "a", "0.exr", light), None)
    found = recording.read_blur_deep(0).permute(1, 2, 0).numpy()
    expected = [[[0.0, 0.7353569, 1.0], [1.0, 0.0, 0.0404499]]]  # 1.055 * 0.5 ** (1 / 2.4) - 0.055; 12.92 * 0.0031308
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(recording.read_blur(0), np.round(np.array(expected) * 255).astype(np.uint8))


def test_exr_in_a_recording_folder_is_linear_light_too(root: Path) -> None:
    light = np.full((10, 14, 3), 0.5, dtype=np.float32)
    for path in (root / "blur").glob("*.png"):
        path.unlink()
        write_pixels(path.with_suffix(".exr"), light)
    recording = open_recording(root)
    assert (recording.read_blur(1) == 188).all()  # 255 * 0.7353569
    torch.testing.assert_close(recording.read_blur_deep(1), torch.full((3, 10, 14), 0.7353569), rtol=0, atol=1e-6)


def test_exr_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    light = np.full((2, 2, 3), np.inf, dtype=np.float32)
    recording = loose_recording(_one_frame(tmp_path / "a", "0.exr", light), None)
    with pytest.raises(ValueError, match=r"0\.exr: values that are NaN or infinite"):
        recording.read_blur_deep(0)


def test_a_video_of_10_bits_is_read_at_full_depth(tmp_path: Path) -> None:
    ten = np.random.default_rng(4).integers(0, 1024, (6, 8, 3)).astype(np.uint16)
    deep = ((ten.astype(np.uint32) * 65535 + 511) // 1023).astype(np.uint16)
    format = VideoFormat("ffv1", bits=10)
    write_segment(
        tmp_path / "a.mkv", [(0, deep), (1, deep)], time_base=Fraction(1, 25), fps=25, format=format, tags=VideoTags()
    )
    recording = loose_recording(tmp_path / "a.mkv", None)
    torch.testing.assert_close(recording.read_blur_deep(1) * 1023, to_float(deep) * 1023, rtol=0, atol=0.01)
    assert recording.read_blur(1).dtype == np.uint8


def test_what_lies_inside_the_stream_keeps_its_pictures(recording_folder: Path):
    plain = open_recording(recording_folder)
    assert plain.inside_stream() is plain
    inside = with_alignment(plain, Alignment(offset_ticks=-3.0), keep_outside=True).inside_stream()
    assert [exposure.frame_idx for exposure in inside.exposures] == [1, 2]
    np.testing.assert_array_equal(inside.read_blur(0), plain.read_blur(1))
    np.testing.assert_array_equal(inside.read_sharp(1), plain.read_sharp(2))
    far = with_alignment(plain, Alignment(offset_ticks=500.0), keep_outside=True)
    with pytest.raises(
        ValueError, match=r"waves: no frame is left: its ticks are \[500, 519\) with an offset of 500; "
    ):
        far.inside_stream()
