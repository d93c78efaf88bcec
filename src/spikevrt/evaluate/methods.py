"""What is scored: the blurry input, the analytic baseline, our networks, and any method of other people's.

A method maps a recording to its restored frames, in order, each once. Other people's are a Python function or a command
(docs/evaluation.md has an example of both).

Dimension key: T frames, H rows, W columns.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from spikevrt import runtime
from spikevrt.checkpoint import check_trusted, read_info
from spikevrt.recording.frames import list_images, read_image, to_float
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import SIDECAR
from spikevrt.recording.spike_file import sha256_file
from spikevrt.represent.counts import filled
from spikevrt.represent.inputs import DARK_RATE, PROFILE_DARK_RATE, short_window, spike_ratio
from spikevrt.represent.interval import intervals
from spikevrt.restore.clip import ClipWork, restore_clip, tiles_in_all
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Gate, Restorer, check_skip, reads_spikes

if TYPE_CHECKING:
    from jaxtyping import Float

BLUR = "blur"  # the name of the method that returns its input
SPIKE_RATIO = "spike_ratio"  # of the two that need no network (represent.inputs), and that a network has to beat:
INTERVAL_RATIO = "interval_ratio"  # rates from counts (TFP), rates from intervals (TFI)
PLAIN = (BLUR, SPIKE_RATIO, INTERVAL_RATIO)
ALLOWED = "NAME=MODULE:FUNCTION, MODULE:FUNCTION, or NAME=COMMAND with {recording} and {out}"
LAST_WORDS = 300  # characters of a failed command's output that its error repeats


class RunningMethod(Protocol):
    """A method at work. `about` goes into the results as it is; `device` is waited for before the clock is read."""

    about: dict[str, Any]
    device: torch.device

    def restore(self, recording: Recording) -> Iterator[Float[Tensor, "3 H W"]]:
        """The frames of a recording, in order, in [0, 1] but for rounding and overshoot."""
        ...

    def told(self) -> dict[str, Any]:
        """What the last recording took, for its entry in the results."""
        ...


@dataclass(frozen=True)
class Method:
    """A method by its name in tables. `ready` makes it ready to work: called once, before the clock starts."""

    name: str
    uses_spikes: bool
    ready: Callable[[], RunningMethod]
    may_go_without: bool = False  # it also restores recordings without spikes, although it uses them


@dataclass
class PerFrame:
    """A method without weights: `frame` makes frame `index` of a recording."""

    frame: Callable[[Recording, int], Float[Tensor, "3 H W"]]
    about: dict[str, Any]
    device: torch.device = torch.device("cpu")

    def restore(self, recording: Recording) -> Iterator[Tensor]:
        return (self.frame(recording, index) for index in range(recording.num_frames))

    def told(self) -> dict[str, Any]:
        return {}


class OurNetwork:
    """Weights of ours, through the restorer."""

    def __init__(self, path: Path, options: RestoreOptions, gate: Gate | None) -> None:
        self.restorer, self.work = Restorer(path, options, gate=gate), list[ClipWork]()
        self.device, info = self.restorer.device, self.restorer.info
        self.about = {
            "weights": path.name,
            "weights_sha256": sha256_file(path),
            "parameters": sum(parameter.numel() for parameter in self.restorer.network.parameters()),
            "spikes": self.restorer.reads_spikes,
            "device": str(self.device),
            "model": asdict(info.model),
            "training": info.provenance,
        }
        self._warm_up()

    def _warm_up(self) -> None:
        network, info = self.restorer.network, self.restorer.info
        side_px, spikes = network.min_size_px, info.model.spikes
        grey, voxels = torch.full((2, 3, side_px, side_px), 0.5), None
        if spikes is not None and self.restorer.reads_spikes:
            voxels = torch.zeros(2, spikes.num_bins, side_px // 2, side_px // 2)
        restore_clip(network, grey, voxels, replace(self.restorer.options, skip_sharp=None))

    def restore(self, recording: Recording) -> Iterator[Tensor]:
        restorer, options = self.restorer, self.restorer.options
        if recording.spikes is None and restorer.reads_spikes:
            restorer = restorer.with_options(replace(options, without_spikes=True, skip_sharp=None, strict=False))
        plan = restorer.plan(recording)
        for restored in plan.run():
            yield restored.frame
        self.work = plan.work

    def told(self) -> dict[str, Any]:
        return {"tiles": tiles_in_all(self.work)}


class Function:
    """A Python function (Recording) -> its frames: RGB, (H, W, 3) uint8 arrays or (3, H, W) floats in [0, 1]."""

    def __init__(self, name: str, function: Callable[[Recording], Iterable[Any]], source: str) -> None:
        self.name, self.function, self.about = name, function, {"source": source}
        self.device = runtime.pick_device("auto")

    def restore(self, recording: Recording) -> Iterator[Tensor]:
        for index, array in enumerate(self._arrays(recording)):
            yield _as_frame(array, recording, f"{self.name}: {recording.name}, frame {index}")

    def _arrays(self, recording: Recording) -> Iterator[np.ndarray]:
        try:
            yield from map(_as_array, self.function(recording))
        except (Exception, SystemExit) as error:  # whatever goes wrong in somebody else's code is told in a line
            kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
            raise ValueError(f"{self.name}: {recording.name}: {kind}{error}") from error

    def told(self) -> dict[str, Any]:
        return {}


def blur_method() -> Method:
    """The untouched input."""
    about = {"spikes": False}
    return Method(BLUR, False, lambda: PerFrame(lambda recording, i: to_float(recording.read_blur(i)), about))


def spike_ratio_method() -> Method:
    """The blurry frame, relit by the spike counts (`represent.inputs`)."""
    return Method(SPIKE_RATIO, True, lambda: PerFrame(_spike_ratio_frame, {"spikes": True}))


def interval_ratio_method() -> Method:
    """The blurry frame, relit by the intervals between spikes."""
    return Method(INTERVAL_RATIO, True, lambda: PerFrame(_interval_ratio_frame, {"spikes": True}))


def network_method(name: str, path: Path, options: RestoreOptions, gate: Gate | None) -> Method:
    """Weights of ours. Raises ValueError where they cannot obey the options."""
    info = read_info(path)
    check_skip(info, options.skip_sharp)
    check_trusted(info, path, options.trust_custom)
    return Method(name, reads_spikes(info, options), partial(OurNetwork, path, options, gate), may_go_without=True)


def other_method(text: str) -> Method:
    """A method given as NAME=MODULE:FUNCTION (without NAME= it is called as the function is) or as NAME=COMMAND, which
    holds {recording} and {out}.

    The command is run without a shell for each recording, and writes 000000.png ... into the folder {out}.

    Raises:
        ValueError: neither of the two; or no such function.
    """
    if re.fullmatch(r"[\w.]+:\w+", text):
        text = f"{text.partition(':')[2]}={text}"
    name, equals, rest = text.partition("=")
    if not equals or not name.replace("_", "").replace("-", "").isalnum() or name in PLAIN:
        raise ValueError(f"method: {text!r}; allowed: {ALLOWED}")
    if "{recording}" in rest and "{out}" in rest:
        try:
            words = shlex.split(rest)
        except ValueError as error:
            raise ValueError(f"method: {text!r}: {error}") from None
        run = partial(_run_command, words)
        return Method(name, True, lambda: Function(name, run, rest))
    if ":" not in rest or " " in rest:
        raise ValueError(f"method: {text!r}; allowed: {ALLOWED}")
    function = runtime.named_function(rest, "method")
    return Method(name, True, lambda: Function(name, function, rest))


def _run_command(words: list[str], recording: Recording) -> Iterator[np.ndarray]:
    if not (recording.root / SIDECAR).is_file():
        raise ValueError(f"{recording.root} is no recording's folder (no {SIDECAR}); allowed here: MODULE:FUNCTION")
    with tempfile.TemporaryDirectory() as folder:
        filled = [word.replace("{recording}", str(recording.root)).replace("{out}", folder) for word in words]
        try:
            done = subprocess.run(filled, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise ValueError(f"{filled[0]}: {error.strerror}") from None
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-LAST_WORDS:]
            raise ValueError(f"exit status {done.returncode}: {said or 'nothing was said'}")
        yield from map(read_image, list_images(Path(folder)))


def _as_array(frame: Any) -> np.ndarray:
    if not isinstance(frame, Tensor):
        return np.asarray(frame)
    array: np.ndarray = (frame.float() if frame.is_floating_point() else frame).detach().cpu().numpy()
    return array


def _as_frame(array: np.ndarray, recording: Recording, what: str) -> Tensor:
    """Any of the allowed kinds as float32 (3, H, W). Raises ValueError: another size or kind, no picture's values."""
    height, width = recording.height, recording.width
    if array.dtype == np.uint8 and array.shape == (height, width, 3):
        return to_float(array)
    if array.dtype.kind == "f" and array.shape == (3, height, width):
        if not np.isfinite(array).all():
            raise ValueError(f"{what}: holds NaN or infinity; allowed: floats in [0, 1]")
        if not -1 <= (mean := float(array.mean())) <= 2:  # levels, most likely; a picture may overshoot a little
            raise ValueError(f"{what}: floats of mean {mean:g}; allowed: floats in [0, 1]")
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    allowed = f"uint8 ({height}, {width}, 3) or float (3, {height}, {width})"
    raise ValueError(f"{what}: {array.dtype} of shape {array.shape}; allowed: {allowed}")


