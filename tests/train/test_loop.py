from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from spikevrt.checkpoint import digest, load_state, load_weights, read_info, save_state
from spikevrt.config import DataConfig, DegradeConfig, SpikeInputs
from spikevrt.report.charts import draw_run
from spikevrt.train import loop
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from tests.train.conftest import VALIDATED, FakeClips, FakeNetwork, small_config

pytestmark = pytest.mark.usefixtures("fakes")


def same_weights(first: Path, second: Path) -> bool:
    a, b = load_weights(first)[0], load_weights(second)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_journal(out) if row["kind"] == "train"]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Do `action()` when that many steps have been taken."""
    take_step = loop.Run.take_step

    def taken(self: Any, micro_batches: Any) -> Any:
        result = take_step(self, micro_batches)
        if self.step + 1 == step:
            action()
        return result

    monkeypatch.setattr(loop.Run, "take_step", taken)


def test_a_run_leaves_weights_state_config_journal_and_pictures(tmp_path: Path):
    out = tmp_path / "run"
    assert train(small_config(), out) == out / "best.safetensors"
    names = {path.name for path in out.iterdir()}
    assert names >= {"best.safetensors", "last.safetensors", "last.state", "config.yaml", "run.json", "journal.jsonl"}
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "000007_scene0_000001.png",
        "000007_scene1_000001.png",
    ]
    assert yaml.safe_load((out / "config.yaml").read_text()) == small_config().to_dict()
    assert not [name for name in names if "partial" in name]


def test_weights_know_their_statistics_config_seed_data_and_step(tmp_path: Path):
    train(small_config(), tmp_path / "run")
    info = read_info(tmp_path / "run" / "last.safetensors")
    assert (info.voxel_mean, info.voxel_std) == (0.25, 0.5)
    assert info.provenance["seed"] == 123 and info.provenance["data_hash"] == "hash of no data"
    assert info.provenance["step"] == 7
    assert info.provenance["config"] == small_config().to_dict()


def test_training_lowers_the_loss_and_beats_the_blurry_input(tmp_path: Path):
    train(small_config(optim__steps=121, train__validate_every=121), tmp_path / "run")
    curve = losses(tmp_path / "run")
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5])
    (score,) = [row for row in read_journal(tmp_path / "run") if row["kind"] == "validation"]
    assert score["psnr_rgb"] > score["psnr_rgb_blur"] + 3
    assert score["num_frames"] == 4


def test_the_journal_tells_loss_rate_throughput_wait_load_and_memory(tmp_path: Path):
    train(small_config(), tmp_path / "run")
    row = read_journal(tmp_path / "run")[0]
    assert {"loss", "lr", "clips_per_s", "data_wait", "device_load", "peak_bytes", "grad_norm", "skipped"} <= row.keys()
    assert 0 <= row["data_wait"] <= 1 and row["clips_per_s"] > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_at_step_three_equals_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
):
    config = small_config(train__accumulate=2, data__workers=workers)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(config, whole)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, _crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, halves)
    assert load_state(halves / "last.state")["step"] == 3
    torch.manual_seed(7)  # whatever happened to the generators meanwhile
    train(config, halves, resume=True)
    assert losses(halves) == losses(whole)
    assert same_weights(halves / "last.safetensors", whole / "last.safetensors")
    assert same_weights(halves / "best.safetensors", whole / "best.safetensors")
    first, second = (load_state(out / "last.state") for out in (halves, whole))
    assert digest(first) == digest(second)


def _crash() -> None:
    raise RuntimeError("power cut")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_state_and_the_resumed_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, capsys: pytest.CaptureFixture[str]
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(small_config(), whole)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, lambda: os.kill(os.getpid(), number))
        train(small_config(), stopped)
    assert signal.getsignal(number) is before
    assert f"stopped by {number.name}" in capsys.readouterr().err
    assert load_state(stopped / "last.state")["step"] == 5
    train(small_config(), stopped, resume=True)
    assert losses(stopped) == losses(whole)
    assert same_weights(stopped / "last.safetensors", whole / "last.safetensors")


def test_the_last_state_holds_the_optimiser(tmp_path: Path):
    """Fault 10: a `last` without moments resumes as a different optimiser."""
    train(small_config(), tmp_path / "run")
    state = load_state(tmp_path / "run" / "last.state")
    assert all({"exp_avg", "exp_avg_sq", "step"} <= entry.keys() for entry in state["optimizer"]["state"].values())
    assert len(state["optimizer"]["state"]) == len(list(FakeNetwork(small_config().model).parameters()))
    assert (state["step"], state["samples"]) == (7, 14)


def test_a_state_of_another_network_is_refused_by_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fault 9: nothing is ever loaded with strict=False."""
    train(small_config(), tmp_path / "run")

    class Wider(FakeNetwork):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.extra = nn.Linear(2, 3)

    monkeypatch.setattr(loop, "build_network", Wider)
    with pytest.raises(ValueError, match=r"missing keys \(extra\.bias, extra\.weight\)"):
        train(small_config(), tmp_path / "run", resume=True)


