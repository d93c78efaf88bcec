"""The list of runs and the comparison of two: what the folders say, and no traceback whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikevrt import cli
from spikevrt.config import Config
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from spikevrt.train.runs import compare, find_runs, list_runs, summarise
from tests.train.conftest import small_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_run(
    folder: Path, *scores: tuple[int, float], steps: int = 100, config: dict[str, Any] | None = None, **about: Any
) -> Path:
    """A run with a training row at each validated step (loss 1/step) and a score there; blur at 20 dB."""
    folder.mkdir(parents=True)
    values = Config.from_dict({"optim": {"steps": steps, "warmup_steps": 0}}).to_dict()
    for name, value in (config or {}).items():
        section, key = name.split(".")
        values[section][key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    environment = {"versions": {"torch": "2.13.0"}, "commit": COMMIT, "device": "a processor", "command": ["train"]}
    run_info = {"seed": 123, "data_hash": "d" * 64, "config": values, "num_ranks": 1, "environment": environment}
    (folder / "run.json").write_text(json.dumps(run_info | about))
    rows: list[dict[str, Any]] = []
    for step, score in scores:
        rows.append({"kind": "train", "step": step, "loss": 1 / step})
        rows.append({"kind": "validation", "step": step, "psnr_rgb": score, "psnr_rgb_blur": 20.0})
    (folder / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


# --- finding ---


def test_runs_are_found_at_any_depth_and_not_inside_a_run(tmp_path: Path):
    outer = make_run(tmp_path / "a" / "b", (1, 20.0))
    make_run(outer / "pictures" / "inner", (1, 20.0))
    other = make_run(tmp_path / "z", (1, 20.0))
    assert find_runs([tmp_path]) == [outer, other]
    assert find_runs([outer]) == [outer]


def test_a_run_that_two_ways_lead_to_is_listed_once(tmp_path: Path):
    run = make_run(tmp_path / "a", (1, 20.0))
    assert find_runs([tmp_path, run, tmp_path / "a" / ".." / "a"]) == [run]


def test_a_folder_with_one_of_the_three_files_is_no_run(tmp_path: Path):
    for name in ("config.yaml", "run.json", "journal.jsonl"):
        (tmp_path / name).mkdir()
        (tmp_path / f"of_{name}").mkdir()
        (tmp_path / f"of_{name}" / name).write_text("{}")
    assert find_runs([tmp_path]) == []


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        find_runs([tmp_path / "none"])


def test_a_file_is_no_folder_of_runs(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file: not a folder"):
        find_runs([tmp_path / "file"])


# --- summing up ---


def test_a_summary_says_what_the_folder_says(tmp_path: Path):
    folder = make_run(tmp_path / "a", (40, 22.0), (60, 23.5), (100, 23.0), started="2026-11-24T15:30:00+00:00")
    run = summarise(folder)
    assert (run.state, run.steps_done, run.steps) == ("finished", 100, 100)
    assert (run.score, run.best_db, run.best_step, run.blur_db) == ("psnr_rgb", 23.5, 60, 20.0)
    assert run.last_loss == 0.01
    assert (run.data_hash, run.commit, run.device) == ("d" * 12, "0123456789ab", "a processor")
    assert run.started == "2026-11-24T15:30:00+00:00"


def test_of_equal_scores_the_first_is_the_best(tmp_path: Path):
    assert summarise(make_run(tmp_path / "a", (1, 22.0), (2, 22.0))).best_step == 1


def test_a_commit_that_is_not_the_code_keeps_saying_so(tmp_path: Path):
    folder = make_run(tmp_path / "a", environment={"commit": f"{COMMIT}-dirty"})
    assert summarise(folder).commit == "0123456789ab-dirty"


def test_a_run_that_stopped_early_is_unfinished(tmp_path: Path):
    run = summarise(make_run(tmp_path / "a", (99, 22.0)))
    assert (run.state, run.steps_done) == ("unfinished", 99)


def test_a_run_without_a_journal_has_done_no_step(tmp_path: Path):
    folder = make_run(tmp_path / "a")
    (folder / "journal.jsonl").unlink()
    run = summarise(folder)
    assert (run.state, run.steps_done, run.best_db, run.last_loss) == ("unfinished", 0, None, None)


def test_a_run_without_sharp_frames_is_judged_by_reblur_psnr(tmp_path: Path):
    folder = make_run(tmp_path / "a")
    (folder / "journal.jsonl").write_text('{"kind": "validation", "step": 5, "reblur_psnr": 31.0}\n')
    run = summarise(folder)
    assert (run.score, run.best_db, run.best_step, run.blur_db) == ("reblur_psnr", 31.0, 5, None)


def test_a_config_of_another_version_is_taken_as_it_is(tmp_path: Path):
    folder = make_run(tmp_path / "a", (10, 22.0))
    (folder / "config.yaml").write_text("optim: {steps: 10, forgotten: 1}\n")
    assert summarise(folder).state == "finished"


def test_what_a_real_run_leaves_is_read(tmp_path: Path, fakes: None):
    train(small_config(), tmp_path / "a")
    run = summarise(tmp_path / "a")
    assert (run.state, run.steps_done, run.steps, run.data_hash) == ("finished", 7, 7, "hash of no d")
    best = max(row["psnr_rgb"] for row in read_journal(tmp_path / "a") if row["kind"] == "validation")
    assert run.best_db == best


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("config.yaml", "a: [", "config.yaml: not YAML (while parsing a flow node)"),
        (
            "config.yaml",
            "\x00",
            "config.yaml: not YAML (unacceptable character #x0000: special characters are not allowed)",
        ),
        ("config.yaml", "3", "config.yaml is no mapping"),
        ("config.yaml", "optim: {steps: many}", "config.yaml has no optim.steps"),
        ("config.yaml", "optim: 3", "config.yaml has no optim.steps"),
        ("config.yaml", None, "config.yaml: No such file or directory"),
        ("run.json", "3.", "run.json: not JSON (Extra data: line 1 column 2 (char 1))"),
        ("run.json", "[]", "run.json: []; allowed: a mapping"),
        ("run.json", None, "run.json: No such file or directory"),
        ("journal.jsonl", "no row\n", "journal.jsonl: line 1 is no journal row"),
        ("journal.jsonl", '{"kind": "train", "step": "1"}\n', "journal.jsonl: line 1 is no journal row"),
        ("journal.jsonl", '{"kind": ["train"], "step": 1}\n', "journal.jsonl: line 1 is no journal row"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_run_is_listed_with_the_reason(tmp_path: Path, name: str, text: str | None, problem: str):
    folder = make_run(tmp_path / "a", (1, 20.0))
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    run = summarise(folder)
    assert (run.state, run.problem) == ("damaged", problem)


def test_bytes_that_are_no_text_are_damage_too(tmp_path: Path):
    folder = make_run(tmp_path / "a", (1, 20.0))
    (folder / "journal.jsonl").write_bytes(b"\xff\xfe\n")
    assert summarise(folder).state == "damaged"


def test_the_best_comes_first_and_the_damaged_last(tmp_path: Path):
    make_run(tmp_path / "a_poor", (1, 21.0))
    make_run(tmp_path / "b_good", (1, 25.0))
    make_run(tmp_path / "c_unvalidated")
    reblur = make_run(tmp_path / "d_reblur")
    (reblur / "journal.jsonl").write_text('{"kind": "validation", "step": 5, "reblur_psnr": 40.0}\n')
    damaged = make_run(tmp_path / "e_damaged", (1, 50.0))
    (damaged / "run.json").write_text("{")
    names = [run.folder.name for run in list_runs([tmp_path])]
    assert names == ["b_good", "a_poor", "d_reblur", "c_unvalidated", "e_damaged"]


# --- comparing ---


def test_a_comparison_tells_settings_environment_and_scores(tmp_path: Path):
    a = make_run(tmp_path / "a", (10, 21.0), (20, 22.0), (30, 22.5))
    b = make_run(tmp_path / "b", (20, 22.5), (30, 22.25), (40, 23.0), config={"optim.lr": 0.5}, num_ranks=4)
    result = compare(a, b)
    assert result.settings == [("optim.lr", 2e-4, 0.5)]
    assert result.environment == [("num_ranks", 1, 4)]
    assert result.scores == [(20, 22.0, 22.5), (30, 22.5, 22.25)]
    assert (result.score, result.best_gain_db, result.last_gain_db) == ("psnr_rgb", 0.5, -0.25)


def test_a_setting_that_a_run_does_not_name_counts_with_its_default(tmp_path: Path):
    a, b = make_run(tmp_path / "a", (1, 20.0)), make_run(tmp_path / "b", (1, 20.0))
    values = yaml.safe_load((b / "config.yaml").read_text())
    del values["optim"]["lr"]
    (b / "config.yaml").write_text(yaml.safe_dump(values))
    assert compare(a, b).settings == []


def test_versions_differ_by_name(tmp_path: Path):
    a = make_run(tmp_path / "a")
    b = make_run(
        tmp_path / "b", environment={"versions": {"torch": "2.15.0"}, "commit": COMMIT, "device": "a processor"}
    )
    assert compare(a, b).environment == [("versions.torch", "2.13.0", "2.15.0")]


def test_scores_of_two_kinds_are_not_compared(tmp_path: Path):
    a, b = make_run(tmp_path / "a", (5, 20.0)), make_run(tmp_path / "b")
    (b / "journal.jsonl").write_text('{"kind": "validation", "step": 5, "reblur_psnr": 31.0}\n')
    result = compare(a, b)
    assert (result.score, result.scores, result.best_gain_db, result.last_gain_db) == (None, [], None, None)


def test_a_folder_that_is_no_run_cannot_be_compared(tmp_path: Path):
    a = make_run(tmp_path / "a", (1, 20.0))
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"b: not a run \(a run has config.yaml, run.json and journal.jsonl\)"):
        compare(a, tmp_path / "b")


def test_a_damaged_run_cannot_be_compared(tmp_path: Path):
    a, b = make_run(tmp_path / "a", (1, 20.0)), make_run(tmp_path / "b", (1, 20.0))
    (b / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"b: damaged: run.json: not JSON"):
        compare(a, b)


# --- the verb ---


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runs/a and runs/b in the current folder."""
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/a"), (50, 21.0), (100, 22.0))
    make_run(Path("runs/b"), (50, 21.5), config={"optim.lr": 0.5, "model.spikes": None})


