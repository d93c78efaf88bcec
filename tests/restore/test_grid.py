"""Any frame on any sensor: what a sensor pixel sees comes out where the cameras say, through every door."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.evaluate.methods import interval_ratio_method, spike_ratio_method
from spikevrt.recording.alignment import Alignment, apply_homography, same_field, sensor_positions
from spikevrt.recording.frames import to_float, write_image
from spikevrt.recording.recording import Recording, open_recording, with_alignment
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar
from spikevrt.represent.inputs import spike_ratio
from spikevrt.restore.clip import restore_clip
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.sensor import RigView
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import _film, _open_scene, simulate_recording
from tests.restore.conftest import SPIKES, FakeNetwork, info, restore_frames

ASSETS = Path(__file__).parents[2] / "src" / "spikevrt" / "assets"
NUM_TICKS = 72  # of which a steady pixel fires in every third: a third of the short window around the middle, too
NEAR_PX = 0.1  # of the frame; a cubic convolution moves what it resamples by up to 0.05


def drawn_sizes(seed: int) -> tuple[int, int, int, int]:
    """Width and height of a frame, then of a sensor; their ratio is not whole, and not the same each way."""
    generator = np.random.default_rng(seed)
    sensor = generator.integers(23, 48, 2)
    ratio = generator.uniform(1, 5)
    frame = np.rint(sensor * ratio * generator.uniform(0.97, 1.03, 2)).astype(int)
    return int(frame[0]), int(frame[1]), int(sensor[0]), int(sensor[1])


def turned(sizes: tuple[int, int, int, int], degrees: float, scale: float) -> np.ndarray:
    """The same field, turned about the frame's centre, scaled and moved."""
    width, height, *_ = sizes
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    to_centre = np.array([[1, 0, width / 2 + 2.3], [0, 1, height / 2 - 1.6], [0, 0, 1]])
    from_centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    return same_field(*sizes) @ to_centre @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ from_centre


def one_bright_pixel(root: Path, sizes: tuple[int, int, int, int], row: int, column: int) -> Recording:
    """Grey frames, a sensor that fires steadily, but for one pixel, which fires around the exposures' middles alone."""
    width, height, sensor_width, sensor_height = sizes
    (root / "blur").mkdir(parents=True)
    spikes = np.zeros((NUM_TICKS, sensor_height, sensor_width), dtype=np.uint8)
    spikes[::3] = 1
    spikes[:, row, column] = 0
    spikes[30:42, row, column] = 1
    with SpikeWriter(root / "spikes.dat", SpikeGeometry(sensor_width, sensor_height)) as writer:
        for index in range(2):
            write_image(root / "blur" / f"{index:06d}.png", np.full((height, width, 3), 60, np.uint8))
            writer.append(spikes)
    exposures = [Exposure(i, i * 72, i * 72 + 72, i * 0.0072, i * 0.0072 + 0.0072) for i in range(2)]
    write_sidecar(
        root, spikes=writer, tick_rate_hz=1e4, width=width, height=height, fps=25.0, exposures=exposures, provenance={}
    )
    return open_recording(root)


def centre_of(frame: Tensor) -> np.ndarray:
    """(x, y) of what sticks out of an even frame."""
    change = (frame - frame.flatten().median()).double().sum(0)
    rows, columns = (torch.arange(size, dtype=torch.float64) + 0.5 for size in change.shape)
    return np.array([float((change.sum(0) * columns).sum()), float((change.sum(1) * rows).sum())]) / float(change.sum())


def place_under(
    alignment: Alignment, sizes: tuple[int, int, int, int], wanted: np.ndarray, near: np.ndarray
) -> np.ndarray:
    """Where on the frame the alignment puts a place of the sensor: of all frame pixels the one that sees it, and on."""
    names = ("width", "height", "sensor_width", "sensor_height")
    seen = sensor_positions(alignment, **dict(zip(names, sizes, strict=True)), ratio=1).astype(np.float64)
    for _ in range(20):  # Newton, by differences between neighbouring pixels
        i, j = (int(np.clip(round(near[k] - 0.5), 0, sizes[k] - 2)) for k in (1, 0))
        slope = np.stack([seen[i, j + 1] - seen[i, j], seen[i + 1, j] - seen[i, j]], axis=1)
        near = np.array([j + 0.5, i + 0.5]) + np.linalg.solve(slope, wanted - seen[i, j])
    return near


