"""The training loop, in one piece: a clip goes in at the top and a step has been taken at the bottom.

Step n is a function of the weights after step n - 1, of (seed, n) and of the clips at its place in the stream. So a run
that was stopped and resumed has taken the same steps as one that never stopped.

Dimension key: B samples of one micro-batch, T frames, H image rows, W image columns.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from spikevrt import runtime
from spikevrt.config import Config
from spikevrt.data.dataset import ClipDataset, DatasetInfo, collate
from spikevrt.data.degrade import check_degrade
from spikevrt.losses import VggRelu33, charbonnier, feature_distance
from spikevrt.model.network import SpikeVRT
from spikevrt.model.weights import load_strict, load_vrt_checkpoint
from spikevrt.restore.restorer import RestoreOptions
from spikevrt.train import folder
from spikevrt.train.journal import Journal, Meter, Progress, clock
from spikevrt.train.optim import check_optim, make_optimizer, set_lr
from spikevrt.train.ranks import Ranks, join_ranks
from spikevrt.train.sampler import ClipStream, StreamedDataset
from spikevrt.train.signals import StopRequest, reset_worker_signals
from spikevrt.train.validation import validate

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MAX_SKIPPED_IN_A_ROW = 10


def train(
    config: Config, out: str | Path, *, resume: bool = False, dry_run: bool = False, overwrite: bool = False
) -> Path | None:
    """Train `config` into the folder `out`; returns the best weights, or None after a dry run (which writes nothing).

    `resume` continues the run in `out` from its last saved step; `overwrite` discards it. Under torchrun every process
    calls this. SIGINT and SIGTERM save the state after the step in hand and end the run.

    Raises:
        FileExistsError: `out` exists and neither `resume` nor `overwrite` was given.
        FileNotFoundError: no dataset, no state to resume, no initial or perceptual weights.
        ValueError: a setting that cannot be obeyed, or a loss that stays NaN.
    """
    out = Path(out)
    _check(config)
    if not dry_run:
        folder.check(out, resume=resume, overwrite=overwrite)
    with join_ranks(config.train.device) as ranks:
        if dry_run:
            _Run(config, ranks, None).measure()
            return None
        saved = folder.load(out, config) if resume else None
        run = _Run(config, ranks, saved)
        if ranks.is_first:
            folder.create(out, config, run.info, ranks.world, resume=resume)
        ranks.wait()
        run.loop(out)
    best = out / folder.BEST_WEIGHTS
    return best if best.is_file() else out / folder.LAST_WEIGHTS


def _check(config: Config) -> None:
    check_optim(config.optim)
    check_degrade(config.data)
    counts = {
        "data.batch": (config.data.batch, 1),
        "data.workers": (config.data.workers, 0),
        **{
            f"train.{name}": (getattr(config.train, name), 1)
            for name in ("accumulate", "validate_every", "picture_every", "checkpoint_every", "log_every")
        },
    }
    vrt, loss = config.model.vrt, config.loss
    if vrt.upscale != 1 or vrt.nonblind_denoising or vrt.pa_frames == 0:
        raise ValueError("model.vrt: training is for deblurring: upscale 1, no noise map, pa_frames 2, 4 or 6")
    counts["data.clip_frames"] = (config.data.clip_frames, max(2, 1 + vrt.pa_frames // 2))
    if loss.perceptual_weight < 0:
        raise ValueError(f"loss.perceptual_weight: {loss.perceptual_weight}; allowed: 0 (off) or more")
    if loss.perceptual_weight == 0 and loss.perceptual_file is not None:
        raise ValueError("loss.perceptual_file: given, but loss.perceptual_weight is 0, which turns the term off")
    for name, (value, least) in counts.items():
        if value < least:
            raise ValueError(f"{name}: {value}; allowed: {least} or more")


class _Run:
    """Everything that one run holds: built once, then `loop` (or `measure`, for a dry run)."""

    def __init__(self, config: Config, ranks: Ranks, saved: dict[str, Any] | None) -> None:
        self.config, self.ranks = config, ranks
        self.device = runtime.pick_device(config.train.device)
        runtime.autocast(self.device, config.train.precision)  # refuses what the device cannot do
        if self.device.type == "cpu":
            runtime.tune_allocator()
        runtime.seed_everything(config.train.seed)
        self.clips, self.val_clips = _datasets(config)
        self.info: DatasetInfo = self.clips.info
        self.network = SpikeVRT(config.model)
        _check_crop(config.data.crop_px, self.network)
        if config.train.init_vrt is None:
            self.network.start_at_identity()
        elif saved is None:
            load_vrt_checkpoint(self.network.vrt, config.train.init_vrt)
        self.network.to(self.device)
        self.vgg = None
        if config.loss.perceptual_weight > 0:
            self.vgg = VggRelu33(config.loss.perceptual_file).to(self.device)
        self.optimizer = make_optimizer(self.network, config.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.precision == "fp16")
        self.step = self.samples = self.skipped = 0
        self.best_psnr = -math.inf
        if saved is not None:
            folder.check_statistics(saved, config, self.info)
            self.restore_state(saved)
        self.trained: nn.Module = self.network
        if ranks.world > 1:
            device_ids = [self.device] if self.device.type == "cuda" else None
            self.trained = DistributedDataParallel(self.network, device_ids=device_ids)

    def loop(self, out: Path) -> None:
        """Take every step that is left; validate, save and tell on the way."""
        config, ranks = self.config, self.ranks
        steps = config.optim.steps
        journal = Journal(out, start_step=self.step) if ranks.is_first else None
        progress = Progress(start_step=self.step, stop_step=steps, visible=ranks.is_first)
        skipped_in_a_row, stopped, began, meter = 0, 0.0, time.perf_counter(), Meter(self.device)
        runtime.reset_peak_memory(self.device)
        batches = iter(self.loader())
        self.trained.train()
        with StopRequest() as stop, progress:
            while self.step < steps:
                lr = set_lr(self.optimizer, self.step, config.optim)
                loss, grad_norm, wait_s = self.take_step(batches)
                loss, stopped = ranks.mean([loss, float(bool(stop.signal_name))], self.device)
                self.step += 1
                meter.count(config.data.batch * config.train.accumulate * ranks.world, loss, wait_s)
                if math.isfinite(loss) and math.isfinite(grad_norm):
                    skipped_in_a_row = 0
                else:
                    self.skipped += 1
                    # a finite loss whose gradient is not, in fp16: the scaler has gone too high and comes down
                    overflow = self.scaler.is_enabled() and math.isfinite(loss)
                    skipped_in_a_row += not overflow
                    if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                        raise ValueError(_divergence(out, self.step))
                if journal and (self.step % config.train.log_every == 0 or self.step == steps):
                    row = meter.read() | {"lr": lr, "grad_norm": grad_norm, "skipped": self.skipped}
                    journal.write("train", self.step, **row)
                    told = f"loss {row['loss']:.4f}, {row['clips_per_s']:.2f} clips/s, {row['data_wait']:.0%} data wait"
                    progress.update(self.step, told)
                last = self.step == steps
                if last or self.step % config.train.validate_every == 0 or self.step % config.train.picture_every == 0:
                    self.score(out, journal, progress)
                    meter.restart()
                if last or stopped or self.step % config.train.checkpoint_every == 0:
                    self.save(out)
                if stopped:
                    break
        if journal:
            journal.close()
            reason = f"stopped by {stop.signal_name or 'another rank'}, --resume continues" if stopped else "done"
            spent = clock(time.perf_counter() - began)
            best = f"best psnr_rgb {self.best_psnr:.2f} dB" if self.best_psnr > -math.inf else "not validated yet"
            progress.say(f"{reason}: step {self.step}/{steps}, {best}, {spent}")

    def take_step(self, batches: Any) -> tuple[float, float, float]:
        """One optimiser step over `accumulate` micro-batches, skipped where loss or gradient is not finite.

        Returns this rank's loss, the gradient norm before clipping, and seconds spent waiting for data.
        """
        config = self.config
        torch.manual_seed(_step_seed(config.train.seed, self.step, self.ranks.rank))
        loss_sum, wait_s = 0.0, 0.0
        for micro in range(config.train.accumulate):
            asked = time.perf_counter()
            batch = next(batches)
            wait_s += time.perf_counter() - asked
            is_last = micro == config.train.accumulate - 1
            with contextlib.nullcontext() if is_last else self.no_sync():
                loss = self.loss(batch) / config.train.accumulate
                self.scaler.scale(loss).backward()
            loss_sum += loss.item()
        self.samples += config.data.batch * config.train.accumulate * self.ranks.world
        self.scaler.unscale_(self.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.optim.clip_norm).item()
        # Averaged gradients make the norm the same on every rank, so all of them skip or none does.
        if math.isfinite(grad_norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_sum, grad_norm, wait_s

    def no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Several ranks: keep the gradients of this micro-batch here; the last one's exchange covers all."""
        return self.trained.no_sync() if isinstance(self.trained, DistributedDataParallel) else contextlib.nullcontext()

    def loss(self, batch: dict[str, Any]) -> Float[Tensor, ""]:
        """Charbonnier plus, where asked for, the weighted VGG feature distance of one micro-batch."""
        config = self.config.loss
        blur, sharp = (batch[key].to(self.device, non_blocking=True) for key in ("blur", "sharp"))
        spike_vox = batch["spike_vox"].to(self.device, non_blocking=True) if "spike_vox" in batch else None
        spikes_present = batch["spikes_present"].to(self.device) if "spikes_present" in batch else None
        with runtime.autocast(self.device, self.config.train.precision):
            restored = self.trained(blur, spike_vox, spikes_present).float()
        loss = charbonnier(restored, sharp, config.charbonnier_eps)
        if self.vgg is not None:
            with runtime.autocast(self.device, self.config.train.precision):
                distance = feature_distance(self.vgg, restored.flatten(0, 1), sharp.flatten(0, 1))
            loss = loss + config.perceptual_weight * distance
        return loss

    def score(self, out: Path, journal: Journal | None, progress: Progress) -> None:
        """Validate through the restorer, on all ranks; keep the weights if they are the best so far."""
        pictures = None
        if self.step % self.config.train.picture_every == 0 or self.step == self.config.optim.steps:
            pictures = out / folder.PICTURES / f"{self.step:06d}"
        score = validate(self.network, self.val_clips, RestoreOptions(), self.ranks, pictures=pictures)
        is_best = score.psnr_rgb > self.best_psnr
        if is_best:
            self.best_psnr = score.psnr_rgb
        if journal is None:
            return
        if is_best:
            folder.save_weights(
                out / folder.BEST_WEIGHTS, self.network, self.config, self.info, self.step, score.psnr_rgb
            )
        journal.write("validation", self.step, **vars(score), best=is_best)
        progress.say(
            f"step {self.step}: psnr_rgb {score.psnr_rgb:.2f} dB (blur {score.psnr_rgb_blur:.2f}), "
            f"{score.num_frames} frames in {score.seconds:.1f} s{', best so far' if is_best else ''}"
        )

    def save(self, out: Path) -> None:
        """`last.safetensors` and the state to resume from; the first rank writes, the others wait."""
        if self.ranks.is_first:
            folder.save_weights(out / folder.LAST_WEIGHTS, self.network, self.config, self.info, self.step, None)
            folder.save(out, self.config, self.info, self.state())
        self.ranks.wait()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on. Random numbers are drawn from (seed, step), so no generator is in it."""
        return {
            "step": self.step,
            "samples": self.samples,
            "skipped": self.skipped,
            "best_psnr": self.best_psnr,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore_state(self, saved: dict[str, Any]) -> None:
        """The inverse of `state`, strictly."""
        self.step, self.samples, self.skipped = saved["step"], saved["samples"], saved["skipped"]
        self.best_psnr = saved["best_psnr"]
        load_strict(self.network, saved["network"], folder.STATE)
        fresh = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(saved["optimizer"])
        for group, settings in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update(settings)  # the config's, which may have changed, and not the saved ones
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])

    def loader(self) -> DataLoader[Any]:
        """Micro-batches of this rank from the current position of the stream to the last step."""
        config, ranks = self.config, self.ranks
        per_step = config.data.batch * config.train.accumulate * ranks.world
        start = self.samples - self.samples % ranks.world  # only another number of ranks than before leaves a rest
        stream = ClipStream(
            len(self.clips),
            seed=config.train.seed,
            start=start,
            stop=start + (config.optim.steps - self.step) * per_step,
            rank=ranks.rank,
            world=ranks.world,
        )
        return DataLoader(
            StreamedDataset(self.clips),
            batch_size=config.data.batch,
            sampler=stream,
            num_workers=config.data.workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=reset_worker_signals,
        )

    def measure(self) -> None:
        """One whole step and one validation clip; prints seconds and peak memory."""
        config = self.config
        runtime.reset_peak_memory(self.device)
        batches = iter(self.loader())
        self.trained.train()
        began = time.perf_counter()
        loss, grad_norm, wait_s = self.take_step(batches)
        runtime.synchronise(self.device)
        step_s = time.perf_counter() - began
        score = validate(self.network, self.val_clips, RestoreOptions(), self.ranks, max_clips=self.ranks.world)
        if self.ranks.is_first:
            num_clips = config.data.batch * config.train.accumulate * self.ranks.world
            size = f"{config.data.clip_frames}x{config.data.crop_px}x{config.data.crop_px}"
            num_params = sum(p.numel() for p in self.network.parameters())
            print(f"network      {num_params:,} parameters, {config.train.precision} on {self.device.type}")
            print(f"data         {len(self.clips)} training clips, {len(self.val_clips)} validation clips")
            print(f"one step     {num_clips} clips of {size} in {step_s:.2f} s ({wait_s:.2f} s of it waiting for data)")
            print(f"             loss {loss:.4f}, gradient norm {grad_norm:.3f}")
            print(f"validation   {score.seconds / self.ranks.world:.2f} s a clip, psnr_rgb {score.psnr_rgb:.2f} dB")
            print(f"peak memory  {runtime.peak_memory_bytes(self.device) / 1e9:.2f} GB")
            total = clock(step_s * config.optim.steps)
            print(f"dry run: {config.optim.steps} steps would take about {total}; nothing was written")


def _datasets(config: Config) -> tuple[ClipDataset, ClipDataset]:
    data, spikes = config.data, config.model.spikes
    num_bins = None if spikes is None else spikes.num_bins
    bin_split = None if spikes is None else spikes.split
    normalize = "none" if spikes is None else spikes.normalize
    train_clips = ClipDataset(
        data.root,
        "train",
        clip_frames=data.clip_frames,
        crop_px=data.crop_px,
        voxels=data.voxels,
        num_bins=num_bins,
        bin_split=bin_split,
        normalize=normalize,
        spikes=spikes is not None,
        augment=data.augment,
        spike_dropout=data.spike_dropout,
        degradation=data.degrade,
        seed=config.train.seed,
    )
    val_clips = ClipDataset(
        data.root,
        "val",
        clip_frames=data.clip_frames,
        crop_px=None,
        voxels=data.voxels,
        num_bins=num_bins,
        bin_split=bin_split,
        normalize=normalize,
        spikes=spikes is not None,
        augment=False,
        seed=config.train.seed,
    )
    return train_clips, val_clips


def _check_crop(crop_px: int, network: SpikeVRT) -> None:
    least, multiple = network.min_size_px, network.pad_multiple
    if crop_px < least or crop_px % multiple:
        raise ValueError(f"data.crop_px: {crop_px}; this network needs a multiple of {multiple}, at least {least}")


def _step_seed(seed: int, step: int, rank: int) -> int:
    return ((seed * 1_000_003 + step) * 1_009 + rank) % 2**63


def _divergence(out: Path, step: int) -> str:
    state = out / folder.STATE
    kept = f"the last good state is {state}" if state.is_file() else "no state was saved yet"
    return (
        f"train: loss or gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, up to step {step}; {kept}; "
        "try a lower optim.lr or train.precision fp32"
    )
