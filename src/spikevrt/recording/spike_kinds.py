"""Which spike formats there are: the one table that reading, writing, the guesses of `inspect` and `--help` go by.

Nothing is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

AXES = ("THW", "HWT")
LENGTH_KEY = "length"  # packed-time: how many ticks, for the last byte may hold fewer than eight


@dataclass(frozen=True)
class SpikeKind:
    """How a kind of file stores spikes.

    suffixes: of its files; where two kinds share one, the first in the table is meant. Without a suffix of its own a
        kind is any file's, and does not tell its geometry.
    bottom_up: whether the bottom row is stored first, unless stated. in_bits: one bit a spike, else one byte.
    has_tags: whether rows may end in bits that are no pixels. size: (width, height) where the sensor is known.
    keys: of kinds that hold arrays by name, the name that is written for each order of axes; what datasets with these
        names mean by them. axes: the orders in which an array may lie, the first unless its name tells.
    """

    suffixes: tuple[str, ...] = ()
    bottom_up: bool = False
    in_bits: bool = False
    has_tags: bool = False
    size: tuple[int, int] | None = None
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    axes: tuple[str, ...] = ()


SPIKE_KINDS: Mapping[str, SpikeKind] = MappingProxyType(
    {
        "packed": SpikeKind(bottom_up=True, in_bits=True, has_tags=True),  # ticks of whole bytes
        "sps100": SpikeKind(in_bits=True, size=(1000, 1000)),  # half-rows with line tags
        "bytes": SpikeKind(),
        "npy": SpikeKind((".npy",), axes=AXES),
        "npz": SpikeKind((".npz",), axes=AXES, keys=MappingProxyType({"THW": "spk", "HWT": "arr_0"})),
        "packed-time": SpikeKind((".npz",), in_bits=True, keys=MappingProxyType({"THW": "seq"})),  # a byte: eight ticks
        "h5": SpikeKind((".h5", ".hdf5"), axes=AXES, keys=MappingProxyType({"THW": "raw_spike"})),
    }
)
KINDS = tuple(SPIKE_KINDS)
HEADERLESS = tuple(name for name, kind in SPIKE_KINDS.items() if not kind.suffixes)
KEYED = tuple(name for name, kind in SPIKE_KINDS.items() if kind.keys)
WITH_AXES = tuple(name for name, kind in SPIKE_KINDS.items() if kind.axes)
SUFFIX_KINDS = {suffix: name for name in reversed(KINDS) for suffix in SPIKE_KINDS[name].suffixes}
KEY_AXES = {key: axes for kind in SPIKE_KINDS.values() if kind.axes for axes, key in kind.keys.items()}
TIME_PACKED_KEY = SPIKE_KINDS["packed-time"].keys["THW"]
# What a file can be written as: a kind and, where they are not the usual ones, its tag bits and axes.
TARGETS: Mapping[str, tuple[str, int, str | None]] = MappingProxyType(
    {
        **{name: (name, 0, None) for name in KINDS},
        "packed-416": ("packed", 16, None),
        "npy-hwt": ("npy", 0, "HWT"),
        "npz-hwt": ("npz", 0, "HWT"),
    }
)


def kind_of(suffix: str) -> str:
    """The kind that a file's suffix tells; packed where it tells none."""
    return SUFFIX_KINDS.get(suffix.lower(), "packed")