def seen_by_network(tile_px: int, recording: Recording) -> Tensor:
    """What comes out of a network that adds the voxels of one bin to its frames."""

    def answer(blur: Tensor, voxels: Tensor | None) -> Tensor:
        assert voxels is not None
        middle = voxels[0, :, 1:2]
        grown = F.interpolate(middle - middle.median(), blur.shape[-2:], mode="bilinear", align_corners=False)
        return blur + 0.1 * grown[None]

    options = RestoreOptions(tile_px=tile_px, overlap_px=16 if tile_px else 0)
    ((_, first), _) = restore_frames(FakeNetwork(SPIKES, answer), info(SPIKES), recording, options)
    return first


@pytest.mark.parametrize("seed", range(8))
def test_a_sensor_pixel_comes_out_where_the_cameras_say_to_a_tenth_of_a_pixel_through_every_door(
    tmp_path: Path, seed: int
):
    sizes = drawn_sizes(seed)
    generator = np.random.default_rng(100 + seed)
    row, column = (int(generator.integers(7, side - 7)) for side in (sizes[3], sizes[2]))
    recording = one_bright_pixel(tmp_path / "a", sizes, row, column)
    matrix = same_field(*sizes) if seed % 2 else turned(sizes, generator.uniform(-3, 3), generator.uniform(0.9, 1.1))
    expected = apply_homography(np.linalg.inv(matrix), np.array([column + 0.5, row + 0.5]))
    if not seed % 2:
        rows = tuple(tuple(float(value) for value in one) for one in matrix)
        flow = tmp_path / "flow.npy"  # a displacement on the sensor that changes from place to place, of up to 2 pixels
        x, y = np.meshgrid(*(np.linspace(0, 1, side) for side in sizes[2:]))
        np.save(flow, np.stack([2 * x * y, -1.5 * y]).astype(np.float32))
        recording = with_alignment(recording, Alignment(homography=rows, flow=flow))  # type: ignore[arg-type]
        expected = place_under(recording.alignment, sizes, np.array([column + 0.5, row + 0.5]), expected)
    found = {
        "network": seen_by_network(0, recording),
        "network, tiles": seen_by_network(96, recording),
        "spike_ratio": next(iter(spike_ratio_method().ready().restore(recording))),
        "interval_ratio": next(iter(interval_ratio_method().ready().restore(recording))),
    }
    for door, frame in found.items():
        assert frame.shape == (3, sizes[1], sizes[0])
        np.testing.assert_allclose(centre_of(frame), expected, rtol=0, atol=NEAR_PX, err_msg=f"{door}, {sizes}")


