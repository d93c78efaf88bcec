"""The pages of one recording: its health, with a picture for each finding; and what came of restoring it.

Dimension key: h sensor rows, w sensor columns, F sampled frames, T scanned ticks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikevrt.align.describe import alignment_words
from spikevrt.align.findings import VERDICTS, Finding
from spikevrt.align.health import Evidence, HealthReport
from spikevrt.align.pairing import ORIENTATIONS
from spikevrt.atomic import write_text
from spikevrt.evaluate.metrics import frame_scores, sequence_mean
from spikevrt.recording.frames import read_image, to_float
from spikevrt.recording.recording import Recording
from spikevrt.report import data_of, data_uri, render
from spikevrt.report.charts import HEIGHT_PT, Chart, colour_of, new_figure, svg
from spikevrt.typed import amount

MARKED = {"dead": (66, 165, 245), "hot": (255, 167, 38), "stuck": (239, 83, 80)}
PICTURE_PX = 480
MAX_POINTS = 300  # of the scatter and of the density's line
SCATTER_BINS = 24
SCORES = (("psnr_rgb", "PSNR (RGB), dB", 2), ("ssim_rgb", "SSIM (RGB)", 4))
BLUE, RED, GREEN, GREY = colour_of(1), colour_of(2), colour_of(3), colour_of(0)


def write_health_page(out: Path, recording: Recording, report: HealthReport) -> None:
    """Write the page; it gets its name only when it is complete. An existing file is replaced."""
    evidence = report.evidence
    counted = ", ".join(f"{int(mask.sum())} {name}" for name, mask in evidence.masks.items())
    text = render(
        "health.html",
        title=f"Health of {recording.name}", summary=_health_summary(recording, report),
        findings=_shown(report, recording),
        rate=_rate_picture(evidence),
        rate_caption=f"Mean rate of every pixel; marked: {counted} (dead blue, hot orange, stuck red).",
        charts=[_scatter(evidence), _density(evidence), _orientation(evidence)],
    )  # fmt: skip
    write_text(out, text)


def write_restored_page(
    out: Path,
    recording: Recording,
    restored: Sequence[Path],
    report: HealthReport | None,
    summary: dict[str, Any],
    credit: str | None,
) -> None:
    """Write the page: what was restored and how, the middle frame before and after, scores where the truth is known,
    and the health of the recording. `restored` are the frames' PNGs, `summary` as `restore_recording` returns it.
    """
    middle = len(restored) // 2
    pictures = [
        ("blurry", data_uri(recording.read_blur(middle), lossless=True)),
        (f"restored by {network_of(summary)}", data_of(restored[middle].read_bytes(), "image/png")),
    ]
    if recording.sharp:
        pictures.append(("sharp (the truth)", data_uri(recording.read_sharp(middle), lossless=True)))
    text = render(
        "restored.html",
        title=f"SpikeVRT: {recording.name}", words=restored_words(summary), frame=middle, pictures=pictures,
        scores=_scores(recording, restored, network_of(summary)) if recording.sharp else [],
        findings=() if report is None else _shown(report, recording), settings=_settings(recording, summary),
        credit=credit,
    )  # fmt: skip
    out.write_text(text, encoding="utf-8")


def findings_table(findings: Sequence[Finding]) -> str:
    """Every finding with its verdict and its sentence, those that matter most first, as an HTML table."""
    return render("findings.html", findings=worst_first(findings))


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, what is bad before what cannot be told, and that before what is ok."""
    return sorted(findings, key=lambda finding: -VERDICTS.index(finding.verdict))


def _shown(report: HealthReport, recording: Recording) -> list[Finding]:
    """Sorted; a page goes to others, who have another folder."""
    told = [replace(one, sentence=one.sentence.replace(str(recording.root), recording.name)) for one in report.findings]
    return worst_first(told)


def network_of(summary: dict[str, Any]) -> str:
    """The name of the weights that restored, as `--weights` takes it."""
    return str(summary["weights"]).removesuffix(".safetensors")


def restored_words(summary: dict[str, Any]) -> str:
    """One sentence: how many frames, by which weights and network, how long it took, what is missing."""
    frames = amount(summary["num_frames"], "frame")
    alone = f", {len(summary['without_spikes'])} without spikes" if summary["without_spikes"] else ""
    dropped = f", {len(summary['dropped'])} left out" if summary["dropped"] else ""
    by = f"{network_of(summary)} ({summary['network']})"
    return f"{frames} restored by {by} in {summary['seconds']:.1f} s{alone}{dropped}."


def _scores(recording: Recording, restored: Sequence[Path], network: str) -> list[list[str]]:
    blurry, sharper = [], []
    for index, path in enumerate(restored):
        sharp = to_float(recording.read_sharp(index))[None]
        blurry += frame_scores(to_float(recording.read_blur(index))[None], sharp)
        sharper += frame_scores(to_float(read_image(path))[None], sharp)
    means = [sequence_mean(blurry), sequence_mean(sharper)]
    rows = [[words, *(_number(mean[name], digits) for mean in means)] for name, words, digits in SCORES]
    return [["mean of all frames", "blurry", f"restored by {network}"], *rows]


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "exact"


