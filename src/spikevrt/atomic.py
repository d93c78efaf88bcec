"""Files and folders that are written completely or not at all, a crash or a power cut included.

The one place for this: whatever is written gets its name by `complete_or_absent`, `write_text` or `put_in_place`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

# .NAME.partial-PID, and what is kept beside it: the suffix that tells FFmpeg the container, an .npy on its way into
# an .npz; .NAME.old-PID is a folder that is moved aside
UNFINISHED = re.compile(
    r"(?<![^\s/'\"])\.(?P<name>[^/]+?)\.(?P<kind>partial|old)-(?P<process>[0-9]{1,9})(\.mp4|\.mov|\.mkv|\.npy)?"
)


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


def refuse_existing_file(out: Path, *, overwrite: bool, other: str = "--out") -> None:
    """Refuse an `out` that exists; with `overwrite`, one that is no file. `other`: what is to be chosen instead.

    Raises:
        FileExistsError: one line.
    """
    if out.exists() and not (overwrite and out.is_file()):
        hint = " or pass --overwrite" if out.is_file() else ""
        raise FileExistsError(f"{out}: exists; choose another {other}{hint}")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises OSError, which names the one in which nothing can be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "nothing can be written in this folder", str(there))
    folder.mkdir(parents=True, exist_ok=True)


def named(path: Path) -> Path:
    """The path under the name that it will have, where it is unfinished itself."""
    left = UNFINISHED.fullmatch(path.name)
    return path if left is None else path.with_name(left["name"])


def refuse_own_input(out: Path, inputs: Iterable[Path], *, other: str = "--out") -> None:
    """Refuse an `out` that is one of the files or folders which are read, or holds one of them. `other`: as above.

    Raises:
        FileExistsError: one line.
    """
    place = out.resolve()
    for path in inputs:
        read = path.resolve()
        if place in (read, *read.parents):
            what = "is what is read" if read == place else f"holds what is read ({path})"
            raise FileExistsError(f"{out}: {what}, and would be lost; choose another {other}")


@contextlib.contextmanager
def complete_or_absent(out: Path) -> Iterator[Path]:
    """A hidden sibling path for a file or folder; it takes the name `out` when the block ends well, else it goes.

    What stood under that name before is moved aside only then. Folders above `out` are made. What killed processes of
    this machine left of the same output is removed. The bytes are on the disk before the name is; of a file inside a
    folder that is unfinished itself, that is left to the folder.
    """
    make_folder(out.parent)
    out = out.absolute()
    suffix = out.suffix if out.suffix.lower() in (".mp4", ".mov", ".mkv") else ""
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}{suffix}")
    is_inside_another = any(f".partial-{os.getpid()}" in folder for folder in out.parts[:-1])
    if not is_inside_another:
        _remove(partial)  # of a process that had this number and was killed
        _remove_of_dead_processes(out)
    try:
        yield partial
        if is_inside_another:
            os.replace(partial, out)
        else:
            put_in_place(partial, out)
    except BaseException:
        _remove(partial)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, complete or not at all."""
    with complete_or_absent(path) as partial:
        partial.write_text(text, encoding="utf-8")


def put_in_place(partial: Path, out: Path) -> None:
    """Give a file or folder its name, when its bytes are on the disk; what had that name before goes, or stays where
    this fails."""
    _sync(partial)
    if partial.is_file() or not out.exists():
        os.replace(partial, out)
    else:
        old = out.with_name(f".{out.name}.old-{os.getpid()}")
        os.replace(out, old)
        try:
            os.replace(partial, out)
        except OSError:
            os.replace(old, out)
            raise
        _remove(old)
    _sync_names(out.parent)


def is_unfinished(path: Path) -> bool:
    """Whether it has the name of what was not finished, or of what was stepping aside."""
    return UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what was being written in a folder, all or what was to have one of these `names`.

    For a folder of which this process is the only owner: also what living processes write goes.
    """
    for path in list(folder.iterdir()):
        left = UNFINISHED.fullmatch(path.name)
        if left is not None and (names is None or left["name"] in names):
            with contextlib.suppress(OSError):  # it only takes space
                _remove(path)


@contextlib.contextmanager
def alone_in(folder: Path, work: str) -> Iterator[None]:
    """Hold a lock on a folder of results, made if need be; the system frees it however this process ends.

    Raises:
        FileExistsError: it is a file, or another process holds the lock; `work` names what it is at.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; allowed for many recordings: a folder")
    is_new = not folder.exists()
    make_folder(folder)
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


def _sync(path: Path) -> None:
    """Bring the bytes of a file, or of all files in a folder, to the disk, and the names in the folder."""
    if path.is_symlink():  # what it leads to is somebody else's
        return
    if path.is_file():
        _fsync(path)
        return
    for inner in path.iterdir():
        _sync(inner)
    _sync_names(path)


def _sync_names(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a file system that does not do this for folders
        _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_of_dead_processes(out: Path) -> None:
    for path in out.parent.iterdir():
        left = UNFINISHED.fullmatch(path.name)
        if left is None or (left["name"], left["kind"]) != (out.name, "partial") or _is_alive(int(left["process"])):
            continue
        with contextlib.suppress(OSError):  # it only takes space
            _remove(path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of somebody else
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
