from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from spikevrt.train import journal as journal_module
from spikevrt.train.journal import Journal, Meter, in_words, read_journal


def test_rows_come_back_and_what_is_not_finite_is_null(tmp_path: Path):
    journal = Journal(tmp_path, start_step=0)
    journal.write("train", 1, loss=0.5, grad_norm=float("nan"))
    assert read_journal(tmp_path) == [{"kind": "train", "step": 1, "loss": 0.5, "grad_norm": None}]  # before closing
    journal.close()


def test_a_resumed_journal_forgets_the_steps_that_will_be_lived_again(tmp_path: Path):
    journal = Journal(tmp_path, start_step=0)
    for step in (1, 2, 3):
        journal.write("train", step, loss=float(step))
    journal.close()
    journal = Journal(tmp_path, start_step=2)
    journal.write("train", 3, loss=7.0)
    journal.close()
    assert [row["loss"] for row in read_journal(tmp_path)] == [1.0, 2.0, 7.0]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path):
    (tmp_path / "journal.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "tr')
    assert [row["step"] for row in read_journal(tmp_path)] == [1]


def test_a_missing_journal_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"journal\.jsonl: no such journal"):
        read_journal(tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path):
    (tmp_path / "journal.jsonl").write_text('{"kind": "train", "step": 1}\nhello\n')
    with pytest.raises(ValueError, match="line 2 is no journal row"):
        read_journal(tmp_path)


def test_the_meter_averages_the_loss_and_begins_again():
    meter = Meter(torch.device("cpu"))
    meter.count(2, {"charbonnier": 1.0}, 0.0)
    meter.count(2, {"charbonnier": 3.0}, 0.0)
    values = meter.read()
    assert values["loss"] == 2.0 and values["clips_per_s"] > 0 and values["peak_bytes"] > 0
    meter.count(2, {"charbonnier": 4.0, "fft": 1.0}, 0.0)
    values = meter.read()
    assert (values["loss"], values["loss_charbonnier"], values["loss_fft"]) == (5.0, 4.0, 1.0)


def test_rows_that_a_full_disk_did_not_take_are_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal_module, "_tensorboard", lambda folder, start_step: None)
    journal = Journal(tmp_path, start_step=0)
    journal.write("train", 1, loss=1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "journal.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))  # not even half a row more
    try:
        journal.write("train", 2, loss=2.0)
        journal.write("train", 3, loss=3.0)
        assert [row["step"] for row in read_journal(tmp_path)] == [1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.write("train", 4, loss=4.0)
    journal.close()
    assert [row["step"] for row in read_journal(tmp_path)] == [1, 2, 3, 4]


def test_a_row_in_words_names_the_terms_where_there_are_several():
    row = {
        "loss": 0.5,
        "loss_charbonnier": 0.25,
        "loss_fft": 0.25,
        "clips_per_s": 2.0,
        "data_wait": 0.0,
        "device_load": None,
        "peak_bytes": 3_000_000_000,
        "lr": 1e-4,
        "grad_norm": 0.125,
    }
    assert in_words(row) == (
        "loss 0.5000 (charbonnier 0.2500, fft 0.2500), lr 1.0e-04, grad 0.12, 2.00 clips/s, 0% data wait, 3.0 GB"
    )
