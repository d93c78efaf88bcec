"""Nothing half-written, nothing replaced by mistake: how a file or folder gets its name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


def refuse_existing(out: Path, *, marker: str, overwrite: bool) -> None:
    """Refuse an `out` that exists; with `overwrite`, one that is neither empty nor a folder holding the file `marker`.

    Raises:
        FileExistsError: one line that says which of the two.
    """
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out}: exists; choose another --out or pass --overwrite")
    if not (out / marker).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out}: exists and holds no {marker}, so it is not overwritten; choose another --out")


@contextlib.contextmanager
def complete_or_absent(out: Path) -> Iterator[Path]:
    """A hidden sibling path for a file or folder; it takes the name `out` when the block ends well, else it goes.

    What stood under that name before steps aside only then. Folders above `out` are made. What killed processes of
    this machine left of the same output is removed.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    suffix = out.suffix if out.suffix.lower() in (".mp4", ".mov", ".mkv") else ""
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}{suffix}")
    _remove(partial)  # of a process that had this number and was killed
    for left in out.parent.iterdir():
        match = re.fullmatch(rf"\.{re.escape(out.name)}\.partial-([0-9]{{1,9}})(\.mp4|\.mov|\.mkv|\.npy)?", left.name)
        if match is not None and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):  # it only takes space
                _remove(left)
    try:
        yield partial
        put_in_place(partial, out)
    except BaseException:
        _remove(partial)
        raise


@contextlib.contextmanager
def alone_in(folder: Path, work: str) -> Iterator[None]:
    """Hold a lock on a folder of results, made if need be; the system frees it however this process ends.

    Raises:
        FileExistsError: it is a file, or another process holds the lock; `work` names what it is at.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; allowed for many recordings: a folder")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"{folder}: another {work} is at work there; choose another --out") from None
        yield
    finally:
        os.close(handle)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def put_in_place(partial: Path, out: Path) -> None:
    """Give a file or folder its name; what had that name before goes, or stays where this fails."""
    if partial.is_file() or not out.exists():
        os.replace(partial, out)
        return
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    os.replace(out, old)
    try:
        os.replace(partial, out)
    except OSError:
        os.replace(old, out)
        raise
    shutil.rmtree(old)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of somebody else
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
