"""What a run tells while it runs: JSON lines for machines, TensorBoard where it is installed; throughput."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikevrt import runtime
from spikevrt.atomic import write_text
from spikevrt.typed import convert

JOURNAL_FILE, TENSORBOARD_FOLDER = "journal.jsonl", "tensorboard"
Rows = Sequence[dict[str, Any]]  # of a journal, as `read_journal` gives them
SCORES = {  # the first that a run has is its score; its axis in a diagram
    "psnr_rgb": "validation psnr_rgb, dB",
    "reblur_psnr": "validation reblur_psnr, dB",
}


class Journal:
    """Appends rows to `out/journal.jsonl` (each has `step` and `kind`) and their numbers to `out/tensorboard`.

    Rows later than `start_step` are cut off first: a resumed run takes those steps again.
    """

    def __init__(self, out: Path, *, start_step: int) -> None:
        path = out / JOURNAL_FILE
        kept = [row for row in read_journal(out) if row["step"] <= start_step] if path.exists() else []
        write_text(path, "".join(_line(row) for row in kept))
        self._file = path.open("ab", buffering=0)
        self._pending = b""  # rows that a full disk did not take yet
        self._tensorboard = _tensorboard(out / TENSORBOARD_FOLDER, start_step)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one row, written when this returns. Numbers that are not finite become null.

        What a full disk does not take is kept and written with a later row.
        """
        row = {"kind": kind, "step": step} | {name: _finite(value) for name, value in values.items()}
        self._pending += _line(row).encode()
        end, written = self._file.seek(0, os.SEEK_END), 0
        with contextlib.suppress(OSError):
            written = self._file.write(self._pending)
        if written == len(self._pending):
            self._pending = b""
        else:
            os.ftruncate(self._file.fileno(), end)  # no half row
        with contextlib.suppress(OSError):  # its writer fails on a full disk; the journal goes on
            for name, value in row.items() if self._tensorboard is not None else ():
                if isinstance(value, float | int) and not isinstance(value, bool) and name != "step":
                    self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, prefix: Path, step: int) -> None:
        """Show the picture files PREFIX_<sequence>_<frame>.png in TensorBoard."""
        if self._tensorboard is None:
            return
        from PIL import Image

        for path in sorted(prefix.parent.glob(f"{prefix.name}_*.png")):
            with contextlib.suppress(OSError), Image.open(path) as image:
                name = path.stem.removeprefix(f"{prefix.name}_")
                self._tensorboard.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        if self._tensorboard is not None:
            with contextlib.suppress(OSError):
                self._tensorboard.close()


def score_name(rows: Rows) -> str | None:
    """Which of `SCORES` this run is judged by; None when it has not been validated."""
    return next((name for name in SCORES if series(rows, "validation", name)), None)


def series(rows: Rows, kind: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of all rows that have one; a number that was not finite is null in the journal and left out."""
    return [(row["step"], row[name]) for row in rows if row["kind"] == kind and isinstance(row.get(name), float | int)]


@dataclass(frozen=True)
class _Row:
    """What every row has."""

    step: int
    kind: str


def read_journal(out: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's journal; a last line that a crash cut short is left out.

    Raises:
        FileNotFoundError: no journal in `out`.
        ValueError: a line that is no JSON row (named).
    """
    path = Path(out) / JOURNAL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such journal")
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
            convert(row, _Row)
        except (ValueError, RecursionError):
            raise ValueError(f"{path}: line {number} is no journal row") from None
        rows.append(row)
    return rows


class Meter:
    """Throughput since the last reading. `loss.item()` in every step has synchronised the device already."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        self.losses: list[dict[str, float]] = []  # the terms of each step, since the last reading
        self.go_on()

    def go_on(self) -> None:
        """Leave out the time that has passed, on validation for example."""
        self.began, self.cpu_began = time.perf_counter(), time.process_time()
        self.num_clips, self.wait_s = 0, 0.0

    def count(self, num_clips: int, terms: dict[str, float], wait_s: float) -> None:
        self.num_clips += num_clips
        self.losses.append(terms)
        self.wait_s += wait_s

    def read(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self.began
        names = dict.fromkeys(name for terms in self.losses for name in terms)  # a resumed run may have others now
        means = {name: sum(terms.get(name, 0.0) for terms in self.losses) / len(self.losses) for name in names}
        values = {
            "loss": sum(means.values()),
            **({f"loss_{name}": value for name, value in means.items()} if len(means) > 1 else {}),
            "clips_per_s": self.num_clips / seconds,
            "data_wait": self.wait_s / seconds,
            "device_load": self._load(seconds),
            "peak_bytes": runtime.peak_memory_bytes(self.device),
        }
        self.restart()
        return values

    def _load(self, seconds: float) -> float | None:
        """Share of the device in use: of all threads on a CPU; on CUDA what its driver says, None where it cannot."""
        if self.device.type == "cpu":
            return (time.process_time() - self.cpu_began) / seconds / torch.get_num_threads()
        try:
            return torch.cuda.utilization(self.device) / 100
        except (ImportError, RuntimeError):
            return None


def in_words(row: dict[str, Any]) -> str:
    """A row of the journal as progress shows it."""
    terms = [f"{name[5:]} {value:.4f}" for name, value in row.items() if name.startswith("loss_")]
    shown = f" ({', '.join(terms)})" if terms else ""
    load = "" if row["device_load"] is None else f", load {row['device_load']:.0%}"
    return (
        f"loss {row['loss']:.4f}{shown}, lr {row['lr']:.1e}, "
        f"grad {row['grad_norm']:.2f}, {row['clips_per_s']:.2f} clips/s, {row['data_wait']:.0%} data wait{load}, "
        f"{row['peak_bytes'] / 1e9:.1f} GB"
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _tensorboard(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start_step + 1)
