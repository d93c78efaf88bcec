"""The network as one file that runs without SpikeVRT: a torch.export program, ONNX, or an AOTInductor package.

The file holds the weights and, as JSON under the key "spikevrt", what to feed it (`describe`); the same JSON lies
beside it. Sizes that are not fixed are free: frames, rows and columns of the clip, rows and columns of the voxels.
Before a file gets its name it is run at other sizes than it was traced at and compared with the network.

Dimension key: T frames, K bins, H x W pixels of the colour camera, h x w pixels of the spike camera; one sample.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spikevrt import runtime
from spikevrt.atomic import complete_or_absent
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import MAX_FRAMES, SUFFIXES, ExportOptions, Format, SpikeInputs
from spikevrt.model import build_network, load_strict, network_of_weights
from spikevrt.model.network import Network

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from torch.export import ExportedProgram

TOLERANCE = 1e-4  # largest difference to the network, of values in [0, 1]
OPSET = 20  # the first of ONNX whose GridSample knows all that we sample
MIN_VOXEL_PX = 8  # SpikeVRT's encoder halves the voxels three times
MAX_PX = 8192
CHECKED_CLIPS = 3  # see `largest_difference`
METADATA_KEY = "spikevrt"
COUNTS = "the number n of spikes of a pixel in each of num_bins parts of an exposure"
SPIKE_VALUES = {  # what `represent.inputs` makes, in words, by representation and normalize
    ("counts", "none"): f"(log1p(n) - mean) / std of {COUNTS}",
    ("counts", "density"): f"(log1p(n) * mean / d - mean) / std of {COUNTS}; d: the mean of log1p(n) over that "
    "exposure's whole frame",
    (
        "profile",
        "none",
    ): "2 log((r + 0.004) / (m + 0.004)) of the rate r, in spikes per tick from the intervals "
    "between spikes, of a pixel in each of num_bins parts of an exposure; m: its mean over the exposure",
}
BLURRY = "the blurry frame, RGB as displayed (sRGB), 0 to 1"
RELIT = "the blurry frame relit by its spikes (spikevrt.represent.inputs), RGB as displayed (sRGB), 0 to 1"
Run = Callable[..., "Tensor"]


@dataclass(frozen=True)
class ClipSize:
    """The size of one clip and of its voxels."""

    frames: int
    height: int
    width: int
    spike_height: int
    spike_width: int


def export_network(weights: Path, out: Path, options: ExportOptions, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the network of a weights file to `out` and its description to `out` with .json after it.

    Nothing stands under either name before the program is complete and compared. Returns format, bytes, seconds of
    tracing and writing, and max_difference (None: not compared).

    Raises:
        FileExistsError: `out` or its description exists, and `overwrite` is off.
        FileNotFoundError, ValueError: as `load_weights`; options that the network cannot take; a missing package or
            compiler; a program that differs from the network by more than `TOLERANCE`.
    """
    out = Path(out)
    sidecar = out.with_name(f"{out.name}.json")
    kind = _format_of(out, options)
    for path in (out, sidecar):
        if path.is_dir() or (path.exists() and not overwrite):
            raise FileExistsError(f"{path}: exists; choose another --out or pass --overwrite")
    _check_tools(kind, options)
    network, info = _load(Path(weights), options)
    sizes = _sizes(network, options)
    text = json.dumps(describe(kind, Path(weights), network, info, options), indent=2) + "\n"
    with tempfile.TemporaryDirectory(prefix="spikevrt-export-") as room, _quietly():
        made = Path(room) / f"program{SUFFIXES[kind]}"
        try:
            program = trace(network, sizes[0], options)
        except Exception as error:
            if info.model.custom is None:
                raise
            raise ValueError(f"{weights}: torch cannot trace {info.model.custom}: {_first_line(error)}") from error
        _write(kind, program, made, text)
        difference = None if options.check is False else _compare(kind, made, network, sizes[1:])
        with complete_or_absent(sidecar) as partial_sidecar:
            partial_sidecar.write_text(text, encoding="utf-8")
            with complete_or_absent(out) as partial:
                shutil.copyfile(made, partial)
    return {"format": kind, "bytes": out.stat().st_size, "max_difference": difference}