def test_initial_vrt_weights_are_loaded_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fault 9, again: a wrong file must not start a run from noise."""

    class Composed(FakeNetwork):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.vrt = nn.Linear(2, 3)

    monkeypatch.setattr(loop, "build_network", Composed)
    torch.save({"weight": torch.zeros(3, 2)}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"half\.pth: does not fit the network: 1 missing key \(bias\)"):
        train(small_config(train__init_vrt=str(tmp_path / "half.pth")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_setting_reaches_what_obeys_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fault 4: settings that are documented and never read."""
    built = []

    class Recorded(FakeClips):
        def __init__(self, data: DataConfig, spikes: SpikeInputs | None, **settings: Any) -> None:
            built.append((data, spikes, settings))
            super().__init__(data, spikes, **settings)

    monkeypatch.setattr(loop, "ClipDataset", Recorded)
    degrade = DegradeConfig(probability=0.5, noise=0.125)
    config = small_config(
        data__root="here",
        data__voxels="raw",
        data__augment=False,
        data__spike_dropout=0.25,
        data__degrade=vars(degrade),
        train__seed=7,
    )
    run = loop.Run(config, loop.Ranks(), None)
    assert built == [(config.data, config.model.spikes, {"stats": None, "seed": 7})]
    assert (config.data.voxels, config.data.augment, config.data.spike_dropout) == ("raw", False, 0.25)
    assert config.data.degrade == degrade and run.info.val == VALIDATED
    assert run.loader().batch_size == 2


def test_without_spikes_none_are_asked_for(tmp_path: Path):
    config = small_config(model__spikes=None)
    train(config, tmp_path / "run")
    info = read_info(tmp_path / "run" / "best.safetensors")
    assert info.model.spikes is None and (info.voxel_mean, info.voxel_std) == (0.0, 1.0)


def test_accumulated_micro_batches_step_as_one_batch(tmp_path: Path):
    runs = {}
    for batch, accumulate in ((4, 1), (2, 2)):
        config = small_config(data__batch=batch, train__accumulate=accumulate, optim__steps=3)
        run = loop.Run(config, loop.Ranks(), None)
        run.network.drop.p = 0.0
        micro_batches, _ = run.fetch(iter(run.loader()))
        run.take_step(micro_batches)
        runs[batch] = [p.grad is None and p.detach().clone() for p in run.network.parameters()]
    for one, two in zip(runs[4], runs[2], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)  # sums in another order


def test_a_step_whose_gradient_is_nan_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = loop.Run(small_config(), loop.Ranks(), None)
    before = [p.detach().clone() for p in run.network.parameters()]
    run.clips.poisoned = set(range(5))
    terms, grad_norm = run.take_step(run.fetch(iter(run.loader()))[0])
    assert terms["charbonnier"] != terms["charbonnier"] and grad_norm != grad_norm
    assert all(torch.equal(p, q) for p, q in zip(run.network.parameters(), before, strict=True))
    run.clips.poisoned = set()
    run.step += 1
    run.take_step(run.fetch(iter(run.loader()))[0])
    assert all(p.isfinite().all() for p in run.network.parameters())


class Poisoned(FakeClips):
    def __init__(self, data: DataConfig, spikes: SpikeInputs | None, **settings: Any) -> None:
        super().__init__(data, spikes, **settings)
        self.poisoned = {0}


def test_a_bad_clip_now_and_then_costs_its_steps_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "ClipDataset", Poisoned)
    train(small_config(data__batch=1, optim__steps=15), tmp_path / "run")
    rows = [row for row in read_journal(tmp_path / "run") if row["kind"] == "train"]
    assert rows[-1]["skipped"] == 3  # item 0 comes once in each of three epochs
    assert sum(row["loss"] is None for row in rows) == 3


