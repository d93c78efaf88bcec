"""Damage small valid files in seeded ways and read each with the product's own reader: what falls over, and how.

    python benchmarks/fuzz.py --each 10000 --minutes 60 [--only png npz] [--seed 1] [--keep FOLDER]
    python benchmarks/fuzz.py --case png:17 [--keep FOLDER]     one of them again, with its traceback

A child process, forked from this one where everything is imported, does one damaged file after the other and is
replaced when it dies, so that a file costs milliseconds. Of every file one of three things must come: what was read, a
refusal (ValueError or OSError, one line that names the file), or a fault:

- the child died of a signal, or took more than 10 s;
- its resident memory grew by more than `FREE_BYTES` plus `COPIES` times what was read (nothing, where it was refused):
  half of the first is what libraries take when they are first used, the second is what turning, converting and
  comparing hold at once. More than `ADDRESS_BYTES` of new address space are not to be had at all;
- another exception, or a message of more lines or without a name;
- where the format has a checksum (`Case.guarded`): it was read, and is not what was written.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HANG_S = 10.0
FREE_BYTES, COPIES = 96 << 20, 6
ADDRESS_BYTES = 3 << 30
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x01")
TEXT_EXTREMES = (
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"null",
    b"[]",
    b"{}",
    b"true",
    b'"',
    b"99999999999999999999",
    b"1e-320",
)


@dataclass(frozen=True)
class Case:
    """Valid files (path in a folder: bytes), the one to damage, and its reader, given the folder.

    guarded: a checksum covers what `read` returns, so nothing else than that of the whole files may come.
    """

    name: str
    files: Mapping[str, bytes]
    target: str
    read: Callable[[Path], Any]
    guarded: bool = False

    def damaged(self, seed: str, others: Sequence[bytes]) -> bytes:
        return mutate(self.files[self.target], random.Random(seed), others)


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """`data` damaged in one to three ways; `others` are files to splice with."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(
            ("bits", "bits", "bytes", "cut", "zeros", "repeat", "swap", "header", "number", "more", "join")
        )
        size = len(data)
        at, other = rng.randrange(size + 1), rng.randrange(size + 1)
        length = min(rng.choice((1, 2, 4, 16, 64, 256, 1024)), size)
        changed = bytearray(data)
        if kind in ("bits", "bytes"):
            for _ in range(rng.choice((1, 1, 2, 8)) if size else 0):
                place = rng.randrange(size)
                changed[place] = changed[place] ^ 1 << rng.randrange(8) if kind == "bits" else rng.randrange(256)
        elif kind == "cut":
            del changed[at:]
        elif kind == "zeros":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif kind == "repeat":
            changed[at:at] = data[at : at + length] * rng.choice((1, 2, 9))
        elif kind == "swap":
            first, second = sorted((at, other))
            changed = bytearray(
                data[:first] + data[second : second + length] + data[first:second] + data[second + length :]
            )
        elif kind == "header":
            place, width = rng.randrange(min(size, 256) + 1), rng.choice((1, 2, 4, 8))
            changed[place : place + width] = (rng.choice(EXTREMES) + bytes(width - 1))[:: rng.choice((1, -1))]
            if rng.random() < 0.5:
                changed[place : place + width] = rng.choice(EXTREMES) * width
        elif kind == "number" and (numbers := list(re.finditer(rb"-?\d+(\.\d+)?", data[: 1 << 16]))):
            found = rng.choice(numbers)
            changed[found.start() : found.end()] = rng.choice(TEXT_EXTREMES)
        elif kind == "more":
            changed += rng.choice((bytes(length), rng.randbytes(length), data))
        elif kind == "join" and others:
            tail = rng.choice(others)
            changed = bytearray(data[:at] + tail[rng.randrange(len(tail) + 1) :])
        data = bytes(changed)
    return data


@dataclass
class Tally:
    """What came of the damaged files of one reader."""

    num: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # where each fault was met first

    def add(self, index: int, verdict: str) -> None:
        self.num += 1
        if verdict in ("read", "refused"):
            setattr(self, verdict, getattr(self, verdict) + 1)
        else:
            self.faults[verdict] += 1
            self.first.setdefault(verdict, index)


def fingerprint(value: Any) -> str:
    """A digest of arrays, texts, numbers and what is made of them."""
    sha = hashlib.sha256()

    def add(item: Any) -> None:
        if hasattr(item, "tobytes"):
            sha.update(f"{item.dtype}{item.shape}".encode() + item.tobytes())
        elif isinstance(item, Mapping):
            for key in sorted(item, key=repr):
                add(key)
                add(item[key])
        elif isinstance(item, Iterable) and not isinstance(item, str | bytes):
            for inner in item:
                add(inner)
        else:
            sha.update(repr(item).encode())

    add(value)
    return sha.hexdigest()


