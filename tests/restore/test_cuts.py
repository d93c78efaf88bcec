"""Every hard cut at its frame; neither flashes, nor light that changes, nor fast pans are cuts; memory is bounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from spikevrt.recording.frames import read_image
from spikevrt.recording.video import iter_video
from spikevrt.restore import cuts
from spikevrt.restore.cuts import (
    MAX_FLASH_FRAMES,
    WINDOW_FRAMES,
    CutFinder,
    stream_cuts,
    structure_correlation,
)

pytest.importorskip("scenedetect")
ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"
HEIGHT, WIDTH = 120, 200
LOOK_AHEAD_FRAMES = WINDOW_FRAMES * (MAX_FLASH_FRAMES + 1)


def find_cuts(frames: Iterable[np.ndarray]) -> list[int]:
    """Numbers of the frames with which a new scene begins."""
    stream = stream_cuts(frames)
    assert stream is not None
    return [index for index, (_, is_cut) in enumerate(stream) if is_cut]


def panned(name: str, num_frames: int, step_px: int = 2, blur_px: int = 1) -> np.ndarray:
    """A photograph under a camera that moves to the right, `step_px` a frame, each frame the mean over `blur_px`."""
    photo = read_image(ASSETS / f"{name}.jpg")[20 : 20 + HEIGHT]
    photo = np.concatenate([photo, photo[:, ::-1]], axis=1)
    assert photo.shape[1] >= WIDTH + num_frames * step_px + blur_px
    means = [
        np.mean([photo[:, step_px * k + b : step_px * k + b + WIDTH] for b in range(blur_px)], axis=0)
        for k in range(num_frames)
    ]
    return np.stack(means).astype(np.uint8)


def lit(frames: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(frames * gain, 0, 255).astype(np.uint8)


def flashed(frames: np.ndarray, at: int, length: int, gain: float) -> np.ndarray:
    return np.concatenate([frames[:at], lit(frames[at : at + length], gain), frames[at + length :]])


def test_cuts_are_found_at_the_first_frame_of_each_new_scene():
    scenes = [panned("coffee", 11), panned("chelsea", 4), panned("astronaut", 7), panned("coffee", 5)]
    assert find_cuts(np.concatenate(scenes)) == [11, 15, 22]


@pytest.mark.parametrize("length", [1, 2])
def test_scenes_of_one_or_two_frames_at_either_end_are_found(length: int):
    short, long = panned("chelsea", length), panned("coffee", 9)
    assert find_cuts(np.concatenate([short, long])) == [length]
    assert find_cuts(np.concatenate([long, short])) == [9]


@pytest.mark.parametrize("steps_px", [(24, 12, 14, 13), (13, 14, 12, 25), (30, 30, 30, 30), (26, 13, 12, 11)])
def test_a_short_recording_of_fast_motion_has_no_cut(steps_px: tuple[int, ...]):
    """Before the first and after the last frame nothing moves, as the detector sees it."""
    photo = read_image(ASSETS / "coffee.jpg")[20 : 20 + HEIGHT]
    frames = [photo[:, place : place + WIDTH] for place in np.cumsum([0, *steps_px])]
    assert find_cuts(np.stack(frames)) == []


@pytest.mark.parametrize("gain", [0.05, 0.3, 1.8, 4.0, 30.0])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(gain: float, length: int):
    assert find_cuts(flashed(panned("coffee", 16), 6, length, gain)) == []


def test_a_flash_beside_a_cut_hides_it_not():
    scenes = np.concatenate([panned("coffee", 12), panned("chelsea", 12)])
    assert find_cuts(flashed(scenes, 9, 2, 30.0)) == [12]
    assert find_cuts(flashed(scenes, 13, 2, 30.0)) == [12]


def test_strobe_light_is_no_cut():
    frames = panned("coffee", 24)
    frames[5:20:2] = lit(frames[5:20:2], 8.0)
    assert find_cuts(frames) == []


@pytest.mark.parametrize("gain", [0.25, 0.6, 1.5, 2.5])
def test_light_that_changes_and_stays_is_no_cut(gain: float):
    frames = panned("chelsea", 20)
    assert find_cuts(np.concatenate([frames[:10], lit(frames[10:], gain)])) == []


@pytest.mark.parametrize("step_px", [6, 14])  # a fourteenth of the width in a frame
def test_a_fast_pan_that_starts_at_once_is_no_cut(step_px: int):
    moving = panned("astronaut", 16, step_px=step_px, blur_px=step_px // 2)
    assert find_cuts(np.concatenate([np.repeat(moving[:1], 8, axis=0), moving])) == []


def test_a_cut_into_a_fast_pan_is_found():
    assert find_cuts(np.concatenate([panned("coffee", 8, 14, 7), panned("astronaut", 8, 14, 7)])) == [8]


def test_of_a_real_video_no_frame_is_a_cut_but_that_where_another_scene_follows():
    video = np.stack(list(iter_video(ASSETS / "city.mp4", stop=24)))
    assert find_cuts(video) == []
    height, width = video.shape[1:3]
    photo = panned("coffee", 1)[0][np.arange(height)[:, None] % HEIGHT, np.arange(width) % WIDTH]
    assert find_cuts(np.concatenate([video[:12], np.repeat(photo[None], 6, axis=0)])) == [12]


def test_the_cut_of_footage_that_nobody_here_made_is_found(shared: Path):
    video = shared / "media" / "video" / "cityCC0.mpg"
    if not video.is_file():
        pytest.skip("no cityCC0.mpg")
    assert find_cuts(iter_video(video)) == [116]


def test_frames_come_out_once_in_order_and_as_they_went_in():
    frames = list(np.concatenate([panned("coffee", 7), panned("chelsea", 6)]))
    marked = list(stream_cuts(iter(frames)))
    assert all(one is other for (one, _), other in zip(marked, frames, strict=True))
    assert [is_cut for _, is_cut in marked] == [k == 7 for k in range(13)]


@pytest.mark.parametrize("num_frames", [0, 1, 2, 5])
def test_few_frames_are_one_scene(num_frames: int):
    assert [is_cut for _, is_cut in stream_cuts(panned("coffee", num_frames + 1)[:num_frames])] == [False] * num_frames


def test_never_more_than_the_look_ahead_is_read_or_kept():
    """In the worst flicker: three bright frames in four."""
    scene = panned("coffee", 60, step_px=0)
    for k in range(60):
        scene[k] = lit(scene[k], 30.0) if k % 4 else scene[k]
    num_read = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_read
        for frame in scene:
            num_read += 1
            yield frame

    ahead = [num_read - index - 1 for index, _ in enumerate(stream_cuts(counted()))]
    assert max(ahead) == LOOK_AHEAD_FRAMES
    finder = CutFinder()
    for frame in itertools.islice(itertools.cycle(scene), 300):
        finder.add(frame)
    assert len(finder._ahead) + len(finder._shown) <= LOOK_AHEAD_FRAMES + WINDOW_FRAMES
    assert len(finder._detector._buffer) <= LOOK_AHEAD_FRAMES


def test_frames_of_another_kind_are_refused():
    good = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^frames: frame 0 is float64 \(4, 6, 3\); allowed: uint8 \(H, W, 3\)$"):
        find_cuts([np.zeros((4, 6, 3))])
    with pytest.raises(ValueError, match=r"^frames: frame 0 is uint8 \(4, 6\); allowed: uint8 \(H, W, 3\)$"):
        find_cuts([good[..., 0]])
    with pytest.raises(ValueError, match=r"^frames: frame 1 is uint8 \(5, 6, 3\); allowed: uint8 \(4, 6, 3\), as the"):
        find_cuts([good, np.zeros((5, 6, 3), np.uint8)])


def test_without_the_detector_cuts_are_not_looked_for_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cuts.importlib.util, "find_spec", lambda name: None)
    cuts.can_find_cuts.cache_clear()
    try:
        assert stream_cuts([]) is None and stream_cuts([]) is None
        assert capsys.readouterr().err == "spikevrt: scene cuts are not looked for: pip install scenedetect-headless\n"
    finally:
        cuts.can_find_cuts.cache_clear()


def test_structure_is_what_no_light_changes():
    one, other = panned("coffee", 1)[0], panned("chelsea", 1)[0]
    assert structure_correlation(one, one) == pytest.approx(1.0)
    assert structure_correlation(one, lit(one, 0.5)) > 0.95
    assert abs(structure_correlation(one, other)) < cuts.SAME_STRUCTURE
    assert structure_correlation(one, np.full_like(one, 9)) == 0.0
