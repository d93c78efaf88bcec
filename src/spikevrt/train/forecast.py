"""What a training step will need, told before a long run: peak memory, seconds, and the sizes that fit.

The live bytes of a step are counted on shapes (`train.step_work`). What the C allocator adds to them, and seconds, are
measured on small steps (`measure_step`). The rest is straight lines in pixels x samples (`Needs`).
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from spikevrt import runtime
from spikevrt.train.step_work import Size, StepLoss, random_batch, step_work

if TYPE_CHECKING:
    from spikevrt.config import Config
    from spikevrt.model.network import Network

GB = 1e9
MARGIN = 0.1  # share of the free memory that stays free
KERNELS_BYTES = 30_000_000  # code of the CPU kernels, which becomes resident when they first run
LEAST_OVERHEAD = 1.3  # resident over live bytes on a CPU: the least that was seen, used where nothing was measured
TRACED_CROP_PX = 128  # larger crops are counted at this one: shapes take seconds too, and from here all is linear
MOST_OVERHEAD = 3.0  # the most that was seen: small steps are run where they fit even so
MOST_BATCH = 4096
LONG_STEP_S = 20.0  # a step slower than this is timed once


@dataclass(frozen=True)
class Measured:
    """A micro-batch that was really run: seconds, and the peak of the process (on CUDA: of torch's tensors)."""

    seconds: float
    peak_bytes: int


def measure_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: StepLoss,
    config: Config,
    size: Size,
    *,
    spike_ratio: int = 2,
    repeats: int = 2,
) -> Measured:
    """Really run steps at `size` on random clips: one to warm up, then `repeats`; `network` and `optimizer` change.

    Seconds are the median; the memory is the peak of all. Steps of more than `LONG_STEP_S` are repeated once.
    """
    device = next(network.parameters()).device
    network.train()
    runtime.reset_peak_memory(device)
    seconds: list[float] = []
    while len(seconds) <= repeats and not (len(seconds) > 1 and seconds[-1] > LONG_STEP_S):
        batch = random_batch(config, size, device, spike_ratio)
        runtime.synchronise(device)
        began = time.perf_counter()
        loss(network, batch).backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        runtime.synchronise(device)
        seconds.append(time.perf_counter() - began)
    return Measured(statistics.median(seconds[1:]), runtime.peak_memory_bytes(device))


def optimizer_bytes(network: nn.Module, config: Config) -> int:
    """The optimiser's moments and the averaged copy of the weights, which come into being with the first step."""
    trained = [p for p in network.parameters() if p.requires_grad]
    num_values = sum(p.numel() for p in trained)
    moments = 2 * num_values if config.optim.kind == "adamw8bit" else 2 * sum(p.nbytes for p in trained)
    return moments + (sum(p.nbytes for p in network.parameters()) if config.optim.ema_decay > 0 else 0)


@dataclass(frozen=True)
class Needs:
    """Straight lines through a few sizes of one config: what any size needs.

    `fixed_bytes`: the process with its network, moments and averages. A step's own bytes are `live_offset_bytes` plus
    `live_bytes_per_pixel` for each pixel of each sample, times `overhead`.
    """

    fixed_bytes: int
    live_offset_bytes: float
    live_bytes_per_pixel: float
    overhead: float
    offset_s: float
    s_per_pixel: float

    def peak_bytes(self, size: Size) -> int:
        live = self.live_offset_bytes + self.live_bytes_per_pixel * size.pixels
        return round(self.fixed_bytes + self.overhead * live)

    def seconds(self, size: Size) -> float:
        """Of one micro-batch with its optimiser step."""
        return self.offset_s + self.s_per_pixel * size.pixels