def trace(network: Network, size: ClipSize, options: ExportOptions) -> ExportedProgram:
    """The network as a graph, for one sample. `size` stands for every size where the options leave it free."""
    from torch.export import Dim
    from torch.fx.experimental import _config as symbols

    min_px, multiple = network.min_free_px, network.pad_multiple
    frames = Dim.STATIC if options.frames else Dim("frames", min=_min_frames(network), max=MAX_FRAMES)
    blur: dict[int, Any] = {1: frames}
    voxels: dict[int, Any] = {1: frames}
    if options.height is None:
        for axis, name in ((3, "height"), (4, "width")):
            blur[axis] = multiple * Dim(f"{name}_{multiple}", min=-(-min_px // multiple), max=MAX_PX // multiple)
            voxels[axis] = Dim(f"spike_{name}", min=MIN_VOXEL_PX, max=MAX_PX)
    clip = random_clip(network, size, seed=0)
    # Without size-oblivious reasoning a count of windows that is 1 in the example would be 1 for good. With free sizes
    # the shape of a result is worked out each time: to look it up among those kept, by comparing sizes, takes longer.
    free = options.height is None or options.frames is None
    with (
        torch.no_grad(),
        symbols.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        torch._dynamo.config.patch(fake_tensor_cache_enabled=not free),
    ):
        return torch.export.export(network, clip, dynamic_shapes=(blur, voxels)[: len(clip)], strict=False)


def describe(
    kind: Format, weights: Path, network: Network, info: WeightsInfo, options: ExportOptions
) -> dict[str, Any]:
    """What a user of the file has to know: inputs, outputs, sizes, settings, and where it comes from. Plain values."""
    size = _sizes(network, options)[0]
    axes: dict[str, Any] = {"frames": size.frames, "height": size.height, "width": size.width}
    spikes = network.config.spikes
    if spikes is not None:
        axes |= {"spike_height": size.spike_height, "spike_width": size.spike_width}
    free: dict[str, dict[str, int]] = {}
    if options.frames is None:
        free["frames"] = {"min": _min_frames(network), "max": MAX_FRAMES, "multiple": 1}
    if options.height is None:
        pixels = {"min": network.min_free_px, "max": MAX_PX, "multiple": network.pad_multiple}
        free |= {"height": pixels, "width": pixels}
        if spikes is not None:
            voxels = {"min": MIN_VOXEL_PX, "max": MAX_PX, "multiple": 1}
            free |= {"spike_height": voxels, "spike_width": voxels}
    shape = {name: name if name in free else length for name, length in axes.items()}
    picture = [1, shape["frames"], 3, shape["height"], shape["width"]]
    inputs: list[dict[str, Any]] = [
        {"name": "blur", "dtype": "float32", "shape": picture, "values": RELIT if spikes and spikes.relight else BLURRY}
    ]
    if spikes is not None:
        inputs.append(
            {
                "name": "spike_vox",
                "dtype": "float32",
                "shape": [1, shape["frames"], spikes.num_bins, shape["spike_height"], shape["spike_width"]],
                "values": SPIKE_VALUES[spikes.representation, spikes.normalize]
                + "; first row on top, the same field of view as blur",
                **{field.name: getattr(spikes, field.name) for field in dataclasses.fields(SpikeInputs)},
                "mean": info.voxel_mean,
                "std": info.voxel_std,
            }
        )
    return {
        "version": 1,
        "format": kind,
        "opset": OPSET if kind == "onnx" else None,
        "inputs": inputs,
        "outputs": [{"name": "sharp", "dtype": "float32", "shape": picture, "values": "as blur, not clamped"}],
        "free_sizes": free,
        "network": network.config.name,
        "reach_px": network.reach_px,  # null: no bound
        "model": dataclasses.asdict(info.model),
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "versions": runtime.versions() | _versions("onnx", "onnxscript"),
        "commit": runtime.git_commit(),
    }


def open_program(kind: Format, path: Path) -> Run:
    """The program of a file as a function of tensors (blur, and voxels where it takes them).

    Raises:
        ValueError: onnxruntime is missing.
    """
    if kind == "torch":
        module = torch.export.load(path).module()
        return module
    if kind == "aoti":
        return torch._inductor.aoti_load_package(str(path))
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("export: needs onnxruntime; pip install 'spikevrt[export]'") from None
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), threads, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*clip: Tensor) -> Tensor:
        fed = {name: value.numpy() for name, value in zip(names, clip, strict=True)}
        return torch.from_numpy(session.run(None, fed)[0])

    return run