def _spike_ratio_frame(recording: Recording, index: int) -> Tensor:
    assert recording.spikes is not None
    exposure = recording.exposures[index]
    if not recording.is_inside(index):  # as a network restores it: from the frame alone
        return to_float(recording.read_blur(index))
    first, num_ticks = exposure.start_tick, exposure.num_ticks
    start, stop = (first + exposure.shift_ticks + tick for tick in short_window(num_ticks))
    counts = [recording.spikes.count(edges)[0] for edges in ([start, stop], [first, first + num_ticks])]
    short, long = filled(torch.from_numpy(np.stack(counts).astype(np.float32)), recording.bad_mask())
    return _relit(recording, index, short / (stop - start), long / num_ticks, DARK_RATE)


def _interval_ratio_frame(recording: Recording, index: int) -> Tensor:
    assert recording.spikes is not None
    exposure = recording.exposures[index]
    if not recording.is_inside(index):
        return to_float(recording.read_blur(index))
    first, stop = (tick - exposure.span[0] + exposure.shift_ticks for tick in
                   (exposure.start_tick + edge for edge in short_window(exposure.num_ticks)))  # fmt: skip
    rates = intervals(torch.from_numpy(recording.spikes.read(*exposure.span))).float().reciprocal_()
    exposed = rates[exposure.start_tick - exposure.span[0] :][: exposure.num_ticks]
    pair = torch.stack((rates[first:stop].mean(0), exposed.mean(0)))
    short, long = filled(pair, recording.bad_mask())
    return _relit(recording, index, short, long, PROFILE_DARK_RATE)


def _relit(recording: Recording, index: int, short: Tensor, long: Tensor, dark: float) -> Tensor:
    """A frame relit by rates of the sensor's pixels, to which it is resampled meanwhile, as networks read it."""
    seen = recording.on_sensor
    blur = to_float(seen.read_blur(index))
    relit = spike_ratio(blur, short, long, dark=dark)
    if seen.view is None or seen is recording:
        return relit
    return seen.view.applied(to_float(recording.read_blur(index)), relit - blur)
