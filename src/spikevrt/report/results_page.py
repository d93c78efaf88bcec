"""The results page: one file of `evaluate`, or several of the same data, as one HTML file that needs nothing.

It opens on the best method, says what each method is, and holds tables, curves over one changed condition, and pictures
of some recordings: a slider between two methods, error maps, an edge, the spikes of a pixel, the videos that were kept.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.atomic import refuse_existing_file, write_text
from spikevrt.config import ModelConfig
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
    suites,
)
from spikevrt.evaluate.scores import heading
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import read_image
from spikevrt.recording.recording import Recording
from spikevrt.report import render
from spikevrt.report.charts import Chart, Curve, dot_chart, line_chart
from spikevrt.report.crops import gallery
from spikevrt.typed import amount, convert

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
PLAIN = {  # what the methods without a network are
    "blur": "the blurry frame itself, untouched",
    "spike_ratio": "no network: the blurry frame times the firing rate around its middle over that of the whole "
    "exposure; rates from spike counts (TFP)",
    "interval_ratio": "no network: the same with rates from the intervals between spikes (TFI)",
}


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
    refuse_existing_file(out, overwrite=overwrite)
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
    benchmark = _benchmark(results)
    ranking = _ranking(results, metric)
    values = {
        "title": "SpikeVRT: " + (title or (benchmark[0] if benchmark else "evaluation")),
        "about": _about(results, benchmark, ranking, metric),
        "methods": _methods(results),
        "runs": [{"name": str(_named(file, beside)), "rows": _run(run)} for file, run in results.files],
        "tables": [_main_table(results, *group) for group in base_groups(results)],
        "conditions": _condition_tables(results, metric),
        "stress": _stress(results, metric),
        "dots": _dots(results, metric),
        "protocol": _protocol(results),
        "credits": credits,
        "num_recordings": len(results.recordings),
    }
    headings = {
        "summary": "Summary", "results": "Results", "conditions": "Conditions", "stress": "Stress",
        "recordings": "Recordings", "pictures": "Pictures", "protocol": "What the numbers are", "credits": "Credits",
    }  # fmt: skip
    absent = {name for name in ("conditions", "stress", "credits") if not values[name]}
    galleries: list[str] = []
    size = len(render("results.html", **values, galleries=galleries, sections=_without(headings, absent)).encode())
    opened = {recording.name: recording for recording in recordings}
    chosen = _chosen(results)[: MAX_PICTURES if num_pictures is None else num_pictures]
    for index, entry in enumerate(chosen):
        frames = _frames_chart(results, entry, metric)
        part = gallery(results, entry, index, frames, ranking, opened.get(entry.name))
        size += len(part.encode())
        if galleries and num_pictures is None and size > MAX_PAGE_BYTES:
            break
        galleries.append(part)
    absent |= set() if galleries else {"pictures"}
    text = render("results.html", **values, galleries=galleries, sections=_without(headings, absent))
    return text, chosen[: len(galleries)]


def _without(headings: dict[str, str], absent: set[str]) -> dict[str, str]:
    return {name: heading for name, heading in headings.items() if name not in absent}


def _chosen(results: Results) -> list[ScoredRecording]:
    """All recordings, in the order in which they get pictures: one of each base in turn, then the others."""
    groups = [recordings for _, recordings in base_groups(results)]
    longest = max(map(len, groups))
    first = [group[k] for k in range(longest) for group in groups if k < len(group)]
    return first + [recording for recording in results.recordings if recording not in first]


def _benchmark(results: Results) -> tuple[str, str] | None:
    """(name, sha256) of the benchmark that the first file names."""
    found = results.files[0][1].get("benchmark")
    return (str(found.get("name")), str(found.get("sha256"))) if isinstance(found, dict) else None


def _about(
    results: Results, benchmark: tuple[str, str] | None, ranking: Sequence[str], metric: str
) -> list[tuple[str, str]]:
    best = next(method for method in results.methods if method.name == ranking[0])
    mean = mean_of(best, [recording for _, group in base_groups(results) for recording in group], metric)[0]
    num_frames = sum(recording.num_frames for recording in results.recordings)
    return [
        ("best method", f"{best.name}, {metric} {shown(mean, metric)} {_unit(metric)}".rstrip()),
        ("recordings", f"{len(results.recordings)}, with {amount(num_frames, 'frame')}"),
        *([("benchmark", f"{benchmark[0]}, sha256 {benchmark[1]}")] if benchmark else []),
        ("data", f"sha256 {results.data_sha256}"),
    ]


def _ranking(results: Results, metric: str) -> list[str]:
    """The methods by name, the best first: by their means over the recordings of the main tables."""
    recordings = [recording for _, group in base_groups(results) for recording in group]

    def key(method: ScoredMethod) -> tuple[int, float]:
        mean, count = mean_of(method, recordings, metric)
        return -count, 0.0 if mean is None else mean if _better(metric) < 0 else -mean

    return [method.name for method in sorted(results.methods, key=key)]


def _methods(results: Results) -> list[tuple[str, str]]:
    """Each method and what it is, in a line."""
    entries = {str(entry["name"]): entry for _, values in results.files for entry in values["methods"]}
    return [(method.name, _what(method, entries[method.name])) for method in results.methods]


def _what(method: ScoredMethod, entry: Mapping[str, Any]) -> str:
    if not method.is_network:
        return PLAIN.get(method.name, f"another method: {entry.get('source', 'unknown')}")
    model = entry.get("model")
    model = model if isinstance(model, dict) else {}
    try:
        kind = convert(model, ModelConfig).name if model else "network"
    except ValueError:  # results of another version, whose networks had other settings
        kind = "network"
    spikes = model.get("spikes")
    form = ""
    if method.reads_spikes and isinstance(spikes, dict):
        form = f" ({spikes.get('representation', 'counts')})"
    reads = f"reads the spikes{form}" if method.reads_spikes else "reads no spikes"
    parameters = "" if method.parameters is None else f", {method.parameters:,} parameters"
    return f"{kind}, {reads}{parameters}; weights {entry['weights']}"


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
        ("command", shlex.join(["spikevrt", *map(str, command[1:])]) if isinstance(command, list) else "unknown"),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "unknown"),
        ("options", ", ".join(f"{k} {v}" for k, v in options.items()) if isinstance(options, dict) else "unknown"),
    ]  # fmt: skip
    for method in values["methods"]:
        if method.get("weights"):
            rows.append((f"weights of {method['name']}", f"{method['weights']}, sha256 {method.get('weights_sha256')}"))
    return rows


def _main_table(results: Results, title: str, recordings: Sequence[ScoredRecording]) -> dict[str, Any]:
    metrics = results.metrics
    heads = [_headed(name) + ARROWS[_better(name)] for name in metrics]
    rows = [["method", *heads, "reads spikes", "parameters", "ms/frame", "peak MB"]]
    for method in results.methods:
        cells = [_cell(*mean_of(method, recordings, metric), metric, len(recordings)) for metric in metrics]
        rows.append([method.name, *cells, "yes" if method.reads_spikes else "no", *_cost(method)])
    strong = set()
    for column, metric in enumerate(metrics, start=1):
        strong |= {(row, column) for row in _best(results, recordings, metric)}
    of = amount(len(recordings), "recording")
    return {"title": f"{title}, {of}", "rows": rows, "strong": strong}


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


def _headed(metric: str) -> str:
    return heading(metric, _unit(metric))


def _better(metric: str) -> int:
    return KNOWN.get(metric, ("", 0))[1]


def _condition_tables(results: Results, metric: str) -> list[dict[str, Any]]:
    parts = []
    for suite, conditions in suites(results).items():
        rows = [["condition", "recordings", *(method.name for method in results.methods)]]
        strong = set()
        for condition in conditions:
            recordings = recordings_under(results, condition)
            cells = [_cell(*mean_of(m, recordings, metric), metric, len(recordings)) for m in results.methods]
            base = " (base)" if condition is base_of(conditions) else ""
            rows.append([condition.name + base, str(len(recordings)), *cells])
            strong |= {(len(rows) - 1, best + 1) for best in _best(results, recordings, metric)}
        parts.append({"title": f"{suite}: {metric}", "rows": rows, "strong": strong})
    return parts


def _stress(results: Results, metric: str) -> list[Chart]:
    charts = []
    for suite, conditions in suites(results).items():
        for axis, along in AXES:
            points = curve_conditions(conditions, axis)
            if len(points) > 1:
                curves = [_curve(results, method, k, points, metric) for k, method in enumerate(results.methods)]
                title = f"{suite}: {metric} against {along}"
                charts.append(
                    line_chart([c for c in curves if c.points], title=title, along=along, upward=_headed(metric))
                )
    return charts


def _curve(
    results: Results, method: ScoredMethod, index: int, points: Sequence[tuple[float, ScoredCondition]], metric: str
) -> Curve:
    """A method's means where it was measured on every recording of the condition."""
    found = []
    for x, condition in points:
        recordings = recordings_under(results, condition)
        mean, count = mean_of(method, recordings, metric)
        if mean is not None and count == len(recordings):
            found.append((x, mean))
    return Curve(method.name, index, tuple(found), is_level=len(found) == 1 and not method.reads_spikes)


