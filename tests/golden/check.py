"""Compare the VRT network with golden tensors: `python tests/golden/check.py FILE...`

A whole-network file holds, as npz: `meta` (JSON: the network's configuration, aliases of repeated buffers, noise
floors), `sd/<parameter>`, the input, the output, flows, stage outputs, and gradients of mean(output * projection). The
network that the file describes is built, its weights loaded strictly, and every tensor compared. Tolerances, from the
file's own noise floor (fp32 against fp64): outputs max(1e-5, 20 x noise), gradients max(1e-3, 10 x noise) of the
gradient's maximum; of gradients through sampling positions, one element in a thousand may exceed that.

Bilinear sampling has kinks and the picture alignment has steps at integer positions: where a position lies within
rounding of one, two correct float32 networks may differ, though by far less than a mistake makes. A file that fails by
no more than that is compared again with the plain twin of our deformable convolution, which does not round positions;
then in float64; then, where it holds the flows in full, with these, and its flows and SpyNet's gradients count from the
run before.

Exit status: 0 every file agrees, 1 some tensor past tolerance, 2 a file that cannot be read.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikevrt.config import VrtConfig
from spikevrt.model import load_strict
from spikevrt.model.deformable_alignment import DeformAlign
from spikevrt.model.flow import Flows, clip_flows
from spikevrt.model.vrt import VRT

MAX_GRADIENT_OUTLIERS = 1e-3  # share of elements of a sampled gradient that may lie on another piece
SLACK = 100  # times the tolerance: what an outlier, or a float32 rounding at a kink, may reach at most
MAX_FAR_PIXELS = 1e-2  # share of an output that one pixel of the input alignment, rounded the other way, may reach
STRUCTURE = ("upscale", "window_size", "depths", "indep_reconsts", "embed_dims", "num_heads", "pa_frames")


def vrt_config(values: dict[str, Any]) -> VrtConfig:
    """The published names of the settings, translated."""
    known = {
        "upscale": "upscale",
        "img_size": None,
        "window_size": "window",
        "depths": "depths",
        "indep_reconsts": "independent",
        "embed_dims": "dims",
        "num_heads": "num_heads",
        "pa_frames": "pa_frames",
        "deformable_groups": "deform_groups",
        "nonblind_denoising": "nonblind_denoising",
        "in_chans": "in_channels",
        "out_chans": "out_channels",
        "mul_attn_ratio": "mutual_ratio",
        "mlp_ratio": "mlp_ratio",
        "drop_path_rate": "drop_path",
    }
    missing = [key for key in STRUCTURE if key not in values]
    if missing:
        raise ValueError(f"meta.cfg: no {', '.join(missing)}")
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown network setting {key!r}")
        name = known[key]
        if name is not None:
            arguments[name] = tuple(value) if isinstance(value, list) else value
    if "img_size" in values:
        arguments["clip_frames"] = values["img_size"][0]
    return VrtConfig(**arguments)


def strided(x: Tensor, name: str) -> Tensor:
    """A stored name that ends in `_s<k>` holds every k-th row and column."""
    tail = name.rpartition("_s")[2]
    return x[..., :: int(tail), :: int(tail)] if "_s" in name and tail.isdigit() else x


class Comparison:
    """Prints one line per tensor, and remembers those past tolerance."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.hopeless: set[str] = set()  # so far past tolerance that no rounding explains it

    def add(self, name: str, ours: Tensor, golden: np.ndarray, limit: float, outliers: float = 0.0) -> None:
        theirs = torch.from_numpy(np.asarray(golden)).double()
        if ours.shape != theirs.shape:
            print(f"  FAIL {name}: shape {tuple(ours.shape)} instead of {tuple(theirs.shape)}")
            self.failed.add(name)
            self.hopeless.add(name)
            return
        error = (ours.detach().double() - theirs).abs()
        past = float((~(error <= limit)).double().mean())
        far = float((~(error <= SLACK * limit)).double().mean())
        bad = past > outliers or far > 0
        if bad:
            self.failed.add(name)
        if far > (0 if name.startswith("grad/") else MAX_FAR_PIXELS):
            self.hopeless.add(name)
        share = f", {past:.2%} past it" if past else ""
        print(f"  {'FAIL' if bad else 'ok  '} {name}: max error {float(error.max()):.2e}, limit {limit:.2e}{share}")


