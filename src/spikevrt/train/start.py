"""What a run starts from: settings that can be obeyed and do not contradict each other, and the first weights.

Weights come from nothing, a published VRT checkpoint, or an earlier run.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spikevrt.checkpoint import WeightsInfo, load_weights
from spikevrt.config import STAGES, Config, DataConfig, ModelConfig
from spikevrt.data.augment import check_degrade
from spikevrt.data.dataset import VoxelStats
from spikevrt.model import load_strict, load_vrt_checkpoint
from spikevrt.train.optim import PARTS, check_optim, lr_factor
from spikevrt.typed import require

if TYPE_CHECKING:
    from spikevrt.model.network import Network


def check_config(config: Config, *, world: int) -> None:
    """Refuse what no run can do. Raises ValueError (one line)."""
    check_optim(config.optim)
    check_degrade(config.data)
    vrt, loss, train, data = config.model.vrt, config.loss, config.train, config.data
    if vrt.upscale != 1 or vrt.nonblind_denoising or vrt.pa_frames == 0:
        raise ValueError("model.vrt: training is for deblurring: upscale 1, no noise map, pa_frames 2, 4 or 6")
    counts = {
        "data.batch": (data.batch, 1),
        "data.workers": (data.workers, 0),
        "data.clip_frames": (data.clip_frames, max(2, 1 + vrt.pa_frames // 2)),
        "train.accumulate": (train.accumulate, 1),
        "train.validate_every": (train.validate_every, 1),
        "train.picture_every": (train.picture_every, 1),
        "train.checkpoint_every": (train.checkpoint_every, 1),
        "train.keep_every": (train.keep_every, 0),
        "train.log_every": (train.log_every, 1),
        "train.max_skipped": (train.max_skipped, 1),
    }
    for name, (value, least) in counts.items():
        require(value >= least, name, value, f"{least} or more")
    every = train.checkpoint_every
    allowed = f"0 or a multiple of train.checkpoint_every = {every}"
    require(train.keep_every % every == 0, "train.keep_every", train.keep_every, allowed)
    weights = {
        "loss.perceptual_weight": loss.perceptual_weight,
        "loss.edge_weight": loss.edge_weight,
        "loss.fft_weight": loss.fft_weight,
        "loss.lpips_weight": loss.lpips_weight,
        "loss.reblur_weight": loss.reblur_weight,
    }
    for name, weight in weights.items():
        require(0 <= weight < math.inf, name, weight, "0 (off) or more")
    require(0 < loss.charbonnier_eps < math.inf, "loss.charbonnier_eps", loss.charbonnier_eps, "above 0")
    if loss.reblur_weight == 0 and loss.reblur_flow != "network":
        raise ValueError(f"loss.reblur_flow: {loss.reblur_flow}, but loss.reblur_weight is 0, which turns the term off")
    if loss.perceptual_weight == 0 and loss.perceptual_file is not None:
        raise ValueError("loss.perceptual_file: given, but loss.perceptual_weight is 0, which turns the term off")
    if config.model.spikes is None:
        if data.spike_dropout:
            raise ValueError(f"data.spike_dropout: {data.spike_dropout}, but model.spikes is null; allowed: 0")
        if data.degrade.probability:
            raise ValueError("data.degrade: given, but model.spikes is null; allowed: probability 0")
    if train.init is not None and train.init_vrt is not None:
        raise ValueError("train.init and train.init_vrt: choose one")
    if train.self_supervised:
        sharp = [name for name, weight in weights.items() if weight and name != "loss.reblur_weight"]
        if sharp:
            raise ValueError(f"train.self_supervised: has no sharp frames for {', '.join(sharp)}; allowed: 0")
        if not loss.reblur_weight:
            raise ValueError("train.self_supervised: loss.reblur_weight is 0, so nothing would be learnt")
    if train.parallel == "fsdp":
        _check_fsdp(config, world)
    if not config.model.is_vrt:
        _check_one_part(config)


def check_clips(data: DataConfig, network: Network) -> None:
    """Refuse a crop, or a number of frames, that the network cannot take. Raises ValueError."""
    if data.clip_frames < network.min_frames:
        raise ValueError(f"data.clip_frames: {data.clip_frames}; this network needs {network.min_frames} or more")
    crop_px, least_px, multiple = data.crop_px, network.min_size_px, network.pad_multiple
    if crop_px < least_px or crop_px % multiple:
        raise ValueError(f"data.crop_px: {crop_px}; this network needs a multiple of {multiple}, at least {least_px}")


def check_scoring(config: Config, *, has_sharp: bool) -> None:
    """Refuse validation clips that cannot be scored; `has_sharp`: they have sharp frames. Raises ValueError."""
    if not has_sharp and not config.model.is_vrt and config.loss.reblur_flow == "network":
        raise ValueError(
            f"{config.data.root}: has no sharp frames to validate on, and {_other(config.model)} no optical flow to "
            "blur along again; allowed: sharp frames, or loss.reblur_weight above 0 with loss.reblur_flow dis"
        )


def _check_one_part(config: Config) -> None:
    """Settings of parts that only SpikeVRT has; those of the network itself are refused with the config."""
    optim, loss, train = config.optim, config.loss, config.train
    others = {f"optim.{part}_lr_factor": (lr_factor(part, optim), 1.0) for part in PARTS} | {
        "optim.flow_fixed_steps": (optim.flow_fixed_steps, 0),
        "train.init_vrt": (train.init_vrt, None),
        "train.compile": (train.compile, False),
        "train.parallel": (train.parallel, "ddp"),
    }
    if loss.reblur_weight > 0:
        others["loss.reblur_flow"] = (loss.reblur_flow, "dis")
    for name, (value, allowed) in others.items():
        if value != allowed:
            what = _other(config.model)
            raise ValueError(f"{name}: {value}, but {what} is one part without optical flow; allowed: {allowed}")


def _other(model: ModelConfig) -> str:
    """What a network that is no SpikeVRT is called in a sentence."""
    return model.custom or "a U-Net"


def _check_fsdp(config: Config, world: int) -> None:
    if world == 1:
        raise ValueError("train.parallel: fsdp shares parameters out among ranks; start it with torchrun")
    others = {
        "train.precision": (config.train.precision == "fp16", "bf16 or fp32"),
        "train.compile": (config.train.compile, "false"),
        "optim.kind": (config.optim.kind == "adamw8bit", "adamw or adam"),
        "optim.flow_fixed_steps": (config.optim.flow_fixed_steps > 0, "0"),
        "train.channels_last": (config.train.channels_last, "false"),
        "loss.reblur_weight": (config.loss.reblur_weight > 0, "0"),
    }
    for name, (is_set, allowed) in others.items():
        if is_set:
            raise ValueError(f"{name}: not with train.parallel fsdp; allowed there: {allowed}")


@dataclass(frozen=True)
class Initial:
    """Where the weights come from, and the voxel statistics that they were trained with (None: the dataset's)."""

    config: Config
    tensors: dict[str, Tensor] | None = None
    info: WeightsInfo | None = None
    stats: VoxelStats | None = None

    def load(self, network: Network) -> None:
        """Give the network its first weights, strictly.

        From scratch, the restored clip starts as the blurry one. Weights without spikes, SpikeVRT's or published ones,
        become the VRT inside; a fresh fusion is the identity, so the network starts as that VRT. Another network
        takes the weights of one alike.
        """
        if self.config.train.init_vrt is not None:
            load_vrt_checkpoint(network.get_submodule("vrt"), self.config.train.init_vrt)
        elif self.tensors is None or self.info is None:
            network.start_at_identity()
        elif self.info.model.spikes is None and self.info.model.is_vrt:
            vrt = {name.removeprefix("vrt."): value for name, value in self.tensors.items()}
            load_strict(network.get_submodule("vrt"), vrt, str(self.config.train.init))
        else:
            load_strict(network, self.tensors, str(self.config.train.init))


def read_initial(config: Config, saved: dict[str, Any] | None) -> Initial:
    """Read `train.init`. A resumed run (`saved`) has its weights already and keeps its statistics.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no weights, or of another network than `config.model`.
    """
    path = config.train.init
    if path is None:
        return Initial(config)
    if saved is not None:
        return Initial(config, stats=None if config.model.spikes is None else VoxelStats(*saved["statistics"]))
    tensors, info = load_weights(path)
    wanted, found = _bare(config.model), _bare(info.model)
    has_twin = wanted.is_vrt  # whose weights are a part of it
    if found != wanted and not (has_twin and found == dataclasses.replace(wanted, spikes=None)):
        raise ValueError(
            f"train.init: {path} holds another network than model says; "
            f"allowed: the same{', or its twin without spikes' if has_twin else ''}"
        )
    stats = None if info.model.spikes is None else VoxelStats(info.voxel_mean, info.voxel_std)
    return Initial(config, tensors, info, stats)


def _bare(model: ModelConfig) -> ModelConfig:
    """The model without what changes nothing in its weights."""
    return dataclasses.replace(model, checkpoint=(), checkpoint_stages=STAGES)
