"""The clock: rates of shifted windows are counts of the stream, and a known offset is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.clock import READ_TICKS, ExposureRates, fit_clock
from spikevrt.align.compare import linear_luminance
from spikevrt.align.registration import Cameras, resized
from spikevrt.recording.frames import read_image
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.stream import count_slices

ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"


@dataclass
class _Stream:
    """Unpacked ticks in memory, and a note of how many ticks each call asked for."""

    spikes: np.ndarray
    asked: list[int] = field(default_factory=list)

    @property
    def height(self) -> int:
        return int(self.spikes.shape[1])

    @property
    def width(self) -> int:
        return int(self.spikes.shape[2])

    @property
    def num_ticks(self) -> int:
        return len(self.spikes)

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def read(self, start_tick: int, stop_tick: int) -> np.ndarray:
        return self.spikes[start_tick:stop_tick]

    def count(self, edges: Sequence[int]) -> np.ndarray:
        self.asked.append(edges[-1] - edges[0])
        return count_slices(self.read(edges[0], edges[-1]), edges)


def _exposure(start: int, stop: int) -> Exposure:
    return Exposure(start, start, stop, start / 1000, stop / 1000)


SPIKES = np.random.default_rng(5).integers(0, 2, (300, 7, 11), dtype=np.uint8)


def test_a_window_shifted_by_whole_ticks_is_a_slice_of_the_stream() -> None:
    rates = ExposureRates(_Stream(SPIKES), [_exposure(40, 60), _exposure(80, 100)], 17)
    for offset in (-17, 0, 5, 17):
        expected = [SPIKES[start + offset : start + offset + 20].mean(axis=0) for start in (40, 80)]
        np.testing.assert_allclose(rates.at(offset), expected, rtol=0, atol=1e-6)


def test_half_a_tick_is_halfway_between_its_neighbours() -> None:
    rates = ExposureRates(_Stream(SPIKES), [_exposure(40, 60)], 17)
    np.testing.assert_allclose(rates.at(3.5), (rates.at(3) + rates.at(4)) / 2, rtol=0, atol=1e-6)


def test_a_long_exposure_keeps_few_knots_and_is_exact_at_them() -> None:
    stream = _Stream(SPIKES)
    rates = ExposureRates(stream, [_exposure(100, 228)], 40)  # a knot every 4 ticks
    for offset in (-40, -4, 0, 8, 40):
        expected = SPIKES[100 + offset : 228 + offset].mean(axis=0)
        np.testing.assert_allclose(rates.at(offset)[0], expected, rtol=0, atol=1e-6)


def test_the_stream_is_read_in_small_pieces_and_once() -> None:
    stream = _Stream(SPIKES)
    ExposureRates(stream, [_exposure(100, 228)], 40)
    assert max(stream.asked) <= READ_TICKS
    assert sum(stream.asked) == 128 + 2 * 40


def test_little_memory_means_knots_that_lie_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six knots of 7 x 11 counts of two bytes: one every 6 of 24 ticks."""
    monkeypatch.setattr("spikevrt.align.clock.MAX_BYTES", 6 * 7 * 11 * 2)
    stream = _Stream(SPIKES)
    rates = ExposureRates(stream, [_exposure(40, 60)], 2)
    np.testing.assert_array_equal(rates._knots[0], [38, 44, 50, 56, 62])
    np.testing.assert_allclose(rates.at(0)[0], SPIKES[40:60].mean(axis=0), rtol=0, atol=0.2)


def test_soft_ends_are_the_mean_over_all_offsets_within() -> None:
    rates = ExposureRates(_Stream(SPIKES), [_exposure(40, 60)], 17)
    fine = np.linspace(-3, 3, 6001)
    expected = np.mean([rates.at(2.25 + aside) for aside in fine], axis=0)
    np.testing.assert_allclose(rates.at(2.25, soft_ticks=3), expected, rtol=0, atol=1e-4)  # the mean's own grid


def test_the_change_is_the_derivative_of_the_softened_rate() -> None:
    rates = ExposureRates(_Stream(SPIKES), [_exposure(40, 60)], 17)
    step = 1 / 64
    later, sooner = (rates.at(2.25 + aside, soft_ticks=3).astype(np.float64) for aside in (step, -step))
    # float32 rates of about 0.5, divided by 1/32
    np.testing.assert_allclose(rates.change_at(2.25, soft_ticks=3), (later - sooner) / (2 * step), rtol=0, atol=2e-5)


def test_frames_at_the_ends_are_usable_only_where_their_windows_exist() -> None:
    rates = ExposureRates(_Stream(SPIKES), [_exposure(0, 20), _exposure(100, 120), _exposure(280, 300)], 30)
    assert rates.usable(0, 0) == [0, 1, 2]
    assert rates.usable(-1, 0) == [1, 2]
    assert rates.usable(0, 1) == [0, 1]
    assert rates.usable(-31, 0) == []
    np.testing.assert_allclose(rates.at(-5)[0], SPIKES[0:15].mean(axis=0), rtol=0, atol=1e-6)  # cut short


