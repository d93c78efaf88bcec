"""How the two cameras lie to each other: a time offset, a homography, and perhaps a smooth displacement field; how the
frames are resampled to the sensor's pixels and what was restored is brought back (`SensorView`); and how the sensor's
pictures are read where the frames' pixels fall (`read_at`).

Coordinates are continuous pixels, x to the right and y down: (0, 0) is the top-left corner of a picture, the centre of
its first pixel is (0.5, 0.5). The homography maps a point of the frame to the sensor; where the two see the same field
at a ratio of r frame pixels per sensor pixel, it is diag(1/r, 1/r, 1).

`read_at` is the one bilinear reading outside the networks. They and the losses read through torch's `grid_sample`,
which has gradients and is twice as fast, but rounds positions: at 400 columns that moves values between 0 and 1 by up
to 2e-5. So does what films scenes.

Dimension key: C channels, H and W rows and columns of the frame, V and U those of the sensor's view, h and w those of
the registered grid, a sensor-sized picture that lies on the frame; `...` any leading axes, `*n` the axes of positions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.recording.arrays import load_npy
from spikevrt.recording.sidecar import FORMAT, SIDECAR, VERSION, write_json
from spikevrt.typed import load_json, require_file_name

if TYPE_CHECKING:
    from jaxtyping import Float, Num

    from spikevrt.recording.recording import Recording


MAX_OFFSET_TICKS = 1 << 31  # a day at 20 kHz
MAX_DRIFT_PPM = 10_000  # a hundredth
INVERSION_STEPS = 12  # of a displacement: each divides the error by how gently it changes, which is much
Homography = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Alignment:
    """What `spikevrt align` found, as recording.json keeps it.

    offset_ticks, drift_ppm: the true exposure begins so many ticks after the one written down, and another `drift_ppm`
        millionths of its own start tick later.
    homography: frame to sensor; None: both see the same field.
    flow: file beside recording.json, float32 (2, rows, columns): displacement (x, y) on the sensor, in sensor pixels,
        to be added after the homography; a grid of any size over the frame, read bilinearly. None: no displacement.
    quality: what the estimate was worth, for people and reports; nothing is computed from it.
    """

    offset_ticks: float = 0.0
    homography: Homography | None = None
    flow: Path | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    drift_ppm: float = 0.0

    def __post_init__(self) -> None:
        if not abs(self.drift_ppm) <= MAX_DRIFT_PPM:
            raise ValueError(f"alignment.drift_ppm: {self.drift_ppm}; allowed: up to {MAX_DRIFT_PPM} either way")
        if not math.isfinite(self.offset_ticks):
            raise ValueError(f"alignment.offset_ticks: {self.offset_ticks}; allowed: a finite number")
        if abs(self.offset_ticks) > MAX_OFFSET_TICKS:
            raise ValueError(
                f"alignment.offset_ticks: {self.offset_ticks}; allowed: up to {MAX_OFFSET_TICKS} either way"
            )
        if self.homography is not None:
            matrix = np.array(self.homography, dtype=np.float64)
            with np.errstate(all="ignore"):
                is_invertible = matrix.shape == (3, 3) and abs(np.linalg.det(matrix)) >= 1e-12
            if not is_invertible or not np.isfinite(matrix).all():
                raise ValueError("alignment.homography: not an invertible 3x3 matrix of finite numbers")

    def later_ticks(self, start_tick: int) -> int:
        """How many whole ticks later than written an exposure begins."""
        return round(self.offset_ticks + 1e-6 * self.drift_ppm * start_tick)

    @property
    def is_spatial(self) -> bool:
        return self.homography is not None or self.flow is not None


def alignment_values(alignment: Alignment) -> dict[str, Any]:
    """Plain values, ready for JSON; recording.json keeps them."""
    return {
        "offset_ticks": alignment.offset_ticks,
        **({"drift_ppm": alignment.drift_ppm} if alignment.drift_ppm else {}),
        "homography": None if alignment.homography is None else [list(row) for row in alignment.homography],
        "flow": None if alignment.flow is None else alignment.flow.name,
        "quality": alignment.quality,
    }


def placed(alignment: Alignment, folder: Path) -> Alignment:
    """The alignment as a recording.json in `folder` means it: its displacement lies there. Raises ValueError else."""
    if alignment.flow is None:
        return alignment
    require_file_name("alignment.flow", str(alignment.flow))
    return replace(alignment, flow=folder / alignment.flow)


def write_alignment(root: Path, alignment: Alignment | None) -> None:
    """Put an alignment into root/recording.json, or take it out (None); all other values stay as they are.

    The displacement's file, if there is one, must already lie beside it. Raises FileNotFoundError, ValueError: no
    recording there.
    """
    sidecar = Path(root) / SIDECAR
    values = load_json(sidecar, FORMAT, VERSION)
    values.pop("alignment", None)
    if alignment is not None:
        values["alignment"] = alignment_values(alignment)
    write_json(sidecar, values)


def has_alignment(root: Path) -> bool:
    """Whether root/recording.json, where there is one that can be read, holds an alignment."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return load_json(Path(root) / SIDECAR, FORMAT, VERSION).get("alignment") is not None
    return False


