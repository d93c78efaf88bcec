"""The settings: what is shipped loads, what is declared is read, what is unknown is refused with the nearest name."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from spikevrt.config import Config, SpikeConfig, SpikeInputs, UnetConfig, load_config

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def dataclasses_of(kind: type) -> Iterator[type]:
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                yield from dataclasses_of(inner)


def write(tmp_path: Path, values: object) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_the_reference_pair_and_the_small_ones_are_shipped():
    names = {path.name for path in CONFIGS}
    assert names >= {"vrt_spike_baseline.yaml", "vrt_baseline.yaml", "small.yaml", "tiny.yaml", "tiny_rgb.yaml"}
    assert names >= {"unet.yaml", "unet_rgb.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_survives_a_round_trip(path: Path):
    config = load_config(path)
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
    assert Config.from_dict({"model": config.to_dict()["model"]}).model == config.model


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_states_each_part_of_a_run(path: Path):
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= {f.name for f in dataclasses.fields(Config)}


def test_every_declared_setting_is_read_somewhere():
    """Settings that were documented and never read were fault 4 of earlier systems."""
    read: set[str] = set()
    for path in (ROOT / "src" / "spikevrt").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                on_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                if path.name != "config.py" or not on_self:  # a check in __post_init__ alone is no use
                    read.add(node.attr)
    declared = {(kind.__name__, field.name) for kind in dataclasses_of(Config) for field in dataclasses.fields(kind)}
    single_choice = {("SpikeConfig", "fusion")}  # Literal of one: refusing anything else is all that it can do
    assert {pair for pair in declared - single_choice if pair[1] not in read} == set()


def test_the_number_of_bins_has_one_name():
    """It had three in earlier systems."""
    names = [field.name for kind in dataclasses_of(Config) for field in dataclasses.fields(kind)]
    assert [name for name in names if "bins" in name.lower() or name == "k"] == ["num_bins"]


@pytest.mark.parametrize("text", ["a: 2001-99-99", "a: !!timestamp x", "a: [", "\x00", "- " * 3000])
def test_what_is_no_yaml_is_refused_in_one_line_that_names_the_file(tmp_path: Path, text: str):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.yaml: (not YAML|a config is)") as refusal:
        load_config(path)
    assert "\n" not in str(refusal.value)


class TestTheReferenceSetting:
    """The values that the reference comparison was specified with."""

    @property
    def config(self) -> Config:
        return load_config(ROOT / "configs" / "vrt_spike_baseline.yaml")

    def test_spikes(self):
        spikes = self.config.model.spikes
        assert spikes is not None
        assert spikes.num_bins == 32
        assert spikes.dims == (96, 96, 96, 96)
        assert spikes.attention_heads == 4
        assert spikes.attention_mlp_ratio == 2.0
        assert (spikes.fusion, spikes.fusion_heads) == ("TemporalCrossAttn", 4)

    def test_network_is_the_published_deblurring_network(self):
        vrt = self.config.model.vrt
        assert vrt.dims == (96,) * 7 + (120,) * 4
        assert vrt.depths == (8,) * 7 + (4,) * 4
        assert vrt.window == (6, 8, 8)
        assert vrt.pa_frames == 2
        assert vrt.upscale == 1

    def test_data(self):
        data = self.config.data
        assert (data.clip_frames, data.crop_px) == (5, 256)
        assert data.batch * self.config.train.accumulate == 8

    def test_loss(self):
        assert (self.config.loss.charbonnier_eps, self.config.loss.perceptual_weight) == (1e-3, 0.1)

    def test_optimiser(self):
        optim = self.config.optim
        assert (optim.lr, optim.betas, optim.weight_decay) == (2e-4, (0.9, 0.99), 1e-4)
        assert (optim.warmup_steps, optim.clip_norm) == (5_000, 1.0)

    def test_loop(self):
        train = self.config.train
        assert (train.seed, train.validate_every, train.picture_every) == (123, 1_000, 10_000)
        assert train.precision in ("bf16", "fp16")


@pytest.mark.parametrize(
    ("with_spikes", "without"),
    [("vrt_spike_baseline", "vrt_baseline"), ("tiny", "tiny_rgb")],
    ids=["reference", "tiny"],
)
def test_a_twin_differs_by_the_spikes_alone(with_spikes: str, without: str):
    config = load_config(ROOT / "configs" / f"{with_spikes}.yaml")
    twin = load_config(ROOT / "configs" / f"{without}.yaml")
    assert config.model.spikes is not None
    assert twin.model.spikes is None
    assert dataclasses.replace(config.model, spikes=None, checkpoint=()) == dataclasses.replace(
        twin.model, checkpoint=()
    )
    assert (config.data, config.loss, config.optim, config.train) == (twin.data, twin.loss, twin.optim, twin.train)


@pytest.mark.parametrize("name", ["unet", "unet_rgb"])
def test_the_unets_are_trained_as_tiny_is_but_for_the_rate_of_a_flow_that_they_have_not(name: str):
    tiny, unet = (load_config(ROOT / "configs" / f"{config}.yaml") for config in ("tiny", name))
    assert tiny.optim.flow_lr_factor != 1.0
    assert unet.optim == dataclasses.replace(tiny.optim, flow_lr_factor=1.0)
    assert (unet.data, unet.loss, unet.train) == (tiny.data, tiny.loss, tiny.train)


def test_the_unet_with_spikes_reads_what_spikevrt_reads():
    tiny, unet = (load_config(ROOT / "configs" / f"{config}.yaml").model.spikes for config in ("tiny", "unet"))
    assert tiny is not None and unet is not None
    assert all(getattr(unet, f.name) == getattr(tiny, f.name) for f in dataclasses.fields(SpikeInputs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": {"width": 0}}, "model.unet.width: 0; allowed: 1 or more"),
        ({"unet": {"neighbours": -1}}, "model.unet.neighbours: -1; allowed: 0 or more"),
        ({"vrt": {"upscale": 2}}, "model.vrt.upscale: 2, but a U-Net has no such part; allowed with model.unet: 1"),
        (
            {"spikes": {"fusion_time_bias": True}},
            "model.spikes.fusion_time_bias: True, but a U-Net has no such part; allowed with model.unet: False",
        ),
        (
            {"spikes": {"dims": [8] * 4}},
            "model.spikes.dims: (8, 8, 8, 8), but a U-Net has no such part; allowed with model.unet: (96, 96, 96, 96)",
        ),
        (
            {"checkpoint": ["attention"]},
            "model.checkpoint: ('attention',), but a U-Net has no such part; allowed with model.unet: ()",
        ),
    ],
    ids=["width", "neighbours", "vrt", "fusion", "dims", "checkpoint"],
)
def test_what_a_unet_cannot_obey_is_refused(tmp_path: Path, changes: dict, message: str):
    path = write(tmp_path, {"model": {"unet": {}} | changes})
    with pytest.raises(ValueError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_unet_has_settings_of_its_own_for_spikes_and_all_else_at_its_default(tmp_path: Path):
    values = {"unet": {"width": 5}, "spikes": {"num_bins": 7, "binning": "fractional", "normalize": "density"}}
    model = load_config(write(tmp_path, {"model": values})).model
    assert model.unet == UnetConfig(width=5)
    assert model.spikes == SpikeConfig(num_bins=7, binning="fractional", normalize="density")
    assert Config.from_dict({"model": dataclasses.asdict(model)}).model == model  # as a weights file keeps it


def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path):
    path = write(tmp_path, {"optim": {"learning_rate": 1e-3, "lrr": 1e-3}})
    with pytest.raises(ValueError, match=r"unknown key optim\.learning_rate"):
        load_config(path)
    with pytest.raises(ValueError, match=r"unknown key data\.crop_p; did you mean data\.crop_px\?"):
        load_config(write(tmp_path, {"data": {"crop_p": 64}}))


def test_an_unknown_override_is_refused_with_the_nearest_name(tmp_path: Path):
    with pytest.raises(ValueError, match=r"did you mean optim\.steps\?"):
        load_config(write(tmp_path, {}), ["optim.step=3"])


def test_an_override_wins_over_the_file(tmp_path: Path):
    config = load_config(write(tmp_path, {"optim": {"lr": 1.0}}), ["optim.lr=1e-3", "data.batch=3"])
    assert (config.optim.lr, config.data.batch) == (1e-3, 3)


def test_an_override_that_is_no_yaml_value_is_refused(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {lr: 1.0e-3}\n")
    with pytest.raises(ValueError, match=r"override 'optim.lr=\[1': not YAML"):
        load_config(path, ["optim.lr=[1"])


def test_an_override_without_a_value_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        load_config(write(tmp_path, {}), ["optim.lr"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"precision": "fp8"}}, "train.precision: 'fp8'; allowed: fp32, bf16, fp16"),
        ({"data": {"batch": "three"}}, "data.batch: 'three'; allowed: int"),
        ({"data": {"batch": True}}, "data.batch: True; allowed: int"),
        ({"data": {"augment": 1}}, "data.augment: 1; allowed: bool"),
        ({"optim": {"betas": [0.9]}}, "optim.betas: [0.9]; allowed: list of length 2"),
        ({"optim": 3}, "optim: 3; allowed: mapping"),
        ({"model": {"checkpoint": ["everything"]}}, "model.checkpoint: 'everything'; allowed: attention,"),
        ({"model": {"vrt": {"pa_frames": 3}}}, "model.vrt.pa_frames: 3; allowed: 0, 2, 4, 6"),
        ({"model": {"spikes": {"num_bins": 0}}}, "model.spikes.num_bins: 0; allowed: 1 or more"),
        ({"model": {"spikes": {"dims": [8, 8, 8, 8]}}}, "model.spikes.dims: [8, 8, 8, 8] must equal"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_with_what_is_allowed(tmp_path: Path, values: object, message: str):
    path = write(tmp_path, values)
    with pytest.raises(ValueError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_config_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none.yaml: no such config file"):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path):
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1\nb: 2", encoding="utf-8")
    with pytest.raises(ValueError, match="broken.yaml: not YAML"):
        load_config(path)


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="a config is a YAML mapping"):
        load_config(write(tmp_path, [1, 2]))


def test_the_overrides_leave_the_file_alone(tmp_path: Path):
    path = write(tmp_path, {"optim": {"lr": 1.0}})
    before = path.read_bytes()
    load_config(path, ["optim.lr=2"])
    assert path.read_bytes() == before
