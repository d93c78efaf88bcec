"""The keys of older VRT+Spike configs (upper-case YAML) and what becomes of each.

`config_file` obeys the table `KEYS`; docs/coming_from_vrt_spike.md shows it.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from spikevrt.migrate.rules import (
    ACCUMULATE,
    AMP,
    AMP_DTYPE,
    BATCH,
    CHUNKED,
    CLIP_LEN,
    EMA,
    EMA_DECAY,
    EPOCHS,
    GPUS,
    RESUMED,
    ROOT,
    RUN_FOLDER,
    RUN_NAME,
    RUNS_FOLDER,
    STEPS,
    TRAIN_SPLIT,
    Only,
    Others,
    Rule,
    bins,
    choice,
    chunk,
    clip_frames,
    clip_norm,
    dataset,
    decay,
    decay_if_on,
    either,
    epochs,
    fusion,
    gpus,
    left_out,
    named_file,
    network,
    never,
    number,
    old_checkpoint,
    precision,
    precision_of_dtype,
    pretrained,
    resume,
    resumed,
    root_above,
    run_folder,
    same,
    square,
    steps,
    steps_or_none,
    switch,
    val_split,
    voxels,
    warmup,
    whole,
    window,
    workers,
)


class Key(NamedTuple):
    """One setting of the older code.

    `new`: settings of `spikevrt.config`, or options of a command (in capitals: what stands first), that take the value;
    empty: nothing to set, and the remark says why. `model.checkpoint:PART` is whether PART is in that list,
    `model.spikes` whether it is not null. `is_told`: the remark stands beside the new value, too.
    """

    old: tuple[str, ...]  # its names; the first is the usual one
    new: tuple[str, ...]
    rule: Rule
    remark: str = ""
    is_told: bool = False


def _under(*names: str, sections: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names for section in sections)


def _vrt(name: str) -> tuple[str, ...]:
    return (f"MODEL.VRT_CFG.{name}", f"MODEL.VRT.{name}")


def _loss(*names: str) -> tuple[str, ...]:
    return (*(f"LOSS.{name}" for name in names), *(f"TRAIN.LOSS.{name}" for name in names))


SCHEDULE = choice(
    "unknown schedule", cosine="cosine", warmup_cosine="cosine", cosine_warmup="cosine", cosineannealinglr="cosine",
    cosine_restart="cosine_restart", cosineannealingwarmrestarts="cosine_restart",
)  # fmt: skip
PT = (".pth", ".pt", ".safetensors")
WHOLE_LAYOUT = "the layout `reference` (docs/datasets.md), which `spikevrt prepare` reads"
MEMORY_ALONE = "nothing but memory and speed depends on it: files are mapped, and there is no cache to size"
ENCODER = ("MODEL.SPIKE_ENCODER", "MODEL.ENCODER", "MODEL.SPIKE", "MODEL")
PREPROCESSED = "what `spikevrt prepare` reads it finds in the files, or is told by its options"
ON_THE_FOLDER = "the stream's own size and clock are kept with the recordings"

DATASET = ("data.root", "prepare DATASET", "prepare --out")

KEYS: tuple[Key, ...] = (
    # what is read
    Key(ROOT, DATASET, dataset, "read by `spikevrt prepare`, which makes ROOT_prepared; already prepared: as it is"),
    Key(("DATA.TRAIN_ROOT",), DATASET, root_above("train"), "the folder above"),
    Key(("DATA.VAL_ROOT",), DATASET, root_above("val"), "the folder above"),
    Key(TRAIN_SPLIT, (), Only(("train",)), WHOLE_LAYOUT),
    Key(("DATA.VAL_SPLIT",), (), val_split, WHOLE_LAYOUT),
    Key(("DATA.BLUR_DIR",), (), Only(("blur",)), WHOLE_LAYOUT),
    Key(("DATA.SHARP_DIR", "DATA.GT_DIR"), (), Only(("sharp",)), WHOLE_LAYOUT),
    Key(("DATA.SPIKE_DIR",), (), Only(("spike",)), WHOLE_LAYOUT),
    Key(("DATA.VOXEL_DIR", "DATA.SPIKE_VOX_DIR", "DATA.VOXEL_CACHE_DIRNAME", "DATA.PREPROCESSING.VOXEL.CACHE_DIRNAME"),
        (), Only(("spike_vox",)), WHOLE_LAYOUT),
    Key(("DATA.NAME", "DATA.TYPE", "DATA.DATASET"), (), Only(("SpikeDeblurDataset", "reference")),
        "its folders are the layout `reference` (docs/datasets.md), which `spikevrt prepare` tells by itself"),
    Key(("DATA.K", "DATA.NUM_VOXEL_BINS", "DATA.SPIKE_BINS", "DATA.NUM_BINS", "DATA.spike_bins", "MODEL.K",
         "MODEL.NUM_VOXEL_BINS", "MODEL.SPIKE_BINS", "MODEL.spike_bins", "MODEL.SPIKE_ENCODER.IN_BINS",
         "DATA.PREPROCESSING.VOXEL.NUM_BINS"),
        ("model.spikes.num_bins", "model.spikes.binning", "prepare --num-bins", "prepare --binning"), bins,
        "start: ticks fall into bins by int(t * K / T), as in the older loader", True),
    Key(("DATA.USE_PRECOMPUTED_VOXELS", "DATA.PRECOMPUTED"), ("data.voxels", "prepare --voxels"), voxels,
        "true: precomputed, the values of spike_vox/*.npy; false: raw, spike/*.dat"),
    Key(("DATA.LOG1P", "DATA.USE_LOG1P", "DATA.PREPROCESSING.VOXEL.APPLY_LOG1P"), (), Only((True,)),
        "voxels are always log1p of counts"),
    Key(("DATA.NORMALIZE", "DATA.STANDARDIZE"), (), Only((True,)), "voxels are always standardised"),
    Key(("DATA.SPIKE_MEAN", "DATA.VOXEL_MEAN", "DATA.SPIKE_STD", "DATA.VOXEL_STD", "DATA.NORM.MEAN", "DATA.NORM.STD"),
        (), left_out, "mean and std are those of the training set, measured by `spikevrt prepare`; weights of "
        "`--checkpoint` keep these, with which they were trained"),
    Key(("DATA.IMAGE_EXTS",), (), left_out, "pictures are told by their suffix"),
    Key(("DATA.ALIGN_LOG_PATHS", "DATA.ALIGN_LOG_PATH"), (), left_out,
        "times come from the ticks of an exposure; each sequence gets an alignment.log of its own"),
    Key((*_under("AUTO_PREPARE", "DATASET_TYPE", "FORCE_RECOMPUTE", sections=("DATA.PREPROCESSING",)),
         *_under("FPS", "EXPOSURE_FRAMES", sections=("DATA.PREPROCESSING.X4K",))), (), left_out, PREPROCESSED),
    Key(_under("SPIKE_TEMPORAL_FRAMES", "SPIKE_HEIGHT", "SPIKE_WIDTH", sections=("DATA.PREPROCESSING.GOPRO",)), (),
        left_out, "these read packed bits as bytes: 10 x 396 x 640 bytes are 88 x 360 x 640 bits; the sensor's size is "
        "told by spike_vox or by prepare's --spike-width, --spike-height"),
    Key(("DATA.SPIKE_H", "DATA.SPIKE_HEIGHT"), ("prepare --spike-height",), whole, ON_THE_FOLDER),
    Key(("DATA.SPIKE_W", "DATA.SPIKE_WIDTH"), ("prepare --spike-width",), whole, ON_THE_FOLDER),
    Key(("DATA.SPIKE_FPS", "DATA.TICK_RATE"), (), never, f"{ON_THE_FOLDER} (recording.json, tick_rate_hz)"),
    Key(CLIP_LEN, ("data.clip_frames",), whole),
    Key(("DATA.CROP_SIZE", "DATA.PATCH_SIZE", "DATA.CROP", "DATA.TRAIN_CROP_SIZE"), ("data.crop_px",), square,
        "one number, or two equal ones"),
    Key(("DATA.VAL_CROP_SIZE", "TRAIN.VAL_BATCH_SIZE", "TRAIN.VAL_NUM_WORKERS", "DATALOADER.VAL_WORKERS"), (), left_out,
        "validation restores whole frames, each once, as users will"),
    Key(BATCH, ("data.batch",), whole, "clips of one device at a time"),
    Key(("DATA.NUM_WORKERS", "DATA.WORKERS", "TRAIN.NUM_WORKERS"), ("data.workers",), whole, "of one process"),
    Key(("DATALOADER.TRAIN_WORKERS",), ("data.workers",), workers, "of one process"),
    Key(("DATALOADER.TOTAL_WORKERS",), ("data.workers",), workers, "of all processes, over their number"),
    Key((*_under("TRAIN_PREFETCH_FACTOR", "VAL_PREFETCH_FACTOR", "PIN_MEMORY", "PERSISTENT_WORKERS", "DROP_LAST",
                 sections=("DATALOADER",)),
         "TRAIN.PREFETCH_FACTOR", "TRAIN.VAL_PREFETCH_FACTOR"), (), left_out, MEMORY_ALONE),
    Key(("DATA.AUGMENT", "DATA.AUG", "DATA.FLIP", "DATA.ROTATE", "DATA.USE_FLIP", "DATA.USE_ROT", "DATA.HFLIP",
         "DATA.VFLIP"), ("data.augment",), switch, "mirrors, quarter turns and reversed time, all or none"),
    Key(("DATA.SHUFFLE",), (), Only((True,)), "training clips always come in a seeded random order"),
    Key(("DATA.DROP_LAST",), (), Only((True,)), "the stream of clips is endless: every batch is full"),
    Key(("DATA.PIN_MEMORY",), (), Only((True,)), "memory is pinned wherever there is a GPU"),
    Key(("DATA.CACHE", "DATA.CACHE_SIZE_GB", "DATA.CACHE_SIZE", "DATA.USE_RAM_CACHE"), (), left_out, MEMORY_ALONE),
    # the network
    Key(("MODEL.NAME", "MODEL.TYPE"), ("model.spikes",), network,
        "VRTWithSpike, SpikeVRT: with spikes; VRT: `model.spikes: null`"),
    Key(("MODEL.USE_SPIKE", "MODEL.USE_SPIKES"), ("model.spikes",), switch, "false: `model.spikes: null`, the twin"),
    Key(("MODEL.CHANNELS_PER_SCALE", "MODEL.SPIKE_ENCODER.CHANNELS_PER_SCALE"), ("model.spikes.dims",), same,
        "must equal the first four of `model.vrt.dims`"),
    Key(("MODEL.SPIKE_ENCODER.TYPE",), (), Only(("SpikeEncoder3D",)), "there is one encoder"),
    Key(("MODEL.SPIKE_ENCODER.NUM_BLOCKS",), ("model.spikes.num_blocks",), whole, "residual 3-D blocks of a scale"),
    Key(("MODEL.SPIKE_ENCODER.ACTIVATION",), ("model.spikes.activation",), same,
        "of the encoder; relu in the older code"),
    Key(_under("SPATIAL_STRIDES", sections=ENCODER), (), Only(([2, 2, 2], [1, 2, 2, 2], None)),
        "each further scale halves rows and columns, as VRT's encoder does"),
    Key(_under("TEMPORAL_STRIDES", sections=ENCODER), (), Only(([1, 1, 1], [1, 1, 1, 1], None)),
        "VRT keeps the number of frames at every scale, and so does the encoder"),
    Key(("MODEL.LAYERS",), (), Only((4,)), "there are four scales, those of VRT's encoder"),
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
    Key(_under("CHUNK_SIZE", "MAX_BATCH_TOKENS", sections=CHUNKED), ("model.spikes.max_tokens",), chunk,
        "CHUNK_SIZE x CHUNK_SIZE pixels (ADAPTIVE_CHUNK: at most MAX_BATCH_TOKENS / BATCH_SIZE) x CLIP_LEN frames, the "
        "smaller of both attentions; memory alone depends on it", True),
    Key(_under("ADAPTIVE_CHUNK", "CHUNK_SHAPE", sections=CHUNKED), (), left_out,
        "chunks are whole rows, as many as model.spikes.max_tokens allows; memory alone depends on it"),
    Key(_under("USE_CHECKPOINT", "CHECKPOINT", "GRADIENT_CHECKPOINTING", "GRAD_CHECKPOINT", "USE_GRAD_CHECKPOINT",
               sections=("MODEL", "TRAIN")),
        tuple(f"model.checkpoint:{part}" for part in ("attention", "mlp", "deform")), switch, "VRT's three parts"),
    Key((*_vrt("USE_CHECKPOINT_ATTN"), "MODEL.USE_CHECKPOINT_ATTN"), ("model.checkpoint:attention",), switch),
    Key((*_vrt("USE_CHECKPOINT_FFN"), "MODEL.USE_CHECKPOINT_FFN"), ("model.checkpoint:mlp",), switch),
    Key((*_vrt("NO_CHECKPOINT_ATTN_BLOCKS"), *_vrt("NO_CHECKPOINT_FFN_BLOCKS")), (),
        Only(([], None)), "stages are chosen for all parts at once, by model.checkpoint_stages"),
    Key(("MODEL.SPIKE_TSA.CHECKPOINT", "MODEL.SPIKE_TSA.USE_CHECKPOINT"), ("model.checkpoint:spikes",), switch),
    Key(("MODEL.FUSE.CHECKPOINT", "MODEL.FUSE.USE_CHECKPOINT"), ("model.checkpoint:fusion",), switch),
    Key(_vrt("UPSCALE"), ("model.vrt.upscale",), whole),
    Key(("MODEL.VRT_CFG",), (), left_out,
        "the older code read nothing of that file but window_size: name MODEL.VRT.WINDOW_SIZE if it was not "
        "[CLIP_LEN, 8, 8]"),
    Key((*_vrt("IMG_SIZE"), "MODEL.IMG_SIZE_H", "MODEL.IMG_SIZE_W"), (), left_out,
        "nothing depends on it; clips have DATA.CLIP_LEN and DATA.CROP_SIZE"),
    Key((*_vrt("IN_CHANS"), *_vrt("OUT_CHANS")), (), Only((3,)), "frames are RGB; spikes enter by fusion alone"),
    Key((*_vrt("WINDOW_SIZE"), "MODEL.WINDOW_SIZE"), ("model.vrt.window",), window, "one number: rows and columns"),
    Key(_vrt("DEPTHS"), ("model.vrt.depths",), same),
    Key(_vrt("EMBED_DIMS"), ("model.vrt.dims",), same),
    Key(_vrt("NUM_HEADS"), ("model.vrt.num_heads",), same),
    Key(_vrt("INDEP_RECONSTS"), ("model.vrt.independent",), same),
    Key(_vrt("MUL_ATTN_RATIO"), ("model.vrt.mutual_ratio",), number),
    Key(_vrt("MLP_RATIO"), ("model.vrt.mlp_ratio",), number),
    Key(_vrt("DROP_PATH_RATE"), ("model.vrt.drop_path",), number),
    Key(_vrt("PA_FRAMES"), ("model.vrt.pa_frames",), whole),
    Key((*_vrt("DEFORM_GROUPS"), "MODEL.DEFORM_GROUPS"), ("model.vrt.deform_groups",), whole),
    Key(_vrt("NONBLIND_DENOISING"), ("model.vrt.nonblind_denoising",), switch),
    Key(_vrt("QKV_BIAS"), (), Only((True,)), "queries, keys and values always have a bias"),
    Key(_vrt("QK_SCALE"), (), Only((None,)), "the scale is always 1 / sqrt(channels of a head)"),
    Key(_vrt("RECAL_ALL_FLOWS"), (), Only((False,)), "it does nothing in the published network either"),
    Key(_vrt("SPYNET_PATH"), (), Only((None, "")), "SpyNet's weights come with a VRT checkpoint, train.init_vrt"),
    Key(("MODEL.PRETRAINED", "MODEL.VRT_PRETRAINED", *_vrt("PRETRAINED")), ("train.init_vrt",),
        pretrained, "a published VRT; one of VRT+Spike: --checkpoint; ours (.safetensors): train.init"),
    Key(("MODEL.STRICT", "MODEL.PRETRAINED_STRICT"), (), Only((True,)), "weights are always loaded strictly"),
    # the loss
    Key(_loss("TYPE", "NAME"), (), Only(("charbonnier",)), "the loss is Charbonnier plus weighted terms"),
    Key(_loss("CHARBONNIER_WEIGHT", "CHARBONNIER.WEIGHT"), (), Only((1,)),
        "Charbonnier has weight 1; the others are relative to it"),
    Key(_loss("CHARBONNIER_EPS", "EPS", "CHARBONNIER.DELTA", "CHARBONNIER.EPS"), ("loss.charbonnier_eps",), number,
        "sqrt(d^2 + eps^2); where eps was added unsquared, give its square root"),
    Key(_loss("PERCEPTUAL_WEIGHT", "VGG_WEIGHT", "VGG_PERCEPTUAL.WEIGHT"), ("loss.perceptual_weight",), number),
    Key(_loss("VGG_LAYER", "PERCEPTUAL_LAYER", "VGG_PERCEPTUAL.LAYERS"), (), Only(("relu3_3", ["relu3_3"])),
        "the features are VGG-19's relu3_3, and their distance the mean square (some versions: VGG-16's, the mean "
        "absolute difference)"),
    Key(_loss("PERCEPTUAL_TYPE"), (), Only(("mse", "l2")), "the distance is the mean squared difference"),
    Key(_loss("VGG_PATH", "VGG_FILE"), ("loss.perceptual_file",), named_file(PT, "VGG-19")),
    # the optimiser
    Key(("TRAIN.OPTIM", "TRAIN.OPTIMIZER", "TRAIN.OPTIM.TYPE", "TRAIN.OPTIMIZER.TYPE"), ("optim.kind",),
        choice("unknown optimiser", adamw="adamw", adam="adam", adamw8bit="adamw8bit"),
        "AdamW or Adam; adamw8bit needs the extra `lowmem` (torchao)"),
    Key(("TRAIN.LR", "TRAIN.BASE_LR", "TRAIN.OPTIM.LR", "TRAIN.OPTIMIZER.LR"), ("optim.lr",), number),
    Key(("TRAIN.BETAS", "TRAIN.OPTIM.BETAS", "TRAIN.OPTIMIZER.BETAS"), ("optim.betas",), same),
    Key(("TRAIN.WEIGHT_DECAY", "TRAIN.OPTIM.WEIGHT_DECAY", "TRAIN.OPTIMIZER.WEIGHT_DECAY"), ("optim.weight_decay",),
        number),
    Key(STEPS, ("optim.steps",), steps, "updates of the weights"),
    Key(EPOCHS, ("optim.steps",), epochs,
        "epochs x (clips of DATA.ROOT / batch / devices / accumulated batches), as the older code counted", True),
    Key(("TRAIN.WARMUP_STEPS", "TRAIN.WARMUP_ITERS", "TRAIN.SCHEDULER.WARMUP_STEPS", "TRAIN.SCHED.WARMUP_STEPS"),
        ("optim.warmup_steps",), warmup, "0 where it is not below the number of steps"),
    Key(("TRAIN.WARMUP_EPOCHS",), (), never, "steps are counted, not epochs: set optim.warmup_steps"),
    Key(("TRAIN.SCHEDULER", "TRAIN.LR_SCHEDULER", "TRAIN.SCHEDULER.TYPE", "TRAIN.SCHED.TYPE"),
        ("optim.schedule",), SCHEDULE, "cosine, or cosine_restart"),
    Key(("TRAIN.RESTART_PERIODS", "TRAIN.SCHEDULER.PERIODS"), ("optim.restart_steps",), same),
    Key(("TRAIN.MIN_LR", "TRAIN.LR_MIN", "TRAIN.ETA_MIN", "TRAIN.SCHEDULER.MIN_LR",
         "TRAIN.SCHED.MIN_LR"), ("optim.lr_min",), number),
    Key(("TRAIN.GRAD_CLIP", "TRAIN.CLIP_GRAD", "TRAIN.GRAD_CLIP_NORM", "TRAIN.MAX_GRAD_NORM", "TRAIN.MAX_NORM"),
        ("optim.clip_norm",), clip_norm, "a norm"),
    Key(("TRAIN.FLOW_LR_MUL", "TRAIN.FIX_LR_MUL"), ("optim.flow_lr_factor",), number, "times `optim.lr`"),
    Key(("TRAIN.FIX_ITER", "TRAIN.FIX_FLOW_ITERS"), ("optim.flow_fixed_steps",), steps_or_none, "negative: 0"),
    Key(("TRAIN.FREEZE_VRT", "TRAIN.FREEZE_RGB"), ("optim.vrt_lr_factor",), either(0.0, 1.0), "true: 0, false: 1"),
    Key(EMA, ("optim.ema_decay",), decay, "false: 0; a number, or true beside TRAIN.EMA_DECAY"),
    Key(EMA_DECAY, ("optim.ema_decay",), decay_if_on, "0 beside `TRAIN.EMA: false`"),
    # the loop
    Key(("TRAIN.SEED", "SEED"), ("train.seed",), whole),
    Key(("TRAIN.DEVICE", "DEVICE"), ("train.device",), same, "auto, cpu or cuda"),
    Key(AMP, ("train.precision",), precision,
        "true: TRAIN.AMP_DTYPE, without it fp16 with a loss scaler, as it meant on CUDA; bf16 has the range of float32 "
        "and needs no scaler, where the GPU has it; false: fp32", True),
    Key(AMP_DTYPE, ("train.precision",), precision_of_dtype, "bf16, fp16 or fp32; fp32 beside `TRAIN.AMP: false`"),
    Key(ACCUMULATE, ("train.accumulate",), whole, "micro-batches of a step"),
    Key(("TRAIN.COMPILE", "TRAIN.COMPILE_MODEL"), ("train.compile",), switch),
    Key(("TRAIN.CHANNELS_LAST",), ("train.channels_last",), switch),
    Key(("TRAIN.DETERMINISTIC",), ("train.deterministic",), switch),
    Key(("TRAIN.RESUME",), ("train --resume",), resume, "true; a file is refused"),
    Key(("TRAIN.RESUME_FROM_CHECKPOINT",), ("train --resume",), resumed,
        "true: auto, from the run's own folder; with a CHECKPOINT_PATH its weights are converted first (--checkpoint)"),
    Key(RESUMED, (), old_checkpoint, "converted by `spikevrt config import --checkpoint`"),
    Key(("TRAIN.DDP_COMPRESSION",), (), left_out, "gradients are exchanged as they are"),
    Key(("TRAIN.DISTRIBUTED", "DISTRIBUTED"), (), Only((True, False)),
        "torchrun decides: under it every process takes part"),
    Key(GPUS, ("torchrun --nproc-per-node",), gpus),
    Key(("TRAIN.FIND_UNUSED_PARAMETERS",), (), Only((False,)), "every parameter that learns is used in every step"),
    Key(("TRAIN.VAL_INTERVAL", "LOG.VAL_INTERVAL", "VAL.INTERVAL", "LOG.VAL_EVERY_STEPS"), ("train.validate_every",),
        whole, "steps"),
    Key(("TRAIN.SAVE_INTERVAL", "LOG.SAVE_INTERVAL", "LOG.CKPT_INTERVAL"), ("train.checkpoint_every",), whole, "steps"),
    # what is written
    Key(RUN_FOLDER, ("train --out",), run_folder,
        "the run's folder; with a name (EXP_NAME) the folder of that name in it"),
    Key(RUNS_FOLDER, ("train --out",), run_folder, "the folder of runs; a run of no name (EXP_NAME) is `run`"),
    Key(RUN_NAME, ("train --out",), run_folder, "the run's folder in LOG.SAVE_DIR, without it in runs"),
    Key(("LOG.PRINT_INTERVAL", "LOG.INTERVAL", "TRAIN.PRINT_INTERVAL", "LOG.PROGRESS_EVERY_STEPS"),
        ("train.log_every",), whole, "steps"),
    Key(("LOG.IMAGE_INTERVAL", "LOG.VIS_INTERVAL"), ("train.picture_every",), whole, "steps"),
    Key(("LOG.TB", "LOG.TENSORBOARD"), (), Only((True,)), "TensorBoard is written wherever it is installed"),
    Key(("LOG.WANDB", *_under("ENABLE", "PROJECT", "ENTITY", "RUN_NAME", "RESUME", "JOB_TYPE", "TAGS", "WATCH",
                              "LOG_CHECKPOINTS", "LOG_IMAGES", sections=("LOG.WANDB",))), (), left_out,
        "there is no such logger; journal.jsonl and TensorBoard hold every number"),
    Key(_under("ENABLE_TIMING_LOG", "TIMING_CONSOLE", "TIMING_FILE", "TIMING_CONSOLE_INTERVAL", "TIMING_FILE_INTERVAL",
               sections=("LOG",)), (), left_out, "time per step and waiting for data are always in the journal"),
    Key(("LOG.CHECKPOINT_SAVE_EVERY_EPOCH", "LOG.CHECKPOINT_KEEP_LAST_N"), (), left_out,
        "states are written every train.checkpoint_every steps, the newest two are kept; train.keep_every keeps more"),
    Key(("TEST.BATCH_SIZE", "TEST.NUM_WORKERS", "TEST.CHECKPOINT_PATH"), (), left_out,
        "`spikevrt restore` and `evaluate` are told their weights, and plan their memory"),
    Key(_under("DATALOADER_VERBOSE", "CACHE_STATS", "TIMING_ANALYSIS", sections=("DEBUG",)), (), left_out,
        "`spikevrt train --dry-run` tells time and memory of a step"),
    Key(("LOG.SAVE_BEST", "LOG.SAVE_LAST", "TRAIN.SAVE_BEST", "TRAIN.SAVE_LAST"), (),
        Only((True,)), "best and last are always kept"),
)  # fmt: skip


def older_defaults(old: Others) -> dict[str, Any]:
    """What the older code (class VRTWithSpike, MODEL.VRT_CFG a file) had for keys that its config does not name.

    Its VRT had the published defaults of super-resolution, but CHANNELS_PER_SCALE channels in the encoder and the last
    of them in all later stages. Of the structure all four are taken, or none where one is named.
    """
    names = [str(old.get(name)).lower() for name in ("MODEL.NAME", "MODEL.TYPE")]
    if not isinstance(old.get("MODEL.VRT_CFG"), str) and "vrtwithspike" not in names:
        return {}
    dims = old.get("MODEL.CHANNELS_PER_SCALE", [96] * 4)
    structure = {"DEPTHS": [8] * 7 + [4] * 6, "NUM_HEADS": [6] * 13, "INDEP_RECONSTS": [11, 12]}
    if isinstance(dims, list) and len(dims) == 4:
        structure["EMBED_DIMS"] = dims + dims[-1:] * 9
    has_structure = any(name in old for key in structure for name in _vrt(key))
    defaults: dict[str, Any] = (
        {} if has_structure else {f"MODEL.VRT.{name}": value for name, value in structure.items()}
    )
    with contextlib.suppress(ValueError):  # CLIP_LEN is no number, which its own line says
        defaults["MODEL.VRT.WINDOW_SIZE"] = [clip_frames(old), 8, 8]
    defaults |= {
        "MODEL.VRT.USE_CHECKPOINT_ATTN": True,
        "MODEL.VRT.USE_CHECKPOINT_FFN": True,
        "MODEL.SPIKE_ENCODER.NUM_BLOCKS": 2,
        "MODEL.SPIKE_ENCODER.ACTIVATION": "relu",
        "TRAIN.AMP": True,
        "TRAIN.WARMUP_STEPS": 0,
    }
    settings = {new for key in KEYS for name in key.old if name in old for new in key.new}
    of = {name: key for key in KEYS for name in key.old}
    return {name: value for name, value in defaults.items() if not settings & set(of[name].new)}
