"""The dry run: what a training step will need, found before a long run, and one real step beside it.

The live bytes and the arithmetic of a step are counted on shapes (`count_step`). What the C allocator adds to them, and
seconds, are measured on small steps (`measure_step`). All else is straight lines in pixels x samples (`LinearCost`).

Dimension key: B samples of one micro-batch, T frames, C channels, H x W pixels of a frame or of the spikes.
"""

from __future__ import annotations

import bisect
import copy
import math
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from spikevrt import runtime
from spikevrt.model.blocks import kept_shift_mask
from spikevrt.progress import clock
from spikevrt.restore.restorer import RestoreOptions
from spikevrt.train import folder
from spikevrt.train.optim import make_optimizer
from spikevrt.train.validation import validate

if TYPE_CHECKING:
    from spikevrt.config import Config
    from spikevrt.model.network import Network
    from spikevrt.train.loop import Run

GB = 1e9
MARGIN = 0.1  # share of the free memory that stays free
KERNELS_BYTES = 30_000_000  # code of the CPU kernels, which becomes resident when they first run
LEAST_OVERHEAD = 1.3  # resident over live bytes on a CPU: the least that was seen, used where nothing was measured
MOST_OVERHEAD = 3.0  # the most that was seen: small steps are run where they fit even so
TRACED_CROP_PX = 128  # larger crops are counted at this one: shapes take seconds too, and from here all is linear
MOST_CROP_PX = 1024  # suggested where the frames set no limit
MOST_BATCH = 4096
TIMED_STEPS = 2
LONG_STEP_S = 20.0  # a step slower than this is timed once

Batch = dict[str, Any]
Terms = Callable[[Batch, nn.Module], Mapping[str, Tensor]]  # the loss of a micro-batch, term by term, as `Run.terms`


@dataclass(frozen=True, order=True)
class Size:
    """Of one micro-batch: crops of `crop_px` x `crop_px`, `batch` of them."""

    crop_px: int
    batch: int

    @property
    def pixels(self) -> int:
        return self.batch * self.crop_px**2


@dataclass(frozen=True)
class CountedStep:
    """One forward, loss and backward pass: `live_bytes`, the peak of all tensors beside the parameters; `flops` of
    convolutions and matrix products, those that are recomputed included."""

    live_bytes: int
    flops: int


@dataclass(frozen=True)
class MeasuredStep:
    """A micro-batch that was really run: seconds, and the peak of the process (on CUDA: of torch's tensors)."""

    seconds: float
    peak_bytes: int


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of every storage that an operation creates, from creation to its end, and the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def ignore(self, tensors: Sequence[Tensor]) -> None:
        """Count these as nothing: they were there before."""
        for tensor in tensors:
            self.seen.add(tensor.untyped_storage())

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            num_bytes = storage.nbytes()
            self.now += num_bytes
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, num_bytes)

    def _freed(self, num_bytes: int) -> None:
        self.now -= num_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out


def random_batch(sample: Mapping[str, Any], size: Size, device: torch.device) -> Batch:
    """A micro-batch of noise with the clips of `sample`, (T,C,H,W) each, at another size."""
    crop_px = sample["blur"].shape[-1]
    batch: Batch = {"meta": [sample["meta"]] * size.batch}
    for name, value in sample.items():
        if isinstance(value, Tensor) and value.ndim == 4:
            side = size.crop_px * value.shape[-1] // crop_px
            batch[name] = torch.rand((size.batch, *value.shape[:2], side, side), device=device)
    return batch


def count_step(network: nn.Module, terms: Terms, sample: Mapping[str, Any], size: Size) -> CountedStep:
    """Forward, loss and backward of `network` (untouched) at `size`, on shapes alone: nothing is computed.

    The network takes the step on fake tensors, which have shapes and no values; each storage is added up in the order
    in which a real step makes and frees it. Acts as on the device where the network lies. Checkpointing and mixed
    precision do what they do in a real step. Only the masks of shifted windows are really made.
    """
    device = next(network.parameters()).device
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    kept_shift_mask.cache_clear()  # they count as part of a step
    with fake:
        values = {id(b): torch.empty_like(b) for b in network.buffers()}
        values |= {id(p): nn.Parameter(torch.empty_like(p), p.requires_grad) for p in network.parameters()}
        batch = random_batch(sample, size, device)
    network = copy.deepcopy(network, values)  # the layers anew, around the fake values
    network.train()
    live = LiveBytes()
    live.ignore([*network.parameters(), *network.buffers()])
    for value in batch.values():
        if isinstance(value, Tensor):
            live.add(value)
    with live:
        torch.stack(list(terms(batch, network).values())).sum().backward()
    kept_shift_mask.cache_clear()
    return CountedStep(live.peak, live.flops)


