"""What a simulation starts from: one photograph, a video file, or a folder of consecutive frames."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from spikevrt.recording.frames import IMAGE_SUFFIXES, list_images
from spikevrt.recording.spike_file import sha256_file
from spikevrt.recording.video import probe_video


def is_photo(source: Path) -> bool:
    """Whether a source is one photograph; otherwise it is a video file or a folder of consecutive frames.

    Raises:
        FileNotFoundError: there is no such source.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such photograph, video or folder of frames")
    return source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES


def count_frames(source: Path) -> int:
    """Frames of a video file or a folder."""
    return len(list_images(source)) if source.is_dir() else probe_video(source).num_frames


def sha256_source(source: Path) -> str:
    """The checksum of a file; of a folder of frames, the checksum of its frames' checksums."""
    if source.is_dir():
        return hashlib.sha256("".join(sha256_file(path) for path in list_images(source)).encode()).hexdigest()
    state = source.stat()
    return _sha256_once(source, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _sha256_once(path: Path, _mtime_ns: int, _num_bytes: int) -> str:
    """A batch asks for the same photographs again for every recording."""
    return sha256_file(path)