def num_bytes(value: Any) -> int:
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(num_bytes, value.values()))
    return (
        sum(map(num_bytes, value)) if isinstance(value, list | tuple) else len(value) if isinstance(value, bytes) else 0
    )


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def verdict_of(case: Case, folder: Path, right: str | None) -> str:
    """Read what lies in the folder: "read", "refused", or what is wrong. `right`: the fingerprint that must come."""
    before = peak_bytes(reset=True)
    value = None
    try:
        value = case.read(folder)
        verdict = "read" if right is None or fingerprint(value) == right else "read, and is not what was written"
    except (ValueError, OSError) as error:
        text = str(error)
        names = {part for name in case.files for part in Path(name).parts} | {folder.name}
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename}: {error.strerror}"
        verdict = "refused"
        if len(text.splitlines()) != 1 or not any(name in text for name in names):
            verdict = f"{type(error).__name__} that is no line with the file's name: {place_of(error)}"
    except MemoryError as error:
        verdict = f"MemoryError: {place_of(error)}"
    except Exception as error:
        verdict = f"{type(error).__name__}: {place_of(error)}"
    grown = peak_bytes() - before
    if grown > FREE_BYTES + COPIES * num_bytes(value):
        return f"memory ({verdict.split(':')[0]})"
    return verdict


def place_of(error: BaseException) -> str:
    """The innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "spikevrt" in frame.filename and "fuzz" not in Path(frame.filename).name]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}, {frame.name}"


def peak_bytes(*, reset: bool = False) -> int:
    """The highest resident memory since the last reset; after one, that of now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) << 10


def work(cases: Sequence[Case], seed: int, folder: Path, pipe: Connection) -> None:
    """In a child: for every number that comes, damage, read, and send the verdict."""
    rights = []
    for case in cases:  # what lies there whole must be read; imports what is imported late
        write(folder, case.files)
        rights.append(fingerprint(case.read(folder)))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_BYTES, size + ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        index = pipe.recv()
        case, files = damaged_files(cases, seed, index)
        write(folder, files)
        pipe.send(verdict_of(case, folder, rights[index % len(cases)] if case.guarded else None))


def damaged_files(cases: Sequence[Case], seed: int, index: int) -> tuple[Case, dict[str, bytes]]:
    case = cases[index % len(cases)]
    others = [one.files[one.target] for one in cases]
    return case, dict(case.files) | {case.target: case.damaged(f"{seed}:{case.name}:{index}", others)}


class Child:
    """A process that reads damaged files; begun anew when it has died."""

    def __init__(self, cases: Sequence[Case], seed: int, folder: Path) -> None:
        self.arguments = (cases, seed, folder)
        self.process: Any = None
        self.pipe: Any = None

    def verdict(self, index: int) -> str:
        if self.process is None:
            self._begin()
        try:
            self.pipe.send(index)
            if self.pipe.poll(HANG_S):
                return str(self.pipe.recv())
            self.end()
            return f"hang of more than {HANG_S:g} s"
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            self.process = None
            return f"died of signal {-code}" if code < 0 else f"ended with status {code}"

    def _begin(self) -> None:
        fork = multiprocessing.get_context("fork")
        self.pipe, end = fork.Pipe()
        self.process = fork.Process(target=work, args=(*self.arguments, end), daemon=True)
        self.process.start()
        end.close()
        if not self.pipe.poll(60) or self.pipe.recv() != "ready":
            raise RuntimeError("the whole files could not be read")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def fuzz(
    cases: Sequence[Case], each: int, seed: int, *, deadline_s: float = float("inf"), keep: Path | None = None
) -> Tally:
    """`each` damaged files of the cases in turn, or as many as there is time for (by `time.monotonic`)."""
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        child = Child(cases, seed, Path(place) / "fuzzed")
        try:
            for index in range(each):
                if time.monotonic() > deadline_s:
                    break
                verdict = child.verdict(index)
                if verdict not in ("read", "refused") and verdict not in tally.faults and keep is not None:
                    case, files = damaged_files(cases, seed, index)
                    write(keep / f"{case.name}_{index}", files)
                tally.add(index, verdict)
        finally:
            child.end()
    tally.seconds = time.monotonic() - began
    return tally


def main() -> int:
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before they are loaded: children are forked
        os.environ.setdefault(threads, "1")
    from fuzz_readers import READERS, make

    parser = argparse.ArgumentParser(description="Damage files and read them.")
    parser.add_argument("--each", type=int, default=10_000, metavar="N", help="damaged files a reader (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="of all readers together (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS), help="of the readers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put the first files of every fault there")
    parser.add_argument("--case", metavar="READER:NUMBER", help="this one alone, here, with its traceback")
    parsed = parser.parse_args()
    if parsed.case:
        return again(parsed.case, parsed.seed, parsed.keep or Path(tempfile.mkdtemp()))
    ends = time.monotonic() + 60 * parsed.minutes
    print("| reader | files | read | refused | seconds | faults |\n|---|---|---|---|---|---|", flush=True)
    num_faults = 0
    for done, name in enumerate(parsed.only):
        now = time.monotonic()
        deadline_s = now + (ends - now) / (len(parsed.only) - done)
        tally = fuzz(make(name), parsed.each, parsed.seed, deadline_s=deadline_s, keep=parsed.keep)
        told = "; ".join(f"{count} x {what} (first {name}:{tally.first[what]})" for what, count in tally.faults.items())
        print(
            f"| {name} | {tally.num} | {tally.read} | {tally.refused} | {tally.seconds:.0f} | {told or 'none'} |",
            flush=True,
        )
        num_faults += sum(tally.faults.values())
    return 1 if num_faults else 0


def again(which: str, seed: int, keep: Path) -> int:
    from fuzz_readers import make

    name, _, number = which.partition(":")
    case, files = damaged_files(make(name), seed, int(number))
    folder = keep / "fuzzed"
    write(folder, files)
    print(f"{case.name}: {case.target} of {len(files[case.target])} bytes in {folder}")
    print(case.read(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
