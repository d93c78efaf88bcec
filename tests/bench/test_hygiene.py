"""Nothing that was trained on is in the benchmark: by name, by checksum, and by what the pictures show.

training_sources.json holds checksum and thumbnail of every photograph that the shipped weights saw (training and
validation); make_training_sources.py made it from the photographs themselves.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from spikevrt.bench.benchmark import ASSETS, SCENES
from spikevrt.bench.demo import PHOTOS, VIDEO
from spikevrt.recording.spike_file import sha256_file
from spikevrt.recording.video import iter_video
from tests.bench.make_training_sources import FILE, ROOT, SIDE, thumbnail, training_names

TRAINED = json.loads(FILE.read_text(encoding="utf-8"))
TESTED = sorted({name for scene in SCENES for name in (scene.source, *scene.cutouts)})
ALIKE = 0.9  # correlation of two thumbnails, above which they show the same picture


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1])


def trained_thumbnails() -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(bytes.fromhex(entry["thumbnail"]), np.uint8).reshape(SIDE, SIDE)
        for name, entry in TRAINED.items()
    }


def pictures(name: str) -> list[Image.Image]:
    """A photograph whole and in its four quarters and middle; every tenth frame of a video."""
    if name.endswith(".mp4"):
        return [Image.fromarray(frame) for index, frame in enumerate(iter_video(ASSETS / name)) if index % 10 == 0]
    with Image.open(ASSETS / name) as image:
        whole = image.convert("RGB")
    w, h = whole.size
    boxes = [(x, y, x + w // 2, y + h // 2) for x in (0, w // 4, w // 2) for y in (0, h // 4, h // 2)]
    return [whole, *(whole.crop(box) for box in boxes)]


def test_the_list_of_what_was_trained_on_is_that_of_the_script_that_makes_the_dataset():
    assert sorted(TRAINED) == sorted(training_names())
    assert len(TRAINED) == 16


def test_the_demo_and_the_benchmark_use_the_same_untouched_sources():
    assert set(PHOTOS) | {VIDEO} <= set(TESTED)
    assert all((ASSETS / name).is_file() for name in TESTED)


@pytest.mark.parametrize("name", TESTED)
def test_no_source_of_the_benchmark_was_trained_on(name: str):
    digests = {entry["sha256"] for entry in TRAINED.values()}
    assert sha256_file(ASSETS / name) not in digests
    assert name.split(".")[0].lower() not in " ".join(TRAINED).lower()
    for picture in pictures(name):
        for trained, thumb in trained_thumbnails().items():
            assert correlation(thumbnail(picture), thumb) < ALIKE, (name, trained)


@pytest.mark.parametrize("name", [name for name in TESTED if not name.endswith(".mp4")])
def test_the_comparison_would_find_a_picture_that_was_scaled_and_compressed(name: str):
    with Image.open(ASSETS / name) as image:
        buffer = io.BytesIO()
        image.convert("RGB").resize((301, 203)).save(buffer, "JPEG", quality=40)
        assert correlation(thumbnail(Image.open(buffer)), thumbnail(image)) > 0.99


def test_the_credits_say_of_every_source_where_it_comes_from():
    credits = (ASSETS / "CREDITS.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in credits for name in TESTED)
    assert (ROOT / "examples" / "tiny_dataset.sh").is_file()
