"""Every setting of a run: one tree of frozen dataclasses, read strictly from YAML.

A key that no dataclass declares is refused with the nearest known name; a value of the wrong type is refused with
what is allowed. Nothing here imports torch, so that `spikevrt --help` answers at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from spikevrt.typed import convert, load_yaml, naming, parse_yaml, require

Split = Literal["train", "val"]  # of a dataset
FrameKind = Literal["npy", "png"]  # of a dataset's frames
SpikeSource = Literal["precomputed", "raw"]  # spike_vox/*.npy, or spike/*.dat on the fly
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Binning = Literal["whole", "start", "fractional"]  # a tick's bin: the last it overlaps, the one it starts in, or all
CHECKPOINT_PARTS = ("attention", "mlp", "deform", "spikes", "fusion")
TRUST_CUSTOM = "import and run this code, of which weights say that it makes their network (none)"
STAGES = (1, 2, 3, 4, 5, 6, 7, 8)


def _require_at_least(least: int, section: str, settings: Any, *names: str) -> None:
    """Raises ValueError unless each of these settings, or each entry of one that is a tuple, is `least` or more."""
    for name in names:
        smallest = min(value) if isinstance(value := getattr(settings, name), tuple) else value
        require(smallest >= least, f"{section}.{name}", smallest, f"{least} or more")


@dataclass(frozen=True, kw_only=True)
class VrtConfig:
    """The video restoration transformer. The defaults are the published deblurring network."""

    upscale: int = 1
    in_channels: int = 3
    out_channels: int = 3
    clip_frames: int = 6  # only the frame-interpolation head (pa_frames 0) depends on it
    window: tuple[int, int, int] = (6, 8, 8)  # frames, rows, columns
    depths: tuple[int, ...] = (8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4)  # stages 1-7, then the blocks of stage 8
    dims: tuple[int, ...] = (96, 96, 96, 96, 96, 96, 96, 120, 120, 120, 120)
    num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)
    independent: tuple[int, ...] = (9, 10)  # entries of `depths` whose window is one frame deep
    mutual_ratio: float = 0.75
    mlp_ratio: float = 2.0
    drop_path: float = 0.2
    pa_frames: int = 2  # frames aligned by parallel warping: 0, 2, 4 or 6
    deform_groups: int = 16
    nonblind_denoising: bool = False
    flow_widths: tuple[int, int, int, int] = (32, 64, 32, 16)  # SpyNet; the published one is the default

    def __post_init__(self) -> None:
        if not len(self.depths) == len(self.dims) == len(self.num_heads) >= 8:
            raise ValueError(
                f"model.vrt: depths, dims and num_heads must have the same length, at least 8; "
                f"got {len(self.depths)}, {len(self.dims)}, {len(self.num_heads)}"
            )
        _require_at_least(1, "model.vrt", self, "upscale", "deform_groups", "clip_frames")
        _require_at_least(1, "model.vrt", self, "window", "depths", "dims", "num_heads", "flow_widths")
        require(0 <= self.drop_path < 1, "model.vrt.drop_path", self.drop_path, "0 to less than 1")
        require(0 <= self.mutual_ratio <= 1, "model.vrt.mutual_ratio", self.mutual_ratio, "0 to 1")
        require(self.pa_frames in (0, 2, 4, 6), "model.vrt.pa_frames", self.pa_frames, "0, 2, 4, 6")
        for index, (dim, heads) in enumerate(zip(self.dims, self.num_heads, strict=True)):
            if dim % heads:
                raise ValueError(f"model.vrt.dims[{index}]: {dim} is no multiple of num_heads[{index}] = {heads}")
            if index < 7 and dim % 4:
                raise ValueError(f"model.vrt.dims[{index}]: {dim} must be a multiple of 4 in stages 1-7")
        pairs = self.pa_frames // 2
        for index, dim in enumerate(self.dims[:7]):
            if pairs and ((pairs * dim) % self.deform_groups or dim % pairs or self.deform_groups % pairs):
                raise ValueError(
                    f"model.vrt.deform_groups: {self.deform_groups} does not divide "
                    f"{pairs} x dims[{index}] = {pairs * dim}"
                )


@dataclass(frozen=True, kw_only=True)
class SpikeInputs:
    """What enters a network of a recording's spikes, and whether its frames are relit: all that any network obeys."""

    num_bins: int = 32  # K: temporal bins of one exposure
    binning: Binning = "whole"  # how ticks fall into bins
    normalize: Literal["none", "density"] = "none"  # density: each exposure's mean log1p count is brought to training's
    representation: Literal["counts", "profile"] = "counts"  # of spikes: log1p counts, or represent/inputs.py
    relight: bool = False  # the frames enter relit (represent/inputs.py), not blurry

    def __post_init__(self) -> None:
        _require_at_least(1, "model.spikes", self, "num_bins")
        if self.representation == "profile" and self.normalize != "none":
            raise ValueError(
                f"model.spikes.normalize: {self.normalize}; allowed with representation profile: none (it is relative)"
            )


