"""What the shipped weights were trained on, small enough to commit.

`python tests/bench/make_training_sources.py PHOTOS`: for each photograph that examples/tiny_dataset.sh names, its
checksum and a grey thumbnail. Writes training_sources.json, which test_hygiene.py holds against the benchmark.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from spikevrt.recording.spike_file import sha256_file

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("training_sources.json")
SIDE = 16  # of a thumbnail


def training_names() -> list[str]:
    """The files that examples/tiny_dataset.sh trains and validates on."""
    script = (ROOT / "examples" / "tiny_dataset.sh").read_text(encoding="utf-8")
    return [name for group in re.findall(r"^(?:train|val)=\((.*?)\)", script, re.DOTALL | re.MULTILINE)
            for name in group.split()]  # fmt: skip


def thumbnail(image: Image.Image) -> np.ndarray:
    """Grey, SIDE x SIDE, uint8."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def main() -> None:
    photos = Path(sys.argv[1])
    found = {}
    for name in training_names():
        with Image.open(photos / name) as image:
            found[name] = {"sha256": sha256_file(photos / name), "thumbnail": thumbnail(image).tobytes().hex()}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
