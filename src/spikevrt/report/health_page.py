"""The health report as one HTML file that needs nothing beside it: findings, and a picture for each.

Pictures are PNGs inside the page, diagrams are SVG drawn here. All text is escaped.

Dimension key: h sensor rows, w sensor columns, F sampled frames, T scanned ticks.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spikevrt.align.findings import Finding
from spikevrt.align.health import Evidence, HealthReport
from spikevrt.align.pairing import ORIENTATIONS
from spikevrt.atomic import write_text
from spikevrt.recording.recording import Recording

COLOURS = {"ok": "#2e7d32", "repaired": "#1565c0", "warning": "#b26a00", "refused": "#c62828"}
MARKS = (("dead", (66, 165, 245)), ("hot", (255, 167, 38)), ("stuck", (239, 83, 80)))
PICTURE_PX = 480
WIDTH_PX, HEIGHT_PX, EDGE_PX = 480, 220, 40  # of a diagram, and of the room for its axes
MAX_POINTS = 300  # of the scatter and of the density's line
SCATTER_BINS = 24


def write_health_page(out: Path, recording: Recording, report: HealthReport) -> None:
    """Write the page; it gets its name only when it is complete. An existing file is replaced."""
    evidence = report.evidence
    name = html.escape(recording.name)
    parts = [
        f"<h1>{name}</h1>",
        f"<p>{html.escape(_summary(recording, report))}</p>",
        _table(report.findings),
        '<div class="grid">',
        _figure(_rate_picture(evidence), _rate_caption(report)),
        _figure(_scatter(evidence), "Firing rate over the frame's light (linear, about), all sampled frames. One line "
                "is one gain; a bend at the top is saturation."),
        _figure(_density(evidence), "Share of the pixels that fire, over the stream. Red: ticks without any spike; "
                "grey: ticks before which the rhythm breaks."),
        _figure(_orientation(evidence), "How well the spikes fit the frames in each of the eight orientations "
                "(correlation of details, mean of the sampled frames)."),
        "</div>",
    ]  # fmt: skip
    page = _PAGE.format(title=name, body="\n".join(parts))
    write_text(out, page)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Health of {title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0; width: 100% }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #8886; vertical-align: top }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 1.5rem }}
figure {{ margin: 0 }}
figcaption {{ font-size: .875rem }}
img, svg {{ width: 100%; height: auto; display: block }}
img {{ image-rendering: pixelated }}
svg text {{ font: 12px system-ui, sans-serif; fill: currentColor }}
b {{ white-space: nowrap }}
</style>
{body}
</html>
"""


def _summary(recording: Recording, report: HealthReport) -> str:
    assert recording.spikes is not None
    found = report.evidence.scan
    frames = ", ".join(map(str, report.evidence.pairs.frames))
    return (
        f"{recording.num_frames} frames of {recording.width} x {recording.height}, {recording.spikes.width} x "
        f"{recording.spikes.height} spikes at {recording.tick_rate_hz:g} Hz. Looked at {found.num_ticks} of "
        f"{recording.num_ticks} ticks and at frames {frames}. In all: {report.verdict}."
    )


def _table(findings: Sequence[Finding]) -> str:
    rows = ["<tr><th>finding</th><th>verdict</th><th>what was measured</th></tr>"]
    for finding in findings:
        verdict = f'<b style="color: {COLOURS[finding.verdict]}">{html.escape(finding.verdict)}</b>'
        name, sentence = html.escape(finding.name), html.escape(finding.sentence)
        rows.append(f"<tr><td>{name}</td><td>{verdict}</td><td>{sentence}</td></tr>")
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _rate_caption(report: HealthReport) -> str:
    evidence = report.evidence
    counted = ", ".join(f"{int(mask.sum())} {name}" for name, mask in _masks(evidence))
    return f"Mean rate of every pixel; marked: {counted} (dead blue, hot orange, stuck red)."


def _masks(evidence: Evidence) -> tuple[tuple[str, np.ndarray], ...]:
    return (("dead", evidence.dead), ("hot", evidence.hot), ("stuck", evidence.stuck))


