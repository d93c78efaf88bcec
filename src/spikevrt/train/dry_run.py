"""What a dry run tells: the forecast of a step, a refusal of what cannot fit, one real step and one validation clip."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spikevrt import runtime
from spikevrt.restore.restorer import RestoreOptions
from spikevrt.train import folder
from spikevrt.train.forecast import forecast
from spikevrt.train.journal import clock
from spikevrt.train.optim import make_optimizer
from spikevrt.train.step_work import Batch
from spikevrt.train.validation import validate

if TYPE_CHECKING:
    from spikevrt.train.loop import Run

MOST_CROP_PX = 1024  # suggested where the frames set no limit


def dry_run(run: Run) -> None:
    """Print it all; nothing is written. Raises ValueError (one line) where the config does not fit into the memory."""
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
        _forecast(run, say)
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


def _forecast(run: Run, say: Callable[[str], None]) -> None:
    config = run.config

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        """All terms, as a step has them; frames without a pause between their exposures."""
        sharp = None if config.train.self_supervised else batch["sharp"]
        duty = torch.ones(batch["blur"].shape[:2], device=run.device) if config.loss.reblur_weight > 0 else None
        with runtime.autocast(run.device, config.train.precision):
            restored = network(batch["blur"], *([batch["spike_vox"]] if "spike_vox" in batch else [])).float()
            terms: dict[str, Tensor] = run.losses(restored, batch["blur"], sharp, duty)
        return torch.stack(list(terms.values())).sum()

    sample = run.clips[0]
    ratio = sample["blur"].shape[-1] // sample["spike_vox"].shape[-1] if "spike_vox" in sample else 1
    sides = [min(sequence.width, sequence.height) for sequence in run.clips.sequences]
    found = forecast(
        run.network,
        loss,
        lambda network: make_optimizer(network, config.optim),
        config,
        spike_ratio=ratio,
        most_crop_px=min(sides, default=MOST_CROP_PX),
    )
    for line in found.lines():
        say(line)
    found.check()