def random_clip(network: Network, size: ClipSize, *, seed: int) -> tuple[Tensor, ...]:
    """Blurry frames and, for a network with spikes, voxels, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    blur: Float[Tensor, "1 T 3 H W"] = torch.rand(1, size.frames, 3, size.height, size.width, generator=generator)
    spikes = network.config.spikes
    if spikes is None:
        return (blur,)
    shape = (1, size.frames, spikes.num_bins, size.spike_height, size.spike_width)
    return blur, torch.randn(shape, generator=generator)


def largest_difference(run: Run, network: Network, size: ClipSize) -> float:
    """Between the program and the network, over one random clip; the least of `CHECKED_CLIPS` where it is too large.

    The input is aligned by whole pixels (`flow.nearest4`). Where a flow ends within rounding of a whole pixel, two
    programs that are both right read different ones, and one pixel differs by much; so a clip may fail, but not all.
    """
    differences: list[float] = []
    while len(differences) < CHECKED_CLIPS and min(differences, default=1.0) > TOLERANCE:
        clip = random_clip(network, size, seed=1 + len(differences))
        with torch.no_grad():
            difference = (run(*clip) - network(*clip)).abs().max()
        differences.append(float(difference.nan_to_num(nan=float("inf"))))
    return min(differences)


def _compare(kind: Format, path: Path, network: Network, sizes: list[ClipSize]) -> float | None:
    if kind == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        return None  # `check` True was refused before
    run = open_program(kind, path)
    largest = 0.0
    for size in sizes:
        difference = largest_difference(run, network, size)
        if difference > TOLERANCE:
            where = f"{size.frames} frames of {size.width}x{size.height}"
            raise ValueError(
                f"export: the {kind} program differs from the network by {difference:.1e} at {where}; "
                f"allowed: {TOLERANCE:.0e}. Nothing was written"
            )
        largest = max(largest, difference)
    return largest


def _write(kind: Format, program: ExportedProgram, path: Path, text: str) -> None:
    if kind == "torch":
        torch.export.save(program, path, extra_files={f"{METADATA_KEY}.json": text})
    elif kind == "aoti":
        # as many threads as there are where it runs, not where it is written
        settings = {"aot_inductor.metadata": {METADATA_KEY: text}, "cpp.dynamic_threads": True}
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
    else:
        names = ["blur", "spike_vox"][: len(program.graph_signature.user_inputs)]
        made = torch.onnx.export(
            program, (), opset_version=OPSET, dynamo=True, verbose=False, input_names=names, output_names=["sharp"]
        )
        assert made is not None
        made.model.metadata_props[METADATA_KEY] = text
        made.save(path, external_data=False)


def _format_of(out: Path, options: ExportOptions) -> Format:
    told = next((kind for kind, suffix in SUFFIXES.items() if out.name.lower().endswith(suffix)), None)
    kind = options.format or told
    if kind is None:
        raise ValueError(f"{out}: no format; allowed: names that end in {', '.join(SUFFIXES.values())}, or --format")
    if told is not None and told != kind and SUFFIXES[told].endswith(SUFFIXES[kind]):
        raise ValueError(f"{out}: a name that ends in {SUFFIXES[told]} is for format {told}")
    if told != kind:
        raise ValueError(f"{out}: a name for format {kind} ends in {SUFFIXES[kind]}")
    return kind


def _check_tools(kind: Format, options: ExportOptions) -> None:
    needed = [] if kind != "onnx" else ["onnx", "onnxscript", *(["onnxruntime"] if options.check else [])]
    for name in needed:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"export: needs {name}; pip install 'spikevrt[export]'")
    if kind == "aoti":
        from torch._inductor import cpp_builder, exc

        try:
            cpp_builder.get_cpp_compiler()
        except exc.InvalidCxxCompiler:
            raise ValueError("format: aoti needs a C++ compiler (g++, or the one that CXX names)") from None


def _load(weights: Path, options: ExportOptions) -> tuple[Network, WeightsInfo]:
    network, info, state = network_of_weights(weights, options.trust_custom)
    if options.without_spikes and info.model.spikes is None:
        raise ValueError(f"without_spikes: {weights} is a network without spikes")
    if options.without_spikes:
        network = build_network(dataclasses.replace(info.model, spikes=None, checkpoint=()))
        load_strict(network, {name: state[name] for name in network.state_dict()}, str(weights))
    try:
        network.check_exportable()
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None
    min_frames = _min_frames(network)
    if options.frames is not None and options.frames < min_frames:
        raise ValueError(f"frames: {options.frames}; this network needs {min_frames} or more")
    multiple = network.pad_multiple * (1 if network.config.spikes is None else options.spike_ratio)
    for name, value in (("height", options.height), ("width", options.width)):
        if value is not None and (value % multiple or not network.min_size_px <= value <= MAX_PX):
            raise ValueError(
                f"{name}: {value}; allowed: multiples of {multiple} from {network.min_size_px} to {MAX_PX}"
            )
    return network.eval(), info


def _min_frames(network: Network) -> int:
    return max(2, network.min_frames)  # torch traces a size of 1 as another program


def _sizes(network: Network, options: ExportOptions) -> list[ClipSize]:
    """The size to trace at, and two others to compare at; equal where the options fix them.

    The others differ in the number of windows, odd ones included, and in whether a clip is longer than a window.
    """
    least_px, least_frames, step = network.min_free_px, _min_frames(network), network.pad_multiple
    together, ratio = network.window_frames, options.spike_ratio
    sizes = []
    for frames, more_rows, more_columns in ((5, 3, 1), (together + 1, 0, 5), (together - 1, 5, 2)):
        frames = options.frames or max(frames, least_frames)
        height, width = options.height or least_px + more_rows * step, options.width or least_px + more_columns * step
        sizes.append(ClipSize(frames, height, width, height // ratio, width // ratio))
    return sizes if options.frames is None or options.height is None else sizes[:2]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters warn of deprecations inside themselves and of packages that we do not want."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
