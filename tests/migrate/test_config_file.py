"""Configs of an older VRT+Spike: every key is taken over, always so, or refused; never dropped."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikevrt import cli
from spikevrt.config import CHECKPOINT_PARTS, Config, load_config
from spikevrt.migrate.config_file import BY_NAME, COMMANDS, Imported, documented, import_config, read_old_config
from spikevrt.migrate.keys import KEYS, Key
from spikevrt.migrate.rules import Only, left_out, never, plain

ROOT = Path(__file__).resolve().parents[2]
BASELINE = load_config(ROOT / "configs" / "vrt_spike_baseline.yaml")

OLD = """
DATA:
  ROOT: data/dataset
  K: 32
  CLIP_LEN: 5
  CROP_SIZE: [256, 256]
  NUM_WORKERS: 4
  USE_PRECOMPUTED_VOXELS: true
  FLIP: true
  ROTATE: true
MODEL:
  NAME: SpikeVRT
  CHANNELS_PER_SCALE: [96, 96, 96, 96]
  USE_CHECKPOINT: true
  SPIKE_TSA: {HEADS: 4, MLP_RATIO: 2, DROPOUT: 0.0, CHECKPOINT: false}
  FUSE: {TYPE: TemporalCrossAttn, HEADS: 4, MLP_RATIO: 2.0, CHECKPOINT: true}
  VRT_CFG:
    UPSCALE: 1
    IMG_SIZE: [6, 192, 192]
    WINDOW_SIZE: [6, 8, 8]
    DEPTHS: [8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4]
    INDEP_RECONSTS: [9, 10]
    EMBED_DIMS: [96, 96, 96, 96, 96, 96, 96, 120, 120, 120, 120]
    NUM_HEADS: [6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]
    PA_FRAMES: 2
    DEFORM_GROUPS: 16
  PRETRAINED: null
TRAIN:
  SEED: 123
  MAX_ITERS: 3e5
  BATCH_SIZE: 8
  OPTIM: AdamW
  LR: 2e-4
  BETAS: [0.9, 0.99]
  WEIGHT_DECAY: 1e-4
  SCHEDULER: cosine
  WARMUP_STEPS: 5000
  MIN_LR: 0
  GRAD_CLIP: 1.0
  AMP: true
  ACCUM_STEPS: 1
  EMA: false
  RESUME: false
