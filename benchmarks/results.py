"""Score everything that ships on spikebench-v1 and write docs/results.md's tables: `python benchmarks/results.py OUT`

OUT is a folder of `spikevrt bench`; what was scored there, or stands in spikebench.json, by the same weights (their
bytes) is not scored again, unless --all is given: its commit stays with it. The means go
into benchmarks/spikebench.json, from which the tables between the marks of docs/results.md are made; `--tables-only`
makes them from that file as it is. Weights beside those of the package and of benchmarks/weights: --weights.
--curves RUN... reads training runs into benchmarks/learning_curves.json and draws docs/images/learning_curves.png.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

from spikevrt.bench.benchmark import CONDITIONS
from spikevrt.evaluate.results import KNOWN

ROOT = Path(__file__).parents[1]
SUMMARY = ROOT / "benchmarks" / "spikebench.json"
BASELINES = ROOT / "benchmarks" / "weights"  # trained for the comparison, not part of the package
LEARNT = ROOT / "benchmarks" / "learning_curves.json"
CURVES = ROOT / "docs" / "images" / "learning_curves.png"
PAGE = ROOT / "docs" / "results.md"
ORDER = (
    "blur",
    "spike_ratio",
    "interval_ratio",
    "vrt_tiny",
    "spikevrt_tiny",
    "spikefold_tiny",
    "spikevrt_tiny_robust",
    "spikevrt_profile",
    "spikefold_photos",
    "unet",
    "unet_rgb",
)  # of the tables
METRICS = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y", "ssim_rgb_3d", "lpips_alex", "flip", "edge_rise_px",
           "edge_rise_px_sharp", "reblur_psnr", "reblur_psnr_sharp", "tof", "tlp")  # fmt: skip


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Of results.json: what it was made of, and the mean of every metric per condition and method."""
    conditions = list(dict.fromkeys(r["condition"]["name"] for r in results["data"]["recordings"]))
    members: dict[str, set[str]] = {name: set() for name in conditions}
    for recording in results["data"]["recordings"]:
        members[recording["condition"]["name"]].add(recording["name"])
    methods = []
    for method in results["methods"]:
        means: dict[str, dict[str, float]] = {}
        for name in conditions:
            sequences = [s["mean"] for s in method["sequences"] if s["name"] in members[name]]
            if sequences:
                taken = dict.fromkeys(metric for s in sequences for metric in s)
                means[name] = {
                    metric: round(mean([float(s[metric]) for s in sequences if metric in s]), 5) for metric in taken
                }
        training = method.get("training", {})
        methods.append(
            {
                "name": method["name"],
                "parameters": method.get("parameters"),
                "weights_sha256": method.get("weights_sha256"),
                "ms_per_frame": round(method["ms_per_frame"], 1),
                "peak_memory_bytes": method["peak_memory_bytes"],
                "steps": training.get("step"),
                "data_hash": training.get("data_hash"),
                "scored_at": method["scored_at"]["commit"],
                "means": means,
            }
        )
    environment = results["environment"]
    return {
        "benchmark": results["benchmark"],
        "data_sha256": results["data"]["sha256"],
        "environment": {key: environment[key] for key in ("commit", "device", "num_threads", "versions")},
        "methods": methods,
    }


