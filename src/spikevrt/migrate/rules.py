"""By which rule the value of an old key (upper-case YAML) is taken over; `keys` says which key has which.

A rule takes the old value and all old values. It returns the new value, `Settings` where its settings have several,
None or the reason (`Nothing`) where there is nothing to set, or raises ValueError with the reason of its refusal.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

AMP = ("TRAIN.AMP", "TRAIN.USE_AMP", "TRAIN.MIXED_PRECISION")
AMP_DTYPE = ("TRAIN.AMP_DTYPE", "TRAIN.PRECISION")
EMA = ("TRAIN.EMA", "TRAIN.USE_EMA")
EMA_DECAY = ("TRAIN.EMA_DECAY",)
CLIP_LEN = ("DATA.CLIP_LEN", "DATA.NUM_FRAMES", "DATA.SEQ_LEN", "DATA.T")
BATCH = ("TRAIN.BATCH_SIZE", "DATA.BATCH_SIZE")
ACCUMULATE = ("TRAIN.ACCUM_STEPS", "TRAIN.GRAD_ACCUM", "TRAIN.GRAD_ACCUM_STEPS", "TRAIN.ACCUMULATE",
              "TRAIN.GRADIENT_ACCUMULATION_STEPS", "TRAIN.ACCUMULATE_GRAD")  # fmt: skip
STEPS = ("TRAIN.MAX_ITERS", "TRAIN.STEPS", "TRAIN.MAX_STEPS", "TRAIN.TOTAL_STEPS", "TRAIN.TOTAL_ITERS", "TRAIN.ITERS")
EPOCHS = ("TRAIN.EPOCHS", "TRAIN.MAX_EPOCHS", "TRAIN.NUM_EPOCHS")
GPUS = ("TRAIN.NUM_GPUS", "TRAIN.GPUS", "NUM_GPUS")
ROOT, TRAIN_SPLIT = ("DATA.ROOT", "DATA.DATA_ROOT"), ("DATA.TRAIN_SPLIT",)
RUN_FOLDER = ("LOG.DIR", "LOG.OUT_DIR", "OUTPUT_DIR", "TRAIN.EXP_DIR")
RUNS_FOLDER = ("LOG.SAVE_DIR",)  # of which a run's folder is made below
RUN_NAME = ("EXP_NAME", "LOG.NAME", "LOG.EXP_NAME", "TRAIN.EXP_NAME", "NAME")
RESUMED = ("TRAIN.CHECKPOINT_PATH",)
CONVERTED = "--checkpoint"  # stands among the keys where weights are converted too
CHUNKED = ("MODEL.SPIKE_TSA", "MODEL.FUSE")  # sections of attention over time, which the older code did in chunks
CHUNK_PX, CHUNK_SEQUENCES = 64, 49_152  # its defaults of CHUNK_SIZE and MAX_BATCH_TOKENS

Others = Mapping[str, Any]  # every old key and its value
Rule = Callable[[Any, Others], Any]


class Nothing(str):
    """Why there is nothing to set."""


class Settings(dict[str, Any]):
    """A value for each new setting, where one key sets several to different ones."""


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


def left_out(value: Any, others: Others) -> None:
    """Left out, whatever it says; the remark says why nothing is lost."""


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
    named = choice("unknown network", vrtwithspike=True, spikevrt=True, spike_vrt=True, vrt_spike=True, vrt=False)
    return bool(named(value, others))


def fusion(value: Any, others: Others) -> str:
    if value in ("TemporalCrossAttn", "TemporalCrossAttnFuse", "MultiScaleTemporalCrossAttnFuse"):
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


def dataset(value: Any, others: Others) -> Settings:
    """The folder is read where it lies; what `spikevrt prepare` makes of it lies beside it, and is trained on."""
    root = text(value, others).rstrip("/")
    if os.path.isfile(f"{root}/dataset.json"):  # no error whatever the text
        return Settings({"data.root": root})
    return Settings({"data.root": f"{root}_prepared", "prepare DATASET": root, "prepare --out": f"{root}_prepared"})


def root_above(split: str) -> Rule:
    """ROOT of ROOT/train: both splits lie in one folder."""

    def rule(value: Any, others: Others) -> Settings:
        if not isinstance(value, str) or PurePosixPath(value).name != split:
            raise ValueError(f"a dataset is one folder with train and val in it, so this must end in /{split}")
        return dataset(str(PurePosixPath(value).parent), others)

    return rule


def val_split(value: Any, others: Others) -> None:
    """The layout's second split is val, without it test."""
    root = _first(ROOT, others, "")
    if value not in ("val", "test"):
        raise ValueError("possible here: val, test")
    if value == "test" and os.path.isdir(f"{root}/val"):
        raise ValueError(f"{root} has val, too, which is read before test; move the one that is not meant")


def bins(value: Any, others: Others) -> Settings:
    """The number of bins, and how ticks fall into them: the older loader's int(t * K / T)."""
    number, binning = whole(value, others), "start"
    return Settings({
        "model.spikes.num_bins": number, "model.spikes.binning": binning,
        "prepare --num-bins": number, "prepare --binning": binning,
    })  # fmt: skip


def voxels(value: Any, others: Others) -> Settings:
    read = either("precomputed", "raw")(value, others)
    return Settings({"data.voxels": read, "prepare --voxels": read})


def workers(value: Any, others: Others) -> int | Nothing:
    """Of all processes together; a share of the processors ("auto", "cpu*0.8") is none that a file could hold."""
    if isinstance(value, str) and (value == "auto" or value.startswith("cpu*")):
        return Nothing("a share of the processors; data.workers is a number, and 0 is seldom the slower")
    return whole(value, others) // max(1, gpus(_first(GPUS, others, 1), others))