def same_field(width: int, height: int, sensor_width: int, sensor_height: int) -> Float[np.ndarray, "3 3"]:
    """The homography of two cameras that see exactly the same field."""
    return np.diag([sensor_width / width, sensor_height / height, 1.0])


def apply_homography(
    homography: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "*n 2"]
) -> Float[np.ndarray, "*n 2"]:
    """Map points (x, y), float64."""
    x, y, scale = np.moveaxis(points @ homography[:, :2].T + homography[:, 2], -1, 0)
    return np.stack([x / scale, y / scale], axis=-1)


def sensor_positions(
    alignment: Alignment, *, width: int, height: int, sensor_width: int, sensor_height: int, ratio: int
) -> Float[np.ndarray, "h w 2"]:
    """Where on the sensor each cell of the registered grid looks: (x, y) in sensor pixels, float32.

    The grid has ceil(height / ratio) x ceil(width / ratio) cells; cell (i, j) covers the `ratio` x `ratio` frame pixels
    from (i * ratio, j * ratio) on, and is read at their centre.

    Raises:
        FileNotFoundError: the displacement's file is missing.
        ValueError: it is no float32 array (2, rows, columns) of finite numbers; or the homography sends a part of the
            frame to infinity.
    """
    x = (np.arange(-(-width // ratio)) + 0.5) * ratio
    y = (np.arange(-(-height // ratio)) + 0.5) * ratio
    centres_hw2 = np.stack(np.meshgrid(x, y), axis=-1)
    matrix = np.array(alignment.homography or same_field(width, height, sensor_width, sensor_height), dtype=np.float64)
    with np.errstate(all="ignore"):
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
        sides = np.sign(corners @ matrix[2])  # 0 is the horizon
        positions_hw2 = apply_homography(matrix, centres_hw2)
        is_finite = np.isfinite(positions_hw2.astype(np.float32)).all()
    if not is_finite or sides[0] == 0 or (sides != sides[0]).any():
        raise ValueError(
            f"alignment.homography: {matrix.tolist()} sends a part of the {width}x{height} frame to infinity; "
            f"allowed: all of it to finite points; run `spikevrt align` again"
        )
    if alignment.flow is not None:
        positions_hw2 = positions_hw2 + _displacement(_read_flow(alignment.flow), centres_hw2, width, height)
    return positions_hw2.astype(np.float32)


def _displacement(
    flow_2rc: Float[np.ndarray, "2 r c"], points: Float[np.ndarray, "*n 2"], width: int, height: int
) -> Float[np.ndarray, "*n 2"]:
    """The field at points of the frame."""
    rows, columns = flow_2rc.shape[1:]
    cells = torch.from_numpy(points * [columns / width, rows / height])
    return np.moveaxis(read_at(torch.from_numpy(flow_2rc.astype(np.float64)), cells).numpy(), 0, -1)


@dataclass(frozen=True, eq=False)
class SensorView:
    """The frame resampled so that every sensor pixel is a whole number of its pixels, and the way back.

    Between the cameras it is the frames that are resampled and not the spikes, which are fewer pixels and would blur.
    `on_frame`: where on the frame each pixel of the view lies, (x, y) in frame pixels; `on_view` the other way round.
    """

    on_frame: Float[Tensor, "V U 2"]
    on_view: Float[Tensor, "H W 2"]

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self.on_view.shape[0], self.on_view.shape[1]

    def seen(self, image: Num[np.ndarray, "H W C"]) -> Num[np.ndarray, "V U C"]:
        """A frame of any type as the view has it, of the same type; the frame's border is continued."""
        values = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
        seen = read_sharply(values, self.on_frame).permute(1, 2, 0).contiguous().numpy()
        if image.dtype.kind != "u":
            return seen.astype(image.dtype)
        return np.clip(seen.round(), 0, np.iinfo(image.dtype).max).astype(image.dtype)

    def applied(self, frame: Float[Tensor, "C H W"], change: Float[Tensor, "C V U"]) -> Float[Tensor, "C H W"]:
        """The frame, changed where the sensor sees it as the view was changed; elsewhere it stays."""
        height, width = change.shape[-2:]
        x, y = self.on_view.unbind(-1)
        is_seen = (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
        return frame + read_sharply(change, self.on_view) * is_seen


def sensor_view(
    alignment: Alignment, *, width: int, height: int, sensor_width: int, sensor_height: int, ratio: int
) -> SensorView:
    """The view of a frame; its ratio is the whole number nearest to the cameras' own in the frame's centre, and `ratio`
    where they see the same field.

    Raises FileNotFoundError or ValueError as `sensor_positions` does.
    """
    sizes = {"width": width, "height": height, "sensor_width": sensor_width, "sensor_height": sensor_height}
    seen_at = sensor_positions(alignment, **sizes, ratio=1)
    matrix = np.array(alignment.homography or same_field(**sizes), dtype=np.float64)
    depth = matrix[2] @ [width / 2, height / 2, 1]
    side = math.sqrt(abs(depth**3 / np.linalg.det(matrix)))  # of a sensor pixel in the frame's centre, frame pixels
    ratio = max(1, round(min(side, 2.0 * ratio)))  # so that a view is not boundless
    x, y = ((np.arange(size * ratio) + 0.5) / ratio for size in (sensor_width, sensor_height))
    on_sensor = np.stack(np.meshgrid(x, y), axis=-1)
    inverse = np.linalg.inv(matrix)

    def to_frame(points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Beyond the frame at most by its size; what lies on the horizon anywhere there."""
        with np.errstate(all="ignore"):
            return np.clip(np.nan_to_num(apply_homography(inverse, points)), [-width, -height], [2 * width, 2 * height])

    on_frame = to_frame(on_sensor)
    if alignment.flow is not None:
        flow = _read_flow(alignment.flow)
        for _ in range(INVERSION_STEPS):
            on_frame = to_frame(on_sensor - _displacement(flow, on_frame, width, height))
    return SensorView(torch.from_numpy(on_frame.astype(np.float32)), torch.from_numpy(seen_at) * ratio)


def nearest_ratio(height: int, width: int, sensor_height: int, sensor_width: int) -> int:
    """Frame pixels per sensor pixel: the nearest whole number to the mean over both axes; at least 1."""
    return max(1, round(math.sqrt(height * width / (sensor_height * sensor_width))))


Placed = TypeVar("Placed")


def placed_on(recording: Recording, place: Callable[..., Placed]) -> Placed | None:
    """`sensor_positions` or `sensor_view` of a recording; None when a frame has a whole number of pixels for each of
    the sensor's and nothing was registered. Raises as they do; errors name recording.json."""
    if recording.spikes is None:
        return None
    height, width = recording.spikes.height, recording.spikes.width
    ratio = nearest_ratio(recording.height, recording.width, height, width)
    is_whole = (height * ratio, width * ratio) == (recording.height, recording.width)
    if is_whole and not recording.alignment.is_spatial:
        return None
    sizes = {"width": recording.width, "height": recording.height, "sensor_width": width, "sensor_height": height}
    try:
        return place(recording.alignment, **sizes, ratio=ratio)
    except ValueError as error:
        text = str(error)
        raise ValueError(f"{recording.root / SIDECAR}: {text}" if text.startswith("alignment.") else text) from None


def read_sharply(values: Float[Tensor, "C h w"], positions: Float[Tensor, "V U 2"]) -> Float[Tensor, "C V U"]:
    """The values at `positions` as in `read_at`, by cubic convolution (a = -0.75) of 4 x 4 pixels, which may overshoot.

    Positions are rounded by about 1e-7 of the picture's side.
    """
    size = torch.tensor([values.shape[-1], values.shape[-2]], dtype=torch.float32)
    grid = (2 * positions / size - 1).to(values.device)
    return F.grid_sample(values[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]


def frame_rows(
    alignment: Alignment, *, width: int, height: int, sensor_width: int, sensor_height: int
) -> Float[np.ndarray, "h w"]:
    """The row of the frame that each sensor pixel sees, from 0, between rows; by the homography alone."""
    matrix = np.array(alignment.homography or same_field(width, height, sensor_width, sensor_height), dtype=np.float64)
    centres_hw2 = np.stack(np.meshgrid(np.arange(sensor_width) + 0.5, np.arange(sensor_height) + 0.5), axis=-1)
    return apply_homography(np.linalg.inv(matrix), centres_hw2)[..., 1] - 0.5


def _read_flow(path: Path) -> Float[np.ndarray, "2 r c"]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such displacement field; run `spikevrt align` again")
    flow = np.array(load_npy(path))
    is_field = flow.dtype == np.float32 and flow.ndim == 3 and flow.shape[0] == 2 and flow.size
    if not is_field or not np.isfinite(flow).all():
        raise ValueError(f"{path}: not a displacement field; allowed: float32 (2, rows, columns), finite")
    return flow


CHANNELS_AT_ONCE = 4  # what lies between stays in a core's cache


def read_at(values: Float[Tensor, "... C h w"], positions: Float[Tensor, "*n 2"]) -> Float[Tensor, " ..."]:
    """The values (..., C, *n) at `positions`, each (x, y) in pixels with pixel centres at +0.5: between four pixels a
    weighted mean, beyond the outermost centres the nearest pixel of the border. Positions at centres return the pixel
    itself, bit for bit. Raises ValueError: a position is not a number."""
    assert values.ndim >= 3 and values.is_floating_point() and positions.shape[-1] == 2, (
        values.dtype,
        tuple(values.shape),
        tuple(positions.shape),
    )
    if bool(positions.isnan().any()):
        raise ValueError("positions: holds NaN; allowed: numbers")
    height, width = values.shape[-2:]
    x, y = (positions.to(values.device, torch.float64) - 0.5).unbind(-1)
    x, y = x.clamp(0, width - 1).reshape(-1), y.clamp(0, height - 1).reshape(-1)
    left, top = x.to(torch.int64), y.to(torch.int64)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    across, down = (x - left).to(values.dtype), (y - top).to(values.dtype)
    at = [row * width + column for row in (top, bottom) for column in (left, right)]
    read = []
    for part in values.reshape(-1, height * width).split(CHANNELS_AT_ONCE):
        upper = torch.lerp(part.index_select(1, at[0]), part.index_select(1, at[1]), across)
        lower = torch.lerp(part.index_select(1, at[2]), part.index_select(1, at[3]), across)
        read.append(torch.lerp(upper, lower, down))
    return torch.cat(read).view(*values.shape[:-2], *positions.shape[:-1])