@dataclass(frozen=True, kw_only=True)
class SpikeConfig(SpikeInputs):
    """What enters (`SpikeInputs`), and SpikeVRT's spike branch with its fusion into the four encoder stages."""

    dims: tuple[int, int, int, int] = (96, 96, 96, 96)  # channels per scale; must equal the encoder stages'
    num_blocks: int = 1  # residual 3-D blocks per scale
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"  # of the encoder; relu: also behind each residual block
    attention_heads: int = 4
    attention_mlp_ratio: float = 2.0
    fusion: Literal["TemporalCrossAttn"] = "TemporalCrossAttn"
    fusion_heads: int = 4
    fusion_mlp_ratio: float = 2.0
    fusion_time_bias: bool = False  # a learned bias on the time difference between RGB and spike frame
    max_tokens: int = 1 << 19  # attention over time works on chunks of at most this many tokens (memory bound)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_at_least(1, "model.spikes", self, "num_blocks", "attention_heads", "fusion_heads", "max_tokens")
        for index, dim in enumerate(self.dims):
            if dim % self.attention_heads or dim % self.fusion_heads:
                raise ValueError(f"model.spikes.dims[{index}]: {dim} is no multiple of the number of heads")


@dataclass(frozen=True, kw_only=True)
class UnetConfig:
    """The U-Net (`model/unet.py`). Beside it, `spikes` says what enters it: of `SpikeConfig` it obeys `SpikeInputs`."""

    width: int = 32  # channels at full size
    growth: int = 16  # channels that each halving adds
    depth: int = 3  # halvings
    unshuffle: int = 1  # so many pixels along each side enter and leave as channels of one
    blocks: int = 2  # residual blocks of each level, on the way down and on the way up
    neighbours: int = 1  # frames on each side of a frame that are read with it

    def __post_init__(self) -> None:
        _require_at_least(1, "model.unet", self, "width", "unshuffle", "blocks")
        _require_at_least(0, "model.unet", self, "growth", "depth", "neighbours")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """SpikeVRT, or (`spikes: null`) its twin VRT; with `unet` a U-Net, with `custom` a network of one's own instead."""

    vrt: VrtConfig = VrtConfig()
    spikes: SpikeConfig | None = SpikeConfig()
    unet: UnetConfig | None = None
    custom: str | None = None  # MODULE:FACTORY, of which `model.build_network` makes the network
    options: dict[str, None | bool | int | float | str | list[Any] | dict[str, Any]] | None = None  # of that factory
    checkpoint: tuple[str, ...] = ()  # parts recomputed in the backward pass to save memory
    checkpoint_stages: tuple[int, ...] = STAGES  # VRT's stages where they are; fusion and spikes: scales 1 to 4

    @property
    def name(self) -> str:
        """The network in words, for tables and captions: SpikeVRT, VRT, U-Net; then what is special about it."""
        name = self.custom or ("U-Net" if self.unet else "VRT" if self.spikes is None else "SpikeVRT")
        name += " on blocks of 2x2 pixels" if self.unet is not None and self.unet.unshuffle > 1 else ""
        name += ", without spikes" if not self.is_vrt and self.spikes is None else ""
        return name + (", spike-corrected frames" if self.spikes is not None and self.spikes.relight else "")

    @property
    def is_vrt(self) -> bool:
        """Whether it is SpikeVRT or VRT, with their parts."""
        return self.unet is None and self.custom is None

    @property
    def frame_by_frame(self) -> bool:
        """Whether each frame is restored from itself and its own spikes alone."""
        return self.unet is not None and self.unet.neighbours == 0

    def __post_init__(self) -> None:
        if self.custom is None and self.options is not None:
            raise ValueError("model.options: given, but model.custom, whose factory reads them, is null")
        if self.unet is not None:
            _refuse_other_parts(self, "unet", "a U-Net")
        elif self.custom is not None:
            _refuse_other_parts(self, "custom", "a custom network")
        for stage in self.checkpoint_stages:
            require(stage in STAGES, "model.checkpoint_stages", stage, ", ".join(map(str, STAGES)))
        for part in self.checkpoint:
            require(part in CHECKPOINT_PARTS, "model.checkpoint", part, ", ".join(CHECKPOINT_PARTS))
        unused = {"spikes", "fusion"} & set(self.checkpoint)
        if self.spikes is None and unused:
            raise ValueError(f"model.checkpoint: {', '.join(sorted(unused))}; but model.spikes is null")
        if self.spikes is not None and self.spikes.dims != self.vrt.dims[:4]:
            raise ValueError(
                f"model.spikes.dims: {list(self.spikes.dims)} must equal model.vrt.dims[:4] = {list(self.vrt.dims[:4])}"
            )


