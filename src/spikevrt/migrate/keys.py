"""The keys of the reference system's configs (upper-case YAML): what becomes of each, and by which rule its value is
taken over.

A rule takes the old value and all other old values. It returns the new value, or None where there is nothing to set, or
raises ValueError with the reason of its refusal. `config_file` obeys the table `KEYS`, and docs/training.md shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

AMP = ("TRAIN.AMP", "TRAIN.USE_AMP", "TRAIN.MIXED_PRECISION")
AMP_DTYPE = ("TRAIN.AMP_DTYPE", "TRAIN.PRECISION")
EMA = ("TRAIN.EMA", "TRAIN.USE_EMA")
EMA_DECAY = ("TRAIN.EMA_DECAY",)
CLIP_LEN = ("DATA.CLIP_LEN", "DATA.NUM_FRAMES", "DATA.SEQ_LEN", "DATA.T")

Others = Mapping[str, Any]  # every old key and its value
Rule = Callable[[Any, Others], Any]


def same(value: Any, others: Others) -> Any:
    """As it is; its type is checked where the config is built."""
    return value


def number(value: Any, others: Others) -> float:
    """A finite number; text that is one is taken too ('2e-4')."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("a number is needed")
    return found


def whole(value: Any, others: Others) -> int:
    """A whole number, also as 3e5."""
    if not number(value, others).is_integer():
        raise ValueError("a whole number is needed")
    return int(number(value, others))


def steps_or_none(value: Any, others: Others) -> int:
    """Steps; a negative number is the reference's way to say none."""
    return max(0, whole(value, others))


def text(value: Any, others: Others) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a name is needed")
    return value


def either(yes: Any, no: Any) -> Rule:
    """What true and what false stand for."""

    def rule(value: Any, others: Others) -> Any:
        if not isinstance(value, bool):
            raise ValueError("true or false is needed")
        return yes if value else no

    return rule


switch = either(True, False)


@dataclass(frozen=True)
class Only:
    """Nothing to set: it is always so. Anything else is refused; the remark says why."""

    allowed: tuple[Any, ...]

    def __call__(self, value: Any, others: Others) -> None:
        if not any(_equal(value, one) for one in self.allowed):
            raise ValueError(f"possible here: {', '.join(map(plain, self.allowed))}")


def never(value: Any, others: Others) -> None:
    """Always refused; the remark says why."""
    raise ValueError


def choice(because: str, **named: Any) -> Rule:
    """One of several words, whatever its case; each stands for a value of ours."""

    def rule(value: Any, others: Others) -> Any:
        word = value.lower() if isinstance(value, str) else None
        if word not in named:
            raise ValueError(f"{because}; possible here: {', '.join(named)}")
        return named[word]

    return rule


def network(value: Any, others: Others) -> bool:
    """Whether the network of that name has a spike branch."""
    return bool(choice("unknown network", spikevrt=True, spike_vrt=True, vrt_spike=True, vrt=False)(value, others))


def fusion(value: Any, others: Others) -> str:
    if value == "TemporalCrossAttn":
        return "TemporalCrossAttn"
    if value == "concat_1x1_pre_tmsa":
        raise ValueError(
            "nothing is concatenated before VRT's attention: fusion is after the four encoder stages alone"
        )
    raise ValueError("there is one fusion; possible here: TemporalCrossAttn")


def square(value: Any, others: Others) -> int:
    """A side in pixels, or two equal ones."""
    sides = value if isinstance(value, list) else [value]
    if not 1 <= len(sides) <= 2 or len({whole(side, others) for side in sides}) != 1:
        raise ValueError("crops are square: one number, or two equal ones")
    return whole(sides[0], others)


def root_above(split: str) -> Rule:
    """ROOT of ROOT/train: both splits lie in one folder."""

    def rule(value: Any, others: Others) -> str:
        if not isinstance(value, str) or PurePosixPath(value).name != split:
            raise ValueError(f"a dataset is one folder with train and val in it, so this must end in /{split}")
        return str(PurePosixPath(value).parent)

    return rule


PRECISION = choice(
    "unknown type", bf16="bf16", bfloat16="bf16", fp16="fp16", float16="fp16", half="fp16", fp32="fp32", float32="fp32"
)


def precision(value: Any, others: Others) -> str:
    """AMP on: what AMP_DTYPE names, bf16 without it (no loss scaler is needed then). Off: fp32."""
    if not switch(value, others):
        return "fp32"
    return str(PRECISION(_first(AMP_DTYPE, others, "bf16"), others))


