"""The exposure from the footage: right where it tells, silent where it does not, against what is stated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align import exposure
from spikevrt.align.exposure import ExposureEstimate, _length, _trend, estimate_exposure, with_exposure
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"
RIG = RigConfig(shift_x_px=3.4, shift_y_px=-1.2, rotate_deg=1.0, offset_ticks=13, margin_ticks=90)


def filmed(folder: Path, **options: object) -> Recording:
    """A recording whose shutter seems never to close, as loose files have it when nobody states the exposure."""
    settings = SimulateOptions(
        frames=6, exposure_ticks=64, period_ticks=160, width=160, height=96, motion_px=9.0,
        sensor=sensor_preset("bright"), rig=RIG,
    )  # fmt: skip
    made = simulate_recording(ASSETS / "bridge.jpg", folder / "made", dataclasses.replace(settings, **options))
    full = tuple(dataclasses.replace(one, stop_tick=one.start_tick + 160) for one in made.exposures[:-1])
    notes = {"exposure": "assumed", "stream": "some do not fit"}
    return dataclasses.replace(made.chosen(range(5)), exposures=full, notes=notes)


@pytest.mark.slow
def test_the_exposure_is_found_beside_a_rig_that_is_off_and_a_contradiction_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates: dict[tuple[Exposure, ...], ExposureEstimate | None] = {}

    def once(recording: Recording) -> ExposureEstimate | None:
        """The estimate, made once for the same exposures: what a recording's notes say is no part of it."""
        if recording.exposures not in estimates:
            estimates[recording.exposures] = estimate_exposure(recording)
        return estimates[recording.exposures]

    monkeypatch.setattr(exposure, "estimate_exposure", once)
    assumed = filmed(tmp_path)
    found = once(assumed)
    assert found is not None
    assert found.ticks == pytest.approx(64, abs=7) and abs(found.ticks - 64) < 3 * found.sigma_ticks
    settled = with_exposure(assumed)
    assert {one.num_ticks for one in settled.exposures} == {round(found.ticks)}
    assert [one.start_tick for one in settled.exposures] == [one.start_tick for one in assumed.exposures]
    assert settled.notes["exposure"].startswith(f"estimated from the footage: {found.ticks:.0f} +- ")
    assert settled.notes["stream"].endswith("ticks behind the last frame")  # now all fit
    stated = dataclasses.replace(assumed, notes={})
    with pytest.raises(ValueError, match=r"exposure: 160 ticks, but the footage of .* says \d+ \+- \d ticks"):
        with_exposure(stated)
    assert with_exposure(stated, unchecked=True) is stated
    right = dataclasses.replace(settled, notes={})
    assert with_exposure(right) is right
    assert len(estimates) == 2


@pytest.mark.slow
def test_a_still_scene_tells_no_exposure(tmp_path: Path) -> None:
    assumed = filmed(tmp_path, motion_px=0.0, num_layers=0)
    settled = with_exposure(assumed)
    assert settled.exposures == assumed.exposures
    assert settled.notes["exposure"].startswith("assumed; the footage does not tell (too little motion")
    stated = dataclasses.replace(assumed, notes={})
    compared = with_exposure(stated)
    assert compared.exposures == stated.exposures and list(compared.notes) == ["comparison"]
    assert compared.notes["comparison"].startswith("the exposure is taken as it is stated: the footage does not tell")


def test_the_length_is_where_the_difference_is_least() -> None:
    lengths = np.unique(np.geomspace(8, 200, 57).astype(int))
    shown, seen = np.ones(len(lengths)), np.ones(len(lengths))
    rng = np.random.default_rng(0)
    products = [
        np.stack([shown, np.sqrt(1 - 1e-9 * (lengths**2 - 90.0**2) ** 2 / 8 - 1e-3 * rng.random()), seen])
        for _ in range(4)
    ]
    told = _length(lengths, np.array(products))
    assert told is not None
    assert told[0] == pytest.approx(90, rel=0.01) and told[1] == pytest.approx(0.03 * told[0], rel=0.3)
    assert _length(lengths, np.ones((4, 3, len(lengths))) * [[[1.0], [0.9], [1.0]]]) is None  # nothing moves


def test_slow_shading_is_taken_out() -> None:
    known = np.ones((13, 17), dtype=bool)
    known[3, 4] = False
    trend = _trend(known)
    np.testing.assert_allclose(trend.T @ trend, np.eye(6), atol=1e-12)