@pytest.mark.parametrize(("width", "ratio"), [(641, 4), (101, 3), (67, 5), (66, 2)])
def test_rates_that_reach_beyond_a_frame_are_not_stretched(width: int, ratio: int):
    num_cells = -(-width // ratio)
    ramp = (torch.arange(num_cells) + 0.5) / (2 * num_cells) + 0.2
    frame = torch.full((3, ratio, width), 0.5)
    lit = spike_ratio(frame, ramp[None], torch.ones(1, num_cells), dark=0.0)
    grey = spike_ratio(frame, torch.ones(1, num_cells), torch.ones(1, num_cells), dark=0.0)
    linear = ((lit + 0.055) / 1.055) ** 2.4 / ((grey + 0.055) / 1.055) ** 2.4
    place = (torch.arange(width) + 0.5) / ratio / (2 * num_cells) + 0.2
    inside = slice(ratio, width - ratio)
    torch.testing.assert_close(linear[0, 0, inside], place[inside], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("height", "width", "ratio"), [(23, 41, 2), (31, 50, 3), (24, 40, 2)])
def test_a_frame_that_ends_within_a_voxel_keeps_its_place_in_the_padding_too(height: int, width: int, ratio: int):
    rows, columns = (-(-side // ratio) for side in (height, width))
    voxels = torch.arange(rows * columns, dtype=torch.float32).view(1, 1, rows, columns).expand(1, 3, -1, -1)
    frames = voxels.repeat_interleave(ratio, -1).repeat_interleave(ratio, -2)[..., :height, :width] / 1000
    network = FakeNetwork(SPIKES, lambda blur, voxels: blur)
    restore_clip(network, frames, voxels, RestoreOptions(tile_px=0, overlap_px=0))
    ((blur, seen),) = network.calls
    assert seen is not None
    assert torch.equal(blur[0], seen[0].repeat_interleave(ratio, -1).repeat_interleave(ratio, -2) / 1000)


def test_frames_on_the_sensor_already_are_read_as_they_are(tmp_path: Path):
    recording = one_bright_pixel(tmp_path / "a", (93, 87, 31, 29), 9, 9)
    assert recording.on_sensor is recording and recording.view is None


def test_what_the_sensor_does_not_see_stays_as_it_was_and_so_does_what_no_network_changed(tmp_path: Path):
    recording = one_bright_pixel(tmp_path / "a", (93, 87, 31, 29), 9, 9)
    matrix = same_field(93, 87, 31, 29) @ np.array([[1, 0, 20.5], [0, 1, 0], [0, 0, 1]])  # 20.5 px aside
    rows = tuple(tuple(float(value) for value in one) for one in matrix)
    recording = with_alignment(recording, Alignment(homography=rows))  # type: ignore[arg-type]
    options = RestoreOptions(tile_px=0, overlap_px=0)
    for change in (0.0, 0.25):
        network = FakeNetwork(SPIKES, lambda blur, voxels, change=change: blur + change)
        ((_, frame), _) = restore_frames(network, info(SPIKES), recording, options)
        expected = to_float(recording.read_blur(0))
        expected[:, :, :73] += change  # 93 - 20.5: of the last that is seen at all, the centre is
        torch.testing.assert_close(frame, expected, rtol=0, atol=2e-7 if change else 0)


def perfect_rig(out: Path, options: SimulateOptions) -> Recording:
    """The very same scene: how far it reaches beyond the frame decides what of the photograph is filmed."""
    sizes = {"width": options.width, "height": options.height, "ratio": options.sensor.ratio}
    scene, origin = _open_scene(ASSETS / "coffee.jpg", options, (), pad_px=RigView(options.rig, **sizes).pad_px)
    _film((scene, scene), RigView(RigConfig(), **sizes), out, options, origin, None)
    return open_recording(out)


@pytest.mark.parametrize(
    "rig",
    [RigConfig(shift_x_px=5, shift_y_px=-3), pytest.param(RigConfig(rotate_deg=1.5), marks=pytest.mark.slow)],
    ids=["half a sensor pixel", "turned"],
)
def test_between_sensor_pixels_less_than_half_a_decibel_is_lost(tmp_path: Path, rig: RigConfig):
    restorer, scores = Restorer("spikefold_tiny", RestoreOptions(device="cpu")), []
    options = SimulateOptions(frames=1, width=160, height=112, motion_px=20, sensor=sensor_preset("bright"), rig=rig)
    recording = simulate_recording(ASSETS / "coffee.jpg", tmp_path / "rig", options)
    matrix = recording.provenance["rig"]["homography"]
    aligned = with_alignment(recording, Alignment(homography=tuple(map(tuple, matrix))))  # type: ignore[arg-type]
    for recording in (perfect_rig(tmp_path / "perfect", options), aligned):
        inner = (..., slice(12, -12), slice(12, -12))  # what both sensors see
        errors = [
            float((frame.clamp(0, 1) - to_float(recording.read_sharp(i)))[inner].square().mean())
            for i, frame in enumerate(restorer.frames(recording))
        ]
        scores.append(np.mean([-10 * math.log10(error) for error in errors]))
    assert -0.2 < scores[0] - scores[1] < 0.5, scores
