"""The report page: results of `evaluate`, one file or several of the same data, as one HTML file that needs nothing.

Style and script lie beside this file (page.html, page.css, page.js) and are put inside the page, as are all pictures.
Everything that comes from files is escaped, and the page forbids itself to ask for anything (Content-Security-Policy).
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from spikevrt.atomic import write_text
from spikevrt.evaluate.pictures import columns, frame_path, video_path
from spikevrt.evaluate.results import (
    KNOWN,
    Results,
    ScoredCondition,
    ScoredMethod,
    ScoredRecording,
    base_groups,
    base_of,
    curve_conditions,
    mean_of,
    merge,
    read_results,
    recordings_under,
    shown,
    splits,
)
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import read_image
from spikevrt.recording.recording import Recording
from spikevrt.report.gallery import gallery
from spikevrt.report.plots import Line, dot_plot, line_plot, table

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

MAX_PAGE_BYTES = 6_000_000  # where the number of pictures is not stated
MAX_PICTURES = 4
PLAYBACK_FPS = 5.0  # recordings are milliseconds long; their videos play slowed down to this
AXES = (
    ("threshold", "threshold"),
    ("offset_ticks", "time offset (ticks)"),
    ("shift_px", "shift (px)"),
    ("dropped", "share of dropped ticks"),
)
ARROWS = {1: "\N{NO-BREAK SPACE}\N{UPWARDS ARROW}", -1: "\N{NO-BREAK SPACE}\N{DOWNWARDS ARROW}", 0: ""}


def write_page(
    paths: Sequence[Path],
    out: Path,
    *,
    num_pictures: int | None = None,
    overwrite: bool = False,
    recordings: Sequence[Recording] = (),
    title: str | None = None,
    credits: str = "",
) -> list[ScoredRecording]:
    """Write the page; it gets its name only when it is complete. Returns the recordings that it has a section of.

    `num_pictures`: how many recordings are shown with pictures; None: up to four, fewer where the page would exceed
    6 MB.

    Raises:
        FileNotFoundError, ValueError: no results, results that do not belong together, or a value not allowed.
        FileExistsError: `out` exists and `overwrite` is not set, or is no file.
    """
    out = Path(out)
    if num_pictures is not None and num_pictures < 0:
        raise ValueError(f"--pictures: {num_pictures}; allowed: 0 or more")
    if out.suffix.lower() != ".html":
        raise ValueError(f"--out: {out}; allowed: a name that ends in .html")
    if out.exists() and not (overwrite and out.is_file()):
        hint = " or pass --overwrite" if out.is_file() else ""
        raise FileExistsError(f"{out}: exists; choose another --out{hint}")
    results = merge([read_results(path) for path in paths])
    text, pictured = page(results, num_pictures, recordings=recordings, title=title, credits=credits, beside=out.parent)
    write_text(out, text)
    return pictured


def page(
    results: Results,
    num_pictures: int | None = None,
    *,
    recordings: Sequence[Recording] = (),
    title: str | None = None,
    credits: str = "",
    beside: Path | None = None,
) -> tuple[str, list[ScoredRecording]]:
    """The page as text, and the recordings that it has a section of. Raises ValueError for results without a score."""
    if not results.metrics:
        raise ValueError(f"{results.files[0][0]}: no score of any method; allowed: one or more")
    metric = "psnr_rgb" if "psnr_rgb" in results.metrics else results.metrics[0]
    sections = [
        ("summary", "Summary", _summary(results, beside)),
        ("results", "Results", _main_tables(results)),
        ("conditions", "Conditions", _condition_tables(results, metric)),
        ("stress", "Stress", _curves(results, metric)),
        ("recordings", "Recordings", _recordings(results, metric)),
        ("pictures", "Pictures", ""),
        ("protocol", "What the numbers are", _protocol(results)),
        ("credits", "Credits", f"<pre>{html.escape(credits)}</pre>" if credits else ""),
    ]
    size = sum(len(text) for _, _, text in sections) + 40_000  # of the frame: style, script
    chosen = _chosen(results)[: MAX_PICTURES if num_pictures is None else num_pictures]
    parts: list[str] = []
    opened = {recording.name: recording for recording in recordings}
    for index, entry in enumerate(chosen):
        part = gallery(results, entry, index, metric, opened.get(entry.name))
        size += len(part.encode())
        if parts and num_pictures is None and size > MAX_PAGE_BYTES:
            break
        parts.append(part)
    more = "; --pictures shows more" if len(parts) < len(results.recordings) else ""
    few = f'<p class="note">{len(parts)} of {len(results.recordings)} recordings{more}.</p>'
    pictures = "\n".join([few, *parts]) if parts else ""
    filled = [(name, title, pictures if name == "pictures" else text) for name, title, text in sections]
    filled = [section for section in filled if section[2]]
    benchmark = _benchmark(results)
    files = resources.files("spikevrt.report")
    text = Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape("SpikeVRT: " + (title or (benchmark[0] if benchmark else "evaluation"))),
        style=(files / "page.css").read_text(encoding="utf-8"),
        script=(files / "page.js").read_text(encoding="utf-8"),
        links="<nav>" + "".join(f'<a href="#{name}">{title}</a> ' for name, title, _ in filled) + "</nav>",
        body="\n".join(f'<section id="{name}"><h2>{title}</h2>\n{text}</section>' for name, title, text in filled),
    )
    return text, chosen[: len(parts)]


def _chosen(results: Results) -> list[ScoredRecording]:
    """All recordings, in the order in which they deserve pictures: one of each base in turn, then the others."""
    groups = [recordings for _, recordings in base_groups(results)]
    longest = max(map(len, groups))
    first = [group[k] for k in range(longest) for group in groups if k < len(group)]
    return first + [recording for recording in results.recordings if recording not in first]


def _benchmark(results: Results) -> tuple[str, str] | None:
    """(name, sha256) of the benchmark that the first file names."""
    found = results.files[0][1].get("benchmark")
    return (str(found.get("name")), str(found.get("sha256"))) if isinstance(found, dict) else None


def _summary(results: Results, beside: Path | None) -> str:
    num_frames = sum(recording.num_frames for recording in results.recordings)
    benchmark = _benchmark(results)
    rows = [
        ("methods", ", ".join(method.name for method in results.methods)),
        ("recordings", f"{len(results.recordings)}, with {num_frames} frames"),
        *([("benchmark", f"{benchmark[0]}, sha256 {benchmark[1]}")] if benchmark else []),
        ("data", f"sha256 {results.data_sha256}"),
    ]
    parts = [_list(rows)]
    for file, values in results.files:
        run = _run(values)
        more = f"<details><summary>versions, options, weights</summary>{_list(run[3:])}</details>"
        parts.append(f"<h3>{html.escape(str(_named(file, beside)))}</h3>{_list(run[:3])}{more}")
    return "\n".join(parts)


def _named(file: Path, beside: Path | None) -> Path:
    """A results file beside the page goes by its relative name, so that their folder may be moved."""
    return file.relative_to(beside) if beside is not None and file.is_relative_to(beside) else file


def _run(values: dict[str, Any]) -> list[tuple[str, str]]:
    """What one results file says of its run: commit, machine and command first."""
    environment, options = values.get("environment"), values.get("options")
    environment = environment if isinstance(environment, dict) else {}
    versions = environment.get("versions")
    command = environment.get("command")
    rows = [
        ("commit", str(environment.get("commit") or "unknown")),
        ("machine", f"{environment.get('device', 'unknown')}, {environment.get('num_threads', '?')} threads, "
                    f"{environment.get('platform', 'unknown')}"),
        ("command", shlex.join(map(str, command)) if isinstance(command, list) else "unknown"),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "unknown"),
        ("options", ", ".join(f"{k} {v}" for k, v in options.items()) if isinstance(options, dict) else "unknown"),
    ]  # fmt: skip
    for method in values["methods"]:
        if method.get("weights"):
            rows.append((f"weights of {method['name']}", f"{method['weights']}, sha256 {method.get('weights_sha256')}"))
    return rows


def _list(rows: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in rows) + "</dl>"


def _main_tables(results: Results) -> str:
    parts = ['<p class="note">Means over the recordings; the best of each column in bold.</p>']
    for title, recordings in base_groups(results):
        of = f"{len(recordings)} recording" + "s" * (len(recordings) != 1)
        parts.append(f"<h3>{html.escape(title)}, {of}</h3>{_main_table(results, recordings)}")
    return "\n".join(parts)


def _main_table(results: Results, recordings: Sequence[ScoredRecording]) -> str:
    metrics = results.metrics
    heads = [" ".join(filter(None, (name, _unit(name)))) + ARROWS[_better(name)] for name in metrics]
    rows = [["method", *heads, "reads spikes", "parameters", "ms/frame", "peak MB"]]
    for method in results.methods:
        cells = [_cell(*mean_of(method, recordings, metric), metric, len(recordings)) for metric in metrics]
        rows.append([method.name, *cells, "yes" if method.reads_spikes else "no", *_cost(method)])
    strong = set()
    for column, metric in enumerate(metrics, start=1):
        strong |= {(row, column) for row in _best(results, recordings, metric)}
    return table(rows, frozenset(strong))


def _cost(method: ScoredMethod) -> list[str]:
    memory = None if method.peak_memory_bytes is None else method.peak_memory_bytes / 1e6
    return [
        "-" if method.parameters is None else f"{method.parameters:,}",
        "-" if method.ms_per_frame is None else f"{method.ms_per_frame:.0f}",
        "-" if memory is None else f"{memory:.0f}",
    ]


def _best(results: Results, recordings: Sequence[ScoredRecording], metric: str) -> list[int]:
    """The rows (from 1) of the best value, as far as it is shown; of methods measured on all the recordings."""
    means = [mean_of(method, recordings, metric) for method in results.methods]
    whole = [mean for mean, count in means if mean is not None and count == len(recordings)]
    if not whole or _better(metric) == 0:
        return []
    best = shown(max(whole) if _better(metric) > 0 else min(whole), metric)
    return [
        row
        for row, (mean, count) in enumerate(means, start=1)
        if count == len(recordings) and shown(mean, metric) == best
    ]


def _cell(mean: float | None, count: int, metric: str, of: int) -> str:
    return shown(mean, metric) + (f" ({count} of {of})" if 0 < count < of else "")


def _unit(metric: str) -> str:
    return KNOWN.get(metric, ("", 0))[0]


def _better(metric: str) -> int:
    return KNOWN.get(metric, ("", 0))[1]


def _condition_tables(results: Results, metric: str) -> str:
    parts = []
    for split, conditions in splits(results).items():
        rows = [["condition", "recordings", *(method.name for method in results.methods)]]
        strong = set()
        for condition in conditions:
            recordings = recordings_under(results, condition)
            cells = [_cell(*mean_of(m, recordings, metric), metric, len(recordings)) for m in results.methods]
            base = " (base)" if condition is base_of(conditions) else ""
            rows.append([condition.name + base, str(len(recordings)), *cells])
            strong |= {(len(rows) - 1, best + 1) for best in _best(results, recordings, metric)}
        parts.append(f"<h3>{html.escape(split)}: {html.escape(metric)}</h3>{table(rows, frozenset(strong))}")
    if parts:
        note = "A dash: not measured. What reads no spikes is the same under all conditions of one split."
        parts.insert(0, f'<p class="note">{note}</p>')
    return "\n".join(parts)


def _curves(results: Results, metric: str) -> str:
    figures = []
    for split, conditions in splits(results).items():
        for axis, along in AXES:
            points = curve_conditions(conditions, axis)
            if len(points) > 1:
                lines = [_curve(results, method, k, points, metric) for k, method in enumerate(results.methods)]
                title, unit = f"{split}: {metric} against {along}", _unit(metric)
                upward = f"{metric}, {unit}" if unit else metric
                drawn = [line for line in lines if line.points]
                figures.append(line_plot(drawn, title=title, along=along, upward=upward))
    if not figures:
        return ""
    note = (
        "One value of the base condition changes, all others stay. Dashed: reads no spikes, measured once. "
        "Touch a point for its value."
    )
    return f'<p class="note">{note}</p><div class="grid">{"".join(figures)}</div>'


def _curve(
    results: Results, method: ScoredMethod, index: int, points: Sequence[tuple[float, ScoredCondition]], metric: str
) -> Line:
    """A method's means where it was measured on every recording of the condition."""
    found = []
    for x, condition in points:
        recordings = recordings_under(results, condition)
        mean, count = mean_of(method, recordings, metric)
        if mean is not None and count == len(recordings):
            found.append((x, mean))
    return Line(method.name, index, tuple(found), is_level=len(found) == 1 and not method.reads_spikes)