@dataclass(frozen=True, kw_only=True)
class DegradeConfig:
    """A worse spike stream than the recorded one, drawn anew for every training sample; `data/augment.py` says how."""

    probability: float = 0.0  # share of the samples with spikes that are degraded
    threshold: tuple[float, float] = (1.0, 1.0)  # firing threshold relative to the recorded one, from and to
    dropped_ticks: float = 0.0  # largest share of ticks that are lost
    noise: float = 0.0  # largest share of spikes that are missed, and of spikes that nothing caused
    shift_px: float = 0.0  # largest shift against the frames along each axis, colour pixels
    shift_ticks: float = 0.0  # largest shift in time


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read: a dataset folder made by `spikevrt prepare`, clips of `clip_frames`, random crops of `crop_px`."""

    root: str = "data/dataset"
    voxels: SpikeSource = "precomputed"
    clip_frames: int = 5
    crop_px: int = 256
    batch: int = 8
    workers: int = 0
    augment: bool = True
    spike_dropout: float = 0.0  # share of the training samples whose spikes are absent altogether
    degrade: DegradeConfig = DegradeConfig()


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Charbonnier plus further terms, each with a weight; 0 turns a term off (docs/losses.md)."""

    charbonnier_eps: float = 1e-3
    perceptual_weight: float = 0.1  # VGG-19 relu3_3 feature distance
    perceptual_file: str | None = None  # VGG-19 weights; null: download torchvision's public file
    edge_weight: float = 0.0  # Charbonnier counts a pixel 1 + this x the strength of the sharp picture's edge there
    fft_weight: float = 0.0  # difference of the magnitudes of the two spectra
    lpips_weight: float = 0.0  # LPIPS, AlexNet, weights shipped
    reblur_weight: float = 0.0  # restored frames averaged over the exposure, against the blurry input
    reblur_flow: Literal["network", "dis"] = "network"  # along SpyNet's flow, or OpenCV's DIS (extra `align`)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, its rate over the steps, and how much each part of the network follows it."""

    kind: Literal["adamw", "adam", "adamw8bit"] = "adamw"  # adamw8bit needs the extra `lowmem` (torchao)
    lr: float = 2e-4
    lr_min: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    steps: int = 300_000
    warmup_steps: int = 5_000
    clip_norm: float = 1.0
    schedule: Literal["cosine", "cosine_restart"] = "cosine"
    restart_steps: tuple[int, ...] = ()  # cosine_restart: length of each period; the last one repeats
    vrt_lr_factor: float = 1.0  # rate of a part relative to lr; 0: the part is frozen
    flow_lr_factor: float = 1.0  # SpyNet and the deformable alignment
    spikes_lr_factor: float = 1.0  # spike encoder and its attention over time
    fusion_lr_factor: float = 1.0
    flow_fixed_steps: int = 0  # steps at the start during which SpyNet and the deformable alignment are frozen
    ema_decay: float = 0.0  # of the averaged weights that are validated and saved; 0: no average


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the loop runs. `accumulate` micro-batches of `data.batch` make one step."""

    seed: int = 123
    device: Device = "auto"
    precision: Precision = "bf16"
    accumulate: int = 1
    parallel: Annotated[Literal["ddp", "fsdp"], "under torchrun: train.parallel"] = "ddp"
    compile: bool = False  # torch.compile the network
    channels_last: bool = False  # kernels of convolutions in channels_last memory
    deterministic: bool = False  # the same bits on a GPU too (docs/training.md: what it costs)
    self_supervised: Annotated[bool, "no sharp frames, the re-blur term alone: train.self_supervised"] = False
    init: str | None = None  # weights of an earlier run to start from
    init_vrt: str | None = None  # a published VRT deblurring checkpoint to start from
    validate_every: int = 1_000
    picture_every: int = 10_000
    checkpoint_every: int = 1_000
    keep_every: int = 0  # states of steps that are multiples of this stay for good; 0: the newest two alone
    log_every: int = 10
    max_skipped: int = 10  # steps in a row without a finite loss and gradient that end the run


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build the tree from plain values. Raises ValueError (one line) on an unknown key or a wrong value."""
        return convert(values, cls, closed=True, finite=False)

    def to_dict(self) -> dict[str, Any]:
        """The plain values, ready for YAML or JSON; `from_dict` is its inverse."""
        plain: dict[str, Any] = _plain(self)
        return plain


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, then apply overrides of the form `optim.lr=1e-3` (values are YAML).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown key, or a value that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config file")
    values = load_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a config is a YAML mapping")
    if any(str(name).isupper() for name in values):
        raise ValueError(f"{path}: of an older VRT+Spike; first run `spikevrt config import {path} --out NEW.yaml`")
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"override {item!r}: expected KEY=VALUE, for example optim.lr=1e-3")
        node = values
        *parents, last = key.split(".")
        for name in parents:
            child = node.get(name)
            node[name] = node = dict(child) if isinstance(child, dict) else {}
        with naming(f"override {item[:80]!r}"):
            node[last] = parse_yaml(text)
    with naming(path):
        return Config.from_dict(values)