HEAD = "run score best dB at step blur dB steps last loss state data commit device".split()  # noqa: SIM905


def run(*arguments: str) -> int:
    return cli.main(["runs", *arguments])


def test_the_list_is_a_table(two: None, capsys: pytest.CaptureFixture[str]):
    assert run() == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        [
            "run",
            "score",
            "best",
            "dB",
            "at",
            "step",
            "blur",
            "dB",
            "steps",
            "last",
            "loss",
            "state",
            "data",
            "commit",
            "device",
        ],
        f"runs/a psnr_rgb 22.00 100 20.00 100/100 0.0100 finished {'d' * 12} 0123456789ab a processor".split(),
        f"runs/b psnr_rgb 21.50 50 20.00 50/100 0.0200 unfinished {'d' * 12} 0123456789ab a processor".split(),
    ]


def test_a_damaged_run_is_a_line_of_the_list(two: None, capsys: pytest.CaptureFixture[str]):
    Path("runs/b/run.json").write_text("[]")
    assert run() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs/b: damaged: run.json: []; allowed: a mapping"


def test_the_list_as_json_holds_the_same(two: None, capsys: pytest.CaptureFixture[str]):
    assert run("runs", "--json") == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(each["folder"], each["best_db"], each["state"]) for each in runs] == [
        ("runs/a", 22.0, "finished"),
        ("runs/b", 21.5, "unfinished"),
    ]


