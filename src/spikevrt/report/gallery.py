"""The pictures of the report page as HTML: a slider between two methods, error maps, an edge, the spikes of a pixel.

Everything that comes from files is escaped; page.js brings slider and spikes to life.
"""

from __future__ import annotations

import html
import json
from typing import Any

from spikevrt.evaluate.results import Results, ScoredRecording
from spikevrt.recording.recording import Recording
from spikevrt.report.crops import (
    ERROR_LEVELS,
    HEAT,
    OUTSIDE,
    Crops,
    data_uri,
    edge_profile,
    error_map,
    read_crops,
    spike_patch,
)
from spikevrt.report.plots import Line, line_plot

WHOLE_PX = 520  # the widest that a whole frame is stored
RASTER_PX, RASTER_HEIGHT_PX = 1000, 46  # the width is stretched to the page's
SPIKE_PX = (6, 34)  # top and height of a spike in it


def gallery(
    results: Results, entry: ScoredRecording, index: int, metric: str, recording: Recording | None = None
) -> str:
    """The HTML of one recording, the page's `index`-th. Where it cannot be opened, or differs, a line says why."""
    head, frames = f"<h3>{html.escape(entry.name)}</h3>", _frames_plot(results, entry, metric)
    try:
        crops = read_crops(entry, results.methods, recording)
        patch = spike_patch(crops)
    except (ValueError, OSError) as error:
        why = html.escape(" ".join(str(error).split()))
        return f'{head}<p class="missing">No pictures and no spikes: {why}</p>{frames}'
    spikes = "<p>No spikes in this recording.</p>" if patch is None else _spikes(patch, index)
    inside = [
        *_views(results, crops, index, patch),
        frames,
        f'<div class="wide"><h4>Spikes of one pixel</h4>{spikes}</div>',
    ]
    return f'{head}{_intro(entry, crops)}<div class="picture">{"".join(inside)}</div>'


def _intro(entry: ScoredRecording, crops: Crops) -> str:
    top, left, height, width = crops.box
    text = f"Frame {crops.frame}, counted from 0, of {entry.num_frames}; its {width} x {height} pixels from column "
    text += f"{left} and row {top} on, where the blurry frame is furthest from the sharp one."
    if entry.captured is not None:
        text += f" Condition {entry.captured.name}: "
        text += ", ".join(f"{key} {value}" for key, value in entry.captured.values.items()) + "."
    if crops.without:
        text += f" No frame was kept of {', '.join(crops.without)}."
    return f"<p>{html.escape(text)}</p>"


def _views(results: Results, crops: Crops, index: int, patch: dict[str, Any] | None) -> list[str]:
    profile = edge_profile([image for _, image in crops.images])
    return [
        _comparison(crops, index, (*profile.start, *profile.stop), patch),
        _whole(crops),
        line_plot(
            [
                Line(label, _index(results, label, place, len(crops.images)),
                     tuple(zip(profile.offsets_px.tolist(), profile.values[place].tolist(), strict=True)))
                for place, (label, _) in enumerate(crops.images)
            ],
            title="Across the strongest edge, along the yellow line in the crop",
            along="px along the line",
            upward="linear luminance",
            spec=".3f",
            marks=False,
        ),
        _error_maps(crops),
    ]  # fmt: skip


def _index(results: Results, label: str, place: int, count: int) -> int | None:
    """The method's place among all, which is its colour; the blurry input's is 0, the truth has none."""
    names = [method.name for method in results.methods]
    return None if place == count - 1 else names.index(label) if label in names else 0


def _comparison(crops: Crops, index: int, line: tuple[float, float, float, float], patch: dict[str, Any] | None) -> str:
    _, _, height, width = crops.box
    labels = [html.escape(label) for label, _ in crops.images]
    views = "".join(
        f'<figure class="view"><img src="{data_uri(image, lossless=True)}" alt="{label}">'
        f"<figcaption>{label}</figcaption></figure>"
        for label, (_, image) in zip(labels, crops.images, strict=True)
    )
    errors = [error_map(image, crops.images[-1][1])[1] for _, image in crops.images]
    right = min(range(1, len(labels) - 1), key=lambda k: errors[k], default=1)  # the best method here, or the truth
    x0, y0, x1, y1 = (value + 0.5 for value in line)
    over = (
        f'<svg class="over" viewBox="0 0 {width} {height}" data-size="{width} {height}" preserveAspectRatio="none" '
        f'aria-hidden="true" style="z-index: 2"><path class="edge" d="M{x0:.2f} {y0:.2f}L{x1:.2f} {y1:.2f}"/>'
        f'{_patch_box(patch, height, width)}<path class="cross" d=""/></svg>'
    )
    selects = "".join(
        f'<label class="{side}">{side} <select class="{side}">'
        + "".join(f"<option{' selected' if k == chosen else ''}>{label}</option>" for k, label in enumerate(labels))
        + "</select></label>"
        for side, chosen in (("left", 0), ("right", right))
    )
    return (
        f'<figure class="compare" id="compare-{index}"><figcaption>Compare; click for the spikes of a '
        f'place</figcaption><div class="stack" style="aspect-ratio: {width} / {height}">{views}{over}'
        '<span class="divider" style="z-index: 3"></span><span class="tag left" style="z-index: 3"></span>'
        '<span class="tag right" style="z-index: 3"></span></div><div class="controls">'
        f'<input type="range" min="0" max="100" value="50" aria-label="where the right picture begins">{selects}</div>'
        "</figure>"
    )


