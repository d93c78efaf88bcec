"""How much less `crf` HDR needs for the loss that SDR has.

PQ and HLG spread far more light over their codes than sRGB does, so an encoder's error of one code is a larger error of
light. Eight frames of a moving photograph are encoded as they are and by each curve, decoded, and compared in display
(sRGB) values: PSNR, and bytes. White is 1000 nits, or 200 (PQ), or HLG's brightest.

    python benchmarks/hdr_crf.py > benchmarks/hdr_crf_cpu_DATE.md
"""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from spikevrt.light import HLG, PQ, linear_to_hdr, linear_to_srgb, srgb_to_linear
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.recording.frames import read_image, to_float, to_uint8, to_uint16
from spikevrt.recording.video import iter_video
from spikevrt.restore.options import VideoFormat

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "src" / "spikevrt" / "assets" / "bridge.jpg"
NUM_FRAMES, HEIGHT, WIDTH, STEP_PX = 8, 256, 384, 3
SDR = (("h264", 8, 16), ("hevc", 8, 16), ("hevc", 10, 16), ("av1", 10, 18))


def measured(frames: list[Tensor], format: VideoFormat, transfer: int, white: float) -> tuple[float, int]:
    """PSNR in display values, and bytes. `white`: light of display value 1."""
    is_hdr = transfer in (PQ, HLG)
    tags = VideoTags(primaries=9 if is_hdr else 1, transfer=transfer)
    coded = [linear_to_hdr(srgb_to_linear(one) * white, transfer) if is_hdr else one for one in frames]
    images = [to_uint16(one) if format.bits == 10 else to_uint8(one) for one in coded]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        write_segment(path, enumerate(images), time_base=Fraction(1, 25), fps=25, format=format, tags=tags)
        found = [
            linear_to_srgb((srgb_to_linear(to_float(one)) / white).clamp(0, 1)) for one in iter_video(path, deep=True)
        ]
        num_bytes = path.stat().st_size
    errors = torch.stack([(a - b).square().mean() for a, b in zip(found, frames, strict=True)])
    return 10 * math.log10(1 / float(errors.mean())), num_bytes


def main() -> None:
    picture = to_float(read_image(PHOTOGRAPH))
    top, left = (picture.shape[1] - HEIGHT) // 2, (picture.shape[2] - WIDTH) // 2
    lefts = [left + STEP_PX * index for index in range(NUM_FRAMES)]
    frames = [picture[:, top : top + HEIGHT, at : at + WIDTH].contiguous() for at in lefts]
    print(f"{PHOTOGRAPH.name}, {NUM_FRAMES} frames of {WIDTH}x{HEIGHT}, {STEP_PX} px a frame\n")
    print("| curve | white | codec | bits | crf | PSNR dB | kB |\n| --- | --- | --- | ---: | ---: | ---: | ---: |")
    rows = [("sRGB", "1", 1, 1.0, *one) for one in SDR]
    for name, transfer, white, told in (
        ("PQ", PQ, 1.0, "1000 nits"),
        ("PQ", PQ, 0.2, "200 nits"),
        ("HLG", HLG, 1.0, "1"),
    ):
        rows += [(name, told, transfer, white, "hevc", 10, crf) for crf in (16, 12, 10, 8, 6, 4)]
        rows += [(name, told, transfer, white, "av1", 10, crf) for crf in (18, 14, 10, 6)]
    for name, told, transfer, white, codec, bits, crf in rows:
        psnr, num_bytes = measured(frames, VideoFormat(codec, bits=bits, crf=crf), transfer, white)
        print(f"| {name} | {told} | {codec} | {bits} | {crf} | {psnr:.2f} | {num_bytes / 1e3:.1f} |")


if __name__ == "__main__":
    main()