def test_bad_pixels_take_the_mean_of_their_neighbours() -> None:
    bad = np.zeros((7, 11), dtype=bool)
    bad[3, 4] = True
    spikes = SPIKES.copy()
    spikes[:, 3, 4] = 1
    rate = ExposureRates(_Stream(spikes), [_exposure(40, 60)], 0, bad=bad).at(0)[0]
    around = SPIKES[40:60, 2:5, 3:6].mean(axis=0)
    assert rate[3, 4] == pytest.approx((around.sum() - around[1, 1]) / 8, abs=1e-6)


def test_the_mean_count_is_per_pixel_and_exposure() -> None:
    ones = np.ones((50, 3, 5), dtype=np.uint8)
    assert ExposureRates(_Stream(ones), [_exposure(0, 20), _exposure(30, 50)], 0).mean_count == pytest.approx(20)


CAMERAS = Cameras(width=112, height=74, sensor_width=112, sensor_height=74)
TRUE_OFFSET, EXPOSURE, PERIOD, MARGIN, REACH = 7, 24, 30, 24, 9


def _pan(x_at_tick: np.ndarray) -> np.ndarray:
    """Luminance (T, 74, 112) of a photograph that moves to the left by x pixels."""
    from scipy.ndimage import shift

    picture = resized(linear_luminance(read_image(ASSETS / "coffee.jpg"))[None], 212, 320)[0]
    return np.stack([shift(picture, (0, -x), order=1, mode="nearest")[60:134, 100:212] for x in x_at_tick])


def _scene(x_at_tick: np.ndarray) -> tuple[np.ndarray, ExposureRates]:
    """Three blurry frames, and the rates of an ideal sensor whose clock is off by TRUE_OFFSET."""
    light = _pan(x_at_tick)
    phase = np.random.default_rng(1).random(light.shape[1:])
    spikes = np.diff(np.floor(np.cumsum(light, axis=0) + phase), axis=0, prepend=0).clip(0, 1).astype(np.uint8)
    starts = [MARGIN + index * PERIOD for index in range(3)]
    frames = np.stack([light[start : start + EXPOSURE].mean(axis=0) for start in starts])
    stated = [_exposure(start - TRUE_OFFSET, start - TRUE_OFFSET + EXPOSURE) for start in starts]
    return frames.astype(np.float32), ExposureRates(_Stream(spikes), stated, EXPOSURE + 6)


NUM_TICKS = 2 * MARGIN + 2 * PERIOD + EXPOSURE


def test_an_offset_is_found_to_a_quarter_tick_and_called_certain() -> None:
    ticks = np.arange(NUM_TICKS)
    frames, rates = _scene(12 * np.sin(ticks / 19))
    found = fit_clock(CAMERAS, frames, rates, exposure_ticks=EXPOSURE, max_offset_ticks=REACH)
    assert found is not None
    assert found.fit.offset_ticks == pytest.approx(TRUE_OFFSET, abs=0.25)
    assert found.offset_sigma_ticks < 0.5
    assert found.sharpness > 3
    assert CAMERAS.corner_gap_px(CAMERAS.homography(found.fit.p), CAMERAS.homography(np.zeros(8))) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("speed", [0.0, 0.25], ids=["still", "even"])
def test_without_motion_or_with_an_even_one_the_offset_is_not_called_certain(speed: float) -> None:
    """An even motion by one pixel more is a sensor that stands one pixel aside."""
    frames, rates = _scene(speed * (np.arange(NUM_TICKS) - 80))
    found = fit_clock(CAMERAS, frames, rates, exposure_ticks=EXPOSURE, max_offset_ticks=REACH)
    assert found is not None
    assert found.sharpness < 1.5


def test_an_even_motion_tells_the_offset_of_registered_cameras() -> None:
    frames, rates = _scene(0.25 * (np.arange(NUM_TICKS) - 80))
    found = fit_clock(CAMERAS, frames, rates, exposure_ticks=EXPOSURE, max_offset_ticks=REACH, space=False)
    assert found is not None
    assert found.fit.offset_ticks == pytest.approx(TRUE_OFFSET, abs=0.25)
    assert found.sharpness > 1.5
    np.testing.assert_array_equal(found.fit.p, np.zeros(8))


def test_one_frame_has_no_offset() -> None:
    frames, rates = _scene(12 * np.sin(np.arange(NUM_TICKS) / 19))
    single = ExposureRates(_Stream(SPIKES), [_exposure(40, 60)], 30)
    assert (
        fit_clock(Cameras(11, 7, 11, 7), np.zeros((1, 7, 11)), single, exposure_ticks=20, max_offset_ticks=20) is None
    )