def _recordings(results: Results, metric: str) -> str:
    figures = []
    for title, recordings in base_groups(results):
        rows = []
        for recording in recordings:
            means = [mean_of(method, [recording], metric)[0] for method in results.methods]
            rows.append((recording.name, [(k, mean) for k, mean in enumerate(means) if mean is not None]))
        names = [method.name for method in results.methods]
        figures.append(dot_plot(rows, names, title=f"{title}: {metric} of each recording"))
    return f'<div class="grid">{"".join(figures)}</div>'


def _protocol(results: Results) -> str:
    known = [(name, results.protocol[name]) for name in KNOWN if name in results.protocol]
    return _list(known + [(name, words) for name, words in results.protocol.items() if name not in KNOWN])


def write_videos(folder: Path, recordings: Sequence[Recording]) -> None:
    """From results.json and the kept frames of the networks: one video a network and recording, and one of all.

    Raises:
        FileNotFoundError: a frame is not there.
    """
    methods = [method.name for method in read_results(folder).methods if method.is_network]
    (folder / "videos").mkdir()
    for recording in recordings:
        name = recording.name
        for method in methods:
            restored = (read_image(frame_path(folder, method, name, i)) for i in range(recording.num_frames))
            write_video(video_path(folder, method, name), restored, PLAYBACK_FPS)
        write_video(video_path(folder, "side_by_side", name), _side_by_side(folder, methods, recording), PLAYBACK_FPS)


def _side_by_side(folder: Path, methods: Sequence[str], recording: Recording) -> Iterator[UInt8[np.ndarray, "H2 W2 3"]]:
    for index in range(recording.num_frames):
        restored = [read_image(frame_path(folder, method, recording.name, index)) for method in methods]
        yield columns([recording.read_blur(index), *restored, recording.read_sharp(index)], ["blur", *methods, "sharp"])
