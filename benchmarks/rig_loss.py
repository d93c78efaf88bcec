"""What is lost where the two cameras do not lie on each other?

    python benchmarks/rig_loss.py PHOTOS... [--parallax | --large]

Each photograph is filmed by a perfect rig and by the rigs of `RIGS`, the same scene, and restored by the default
weights: with the registration that the simulator used, and as `spikevrt align` finds it. PSNR in dB, of the pixels
that the sensor sees (and of whole frames), and what the perfect rig has there. Beside ours, the ways that lost: spikes
brought onto the frame between the sensor's pixels, by bilinear interpolation and by cubic splines.

--parallax films two planes, of which the nearer is seen from the sensor so many frame pixels further right. --large
films at the size of real cameras, and where the ratio is no whole number.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikevrt.align.estimate import AlignOptions, estimate_alignment, write_estimate
from spikevrt.align.registration import Cameras
from spikevrt.recording.alignment import Alignment, read_at, same_field, sensor_positions
from spikevrt.recording.frames import read_image, to_float, write_image
from spikevrt.recording.recording import Recording, open_recording, with_alignment
from spikevrt.recording.sidecar import SIDECAR
from spikevrt.represent.inputs import BinnedSpikes, network_inputs
from spikevrt.represent.interval import expected_counts
from spikevrt.represent.voxel import VoxelStats
from spikevrt.restore.clip import restore_clip
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.sensor import RigView
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import _film, _open_scene, simulate_recording

# Name -> the rig, and frame pixels per sensor pixel.
RIGS = {
    "shift 6, -4 px (whole sensor pixels)": (RigConfig(shift_x_px=6, shift_y_px=-4), 2),
    "shift 5, -3 px (half)": (RigConfig(shift_x_px=5, shift_y_px=-3), 2),
    "shift 4.5, -3.5 px": (RigConfig(shift_x_px=4.5, shift_y_px=-3.5), 2),
    "rotation 1.5 degrees": (RigConfig(rotate_deg=1.5), 2),
    "scale 1.03": (RigConfig(scale=1.03), 2),
    "rotation 3 degrees, scale 0.9": (RigConfig(rotate_deg=3, scale=0.9), 2),
    "rotation -2 degrees, scale 1.1, shift": (RigConfig(rotate_deg=-2, scale=1.1, shift_x_px=7.3, shift_y_px=2.6), 2),
    "ratio 4: rotation 1.5 degrees, shift": (RigConfig(rotate_deg=1.5, shift_x_px=6.3, shift_y_px=-3.4), 4),
}
PARALLAX_PX = (0, 2, 4, 8)
# Name -> size that is filmed, its ratio, and the size that frames are resampled to.
LARGE = {
    "1600x1000 beside 400x250": ((1600, 1000), 4, (1600, 1000)),
    "1280x720 beside 400x250": ((1200, 750), 3, (1280, 720)),
}
LARGE_RIG = RigConfig(rotate_deg=2, scale=0.95, shift_x_px=11.4, shift_y_px=-7.7)
Read = Callable[[Tensor, Tensor], Tensor]


def film(photo: Path, out: Path, rig: RigConfig, ratio: int, *, perfect: bool = False, **settings: float) -> Recording:
    """The photograph filmed by the rig or, of the very same scene, by a perfect one."""
    rig = dataclasses.replace(rig, margin_ticks=64)
    options = SimulateOptions(
        **{"frames": 2, "width": 224, "height": 160, "motion_px": 20.0, "seed": 7} | settings,  # type: ignore[arg-type]
        sensor=dataclasses.replace(sensor_preset("bright"), ratio=ratio), rig=rig,
    )  # fmt: skip
    if not perfect:
        return simulate_recording(photo, out, options)
    sizes = {"width": options.width, "height": options.height, "ratio": ratio}
    # How far the scene reaches beyond the frame decides what of the photograph is filmed.
    scene, origin = _open_scene(photo, options, (), pad_px=RigView(rig, **sizes).pad_px)
    _film((scene, scene), RigView(RigConfig(), **sizes), out, options, origin, None)
    return open_recording(out)


def told(recording: Recording) -> Recording:
    """The recording under the registration that the simulator used."""
    if "rig" not in recording.provenance:
        return recording
    rows = tuple(map(tuple, recording.provenance["rig"]["homography"]))
    return with_alignment(recording, Alignment(homography=rows))  # type: ignore[arg-type]


def found(recording: Recording, *, flow: bool = False) -> tuple[Recording, float]:
    """The recording as `spikevrt align` registers it, and how far off the frame's worst corner is, in frame pixels."""
    write_estimate(recording, estimate_alignment(recording, AlignOptions(flow=flow)))
    aligned = open_recording(recording.root)
    assert recording.spikes is not None
    cameras = Cameras(recording.width, recording.height, recording.spikes.width, recording.spikes.height)
    plain = same_field(recording.width, recording.height, recording.spikes.width, recording.spikes.height)
    matrix = np.array(aligned.alignment.homography or plain)
    truth = np.array(recording.provenance["rig"]["homography"])
    return aligned, cameras.corner_gap_px(matrix, truth)


