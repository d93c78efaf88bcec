import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spikevrt.checkpoint import WeightsInfo, digest, load_state, load_weights, read_info, save_state, save_weights
from spikevrt.config import ModelConfig

INFO = WeightsInfo(ModelConfig(spikes=None), 0.25, 0.5, {"seed": 123, "commit": None})


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_weights_come_back_bit_for_bit_with_their_description(tmp_path):
    state = {"a.weight": torch.arange(6.0).view(2, 3).t(), "index": torch.tensor([3, 5])}
    save_weights(tmp_path / "new" / "w.safetensors", state, INFO)
    loaded, info = load_weights(tmp_path / "new" / "w.safetensors")
    assert info == INFO
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    assert names(tmp_path / "new") == ["w.safetensors"]


def test_tensors_that_share_memory_are_stored_each(tmp_path):
    shared = torch.ones(3)
    save_weights(tmp_path / "w.safetensors", {"a": shared, "b": shared}, INFO)
    assert load_weights(tmp_path / "w.safetensors")[0].keys() == {"a", "b"}


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"w\.safetensors: no such weights file"):
        load_weights(tmp_path / "w.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: not a complete safetensors file"):
        load_weights(tmp_path / "w.safetensors")


def test_a_truncated_weights_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(101)}, INFO)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a complete safetensors file"):
        load_weights(path)


def test_a_changed_byte_anywhere_in_a_weights_file_is_refused_in_one_line_that_names_it(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {"first": torch.arange(7.0), "h": torch.ones(3, dtype=torch.bfloat16), "index": torch.tensor([3, 5])}
    save_weights(path, tensors, INFO)
    written = path.read_bytes()
    for index in {*range(0, len(written), 7), len(written) - 1}:  # the header, every tensor, the last byte
        path.write_bytes(written[:index] + bytes([written[index] ^ 1]) + written[index + 1 :])
        with pytest.raises(ValueError, match=r"^\S+w\.safetensors: [^\n]+$"):
            load_weights(path)


@pytest.mark.parametrize("change", [{"voxel_std": 0.25}, {"provenance": {"seed": 122, "commit": None}}])
def test_settings_that_are_not_those_written_are_damage_and_told_what_to_do(tmp_path, change):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(3)}, INFO)
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["spikevrt"])
    save_file({"a": torch.ones(3)}, path, metadata={"spikevrt": json.dumps(document | change)})
    for read in (load_weights, read_info):
        with pytest.raises(ValueError, match=r"w\.safetensors: damaged: .*; copy or download it again$"):
            read(path)


def test_weights_without_a_checksum_are_read_and_told(tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(3)}, INFO)
    load_weights(path)
    assert capsys.readouterr().err == ""
    write_document(path)
    assert load_weights(path)[0]["a"].tolist() == [1, 1, 1]
    assert capsys.readouterr().err == f"spikevrt: {path}: carries no checksum; whether it is damaged cannot be told\n"


def test_weights_without_their_description_are_refused(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"not one of SpikeVRT's \(no 'spikevrt' in its metadata\)"):
        load_weights(tmp_path / "w.safetensors")


def write_document(path: Path, **changes: object) -> None:
    document = {"version": 1, "model": {"spikes": None}, "voxel_mean": 0.0, "voxel_std": 1.0, "provenance": {}}
    document |= changes
    save_file({"a": torch.ones(3)}, path, metadata={"spikevrt": json.dumps(document)})


def test_an_incomplete_description_is_refused(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "w.safetensors", metadata={"spikevrt": '{"version": 1}'})
    with pytest.raises(ValueError, match=r"w\.safetensors: model is missing$"):
        read_info(tmp_path / "w.safetensors")


def test_another_format_version_is_refused(tmp_path):
    write_document(tmp_path / "w.safetensors", version=2)
    with pytest.raises(ValueError, match=r"weights format version 2; this SpikeVRT reads version 1"):
        read_info(tmp_path / "w.safetensors")


def test_an_unknown_setting_inside_a_weights_file_is_refused_with_the_file_named(tmp_path):
    write_document(tmp_path / "w.safetensors", model={"spike": None})
    with pytest.raises(ValueError, match=r"w\.safetensors: unknown key model\.spike; did you mean"):
        read_info(tmp_path / "w.safetensors")


def test_voxel_statistics_that_divide_by_zero_are_refused_when_read_and_when_written(tmp_path):
    write_document(tmp_path / "w.safetensors", voxel_std=0.0)
    with pytest.raises(ValueError, match=r"voxel mean 0\.0, std 0\.0; allowed: finite, std above 0"):
        read_info(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"voxel mean 0\.0, std 0\.0; allowed: finite, std above 0"):
        save_weights(tmp_path / "new.safetensors", {}, WeightsInfo(ModelConfig(), 0.0, 0.0))