def stored_flows(data: dict[str, np.ndarray], pa_frames: int, dtype: torch.dtype) -> Flows | None:
    """The flows of the file, if it holds every one at full size."""
    count = 4 * (pa_frames // 2)
    if count == 0 or any(f"flow/{d}{i}" not in data for d in "bf" for i in range(count)):
        return None
    lists = {d: [torch.from_numpy(data[f"flow/{d}{i}"]).to(dtype) for i in range(count)] for d in "bf"}
    return Flows(*([lists[d][4 * k : 4 * k + 4] for k in range(count // 4)] for d in "bf"))


def check_network(
    data: dict[str, np.ndarray], dtype: torch.dtype, *, plain: bool = False, inject_flows: bool = False
) -> Comparison:
    """Build the network, run it forwards and backwards, compare every tensor of the file."""
    meta = json.loads(bytes(data["meta"]).decode())
    noise = meta.get("noise_fp32_vs_fp64", {})
    config = vrt_config(meta["cfg"])
    network = VRT(config).eval()
    state = {key[3:]: torch.from_numpy(value) for key, value in data.items() if key.startswith("sd/")}
    for key, stored in meta.get("sd_alias", {}).items():
        state[key] = state[stored]
    load_strict(network, state)
    network.to(dtype)
    for module in network.modules():
        if isinstance(module, DeformAlign):
            module.plain = plain

    middle: dict[str, Tensor] = {}
    for number in range(1, 8):
        network.stage(number).register_forward_hook(
            lambda _module, _inputs, out, number=number: middle.__setitem__(f"stage{number}", out)
        )
    network.stage8[-1].register_forward_hook(lambda _module, _inputs, out: middle.__setitem__("stage8", out))

    comparison = Comparison()
    x = torch.from_numpy(data["in/x"]).to(dtype)
    flows = stored_flows(data, config.pa_frames, dtype) if inject_flows else None
    if config.pa_frames and not inject_flows:
        with torch.no_grad():
            found = clip_flows(network.spynet, x[:, :, : config.in_channels], config.pa_frames)
        for name in sorted(key for key in data if key.startswith("flow/")):
            index = int(name[6:].split("_")[0])
            lists = found.backward if name[5] == "b" else found.forward
            limit = max(1e-5, 20 * noise.get("flow", 0.0))
            comparison.add(name, strided(lists[index // 4][index % 4], name), data[name], limit)
    y = network(x, flows=flows)
    frames = meta.get("out_frames")
    chosen = y if frames is None else y[:, frames]
    limit = max(1e-5, 20 * noise.get("out", 0.0))
    for name in sorted(key for key in data if key.startswith("out/y")):
        comparison.add(name, strided(chosen, name), data[name], limit)
    if "out/frame_sums" in data:
        pixels = y[0, 0].numel()
        comparison.add("out/frame_sums", y.double().sum((2, 3, 4)), data["out/frame_sums"], limit * pixels**0.5)
    for name in sorted(key for key in data if key.startswith("mid/")):
        stage = name[4:].split("_")[0]
        ours = middle[stage].permute(0, 4, 1, 2, 3)
        comparison.add(name, strided(ours, name), data[name], max(1e-5, 20 * noise.get(f"mid/{stage}", 0.0)))
    if "grad_in/proj" in data:
        parameters = dict(network.named_parameters())
        (y * torch.from_numpy(data["grad_in/proj"]).to(dtype) / 8).mean().backward()
        for name in sorted(key for key in data if key.startswith("grad/")):
            about = meta["grad"][name[5:]]
            gradient = parameters[name[5:]].grad
            if gradient is None:
                assert inject_flows, name
                continue  # the second run has judged SpyNet
            relative = max(1e-3, 10 * noise.get(name, 0.0))
            sampled = "spynet" in name or "conv_offset" in name
            ours = gradient.flatten()[:: about["stride"]]
            comparison.add(name, ours, data[name], relative * about["absmax"], MAX_GRADIENT_OUTLIERS if sampled else 0)
    return comparison


def check_file(path: Path) -> bool:
    """True if the network agrees with the file."""
    with np.load(path, allow_pickle=False) as archive:
        data = {key: archive[key] for key in archive.files}
    if path.stem.startswith(("modules", "tiling")) and "in/x" not in data:
        raise ValueError("no whole-network file; tests/model/test_golden.py compares single modules")
    missing = [key for key in ("meta", "in/x") if key not in data]
    if missing or not any(key.startswith("out/y") for key in data):
        raise ValueError(f"no whole-network file: no {', '.join([*missing, 'out/y'][:1])}")
    first = check_network(data, torch.float32)
    if not first.failed or first.hopeless:
        return not first.failed
    print("  again, with exact sampling positions:")
    if not check_network(data, torch.float32, plain=True).failed:
        return True
    print("  again, in float64:")
    second = check_network(data, torch.float64)
    if not second.failed:
        return True
    meta = json.loads(bytes(data["meta"]).decode())
    if stored_flows(data, meta["cfg"]["pa_frames"], torch.float64) is None:
        return False
    print("  again, in float64 with the stored flows:")
    third = check_network(data, torch.float64, inject_flows=True)
    of_flow = {name for name in second.failed if name.startswith(("flow/", "grad/spynet"))}
    return not (third.failed | of_flow)


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: python tests/golden/check.py FILE...", file=sys.stderr)
        return 2
    disagree, unreadable = 0, 0
    for path in paths:
        print(path)
        try:
            disagree += not check_file(Path(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            print(f"check.py: {path}: {str(error) or type(error).__name__}", file=sys.stderr)
            unreadable += 1
    checked = len(paths) - unreadable
    print(
        f"{checked - disagree} of {checked} files agree" + (f", {unreadable} could not be read" if unreadable else "")
    )
    return 1 if disagree else 2 if unreadable else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
