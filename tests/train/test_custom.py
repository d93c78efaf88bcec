"""A network of one's own (`model.custom`): trained, restored and exported as ours are, and never run unasked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spikevrt.checkpoint import WeightsInfo, load_weights, save_weights
from spikevrt.cli import main
from spikevrt.config import Config, ModelConfig
from spikevrt.model import build_network
from spikevrt.restore.restorer import RestoreOptions, Restorer
from spikevrt.train.loop import train
from tests.train.conftest import REAL_BINS, assert_resumed_equals_whole, unet_config
from tests.train.test_torchrun import losses, run_two_ranks

EXAMPLES = Path(__file__).parents[2] / "examples"
CUSTOM = "other_network:build"
ODD = """
from spikevrt.model.network import Network
import torch

class Plain(Network):
    pad_multiple = min_size_px = min_free_px = 8
    min_frames = 3
    def __init__(self, config): super().__init__(config); self.scale = torch.nn.Parameter(torch.ones(()))
    def forward(self, blur, spike_vox=None, spikes_present=None, flows=None): return blur * self.scale
    def start_at_identity(self): pass
    def bytes_per_pixel(self): return 48.0

class Halved(Plain):
    def forward(self, blur, spike_vox=None, spikes_present=None, flows=None): return blur[..., ::2]

class Broken(Plain):
    def forward(self, blur, spike_vox=None, spikes_present=None, flows=None): return blur * float("nan")

class Needy(Plain):
    def forward(self, blur, spike_vox=None, spikes_present=None, flows=None): return blur + spike_vox.mean()

class Sizeless(Plain):
    pad_multiple = None

class Untraceable(Plain):
    def forward(self, blur, spike_vox=None, spikes_present=None, flows=None):
        return blur * self.scale if float(blur.mean()) > 0.2 else blur

class Mute(Network):
    pass