def _settings(recording: Recording, summary: dict[str, Any]) -> list[tuple[str, str]]:
    values = {
        "weights": summary["weights"],
        "network": summary["network"],
        "frames a second": f"{summary['fps']:g}",
        "alignment": alignment_words(recording.alignment),
        "peak memory": f"{summary['peak_bytes'] / 1e9:.2f} GB",
        **{f"options: {name}": value for name, value in summary["options"].items() if value not in (None, (), False)},
        **{str(name): value for name, value in summary["environment"].items() if isinstance(value, str | int | float)},
    }
    return [(name, str(value)) for name, value in values.items()]


def _health_summary(recording: Recording, report: HealthReport) -> str:
    assert recording.spikes is not None
    found = report.evidence.scan
    frames = ", ".join(map(str, report.evidence.pairs.frames))
    return (
        f"{amount(recording.num_frames, 'frame')} of {recording.width} x {recording.height}, "
        f"{recording.spikes.width} x {recording.spikes.height} spikes at {recording.tick_rate_hz:g} Hz. "
        f"Looked at {found.num_ticks} of {recording.num_ticks} ticks and at frames {frames}. In all: {report.verdict}."
    )


def _rate_picture(evidence: Evidence) -> str:
    rate = evidence.scan.counts / evidence.scan.num_ticks
    white = max(float(np.percentile(rate, 99.5)), 1e-6)
    levels = (np.clip(rate / white, 0, 1) ** (1 / 2.2) * 255).round().astype(np.uint8)
    picture = np.repeat(levels[:, :, None], 3, axis=2)
    for name, mask in evidence.masks.items():
        picture[mask] = MARKED[name]
    times = max(1, PICTURE_PX // picture.shape[1])
    return data_uri(picture.repeat(times, axis=0).repeat(times, axis=1), lossless=True)


def _scatter(evidence: Evidence) -> Chart:
    light, rate = evidence.pairs.luminance.reshape(-1), evidence.pairs.rate.reshape(-1)
    chosen = np.linspace(0, len(light) - 1, min(len(light), MAX_POINTS)).astype(np.int64)
    bins = np.minimum((light * SCATTER_BINS).astype(np.int64), SCATTER_BINS - 1)
    means = [(light[bins == k].mean(), rate[bins == k].mean()) for k in range(SCATTER_BINS) if (bins == k).any()]
    figure, panel = new_figure(HEIGHT_PT)
    panel.scatter(light[chosen], rate[chosen], s=5, color=BLUE, alpha=0.45, linewidths=0)
    panel.plot(*zip(*means, strict=True), color=RED, linewidth=1.5)
    panel.set(xlabel="light", ylabel="rate", xlim=(0, 1), ylim=(0, max(float(rate.max()), 0.05)))
    title = "Firing rate over the frame's light (linear, about), all sampled frames. One line is one gain; a bend at "
    return Chart(title + "the top is saturation.", svg(figure, title), [])


def _density(evidence: Evidence) -> Chart:
    found = evidence.scan
    share, ticks = found.spikes_per_tick / found.counts.size, found.ticks
    groups = np.array_split(np.arange(len(share)), min(len(share), MAX_POINTS))
    figure, panel = new_figure(HEIGHT_PT)
    for group in groups:
        if (share[group] == 0).any():
            panel.axvline(ticks[group[0]], color=RED, alpha=0.5)
    for tick in found.breaks:
        panel.axvline(tick, color=GREY, alpha=0.5)
    panel.plot([ticks[g].mean() for g in groups], [share[g].mean() for g in groups], color=BLUE, linewidth=1.2)
    panel.set(xlabel="tick", ylabel="share", xlim=(0, max(int(ticks[-1]), 1)), ylim=(0, max(float(share.max()), 0.01)))
    title = (
        "Share of the pixels that fire, over the stream. Red: ticks without any spike; grey: ticks before which the "
    )
    return Chart(title + "rhythm breaks.", svg(figure, title), [])


def _orientation(evidence: Evidence) -> Chart:
    scores = np.nan_to_num(evidence.orientation, nan=0.0).mean(axis=0)
    figure, panel = new_figure(HEIGHT_PT)
    bars = panel.barh(ORIENTATIONS, np.maximum(scores, 0.0), color=[GREEN, *[GREY] * (len(scores) - 1)])
    panel.bar_label(bars, [f"{score:.2f}" for score in scores], padding=4)
    panel.set(xlim=(0, 1.1), xticks=[])
    panel.grid(visible=False)
    panel.invert_yaxis()
    title = "How well the spikes fit the frames in each of the eight orientations (correlation of details, mean of the "
    return Chart(title + "sampled frames).", svg(figure, title), [])
