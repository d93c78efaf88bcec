"""What the page calls things: its fields, and every message in their words.

Messages of the package name fields of `Stated` and commands; whoever is at the page knows labels and buttons.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from spikevrt.atomic import UNFINISHED
from spikevrt.recording.sidecar import TICK_RATE_HZ, Stated
from spikevrt.typed import renamed

ALIGN, UNDO, IGNORE = "Align the cameras", "Undo the alignment", "Restore in spite of these findings"
SIZE_FIELDS = {  # of `Stated`: label and hint
    "spike_width": ("Spike width (pixels)", "without tag bits"),
    "spike_height": ("Spike height (rows)", ""),
    "spike_kind": ("Stored as", "empty: as the suffix tells, else packed"),
    "spike_tag_bits": ("Tag bits a row", "behind the pixels; empty: 0"),
    "spike_key": ("Array", "its name in an .npz or .h5"),
    "spike_axes": ("Axes", "of that array"),
    "top_down": ("The first stored row is the top one", "packed files: the bottom one, unless ticked"),
}
TIME_FIELDS = {
    "exposure": ("Exposure", "6.4ms, 1/125s, 180deg, 50%, 128ticks; empty: estimated from the footage"),
    "tick_rate_hz": ("Spike rate (Hz)", f"read-outs a second; empty: the file's, else {TICK_RATE_HZ:g}"),
    "fps": ("Frame rate (Hz)", "of images: 25, 30000/1001; a video has its own times"),
    "first_tick": ("First tick", "of the stream, at the first exposure; empty: 0"),
    "readout": ("Rolling shutter", "from the first row's start to the last's, as 9ms; empty: all at once"),
    "timestamps": ("Table of times (.csv)", ""),
    "unchecked": ("The exposure is as stated, whatever the footage says", ""),
    "by_counting": ("The frame rate holds, whatever the video's own times say", ""),
    "linear": ("Images of more than 8 bits hold linear light", ""),
}
REACH = ("Search the time offset so far (ticks)", "either way; empty: one exposure")
OTHERS = {"exposure_ticks": "exposure", "period_ticks": "fps", "triggers": "timestamps"}
OTHERS |= dict.fromkeys(("rows", "spike_rows"), "top_down")
LABELS = {name: label for name, (label, _) in (SIZE_FIELDS | TIME_FIELDS | {"max_offset_ticks": REACH}).items()}
QUOTED = {name: f'"{LABELS[OTHERS.get(name, name)]}"' for name in (*LABELS, *OTHERS)}
COMMANDS = (  # and what does the same on the page
    (r" \(`spikevrt [^`]*`\)|`spikevrt record`, then ", ""),
    (r"run `spikevrt align[^`]*`", f'press "{ALIGN}"'),
    (r"`spikevrt align[^`]*`", f'"{ALIGN}"'),
    (r"`spikevrt inspect[^`]*`", f"{QUOTED['spike_width']} left empty"),
    (r"`ignore_health` ", f'"{IGNORE}": '),
)
KINDS = {int: "a whole number", float: "a number", Fraction: "a number or a fraction such as 30000/1001"}


def on_page(message: str) -> str:
    """A message with the page's labels and buttons for names of fields, options and commands."""
    for pattern, words in COMMANDS:
        message = re.sub(pattern, words, message)
    message = renamed(UNFINISHED.sub(r"\g<name>", message), QUOTED)
    message = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda match: QUOTED.get(match[1].replace("-", "_"), match[0]), message)
    return re.sub(r'("[^"]+")(,| or| and both| and) \1', r"\1", message)


def read_stated(given: Mapping[str, Any]) -> Stated:
    """What stands in the page's fields, by the names of `Stated`; an empty field says nothing.

    Raises ValueError for a text that is no number.
    """
    hints = typing.get_type_hints(Stated)
    values: dict[str, Any] = {}
    for name, value in given.items():
        text = str(value or "").strip()
        if value is True:
            values[name] = True
        if value is True or not text:
            continue
        kind = next(one for one in typing.get_args(hints[name]) if one is not types.NoneType)
        try:
            values[name] = kind(text)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{name}: {text[:40]!r}; allowed: {KINDS[kind]}, or nothing") from None
    return Stated(**values)