def _patch_box(patch: dict[str, Any] | None, height: int, width: int) -> str:
    """Where the spikes are, unless that is the whole crop."""
    if patch is None:
        return ""
    row, column, rows, columns = (value * patch["ratio"] for value in patch["cells"])
    if rows >= height and columns >= width:
        return ""
    return f'<rect class="patch" x="{column}" y="{row}" width="{columns}" height="{rows}"/>'


def _whole(crops: Crops) -> str:
    top, left, height, width = crops.box
    rows, columns = crops.whole.shape[:2]
    box = (
        f"left: {100 * left / columns:.2f}%; top: {100 * top / rows:.2f}%; "
        f"width: {100 * width / columns:.2f}%; height: {100 * height / rows:.2f}%"
    )
    source = data_uri(crops.whole, lossless=False, max_width=WHOLE_PX)
    return (
        '<figure class="whole"><figcaption>The blurry frame, and where the crop lies</figcaption><div class="frame">'
        f'<img src="{source}" alt="the whole blurry frame"><div class="box" style="{box}"></div></div></figure>'
    )


def _error_maps(crops: Crops) -> str:
    sharp = crops.images[-1][1]
    maps = []
    for label, image in crops.images[:-1]:
        picture, mean = error_map(image, sharp)
        name = html.escape(label)
        source = data_uri(picture, lossless=True)
        maps.append(
            f'<figure class="view"><img src="{source}" alt="error of {name}">'
            f"<figcaption>{name}, mean {mean:.1f}</figcaption></figure>"
        )
    colours = ", ".join(f"rgb{colour}" for colour in HEAT)
    return (
        '<div class="two"><h4>Error maps</h4><p class="note">|method - sharp| in levels of 255, mean of the three '
        f'channels; brighter is worse.</p><div class="maps">{"".join(maps)}</div><div class="scale">'
        f'<i style="background: linear-gradient(to right, {colours})"></i>0<span>{ERROR_LEVELS} levels and more</span>'
        "</div></div>"
    )


def _frames_plot(results: Results, entry: ScoredRecording, metric: str) -> str:
    lines = []
    for k, method in enumerate(results.methods):
        if entry.name in method.scores:
            frames = method.scores[entry.name].frames
            points = tuple((scores["frame_idx"], scores[metric]) for scores in frames if metric in scores)
            lines.append(Line(method.name, k, points))
    return line_plot(lines, title=f"{metric} of each frame", along="frame", upward=metric)


def _spikes(patch: dict[str, Any], index: int) -> str:
    start, ticks = patch["start"], patch["ticks"]
    shutters, names = [], []
    for a, b, frame in patch["exposures"]:
        kind = "shutter this" if [a, b] == patch["exposure"] else "shutter"
        left, right = ((tick - start) / ticks for tick in (a, b))
        shutters.append(
            f'<rect class="{kind}" x="{left * RASTER_PX:.1f}" y="0" width="{(right - left) * RASTER_PX:.1f}" '
            f'height="{RASTER_HEIGHT_PX}"/>'
        )
        place = f"left: min({100 * left:.2f}%, 100% - 4em)"
        names.append(f'<span style="{place}">frame {frame}</span>')
    milliseconds = f"{1000 * ticks / patch['rate_hz']:.1f} ms"
    held = json.dumps({**patch, "outside": OUTSIDE}).replace("<", "\\u003c")
    return (
        f'<div class="spikes" data-picture="compare-{index}"><p class="note">A line is a spike; shaded: the exposure '
        "of a frame. Click the picture above, or give the pixel's place on the sensor.</p>"
        '<p><label>row <input class="row" type="number" min="0"></label> '
        '<label>column <input class="column" type="number" min="0"></label></p>'
        f'<div class="names">{"".join(names)}</div>'
        f'<svg class="raster" viewBox="0 0 {RASTER_PX} {RASTER_HEIGHT_PX}" preserveAspectRatio="none" '
        f'data-area="{RASTER_PX} {SPIKE_PX[0]} {SPIKE_PX[1]}" role="img" aria-label="spikes over time">'
        f'{"".join(shutters)}<path class="ticks" d=""/></svg>'
        f'<div class="ends"><span>tick {start}</span><span>{milliseconds}</span><span>tick {start + ticks}</span></div>'
        "<output></output><noscript>Spikes are drawn by the page's script.</noscript>"
        f'<script type="application/json">{held}</script></div>'
    )
