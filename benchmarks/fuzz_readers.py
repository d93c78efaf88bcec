"""What `benchmarks/fuzz.py` damages: small valid files of every format that is read, and how a verb reads them.

Pictures and spikes are crops of what ships (src/spikevrt/assets); the files are written by our own tools, and by the
libraries that other people write them with.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import cv2  # noqa: F401 (imported late otherwise, by every child)
import h5py
import numpy as np
import OpenEXR  # noqa: F401
import torch
from fuzz import Case
from PIL import Image

from spikevrt import __file__ as PACKAGE
from spikevrt.app.uploads import open_upload
from spikevrt.checkpoint import WeightsInfo, load_state, load_weights, save_state, save_weights
from spikevrt.config import ModelConfig, load_config
from spikevrt.data.dataset import open_dataset
from spikevrt.evaluate.results import read_results
from spikevrt.formats.convert import open_source
from spikevrt.formats.voxel_files import open_voxels
from spikevrt.migrate.config_file import import_config, read_old_config
from spikevrt.mux.join import write_video
from spikevrt.recording.alignment import _read_flow
from spikevrt.recording.frames import image_size, read_image, read_pixels, write_pixels
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import NOTHING_STATED, Exposure, StreamFormat, read_spikecv_config
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter, pack, sha256_file
from spikevrt.recording.spike_formats import open_stream, write_stream_sidecar
from spikevrt.recording.stored import write_sidecar
from spikevrt.recording.stream import SpikeStream, pack_sps100
from spikevrt.recording.time_tables import table_times, trigger_times
from spikevrt.recording.video import iter_video, probe_video

ASSETS = Path(PACKAGE).parent / "assets"
ROOT = Path(PACKAGE).parents[2]
MOST_ZIPPED = 1 << 22


def make(name: str) -> list[Case]:
    """The cases of one reader, built in a child: libraries that start threads must not have done so here."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_send, args=(name, theirs))
    process.start()
    theirs.close()
    cases: list[Case] = ours.recv()
    process.join()
    return cases


def _send(name: str, pipe: Connection) -> None:
    with tempfile.TemporaryDirectory() as place:
        pipe.send(READERS[name](Path(place)))


def _picture(height: int = 18, width: int = 26) -> np.ndarray:
    with Image.open(ASSETS / "chelsea.jpg") as image:
        return np.asarray(image.convert("RGB"))[100 : 100 + height, 120 : 120 + width].copy()


def _spikes(num_ticks: int = 29) -> np.ndarray:
    """(T, 10, 14), real ones in low light, made denser by joining pixels."""
    with np.load(ASSETS / "uhsr_200x250x250.npz") as archive:
        return archive["spk"][:num_ticks, 40:120, 40:152].reshape(num_ticks, 10, 8, 14, 8).max(axis=(2, 4))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _file(name: str, data: bytes, read: Callable[[Path], Any], **more: Any) -> Case:
    return Case(name, {name: data}, name, read, **more)


def _only(folder: Path) -> Path:
    (path,) = (path for path in folder.iterdir() if path.suffix != ".json")
    return path


def _all_of(stream: SpikeStream) -> list[np.ndarray]:
    """What is read in windows and counted, of both ends."""
    middle, most = stream.num_ticks // 2, min(stream.num_ticks, 64)
    first, last = stream.read(0, most), stream.read(stream.num_ticks - most, stream.num_ticks)
    counts = stream.count([stream.num_ticks - most, stream.num_ticks])
    assert np.array_equal(counts[0], last.sum(axis=0, dtype=np.int64)), "count and read contradict each other"
    assert first.shape[1:] == (stream.height, stream.width) and 0 <= middle < stream.num_ticks
    return [first, last]


# --- pictures and video ---


def read_picture(folder: Path) -> np.ndarray:
    path = _only(folder)
    size, pixels = image_size(path), read_pixels(path)
    assert size == pixels.shape[:2], "size and picture contradict each other"
    return pixels