def _refuse_other_parts(model: ModelConfig, field: str, what: str) -> None:
    """Settings of SpikeVRT alone must have their defaults: another network could not obey them."""
    inputs = {f.name for f in dataclasses.fields(SpikeInputs)}
    parts: Any = (("model.spikes", model.spikes, inputs), ("model.vrt", model.vrt, ()))  # before what holds them
    for where, part, obeyed in (*parts, ("model", model, {"spikes", "options", field})):
        for f in dataclasses.fields(part) if part is not None else ():
            if f.name not in obeyed and getattr(part, f.name) != f.default:
                raise ValueError(
                    f"{where}.{f.name}: {getattr(part, f.name)!r}, but {what} has no such part; "
                    f"allowed with model.{field}: {f.default!r}"
                )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


Format = Literal["torch", "onnx", "aoti"]
SUFFIXES: dict[Format, str] = {"aoti": ".aoti.pt2", "torch": ".pt2", "onnx": ".onnx"}  # the first that fits counts
MAX_FRAMES = 256  # of an exported clip
VAL_FRACTION, VAL_SEED = 0.1, 123  # of a prepared dataset, unless stated


@dataclass(frozen=True)
class PrepareOptions:
    """How exposures become samples, and which recordings are kept for validation.

    Validation gets whole sources at a time, chosen by `seed`, until `val_fraction` of the recordings are there.
    `without_sharp` also takes recordings without sharp frames; of a split all have them, or none.
    """

    num_bins: Annotated[int, "temporal bins of one exposure"] = 32
    binning: Annotated[Binning, "of a tick: to the last bin it overlaps, the one it starts in, or shared"] = "whole"
    frames: Annotated[FrameKind, "npy: only the crop is read; png: smaller, decoded whole"] = "npy"
    val_fraction: Annotated[float | None, f"share of the sources kept for validation ({VAL_FRACTION})"] = None
    seed: Annotated[int | None, f"of the choice of sources for validation ({VAL_SEED})"] = None
    without_sharp: Annotated[bool, "take recordings without sharp frames too, for train --self-supervised"] = False

    def __post_init__(self) -> None:
        if self.frames not in get_args(FrameKind):
            raise ValueError(f"frames: {self.frames!r}; allowed: {', '.join(get_args(FrameKind))}")


@dataclass(frozen=True)
class ExportOptions:
    """What becomes of a network (`export`).

    `height` and `width` (both or none) fix the size of the pictures, and with them that of the voxels. What is None
    stays free; `check` None compares where it can.
    """

    format: Annotated[Format | None, "of the file (told by its name)"] = None
    frames: Annotated[int | None, "fix the number of frames of a clip (any)"] = None
    height: Annotated[int | None, "fix the rows of a picture, with --width (any)"] = None
    width: Annotated[int | None, "fix the columns"] = None
    spike_ratio: Annotated[int, "pixels to one of the spike camera, with --height"] = 2
    without_spikes: Annotated[bool, "the network on the frames alone"] = False
    trust_custom: Annotated[tuple[str, ...], TRUST_CUSTOM, "MODULE:FACTORY"] = ()
    check: Annotated[
        bool | None, "run the file at other sizes and compare it with the network (where onnxruntime is installed)"
    ] = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in SUFFIXES:
            raise ValueError(f"format: {self.format!r}; allowed: {', '.join(SUFFIXES)}")
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height, width: {self.height}, {self.width}; allowed: both, or none for any size")
        if self.frames is not None and not 2 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"frames: {self.frames}; allowed: 2 to {MAX_FRAMES}, or none for any number")
        if self.spike_ratio < 1:
            raise ValueError(f"spike_ratio: {self.spike_ratio}; allowed: 1 or more")