def measure_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    terms: Terms,
    sample: Mapping[str, Any],
    size: Size,
    clip_norm: float,
) -> MeasuredStep:
    """Really run steps at `size` on random clips: one to warm up, then those timed; `network` and `optimizer` change.

    Seconds are the median; the memory is the peak of all. A step of more than `LONG_STEP_S` is timed once.
    """
    device = next(network.parameters()).device
    network.train()
    runtime.reset_peak_memory(device)
    seconds: list[float] = []
    while len(seconds) <= TIMED_STEPS and not (len(seconds) > 1 and seconds[-1] > LONG_STEP_S):
        batch = random_batch(sample, size, device)
        runtime.synchronise(device)
        began = time.perf_counter()
        torch.stack(list(terms(batch, network).values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        runtime.synchronise(device)
        seconds.append(time.perf_counter() - began)
    return MeasuredStep(statistics.median(seconds[1:]), runtime.peak_memory_bytes(device))


def optimizer_bytes(network: nn.Module, config: Config) -> int:
    """The optimiser's moments and the averaged copy of the weights, which are allocated by the first step."""
    trained = [p for p in network.parameters() if p.requires_grad]
    num_values = sum(p.numel() for p in trained)
    moments = 2 * num_values if config.optim.kind == "adamw8bit" else 2 * sum(p.nbytes for p in trained)
    return moments + (sum(p.nbytes for p in network.parameters()) if config.optim.ema_decay > 0 else 0)


@dataclass(frozen=True)
class LinearCost:
    """What a step of any size takes: straight lines through a few sizes of one config.

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


@dataclass(frozen=True)
class Forecast:
    """The answer for one config: what `size` takes, and which other sizes fit into `budget_bytes` (None: not known)."""

    size: Size
    cost: LinearCost
    budget_bytes: int | None
    free_bytes: int | None
    crops_px: tuple[int, ...]  # the legal ones, ascending
    accumulate: int
    steps: int
    found_in_s: float  # the forecast itself

    @property
    def step_s(self) -> float:
        """One optimiser step, waiting for data not included."""
        return self.accumulate * self.cost.seconds(self.size)

    def fits(self, size: Size) -> bool:
        return self.budget_bytes is None or self.cost.peak_bytes(size) <= self.budget_bytes

    def largest_crop_px(self, batch: int) -> int | None:
        """The largest legal crop that fits at that batch; None where not even the smallest does."""
        num_fit = bisect.bisect(self.crops_px, False, key=lambda crop_px: not self.fits(Size(crop_px, batch)))
        return self.crops_px[num_fit - 1] if num_fit else None

    def largest_batch(self, crop_px: int) -> int | None:
        """The largest batch (up to `MOST_BATCH`) that fits at that crop; None where not even one sample does."""
        sizes = range(1, MOST_BATCH + 1)
        return bisect.bisect(sizes, False, key=lambda batch: not self.fits(Size(crop_px, batch))) or None

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
        needed = f"{self.cost.peak_bytes(self.size) / GB:.1f} GB"
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
        peak = self.cost.peak_bytes(self.size) / GB
        lines = [f"forecast     peak memory {peak:.2f} GB, {seconds} (found in {self.found_in_s:.0f} s)"]
        if self.free_bytes is not None:
            crop_fits, batch_fits = self.largest_crop_px(batch), self.largest_batch(crop_px)
            lines += [
                f"memory       {self.free_bytes / GB:.1f} GB are free, {MARGIN:.0%} of them kept",
                f"largest crop {'none' if crop_fits is None else crop_fits} at batch {batch}",
                f"     batch   {'none' if batch_fits is None else batch_fits} at crop {crop_px}",
            ]
        return lines


def forecast(
    network: Network, terms: Terms, config: Config, sample: Mapping[str, Any], *, most_crop_px: int = MOST_CROP_PX
) -> Forecast:
    """What a step of `config` on clips like `sample` takes on the device where `network` lies, which is untouched.

    Runs small steps of a copy of the network for real (three at the smallest legal crop, batch 1 and 2, as far as they
    surely fit), and everything else on shapes. Where none fits, memory is the least that it can be (`LEAST_OVERHEAD`)
    and seconds stay 0.
    """
    began = time.perf_counter()
    device = next(network.parameters()).device
    on_cpu = device.type == "cpu"
    held, free = runtime.held_bytes(device), runtime.free_bytes(device)
    budget = None if free is None else held + round((1 - MARGIN) * free)
    size = Size(config.data.crop_px, config.data.batch)
    single, double = Size(network.min_size_px, 1), Size(network.min_size_px, 2)
    counts = {s: count_step(network, terms, sample, s) for s in (single, double)}
    at = Size(max(single.crop_px, min(size.crop_px, TRACED_CROP_PX)), 1)
    at_crop = counts[single] if at == single else count_step(network, terms, sample, at)
    live_offset, _ = line_through(*((s.pixels, count.live_bytes) for s, count in counts.items()))
    live_per_pixel = (at_crop.live_bytes - live_offset) / at.pixels
    fixed = held + optimizer_bytes(network, config) + (KERNELS_BYTES if on_cpu else 0)
    overhead, offset_s, s_per_flop = LEAST_OVERHEAD if on_cpu else 1.0, 0.0, 0.0
    small = [s for s, count in counts.items() if budget is None or fixed + MOST_OVERHEAD * count.live_bytes <= budget]
    if small:
        trained = copy.deepcopy(network)
        optimizer = make_optimizer(trained, config.optim)
        runs = [measure_step(trained, optimizer, terms, sample, s, config.optim.clip_norm) for s in small]
        timed = [(counts[s].flops, run.seconds) for s, run in zip(small, runs, strict=True)]
        offset_s, s_per_flop = line_through(*timed) if len(timed) == 2 else (0.0, timed[0][1] / timed[0][0])
        copied = sum(t.nbytes for t in (*trained.parameters(), *trained.buffers()))
        overhead = max(1.0, (runs[-1].peak_bytes - fixed - copied) / counts[small[-1]].live_bytes)
    if config.train.accumulate > 1:  # the gradients of the first micro-batch are there at the peak of the next
        fixed += sum(p.nbytes for p in network.parameters() if p.requires_grad)
    cost = LinearCost(fixed, live_offset, live_per_pixel, overhead, offset_s, s_per_flop * at_crop.flops / at.pixels)
    ratio = sample["blur"].shape[-1] // sample["spike_vox"].shape[-1] if "spike_vox" in sample else 1
    step_px = math.lcm(network.pad_multiple, ratio)
    first_px = math.ceil(network.min_size_px / step_px) * step_px
    crops_px = tuple(range(first_px, most_crop_px + 1, step_px))
    spent = time.perf_counter() - began
    return Forecast(size, cost, budget, free, crops_px, config.train.accumulate, config.optim.steps, spent)


def dry_run(run: Run) -> None:
    """Print the forecast, one real step and one validation clip; nothing is written.

    Raises:
        ValueError: the config does not fit into the memory (one line).
    """
    config, ranks = run.config, run.ranks

    def say(line: str) -> None:
        if ranks.is_first:
            print(line)

    num_params = sum(p.numel() for p in run.network.parameters())
    say(f"network      {num_params:,} parameters, {config.train.precision} on {run.device.type}")
    say(f"data         {len(run.clips)} training clips, {len(run.val_clips)} validation clips")
    if run.is_sharded or config.train.compile:
        say("forecast     none with train.parallel fsdp or train.compile")
    else:
        sides = [min(sequence.width, sequence.height) for sequence in run.clips.sequences]
        most_crop_px = min(sides, default=MOST_CROP_PX)
        found = forecast(run.network, run.terms, config, run.clips[0], most_crop_px=most_crop_px)
        for line in found.lines():
            say(line)
        found.check()
    runtime.reset_peak_memory(run.device)
    batches = iter(run.loader())
    run.trained.train()
    began = time.perf_counter()
    micro_batches, wait_s = run.fetch(batches)
    terms, grad_norm = run.take_step(micro_batches)
    runtime.synchronise(run.device)
    step_s, peak_bytes = time.perf_counter() - began, runtime.peak_memory_bytes(run.device)
    size = f"{config.data.clip_frames}x{config.data.crop_px}x{config.data.crop_px}"
    say(f"one step     {run.clips_per_step} clips of {size} in {step_s:.2f} s, the first ({wait_s:.2f} s for data)")
    say(f"             loss {sum(terms.values()):.4f}, gradient norm {grad_norm:.3f}")
    say(f"peak memory  {peak_bytes / 1e9:.2f} GB")
    judged = run.judged(folder.whole_weights(run.network, run.average))
    score = validate(judged, run.val_clips, RestoreOptions(), ranks, max_clips=ranks.world, flow=run.flow)
    say(f"validation   {score.seconds / ranks.world:.2f} s a clip, {score.metric} {score.value:.2f} dB")
    say(f"dry run: {config.optim.steps} such steps would take about {clock(step_s * config.optim.steps)}; "
        "nothing was written")  # fmt: skip
