"""The training loop: batches, forward and backward pass, optimiser step; validating and saving on the way.

Step n is a function of the weights after step n - 1, of (seed, n) and of the clips at its place in the stream. So a run
that was stopped and resumed has taken the same steps as one that never stopped.

Dimension key: B samples of one micro-batch, T frames, H image rows, W image columns.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spikevrt import runtime
from spikevrt.config import Config
from spikevrt.data.dataset import ClipDataset, DatasetInfo, check_sequences, collate, step_seed
from spikevrt.losses import Losses, dis_flow, exposure_duty
from spikevrt.model import build_network
from spikevrt.model.network import Network
from spikevrt.progress import Progress, clock
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import LoadedNetwork, Restorer
from spikevrt.train import folder
from spikevrt.train.distributed import (
    Ranks,
    StopRequest,
    channels_last,
    clip_gradients,
    clip_loader,
    compile_blocks,
    copies,
    gradients_stay,
    join_ranks,
    shard,
)
from spikevrt.train.folder import Resume
from spikevrt.train.forecast import dry_run as report
from spikevrt.train.journal import Journal, Meter, in_words
from spikevrt.train.optim import Average, make_optimizer, set_lr, set_trained
from spikevrt.train.start import check_clips, check_config, check_scoring, read_initial
from spikevrt.train.validation import check_motion, validate

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

Batch = dict[str, Any]
Told = Callable[[Path], object]
SPIKE_INPUTS = ("spike_vox", "spikes_present")  # what the network takes beside frames, in this order


def train(
    config: Config,
    out: str | Path,
    *,
    resume: Resume = False,
    dry_run: bool = False,
    overwrite: bool = False,
    resume_command: str = "--resume",
    after_validation: Told = lambda out: None,
) -> Path | None:
    """Train `config` into the folder `out`; returns the best weights, or None after a dry run (which writes nothing).

    `resume` continues the run in `out` from its newest whole state ("auto": where there is one); `overwrite` discards
    it. Under torchrun every process calls this. SIGINT and SIGTERM save the state after the step in hand and end the
    run; `resume_command` is then told. `after_validation` is called with `out` after each, on the first rank.

    Raises:
        FileExistsError: `out` exists and neither `resume` nor `overwrite` was given.
        FileNotFoundError: no dataset, no state to resume, no initial or perceptual weights.
        ValueError: a setting that cannot be obeyed, or a loss that stays NaN.
        OSError: the last state cannot be written.
    """
    out = Path(out)
    check_config(config, world=int(os.environ.get("WORLD_SIZE", "1")))
    resuming = False if dry_run else folder.check(out, resume=resume, overwrite=overwrite)
    with join_ranks(config.train.device) as ranks:
        if dry_run:
            report(Run(config, ranks, None))
            return None
        saved = folder.load(out, config, told=ranks.is_first) if resuming else None
        ranks.agree(saved["step"] if saved else 0, f"{out}: step of the saved state")
        run = Run(config, ranks, saved)
        if ranks.is_first:
            folder.create(out, config, run.info, ranks.world, resume=resuming)
        ranks.wait()
        undisturbed = run.loop(out, resume_command, after_validation)
        del run  # DDP goes before the group of processes that it talks through (distributed.py)
    if not undisturbed:  # status 0 would tell this machine's torchrun that the run is done
        raise InterruptedError(f"{out}: saved and stopped, because another rank was told to stop")
    best = out / folder.BEST_WEIGHTS
    return best if best.is_file() else out / folder.LAST_WEIGHTS


class Run:
    """Everything that one run holds: built once, then `loop` (or a dry run)."""

    def __init__(self, config: Config, ranks: Ranks, saved: dict[str, Any] | None) -> None:
        self.config, self.ranks = config, ranks
        self.device = runtime.pick_device(config.train.device)
        runtime.autocast(self.device, config.train.precision)  # refuses what the device cannot do
        if config.train.deterministic:
            runtime.make_deterministic(self.device)
        if self.device.type == "cpu":
            runtime.tune_allocator()
        runtime.seed_everything(config.train.seed)
        initial = read_initial(config, saved)
        self.clips = ClipDataset(config.data, config.model.spikes, stats=initial.stats, seed=config.train.seed)
        self.info: DatasetInfo = self.clips.info
        if not self.clips.has_sharp and not config.train.self_supervised:
            raise ValueError(f"{config.data.root}: has no sharp frames to train on; train.self_supervised does without")
        check_scoring(config, has_sharp=check_sequences(self.info, "val", config.model.spikes))
        self.network = build_network(config.model)
        if config.model.custom is not None and ranks.is_first:
            file = sys.modules[config.model.custom.partition(":")[0]].__file__
            print(f"spikevrt: model.custom: {config.model.custom}, of {file}", file=sys.stderr)
        check_clips(config.data, self.network)
        if saved is None:
            initial.load(self.network)
        self.network.to(self.device)
        if config.train.channels_last:
            channels_last(self.network)
        self.losses = Losses(config.loss, self.flow).to(self.device)
        self.step = self.samples = self.skipped = self.skipped_in_a_row = 0
        self.best_score = -math.inf
        self.meter = Meter(self.device)
        set_trained(self.network, self.step, config.optim)
        self.is_sharded = ranks.world > 1 and config.train.parallel == "fsdp"
        if self.is_sharded:
            shard(self.network, ranks.mesh(self.device))
        self.optimizer = make_optimizer(self.network, config.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.precision == "fp16")
        self.average = Average(self.network, config.optim.ema_decay) if config.optim.ema_decay > 0 else None
        if saved is not None:
            folder.check_data(saved, config, self.info, told=ranks.is_first)
            self.restore_state(saved)
        if config.train.self_supervised:
            check_motion(self.clips, self.flow, self.device)
        self.judge: Network | None = None  # a whole network for validation, where `network` is not what is judged
        if config.train.compile:
            compile_blocks(self.network, self.trial, visible=ranks.is_first)
        self.trained = self.wrapped()

    def wrapped(self) -> nn.Module:
        """What a step calls: the network, compiled or not, and under torchrun inside what averages its gradients."""
        set_trained(self.network, self.step, self.config.optim)  # what is exchanged is settled when DDP wraps
        is_copied = self.ranks.world > 1 and not self.is_sharded
        return copies(self.network, self.device) if is_copied else self.network

    def loop(self, out: Path, resume_command: str, after_validation: Told) -> bool:
        """Take every step that is left; validate, save and tell on the way. False: ended by another rank's signal."""
        config, ranks, meter = self.config, self.ranks, self.meter
        steps = config.optim.steps
        journal = Journal(out, start_step=self.step) if ranks.is_first else None
        progress = Progress("step", first=self.step, visible=ranks.is_first, stays=True, every_s=30.0)
        stopped, began = 0.0, time.perf_counter()
        runtime.reset_peak_memory(self.device)
        batches = iter(self.loader())
        self.trained.train()
        meter.go_on()
        with StopRequest() as stop, progress:
            while self.step < steps:
                if self.step == config.optim.flow_fixed_steps > 0:
                    self.trained = self.wrapped()
                lr = set_lr(self.optimizer, self.step, config.optim)
                micro_batches, wait_s = self.fetch(batches)
                terms, grad_norm = self.take_step(micro_batches)
                (stopped,) = ranks.mean([float(bool(stop.signal_name))], self.device)
                self.step += 1
                meter.count(self.clips_per_step, terms, wait_s)
                if math.isfinite(sum(terms.values())) and math.isfinite(grad_norm):
                    self.skipped_in_a_row = 0
                else:
                    self.skip(out, sum(terms.values()), micro_batches, progress)
                last = self.step == steps
                if last or self.step % config.train.log_every == 0:
                    row = meter.read() | {"lr": lr, "grad_norm": grad_norm, "skipped": self.skipped}
                    progress.update(self.step, steps, in_words(row))
                    if journal:
                        journal.write("train", self.step, **row)
                if last or self.step % config.train.validate_every == 0 or self.step % config.train.picture_every == 0:
                    self.score(out, journal, progress, after_validation)
                    meter.go_on()
                if last or stopped or self.step % config.train.checkpoint_every == 0:
                    self.save(out, progress, must=bool(last or stopped))
                if stopped:
                    break
        if journal:
            journal.close()
            reason = f"stopped by {stop.signal_name or 'another rank'}" if stopped else "done"
            best = f"best {self.best_score:.2f} dB" if self.best_score > -math.inf else "not validated yet"
            progress.say(f"{reason}: step {self.step}/{steps}, {best}, {clock(time.perf_counter() - began)}")
            if stopped:
                progress.say(f"go on with: {resume_command}")
        return not stopped or bool(stop.signal_name) or self.step == steps

    @property
    def clips_per_step(self) -> int:
        return self.config.data.batch * self.config.train.accumulate * self.ranks.world

    def fetch(self, batches: Any) -> tuple[list[Batch], float]:
        """The micro-batches of one step, and the seconds spent waiting for them."""
        asked = time.perf_counter()
        micro_batches = [next(batches) for _ in range(self.config.train.accumulate)]
        return micro_batches, time.perf_counter() - asked

    def take_step(self, micro_batches: list[Batch]) -> tuple[dict[str, float], float]:
        """One optimiser step, skipped where loss or gradient is not finite.

        Returns the loss, term by term, and the gradient norm before clipping, the same on every rank.
        """
        config = self.config
        torch.manual_seed(step_seed(config.train.seed, self.step, self.ranks.rank))
        sums: dict[str, float] = {}
        for index, batch in enumerate(micro_batches):
            with gradients_stay(self.trained, self.network, when=index < len(micro_batches) - 1):
                parts = self.terms(batch, self.trained)
                loss = torch.stack(list(parts.values())).sum() / len(micro_batches)
                self.scaler.scale(loss).backward()
            for name, term in parts.items():
                sums[name] = sums.get(name, 0.0) + term.item() / len(micro_batches)
        self.samples += self.clips_per_step
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(self.network, config.optim.clip_norm)
        terms = dict(zip(sums, self.ranks.mean(list(sums.values()), self.device), strict=True))
        # Loss and norm are the same on every rank, so all of them skip or none does. A scaler skips by itself.
        if math.isfinite(sum(terms.values())):
            if math.isfinite(grad_norm) or self.scaler.is_enabled():
                self.scaler.step(self.optimizer)
            if math.isfinite(grad_norm) and self.average is not None:
                self.average.update(self.network, self.step)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return terms, grad_norm

    def terms(self, batch: Batch, network: nn.Module) -> dict[str, Tensor]:
        """The loss of one micro-batch, term by term, each with its weight."""
        frames = batch["frames"].to(self.device, non_blocking=True)
        spikes = [batch[name].to(self.device, non_blocking=True) for name in SPIKE_INPUTS if name in batch]
        blur = frames if batch["frames"] is batch["blur"] else batch["blur"].to(self.device, non_blocking=True)
        sharp = None if self.config.train.self_supervised else batch["sharp"].to(self.device, non_blocking=True)
        duty = None
        if self.config.loss.reblur_weight > 0:
            duty = exposure_duty(*([meta[t] for meta in batch["meta"]] for t in ("t0", "t1"))).to(self.device)
        with runtime.autocast(self.device, self.config.train.precision):
            restored = network(frames, *spikes).float()
            terms: dict[str, Tensor] = self.losses(restored, blur, sharp, duty)
            return terms

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """The optical flow for the re-blur term: the one that the network sees, or OpenCV's."""
        if self.config.loss.reblur_flow == "dis":
            return dis_flow(first, second)
        return self.network.frame_flow(first, second)

    def skip(self, out: Path, loss: float, micro_batches: list[Batch], progress: Progress) -> None:
        """Count a step that was not taken and keep its batch; too many in a row end the run. Raises ValueError."""
        self.skipped += 1
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() >= 1:
            return  # in fp16 the scaler has gone too high and comes down; below 1 it is not to blame
        self.skipped_in_a_row += 1
        try:
            path = folder.save_skipped(out, self.step, self.ranks.rank, micro_batches)
        except OSError:  # a full disk is no reason to end the run
            path = None
        if path is not None:
            progress.say(f"step {self.step}: loss or gradient not finite, step skipped; its batch: {path}")
        if self.skipped_in_a_row == self.config.train.max_skipped:
            raise ValueError(folder.divergence(out, self.step, self.skipped_in_a_row))

    def score(self, out: Path, journal: Journal | None, progress: Progress, after_validation: Told) -> None:
        """Validate through the restorer, on all ranks; keep the weights if they are the best so far."""
        pictures = None
        if self.step % self.config.train.picture_every == 0 or self.step == self.config.optim.steps:
            pictures = out / folder.PICTURES / f"{self.step:06d}"
        tensors = folder.whole_weights(self.network, self.average)
        score = validate(
            self.restorer(self.judged(tensors)), self.info.val, self.ranks,
            clip_frames=self.config.data.clip_frames, pictures=pictures, flow=self.flow,
        )  # fmt: skip
        is_best = score.value > self.best_score
        if is_best:
            self.best_score = score.value
        if journal is None:
            return
        if is_best:
            self.write_weights(out / folder.BEST_WEIGHTS, tensors, progress, {score.metric: score.value})
        journal.write("validation", self.step, **score.row(), best=is_best)
        after_validation(out)
        if pictures is not None:
            journal.pictures(pictures, self.step)
        progress.say(f"step {self.step}: {score.in_words()}{', best so far' if is_best else ''}")

    def restorer(self, network: Network) -> Restorer:
        """What restores with a network in training, as its weights file will."""
        loaded = LoadedNetwork(
            network, folder.weights_info(self.config, self.info, self.step), "the network in training"
        )
        return Restorer(loaded, RestoreOptions(device=self.config.train.device))

    def judged(self, tensors: dict[str, Tensor]) -> Network:
        """The network that validation sees: the trained one, or a whole copy with the averaged or gathered weights."""
        if self.average is None and not self.is_sharded:
            return self.network
        if self.judge is None:
            self.judge = build_network(self.config.model).to(self.device)
        self.judge.load_state_dict(tensors)
        return self.judge

    def save(self, out: Path, progress: Progress, *, must: bool) -> None:
        """`last.safetensors` and the state to resume from; the first rank writes, the others wait.

        On a full disk the run goes on with what was saved before, unless it `must` be saved. Raises OSError.
        """
        tensors, values = folder.whole_weights(self.network, self.average), self.state()
        failure = None
        if self.ranks.is_first:
            try:
                folder.save(out, self.config, self.info, values)
            except OSError as error:
                failure = " ".join(str(error).split())
            self.write_weights(out / folder.LAST_WEIGHTS, tensors, progress, {})
        failure = self.ranks.gather(failure)[0]
        if failure is not None and must:
            raise OSError(f"step {self.step}: the state was not saved: {failure}")
        if failure is not None:
            progress.say(f"step {self.step}: the state was not saved, going on: {failure}")

    def write_weights(
        self, path: Path, tensors: dict[str, Tensor], progress: Progress, score: dict[str, float]
    ) -> None:
        """Write weights; where that fails, say so and go on."""
        try:
            folder.save_weights(path, tensors, self.config, self.info, self.step, score)
        except OSError as error:
            progress.say(f"step {self.step}: weights were not saved, going on: {' '.join(str(error).split())}")

    def state(self) -> dict[str, Any]:
        """All that the next step and the next row of the journal depend on."""
        return {
            "step": self.step,
            "samples": self.samples,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "best_score": self.best_score,
            "losses": self.meter.losses,
            **folder.gather_state(self.network, self.optimizer, self.scaler, self.average),
        }

    def restore_state(self, saved: dict[str, Any]) -> None:
        """The inverse of `state`, strictly."""
        self.step, self.samples, self.best_score = saved["step"], saved["samples"], saved["best_score"]
        self.skipped, self.skipped_in_a_row = saved["skipped"], saved["skipped_in_a_row"]
        self.meter.losses = saved["losses"]
        folder.restore_state(saved, folder.STATE, self.network, self.optimizer, self.scaler, self.average)

    def trial(self, module: nn.Module) -> None:
        """Forward and backward through `module` at the sizes of training, without a step."""
        batch: Any = collate([self.clips[0]] * self.config.data.batch)
        module.train()
        torch.stack(list(self.terms(batch, module).values())).sum().backward()
        self.network.zero_grad(set_to_none=True)

    def loader(self) -> DataLoader[Any]:
        """Micro-batches of this rank from the current position of the stream to the last step."""
        left = self.config.optim.steps - self.step
        return clip_loader(self.clips, self.config, self.ranks, self.device, samples=self.samples, steps_left=left)
