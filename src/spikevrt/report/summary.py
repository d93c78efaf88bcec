"""What came of a restoration, as one HTML file that needs nothing beside it; and its table of findings.

All text is escaped, pictures are inside, and the page forbids itself every request.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikevrt.align.findings import Finding
from spikevrt.align.health import HealthReport
from spikevrt.evaluate.metrics import frame_scores, sequence_mean
from spikevrt.recording.frames import read_image, to_float, write_image
from spikevrt.recording.recording import Recording

SCORES = (("psnr_rgb", "PSNR (RGB), dB", 2), ("ssim_rgb", "SSIM (RGB)", 4))


def write_summary(
    out: Path,
    recording: Recording,
    restored: Sequence[Path],
    report: HealthReport | None,
    summary: dict[str, Any],
    credit: str | None,
) -> None:
    """Write the page: what was restored and how, the middle frame before and after, scores where the truth is known,
    and the health of the recording. `restored` are the frames' pictures, `summary` as `restore_recording` returns it.
    """
    middle = len(restored) // 2
    pictures = [("blurry", _blurry_bytes(recording, middle, out)), ("restored", restored[middle].read_bytes())]
    if recording.sharp:
        pictures.append(("sharp (the truth)", recording.sharp[middle].read_bytes()))
    parts = [
        f"<h1>{html.escape(recording.name)}</h1>",
        f"<p>{html.escape(restored_words(summary))}</p>",
        f"<h2>Frame {middle}</h2>",
        '<div class="grid">',
        *(_figure(name, picture) for name, picture in pictures),
        "</div>",
    ]
    if recording.sharp:
        parts += ["<h2>Against the truth</h2>", _scores_table(recording, restored)]
    if report is not None:
        parts += ["<h2>Health of the recording</h2>", findings_table(report.findings)]
    parts += ["<h2>How it was made</h2>", _settings_table(summary)]
    if credit is not None:
        parts += ["<h2>Source</h2>", f"<p>{html.escape(credit)}</p>"]
    page = _PAGE.format(title=html.escape(recording.name), body="\n".join(parts))
    out.write_text(page, encoding="utf-8")


def findings_table(findings: Sequence[Finding]) -> str:
    """Every finding with its verdict and its sentence, those that matter most first, as an HTML table."""
    order = {"refused": 0, "warning": 1, "repaired": 2, "ok": 3}
    rows = [
        f'<tr class="{finding.verdict}"><td>{html.escape(finding.name)}</td><td><b>{finding.verdict}</b></td>'
        f"<td>{html.escape(finding.sentence)}</td></tr>"
        for finding in sorted(findings, key=lambda finding: order[finding.verdict])
    ]
    head = "<tr><th>looked at</th><th>verdict</th><th>what was measured</th></tr>"
    return f'<div class="scroll"><table class="findings">{head}{"".join(rows)}</table></div>'


def restored_words(summary: dict[str, Any]) -> str:
    """One sentence: how many frames, with which weights, how long it took."""
    frames = "1 frame" if summary["num_frames"] == 1 else f"{summary['num_frames']} frames"
    dropped = f", {len(summary['dropped'])} left out" if summary["dropped"] else ""
    weights = str(summary["weights"]).removesuffix(".safetensors")
    return f"{frames} restored with {weights} in {summary['seconds']:.1f} s{dropped}."


def _scores_table(recording: Recording, restored: Sequence[Path]) -> str:
    blurry, sharper = [], []
    for index, path in enumerate(restored):
        sharp = to_float(recording.read_sharp(index))[None]
        blurry += frame_scores(to_float(recording.read_blur(index))[None], sharp)
        sharper += frame_scores(to_float(read_image(path))[None], sharp)
    means = [sequence_mean(blurry), sequence_mean(sharper)]
    rows = [
        f"<tr><td>{words}</td>" + "".join(f"<td>{_number(mean[name], digits)}</td>" for mean in means) + "</tr>"
        for name, words, digits in SCORES
    ]
    head = "<tr><th>mean of all frames</th><th>blurry</th><th>restored</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "exact"


def _settings_table(summary: dict[str, Any]) -> str:
    values = {
        "weights": summary["weights"],
        "frames a second": f"{summary['fps']:g}",
        "peak memory": f"{summary['peak_bytes'] / 1e9:.2f} GB",
        **{f"options: {name}": value for name, value in summary["options"].items() if value not in (None, (), False)},
        **{str(name): value for name, value in summary["environment"].items() if isinstance(value, str | int | float)},
    }
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def _blurry_bytes(recording: Recording, index: int, beside: Path) -> bytes:
    """The blurry frame as a PNG's bytes."""
    path = beside.with_name("blurry.png")
    write_image(path, recording.read_blur(index))
    try:
        return path.read_bytes()
    finally:
        path.unlink()


def _figure(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    caption = html.escape(name)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>SpikeVRT: {title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #8886; vertical-align: top }}
.scroll {{ overflow-x: auto }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 1rem }}
figure {{ margin: 0 }}
img {{ width: 100%; height: auto; display: block }}
.refused b {{ color: #c62828 }} .warning b {{ color: #b26a00 }}
.repaired b {{ color: #1565c0 }} .ok b {{ color: #2e7d32 }}
</style>
{body}
</html>
"""