def _dots(results: Results, metric: str) -> list[Chart]:
    charts = []
    for title, recordings in base_groups(results):
        rows = []
        for recording in recordings:
            means = [mean_of(method, [recording], metric)[0] for method in results.methods]
            rows.append((recording.name, [(k, mean) for k, mean in enumerate(means) if mean is not None]))
        names = [method.name for method in results.methods]
        charts.append(dot_chart(rows, names, title=f"{title}: {_headed(metric)} of each recording"))
    return charts


def _protocol(results: Results) -> list[tuple[str, str]]:
    known = [(name, results.protocol[name]) for name in KNOWN if name in results.protocol]
    return known + [(name, words) for name, words in results.protocol.items() if name not in KNOWN]


def _frames_chart(results: Results, entry: ScoredRecording, metric: str) -> Chart:
    curves = []
    for k, method in enumerate(results.methods):
        if entry.name in method.scores:
            frames = method.scores[entry.name].frames
            points = tuple((float(scores["frame_idx"]), scores[metric]) for scores in frames if metric in scores)
            curves.append(Curve(method.name, k, points))
    return line_chart(curves, title=f"{metric} of each frame", along="frame", upward=_headed(metric))


def write_videos(folder: Path, recordings: Sequence[Recording]) -> None:
    """From results.json and the kept frames of the networks: one video a network and recording, and one of all. Raises
    FileNotFoundError: a frame is not there."""
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
