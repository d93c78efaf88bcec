"""Files that hold a trained network, or a training run in the middle.

Weights are one safetensors file with everything needed to use them inside: the network's settings, the voxel
statistics and where they come from. The state of a run (optimiser, step, best score) is a torch file that is read
without executing anything. Both carry a digest of all that they hold, which reading compares (neither safetensors nor
torch would notice a flipped bit), and appear under their name only when complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spikevrt.atomic import complete_or_absent
from spikevrt.config import ModelConfig
from spikevrt.typed import convert, naming, shown

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "spikevrt"
FORMAT_VERSION = 1
AGAIN = "copy or download it again"
UNKNOWN = "spikevrt: {}: carries no checksum; whether it is damaged cannot be told"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself.

    `voxel_mean` and `voxel_std` are those of log1p spike counts per bin over the training set (0 and 1 for a network
    without spikes). `provenance` holds plain JSON values: seed, data hash, commit, step, scores.
    """

    model: ModelConfig
    voxel_mean: float
    voxel_std: float
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Document:
    """What stands in the file's metadata, as JSON. `sha256`: `digest` of all else there and of the tensors; None in
    files of earlier versions."""

    version: int
    model: ModelConfig
    voxel_mean: float
    voxel_std: float
    provenance: dict[str, Any]
    sha256: str | None = None


