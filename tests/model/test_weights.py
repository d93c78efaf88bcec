"""Loading weights: everything fits, or the keys are named and nothing has changed."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spikevrt.checkpoint import digest
from spikevrt.model import load_strict, load_vrt_checkpoint, read_vrt_checkpoint


@pytest.fixture
def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5))


def test_a_checkpoint_wrapped_under_params_loads_with_every_value(network, tmp_path):
    state = {key: value + 1 for key, value in network.state_dict().items()}
    for name, saved in (("plain.pth", state), ("wrapped.pth", {"params": state})):
        torch.save(saved, tmp_path / name)
        load_vrt_checkpoint(network, tmp_path / name)
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.bias"), r"1 missing key \(1.bias\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unknown key \(extra\)"),
        (
            lambda s: s.update({"0.weight": torch.zeros(5, 2)}),
            r"1 wrong shapes \(0.weight \(5, 2\) instead of \(5, 3\)\)",
        ),
        (lambda s: s["0.bias"].fill_(float("nan")), r"1 tensor with NaN or infinity \(0.bias\)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(network, change, message):
    state = {key: value + 1 for key, value in network.state_dict().items()}
    change(state)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_strict(network, state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"params": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="not a checkpoint of tensors"):
        read_vrt_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_flipped_bit_of_a_foreign_file_is_refused_and_one_that_could_hide_it_is_told(tmp_path, capsys):
    state = {"a": torch.arange(1000.0)}
    paths = [tmp_path / name for name in ("zip.pth", "old.pth", "plain.safetensors", "summed.safetensors")]
    torch.save(state, paths[0])
    torch.save(state, paths[1], _use_new_zipfile_serialization=False)
    save_file(state, paths[2])
    save_file(state, paths[3], metadata={"sha256": digest(state)})
    for path in paths:
        assert torch.equal(read_vrt_checkpoint(path)["a"], state["a"])
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told] == [str(path) for path in paths[1:3]]
    for path in (paths[0], paths[3]):
        data = path.read_bytes()
        at = data.index(state["a"].numpy().tobytes()) + 2001
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError, match=rf"{path.name}: damaged: .*; copy or download it again"):
            read_vrt_checkpoint(path)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_truncated_file_is_refused(tmp_path, name):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / name).write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
    with pytest.raises(ValueError, match=f"{name}: not a checkpoint of tensors"):
        read_vrt_checkpoint(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth: no such checkpoint"):
        read_vrt_checkpoint(tmp_path / "none.pth")


def test_an_object_that_is_no_state_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="not a checkpoint of tensors"):
        read_vrt_checkpoint(tmp_path / "odd.pth")