def tables(values: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/results.md by the name of their mark."""
    methods = values["methods"]
    names = list(next(m for m in methods if m["means"])["means"]["medium"])
    metrics = [name for name in names if not name.endswith("_sharp")]
    main = [["method", "parameters", "steps", "ms a frame", *metrics]]
    best = {}
    for name in metrics:
        sign = KNOWN[name][1]  # 0: methods are not ranked by it
        best[name] = max((sign * m["means"]["medium"][name] for m in methods), default=None) if sign else None
    for m in methods:
        means = m["means"]["medium"]
        cells = [
            f"**{shown(means[name])}**" if best[name] == KNOWN[name][1] * means[name] else shown(means[name])
            for name in metrics
        ]
        main.append([m["name"], f"{m['parameters']:,}" if m["parameters"] else "-", str(m["steps"] or "-"),
                     f"{m['ms_per_frame']:.0f}" if m["parameters"] else "-", *cells])  # fmt: skip
    conditions = [c.name for c in CONDITIONS if any(c.name in m["means"] for m in methods)]
    every = [["psnr_rgb dB", *(m["name"] for m in methods)]]
    for name in conditions:
        every.append([name, *(shown(m["means"][name]["psnr_rgb"]) if name in m["means"] else "-" for m in methods)])
    made = (
        f"{values['benchmark']['name']}, sha256 `{values['benchmark']['sha256'][:16]}`, commit "
        f"`{(values['environment']['commit'] or 'unknown')[:12]}`, {values['environment']['num_threads']} thread(s), "
        f"torch {values['environment']['versions']['torch']}."
    )
    return {"made": made, "medium": as_markdown(main), "conditions": as_markdown(every)}


def learnt(runs: list[Path]) -> dict[str, Any]:
    """Validation scores and processor seconds of training runs (folders), by name; draws their curves."""
    from spikevrt.report.charts import draw_comparison
    from spikevrt.train.journal import read_journal

    found, drawn = {}, []
    for run in runs:
        rows, about = read_journal(run), json.loads((run / "run.json").read_text(encoding="utf-8"))
        batch = about["config"]["data"]["batch"]
        every = about["config"]["train"]["log_every"]
        # of one thread that shares a core: the share of the time in which it ran
        seconds = sum(
            every * batch / r["clips_per_s"] * min(1.0, r["device_load"]) for r in rows if r["kind"] == "train"
        )
        found[run.name] = {
            "steps": about["config"]["optim"]["steps"],
            "processor_s": round(seconds),
            "data_hash": about["data_hash"],
            "commit": about["environment"]["commit"],
            "validation": [[r["step"], round(r["psnr_rgb"], 3)] for r in rows if r["kind"] == "validation"],
        }
        drawn.append((run.name, rows))
    draw_comparison(drawn, CURVES, title="validation on two photographs that were not trained on")
    return found


def training_table(values: dict[str, Any]) -> str:
    rows = [["run", "steps", "processor minutes", "validation psnr_rgb dB, last", "best"]]
    for name, run in values.items():
        scores = [score for _, score in run["validation"]]
        rows.append(
            [name, str(run["steps"]), f"{run['processor_s'] / 60:.0f}", f"{scores[-1]:.2f}", f"{max(scores):.2f}"]
        )
    return as_markdown(rows)


def shown(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def as_markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(rows[0]) - 1), *lines[1:]])


def filled(page: str, parts: dict[str, str]) -> str:
    """The page with what stands between each pair of marks replaced. Raises ValueError where a mark is missing."""
    for name, text in parts.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"

        def fill(match: re.Match[str], text: str = text) -> str:
            return f"{match[1]}{text}\n{match[2]}"

        page, found = re.subn(pattern, fill, page, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"{PAGE}: the mark {name} stands there {found} times; once is needed")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="folder of the benchmark's results")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="beside the shipped ones")
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--all", action="store_true", help="score what spikebench.json has of the same weights, too")
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--curves", type=Path, nargs="+", default=[], metavar="RUN")
    options = parser.parse_args()
    if options.curves:
        LEARNT.write_text(json.dumps(learnt(options.curves), indent=1) + "\n", encoding="utf-8")
    if not options.tables_only:
        from spikevrt import shipped
        from spikevrt.bench.run import run_benchmark
        from spikevrt.evaluate import scores
        from spikevrt.recording.spike_file import sha256_file
        from spikevrt.restore.restorer import RestoreOptions

        weights = [shipped.find(name) for name in (*shipped.COMPARED, shipped.ROBUST)]
        weights += [*sorted(BASELINES.glob("*.safetensors")), *options.weights]
        before = [] if options.all or not SUMMARY.is_file() else json.loads(SUMMARY.read_text())["methods"]
        sums = {path: sha256_file(path) for path in weights}
        kept = [method for method in before if method["weights_sha256"] in sums.values()]
        weights = [path for path in weights if sums[path] not in {method["weights_sha256"] for method in kept}]
        measure = scores.Measure(METRICS)
        results = run_benchmark(
            options.out, weights, [], CONDITIONS, RestoreOptions(), measure, recordings=options.recordings
        )
        values = summary(results)
        if kept and values["data_sha256"] != json.loads(SUMMARY.read_text())["data_sha256"]:
            raise ValueError(f"{SUMMARY}: of other data; --all scores everything anew")
        every = {method["name"]: method for method in [*values["methods"], *kept]}
        known = [name for name in ORDER if name in every]
        values["methods"] = [every[name] for name in [*known, *(name for name in every if name not in known)]]
        SUMMARY.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    parts = tables(json.loads(SUMMARY.read_text(encoding="utf-8")))
    parts["training"] = training_table(json.loads(LEARNT.read_text(encoding="utf-8")))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    main()