def _pictures(suffix: str, *depths: str) -> Callable[[Path], list[Case]]:
    def build(place: Path) -> list[Case]:
        cases = []
        for depth in depths:
            picture = _picture()
            if depth != "uint8":
                picture = picture.astype(depth) * (257 if depth == "uint16" else np.float32(1 / 255))
            path = place / f"{depth}{suffix}"
            if suffix == ".tiff" and depth == "uint8":
                Image.fromarray(picture).save(path, compression="tiff_lzw")
            else:
                write_pixels(path, picture)
            cases.append(_file(path.name, path.read_bytes(), read_picture, guarded=suffix == ".png"))
        return cases

    return build


def read_video(folder: Path) -> list[Any]:
    path = _only(folder)
    info, frames = probe_video(path), list(iter_video(path))
    assert len(frames) == info.num_frames, "fewer or more frames than were counted"
    return [frames, info.num_frames]


def _videos(place: Path) -> list[Case]:
    frames = [np.roll(_picture(48, 64), 3 * index, axis=1) for index in range(6)]
    write_video(place / "h264.mp4", frames, 25.0)
    for name, codec in (("mjpeg.avi", "mjpeg"), ("ffv1.mkv", "ffv1"), ("mpeg2.ts", "mpeg2video"), ("vp9.webm", "vp9")):
        with av.open(str(place / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    return [_file(name, data, read_video) for name, data in _bytes(place).items()]


# --- arrays ---


def read_stream(folder: Path) -> list[np.ndarray]:
    return _all_of(open_stream(_only(folder)))


def read_array_picture(folder: Path) -> np.ndarray:
    return read_image(_only(folder))


def read_voxels(folder: Path) -> list[np.ndarray]:
    return _all_of(open_voxels([_only(folder)])[0])


def read_flow(folder: Path) -> np.ndarray:
    return _read_flow(_only(folder))


def read_triggers(folder: Path) -> Any:
    return trigger_times(_only(folder), (0, 1, 2), 100).starts


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _arrays(place: Path) -> list[Case]:
    spikes = _spikes()
    return [
        _file("spikes.npy", _npy(spikes), read_stream),
        _file("floats.npy", _npy(np.asfortranarray(spikes.astype(">f4"))), read_stream),
        _file("picture.npy", _npy(_picture()), read_array_picture),
        _file("voxels.npy", _npy(spikes[:24].reshape(4, 6, 10, 14).sum(axis=1).astype(np.float16)), read_voxels),
        _file("flow.npy", _npy(np.linspace(-1, 1, 40, dtype=np.float32).reshape(2, 4, 5)), read_flow),
        _file("triggers.npy", _npy(np.array([3, 40, 77])), read_triggers),
    ]


def _archives(place: Path) -> list[Case]:
    spikes = _spikes()
    np.savez(place / "stored.npz", spk=spikes)
    np.savez_compressed(place / "deflated.npz", spk=spikes.astype(np.int16))
    planes = np.packbits(spikes, axis=0, bitorder="little")
    np.savez_compressed(place / "planes.npz", seq=planes, length=np.array(len(spikes)))
    np.savez(place / "planes_stored.npz", seq=planes, length=np.array(len(spikes)))
    return [_file(name, data, read_stream, guarded=True) for name, data in _bytes(place).items()]


def _h5(place: Path) -> list[Case]:
    spikes = _spikes()
    with h5py.File(place / "plain.h5", "w") as file:
        file["raw_spike"] = spikes
    with h5py.File(place / "chunks.h5", "w") as file:
        file.create_dataset("a/spikes", data=spikes.astype(np.int8), chunks=(5, 10, 14), compression="gzip")
    with h5py.File(place / "latest.h5", "w", libver="latest") as file:
        file.create_dataset("raw_spike", data=spikes.astype(bool), chunks=(1, 10, 14), fletcher32=True)
    return [_file(name, data, read_stream) for name, data in _bytes(place).items()]


# --- recordings ---


def _compared(stream: SpikeStream, sha256: str | None) -> list[np.ndarray]:
    """What `convert` and `inspect` do where a checksum stands beside a spike file."""
    (file,) = stream.files
    if sha256 is not None and sha256_file(file) != sha256:
        raise ValueError(f"{file}: sha256 differs")
    return _all_of(stream)


def read_spike_file(folder: Path) -> list[np.ndarray]:
    stream, _, sha256 = open_source(_only(folder), {})
    return _compared(stream, sha256)


def read_recording(folder: Path) -> list[Any]:
    return contents(open_recording(folder / "street"))


def contents(recording: Recording) -> list[Any]:
    frames = [recording.read_blur(index) for index in range(recording.num_frames)]
    frames += [recording.read_sharp(index) for index in range(recording.num_frames if recording.sharp else 0)]
    counts = [recording.count_exposure(index, [0, one.num_ticks]) for index, one in enumerate(recording.exposures)]
    assert recording.spikes is not None
    return [_compared(recording.spikes, recording.stored_sha256), frames, counts]


def _recording(root: Path) -> Path:
    for kind in ("blur", "sharp"):
        for index in range(3):
            write_pixels(root / kind / f"{index:06d}.png", np.roll(_picture(20, 28), index, axis=0))
    with SpikeWriter(root / "spikes.dat", SpikeGeometry(14, 10)) as writer:
        writer.append(_spikes())
    exposures = [Exposure(i, 10 * i, 10 * i + 9, i / 100, (10 * i + 9) / 1000) for i in range(3)]
    write_sidecar(
        root, spikes=writer, tick_rate_hz=1000.0, width=28, height=20, fps=100.0, exposures=exposures,
        provenance={"seed": 3},
    )  # fmt: skip
    return root


def _dat(place: Path) -> list[Case]:
    files = _bytes(_recording(place / "street").parent)
    spikes = _spikes()
    cases = [
        Case("spikes.dat", files, "street/spikes.dat", read_recording, guarded=True),
        Case("recording.json", files, "street/recording.json", read_recording),
        Case("blur.png", files, "street/blur/000001.png", read_recording, guarded=True),
    ]
    wide = np.repeat(np.repeat(spikes[:6, :4], 1, axis=1), 72, axis=2)[:, :, :1000]
    for name, form, data in (
        ("packed", StreamFormat("packed", 14, 10, "bottom-up"), pack(spikes, SpikeGeometry(14, 10))),
        ("sps100", StreamFormat("sps100", 1000, 4), pack_sps100(wide)),
        ("bytes", StreamFormat("bytes", 14, 10), spikes.tobytes()),
    ):
        folder = place / name
        folder.mkdir()
        path = folder / f"{name}.dat"
        path.write_bytes(data)
        num_ticks = open_stream(path, form).num_ticks
        write_stream_sidecar(path, form, num_ticks=num_ticks, tick_rate_hz=2e4, sha256=sha256_file(path))
        pair = _bytes(folder)
        cases += [
            Case(path.name, pair, path.name, read_spike_file, guarded=True),
            Case(f"{path.name}.json", pair, f"{path.name}.json", read_spike_file),
        ]
    return cases


def read_upload(folder: Path) -> list[Any]:
    return contents(open_upload(folder / "street.zip", (), NOTHING_STATED, folder / "unpacked", MOST_ZIPPED))


def read_uploaded_pictures(folder: Path) -> list[np.ndarray]:
    recording = open_upload(folder / "frames.zip", (), NOTHING_STATED, folder / "unpacked", MOST_ZIPPED)
    return [recording.read_blur(index) for index in range(recording.num_frames)]


def _zipped(files: Mapping[str, bytes], compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def _uploads(place: Path) -> list[Case]:
    files = _bytes(_recording(place / "street").parent)
    blur = {Path(name).name: data for name, data in files.items() if "/blur/" in name}
    return [
        _file("street.zip", _zipped(files, zipfile.ZIP_DEFLATED), read_upload, guarded=True),
        _file("frames.zip", _zipped(blur, zipfile.ZIP_STORED), read_uploaded_pictures),
    ]


# --- texts and weights ---


def read_prepared(folder: Path) -> Any:
    info = open_dataset(folder / "set")
    return [info.num_frames, [sequence.name for sequence in info.train]]


def read_scores(folder: Path) -> Any:
    return read_results(folder).metrics


def _json(place: Path) -> list[Case]:
    from spikevrt.config import PrepareOptions
    from spikevrt.data.prepare import Sources, prepare
    from spikevrt.evaluate.results import FORMAT, VERSION

    recording = open_recording(_recording(place / "made" / "street"))
    prepare(Sources([recording]), place / "data" / "set", PrepareOptions(num_bins=4, val_fraction=0))
    files = _bytes(place / "data")
    frames = [{"frame_idx": index, "psnr_rgb": 30.5} for index in range(2)]
    scores = {
        "format": FORMAT, "version": VERSION, "protocol": {"psnr_rgb": "of 8 bits"}, "environment": {}, "options": {},
        "data": {"sha256": "0" * 64, "recordings": [{"name": "a", "num_frames": 2, "width": 28, "height": 20}]},
        "methods": [{"name": "blur", "mean": {"psnr_rgb": 30.5},
                     "sequences": [{"name": "a", "mean": {"psnr_rgb": 30.5}, "frames": frames}]}],
    }  # fmt: skip
    return [
        Case("dataset.json", files, "set/dataset.json", read_prepared),
        Case("sequence.json", files, "set/train/street/sequence.json", read_prepared),
        _file("results.json", json.dumps(scores, indent=1).encode(), read_scores),
    ]


def read_config(folder: Path) -> Any:
    return load_config(_only(folder)).to_dict()


def read_older(folder: Path) -> Any:
    return import_config(read_old_config(_only(folder))).lines


def read_spikecv(folder: Path) -> Any:
    return read_spikecv_config(_only(folder))


OLDER = b"""MODEL:
  NAME: vrt
  UPSCALE: 1
DATA:
  NUM_FRAMES: 6
  NORM: {MEAN: 0.5, STD: 0.25}
TRAIN: {LR: 4.0e-4, STEPS: 100}
"""


def _yaml(place: Path) -> list[Case]:
    spikecv = b"filename: spikes.dat\nspike_w: 400\nspike_h: 250\nis_labeled: false\nlabeled_data_type: [0]\n"
    return [
        *(_file(name, (ROOT / "configs" / name).read_bytes(), read_config) for name in ("tiny.yaml", "fold.yaml")),
        _file("older.yaml", OLDER, read_older),
        _file("config.yaml", spikecv, read_spikecv),
    ]


def read_network(folder: Path) -> Any:
    tensors, info = load_weights(_only(folder))
    return [{name: value.numpy() for name, value in tensors.items()}, info.voxel_mean, info.model.name]


def read_run(folder: Path) -> Any:
    state = load_state(_only(folder))
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in state.items()}


def _weights(place: Path) -> list[Case]:
    tensors = {name: torch.arange(size, dtype=torch.float32) for name, size in (("a.weight", 40), ("b.bias", 7))}
    save_weights(place / "weights.safetensors", tensors, WeightsInfo(ModelConfig(), 0.5, 0.25, {"step": 1}))
    return [_file(name, data, read_network, guarded=True) for name, data in _bytes(place).items()]


def _states(place: Path) -> list[Case]:
    save_state(place / "last.state", {"step": 3, "weight": torch.arange(40.0), "words": ["a", 1.5, None]})
    return [_file(name, data, read_run, guarded=True) for name, data in _bytes(place).items()]


def read_table(folder: Path) -> Any:
    return table_times(_only(folder), (0, 1, 2), Fraction(20000)).starts


def _tables(place: Path) -> list[Case]:
    return [
        _file("times.csv", b"frame,start_s,exposure_ms\n0,0.0125,8\n1,0.0525,8\n2,0.0925,8\n", read_table),
        _file("triggers.txt", b"3\n40\n77\n", read_triggers),
    ]


READERS: dict[str, Callable[[Path], list[Case]]] = {
    "png": _pictures(".png", "uint8", "uint16"),
    "jpg": _pictures(".jpg", "uint8"),
    "tiff": _pictures(".tiff", "uint8", "uint16", "float32"),
    "exr": _pictures(".exr", "float32"),
    "npy": _arrays,
    "npz": _archives,
    "h5": _h5,
    "dat": _dat,
    "json": _json,
    "yaml": _yaml,
    "csv": _tables,
    "safetensors": _weights,
    "state": _states,
    "zip": _uploads,
    "video": _videos,
}
