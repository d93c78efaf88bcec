"""SpikeVRT: sharp colour video from a blurry colour camera and a spike camera.

`load` and `open_recording` are enough to restore (docs/python.md). They import what they need when they are called, so
that `spikevrt --help` answers at once; everything else is imported from its own module, in the order that the data
flows (docs/architecture.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt import shipped

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording
    from spikevrt.restore.options import RestoreOptions
    from spikevrt.restore.restorer import Restorer

__version__ = "0.1.0"
__all__ = ["__version__", "load", "open_recording"]


def load(weights: str | Path = shipped.DEFAULT, options: RestoreOptions | None = None) -> Restorer:
    """A network to restore with, behind the health gate: the name of weights that ship, or a file.

    Raises:
        FileNotFoundError, ValueError: no such weights, or weights or options that cannot be used.
    """
    from spikevrt.align.health import admit
    from spikevrt.restore.options import RestoreOptions
    from spikevrt.restore.restorer import Restorer

    return Restorer(weights, options or RestoreOptions(), gate=admit)


def open_recording(path: str | Path, spikes: str | Path | None = None, **about: Any) -> Recording:
    """A recording: its folder; or a folder of images or a video, and the spike file beside it.

    A packed spike file without a sidecar needs `width` and `height` in pixels; `top_down=True` says that its first row
    is the top one. What else is stated is that of `recording.sidecar.Stated`: tick_rate_hz, first_tick, exposure,
    fps, timestamps ... (docs/recording.md). What is assumed is in the recording's `notes`.

    Raises:
        FileNotFoundError, ValueError: what is missing, contradicts, or is not stated, in one line.
    """
    from spikevrt.recording.loose import loose_recording, open_beside
    from spikevrt.recording.recording import open_recording as open_folder
    from spikevrt.recording.sidecar import Stated

    path = Path(path)
    if (path / "recording.json").is_file() or not path.exists():
        if spikes is not None or about:
            raise ValueError(f"{path}: a recording says all of itself; allowed: its folder alone")
        return open_folder(path, keep_outside=True)
    if spikes is None:
        return loose_recording(path, None, Stated(**about))
    about = {f"spike_{name}" if name in ("width", "height") else name: value for name, value in about.items()}
    return open_beside(path, Path(spikes), Stated(**about))