def mean_psnr(frames: list[Tensor], recording: Recording, seen: np.ndarray) -> tuple[float, float]:
    """Over the pixels that are `seen`, and over all."""
    scores = []
    for index, frame in enumerate(frames):
        errors = (frame.clamp(0, 1) - to_float(recording.read_sharp(index))).square().numpy()
        scores.append([-10 * np.log10(errors[:, seen].mean()), -10 * np.log10(errors.mean())])
    inside, whole = np.mean(scores, axis=0)
    return float(inside), float(whole)


def seen_pixels(recording: Recording) -> np.ndarray:
    view = recording.on_sensor.view
    if view is None:
        return np.ones((recording.height, recording.width), dtype=bool)
    x, y = view.on_view.unbind(-1)
    height, width = view.on_frame.shape[:2]
    return ((x >= 0) & (y >= 0) & (x <= width) & (y <= height)).numpy()


def between_pixels(restorer: Restorer, recording: Recording, read: Read) -> list[Tensor]:
    """The frames, unmoved, with spikes that are read between the sensor's pixels (the other way)."""
    spec, info = restorer.info.model.spikes, restorer.info
    assert spec is not None and recording.spikes is not None
    sensor = {"sensor_width": recording.spikes.width, "sensor_height": recording.spikes.height}
    ratio = round(recording.width / recording.spikes.width)
    sizes = {"width": recording.width, "height": recording.height, "ratio": ratio, **sensor}
    positions = torch.from_numpy(sensor_positions(recording.alignment, **sizes))
    restored = []
    for index, exposure in enumerate(recording.exposures):
        ticks = torch.from_numpy(recording.read_exposure_spikes(index))
        counts = read(expected_counts(ticks, num_bins=spec.num_bins, binning=spec.binning), positions)
        spikes = BinnedSpikes(counts.clamp_min(0), exposure.num_ticks)
        stats = VoxelStats(info.voxel_mean, info.voxel_std)
        frame, voxels = network_inputs(spec, stats, recording.read_blur_deep(index), spikes)
        restored.append(restore_clip(restorer.network, frame[None], voxels[None], restorer.options)[0])
    return restored


def by_splines(counts: Tensor, positions: Tensor) -> Tensor:
    from scipy.ndimage import map_coordinates

    x, y = (np.clip(positions[..., k].numpy() - 0.5, 0, counts.shape[-1 - k] - 1) for k in (0, 1))
    planes = [map_coordinates(one.astype(np.float64), [y, x], order=3, mode="mirror") for one in counts.numpy()]
    return torch.from_numpy(np.stack(planes)).float()


