"""Switches of memory and speed: which leave every loss as it was, bit for bit, and which change it a little."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikevrt.checkpoint import digest, load_state, load_weights
from spikevrt.config import CHECKPOINT_PARTS, DataConfig, OptimConfig, SpikeInputs
from spikevrt.model import deformable_alignment, flow
from spikevrt.model.blocks import TMSA, BlockSettings
from spikevrt.train import distributed, loop
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from spikevrt.train.optim import make_optimizer
from tests.train.conftest import FakeClips, FakeNetwork, real_config, small_config

STEPS = 2


def steps(dataset: Path, **changes: Any) -> tuple[list[float], str]:
    """The loss of each of two steps of the smallest real network, and a digest of the weights after them."""
    config = real_config(dataset, **changes)
    run = loop.Run(config, loop.Ranks(), None)
    run.trained.train()
    batches = iter(run.loader())
    losses = []
    for _ in range(STEPS):
        loop.set_lr(run.optimizer, 1, config.optim)
        terms, _ = run.take_step(run.fetch(batches)[0])
        losses.append(sum(terms.values()))
        run.step += 1
    return losses, digest(run.network.state_dict())


@pytest.fixture(scope="module")
def default(dataset: Path) -> tuple[list[float], str]:
    return steps(dataset)


@pytest.mark.parametrize(
    "changes",
    [
        *({"model__checkpoint": [part]} for part in CHECKPOINT_PARTS),
        {"model__checkpoint": list(CHECKPOINT_PARTS)},
        {"model__checkpoint": list(CHECKPOINT_PARTS), "model__checkpoint_stages": [1, 7]},
        {"optim__ema_decay": 0.5},
        pytest.param({"data__workers": 1}, marks=pytest.mark.slow),
        {"data__workers": 2},
        {},
    ],
    ids=str,
)
def test_losses_and_weights_stay_the_same_bit_for_bit(
    dataset: Path, default: tuple[list[float], str], changes: dict[str, Any]
):
    assert steps(dataset, **changes) == default


def test_the_deterministic_mode_changes_no_bit_on_a_cpu(dataset: Path, default: tuple[list[float], str]):
    try:
        assert steps(dataset, train__deterministic=True) == default
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"train__channels_last": True}, 1e-5),  # the same sums in another order
        pytest.param({"train__precision": "bf16"}, 2e-2, marks=pytest.mark.slow),  # 8 bits of mantissa
        pytest.param({"train__precision": "fp16"}, 2e-3, marks=pytest.mark.slow),  # 11
    ],
    ids=str,
)
def test_losses_stay_close(dataset: Path, default: tuple[list[float], str], changes: dict[str, Any], tolerance: float):
    assert steps(dataset, **changes)[0] == pytest.approx(default[0], rel=tolerance)


def test_the_network_trains_sampled_by_index_as_a_gpu_does_it_in_the_deterministic_mode(
    dataset: Path, default: tuple[list[float], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flow, "sample", flow.sample_by_index)
    monkeypatch.setattr(deformable_alignment, "sample", flow.sample_by_index)
    assert steps(dataset)[0] == pytest.approx(default[0], rel=1e-5)


@pytest.mark.slow
def test_two_micro_batches_of_one_clip_are_a_batch_of_two_but_for_rounding(dataset: Path):
    """Without stochastic depth, which draws for each batch anew."""
    halves = steps(dataset, data__batch=1, train__accumulate=2, model__vrt__drop_path=0.0)[0]
    assert halves == pytest.approx(steps(dataset, data__batch=2, model__vrt__drop_path=0.0)[0], rel=1e-5)


# --- fp16 ------------------------------------------------------------------------------------------------------------


class OnceBad(FakeClips):
    """The first clip of training holds NaN, so that the scaler has something to come down from."""

    def __init__(self, data: DataConfig, spikes: SpikeInputs | None, **settings: Any) -> None:
        super().__init__(data, spikes, **settings)
        self.poisoned = {0}


def crash_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    take_step = loop.Run.take_step

    def taken(self: Any, micro_batches: Any) -> Any:
        if self.step == step:
            raise RuntimeError("power cut")
        return take_step(self, micro_batches)

    monkeypatch.setattr(loop.Run, "take_step", taken)


def in_halves(config: Any, out: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Train, crash before that step, resume."""
    with monkeypatch.context() as patch:
        crash_after(patch, step)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, out)
    train(config, out, resume=True)


@pytest.mark.usefixtures("fakes")
def test_a_resumed_fp16_run_keeps_its_loss_scaler_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "ClipDataset", OnceBad)
    config = small_config(train__precision="fp16", train__checkpoint_every=1)
    train(config, tmp_path / "whole")
    in_halves(config, tmp_path / "halves", monkeypatch, 5)
    whole, halves = (load_state(tmp_path / name / "last.state") for name in ("whole", "halves"))
    assert whole["scaler"]["scale"] < 65536 and whole["skipped"] > 0  # it came down
    assert whole["scaler"] == halves["scaler"]
    assert digest(whole["network"]) == digest(halves["network"])
    assert digest(whole["optimizer"]) == digest(halves["optimizer"])


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad * float("nan")


class BadGradient(FakeNetwork):
    """Its loss is always finite, its gradient never."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return _NoGradient.apply(super().forward(*inputs))  # type: ignore[no-any-return]


@pytest.mark.usefixtures("fakes")
def test_an_fp16_run_whose_gradient_is_never_finite_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The scaler comes down by half a step, from 2^16; once it is below 1 it is not to blame."""
    monkeypatch.setattr(loop, "build_network", BadGradient)
    config = small_config(train__precision="fp16", optim__steps=99, train__max_skipped=3, train__validate_every=99)
    with pytest.raises(ValueError, match="not finite in 3 steps in a row, up to step 19"):
        train(config, tmp_path / "run")


