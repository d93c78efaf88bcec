"""VMAF without reward for sharpening (its NEG model), by an ffmpeg that has libvmaf; nothing of it is built in here.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.evaluate.metrics import eight_bit

if TYPE_CHECKING:
    from jaxtyping import Float

FFMPEG_VARIABLE = "SPIKEVRT_FFMPEG"
MODEL = "vmaf_v0.6.1neg"
NUM_THREADS = 2
_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv444p"


def find_ffmpeg() -> str:
    """An ffmpeg that has libvmaf: that named by SPIKEVRT_FFMPEG; else on PATH; else that of the package imageio-ffmpeg.

    Raises:
        ValueError: there is none; or the one that the variable names is no such program.
    """
    named = os.environ.get(FFMPEG_VARIABLE)
    if named:
        program = shutil.which(named)
        if program is None or not _has_libvmaf(program):
            raise ValueError(f"{FFMPEG_VARIABLE}: {named} is no ffmpeg with libvmaf")
        return os.path.abspath(program)
    found = [shutil.which("ffmpeg")]
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        found.append(imageio_ffmpeg.get_ffmpeg_exe())
    for program in found:
        if program is not None and _has_libvmaf(program):
            return os.path.abspath(program)
    raise ValueError(
        f"vmaf_neg needs an ffmpeg with libvmaf: on PATH, named by {FFMPEG_VARIABLE}, or of the package imageio-ffmpeg"
    )


def vmaf_neg(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """VMAF v0.6.1 NEG of each frame, 0 to 100: 100 is as good as the sharp frame.

    Both clips are written as raw 8-bit RGB into a temporary folder (6 T H W bytes) and become YUV 4:4:4 by BT.709,
    limited range, in ffmpeg. The model was fitted to 1920 x 1080 seen from 3 picture heights: values of much smaller
    frames are good for comparing methods with each other, and for nothing else.

    Raises:
        ValueError: the shapes differ, a value is not finite, no ffmpeg with libvmaf, or it refuses the clips.

    Source: Li et al., Toward A Practical Perceptual Video Quality Metric, 2016; NEG: Netflix, 2020.
    """
    program = find_ffmpeg()
    with tempfile.TemporaryDirectory(prefix="spikevrt_vmaf_") as name:
        folder = Path(name)
        for clip, values in zip(("restored", "sharp"), eight_bit(restored, sharp), strict=True):
            (folder / f"{clip}.rgb").write_bytes(values.byte().permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        height, width = restored.shape[-2:]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i"]
        graph = f"[0:v]{_TO_YUV}[a];[1:v]{_TO_YUV}[b];[a][b]libvmaf=model=version={MODEL}"
        graph += f":n_threads={NUM_THREADS}:log_fmt=json:log_path=vmaf.json"
        output = ["-lavfi", graph, "-f", "null", "-"]
        inputs = [*raw, "restored.rgb", *raw, "sharp.rgb"]
        ran = _run([program, "-hide_banner", "-nostdin", "-loglevel", "error", *inputs, *output], folder)
        log = folder / "vmaf.json"
        if ran.returncode != 0 or not log.is_file():
            lines = ran.stderr.strip().splitlines() or ["no message"]
            raise ValueError(f"{program}: libvmaf refuses clips of {width}x{height}: {lines[-1].strip()}")
        frames = json.loads(log.read_text(encoding="utf-8"))["frames"]
    assert len(frames) == len(restored), (len(frames), len(restored))
    return torch.tensor([frame["metrics"]["vmaf"] for frame in frames], dtype=torch.float64)


@functools.cache
def _has_libvmaf(program: str) -> bool:
    try:
        return " libvmaf " in _run([program, "-hide_banner", "-filters"], Path.cwd()).stdout
    except OSError:
        return False


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
