"""Reading and merging results: what counts as the base, what is refused."""

from __future__ import annotations

import copy
import math

import pytest

from spikevrt.evaluate.results import (
    ScoredCondition,
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
from tests.evaluate.made_results import read_values, write_values


def _condition(name: str, **values: object) -> ScoredCondition:
    return ScoredCondition(name, "s", {"threshold": 1.0, "offset_ticks": 0, "sensor": "ideal", **values})


def test_a_folder_and_the_file_in_it_read_as_the_same(made_scores):
    assert read_results(made_scores) == read_results(made_scores / "results.json")


def test_the_metrics_stand_in_the_known_order_and_unknown_ones_behind_them(made_scores):
    assert read_results(made_scores).metrics == ("psnr_rgb", "ssim_rgb", "lpips_alex", "edge_rise_px", "novel")


def test_inf_is_infinity_and_null_is_nothing(made_scores, tmp_path):
    values = read_values(made_scores)
    values["methods"][1]["sequences"][0]["mean"] = {"psnr_rgb": "inf", "edge_rise_px": None}
    method = read_results(write_values(tmp_path, values)).methods[1]
    assert method.scores["medium_astronaut"].mean == {"psnr_rgb": math.inf}


def test_the_base_is_the_condition_that_the_others_are_variations_of():
    base = _condition("plain")
    others = [_condition("t", threshold=2.0), _condition("o", offset_ticks=8), _condition("s", sensor="dark")]
    for place in range(4):
        assert base_of([*others[:place], base, *others[place:]]) is base


def test_of_equally_central_conditions_the_first_is_the_base():
    one, two = _condition("one"), _condition("two", threshold=2.0)
    assert base_of([one, two]) is one and base_of([two, one]) is two


def test_a_curve_holds_the_base_and_what_differs_in_its_axis_alone_by_rising_value():
    base = _condition("base", threshold=2.0)
    conditions = [
        _condition("four", threshold=4.0), base, _condition("one"), _condition("both", threshold=8.0, sensor="dark"),
        _condition("o", threshold=2.0, offset_ticks=8), _condition("p", threshold=2.0, offset_ticks=16),
    ]  # fmt: skip
    assert [(x, c.name) for x, c in curve_conditions(conditions, "threshold")] == [
        (1.0, "one"), (2.0, "base"), (4.0, "four"),
    ]  # fmt: skip
    assert [x for x, _ in curve_conditions(conditions, "offset_ticks")] == [0.0, 8.0, 16.0]
    assert curve_conditions(conditions, "sensor") == [] == curve_conditions(conditions, "unheard of")


def test_the_main_table_is_of_the_base_of_each_split_and_of_what_has_no_condition(made_scores, tmp_path):
    results = read_results(made_scores)
    assert [(title, [r.name for r in group]) for title, group in base_groups(results)] == [
        ("medium", ["medium_astronaut", "medium_coffee"])
    ]
    values = read_values(made_scores)
    for recording in values["data"]["recordings"]:
        recording["condition"] = None
    [(title, group)] = base_groups(read_results(write_values(tmp_path, values)))
    assert title == "all recordings" and len(group) == 6


def test_a_mean_is_of_those_recordings_that_were_measured_and_says_how_many(made_scores):
    results = read_results(made_scores)
    blur, _, twin = results.methods
    assert mean_of(twin, results.recordings, "lpips_alex") == (pytest.approx(0.2), 2)
    assert mean_of(blur, results.recordings, "lpips_alex") == (pytest.approx(0.3), 6)
    stressed = recordings_under(results, suites(results)["medium"][1])
    assert mean_of(twin, stressed, "psnr_rgb") == (None, 0)


def test_values_are_shown_with_two_places_of_db_and_px_and_else_four():
    told = [shown(2.71828, name) for name in ("psnr_rgb", "edge_rise_px", "ssim_rgb", "unheard of")]
    assert told == ["2.72", "2.72", "2.7183", "2.7183"]
    assert (shown(None, "psnr_rgb"), shown(math.inf, "psnr_rgb")) == ("-", "inf")


def _renamed(values: dict, name: str) -> dict:
    """The same run with another network in place of its two."""
    values = copy.deepcopy(values)
    values["methods"] = values["methods"][:2]
    values["methods"][1]["name"] = name
    return values


def test_merging_appends_the_new_methods_and_keeps_an_equal_baseline_once(made_scores, tmp_path):
    other = write_values(tmp_path, _renamed(read_values(made_scores), "unet"))
    merged = merge([read_results(made_scores), read_results(other)])
    assert [method.name for method in merged.methods] == ["blur", "spikevrt_tiny", "vrt_tiny", "unet"]
    assert merged.methods[-1].folder == tmp_path and len(merged.files) == 2


def test_merging_refuses_other_data(made_scores, tmp_path):
    values = _renamed(read_values(made_scores), "unet")
    values["data"]["sha256"] = "8" * 64
    other = write_values(tmp_path, values)
    message = rf"^{other}/results.json: data 888888888888, but {made_scores}/results.json has 777777777777; allowed"
    with pytest.raises(ValueError, match=message):
        merge([read_results(made_scores), read_results(other)])


def test_merging_refuses_two_methods_of_one_name(made_scores, tmp_path):
    other = write_values(tmp_path, _renamed(read_values(made_scores), "vrt_tiny"))
    with pytest.raises(ValueError, match=rf"a method called vrt_tiny is in {made_scores} already; rename one"):
        merge([read_results(made_scores), read_results(other)])


def test_merging_refuses_a_baseline_that_scored_otherwise(made_scores, tmp_path):
    values = _renamed(read_values(made_scores), "unet")
    values["methods"][0]["sequences"][0]["mean"]["psnr_rgb"] += 1e-3
    with pytest.raises(ValueError, match="a method called blur is in"):
        merge([read_results(made_scores), read_results(write_values(tmp_path, values))])


def test_merging_refuses_recordings_of_other_names(made_scores, tmp_path):
    values = json_renamed(_renamed(read_values(made_scores), "unet"), "medium_coffee", "medium_tea")
    with pytest.raises(ValueError, match="names its recordings otherwise than"):
        merge([read_results(made_scores), read_results(write_values(tmp_path, values))])


def test_merging_refuses_a_metric_of_another_definition(made_scores, tmp_path):
    values = _renamed(read_values(made_scores), "unet")
    values["protocol"]["psnr_rgb"] = "dB, of floats"
    with pytest.raises(ValueError, match=r"protocol\.psnr_rgb is not that of"):
        merge([read_results(made_scores), read_results(write_values(tmp_path, values))])


def json_renamed(values: dict, old: str, new: str) -> dict:
    for entry in [*values["data"]["recordings"], *(s for m in values["methods"] for s in m["sequences"])]:
        entry["name"] = new if entry["name"] == old else entry["name"]
    return values


def test_a_path_without_results_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}: no results there; allowed: a results.json, or"):
        read_results(tmp_path)


