"""The words of recording.json, of a spike file's sidecar and of SpikeCV's config.yaml."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from spikevrt.atomic import write_text

FORMAT, VERSION = "spikevrt-recording", 1
STREAM_FORMAT, STREAM_VERSION = "spikevrt-spikes", 1
SIDECAR, SPIKE_FILE, BLUR_FOLDER, SHARP_FOLDER = "recording.json", "spikes.dat", "blur", "sharp"

BIT_ORDER = "lsb-first"
SPIKECV_CONFIG, MAX_CONFIG_BYTES = "config.yaml", 1 << 14
Rows = Literal["bottom-up", "top-down"]
ROWS: dict[bool, Rows] = {True: "bottom-up", False: "top-down"}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_spikecv_config(path: Path) -> tuple[int, int]:
    """(width, height) of a SpikeCV dataset's config.yaml: the lines `spike_w: N` and `spike_h: N`.

    Only these lines are looked at: such a config is flat, and a YAML parser would follow whatever else stands there
    (PyYAML takes minutes for 16 kB of brackets). Raises ValueError when it does not say each of them once.
    """
    with open(path, "rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"{path}: more than {MAX_CONFIG_BYTES} bytes; allowed: a SpikeCV config of fewer")
    width, height = (_whole_number(path, text, key) for key in ("spike_w", "spike_h"))
    return width, height


def _whole_number(path: Path, text: bytes, key: str) -> int:
    lines = re.findall(rf"^{key}[ \t]*:(.*)$", text.decode("utf-8", "replace"), re.MULTILINE)
    values = [re.fullmatch(r"[ \t]+([1-9][0-9]{0,6})[ \t]*(#.*)?\r?", line) for line in lines]
    if len(values) != 1 or values[0] is None:
        said = f"{lines[0].strip()[:80]!r}" if len(lines) == 1 else f"{len(lines)} lines of it"
        raise ValueError(f"{path}: {key}: {said}; allowed: one line with a whole number of pixels")
    return int(values[0][1])