def test_a_tensor_with_nan_is_named_and_not_loaded(tmp_path):
    document = {"version": 1, "model": {}, "voxel_mean": 0.0, "voxel_std": 1.0, "provenance": {}}
    tensors = {"fine": torch.ones(3), "broken.weight": torch.tensor([0.0, float("nan")])}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"spikevrt": json.dumps(document)})
    with pytest.raises(ValueError, match=r"tensor 'broken\.weight' holds NaN or infinity"):
        load_weights(tmp_path / "w.safetensors")


def test_saving_nan_is_refused_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(3)}, INFO)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"tensor 'a' holds NaN or infinity"):
        save_weights(path, {"a": torch.full((3,), float("inf"))}, INFO)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["w.safetensors"]


def test_state_comes_back_with_its_nesting(tmp_path):
    state = {"step": 7, "optimizer": {"exp_avg": [torch.arange(3.0)]}, "best": None, "rng": torch.get_rng_state()}
    save_state(tmp_path / "last.state", state)
    loaded = load_state(tmp_path / "last.state")
    assert (loaded["step"], loaded["best"]) == (7, None)
    assert torch.equal(loaded["optimizer"]["exp_avg"][0], torch.arange(3.0))
    assert torch.equal(loaded["rng"], state["rng"])


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"last\.state: no such state file"):
        load_state(tmp_path / "last.state")


def test_a_truncated_state_is_refused(tmp_path):
    path = tmp_path / "last.state"
    save_state(path, {"a": torch.ones(101)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"last\.state: not a complete training state \("):
        load_state(path)


def test_a_state_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"step": Payload()}, tmp_path / "last.state")
    with pytest.raises(ValueError, match=r"last\.state: not a complete training state \("):
        load_state(tmp_path / "last.state")
    assert not (tmp_path / "ran").exists()


def test_a_state_that_is_no_mapping_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "last.state")
    with pytest.raises(ValueError, match="not a training state of this SpikeVRT"):
        load_state(tmp_path / "last.state")


def test_a_save_that_fails_half_way_leaves_the_old_state_and_nothing_else(tmp_path):
    path = tmp_path / "last.state"
    save_state(path, {"step": 1})
    with pytest.raises(AttributeError):  # a local function cannot be pickled
        save_state(path, {"step": 2, "bad": lambda: None})
    assert load_state(path) == {"step": 1}
    assert names(tmp_path) == ["last.state"]


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_the_old_state_under_the_name(tmp_path):
    path = tmp_path / "last.state"
    save_state(path, {"step": 1})
    code = (
        "import os, sys, torch\n"
        "from spikevrt import checkpoint\n"
        "def save(state, file):\n"
        "    file.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
        "torch.save = save\n"
        "checkpoint.save_state(sys.argv[1], {'step': 2})\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)])
    assert killed.returncode == -9
    assert load_state(path) == {"step": 1}


def test_one_flipped_bit_of_a_state_is_seen(tmp_path):
    """The zip file that torch writes has checksums which torch does not look at."""
    path = tmp_path / "last.state"
    save_state(path, {"a": torch.zeros(101)})
    content = bytearray(path.read_bytes())
    content[content.index(bytes(101 * 4)) + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.state: damaged: its content is not what was written"):
        load_state(path)


def test_the_digest_sees_values_types_shapes_and_names_and_not_the_order_of_names():
    tensor = torch.arange(6, dtype=torch.float32)
    base = digest({"a": tensor, "b": [1, None]})
    assert base == digest({"b": [1, None], "a": tensor.clone()})
    others = [
        {"a": tensor.view(2, 3), "b": [1, None]},
        {"a": tensor.double(), "b": [1, None]},
        {"a": tensor.flip(0), "b": [1, None]},
        {"c": tensor, "b": [1, None]},
        {"a": tensor, "b": [2, None]},
        {"a": tensor, "b": [[1], None]},
    ]
    assert base not in {digest(other) for other in others}


def test_a_write_that_the_disk_refuses_is_an_error_of_the_system_and_leaves_the_old_file(tmp_path):
    """torch and safetensors tell it as errors of their own kinds; the limit of a file's size stands for a full disk."""
    big = {"a": torch.ones(100_003)}
    save_state(tmp_path / "last.state", {"a": 1})
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(3)}, INFO)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"last\.state"):
            save_state(tmp_path / "last.state", big)
        with pytest.raises(OSError, match=r"w\.safetensors"):
            save_weights(tmp_path / "w.safetensors", big, INFO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(tmp_path / "last.state") == {"a": 1}
    assert load_weights(tmp_path / "w.safetensors")[0]["a"].shape == (3,)
    assert names(tmp_path) == ["last.state", "w.safetensors"]


def test_damage_anywhere_is_the_same_one_error(tmp_path):
    path = tmp_path / "last.state"
    save_state(path, {"a": torch.arange(23.0), "b": {"c": [1, 2.5, None, "word"]}})
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            load_state(path)  # some bits of a zip file mean nothing
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
