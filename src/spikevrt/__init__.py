"""SpikeVRT: sharp colour video from a blurry colour camera and a spike camera.

`load` and `open_recording` are enough to restore (docs/python.md). They import what they need when they are called, so
that `spikevrt --help` answers at once; everything else is imported from its own module, in the order that the data
flows: recording, simulate, represent, align, data, model, train, restore, evaluate, demo.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt import shipped

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording
    from spikevrt.restore.options import RestoreOptions
    from spikevrt.restore.streaming import Restorer

__version__ = "0.1.0"
__all__ = ["__version__", "load", "open_recording"]


def load(weights: str | Path = shipped.DEFAULT, options: RestoreOptions | None = None) -> Restorer:
    """A network to restore with: the name of weights that ship, or a file (`restore.streaming.load_restorer`)."""
    from spikevrt.restore.streaming import load_restorer

    return load_restorer(weights, options)


def open_recording(path: str | Path, spikes: str | Path | None = None, **about: Any) -> Recording:
    """A recording: its folder; or a folder of images or a video, and the spike file beside it.

    A packed spike file without a sidecar needs `width` and `height` in pixels; `top_down=True` says that its first row
    is the top one. What else is stated goes to `recording.loose.loose_recording`: tick_rate_hz, first_tick,
    exposure_ticks, period_ticks, by_timestamps, linear.

    Raises:
        FileNotFoundError, ValueError: what is missing, contradicts, or is not stated, in one line.
    """
    from spikevrt.recording.loose import loose_recording, open_beside
    from spikevrt.recording.recording import Recording

    path = Path(path)
    if (path / "recording.json").is_file() or not path.exists():
        if spikes is not None or about:
            raise ValueError(f"{path}: a recording says all of itself; allowed: its folder alone")
        return Recording.open(path)
    if spikes is None:
        return loose_recording(path, None, **about)
    size = {f"spike_{name}": about.pop(name) for name in ("width", "height") if name in about}
    return open_beside(path, Path(spikes), **size, **about)