def precision_of_dtype(value: Any, others: Others) -> str:
    """The type of AMP; without AMP it says nothing, and fp32 it is."""
    named = str(PRECISION(value, others))
    return "fp32" if _first(AMP, others, True) is False else named


def decay(value: Any, others: Others) -> float:
    """false or null: no average; a number: its decay."""
    if value is None or value is False:
        return 0.0
    if value is True:
        value = _first(EMA_DECAY, others, None)
        if value is None:
            raise ValueError("on, but with which decay? give the number, for example 0.999")
    return number(value, others)


def decay_if_on(value: Any, others: Others) -> float:
    """The decay; without EMA it says nothing."""
    return 0.0 if _first(EMA, others, True) in (False, None) else number(value, others)


def sequences(value: Any, others: Others) -> int:
    """Sequences (pixels) at a time, each of CLIP_LEN tokens; ours counts tokens."""
    return whole(value, others) * whole(_first(CLIP_LEN, others, 5), others)


def weights_file(suffixes: tuple[str, ...], what: str) -> Rule:
    def rule(value: Any, others: Others) -> str | None:
        if value in (None, "", False):
            return None
        if not isinstance(value, str) or not value.endswith(suffixes):
            raise ValueError(f"{what}: a file that ends in {' or '.join(suffixes)} is needed")
        return value

    return rule


def clip_norm(value: Any, others: Others) -> float:
    if value in (None, False) or number(value, others) <= 0:
        raise ValueError("gradients are always clipped; set optim.clip_norm, for example 1.0")
    return number(value, others)


def resume(value: Any, others: Others) -> bool | None:
    if value in (None, False, ""):
        return None
    if value in (True, "auto"):
        return True
    raise ValueError("a run resumes from its own folder, with spikevrt train --resume; other weights are train.init")


def gpus(value: Any, others: Others) -> int:
    """A number of devices, or a list of them."""
    return len(value) if isinstance(value, list) else whole(value, others)


def _first(names: tuple[str, ...], others: Others, default: Any) -> Any:
    return next((others[name] for name in names if name in others), default)


