"""The words of recording.json and of a spike file's sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from spikevrt.atomic import write_text

FORMAT, VERSION = "spikevrt-recording", 1
STREAM_FORMAT, STREAM_VERSION = "spikevrt-spikes", 1
SIDECAR, SPIKE_FILE, BLUR_FOLDER, SHARP_FOLDER = "recording.json", "spikes.dat", "blur", "sharp"

BIT_ORDER = "lsb-first"
Rows = Literal["bottom-up", "top-down"]
ROWS: dict[bool, Rows] = {True: "bottom-up", False: "top-down"}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