def save_weights(path: str | Path, state_dict: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Write a weights file, complete or not at all; an existing one is replaced, missing folders are made.

    Raises:
        ValueError: a tensor that is not finite, or voxel statistics that cannot be used.
    """
    path = Path(path)
    _check_statistics(path, info.voxel_mean, info.voxel_std)
    tensors = {name: value.detach().to("cpu").contiguous().clone() for name, value in state_dict.items()}
    for name, value in tensors.items():
        _check_finite(path, name, value)
    document = {
        "version": FORMAT_VERSION,
        "model": dataclasses.asdict(info.model),
        "voxel_mean": info.voxel_mean,
        "voxel_std": info.voxel_std,
        "provenance": info.provenance,
    }
    document["sha256"] = _digest_of_weights(json.loads(json.dumps(document)), tensors)
    with _written(path) as partial:
        save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(document)})


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], WeightsInfo]:
    """Read the tensors (on the CPU, all finite) and the description of a weights file.

    A file without a checksum, which earlier versions wrote, is read too, and told on stderr.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not safetensors, truncated, damaged, not written by SpikeVRT, or a tensor that is not finite
            (named).
    """
    path = Path(path)
    document, tensors = _read_weights(path)
    info = _described(path, document)
    if "sha256" not in document:
        print(UNKNOWN.format(path), file=sys.stderr)
        for name, value in tensors.items():  # what `save_weights` sums up is finite
            _check_finite(path, name, value)
    return tensors, info


def read_info(path: str | Path) -> WeightsInfo:
    """Read the description alone; the whole file is compared with its checksum. Raises as `load_weights` does."""
    path = Path(path)
    return _described(path, _read_weights(path)[0])


def _read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What stands in the metadata, and the tensors; compared with their checksum, if there is one."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping: it cannot be iterated)
    except SafetensorError as error:
        if path.suffix in (".pth", ".pt"):
            raise ValueError(
                f"{path}: a checkpoint of torch; allowed: weights of SpikeVRT, which `spikevrt config import OLD.yaml "
                f"--out NEW.yaml --checkpoint {path}` makes of an older VRT+Spike's (a published VRT: train.init_vrt)"
            ) from None
        raise ValueError(f"{path}: not a complete safetensors file ({error}); {AGAIN}") from None
    if METADATA_KEY not in metadata:
        raise ValueError(
            f"{path}: a safetensors file, but not one of SpikeVRT's (no {METADATA_KEY!r} in its metadata); allowed: "
            "weights that `spikevrt train` wrote, or that ship"
        )
    with naming(path):
        try:
            document = json.loads(metadata[METADATA_KEY])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its SpikeVRT metadata is not JSON ({error}); {AGAIN}") from None
        if not isinstance(document, dict):
            raise ValueError(f"its SpikeVRT metadata is {shown(document)}, no mapping; {AGAIN}")
        if "sha256" in document and document["sha256"] != _digest_of_weights(document, tensors):
            raise ValueError(f"damaged: its tensors or settings are not those that were written; {AGAIN}")
    return document, tensors


def _described(path: Path, document: dict[str, Any]) -> WeightsInfo:
    with naming(path):
        if document.get("version") != FORMAT_VERSION:
            found = shown(document.get("version"))
            raise ValueError(f"weights format version {found}; this SpikeVRT reads version {FORMAT_VERSION}")
        model = document.get("model")
        spikes = model.get("spikes") if isinstance(model, dict) else None
        if isinstance(spikes, dict) and "split" in spikes:  # the setting's name in the first weights files
            spikes["binning"] = spikes.pop("split")
        read = convert(document, _Document, closed=True, finite=False)
    _check_statistics(path, read.voxel_mean, read.voxel_std)
    return WeightsInfo(read.model, read.voxel_mean, read.voxel_std, read.provenance)


def tell_damage(path: Path, state: Any) -> None:
    """Compare a foreign weights file, which holds `state`, with its checksums: those of torch's archives, or `sha256`
    in the metadata of safetensors, the `digest` of the tensors. Where it carries none, say so on stderr.

    Raises:
        ValueError: something is not what was written.
    """
    part: str | None = None
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                stated = (file.metadata() or {}).get("sha256")
            is_told = stated is not None
            if is_told and stated != digest(state):
                part = "a tensor"
        elif is_told := zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                part = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from None
    if part is not None:
        raise ValueError(f"{path}: damaged: {part} is not what was written; {AGAIN}")
    if not is_told:
        print(UNKNOWN.format(path), file=sys.stderr)


def _digest_of_weights(document: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return digest(
        {"document": {name: value for name, value in document.items() if name != "sha256"}, "tensors": tensors}
    )


def check_trusted(info: WeightsInfo, path: Path, trust_custom: Collection[str]) -> None:
    """Refuse weights of a custom network whose factory is not among those trusted. Raises ValueError."""
    factory = info.model.custom
    if factory is not None and factory not in trust_custom:
        raise ValueError(
            f"{path}: {factory} makes its network, code of yours or of somebody else's that is not in the file; "
            f"trust_custom {factory} imports and runs it"
        )


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write the state of a run, complete or not at all: tensors and plain values, nested in dicts and lists.

    Raises:
        OSError: it cannot be written; what stood at `path` still does.
    """
    with _written(Path(path)) as partial:
        torch.save({"digest": digest(state), "state": state}, partial)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read the state of a run (tensors on the CPU); nothing stored in the file is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, altered, no torch file, or one that holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such state file")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything that pickle, zip or torch know
        if isinstance(error, MemoryError) or getattr(error, "filename", None) is not None:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a complete training state ({reason})") from None
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise ValueError(f"{path}: not a training state of this SpikeVRT")
    state: dict[str, Any] = saved["state"]
    if digest(state) != saved.get("digest"):
        raise ValueError(f"{path}: damaged: its content is not what was written")
    return state


def digest(value: Any) -> str:
    """SHA-256 over tensors and plain values, nested in dicts, lists and tuples: names, types, shapes and every bit.

    The order of a dict does not count.
    """
    sha = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            sha.update(f"{item.dtype}{tuple(item.shape)}".encode())
            plain = item.detach().cpu().contiguous()
            sha.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
        elif isinstance(item, dict):
            sha.update(f"dict{len(item)}".encode())
            for key in sorted(item, key=repr):
                sha.update(repr(key).encode())
                add(item[key])
        elif isinstance(item, list | tuple):
            sha.update(f"list{len(item)}".encode())
            for inner in item:
                add(inner)
        else:
            sha.update(repr(item).encode())

    add(value)
    return sha.hexdigest()


def _check_finite(path: Path, name: str, value: Tensor) -> None:
    if (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{path}: tensor {name!r} holds NaN or infinity")


def _check_statistics(path: Path, mean: float, std: float) -> None:
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise ValueError(f"{path}: voxel mean {mean}, std {std}; allowed: finite, std above 0")


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """`complete_or_absent`, with torch's and safetensors' errors turned into OSError."""
    with complete_or_absent(path) as partial:
        try:
            yield partial
        except (RuntimeError, SafetensorError) as error:
            raise OSError(f"{path}: cannot be written ({(str(error).splitlines() or ['?'])[0][:160]})") from None