def test_no_runs_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(tmp_path)) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"


def test_a_comparison_is_printed(two: None, capsys: pytest.CaptureFixture[str]):
    assert run("--compare", "runs/a", "runs/b") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == ["a: runs/a", "b: runs/b", "", "settings a b"]
    assert lines[4].startswith('model.spikes {"num_bins": 32') and lines[4].endswith("... -")
    assert lines[5:] == [
        "optim.lr 0.0002 0.5",
        "",
        "environment: the same",
        "",
        "step psnr_rgb a, dB b, dB b - a, dB",
        "50 21.00 21.50 +0.50",
        "best: 22.00 (step 100) and 21.50 (step 50), -0.50 dB",
        "last step of both, 50: +0.50 dB",
    ]


def test_other_data_are_told(two: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_run(Path("runs/c"), (50, 30.0), data_hash="e" * 64)
    assert run("--compare", "runs/a", "runs/c") == 0
    assert "the data differ (data_hash): the scores are of different pictures" in capsys.readouterr().out


def test_a_comparison_as_json_holds_whole_values(two: None, capsys: pytest.CaptureFixture[str]):
    assert run("--compare", "runs/a", "runs/b", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["settings"]] == ["model.spikes", "optim.lr"]
    assert result["settings"][0]["a"]["num_bins"] == 32 and result["settings"][0]["b"] is None
    assert result["scores"] == [{"step": 50, "a": 21.0, "b": 21.5}]
    assert (result["best_gain_db"], result["last_gain_db"]) == (-0.5, 0.5)


def test_the_curves_of_both_are_drawn(two: None, capsys: pytest.CaptureFixture[str]):
    assert run("--compare", "runs/a", "runs/b", "--plot", "out/curves.png") == 0
    assert Path("out/curves.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1] == "curves -> out/curves.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such folder"),
        (["--compare", "runs/a", "none"], "none: no such folder"),
        (["--compare", "runs/a", "runs"],
         "runs: not a run (a run has config.yaml, run.json and journal.jsonl)"),
        (["runs", "--compare", "runs/a", "runs/b"], "runs: no folder besides the two of --compare"),
        (["--plot", "new.png"], "--plot: only with --compare A B"),
        (["--overwrite"], "--overwrite: only with --plot"),
        (["--compare", "runs/a", "runs/b", "--overwrite"], "--overwrite: only with --plot"),
        (["--compare", "runs/a", "runs/b", "--plot", "new.jpg"], "--plot: new.jpg; allowed: a name that ends in .png"),
        (["--compare", "runs/a", "runs/b", "--plot", "runs"], "runs: exists; choose another --plot"),
        (["--compare", "runs/a", "runs/b", "--plot", "runs/a/run.json"],
         "runs/a/run.json: exists; choose another --plot or pass --overwrite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(
    two: None, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"spikevrt: {message}\n")


def test_an_existing_picture_is_replaced_when_told(two: None):
    Path("curves.png").write_text("old")
    assert run("--compare", "runs/a", "runs/b", "--plot", "curves.png", "--overwrite") == 0
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