def plain(value: Any) -> str:
    """A value as YAML would show it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    return "''" if value == "" else str(value)


def _equal(value: Any, allowed: Any) -> bool:
    if isinstance(value, str) and isinstance(allowed, str):
        return value.lower() == allowed.lower()
    if isinstance(value, bool) or isinstance(allowed, bool) or value is None or allowed is None:
        return value is allowed
    return bool(value == allowed)


class Key(NamedTuple):
    """One setting of the reference system.

    `new`: settings of `spikevrt.config`, or options of a command, that take the value; empty: nothing to set, and the
    remark says why. `model.checkpoint:PART` is whether PART is in that list, `model.spikes` whether it is not null.
    """

    old: tuple[str, ...]  # its names; the first is the usual one
    new: tuple[str, ...]
    rule: Rule
    remark: str = ""


def _vrt(name: str) -> tuple[str, ...]:
    return (f"MODEL.VRT_CFG.{name}", f"MODEL.VRT.{name}")


def _loss(*names: str) -> tuple[str, ...]:
    return (*(f"LOSS.{name}" for name in names), *(f"TRAIN.LOSS.{name}" for name in names))


SCHEDULE = choice(
    "unknown schedule", cosine="cosine", warmup_cosine="cosine", cosine_warmup="cosine", cosineannealinglr="cosine",
    cosine_restart="cosine_restart", cosineannealingwarmrestarts="cosine_restart",
)  # fmt: skip
PT = (".pth", ".pt", ".safetensors")
WHOLE_LAYOUT = "a prepared dataset has its own layout (docs/data_preparation.md)"
ON_THE_FOLDER = "the stream's own size and clock are kept with the recordings"

KEYS: tuple[Key, ...] = (
    # what is read
    Key(("DATA.ROOT", "DATA.DATA_ROOT"), ("data.root",), same, "a folder made by `spikevrt prepare`"),
    Key(("DATA.TRAIN_ROOT",), ("data.root",), root_above("train"), "the folder above"),
    Key(("DATA.VAL_ROOT",), ("data.root",), root_above("val"), "the folder above"),
    Key(("DATA.TRAIN_SPLIT",), (), Only(("train",)), WHOLE_LAYOUT),
    Key(("DATA.VAL_SPLIT",), (), Only(("val",)), WHOLE_LAYOUT),
    Key(("DATA.BLUR_DIR",), (), Only(("blur",)), WHOLE_LAYOUT),
    Key(("DATA.SHARP_DIR", "DATA.GT_DIR"), (), Only(("sharp",)), WHOLE_LAYOUT),
    Key(("DATA.SPIKE_DIR",), (), Only(("spike",)), WHOLE_LAYOUT),
    Key(("DATA.VOXEL_DIR", "DATA.SPIKE_VOX_DIR"), (), Only(("spike_vox",)), WHOLE_LAYOUT),
    Key(("DATA.NAME", "DATA.TYPE", "DATA.DATASET"), (),
        never, "there is one kind of dataset; others are read by `spikevrt prepare` (docs/datasets.md)"),
    Key(("DATA.K", "DATA.NUM_VOXEL_BINS", "DATA.SPIKE_BINS", "DATA.NUM_BINS", "DATA.spike_bins", "MODEL.K",
         "MODEL.NUM_VOXEL_BINS", "MODEL.SPIKE_BINS", "MODEL.spike_bins"),
        ("model.spikes.num_bins", "prepare --num-bins"), whole, "one setting, whatever it was called"),
    Key(("DATA.USE_PRECOMPUTED_VOXELS", "DATA.PRECOMPUTED"), ("data.voxels",),
        either("precomputed", "raw"), "true: precomputed, false: raw"),
    Key(("DATA.LOG1P", "DATA.USE_LOG1P"), (), Only((True,)), "voxels are always log1p of counts"),
    Key(("DATA.NORMALIZE", "DATA.STANDARDIZE"), (), Only((True,)), "voxels are always standardised"),
    Key(("DATA.SPIKE_MEAN", "DATA.VOXEL_MEAN", "DATA.SPIKE_STD", "DATA.VOXEL_STD"), (),
        never, "mean and std are those of the training set, measured by `spikevrt prepare`"),
    Key(("DATA.SPIKE_H", "DATA.SPIKE_HEIGHT"), ("prepare --spike-height",), whole, ON_THE_FOLDER),
    Key(("DATA.SPIKE_W", "DATA.SPIKE_WIDTH"), ("prepare --spike-width",), whole, ON_THE_FOLDER),
    Key(("DATA.SPIKE_FPS", "DATA.TICK_RATE"), (), never, f"{ON_THE_FOLDER} (recording.json, tick_rate_hz)"),
    Key(CLIP_LEN, ("data.clip_frames",), whole),
    Key(("DATA.CROP_SIZE", "DATA.PATCH_SIZE", "DATA.CROP"), ("data.crop_px",), square, "one number, or two equal ones"),
    Key(("TRAIN.BATCH_SIZE", "DATA.BATCH_SIZE"), ("data.batch",), whole, "clips of one device at a time"),
    Key(("DATA.NUM_WORKERS", "DATA.WORKERS", "TRAIN.NUM_WORKERS"), ("data.workers",), whole, "of one process"),
    Key(("DATA.AUGMENT", "DATA.AUG", "DATA.FLIP", "DATA.ROTATE", "DATA.USE_FLIP", "DATA.USE_ROT", "DATA.HFLIP",
         "DATA.VFLIP"), ("data.augment",), switch, "mirrors, quarter turns and reversed time, all or none"),
    Key(("DATA.SHUFFLE",), (), Only((True,)), "training clips always come in a seeded random order"),
    Key(("DATA.DROP_LAST",), (), Only((True,)), "the stream of clips is endless: every batch is full"),
    Key(("DATA.PIN_MEMORY",), (), Only((True,)), "memory is pinned wherever there is a GPU"),
    Key(("DATA.CACHE", "DATA.CACHE_SIZE_GB", "DATA.CACHE_SIZE"), (),
        Only((False, 0, None)), "files are mapped into memory; there is no cache to size"),
    # the network
    Key(("MODEL.NAME", "MODEL.TYPE"), ("model.spikes",), network, "SpikeVRT, or VRT: `model.spikes: null`"),
    Key(("MODEL.USE_SPIKE", "MODEL.USE_SPIKES"), ("model.spikes",), switch, "false: `model.spikes: null`, the twin"),
    Key(("MODEL.CHANNELS_PER_SCALE", "MODEL.SPIKE_ENCODER.CHANNELS_PER_SCALE"), ("model.spikes.dims",), same,
        "must equal the first four of `model.vrt.dims`"),
    Key(("MODEL.SPIKE_ENCODER.TYPE",), (), Only(("SpikeEncoder3D",)), "there is one encoder"),
    Key(("MODEL.SPIKE_ENCODER.NUM_BLOCKS",), ("model.spikes.num_blocks",), whole, "residual 3-D blocks of a scale"),
    Key(("MODEL.SPIKE_TSA.HEADS", "MODEL.SPIKE_TSA.NUM_HEADS"), ("model.spikes.attention_heads",), whole),
    Key(("MODEL.SPIKE_TSA.MLP_RATIO",), ("model.spikes.attention_mlp_ratio",), number),
    Key(("MODEL.FUSE.TYPE",), ("model.spikes.fusion",), fusion, "TemporalCrossAttn alone"),
    Key(("MODEL.FUSE.HEADS", "MODEL.FUSE.NUM_HEADS"), ("model.spikes.fusion_heads",), whole),
    Key(("MODEL.FUSE.MLP_RATIO",), ("model.spikes.fusion_mlp_ratio",), number),
    Key(("MODEL.FUSE.STAGES", "MODEL.FUSE.SCALES"), (),
        Only(([1, 2, 3, 4], [0, 1, 2, 3])), "fusion is in the four encoder stages and nowhere else"),
    Key(("MODEL.FUSE.ZERO_INIT",), (), Only((True,)), "a new fusion is always exactly the identity"),
    Key(("MODEL.SPIKE_TSA.DROPOUT", "MODEL.SPIKE_TSA.ATTN_DROP", "MODEL.FUSE.DROPOUT", "MODEL.FUSE.ATTN_DROP"), (),
        Only((0,)), "there is no dropout in attention over time and fusion"),
    Key(("MODEL.SPIKE_TSA.CHUNK_SIZE", "MODEL.FUSE.CHUNK_SIZE"), ("model.spikes.max_tokens",), sequences,
        "sequences (pixels) at a time x CLIP_LEN; one setting for both; memory alone depends on it"),
    Key(("MODEL.USE_CHECKPOINT", "MODEL.CHECKPOINT", "TRAIN.USE_CHECKPOINT"), tuple(
        f"model.checkpoint:{part}" for part in ("attention", "mlp", "deform")), switch, "VRT's three parts"),
    Key(_vrt("USE_CHECKPOINT_ATTN"), ("model.checkpoint:attention",), switch),
    Key(_vrt("USE_CHECKPOINT_FFN"), ("model.checkpoint:mlp",), switch),
    Key((*_vrt("NO_CHECKPOINT_ATTN_BLOCKS"), *_vrt("NO_CHECKPOINT_FFN_BLOCKS")), (),
        Only(([], None)), "stages are chosen for all parts at once, by model.checkpoint_stages"),
    Key(("MODEL.SPIKE_TSA.CHECKPOINT", "MODEL.SPIKE_TSA.USE_CHECKPOINT"), ("model.checkpoint:spikes",), switch),
    Key(("MODEL.FUSE.CHECKPOINT", "MODEL.FUSE.USE_CHECKPOINT"), ("model.checkpoint:fusion",), switch),
    Key(_vrt("UPSCALE"), ("model.vrt.upscale",), whole),
    Key(_vrt("IMG_SIZE"), (), lambda value, others: None,
        "nothing depends on it; clips have DATA.CLIP_LEN and DATA.CROP_SIZE"),
    Key((*_vrt("IN_CHANS"), *_vrt("OUT_CHANS")), (), Only((3,)), "frames are RGB; spikes enter by fusion alone"),
    Key(_vrt("WINDOW_SIZE"), ("model.vrt.window",), same),
    Key(_vrt("DEPTHS"), ("model.vrt.depths",), same),
    Key(_vrt("EMBED_DIMS"), ("model.vrt.dims",), same),
    Key(_vrt("NUM_HEADS"), ("model.vrt.num_heads",), same),
    Key(_vrt("INDEP_RECONSTS"), ("model.vrt.independent",), same),
    Key(_vrt("MUL_ATTN_RATIO"), ("model.vrt.mutual_ratio",), number),
    Key(_vrt("MLP_RATIO"), ("model.vrt.mlp_ratio",), number),
    Key(_vrt("DROP_PATH_RATE"), ("model.vrt.drop_path",), number),
    Key(_vrt("PA_FRAMES"), ("model.vrt.pa_frames",), whole),
    Key(_vrt("DEFORM_GROUPS"), ("model.vrt.deform_groups",), whole),
    Key(_vrt("NONBLIND_DENOISING"), ("model.vrt.nonblind_denoising",), switch),
    Key(_vrt("QKV_BIAS"), (), Only((True,)), "queries, keys and values always have a bias"),
    Key(_vrt("QK_SCALE"), (), Only((None,)), "the scale is always 1 / sqrt(channels of a head)"),
    Key(_vrt("RECAL_ALL_FLOWS"), (), Only((False,)), "it does nothing in the published network either"),
    Key(_vrt("SPYNET_PATH"), (), Only((None, "")), "SpyNet's weights come with a VRT checkpoint, train.init_vrt"),
    Key(("MODEL.PRETRAINED", "MODEL.VRT_PRETRAINED", *_vrt("PRETRAINED")), ("train.init_vrt",),
        weights_file(PT[:2], "a published VRT deblurring checkpoint"), "ours (.safetensors): train.init"),
    Key(("MODEL.STRICT", "MODEL.PRETRAINED_STRICT"), (), Only((True,)), "weights are always loaded strictly"),
    # the loss
    Key(_loss("TYPE", "NAME"), (), Only(("charbonnier",)), "the loss is Charbonnier plus weighted terms"),
    Key(_loss("CHARBONNIER_WEIGHT"), (), Only((1,)), "Charbonnier has weight 1; the others are relative to it"),
    Key(_loss("CHARBONNIER_EPS", "EPS"), ("loss.charbonnier_eps",), number,
        "sqrt(d^2 + eps^2); where eps was added unsquared, give its square root"),
    Key(_loss("PERCEPTUAL_WEIGHT", "VGG_WEIGHT"), ("loss.perceptual_weight",), number),
    Key(_loss("VGG_LAYER", "PERCEPTUAL_LAYER"), (), Only(("relu3_3",)), "the features are VGG-19's relu3_3"),
    Key(_loss("PERCEPTUAL_TYPE"), (), Only(("mse", "l2")), "the distance is the mean squared difference"),
    Key(_loss("VGG_PATH", "VGG_FILE"), ("loss.perceptual_file",), weights_file(PT, "VGG-19")),
    # the optimiser
    Key(("TRAIN.OPTIM", "TRAIN.OPTIMIZER", "TRAIN.OPTIM.TYPE", "TRAIN.OPTIMIZER.TYPE"), ("optim.kind",),
        choice("unknown optimiser", adamw="adamw", adam="adam"), "AdamW or Adam"),
    Key(("TRAIN.LR", "TRAIN.BASE_LR", "TRAIN.OPTIM.LR", "TRAIN.OPTIMIZER.LR"), ("optim.lr",), number),
    Key(("TRAIN.BETAS", "TRAIN.OPTIM.BETAS", "TRAIN.OPTIMIZER.BETAS"), ("optim.betas",), same),
    Key(("TRAIN.WEIGHT_DECAY", "TRAIN.OPTIM.WEIGHT_DECAY", "TRAIN.OPTIMIZER.WEIGHT_DECAY"), ("optim.weight_decay",),
        number),
    Key(("TRAIN.MAX_ITERS", "TRAIN.STEPS", "TRAIN.MAX_STEPS", "TRAIN.TOTAL_STEPS", "TRAIN.TOTAL_ITERS", "TRAIN.ITERS"),
        ("optim.steps",), whole, "updates of the weights"),
    Key(("TRAIN.EPOCHS", "TRAIN.MAX_EPOCHS", "TRAIN.NUM_EPOCHS"), (),
        never, "steps are counted, not epochs: set optim.steps"),
    Key(("TRAIN.WARMUP_STEPS", "TRAIN.WARMUP_ITERS", "TRAIN.SCHEDULER.WARMUP_STEPS"), ("optim.warmup_steps",), whole),
    Key(("TRAIN.WARMUP_EPOCHS",), (), never, "steps are counted, not epochs: set optim.warmup_steps"),
    Key(("TRAIN.SCHEDULER", "TRAIN.LR_SCHEDULER", "TRAIN.SCHEDULER.TYPE"), ("optim.schedule",), SCHEDULE,
        "cosine, or cosine_restart"),
    Key(("TRAIN.RESTART_PERIODS", "TRAIN.SCHEDULER.PERIODS"), ("optim.restart_steps",), same),
    Key(("TRAIN.MIN_LR", "TRAIN.LR_MIN", "TRAIN.ETA_MIN", "TRAIN.SCHEDULER.MIN_LR"), ("optim.lr_min",), number),
    Key(("TRAIN.GRAD_CLIP", "TRAIN.CLIP_GRAD", "TRAIN.GRAD_CLIP_NORM", "TRAIN.MAX_GRAD_NORM"), ("optim.clip_norm",),
        clip_norm, "a norm"),
    Key(("TRAIN.FLOW_LR_MUL", "TRAIN.FIX_LR_MUL"), ("optim.flow_lr_factor",), number, "times `optim.lr`"),
    Key(("TRAIN.FIX_ITER", "TRAIN.FIX_FLOW_ITERS"), ("optim.flow_fixed_steps",), steps_or_none, "negative: 0"),
    Key(("TRAIN.FREEZE_VRT", "TRAIN.FREEZE_RGB"), ("optim.vrt_lr_factor",), either(0.0, 1.0), "true: 0, false: 1"),
    Key(EMA, ("optim.ema_decay",), decay, "false: 0; a number, or true beside TRAIN.EMA_DECAY"),
    Key(EMA_DECAY, ("optim.ema_decay",), decay_if_on, "0 beside `TRAIN.EMA: false`"),
    # the loop
    Key(("TRAIN.SEED", "SEED"), ("train.seed",), whole),
    Key(("TRAIN.DEVICE", "DEVICE"), ("train.device",), same, "auto, cpu or cuda"),
    Key(AMP, ("train.precision",), precision, "false: fp32; true: TRAIN.AMP_DTYPE, without it bf16"),
    Key(AMP_DTYPE, ("train.precision",), precision_of_dtype, "bf16, fp16 or fp32; fp32 beside `TRAIN.AMP: false`"),
    Key(("TRAIN.ACCUM_STEPS", "TRAIN.GRAD_ACCUM", "TRAIN.GRAD_ACCUM_STEPS", "TRAIN.ACCUMULATE"), ("train.accumulate",),
        whole, "micro-batches of a step"),
    Key(("TRAIN.COMPILE",), ("train.compile",), switch),
    Key(("TRAIN.CHANNELS_LAST",), ("train.channels_last",), switch),
    Key(("TRAIN.DETERMINISTIC",), ("train.deterministic",), switch),
    Key(("TRAIN.RESUME",), ("train --resume",), resume, "true; a file is refused"),
    Key(("TRAIN.DISTRIBUTED", "DISTRIBUTED"), (), Only((True, False)),
        "torchrun decides: under it every process takes part"),
    Key(("TRAIN.NUM_GPUS", "TRAIN.GPUS", "NUM_GPUS"), ("torchrun --nproc-per-node",), gpus),
    Key(("TRAIN.FIND_UNUSED_PARAMETERS",), (), Only((False,)), "every parameter that learns is used in every step"),
    Key(("TRAIN.VAL_INTERVAL", "LOG.VAL_INTERVAL", "VAL.INTERVAL"), ("train.validate_every",), whole, "steps"),
    Key(("TRAIN.SAVE_INTERVAL", "LOG.SAVE_INTERVAL", "LOG.CKPT_INTERVAL"), ("train.checkpoint_every",), whole, "steps"),
    # what is written
    Key(("LOG.DIR", "LOG.OUT_DIR", "OUTPUT_DIR"), ("train --out",), text),
    Key(("LOG.PRINT_INTERVAL", "LOG.INTERVAL", "TRAIN.PRINT_INTERVAL"), ("train.log_every",), whole, "steps"),
    Key(("LOG.IMAGE_INTERVAL", "LOG.VIS_INTERVAL"), ("train.picture_every",), whole, "steps"),
    Key(("LOG.TB", "LOG.TENSORBOARD"), (), Only((True,)), "TensorBoard is written wherever it is installed"),
    Key(("LOG.WANDB",), (), Only((False, None)), "there is no such logger; journal.jsonl holds every number"),
    Key(("LOG.SAVE_BEST", "LOG.SAVE_LAST", "TRAIN.SAVE_BEST", "TRAIN.SAVE_LAST"), (),
        Only((True,)), "best and last are always kept"),
    Key(("LOG.NAME", "EXP_NAME", "NAME"), (), never, "a run is named by its folder: spikevrt train --out runs/NAME"),
)  # fmt: skip