def fails(config): raise KeyError("no_such_layer")
def plain_module(config): return torch.nn.Identity()
def two_dicts(config, options: dict): return Plain(config)
def three(config, one, two): return Plain(config)
"""


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The example's module and one of odd factories, where the command is given."""
    (tmp_path / "odd_networks.py").write_text(ODD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("odd_networks", "other_network"):
        sys.modules.pop(name, None)


def custom_config(dataset: Path | str, custom: str = CUSTOM, **changes: Any) -> Config:
    model = {"model__unet": None, "model__custom": custom, "model__options": {"width": 5}}
    return unet_config(dataset, **(model | changes))


@pytest.mark.usefixtures("own_modules")
def test_the_examples_network_is_trained_and_restored_from_its_weights(dataset: Path, tmp_path: Path, capsys):
    best = train(custom_config(dataset, optim__ema_decay=0.5, data__spike_dropout=0.5), tmp_path / "run")
    assert best is not None
    assert f"spikevrt: model.custom: {CUSTOM}, of {EXAMPLES / 'other_network.py'}\n" in capsys.readouterr().err
    tensors, info = load_weights(best)
    assert (info.model.custom, info.model.options, info.model.name) == (CUSTOM, {"width": 5}, CUSTOM)
    assert tensors["frame.layers.0.weight"].shape == (5, 3 + REAL_BINS, 3, 3)
    command = ["restore", str(dataset.parent / "second"), "--weights", str(best), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err == (
        f"spikevrt: {best}: {CUSTOM} makes its network, code of yours or of somebody else's that is not in the file; "
        f"--trust-custom {CUSTOM} imports and runs it\n"
    )
    assert main([*command, "--trust-custom", CUSTOM, "--out", str(tmp_path / "yes")]) == 0, capsys.readouterr().err
    assert not (tmp_path / "no").exists() and len(list((tmp_path / "yes").glob("*.png"))) == 5


@pytest.mark.usefixtures("own_modules")
def test_a_custom_network_resumed_equals_itself_never_stopped(dataset: Path, tmp_path: Path, monkeypatch):
    config = custom_config(dataset, data__spike_dropout=0.5, optim__ema_decay=0.5)
    assert_resumed_equals_whole(config, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("own_modules")
def test_a_custom_network_is_exported_where_its_code_is_trusted(tmp_path: Path, capsys):
    path, program = tmp_path / "theirs.safetensors", tmp_path / "theirs.pt2"
    model = custom_config("data").model
    save_weights(path, build_network(model).state_dict(), WeightsInfo(model, 0.25, 0.5))
    assert main(["export", str(path), "--out", str(program)]) == 2 and not program.exists()
    assert main(["export", str(path), "--out", str(program), "--trust-custom", CUSTOM]) == 0
    assert json.loads(program.with_name("theirs.pt2.json").read_text())["network"] == CUSTOM
    odd = "odd_networks:Untraceable"
    save_weights(path, {"scale": torch.ones(())}, WeightsInfo(ModelConfig(custom=odd, spikes=None), 0.0, 1.0))
    assert main(["export", str(path), "--out", str(tmp_path / "odd.pt2"), "--trust-custom", odd]) == 2
    assert f"{path}: torch cannot trace {odd}: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("own_modules")
def test_two_ranks_take_the_steps_of_one_with_a_custom_network(dataset: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "other_network.py").write_bytes((EXAMPLES / "other_network.py").read_bytes())

    def config(batch: int) -> Config:
        return custom_config(dataset, data__batch=batch, data__spike_dropout=0.5, train__accumulate=2)

    train(config(2), tmp_path / "one")
    run_two_ranks(config(1), tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)  # sums in another order


def test_no_weights_file_runs_the_code_that_it_names(tmp_path: Path, monkeypatch):
    """The factory would be imported from the working folder: a file beside the weights that somebody sent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sent_along.py").write_text("import pathlib; pathlib.Path('ran').touch()\ndef build(config): ...\n")
    path = tmp_path / "sent.safetensors"
    save_weights(path, {"a": torch.zeros(1)}, WeightsInfo(ModelConfig(custom="sent_along:build"), 0.0, 1.0))
    for trusted in ((), ("other_network:build",), ("sent_along",)):
        with pytest.raises(ValueError, match="sent_along:build makes its network"):
            Restorer(path, RestoreOptions(device="cpu", trust_custom=trusted))
    (tmp_path / "a").mkdir()
    for arguments in (
        ["restore", "a", "--weights"],
        ["evaluate", "a", "--weights"],
        ["bench", "--weights"],
        ["export"],
    ):
        assert main([*arguments, str(path), "--out", str(tmp_path / "out.pt2")]) == 2
    assert not (tmp_path / "ran").exists() and "sent_along" not in sys.modules


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("other_network:nothing", None, "'other_network:nothing': AttributeError: .* no attribute 'nothing'"),
        ("no_such_module:build", None, "'no_such_module:build': ModuleNotFoundError"),
        ("other_network", None, "'other_network'; allowed: MODULE:FUNCTION"),
        ("odd_networks:fails", None, "odd_networks:fails: KeyError: 'no_such_layer'"),
        ("odd_networks:plain_module", None, "odd_networks:plain_module: makes a Identity; allowed: a spikevrt.model"),
        (
            "odd_networks:two_dicts",
            None,
            "odd_networks:two_dicts; must take a ModelConfig, and no other but a dataclass",
        ),
        ("odd_networks:three", None, "odd_networks:three; must take a ModelConfig, and"),
        ("odd_networks:Halved", None, r"odd_networks:Halved: makes torch.float32 \(.*\) of frames .* of that shape"),
        ("odd_networks:Broken", None, "odd_networks:Broken: makes NaN or infinity"),
        ("odd_networks:Needy", None, "odd_networks:Needy: AttributeError: 'NoneType' object has no attribute 'mean'"),
        ("odd_networks:Sizeless", None, "odd_networks:Sizeless: Sizeless.pad_multiple: None; allowed: 1 or more"),
        ("odd_networks:Mute", None, "odd_networks:Mute: Mute has no forward, which Network describes"),
    ],
)
def test_what_is_no_factory_of_a_network_is_refused_in_one_line(factory: str, options: Any, message: str):
    with pytest.raises(ValueError, match=f"^model.custom: {message}"):
        build_network(ModelConfig(custom=factory, options=options))


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("custom", "options", "message"),
    [
        (CUSTOM, {"with": 5}, "unknown key model.options.with; did you mean model.options.width"),
        (CUSTOM, {"width": "5"}, "model.options.width: '5'; allowed: int"),
        ("odd_networks:Plain", {"width": 5}, "model.options: {'width': 5}; allowed: none, for odd_networks:Plain"),
    ],
)
def test_options_are_read_as_strictly_as_a_config(custom: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        build_network(ModelConfig(custom=custom, options=options))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"options": {"width": 5}}, "model.options: given, but model.custom, whose factory reads them, is null"),
        ({"custom": CUSTOM, "unet": {}}, "model.custom: 'other_network:build', but a U-Net has no such part"),
        ({"custom": CUSTOM, "vrt": {"upscale": 2}}, "model.vrt.upscale: 2, but a custom network has no such part"),
        ({"custom": CUSTOM, "spikes": {"fusion_heads": 2}}, "model.spikes.fusion_heads: 2, but a custom network"),
        ({"custom": CUSTOM, "checkpoint": ["mlp"]}, "model.checkpoint: .*but a custom network has no such part"),
        ({"custom": 3}, "model.custom: 3; allowed: str"),
        ({"custom": CUSTOM, "options": [5]}, "model.options: "),
    ],
)
def test_settings_that_no_custom_network_obeys_are_refused(model: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Config.from_dict({"model": model})


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__compile": True}, "train.compile: True, but other_network:build is one part without optical flow"),
        ({"model__custom": "odd_networks:Plain", "model__options": None}, "data.clip_frames: 2; this network needs 3"),
    ],
)
def test_a_setting_that_a_custom_network_cannot_obey_ends_the_run_before_it_begins(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        train(custom_config(dataset, **({"data__clip_frames": 2} | changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("own_modules")
def test_the_example_restores_frames_alone_where_its_config_has_no_spikes():
    network = build_network(ModelConfig(custom=CUSTOM, spikes=None))
    network.start_at_identity()
    blur = torch.rand(1, 1, 3, 17, 19)
    assert torch.equal(network(blur), blur)


@pytest.mark.usefixtures("own_modules")
def test_trying_a_custom_network_draws_no_random_numbers_and_trains_it_after():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert build_network(ModelConfig(custom="odd_networks:Plain")).training
    assert torch.equal(torch.rand(1), expected)
