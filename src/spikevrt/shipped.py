"""The weights that ship with the package: their names, which is the default, and where they lie. Needs no torch."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"  # beside the networks, the weights of the metric LPIPS (`lpips.py`)
DEFAULT = "spikefold_tiny"
REFERENCE = "spikevrt_tiny"
ROBUST = "spikevrt_tiny_robust"
TWIN = "vrt_tiny"
ABOUT = {  # the network (`ModelConfig.name`), then what sets these weights apart
    DEFAULT: "U-Net on blocks of 2x2 pixels, spike-corrected frames; the default, the best that ships",
    REFERENCE: "SpikeVRT; the reference design",
    ROBUST: "SpikeVRT; trained on worse spikes too",
    TWIN: "VRT; reads no spikes",
}
NAMES = tuple(ABOUT)
GAIN_DB = {DEFAULT: 5.7, TWIN: 0.3}  # over the blur, psnr_rgb of the medium suite (docs/results.md)
COMPARED = (TWIN, REFERENCE, DEFAULT)  # what evaluate, bench and demo score where no weights are named


def find(weights: str | Path = DEFAULT) -> Path:
    """The file of a network: that of a name in `NAMES`, or the one given.

    Raises:
        FileNotFoundError: neither; the error names what ships.
    """
    if Path(weights).is_file():
        return Path(weights)
    if str(weights) in NAMES:
        return FOLDER / f"{weights}.safetensors"
    raise FileNotFoundError(f"{weights}: no such weights file; allowed: a file, or {', '.join(NAMES)}, which ship")
