"""A sharp video as a scene: its frames, in linear light, blended at every tick between them.

A slow video can be given more frames first, by a network (`interpolate`).

Dimension key: N ticks, H view rows, W view columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from spikevrt.light import image_to_linear
from spikevrt.recording.frames import image_size, list_images, read_image
from spikevrt.recording.video import iter_video, probe_video
from spikevrt.simulate.interpolate import find_weights, load_network, with_frames_between
from spikevrt.simulate.texture import fit

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor


class VideoScene:
    """A sharp video as light: blended, in linear light, between frames that are `ticks_per_frame` apart."""

    def __init__(
        self, name: str, open_at: Callable[[int], Iterator[np.ndarray]], *, height: int, width: int, num_frames: int,
        ticks_per_frame: int, interpolate: int = 1,
    ) -> None:  # fmt: skip
        self.height, self.width = height, width
        self.num_source_frames = num_frames
        num_frames = (num_frames - 1) * interpolate + 1
        self.num_ticks: int = (num_frames - 1) * ticks_per_frame
        self._name, self._open_at = name, open_at
        self._num_frames, self._ticks_per_frame = num_frames, ticks_per_frame
        self._frames: dict[int, Tensor] = {}  # the two newest, linear light
        self._reader: Iterator[np.ndarray] = iter(())
        self._next = -1  # the frame that `_reader` gives next; -1: not open

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks; going back in time re-opens the video."""
        mixed = []
        for tick in ticks.tolist():
            index, rest = divmod(tick, self._ticks_per_frame)
            first = self._frame(int(index))
            weight = rest / self._ticks_per_frame
            mixed.append(torch.lerp(first, self._frame(int(index) + 1), weight) if weight else first)
        return torch.stack(mixed)

    def _frame(self, index: int) -> Tensor:
        assert 0 <= index < self._num_frames, (index, self._num_frames)
        if index in self._frames:
            return self._frames[index]
        if not 0 <= self._next <= index:
            self._reader, self._next = self._open_at(index), index
        while True:
            image = next(self._reader, None)
            if image is None:
                raise ValueError(f"{self._name}: ends after {self._next} frames of {self._num_frames}")
            self._next += 1
            if self._next > index:
                break
        self._frames = {k: v for k, v in self._frames.items() if k == index - 1}
        self._frames[index] = image_to_linear(fit(image, self.height, self.width))
        return self._frames[index]


def video_scene(
    source: Path,
    *,
    height: int | None = None,
    width: int | None = None,
    ticks_per_frame: int,
    start_frame: int = 0,
    interpolate: int = 1,
) -> VideoScene:
    """Open a video file or a folder of pictures; `height` and `width` default to its own size.

    With `interpolate` (a power of two) a network puts so many frames in the place of each, at the size of the view.

    Raises:
        ValueError: if fewer than two frames are left at `start_frame`, the pictures differ in size, the view is
            larger than they are, or the extra that interpolates is not installed.
    """
    if source.is_dir():
        images = list_images(source)
        num_frames, (own_height, own_width) = len(images), image_size(images[0])
        for path in images:
            if image_size(path) != (own_height, own_width):
                raise ValueError(f"{path}: size differs from {images[0].name}; frames of one video must be of one size")

        def open_at(index: int) -> Iterator[np.ndarray]:
            return (read_image(path) for path in images[start_frame + index :])

    else:
        info = probe_video(source)
        num_frames, own_height, own_width = info.num_frames, info.height, info.width

        def open_at(index: int) -> Iterator[np.ndarray]:
            return iter_video(source, start_frame + index)

    height, width = height or own_height, width or own_width
    if height > own_height or width > own_width:
        raise ValueError(
            f"{source}: frames of {own_width}x{own_height} pixels are smaller than the view of {width}x{height}; "
            f"allowed: a view no larger than the frames, which are never enlarged"
        )
    if not 0 <= start_frame <= num_frames - 2:
        raise ValueError(f"start_frame: {start_frame}; {source} has {num_frames} frames, two must be left")
    view_height, view_width = height, width
    if interpolate > 1:
        network, open_own = load_network(find_weights()), open_at

        def open_at(index: int) -> Iterator[np.ndarray]:
            fitted = (fit(image, view_height, view_width).numpy() for image in open_own(index // interpolate))
            return islice(with_frames_between(fitted, interpolate, network), index % interpolate, None)

    return VideoScene(
        str(source), open_at, height=height, width=width, num_frames=num_frames - start_frame,
        ticks_per_frame=ticks_per_frame, interpolate=interpolate,
    )  # fmt: skip
