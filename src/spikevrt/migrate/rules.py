"""Rules by which a value of the reference system's configs becomes one of ours; `config_keys` names one for each key.

A rule takes the old value and all other old values. It returns the new value, or None where there is nothing to set, or
raises ValueError with the reason of its refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

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


def whole(value: Any, others: Others) -> int:
    """A whole number, also as 3e5 (which YAML reads as a string) or 3.0e5."""
    number = _number(value)
    if number != int(number):
        raise ValueError("a whole number is needed")
    return int(number)


def steps_or_none(value: Any, others: Others) -> int:
    """Steps; a negative number is the reference's way to say none."""
    return max(0, whole(value, others))


def text(value: Any, others: Others) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a name is needed")
    return value


def number(value: Any, others: Others) -> float:
    return _number(value)


def anything(value: Any, others: Others) -> None:
    """Nothing depends on it."""


def switch(value: Any, others: Others) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is needed")
    return value


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


def voxels(value: Any, others: Others) -> str:
    return "precomputed" if switch(value, others) else "raw"


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


def frozen(value: Any, others: Others) -> float:
    """Frozen is a rate of 0 times the learning rate."""
    return 0.0 if switch(value, others) else 1.0


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
    return _number(value)


def decay_if_on(value: Any, others: Others) -> float:
    """The decay; without EMA it says nothing."""
    return 0.0 if _first(EMA, others, True) in (False, None) else _number(value)


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
    if value in (None, False) or _number(value) <= 0:
        raise ValueError("gradients are always clipped; set optim.clip_norm, for example 1.0")
    return _number(value)


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


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        number = float(value)
        if number in (float("inf"), float("-inf")) or number != number:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError("a number is needed") from None
    return number


def _equal(value: Any, allowed: Any) -> bool:
    if isinstance(value, str) and isinstance(allowed, str):
        return value.lower() == allowed.lower()
    if isinstance(value, bool) or isinstance(allowed, bool) or value is None or allowed is None:
        return value is allowed
    return bool(value == allowed)
