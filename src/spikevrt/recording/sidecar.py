"""The words of recording.json, of a spike file's sidecar and of SpikeCV's config.yaml, and a strict way to read JSON.

Nothing here knows pictures or spikes: a missing or wrong value is one line that names the file and the key.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from spikevrt.atomic import write_text

FORMAT, VERSION = "spikevrt-recording", 1
STREAM_FORMAT, STREAM_VERSION = "spikevrt-spikes", 1
SIDECAR, SPIKE_FILE, BLUR_FOLDER, SHARP_FOLDER = "recording.json", "spikes.dat", "blur", "sharp"

BIT_ORDER = "lsb-first"
SPIKECV_CONFIG, MAX_CONFIG_BYTES = "config.yaml", 1 << 14
ROWS = {True: "bottom-up", False: "top-down"}


def read_fields(path: Path, expected_format: str, version: int) -> Fields:
    """The values of a JSON file of that format and version. Raises ValueError when it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({' '.join(str(error).split())})") from None
    fields = Fields(path, values)
    if fields.get("format", str) != expected_format or fields.get("version", int) != version:
        raise ValueError(f"{path}: not a {expected_format} of version {version}")
    return fields


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


class Fields:
    """Typed look-up in decoded JSON; a missing or wrong value is one line that names file and key."""

    def __init__(self, path: Path, values: Any, prefix: str = "") -> None:
        self.path, self.values, self.prefix = path, values, prefix

    def has(self, key: str) -> bool:
        """Whether the key is there, and not null."""
        node = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or node.get(part) is None:
                return False
            node = node[part]
        return True

    def get(self, key: str, kind: type[Any]) -> Any:
        node = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                raise ValueError(f"{self.path}: {self.prefix}{key} is missing")
            node = node[part]
        if kind is float and isinstance(node, int) and not isinstance(node, bool) and abs(node) < 1 << 63:
            node = float(node)
        if not isinstance(node, kind) or isinstance(node, bool) or (kind is float and not math.isfinite(node)):
            raise ValueError(f"{self.path}: {self.prefix}{key}: {str(node)[:80]!r}; allowed: {kind.__name__}")
        return node

    def positive(self, key: str) -> float:
        value = float(self.get(key, float))
        if value <= 0:
            raise ValueError(f"{self.path}: {self.prefix}{key}: {value}; allowed: above 0")
        return value

    def each(self, key: str) -> list[Fields]:
        """The entries of a list."""
        return [Fields(self.path, item, f"{self.prefix}{key}[{i}].") for i, item in enumerate(self.get(key, list))]

    def inside(self, key: str) -> Fields:
        """The entries of a mapping."""
        return Fields(self.path, self.get(key, dict), f"{self.prefix}{key}.")

    def file_name(self, key: str) -> str:
        """The name of a file in the same folder: no path, for a sidecar must not point elsewhere."""
        name: str = self.get(key, str)
        if name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\:"):
            raise ValueError(f"{self.path}: {self.prefix}{key}: {name[:80]!r}; allowed: the name of a file beside it")
        return name


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
