"""The words of recording.json and of a spike file's sidecar, and a strict way to read JSON.

Nothing here knows pictures or spikes: a missing or wrong value is one line that names the file and the key.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from spikevrt.atomic import write_text

FORMAT, VERSION = "spikevrt-recording", 1
STREAM_FORMAT, STREAM_VERSION = "spikevrt-spikes", 1
SIDECAR, SPIKE_FILE, BLUR_FOLDER, SHARP_FOLDER = "recording.json", "spikes.dat", "blur", "sharp"

BIT_ORDER = "lsb-first"
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