LOSS: {TYPE: Charbonnier, CHARBONNIER_EPS: 1e-3, PERCEPTUAL_WEIGHT: 0.1, VGG_LAYER: relu3_3}
LOG: {DIR: runs/base, PRINT_INTERVAL: 10, VAL_INTERVAL: 1000, IMAGE_INTERVAL: 10000, SAVE_INTERVAL: 1000, TB: true}
"""


def keys_table() -> str:
    """`KEYS` as the Markdown table of docs/coming_from_vrt_spike.md."""
    rows = ["| old key | becomes | remark |", "| --- | --- | --- |"]
    for key in KEYS:
        old = ", ".join(f"`{name}`" for name in key.old)
        new = ", ".join(dict.fromkeys(f"`{documented(name)}`" for name in key.new)) or without_new(key)
        rows.append(f"| {old} | {new} | {key.remark} |")
    return "\n".join(rows)


def without_new(key: Key) -> str:
    if isinstance(key.rule, Only):
        return f"always so; anything but {', '.join(f'`{plain(value)}`' for value in key.rule.allowed)} is refused"
    return "refused" if key.rule is never else "left out" if key.rule is left_out else "nothing to set"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def imported(**old: Any) -> Imported:
    """Of keys with `__` for the dot."""
    return import_config({name.replace("__", "."): value for name, value in old.items()})


def refusal(**old: Any) -> str:
    """Why the last of the keys is refused."""
    line = imported(**old).lines[-1]
    assert line.refused, str(line)
    return line.became


def settings() -> set[str]:
    """Every dotted name of the config tree, sections included."""

    def below(kind: type, prefix: str) -> typing.Iterator[str]:
        for name, hint in typing.get_type_hints(kind).items():
            yield f"{prefix}{name}"
            for inner in (hint, *typing.get_args(hint)):
                if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                    yield from below(inner, f"{prefix}{name}.")

    return set(below(Config, ""))


def older_ways(config: Config) -> Config:
    """What an old config means beside its numbers: bins by the start of a tick, fp16, its data yet to be prepared."""
    spikes = config.model.spikes and dataclasses.replace(config.model.spikes, binning="start")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, spikes=spikes),
        data=dataclasses.replace(config.data, root="data/dataset_prepared"),
        train=dataclasses.replace(config.train, precision="fp16"),
    )


# --- the whole ---


def test_the_reference_setting_becomes_exactly_the_shipped_baseline(tmp_path: Path):
    result = import_config(read_old_config(write(tmp_path, OLD)))
    assert [str(line) for line in result.refused] == []
    assert result.config == older_ways(BASELINE)
    assert result.commands() == [
        "spikevrt prepare data/dataset --out data/dataset_prepared --num-bins 32 --binning start --voxels precomputed",
        "spikevrt train NEW.yaml --out runs/base",
    ]


def test_every_leaf_has_one_line_in_the_order_of_the_file(tmp_path: Path):
    old = read_old_config(write(tmp_path, OLD))
    assert [line.old for line in import_config(old).lines] == list(old)
    assert len(old) == 54


def test_the_config_without_spikes_is_the_baselines_twin(tmp_path: Path):
    text = OLD.replace("NAME: SpikeVRT", "USE_SPIKE: false")
    result = import_config(read_old_config(write(tmp_path, text)))
    assert result.config == older_ways(load_config(ROOT / "configs" / "vrt_baseline.yaml"))
    told = {line.old: line.became for line in result.lines}
    assert told["MODEL.FUSE.HEADS"] == "nothing to set: MODEL.USE_SPIKE leaves out the spike branch"
    assert told["MODEL.FUSE.CHECKPOINT"] == "nothing to set: MODEL.USE_SPIKE leaves out the spike branch"


def test_the_old_keys_are_left_untouched():
    old = {"DATA.K": 16, "DATA.NUM_VOXEL_BINS": 8}
    import_config(old)
    assert old == {"DATA.K": 16, "DATA.NUM_VOXEL_BINS": 8}


# --- the table ---


def test_no_old_name_stands_in_two_rows():
    names = [name for key in KEYS for name in key.old]
    assert len(names) == len(set(names)) == len(BY_NAME)


def test_every_new_name_of_the_table_is_a_setting_or_an_option_of_a_command():
    known = settings() | {f"model.checkpoint:{part}" for part in CHECKPOINT_PARTS}
    for key in KEYS:
        for new in key.new:
            assert new in known or new.split()[0] in COMMANDS, new


def test_every_option_of_the_table_is_one_of_its_command():
    for option in {new for key in KEYS for new in key.new if new.split()[0] in ("prepare", "train")}:
        verb, name = option.split()
        if name.isupper():  # what stands first
            continue
        parser = next(action for action in cli.build_parser()._actions if action.choices).choices[verb]
        assert name in parser._option_string_actions, option


def test_a_key_that_sets_nothing_says_why():
    assert [key.old for key in KEYS if not key.new and not key.remark] == []


def test_the_page_is_found_by_the_names_of_the_older_code():
    page = (ROOT / "docs" / "coming_from_vrt_spike.md").read_text(encoding="utf-8")
    classes = ("VRTWithSpike", "SpikeDeblurDataset", "MultiScaleTemporalCrossAttnFuse", "SpikeEncoder3D")
    files = ("integrate_vrt.py", "spike_encoder3d.py", "spike_temporal_sa.py", "fusion/cross_attn_temporal.py")
    assert [name for name in (*classes, *files, "spike_vox/*.npy", "CHUNK_SIZE", "AMP: true") if name not in page] == []


def test_the_page_shows_the_table_as_it_is():
    page = (ROOT / "docs" / "coming_from_vrt_spike.md").read_text(encoding="utf-8")
    assert keys_table() in page


@pytest.mark.parametrize("key", [key for key in KEYS if isinstance(key.rule, Only)], ids=lambda key: key.old[0])
def test_what_is_always_so_is_taken_and_everything_else_refused(key: Any):
    for allowed in key.rule.allowed:
        line = import_config({key.old[0]: allowed}).lines[0]
        assert (line.refused, line.became) == (False, f"nothing to set: {key.remark}")
    line = import_config({key.old[0]: "something else"}).lines[0]
    assert line.refused and line.became.startswith(f"{key.remark}; possible here: ")


@pytest.mark.parametrize("key", [key for key in KEYS if key.rule is never], ids=lambda key: key.old[0])
def test_what_has_no_counterpart_is_refused_with_its_reason(key: Any):
    line = import_config({key.old[0]: 1}).lines[0]
    assert (line.refused, line.became) == (True, key.remark)


# --- one key each ---


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ({"DATA.K": 16}, "model.spikes.num_bins", 16),
        ({"DATA.spike_bins": 16}, "model.spikes.num_bins", 16),
        ({"DATA.K": 16}, "model.spikes.binning", "start"),
        ({"DATA.ROOT": "a/b/"}, "data.root", "a/b_prepared"),
        ({"DATA.TRAIN_ROOT": "a/b/train", "DATA.VAL_ROOT": "a/b/val/"}, "data.root", "a/b_prepared"),
        ({"DATA.USE_PRECOMPUTED_VOXELS": False}, "data.voxels", "raw"),
        ({"DATA.CROP_SIZE": [64, 64]}, "data.crop_px", 64),
        ({"TRAIN.MAX_ITERS": "3e5"}, "optim.steps", 300_000),
        ({"TRAIN.LR": "1e-3"}, "optim.lr", 1e-3),
        ({"TRAIN.AMP": False}, "train.precision", "fp32"),
        ({"TRAIN.AMP": True}, "train.precision", "fp16"),
        ({"TRAIN.AMP": True, "TRAIN.AMP_DTYPE": "bfloat16"}, "train.precision", "bf16"),
        ({"TRAIN.AMP": False, "TRAIN.AMP_DTYPE": "float16"}, "train.precision", "fp32"),
        ({"TRAIN.EMA": 0.99}, "optim.ema_decay", 0.99),
        ({"TRAIN.EMA": True, "TRAIN.EMA_DECAY": 0.5}, "optim.ema_decay", 0.5),
        ({"TRAIN.EMA": False, "TRAIN.EMA_DECAY": 0.5}, "optim.ema_decay", 0.0),
        ({"TRAIN.FIX_ITER": -1}, "optim.flow_fixed_steps", 0),
        ({"TRAIN.FREEZE_VRT": True}, "optim.vrt_lr_factor", 0.0),
        ({"MODEL.FUSE.CHUNK_SIZE": 64}, "model.spikes.max_tokens", 64 * 64 * 5),
        ({"MODEL.FUSE.CHUNK_SIZE": 48, "DATA.CLIP_LEN": 7}, "model.spikes.max_tokens", 48 * 48 * 7),
        ({"MODEL.FUSE.CHUNK_SIZE": 64, "MODEL.SPIKE_TSA.CHUNK_SIZE": 32}, "model.spikes.max_tokens", 32 * 32 * 5),
        ({"MODEL.SPIKE_TSA.CHUNK_SIZE": 128, "MODEL.SPIKE_TSA.ADAPTIVE_CHUNK": True, "TRAIN.BATCH_SIZE": 4,
          "MODEL.SPIKE_TSA.MAX_BATCH_TOKENS": 40_000}, "model.spikes.max_tokens", 10_000 * 5),
        ({"MODEL.SPIKE_TSA.CHUNK_SIZE": 128, "MODEL.SPIKE_TSA.ADAPTIVE_CHUNK": False,
          "MODEL.SPIKE_TSA.MAX_BATCH_TOKENS": 40_000}, "model.spikes.max_tokens", 128 * 128 * 5),
        ({"MODEL.WINDOW_SIZE": 4, "DATA.CLIP_LEN": 7}, "model.vrt.window", (7, 4, 4)),
        ({"MODEL.VRT_CFG.use_checkpoint_attn": True}, "model.checkpoint", ("attention",)),
        ({"MODEL.GRADIENT_CHECKPOINTING": True}, "model.checkpoint", ("attention", "mlp", "deform")),
        ({"TRAIN.MAX_NORM": 0.5}, "optim.clip_norm", 0.5),
        ({"TRAIN.TOTAL_STEPS": 100, "TRAIN.SCHED.WARMUP_STEPS": 100}, "optim.warmup_steps", 0),
        ({"TRAIN.TOTAL_STEPS": 100, "TRAIN.SCHED.WARMUP_STEPS": 99}, "optim.warmup_steps", 99),
        ({"DATALOADER.TOTAL_WORKERS": 8, "NUM_GPUS": 3}, "data.workers", 2),
        ({"LOSS.CHARBONNIER.DELTA": 1e-4}, "loss.charbonnier_eps", 1e-4),
        ({"MODEL.PRETRAINED": "vrt.pth"}, "train.init_vrt", "vrt.pth"),
        ({"MODEL.USE_CHECKPOINT": True, "MODEL.SPIKE_TSA.CHECKPOINT": True}, "model.checkpoint",
         ("attention", "mlp", "deform", "spikes")),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_value_is_converted(old: dict[str, Any], new: str, value: Any):
    result = import_config(old)
    assert [str(line) for line in result.refused] == []
    node: Any = result.config
    for name in new.split("."):
        node = getattr(node, name)
    assert node == value


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        ({"TRAIN.LEARNRATE": 1}, "unknown key; the nearest known is TRAIN.LR"),
        ({"data.k": 1}, "unknown key; the nearest known is DATA.K"),
        ({"XYZZY": 1}, "unknown key"),
        ({"DATA.K": 2.5}, "a whole number is needed"),
        ({"DATA.K": "many"}, "a number is needed"),
        ({"DATA.K": 0}, "model.spikes.num_bins: 0; allowed: 1 or more"),
        ({"DATA.AUGMENT": 1}, "true or false is needed"),
        ({"DATA.CROP_SIZE": [64, 32]}, "crops are square: one number, or two equal ones"),
        ({"DATA.TRAIN_ROOT": "a/b"}, "a dataset is one folder with train and val in it, so this must end in /train"),
        ({"MODEL.FUSE.TYPE": "concat_1x1_pre_tmsa"},
         "nothing is concatenated before VRT's attention: fusion is after the four encoder stages alone"),
        ({"MODEL.FUSE.TYPE": "add"}, "there is one fusion; possible here: TemporalCrossAttn"),
        ({"MODEL.NAME": "EDVR"}, "unknown network; possible here: vrtwithspike, spikevrt, spike_vrt, vrt_spike, vrt"),
        ({"MODEL.CHANNELS_PER_SCALE": [64, 64, 64, 64]},
         "model.spikes.dims: [64, 64, 64, 64] must equal model.vrt.dims[:4] = [96, 96, 96, 96]"),
        ({"MODEL.PRETRAINED": "ours.safetensors"},
         "a published VRT deblurring checkpoint: a file that ends in .pth or .pt is needed"),
        ({"TRAIN.OPTIM": "SGD"}, "unknown optimiser; possible here: adamw, adam, adamw8bit"),
        ({"TRAIN.BETAS": [0.9]}, "optim.betas: [0.9]; allowed: list of length 2"),
        ({"TRAIN.GRAD_CLIP": None}, "gradients are always clipped; set optim.clip_norm, for example 1.0"),
        ({"TRAIN.EMA": True}, "on, but with which decay? give the number, for example 0.999"),
        ({"TRAIN.RESUME": "runs/a/last.pth"},
         "a run resumes from its own folder, with spikevrt train --resume; other weights are train.init"),
        ({"LOG.DIR": 3}, "a name is needed"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_with_the_reason(old: dict[str, Any], reason: str):
    result = import_config(old)
    assert [line.became for line in result.lines] == [reason]
    assert result.config == Config()


def test_contradicting_names_of_one_setting_are_both_refused_and_name_each_other():
    result = imported(DATA__K=32, DATA__NUM_VOXEL_BINS=16, DATA__SPIKE_BINS=16)
    assert [line.refused for line in result.lines] == [True, True, True]
    assert result.lines[0].became == (
        "contradicts DATA.NUM_VOXEL_BINS = 16, DATA.SPIKE_BINS = 16: they are one setting, model.spikes.num_bins"
    )
    assert refusal(DATA__K=32, DATA__NUM_VOXEL_BINS=16).startswith("contradicts DATA.K = 32")


def test_agreeing_names_of_one_setting_are_all_taken():
    result = imported(DATA__K=16, DATA__NUM_VOXEL_BINS=16.0, MODEL__spike_bins="16")
    assert [line.refused for line in result.lines] == [False, False, False]


def test_flips_without_rotations_are_refused_because_there_is_one_switch():
    assert "they are one setting, data.augment" in refusal(DATA__FLIP=True, DATA__ROTATE=False)


def test_options_of_commands_are_told_as_commands():
    result = imported(DATA__SPIKE_H=250, DATA__SPIKE_W=400, TRAIN__RESUME=True, LOG__DIR="my runs/a", NUM_GPUS=[0, 1])
    assert result.commands("configs/a b.yaml") == [
        "spikevrt prepare --spike-height 250 --spike-width 400",
        "torchrun --nproc-per-node 2 -m spikevrt train 'configs/a b.yaml' --resume --out 'my runs/a'",
    ]
    result = imported(DATA__ROOT="old", DATA__SPIKE_H=250, DATA__SPIKE_W=400, NUM_GPUS=[0, 1], EXP_NAME="street")
    assert result.commands() == [
        "spikevrt prepare old --out old_prepared --spike-height 250 --spike-width 400",
        "torchrun --nproc-per-node 2 -m spikevrt train NEW.yaml --out runs/street",
    ]


@pytest.mark.parametrize(
    ("old", "folder"),
    [
        ({"EXP_NAME": "a"}, "runs/a"),
        ({"LOG.SAVE_DIR": "outputs"}, "outputs/run"),
        ({"LOG.SAVE_DIR": "outputs", "EXP_NAME": "a"}, "outputs/a"),
        ({"LOG.DIR": "runs/a", "EXP_NAME": "a"}, "runs/a"),
        ({"LOG.DIR": "runs/base"}, "runs/base"),
        ({"EXP_NAME": 7}, "runs/7"),
    ],
)
def test_the_names_of_a_run_make_one_folder(old: dict[str, Any], folder: str):
    result = import_config(old)
    assert not result.refused and result.options == {"train --out": folder}


def test_a_line_stays_one_line_however_long_or_odd_the_value():
    line = imported(DATA__ROOT="a\nb" * 100).lines[0]
    assert "\n" not in str(line) and len(str(line)) < 500


# --- the file ---


def many(name: str, value: str) -> str:
    return ", ".join(f"{name}{index}: {value}" for index in range(50))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a config is a YAML mapping"),
        ("[1, 2]", "a config is a YAML mapping"),
        ("A: [", "not YAML"),
        ("A: !!python/object/apply:os.system [ls]", "not YAML"),
        ("DATA:\n  K: 32\n  K: 16\n", "line 2 on: K is given twice"),
        ("DATA.K: 32\nDATA: {K: 16}\n", "DATA.K is given twice"),
        ("A: &a {B: *a}", "nested more than 10 deep"),
        (f"A: &a {{{many('K', '1')}}}\nB: {{{many('L', '*a')}}}", "more than 2000 keys; this is no config"),
    ],
    ids=["empty", "list", "broken", "code", "twice", "twice, flat", "endless", "huge"],
)  # fmt: skip
def test_what_is_no_config_is_refused_in_one_line_that_names_the_file(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=r"old\.yaml: ") as caught:
        read_old_config(write(tmp_path, text))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none.yaml: no such config file"):
        read_old_config(tmp_path / "none.yaml")


def test_an_empty_section_is_told_too(tmp_path: Path):
    old = read_old_config(write(tmp_path, "DATA: {}\nLOG: {TB: true}\n"))
    assert [str(line) for line in import_config(old).lines][0].startswith("DATA = {} refused: unknown key")


# --- the verb ---


def run(*arguments: object) -> int:
    return cli.main(["config", "import", *map(str, arguments)])


def test_the_written_config_is_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "new" / "new.yaml"
    assert run(write(tmp_path, OLD), "--out", out) == 0
    assert load_config(out) == older_ways(BASELINE)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == (
        "DATA.K = 32 -> model.spikes.num_bins = 32, model.spikes.binning = start, spikevrt prepare --num-bins 32, "
        "spikevrt prepare --binning start (start: ticks fall into bins by int(t * K / T), as in the older loader)"
    )
    assert printed[-1] == f"0 of 54 keys refused; all that is not named has its default -> {out}"


def test_a_refused_key_stops_the_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "new.yaml"
    old = write(tmp_path, "DATA: {K: 16}\nTRAIN: {WARMUP_EPOCHS: 100}\n")
    assert run(old, "--out", out) == 2
    told = capsys.readouterr()
    assert (
        told.out.splitlines()[1]
        == "TRAIN.WARMUP_EPOCHS = 100 refused: steps are counted, not epochs: set optim.warmup_steps"
    )
    assert told.err == (
        f"spikevrt: {old}: 1 of 2 keys refused (listed above); change or remove them, "
        "or pass --partial to write it without them\n"
    )
    assert not out.exists()


def test_partial_writes_the_rest_and_names_in_it_what_is_missing(tmp_path: Path):
    out = tmp_path / "new.yaml"
    assert run(write(tmp_path, "DATA: {K: 16}\nTRAIN: {WARMUP_EPOCHS: 100}\n"), "--out", out, "--partial") == 0
    spikes = load_config(out).model.spikes
    assert spikes is not None and spikes.num_bins == 16
    assert (
        "# Not in it: TRAIN.WARMUP_EPOCHS = 100 refused: steps are counted, not epochs: set optim.warmup_steps\n"
        in out.read_text()
    )


def test_an_existing_file_is_replaced_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, out = write(tmp_path, "DATA: {K: 16}\n"), tmp_path / "new.yaml"
    out.write_text("mine")
    assert run(old, "--out", out) == 2
    assert capsys.readouterr().err == f"spikevrt: {out}: exists; choose another --out or pass --overwrite\n"
    assert out.read_text() == "mine"
    assert run(old, "--out", out, "--overwrite") == 0
    assert yaml.safe_load(out.read_text())["model"]["spikes"]["num_bins"] == 16


def test_the_old_config_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old = write(tmp_path, "DATA: {K: 16}\n")
    assert run(old, "--out", old, "--overwrite") == 2
    assert capsys.readouterr().err == f"spikevrt: {old}: is what is read, and would be lost; choose another --out\n"
    assert old.read_text() == "DATA: {K: 16}\n"


@pytest.mark.parametrize("option", ["--overwrite", "--partial"])
def test_options_of_the_writing_need_something_to_write(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
):
    assert run(write(tmp_path, "DATA: {K: 16}\n"), option) == 2
    assert capsys.readouterr().err == f"spikevrt: {option}: only with --out\n"


# --- what the older code did by itself ---


def test_a_config_of_the_older_code_means_what_that_code_did_where_it_named_nothing():
    old = {"MODEL.NAME": "VRTWithSpike", "MODEL.CHANNELS_PER_SCALE": [48, 48, 48, 48], "DATA.CLIP_LEN": 7}
    result = import_config(old)
    assert [str(line) for line in result.refused] == []
    vrt, spikes = result.config.model.vrt, result.config.model.spikes
    assert vrt.dims == (48,) * 13 and vrt.depths == (8,) * 7 + (4,) * 6 and vrt.window == (7, 8, 8)
    assert vrt.independent == (11, 12) and result.config.model.checkpoint == ("attention", "mlp")
    assert spikes is not None and (spikes.num_blocks, spikes.activation) == (2, "relu")
    assert (result.config.train.precision, result.config.optim.warmup_steps) == ("fp16", 0)
    unnamed = [str(line) for line in result.lines if line.old not in old]
    assert len(unnamed) == 11 and all(" (not named: the older code's own) -> " in line for line in unnamed)


def test_what_such_a_config_names_goes_before_the_older_codes_own():
    old = {"MODEL.NAME": "VRTWithSpike", "MODEL.VRT.USE_CHECKPOINT_ATTN": False, "TRAIN.AMP_DTYPE": "bf16"}
    structure = {"MODEL.VRT_CFG.WINDOW_SIZE": [6, 8, 8], "MODEL.VRT_CFG.DEPTHS": [8] * 7 + [4] * 4}
    result = import_config(old | structure)
    assert result.config.model.vrt == Config().model.vrt
    assert result.config.model.checkpoint == ("mlp",) and result.config.train.precision == "bf16"


def make_clips(root: Path, lengths: dict[str, int]) -> None:
    for name, length in lengths.items():
        for kind in ("blur", "sharp"):
            (root / "train" / name / kind).mkdir(parents=True)
            for index in range(length):
                (root / "train" / name / kind / f"{index:06d}.png").touch()


def test_epochs_become_the_steps_that_the_older_code_counted(tmp_path: Path):
    make_clips(tmp_path / "old", {"a": 13, "002/b": 7, "c": 4})  # 9 + 3 + 0 clips of 5
    old = {"DATA.ROOT": str(tmp_path / "old"), "TRAIN.EPOCHS": 3, "TRAIN.BATCH_SIZE": 2, "TRAIN.TOTAL_STEPS": 9}
    result = import_config(old | {"TRAIN.GRADIENT_ACCUMULATION_STEPS": 3})
    assert not result.refused and result.config.optim.steps == 3 * (12 // 2 // 3)
    assert result.lines[3].became == "nothing to set: epochs are named, and went before steps in the older code"


def test_epochs_of_data_that_is_not_there_say_how_to_go_on(tmp_path: Path):
    reason = refusal(DATA__ROOT=str(tmp_path / "none"), TRAIN__EPOCHS=3)
    assert reason.startswith("steps are counted here, not epochs: ") and reason.endswith(
        "none/train has 0 clips of 5 frames; run this where DATA.ROOT is, or name TRAIN.TOTAL_STEPS instead"
    )


def test_a_folder_that_is_prepared_already_is_trained_on_as_it_is(tmp_path: Path):
    (tmp_path / "dataset.json").touch()
    result = imported(DATA__ROOT=str(tmp_path), DATA__K=32, EXP_NAME="a")
    assert result.config.data.root == str(tmp_path)
    assert result.commands() == ["spikevrt train NEW.yaml --out runs/a"]


def test_a_validation_split_that_would_not_be_read_is_refused(tmp_path: Path):
    old = {"DATA__ROOT": str(tmp_path), "DATA__VAL_SPLIT": "test"}
    assert not imported(**old).refused
    (tmp_path / "val").mkdir()
    assert refusal(**old).endswith(" has val, too, which is read before test; move the one that is not meant")


def test_a_run_that_went_on_from_a_checkpoint_needs_its_weights_converted():
    old = {"TRAIN.RESUME_FROM_CHECKPOINT": True, "TRAIN.CHECKPOINT_PATH": "outputs/last.pth"}
    assert import_config(old).lines[0].became == (
        "convert its weights: --checkpoint outputs/last.pth, or set it to false; the optimiser starts anew"
    )
    assert not import_config(old, with_checkpoint=True).refused
    assert imported(TRAIN__RESUME_FROM_CHECKPOINT=True).options == {"train --resume": "auto"}


def test_train_points_a_config_of_the_older_code_to_its_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old = write(tmp_path, OLD)
    assert cli.main(["train", str(old), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        f"spikevrt: {old}: of an older VRT+Spike; first run `spikevrt config import {old} --out NEW.yaml`\n"
    )
