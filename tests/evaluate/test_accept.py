"""The acceptance: each limit from both sides, which networks are meant, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spikevrt import cli
from spikevrt.evaluate.accept import Check, accept, told
from tests.evaluate.made_results import write_values

GOOD = {"psnr_rgb": 29.0, "lpips_alex": 0.1, "edge_rise_px": 2.0}
TWIN = {"psnr_rgb": 25.0, "lpips_alex": 0.2, "edge_rise_px": 5.0}


def _network(name: str, means: list[dict[str, Any]], *, spikes: bool, names: str = "abc") -> dict[str, Any]:
    sequences = [{"name": n, "mean": mean, "frames": []} for n, mean in zip(names, means, strict=False)]
    return {"name": name, "weights": f"{name}.safetensors", "spikes": spikes, "mean": {}, "sequences": sequences}


def _write(folder: Path, *methods: dict[str, Any], data: str = "5" * 64) -> Path:
    recordings = [{"name": name, "num_frames": 3, "width": 17, "height": 13} for name in "abc"]
    return write_values(
        folder,
        {
            "format": "spikevrt-results", "version": 3, "protocol": {},
            "data": {"sha256": data, "recordings": recordings}, "methods": list(methods),
        },
    )  # fmt: skip


def _both(folder: Path, spike: dict[str, Any], twin: dict[str, Any] = TWIN) -> Path:
    return _write(
        folder, _network("ours", [spike] * 3, spikes=True), _network("twin", [twin] * 3, spikes=False),
        {"name": "blur", "spikes": False, "mean": {}, "sequences": []},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "met", "missed"),
    [("psnr_rgb", 24.96, 24.94), ("lpips_alex", 0.2049, 0.2051), ("edge_rise_px", 4.99, 5.0)],
)
def test_a_check_holds_on_one_side_of_its_limit_only(metric, met, missed):
    assert Check(metric, met, TWIN[metric], 3).is_met
    assert not Check(metric, missed, TWIN[metric], 3).is_met


@pytest.mark.parametrize(
    ("bad", "status"),
    [((), 0), (("psnr_rgb",), 1), (("lpips_alex",), 4), (("edge_rise_px",), 8), (("psnr_rgb", "lpips_alex"), 5),
     (("psnr_rgb", "edge_rise_px"), 9), (("lpips_alex", "edge_rise_px"), 12), (tuple(GOOD), 13)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_the_exit_status_is_the_sum_of_the_checks_that_fail(tmp_path, capsys, bad, status):
    worse = {"psnr_rgb": 3.0, "lpips_alex": 0.9, "edge_rise_px": 9.0}
    run = _both(tmp_path / "run", {**GOOD, **{metric: worse[metric] for metric in bad}})
    assert cli.main(["accept", "--spike", str(run), "--twin", str(run / "results.json")]) == status
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "ours against its twin twin, 3 recordings, data 555555555555"
    for line, metric in zip(lines, GOOD, strict=True):
        assert line.split()[:2] == ["FAIL" if metric in bad else "PASS", metric]


def test_a_line_shows_both_values_and_what_is_needed(tmp_path):
    run = str(_both(tmp_path / "run", GOOD))
    assert told(accept(run, run))[1:] == [
        "PASS  psnr_rgb      29.00 dB, twin 25.00 dB; needed: >= twin - 0.05 dB",
        "PASS  lpips_alex    0.1000, twin 0.2000; needed: <= twin + 0.005",
        "PASS  edge_rise_px  2.00 px, twin 5.00 px; needed: < twin",
    ]


def test_only_recordings_that_both_have_count(tmp_path):
    bad = {"psnr_rgb": 3.0, "lpips_alex": 0.9, "edge_rise_px": 9.0}
    a = _write(tmp_path / "a", _network("ours", [GOOD, GOOD, bad], spikes=True))
    b = _write(tmp_path / "b", _network("twin", [TWIN, TWIN], spikes=False))
    acceptance = accept(str(a), str(b))
    assert acceptance.num_recordings == 2 and acceptance.status == 0


def test_a_recording_without_an_edge_in_one_of_both_is_left_out_of_that_check(tmp_path):
    flat = {**TWIN, "edge_rise_px": None}
    a = _write(tmp_path / "a", _network("ours", [GOOD, GOOD, {**GOOD, "edge_rise_px": 50.0}], spikes=True))
    b = _write(tmp_path / "b", _network("twin", [TWIN, TWIN, flat], spikes=False))
    acceptance = accept(str(a), str(b))
    assert acceptance.checks[2] == Check("edge_rise_px", 2.0, 5.0, 2)
    assert "(of 2 recordings)" in told(acceptance)[3] and "(of" not in told(acceptance)[1]


def test_of_several_networks_one_is_named_behind_a_colon(tmp_path):
    networks = [_network(n, [GOOD] * 3, spikes=True) for n in ("one", "two")]
    run = _write(tmp_path / "run", *networks, _network("twin", [TWIN] * 3, spikes=False))
    assert accept(f"{run}:two", str(run)).spike == "two"
    assert accept(f"{run}/results.json:one", f"{run}:twin").spike == "one"
    with pytest.raises(
        ValueError, match=rf"--spike: {run} has 2 networks with spikes; allowed: {run}:METHOD, of one, two"
    ):
        accept(str(run), str(run))


@pytest.mark.parametrize(
    ("spike", "twin", "message"),
    [
        ("{run}:three", "{run}", "--spike: {run} has no network with spikes called three; allowed: ours"),
        ("{run}", "{run}:ours", "--twin: {run} has no network without spikes called ours; allowed: twin"),
        ("{run}", "{run}:blur", "--twin: {run} has no network without spikes called blur; allowed: twin"),
        ("{other}", "{run}", "--spike: {other} has no network with spikes; allowed: results of one"),
        ("{run}", "{other}", "--twin: {other}: data 666666666666, --spike has 555555555555; allowed: the same data"),
        ("{run}", "{apart}", "--twin: {apart}: far has no recording that ours has"),
        ("{run}", "{poor}", "{poor}: poor has no lpips_alex; `spikevrt evaluate --metrics all` measures it"),
        ("nowhere", "{run}", "nowhere: no results there; allowed: a results.json, or a folder with one"),
    ],
    ids=("name", "kind", "no network", "none", "data", "recordings", "metric", "path"),
)
def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path, capsys, spike, twin, message):
    folders = {
        "run": _write(
            tmp_path / "run", _network("ours", [GOOD] * 2, spikes=True), _network("twin", [TWIN] * 2, spikes=False),
            {"name": "blur", "spikes": False, "mean": {}, "sequences": []},
        ),
        "other": _write(tmp_path / "other", _network("twin", [TWIN] * 3, spikes=False), data="6" * 64),
        "apart": _write(tmp_path / "apart", _network("far", [TWIN], spikes=False, names="c")),
        "poor": _write(tmp_path / "poor", _network("poor", [{"psnr_rgb": 25.0}] * 3, spikes=False)),
    }  # fmt: skip
    arguments = ["--spike", spike.format(**folders), "--twin", twin.format(**folders)]
    assert cli.main(["accept", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"spikevrt: {message.format(**folders)}\n"


def test_a_metric_that_no_recording_has_of_both_is_refused(tmp_path):
    a = _write(tmp_path / "a", _network("ours", [GOOD, {**GOOD, "edge_rise_px": None}], spikes=True))
    b = _write(tmp_path / "b", _network("twin", [{**TWIN, "edge_rise_px": None}, TWIN], spikes=False))
    with pytest.raises(ValueError, match="no recording has edge_rise_px of both ours and twin"):
        accept(str(a), str(b))