def window(value: Any, others: Others) -> Any:
    """[frames, rows, columns], or one number for rows and columns."""
    return value if isinstance(value, list) else [clip_frames(others), *[whole(value, others)] * 2]


PRECISION = choice(
    "unknown type", bf16="bf16", bfloat16="bf16", fp16="fp16", float16="fp16", half="fp16", fp32="fp32", float32="fp32"
)


def precision(value: Any, others: Others) -> str:
    """AMP on: what AMP_DTYPE names, without it fp16 with a loss scaler, CUDA's default. Off: fp32."""
    if not switch(value, others):
        return "fp32"
    return str(PRECISION(_first(AMP_DTYPE, others, "fp16"), others))


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


def clip_frames(others: Others) -> int:
    return whole(_first(CLIP_LEN, others, 5), others)


def chunk(value: Any, others: Others) -> int:
    """Tokens at a time: the chunk's pixels x CLIP_LEN.

    A chunk of the older code was at most CHUNK_SIZE x CHUNK_SIZE pixels of every clip of the batch and, with
    ADAPTIVE_CHUNK, at most MAX_BATCH_TOKENS pixels in all. Of both attentions the smaller bound holds.
    """
    whole(value, others)
    found = []
    for section in CHUNKED:
        named = {name.removeprefix(f"{section}."): other for name, other in others.items() if name.startswith(section)}
        if "CHUNK_SIZE" in named or "MAX_BATCH_TOKENS" in named:
            pixels = whole(named.get("CHUNK_SIZE", CHUNK_PX), others) ** 2
            if named.get("ADAPTIVE_CHUNK") is True:
                batch = whole(_first(BATCH, others, 1), others)
                pixels = min(pixels, whole(named.get("MAX_BATCH_TOKENS", CHUNK_SEQUENCES), others) // max(1, batch))
            found.append(pixels)
    return min(found) * clip_frames(others)


def epochs(value: Any, others: Others) -> int:
    """Steps of so many passes over the clips of DATA.ROOT, counted as the older code did."""
    number, root = whole(value, others), _first(ROOT, others, None)
    split = Path(str(root), str(_first(TRAIN_SPLIT, others, "train")))
    blurs = split.rglob("blur") if os.path.isdir(split) else []
    clips = sum(_num_clips(blur.parent, clip_frames(others)) for blur in blurs if blur.is_dir())
    devices, batch, accumulate = (
        max(1, gpus(_first(GPUS, others, 1), others)),
        max(1, whole(_first(BATCH, others, 8), others)),
        max(1, whole(_first(ACCUMULATE, others, 1), others)),
    )
    steps = number * (clips // devices // batch // accumulate)
    if steps < 1:
        raise ValueError(
            f"steps are counted here, not epochs: epochs x (clips / {batch} of a batch / {devices} devices / "
            f"{accumulate} accumulated), and {split} has {clips} clips of {clip_frames(others)} frames; run this where "
            "DATA.ROOT is, or name TRAIN.TOTAL_STEPS instead"
        )
    return steps


def _num_clips(folder: Path, length: int) -> int:
    pictures = {".png", ".jpg", ".jpeg", ".bmp"}
    kinds = [folder / kind for kind in ("blur", "sharp")]
    frames = min(sum(path.suffix.lower() in pictures for path in kind.iterdir()) for kind in kinds if kind.is_dir())
    return max(0, frames - length + 1)


def steps(value: Any, others: Others) -> int | Nothing:
    if any(name in others for name in EPOCHS):
        return Nothing("epochs are named, and went before steps in the older code")
    return whole(value, others)


def warmup(value: Any, others: Others) -> int:
    """Steps; none where there are as many as steps in all, as the older code had it."""
    try:
        total = epochs(_first(EPOCHS, others, 0), others)
    except ValueError:
        total = whole(_first(STEPS, others, 1 << 62), others)
    number = whole(value, others)
    return number if number < total else 0


def named_file(suffixes: tuple[str, ...], what: str) -> Callable[[Any, Others], str | None]:
    def rule(value: Any, others: Others) -> str | None:
        if value in (None, "", False):
            return None
        if not isinstance(value, str) or not value.endswith(suffixes):
            raise ValueError(f"{what}: a file that ends in {' or '.join(suffixes)} is needed")
        return value

    return rule


def pretrained(value: Any, others: Others) -> str | Nothing | None:
    if value and CONVERTED in others:
        return Nothing("the weights of --checkpoint are the start")
    return named_file((".pth", ".pt"), "a published VRT deblurring checkpoint")(value, others)


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


def resumed(value: Any, others: Others) -> Any:
    """On, without a file: from the run's own folder. The state of the older code's run is none of ours."""
    if not switch(value, others):
        return None
    if CONVERTED in others:
        return Nothing("the weights of --checkpoint are the start (train.init); the optimiser starts anew")
    named = _first(RESUMED, others, None)
    if named:
        raise ValueError(f"convert its weights: --checkpoint {named}, or set it to false; the optimiser starts anew")
    return "auto"


def old_checkpoint(value: Any, others: Others) -> Nothing:
    return Nothing("its weights are converted by --checkpoint" if value else "none is named")


def run_folder(value: Any, others: Others) -> str:
    """RUNS/NAME, from all the names that say a part of it."""
    folder, name = _first(RUN_FOLDER, others, None), _first(RUN_NAME, others, None)
    if folder is None:
        folder, name = _first(RUNS_FOLDER, others, "runs"), name or "run"
    path = PurePosixPath(text(folder, others))
    return str(path if name is None or path.name == str(name) else path / text(str(name), others))


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
