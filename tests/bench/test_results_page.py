"""docs/results.md says what benchmarks/spikebench.json and learning_curves.json say, to the last digit."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from spikevrt import shipped
from spikevrt.bench.benchmark import CONDITIONS, NAME, digests, total_digest
from spikevrt.recording.spike_file import sha256_file

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
VALUES = json.loads((ROOT / "benchmarks" / "spikebench.json").read_text(encoding="utf-8"))
LEARNT = json.loads((ROOT / "benchmarks" / "learning_curves.json").read_text(encoding="utf-8"))


def test_the_tables_of_the_page_are_those_of_the_figures():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    parts = {**SCRIPT["tables"](VALUES), "training": SCRIPT["training_table"](LEARNT)}
    assert SCRIPT["filled"](page, parts) == page


def test_the_figures_are_of_this_benchmark_and_of_the_weights_that_ship():
    assert VALUES["benchmark"] == {"name": NAME, "sha256": total_digest(digests())}
    conditions = [condition.name for condition in CONDITIONS]
    for method in VALUES["methods"]:
        assert set(method["means"]) <= set(conditions) and {"slow", "medium", "fast"} <= set(method["means"])
        if method["name"] in shipped.NAMES:
            assert method["weights_sha256"] == sha256_file(shipped.find(method["name"])), method["name"]
    names = {method["name"] for method in VALUES["methods"]}
    assert {"blur", "spike_ratio", "interval_ratio", "vrt_tiny", "spikevrt_tiny"} <= names


def test_what_restore_says_of_the_gain_by_spikes_is_what_was_measured():
    scores = {method["name"]: method["means"]["medium"]["psnr_rgb"] for method in VALUES["methods"]}
    assert {name: round(scores[name] - scores["blur"], 1) for name in shipped.GAIN_DB} == shipped.GAIN_DB


def test_a_missing_mark_is_told():
    with pytest.raises(ValueError, match="the mark medium stands there 0 times; once is needed"):
        SCRIPT["filled"]("no marks", {"medium": "x"})
    assert SCRIPT["filled"]("a\n<!-- m -->\nold\n<!-- /m -->\nb", {"m": "new"}) == "a\n<!-- m -->\nnew\n<!-- /m -->\nb"