def _rate_picture(evidence: Evidence) -> str:
    from PIL import Image

    rate = evidence.scan.counts / evidence.scan.num_ticks
    white = max(float(np.percentile(rate, 99.5)), 1e-6)
    levels = (np.clip(rate / white, 0, 1) ** (1 / 2.2) * 255).round().astype(np.uint8)
    picture = np.repeat(levels[:, :, None], 3, axis=2)
    colours = dict(MARKS)
    for name, mask in _masks(evidence):
        picture[mask] = colours[name]
    image = Image.fromarray(picture)
    scale = max(1, PICTURE_PX // max(image.width, 1))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{text}" alt="mean rate">'


def _scatter(evidence: Evidence) -> str:
    pairs = evidence.pairs
    light, rate = pairs.luminance.reshape(-1), pairs.rate.reshape(-1)
    chosen = np.linspace(0, len(light) - 1, min(len(light), MAX_POINTS)).astype(np.int64)
    top = max(float(rate.max()), 0.05)
    points = "".join(
        f'<circle cx="{_x(light[k], 1.0):.1f}" cy="{_y(rate[k], top):.1f}" r="1.6" fill="#1565c0" fill-opacity=".45"/>'
        for k in chosen
    )
    bins = np.minimum((light * SCATTER_BINS).astype(np.int64), SCATTER_BINS - 1)
    means = [
        (float(light[bins == k].mean()), float(rate[bins == k].mean()))
        for k in range(SCATTER_BINS)
        if (bins == k).any()
    ]
    line = " ".join(f"{_x(x, 1.0):.1f},{_y(y, top):.1f}" for x, y in means)
    trend = f'<polyline points="{line}" fill="none" stroke="#c62828" stroke-width="1.5"/>'
    return _diagram(points + trend, "light", "1", "rate", f"{top:.2f}")


def _density(evidence: Evidence) -> str:
    found = evidence.scan
    share = found.spikes_per_tick / found.counts.size
    ticks, last = found.ticks, max(int(found.ticks[-1]), 1)
    groups = np.array_split(np.arange(len(share)), min(len(share), MAX_POINTS))
    top = max(float(share.max()), 0.01)
    line = " ".join(f"{_x(ticks[g].mean(), last):.1f},{_y(share[g].mean(), top):.1f}" for g in groups)
    marks = [(int(ticks[g[0]]), "#c62828") for g in groups if (share[g] == 0).any()]
    marks += [(tick, "#888") for tick in found.breaks]
    bars = "".join(
        f'<line x1="{_x(tick, last):.1f}" x2="{_x(tick, last):.1f}" y1="{HEIGHT_PX - EDGE_PX}" y2="{EDGE_PX / 4}" '
        f'stroke="{colour}" stroke-opacity=".5"/>'
        for tick, colour in marks
    )
    drawn = f'<polyline points="{line}" fill="none" stroke="#1565c0" stroke-width="1.2"/>'
    return _diagram(bars + drawn, "tick", str(last), "share", f"{top:.3f}")


def _orientation(evidence: Evidence) -> str:
    scores = np.nan_to_num(evidence.orientation, nan=0.0).mean(axis=0)
    step = (HEIGHT_PX - EDGE_PX) / len(ORIENTATIONS)
    bars = []
    for k, (name, score) in enumerate(zip(ORIENTATIONS, scores, strict=True)):
        y, length = k * step, max(float(score), 0.0) * (WIDTH_PX - 290)
        colour = "#2e7d32" if k == 0 else "#888"
        bars.append(
            f'<text x="225" y="{y + step * 0.7:.1f}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="232" y="{y + 3:.1f}" width="{length:.1f}" height="{step - 6:.1f}" fill="{colour}"/>'
            f'<text x="{238 + length:.1f}" y="{y + step * 0.7:.1f}">{score:.2f}</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH_PX} {HEIGHT_PX - EDGE_PX}" role="img">{"".join(bars)}</svg>'


def _diagram(inside: str, along: str, last: str, upward: str, top: str) -> str:
    """Axes from 0 round what was drawn with `_x` and `_y`."""
    bottom = HEIGHT_PX - EDGE_PX
    axes = (
        f'<path d="M{EDGE_PX} {EDGE_PX / 4}V{bottom}H{WIDTH_PX - EDGE_PX / 4}" fill="none" stroke="currentColor"/>'
        f'<text x="{WIDTH_PX - EDGE_PX / 4}" y="{bottom + 16}" text-anchor="end">{html.escape(last)}</text>'
        f'<text x="{WIDTH_PX / 2}" y="{bottom + 16}" text-anchor="middle">{html.escape(along)}</text>'
        f'<text x="{EDGE_PX - 4}" y="{EDGE_PX / 4 + 8}" text-anchor="end">{html.escape(top)}</text>'
        f'<text x="{EDGE_PX - 4}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{EDGE_PX - 4}" y="{bottom / 2}" text-anchor="end">{html.escape(upward)}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" role="img">{axes}{inside}</svg>'


def _x(value: float, last: float) -> float:
    return float(EDGE_PX + value / last * (WIDTH_PX - 1.25 * EDGE_PX))


def _y(value: float, top: float) -> float:
    return float(HEIGHT_PX - EDGE_PX - value / top * (HEIGHT_PX - 1.25 * EDGE_PX))
