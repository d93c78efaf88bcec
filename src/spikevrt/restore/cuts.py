"""Where one scene of a video ends and the next begins, so that no clip holds frames of both. Flashes are no cuts.

PySceneDetect's `AdaptiveDetector` proposes: a frame that differs from the one before it far more than the frames around
it do from theirs, so that fast motion, which makes all of them differ, is none. Two things are added. A flash (a few
frames between two that are much like each other) is not shown to the detector at all, or its two ends would be cuts.
And a frame whose structure is that of the frame before it is no cut, whatever happened to the light.
Fades and dissolves are not looked for: their frames belong to both sides.

Dimension key: H W rows and columns of a frame, h w those of its small copy.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

SMALL_PX = 192  # the longer side of the copies that are compared
STRUCTURE_PX = 64  # the longer side of those that tell the structure: motion moves little there
MAX_FLASH_FRAMES = 3
FLASH_LEVELS = 6.0  # of 255, on average: a frame that differs less from the one before it is no flash
FLASH_SHARE = 0.5  # of a flash's difference, and less, is left between the frames on its two sides
WINDOW_FRAMES = 2  # either side of a frame, whose changes are compared with its own
CUT_RATIO = 2.5  # a cut's change over the mean of theirs; a camera that starts to move at once has 2
CUT_LEVELS = 12.0  # of a cut's change, the mean over hue, saturation and value; hard cuts measured 41 and more
SAME_STRUCTURE = 0.3  # correlation; across hard cuts measured up to 0.17, inside scenes 0.4 and more


@functools.cache
def can_find_cuts() -> bool:
    """Whether PySceneDetect and OpenCV are installed; if not, it is told on stderr, with the remedy, once."""
    found = importlib.util.find_spec("scenedetect") is not None and importlib.util.find_spec("cv2") is not None
    if not found:
        print("spikevrt: scene cuts are not looked for: pip install scenedetect-headless", file=sys.stderr)
    return found


def stream_cuts(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], bool]] | None:
    """Every frame (RGB, of one size), once and in order, with whether a new scene begins with it; None where that
    cannot be told (`can_find_cuts`).

    At most WINDOW_FRAMES * (MAX_FLASH_FRAMES + 1) frames are read beyond the one that comes out (in the worst flicker;
    5 without flashes), however many pass; the arrays that come out are those that went in. The first frame is never a
    cut. A flash has up to MAX_FLASH_FRAMES frames.

    Raises:
        ValueError: a frame is not uint8 (H, W, 3) of the first one's size.
    """
    return _stream(frames) if can_find_cuts() else None


def _stream(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    finder = CutFinder()
    held: deque[np.ndarray] = deque()
    first = 0  # the number of held[0]
    cuts: set[int] = set()
    for frame in frames:
        cuts.update(finder.add(frame))
        held.append(frame)
        while first < finder.num_decided:
            yield held.popleft(), first in cuts
            cuts.discard(first)
            first += 1
    cuts.update(finder.finish())
    while held:
        yield held.popleft(), first in cuts
        first += 1


class CutFinder:
    """Takes the frames of a video one by one and tells the cuts a little later.

    All cuts among frames [0, `num_decided`) have been told; `num_decided` follows the last frame by at most
    WINDOW_FRAMES * (MAX_FLASH_FRAMES + 1). What is kept are small copies of so many frames.
    """

    def __init__(self) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self.num_decided = 0
        self._detector = AdaptiveDetector(
            adaptive_threshold=CUT_RATIO, min_scene_len=1, window_width=WINDOW_FRAMES, min_content_val=CUT_LEVELS
        )
        self._num_frames = 0
        self._shape: tuple[int, ...] = ()
        self._ahead: deque[tuple[int, np.ndarray]] = deque()  # (number, small copy) not yet shown to the detector
        self._shown: deque[tuple[int, np.ndarray]] = deque(maxlen=2 * WINDOW_FRAMES + 2)  # shown, the latest last
        self._num_shown = 0

    def add(self, frame: UInt8[np.ndarray, "H W 3"]) -> list[int]:
        """The next frame, RGB; numbers of the cuts that are certain now.

        Raises:
            ValueError: it is not uint8 (H, W, 3) of the first one's size.
        """
        self._shape = self._shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != self._shape:
            allowed = f"uint8 {self._shape}, as the first" if self._num_frames else "uint8 (H, W, 3)"
            raise ValueError(f"frames: frame {self._num_frames} is {frame.dtype} {frame.shape}; allowed: {allowed}")
        self._ahead.append((self._num_frames, small_copy(frame, SMALL_PX)))
        self._num_frames += 1
        return self._advance() if len(self._ahead) > MAX_FLASH_FRAMES else []

    def finish(self) -> list[int]:
        """After the last frame: the cuts that are left."""
        cuts = []
        while self._ahead:
            cuts += self._advance()
        if self._shown:
            for _ in range(WINDOW_FRAMES):
                cuts += self._show(*self._shown[-1])
        self.num_decided = self._num_frames
        return cuts

    def _advance(self) -> list[int]:
        """Show the detector the next frame that is no flash."""
        if not self._shown:  # it needs frames before the one that it judges
            for _ in range(WINDOW_FRAMES):
                self._show(*self._ahead[0])
        for _ in range(self._flash_length()):
            self._ahead.popleft()
        return self._show(*self._ahead.popleft())

    def _flash_length(self) -> int:
        """How many of the frames ahead are a flash: what follows them is much like what was before them."""
        before = self._shown[-1][1]
        change = difference(before, self._ahead[0][1])
        if change < FLASH_LEVELS:
            return 0
        for length in range(1, len(self._ahead)):
            if difference(before, self._ahead[length][1]) < FLASH_SHARE * change:
                return length
        return 0

    def _show(self, number: int, small: np.ndarray) -> list[int]:
        from scenedetect.common import FrameTimecode

        time = FrameTimecode(self._num_shown, fps=25.0)  # which of the shown frames; the rate means nothing
        self._shown.append((number, small))
        self._num_shown += 1
        found = self._detector.process_frame(time, np.ascontiguousarray(small[..., ::-1]))
        if len(self._shown) <= WINDOW_FRAMES + 1:
            return []
        (_, before), (judged, small), (undecided, _) = (self._shown[k - WINDOW_FRAMES] for k in (-2, -1, 0))
        self.num_decided = undecided
        assert all(cut.frame_num == self._num_shown - 1 - WINDOW_FRAMES for cut in found), found
        if not found or self._moves_as_much(judged) or structure_correlation(before, small) >= SAME_STRUCTURE:
            return []
        return [judged]

    def _moves_as_much(self, judged: int) -> bool:
        """Near the first and the last frame: whether the frame's change is of the size of those around it.

        The detector is shown these frames several times, and takes the zeros between for a still scene.
        """
        pairs = [(two[0], difference(one[1], two[1])) for one, two in pairwise(self._shown) if one[0] != two[0]]
        around = [change for number, change in pairs if number != judged]
        if not around or len(self._shown) - 1 == len(pairs) == 2 * WINDOW_FRAMES + 1:
            return False
        return dict(pairs)[judged] < CUT_RATIO * sum(around) / len(around)


def small_copy(frame: UInt8[np.ndarray, "H W 3"], longer_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """The means over areas, `longer_px` on the longer side; a copy of a frame that is smaller."""
    import cv2

    height, width = frame.shape[:2]
    scale = longer_px / max(height, width)
    if scale >= 1:
        return frame.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def difference(one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h w 3"]) -> float:
    """Mean absolute difference, in levels."""
    import cv2

    return cv2.norm(one, other, cv2.NORM_L1) / one.size


def structure_correlation(one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h w 3"]) -> float:
    """How alike two pictures are in what is finer than an eighth of them, -1 to 1: 0 for others, or a flat one."""
    fine, other_fine = _fine(one), _fine(other)
    size = float(np.sqrt((fine**2).sum() * (other_fine**2).sum()))
    return float((fine * other_fine).sum()) / size if size > 0 else 0.0


def _fine(small: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "y x"]:
    import cv2

    grey = cv2.cvtColor(small_copy(small, STRUCTURE_PX), cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), STRUCTURE_PX / 16)
    return fine - fine.mean()