def line_through(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """(offset, slope) of the line through two points (x, y); an offset below 0 becomes 0, through the second point."""
    (x1, y1), (x2, y2) = first, second
    slope = (y2 - y1) / (x2 - x1)
    offset = y1 - slope * x1
    return (offset, slope) if offset >= 0 and slope >= 0 else (0.0, y2 / x2)


def largest(fits: Callable[[int], bool], choices: Sequence[int]) -> int | None:
    """The last of the ascending `choices` that fits, by bisection: where one fits, all before it do. None: not one."""
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(choices[middle]) else (low, middle)
    return choices[low - 1] if low else None


@dataclass(frozen=True)
class Forecast:
    """The answer for one config: what `size` needs, and which other sizes fit into `budget_bytes` (None: not known)."""

    size: Size
    needs: Needs
    budget_bytes: int | None
    free_bytes: int | None
    crops_px: tuple[int, ...]  # the legal ones, ascending
    accumulate: int
    steps: int
    cost_s: float  # of the forecast itself

    @property
    def step_s(self) -> float:
        """One optimiser step, waiting for data not included."""
        return self.accumulate * self.needs.seconds(self.size)

    def fits(self, size: Size) -> bool:
        return self.budget_bytes is None or self.needs.peak_bytes(size) <= self.budget_bytes

    def largest_crop_px(self, batch: int) -> int | None:
        """The largest legal crop that fits at that batch; None where not even the smallest does."""
        return largest(lambda crop_px: self.fits(Size(crop_px, batch)), self.crops_px)

    def largest_batch(self, crop_px: int) -> int | None:
        """The largest batch (up to `MOST_BATCH`) that fits at that crop; None where not even one sample does."""
        return largest(lambda batch: self.fits(Size(crop_px, batch)), range(1, MOST_BATCH + 1))

    def check(self) -> None:
        """Raises ValueError (one line: what is needed, what is free, what is allowed) where `size` does not fit."""
        if self.fits(self.size):
            return
        assert self.free_bytes is not None
        crop_px, batch = self.size.crop_px, self.size.batch
        allowed = []
        if (crop_fits := self.largest_crop_px(batch)) is not None:
            allowed.append(f"crop_px up to {crop_fits} at batch {batch}")
        if (batch_fits := self.largest_batch(crop_px)) is not None:
            allowed.append(f"batch up to {batch_fits} at crop_px {crop_px}")
        elif batch > 1 and (crop_fits := self.largest_crop_px(1)) is not None:
            allowed.append(f"batch up to {self.largest_batch(crop_fits)} at crop_px {crop_fits}")
        needed = f"{self.needs.peak_bytes(self.size) / GB:.1f} GB"
        raise ValueError(
            f"data.crop_px: {crop_px} with data.batch {batch} needs about {needed}; "
            f"{self.free_bytes / GB:.1f} GB are free; "
            f"allowed here: {', or '.join(allowed) or 'no size of this network'}"
        )

    def lines(self) -> list[str]:
        """The report of the dry run, a line each."""
        hours, rest = divmod(round(self.step_s * self.steps), 3600)
        crop_px, batch = self.size.crop_px, self.size.batch
        seconds = f"{self.step_s:.2f} s a step, {self.steps} steps in {hours}:{rest // 60:02d} h"
        if self.step_s == 0:
            seconds = "seconds unknown, no step was run"
        peak = self.needs.peak_bytes(self.size) / GB
        lines = [f"forecast     peak memory {peak:.2f} GB, {seconds} (found in {self.cost_s:.0f} s)"]
        if self.free_bytes is not None:
            crop_fits, batch_fits = self.largest_crop_px(batch), self.largest_batch(crop_px)
            lines += [
                f"memory       {self.free_bytes / GB:.1f} GB are free, {MARGIN:.0%} of them kept",
                f"largest crop {'none' if crop_fits is None else crop_fits} at batch {batch}",
                f"     batch   {'none' if batch_fits is None else batch_fits} at crop {crop_px}",
            ]
        return lines


def forecast(
    network: Network,
    loss: StepLoss,
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
    config: Config,
    *,
    spike_ratio: int = 2,
    most_crop_px: int = 1024,
    free: int | None = None,
    run_steps: bool = True,
) -> Forecast:
    """What a step of `config` will need on the device where `network` lies, which is left untouched.

    Runs small steps of a copy of the network for real (three at the smallest legal crop, batch 1 and 2, as far as they
    surely fit), and everything else on shapes. Without `run_steps` only shapes are looked at: memory is then the
    least that it can be (`LEAST_OVERHEAD`) and seconds stay 0; good for a warning. `free` stands in for `free_bytes`.
    """
    began = time.perf_counter()
    device = next(network.parameters()).device
    on_cpu = device.type == "cpu"
    held = runtime.held_bytes(device)
    free = runtime.free_bytes(device) if free is None else free
    budget = None if free is None else held + round((1 - MARGIN) * free)
    size = Size(config.data.crop_px, config.data.batch)
    single, double = Size(network.min_size_px, 1), Size(network.min_size_px, 2)
    works = {s: step_work(network, loss, config, s, spike_ratio=spike_ratio) for s in (single, double)}
    at = Size(max(single.crop_px, min(size.crop_px, TRACED_CROP_PX)), 1)
    at_crop = works[single] if at == single else step_work(network, loss, config, at, spike_ratio=spike_ratio)
    live_offset, _ = line_through(*((s.pixels, work.live_bytes) for s, work in works.items()))
    live_per_pixel = (at_crop.live_bytes - live_offset) / at.pixels
    moments = optimizer_bytes(network, config)
    fixed = held + moments + (KERNELS_BYTES if on_cpu else 0)
    overhead, offset_s, s_per_flop = LEAST_OVERHEAD if on_cpu else 1.0, 0.0, 0.0
    small = [s for s, work in works.items() if budget is None or fixed + MOST_OVERHEAD * work.live_bytes <= budget]
    if run_steps and small:
        trained = copy.deepcopy(network)
        optimizer = optimizer_of(trained)
        runs = [measure_step(trained, optimizer, loss, config, s, spike_ratio=spike_ratio) for s in small]
        timed = [(works[s].flops, run.seconds) for s, run in zip(small, runs, strict=True)]
        offset_s, s_per_flop = line_through(*timed) if len(timed) == 2 else (0.0, timed[0][1] / timed[0][0])
        copied = sum(t.nbytes for t in (*trained.parameters(), *trained.buffers()))
        overhead = max(1.0, (runs[-1].peak_bytes - fixed - copied) / works[small[-1]].live_bytes)
    if config.train.accumulate > 1:  # the gradients of the first micro-batch are there at the peak of the next
        fixed += sum(p.nbytes for p in network.parameters() if p.requires_grad)
    needs = Needs(
        fixed_bytes=fixed,
        live_offset_bytes=live_offset,
        live_bytes_per_pixel=live_per_pixel,
        overhead=overhead,
        offset_s=offset_s,
        s_per_pixel=s_per_flop * at_crop.flops / at.pixels,
    )
    step_px = math.lcm(network.pad_multiple, spike_ratio)
    first_px = math.ceil(network.min_size_px / step_px) * step_px
    crops_px = tuple(range(first_px, most_crop_px + 1, step_px))
    spent = time.perf_counter() - began
    return Forecast(size, needs, budget, free, crops_px, config.train.accumulate, config.optim.steps, spent)