def test_another_json_is_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"format": "spikevrt-results", "version": 1}')
    with pytest.raises(
        ValueError, match=r"results\.json: format 'spikevrt-results' version 1; allowed: 'spikevrt-results' version 3$"
    ):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["methods"][1].pop("sequences"), r"methods\[1\]\.sequences is missing"),
        (lambda v: v["methods"].clear(), "no methods or no recordings"),
        (lambda v: v["methods"][1].update(name="blur"), "two methods are called blur"),
        (
            lambda v: v["methods"][0]["sequences"][0].update(name="x"),
            r"sequences\[0\]\.name: 'x'; allowed: one of data",
        ),
        (lambda v: v["methods"][0]["sequences"][0]["mean"].update(psnr_rgb="much"), r"mean\.psnr_rgb: 'much'; allowed"),
        (
            lambda v: v["data"]["recordings"][0]["condition"].update(x=[1]),
            r"condition\.x: \[1\]; allowed: .*float, str",
        ),
        (lambda v: v["data"]["recordings"][3].pop("width"), r"recordings\[3\]\.width is missing"),
    ],
    ids=("no sequences", "no methods", "one name", "unknown recording", "a word", "a list", "no width"),
)
def test_damaged_results_are_refused_by_name(made_scores, tmp_path, change, message):
    values = read_values(made_scores)
    change(values)
    with pytest.raises(ValueError, match=message):
        read_results(write_values(tmp_path, values))