def test_ten_bad_steps_in_a_row_end_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class AllBad(Poisoned):
        def __init__(self, data: DataConfig, spikes: SpikeInputs | None, **settings: Any) -> None:
            super().__init__(data, spikes, **settings)
            self.poisoned = set(range(5))

    monkeypatch.setattr(loop, "ClipDataset", AllBad)
    with pytest.raises(
        ValueError, match="not finite in 10 steps in a row, up to step 10; the last good state is"
    ) as error:
        train(small_config(optim__steps=31), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_the_batch_of_a_skipped_step_is_kept_to_be_looked_at_and_only_the_first_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class AllBad(Poisoned):
        def __init__(self, data: DataConfig, spikes: SpikeInputs | None, **settings: Any) -> None:
            super().__init__(data, spikes, **settings)
            self.poisoned = set(range(5))

    monkeypatch.setattr(loop, "ClipDataset", AllBad)
    with pytest.raises(ValueError, match="not finite in 6 steps in a row"):
        train(small_config(optim__steps=31, train__max_skipped=6, train__accumulate=2), tmp_path / "run")
    saved = sorted((tmp_path / "run" / "skipped").iterdir())
    assert [path.name for path in saved] == [f"step{step:06d}_rank0.pt" for step in (1, 2, 3, 4)]
    state = load_state(saved[0])
    assert (state["step"], state["rank"], len(state["batches"])) == (1, 0, 2)
    assert state["batches"][0]["blur"].isnan().any() and state["batches"][0]["meta"][0]["seq"].startswith("scene")


def test_a_run_folder_says_what_it_takes_to_repeat_it(tmp_path: Path):
    train(small_config(), tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"seed", "data_hash", "config", "started", "num_ranks", "environment"} <= about.keys()
    assert {"commit", "versions", "command", "device"} <= about["environment"].keys()
    started = about["started"]
    train(small_config(optim__steps=9), tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["started"] == started


def test_the_curves_are_drawn_at_every_validation(tmp_path: Path):
    train(small_config(), tmp_path / "run", after_validation=draw_run)
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_reach_tensorboard(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small_config(), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["scene0_000001", "scene1_000001"]
    assert "validation/psnr_rgb" in events.Tags()["scalars"]


def test_states_of_chosen_steps_stay_and_of_the_others_the_newest_two(tmp_path: Path):
    out = tmp_path / "run"
    train(small_config(train__checkpoint_every=1, train__keep_every=3), out)
    assert sorted(path.name for path in (out / "kept").iterdir()) == ["000003.state", "000006.state"]
    steps = [load_state(out / name)["step"] for name in ("previous.state", "last.state", "kept/000003.state")]
    assert steps == [6, 7, 3]


def test_to_resume_if_there_is_a_state_starts_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 2, _crash)  # before the first state at step 3
        with pytest.raises(RuntimeError, match="power cut"):
            train(small_config(), out, resume="auto")
    assert not (out / "last.state").exists()
    with monkeypatch.context() as patch:
        stop_after(patch, 5, _crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(small_config(), out, resume="auto")
    train(small_config(), out, resume="auto")
    train(small_config(), tmp_path / "whole")
    assert losses(out) == losses(tmp_path / "whole")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(ValueError, match="photos: is no folder of a run"):
        train(small_config(), tmp_path / "photos", resume="auto")


def test_both_states_damaged_is_an_error_that_names_the_older_one(tmp_path: Path):
    out = tmp_path / "run"
    train(small_config(train__checkpoint_every=1), out)
    for name in ("last.state", "previous.state"):
        (out / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"previous\.state: not a complete training state"):
        train(small_config(), out, resume=True)


def test_a_part_can_be_frozen_and_come_to_life_on_the_way(tmp_path: Path):
    out = tmp_path / "run"
    train(small_config(optim__flow_lr_factor=0.0), out)
    before = load_weights(out / "last.safetensors")[0]
    train(small_config(optim__steps=9), out, resume=True)
    after = load_weights(out / "last.safetensors")[0]
    assert not torch.equal(after["spynet.weight"], before["spynet.weight"])
    train(small_config(optim__steps=5), tmp_path / "other")
    before = load_weights(tmp_path / "other" / "last.safetensors")[0]
    train(small_config(optim__flow_lr_factor=0.0), tmp_path / "other", resume=True)
    after = load_weights(tmp_path / "other" / "last.safetensors")[0]
    assert torch.equal(after["spynet.weight"], before["spynet.weight"])
    assert not torch.equal(after["colour.weight"], before["colour.weight"])


def test_an_infinite_loss_takes_no_step_even_where_its_gradient_is_finite(monkeypatch: pytest.MonkeyPatch):
    run = loop.Run(small_config(optim__weight_decay=0.5), loop.Ranks(), None)
    before = [p.detach().clone() for p in run.network.parameters()]
    monkeypatch.setattr(
        run, "terms", lambda batch, network: {"charbonnier": network(*[batch["blur"]]).sum() * 0 + float("inf")}
    )
    terms, grad_norm = run.take_step(run.fetch(iter(run.loader()))[0])
    assert terms["charbonnier"] == float("inf")
    assert all(torch.equal(p, q) for p, q in zip(run.network.parameters(), before, strict=True))


def test_a_run_whose_first_steps_were_skipped_resumes_like_one_that_was_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Asking an optimiser that has taken no step for its state would take one."""

    class BadAtFirst(FakeClips):
        def __getitem__(self, item: int) -> dict[str, Any]:
            self.poisoned = set(range(5)) if self.epoch == 0 else set()
            return super().__getitem__(item)

    monkeypatch.setattr(loop, "ClipDataset", BadAtFirst)
    config = small_config(train__checkpoint_every=1)  # the first two steps lie in the first epoch
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 3, _crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    first, second = (load_state(tmp_path / name / "last.state") for name in ("halves", "whole"))
    assert second["skipped"] >= 2 and digest(first) == digest(second)


def test_a_state_that_was_written_but_not_yet_named_is_found(tmp_path: Path):
    """Killed between the two renamings: previous.state is there, last.state is not."""
    out = tmp_path / "run"
    train(small_config(train__checkpoint_every=1), out)
    os.replace(out / "last.state", out / "last.state.new")
    (out / "previous.state").write_bytes(b"damaged")
    train(small_config(optim__steps=8), out, resume="auto")
    assert len(losses(out)) == 8 and not (out / "last.state.new").exists()


def test_what_a_killed_run_was_writing_is_cleared_away_and_blocks_nothing(tmp_path: Path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config.yaml.partial-123").write_text("ha")
    train(small_config(), out, resume="auto")
    assert not list(out.glob(".*.partial-*"))


def test_other_data_under_the_same_path_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(small_config(), tmp_path / "run")
    state = load_state(tmp_path / "run" / "last.state")
    save_state(tmp_path / "run" / "last.state", state | {"data_hash": "another hash"})
    train(small_config(), tmp_path / "run", resume=True)
    assert "resuming on other data: data_hash hash of no d (was another hash)" in capsys.readouterr().err


def test_fewer_steps_than_were_taken_are_refused(tmp_path: Path):
    train(small_config(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"optim\.steps: 5; .*last\.state has taken 7; allowed: that or more"):
        train(small_config(optim__steps=5), tmp_path / "run", resume=True)


def test_a_loss_term_that_is_new_on_resuming_joins_the_mean(tmp_path: Path):
    out = tmp_path / "run"
    train(small_config(train__log_every=5), out)  # two steps since the last row are in the state
    state = load_state(out / "last.state")
    save_state(out / "last.state", state | {"losses": [{"charbonnier": 0.5}]})
    train(small_config(optim__steps=9, train__log_every=5, loss__fft_weight=0.1), out, resume=True)
    assert read_journal(out)[-2]["loss_fft"] > 0


def test_a_dry_run_reports_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert train(small_config(), tmp_path / "run", dry_run=True) is None
    assert list(tmp_path.iterdir()) == []
    text = capsys.readouterr().out
    assert "one step     2 clips of 2x8x8" in text and "peak memory" in text and "nothing was written" in text


def test_validation_runs_whole_frames_in_evaluation_mode_and_goes_back_to_training(tmp_path: Path):
    run = loop.Run(small_config(), loop.Ranks(), None)
    seen = []
    run.network.register_forward_hook(
        lambda module, inputs, output: seen.append((module.training, inputs[0].shape[-1]))
    )
    run.network.train()
    loop.validate(run.restorer(run.network), run.info.val, loop.Ranks())
    assert set(seen) == {(False, 16)} and run.network.training


def test_an_existing_folder_is_refused(tmp_path: Path):
    with pytest.raises(FileExistsError) as error:
        train(small_config(), tmp_path)
    assert str(error.value) == f"{tmp_path}: exists; choose another --out or pass --overwrite"


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path: Path):
    out = tmp_path / "run"
    train(small_config(), out)
    (out / "notes.txt").write_text("mine")
    train(small_config(optim__steps=3), out, overwrite=True)
    assert len(losses(out)) == 3 and (out / "notes.txt").read_text() == "mine"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(ValueError, match="photos: is no folder of a run"):
        train(small_config(), tmp_path / "photos", overwrite=True)


def test_resuming_nothing_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is nothing to resume"):
        train(small_config(), tmp_path / "run", resume=True)


def test_resuming_and_overwriting_at_once_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="choose one"):
        train(small_config(), tmp_path / "run", resume=True, overwrite=True)


def test_a_resumed_run_keeps_its_network_and_names_other_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(small_config(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"model\.vrt\.drop_path: 0\.5, but .* was trained with 0\.2"):
        train(small_config(model__vrt={"drop_path": 0.5}), tmp_path / "run", resume=True)
    train(small_config(optim__steps=9), tmp_path / "run", resume=True)
    assert "resuming with optim.steps 9 (was 7)" in capsys.readouterr().err
    assert len(losses(tmp_path / "run")) == 9


def test_a_resumed_run_obeys_changed_settings_of_the_optimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(small_config(), tmp_path / "run")
    seen: list[dict[str, Any]] = []
    restore_state = loop.Run.restore_state

    def spy(self: Any, saved: dict[str, Any]) -> None:
        restore_state(self, saved)
        seen.extend(self.optimizer.param_groups)

    monkeypatch.setattr(loop.Run, "restore_state", spy)
    changed = small_config(optim__steps=9, optim__weight_decay=0.25, optim__betas=(0.5, 0.625))
    train(changed, tmp_path / "run", resume=True)
    assert seen and all(g["weight_decay"] == 0.25 and tuple(g["betas"]) == (0.5, 0.625) for g in seen)


def test_a_resumed_run_keeps_its_voxel_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(small_config(), tmp_path / "run")
    state = load_state(tmp_path / "run" / "last.state")
    save_state(tmp_path / "run" / "last.state", state | {"statistics": [0.5, 0.5]})
    with pytest.raises(
        ValueError, match=r"voxel mean and std \(0\.25, 0\.5\), but the run was trained with \(0\.5, 0\.5\)"
    ):
        train(small_config(), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__crop_px": 12}, "data.crop_px: 12; this network needs a multiple of 8, at least 8"),
        ({"data__clip_frames": 1}, "data.clip_frames: 1; allowed: 2 or more"),
        ({"data__batch": 0}, "data.batch: 0; allowed: 1 or more"),
        ({"train__accumulate": 0}, "train.accumulate: 0; allowed: 1 or more"),
        ({"optim__warmup_steps": 7}, "optim.warmup_steps: 7; allowed: 0 to optim.steps - 1 = 6"),
        ({"train__keep_every": 4}, "train.keep_every: 4; allowed: 0 or a multiple of train.checkpoint_every = 3"),
        ({"train__max_skipped": 0}, "train.max_skipped: 0; allowed: 1 or more"),
        ({"loss__fft_weight": -1.0}, "loss.fft_weight: -1.0; allowed: 0 (off) or more"),
        ({"loss__charbonnier_eps": 0.0}, "loss.charbonnier_eps: 0.0; allowed: above 0"),
        ({"train__init": "a", "train__init_vrt": "b"}, "train.init and train.init_vrt: choose one"),
        (
            {"model__spikes": None, "data__spike_dropout": 0.5},
            "data.spike_dropout: 0.5, but model.spikes is null; allowed: 0",
        ),
        (
            {"model__spikes": None, "data__degrade": {"probability": 0.5, "noise": 0.1}},
            "data.degrade: given, but model.spikes is null; allowed: probability 0",
        ),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError) as error:
        train(small_config(**changes), tmp_path / "run")
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_bf16_trains_on_the_cpu(tmp_path: Path):
    train(small_config(train__precision="bf16"), tmp_path / "run")
    assert all(loss is not None for loss in losses(tmp_path / "run"))