def rigs(photos: list[Path], restorer: Restorer) -> None:
    print(
        "PSNR of the pixels that the sensor sees, dB, means over the photographs; the last three in brackets: whole "
        "frames.\n\n| rig | spikes: bilinear | spikes: splines | frames: known | frames: found | perfect rig | "
        "corner px, median | worst |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, (rig, ratio) in RIGS.items():
        rows, corners = [], []
        for photo in photos:
            with tempfile.TemporaryDirectory() as folder:
                perfect = film(photo, Path(folder) / "perfect", rig, ratio, perfect=True)
                unaligned = film(photo, Path(folder) / "rig", rig, ratio)
                known = told(unaligned)
                seen = seen_pixels(known)
                row = [mean_psnr(between_pixels(restorer, known, read), known, seen) for read in (read_at, by_splines)]
                row.append(mean_psnr(list(restorer.frames(known)), known, seen))
                try:
                    aligned, corner = found(unaligned)
                    row.append(mean_psnr(list(restorer.frames(aligned)), aligned, seen))
                except ValueError as error:
                    print(f"{name}, {photo.stem}: refused: {error}")
                    aligned, corner = unaligned, float("nan")
                    row.append((float("nan"), float("nan")))
                row.append(mean_psnr(list(restorer.frames(perfect)), perfect, seen))
            rows.append(row)
            corners.append(corner)
        means = np.nanmean(rows, axis=0)
        cells = [f"{inside:.2f}" for inside, _ in means[:2]]
        cells += [f"{inside:.2f} ({whole:.2f})" for inside, whole in means[2:]]
        print(f"| {name} | {' | '.join(cells)} | {np.nanmedian(corners):.2f} | {np.nanmax(corners):.2f} |", flush=True)


def parallax(photos: list[Path], restorer: Restorer) -> None:
    print(
        "PSNR of whole frames, dB, means over the photographs; a large nearer plane before the far one.\n\n"
        "| parallax px | the far plane's registration | align | align --flow | flow kept | blurry |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for amount in PARALLAX_PX:
        rows, num_kept = [], 0
        for photo in photos:
            with tempfile.TemporaryDirectory() as folder:
                rig = RigConfig(parallax_px=float(amount))
                unaligned = film(photo, Path(folder) / "rig", rig, 2, num_layers=1, motion_px=12.0)
                everything = np.ones((unaligned.height, unaligned.width), dtype=bool)
                blurry = [unaligned.read_blur_deep(index) for index in range(unaligned.num_frames)]
                row = [mean_psnr(list(restorer.frames(unaligned)), unaligned, everything)[1]]
                for flow in (False, True):
                    if amount:
                        aligned, _ = found(unaligned, flow=flow)
                        num_kept += aligned.alignment.flow is not None
                        row.append(mean_psnr(list(restorer.frames(aligned)), aligned, everything)[1])
                    else:
                        row.append(row[0])
                row.append(mean_psnr(blurry, unaligned, everything)[1])
            rows.append(row)
        cells = [f"{value:.2f}" for value in np.mean(rows, axis=0)]
        cells.insert(3, f"{num_kept} of {len(photos)}")
        print(f"| {amount} | {' | '.join(cells)} |", flush=True)


def resampled(recording: Recording, size: tuple[int, int]) -> Recording:
    """The recording with frames of another size, where they lie; the rig's truth follows."""
    import cv2

    for path in (*recording.blur, *recording.sharp):  # type: ignore[misc]
        write_image(path, cv2.resize(read_image(path), size, interpolation=cv2.INTER_CUBIC))
    sidecar = recording.root / SIDECAR
    values = json.loads(sidecar.read_text())
    values["frames"] |= {"width": size[0], "height": size[1]}
    if "rig" in values["provenance"]:
        smaller = np.diag([recording.width / size[0], recording.height / size[1], 1.0])
        truth = np.array(values["provenance"]["rig"]["homography"]) @ smaller
        values["provenance"]["rig"]["homography"] = truth.tolist()
    sidecar.write_text(json.dumps(values))
    return open_recording(recording.root)


def large(photos: list[Path], restorer: Restorer) -> None:
    print(
        "PSNR of the pixels that the sensor sees, dB, and how far off `align` is at the frame's worst corner.\n\n"
        "| cameras | photograph | known | found | perfect rig | corner px |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    short = {"exposure_ticks": 64, "period_ticks": 72}
    for name, ((width, height), ratio, size) in LARGE.items():
        for photo in photos:
            with tempfile.TemporaryDirectory() as folder:
                settings = {"width": width, "height": height, "motion_px": 40.0, **short}
                perfect, unaligned = (
                    resampled(film(photo, Path(folder) / str(k), LARGE_RIG, ratio, perfect=k == 0, **settings), size)
                    for k in range(2)
                )
                known = told(unaligned)
                aligned, corner = found(unaligned)
                seen = seen_pixels(known)
                scores = [mean_psnr(list(restorer.frames(one)), one, seen)[0] for one in (known, aligned, perfect)]
            cells = " | ".join(f"{value:.2f}" for value in scores)
            print(f"| {name} | {photo.stem} | {cells} | {corner:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--parallax", action="store_true")
    parser.add_argument("--large", action="store_true")
    parsed = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    measure = parallax if parsed.parallax else large if parsed.large else rigs
    measure(parsed.photos, Restorer("spikefold_tiny", RestoreOptions(device="cpu")))