# --- the 8-bit optimiser ---------------------------------------------------------------------------------------------


class Wide(FakeNetwork):
    """With a layer of 4096 weights, the fewest whose averages are kept in bytes."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wide = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 3, 1))

    def forward(self, blur: Tensor, *others: Tensor, **_: None) -> Tensor:
        return super().forward(blur, *others) + self.wide(blur.flatten(0, 1)).view_as(blur)


@pytest.fixture
def wide(fakes: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("torchao")
    monkeypatch.setattr(loop, "build_network", Wide)
    yield


@pytest.mark.usefixtures("wide")
def test_a_resumed_run_with_the_8_bit_optimiser_equals_itself_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = small_config(optim__kind="adamw8bit", train__checkpoint_every=1)
    train(config, tmp_path / "whole")
    in_halves(config, tmp_path / "halves", monkeypatch, 4)
    whole, halves = (load_state(tmp_path / name / "last.state") for name in ("whole", "halves"))
    assert whole["optimizer"]["state"]["wide.1.weight"]["exp_avg"]["codes"].dtype == torch.uint8
    assert digest(whole["network"]) == digest(halves["network"])
    assert digest(whole["optimizer"]) == digest(halves["optimizer"])
    weights = [load_weights(tmp_path / name / "last.safetensors")[0] for name in ("whole", "halves")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.usefixtures("wide")
def test_8_bit_averages_take_nearly_the_same_steps(tmp_path: Path):
    losses = {}
    for kind in ("adamw", "adamw8bit"):
        train(small_config(optim__kind=kind), tmp_path / kind)
        losses[kind] = [row["loss"] for row in read_journal(tmp_path / kind) if row["kind"] == "train"]
    assert losses["adamw8bit"] == pytest.approx(losses["adamw"], rel=1e-2)
    assert losses["adamw8bit"] != losses["adamw"]


@pytest.mark.usefixtures("wide")
@pytest.mark.slow
def test_a_state_with_8_bit_averages_is_read_by_a_process_that_never_saw_torchao(tmp_path: Path):
    train(small_config(optim__kind="adamw8bit", optim__steps=3), tmp_path / "run")
    code = "import sys; from spikevrt.checkpoint import load_state as load; load(sys.argv[1]); "
    code += "print('torchao' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run" / "last.state"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False\n"


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("before", "after", "has"), [("adamw", "adamw8bit", "without"), ("adamw8bit", "adamw", "with")]
)
def test_a_run_cannot_go_on_with_averages_of_the_other_size(tmp_path: Path, before: str, after: str, has: str):
    train(small_config(optim__kind=before), tmp_path / "run")
    with pytest.raises(
        ValueError, match=rf"does not fit optim\.kind and the lr factors \(saved {has} adamw8bit\)"
    ) as error:
        train(small_config(optim__kind=after, optim__steps=9), tmp_path / "run", resume=True)
    assert "\n" not in str(error.value)


def test_the_8_bit_optimiser_without_torchao_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ValueError) as error:
        make_optimizer(nn.Linear(2, 3), OptimConfig(kind="adamw8bit"))
    assert str(error.value) == "optim.kind: adamw8bit needs torchao; install spikevrt[lowmem], or choose adamw"


# --- torch.compile ---------------------------------------------------------------------------------------------------


def blocks() -> nn.Sequential:
    torch.manual_seed(5)
    plain, shifted = ((0, 0, 0), (1, 2, 2))
    return nn.Sequential(*(TMSA(BlockSettings(8, (2, 4, 4), 2, 2.0), shift, 0.0) for shift in (plain, shifted)))


def loss(network: nn.Module) -> Tensor:
    return network(torch.rand(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(3))).square().mean()


def try_out(network: nn.Module) -> None:
    loss(network).backward()


def test_the_blocks_are_compiled_whole_and_the_network_keeps_its_names(monkeypatch: pytest.MonkeyPatch):
    """By torch's tracer alone: generating code takes minutes."""
    traced = functools.partial(torch.compile, backend="eager", fullgraph=True)  # fullgraph: a gap is an error
    monkeypatch.setattr(torch, "compile", traced)
    network, plain = blocks(), blocks()
    distributed.compile_blocks(network, try_out, visible=True)
    assert all(block._compiled_call_impl is not None for block in network)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(loss(network), loss(plain))


def raises(*arguments: Any, **settings: Any) -> Any:
    raise RuntimeError("no compiler\nhere")


@pytest.mark.parametrize(
    "compile_", [raises, functools.partial(torch.compile, backend=raises)], ids=["compile fails", "first call fails"]
)
def test_a_failing_compiler_is_told_in_one_line_and_the_network_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], compile_: Any
):
    monkeypatch.setattr(torch, "compile", compile_)
    network = blocks()
    distributed.compile_blocks(network, try_out, visible=True)
    told = capsys.readouterr().err
    assert told.startswith("spikevrt: train.compile: torch.compile failed, going on without it (")
    assert "no compiler here" in told and told.count("\n") == 1
    assert torch.equal(loss(network), loss(blocks()))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_other_ranks_do_not_repeat_that_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch, "compile", raises)
    distributed.compile_blocks(blocks(), try_out, visible=False)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_run_goes_on_where_the_compiler_fails(
    dataset: Path, default: tuple[list[float], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "compile", raises)
    assert steps(dataset, train__compile=True) == default
