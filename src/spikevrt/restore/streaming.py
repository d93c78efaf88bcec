"""The network as a thing to use from Python: load it once, and take sharp frames from any recording, one at a time.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spikevrt import runtime, shipped
from spikevrt.checkpoint import WeightsInfo
from spikevrt.recording.frames import to_uint8
from spikevrt.recording.recording import Recording
from spikevrt.restore.admission import admit
from spikevrt.restore.inputs import reads_spikes
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import load_network, restore_frames
from spikevrt.restore.slow_motion import slow_motion

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from spikevrt.model.network import Network


@dataclass(frozen=True)
class Restorer:
    """A network with its weights, and how it is run."""

    network: Network
    info: WeightsInfo
    options: RestoreOptions

    def stream(
        self, recording: Recording, *, fps_factor: int = 1, first: int = 0
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The sharp frames of a recording from frame `first` on, as pictures, in order; each as soon as it is finished.

        Memory does not grow with the length. `fps_factor`: sharp frames in the place of one (`slow_motion`). A
        recording without spikes is restored from its frames alone. Scene cuts are not looked for: `spikevrt restore`
        does.

        Raises:
            ValueError: before the first frame: the health gate refuses (`admit`), or the network cannot take it.
        """
        options = self.options
        if reads_spikes(self.info, options):
            if recording.spikes is None:
                options = replace(options, without_spikes=True, skip_sharp=None, strict=False)
            else:
                recording = admit(recording, options.ignore_health, options.strict)
        footage = slow_motion(recording, fps_factor)
        frames = restore_frames(self.network, self.info, footage, options, first=first)
        return (to_uint8(frame) for _, frame in frames)


def load_restorer(weights: str | Path = shipped.DEFAULT, options: RestoreOptions | None = None) -> Restorer:
    """A network that ships (its name, as spikefold_tiny) or of a file, on a GPU where there is one.

    Raises:
        FileNotFoundError, ValueError: as `load_network`; the error names the weights that ship.
    """
    options = RestoreOptions() if options is None else options
    network, info = load_network(shipped.find(weights), runtime.pick_device(options.device))
    return Restorer(network, info, options)
