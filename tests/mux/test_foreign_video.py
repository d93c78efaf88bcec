"""Video as the world writes it: each case was a public report against some tool; the right value is asserted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevrt.config import ModelConfig, SpikeConfig
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.recording.frames import read_pixels
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.sidecar import Stated, StreamFormat
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.video import VideoReader, iter_video, main_video, open_media, probe_video, timed_packets
from spikevrt.restore.options import RestoreOptions, VideoFormat
from tests.restore.conftest import RGB, FakeNetwork, identity, info, restore, stand_in

RATE = 48000


def _grey(level: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def _encode(
    path: Path, images: Sequence[Any], *, codec: str = "libx264", pixels: str = "yuv420p", fps: Any = 25, **options: Any
) -> None:
    """Images (RGB), or planes of the named pixels as PyAV takes them; `tags` are set on the encoder."""
    import av

    tags = options.pop("tags", {})
    field = options.pop("field", None)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options={key: str(value) for key, value in options.items()})
        for index, image in enumerate(images):
            is_rgb = image.ndim == 3
            frame: Any = av.VideoFrame.from_ndarray(image, format="rgb24" if is_rgb else pixels)
            if index == 0:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
                for name, value in tags.items():
                    setattr(stream.codec_context, name, value)
            frame.pts, frame.time_base = index, 1 / Fraction(fps)
            if field:
                frame = _marked(frame, pixels, field)
            for name in ("color_range", "colorspace", "color_trc", "color_primaries"):
                if name in tags and not is_rgb:
                    setattr(frame, name, tags[name])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _marked(frame: Any, pixels: str, field: str) -> Any:
    """The frame as one of two fields."""
    import av

    graph, frame = av.filter.Graph(), frame.reformat(format=pixels)
    made = f"video_size={frame.width}x{frame.height}:pix_fmt={pixels}:time_base=1/25:pixel_aspect=1/1"
    graph.link_nodes(graph.add("buffer", made), graph.add("setfield", field), graph.add("buffersink")).configure()
    frame.time_base = Fraction(1, 25)
    graph.vpush(frame)
    return graph.vpull()


def _copy_packets(source: Path, out: Path, *, skip: int = 0) -> None:
    import av

    with av.open(str(source)) as found, av.open(str(out), "w") as cut:
        stream = cut.add_stream_from_template(found.streams.video[0], opaque=True)
        for index, packet in enumerate(found.demux(video=0)):
            if packet.size and index >= skip:
                packet.stream = stream
                cut.mux(packet)


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restoring changes nothing."""
    stand_in(lambda weights, device: (identity(), info(RGB)), monkeypatch.setattr)


def _restored(source: Path, out: Path, **job: Any) -> dict[str, Any]:
    return restore(Path("w"), loose_recording(source, None), out, RestoreOptions(tile_px=0), **job)


# 1: the position of chroma


def _red_at(image: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of what is redder than the ground."""
    red = image[..., 0].astype(float) - image[..., 1]
    red = np.clip(red - 0.2 * red.max(), 0, None)  # without what an encoder leaves on the ground
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    return float((red * rows).sum() / red.sum()), float((red * columns).sum() / red.sum())


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_chroma_stays_where_it_is_however_often_a_video_is_written(tmp_path: Path, codec: str, bits: int) -> None:
    rows, columns = np.mgrid[0:96, 0:128]
    bump = np.exp(-((rows - 47.3) ** 2 + (columns - 60.4) ** 2) / 128)[..., None]
    image = np.round(128 + bump * [90.0, -30.0, -30.0]).astype(np.uint8)
    tags, format, there = VideoTags(), VideoFormat(codec, bits=bits, crf=2), _red_at(image)
    for passes in range(4):
        path = tmp_path / f"{passes}"
        write_segment(path, [(0, image)], time_base=Fraction(1, 25), fps=25, format=format, tags=tags)
        image = next(iter_video(path))
    assert _red_at(image) == pytest.approx(there, abs=0.1)  # half a pixel a pass, where the siting is mistaken


# 2, 3: clocks that wrap and begin anew


def _flash_and_beep(
    path: Path,
    *,
    begin: float = 0,
    num: int = 75,
    flash: int = 50,
    codec: str = "libx264",
    sound: str = "mp2",
    lead: int = 0,
) -> None:
    """Frame `flash` of `num` at 25 frames a second is white, and a tone of 0.1 s begins with it. The sound begins
    `lead` frames before the pictures."""
    import av

    with av.open(str(path), "w", options={"output_ts_offset": str(begin)}) as container:
        video: Any = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio: Any = container.add_stream(sound, rate=RATE)
        audio.codec_context.layout = "mono"
        form, kind, scale = ("s16", np.int16, 20000) if sound == "mp2" else ("fltp", np.float32, 0.6)
        audio.codec_context.format = form
        at, loud = np.arange((num + lead) * RATE // 25), (flash + lead) * RATE // 25
        tone = np.sin(at * 0.13) * ((at >= loud) & (at < loud + RATE // 10)) * scale
        step, done = audio.codec_context.frame_size or 1024, 0
        for index in range(num):
            frame = av.VideoFrame.from_ndarray(_grey(255 if index == flash else 20), format="rgb24")
            frame.pts, frame.time_base = index + lead, Fraction(1, 25)
            container.mux(video.encode(frame))
            while done < len(tone) and done <= (index + lead) * RATE // 25:
                samples: Any = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(tone[None, done : done + step].astype(kind)), format=form, layout="mono"
                )
                samples.sample_rate, samples.pts, samples.time_base = RATE, done, Fraction(1, RATE)
                container.mux(audio.encode(samples))
                done += step
        container.mux(video.encode())
        container.mux(audio.encode())


def _flashes(path: Path) -> list[float]:
    times = probe_video(path).times_s
    return [time for time, image in zip(times, iter_video(path), strict=True) if image.mean() > 150]


def _beeps(path: Path) -> list[float]:
    """When tones begin."""
    sound, times = [], []
    with open_media(path) as container:
        for packet in timed_packets(container, [container.streams.audio[0]]):
            for frame in packet.decode():
                samples = frame.to_ndarray().astype(float).reshape(-1)
                sound.append(samples)
                times.append(float(frame.pts * frame.time_base) + np.arange(len(samples)) / RATE)
    level, time = np.abs(np.concatenate(sound)), np.concatenate(times)
    loud = time[level > 0.3 * level.max()]
    return [float(loud[0]), *(float(b) for a, b in zip(loud, loud[1:], strict=False) if b - a > 0.2)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("name", "begin"), [("a.ts", 95442.5), ("a.ts", 95443.0), ("a.ts", 0), ("a.m2ts", 7200.0), ("a.mpg", 0)]
)
def test_sound_stays_with_the_picture_whatever_the_clock_of_the_stream(
    tmp_path: Path, unchanged: None, name: str, begin: float, suffix: str
) -> None:
    """33 bits of 1/90000 s wrap after 95443.7 s."""
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    _flash_and_beep(tmp_path / name, begin=begin, codec=codec)
    _restored(tmp_path / name, tmp_path / f"o{suffix}")
    assert _flashes(tmp_path / f"o{suffix}") == pytest.approx([2.0], abs=1e-3)
    assert _beeps(tmp_path / f"o{suffix}") == pytest.approx([2.0], abs=1e-3)


@pytest.mark.parametrize(("begin", "sound"), [(0, "mp2"), (5000, "mp2"), (0, "aac")])
def test_streams_one_after_the_other_are_one_video_with_its_sound(
    tmp_path: Path, unchanged: None, begin: float, sound: str
) -> None:
    _flash_and_beep(tmp_path / "p.ts", num=25, flash=12, sound=sound)
    _flash_and_beep(tmp_path / "q.ts", num=25, flash=12, sound=sound, begin=begin)
    (tmp_path / "pq.ts").write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("p.ts", "q.ts", "p.ts")))
    found = probe_video(tmp_path / "pq.ts")
    assert (found.num_frames, found.fps, found.is_variable) == (75, 25, False)
    assert found.times_s[-1] == pytest.approx(74 / 25)
    summary = _restored(tmp_path / "pq.ts", tmp_path / "o.mp4")
    assert summary["notes"] == [] and summary["fps"] == 25
    flashes = _flashes(tmp_path / "o.mp4")
    assert flashes == pytest.approx([0.48, 1.48, 2.48], abs=1e-3)
    assert _beeps(tmp_path / "o.mp4") == pytest.approx(flashes, abs=2e-3 if sound == "aac" else 1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("begin", [0, 95443.5])
def test_sound_before_the_first_picture_is_kept(tmp_path: Path, unchanged: None, begin: float, suffix: str) -> None:
    _flash_and_beep(tmp_path / "a.ts", num=50, flash=25, lead=10, begin=begin)
    _restored(tmp_path / "a.ts", tmp_path / f"o{suffix}")
    assert probe_video(tmp_path / f"o{suffix}").times_s[0] == pytest.approx(
        0.4, abs=0.02
    )  # less what the decoder of sound starts from
    assert _flashes(tmp_path / f"o{suffix}") == pytest.approx([1.4], abs=0.02)
    assert _beeps(tmp_path / f"o{suffix}") == pytest.approx(_flashes(tmp_path / f"o{suffix}"), abs=1e-3)


def test_sound_that_pauses_is_no_jump_of_the_clock(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.ts"), "w") as container:
        video: Any = container.add_stream("libx264", rate=5)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio: Any = container.add_stream("mp2", rate=RATE)
        audio.codec_context.layout, audio.codec_context.format = "mono", "s16"
        for index in range(80):
            frame = av.VideoFrame.from_ndarray(_grey(3 * index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 5)
            container.mux(video.encode(frame))
            if index in (5, 75):
                samples: Any = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = RATE, index * RATE // 5, Fraction(1, RATE)
                container.mux(audio.encode(samples))
        container.mux(video.encode())
        container.mux(audio.encode())
    with open_media(tmp_path / "a.ts") as container:
        packets = timed_packets(container, [container.streams.audio[0]])
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.size]
    assert times[-1] - times[0] == pytest.approx(14, abs=0.03)
    assert probe_video(tmp_path / "a.ts").times_s == pytest.approx([index / 5 for index in range(80)])


# 4, 5: curves of HDR, and depth


def _pq_nits(code: float) -> float:
    """SMPTE ST 2084, by its text."""
    root = code ** (1 / 78.84375)
    return float(10000 * (max(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125))


def _hlg_light(code: float) -> float:
    """ITU-R BT.2100, inverse OETF."""
    return code**2 / 3 if code <= 0.5 else (float(np.exp((code - 0.55991073) / 0.17883277)) + 0.28466892) / 12


CURVES = {16: _pq_nits, 18: _hlg_light}
PATCHES = (100, 250, 440, 520, 600, 723, 800, 900)  # luma of 10 bits; of PQ 0.1 to 4000 nits


def _patches(path: Path, transfer: int, codes: Sequence[int] = PATCHES, num: int = 3, codec: str = "ffv1") -> None:
    luma = np.repeat(np.repeat(np.array(codes, np.uint16)[None], 64, 0), 16, 1)
    chroma = np.full((32, luma.shape[1]), 512, np.uint16)  # both planes, each of half the rows and columns
    planes = np.concatenate([luma, chroma.reshape(-1, luma.shape[1])])
    tags = {"color_range": 1, "colorspace": 9, "color_trc": transfer, "color_primaries": 9}
    _encode(path, [planes] * num, codec=codec, pixels="yuv420p10le", tags=tags)


def _codes(path: Path, num: int = len(PATCHES)) -> tuple[np.ndarray, Any]:
    """Mean luma of each patch, as the file codes it, and a frame."""
    with open_media(path) as container:
        frame: Any = next(container.decode(main_video(container)))
        luma = frame.to_ndarray()[: frame.height].astype(float)
        assert frame.format.name == "yuv420p10le", frame.format.name
        return luma.reshape(frame.height, num, -1)[:, :, 3:-3].mean((0, 2)), frame


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_read_as_the_light_that_its_curve_says(tmp_path: Path, transfer: int) -> None:
    _patches(tmp_path / "a.mkv", transfer)
    frame = loose_recording(tmp_path / "a.mkv", None).read_blur_deep(1)
    shown = frame[:, :, 8::16].mean((0, 1)).double().numpy()
    light = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    expected = np.array([CURVES[transfer]((code - 64) / 876) for code in PATCHES]) / (1000 if transfer == 16 else 1)
    np.testing.assert_allclose(light, expected, rtol=0.002, atol=1e-5)
    eight = VideoReader(tmp_path / "a.mkv").read(1)[:, 8::16].mean((0, 2))
    np.testing.assert_allclose(eight, np.round(shown.clip(0, 1) * 255), atol=0.51)


@pytest.mark.parametrize("name", ["o.mp4", "o.mov", "o.mkv"])
@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_comes_out_as_it_went_in_by_default(tmp_path: Path, unchanged: None, transfer: int, name: str) -> None:
    """10 bits in, 10 bits out, the same codes, the same tags; also what is brighter than the network's white."""
    _patches(tmp_path / "a.mkv", transfer)
    summary = _restored(tmp_path / "a.mkv", tmp_path / name)
    codes, frame = _codes(tmp_path / name)
    np.testing.assert_allclose(codes, PATCHES, atol=1.0)
    written = probe_video(tmp_path / name)
    assert (written.bits, written.transfer, written.primaries) == (10, transfer, 9)
    assert (int(frame.colorspace), int(frame.color_range)) == (9, 1)
    assert not any("bits" in note for note in summary["notes"])


def test_fewer_bits_than_the_source_has_are_told(tmp_path: Path, unchanged: None) -> None:
    _patches(tmp_path / "a.mkv", 16)
    format = VideoFormat("h264", bits=8)
    assert (
        "o.mp4: 8 bits a colour, of 10 in a.mkv"
        in _restored(tmp_path / "a.mkv", tmp_path / "o.mp4", format=format)["notes"]
    )
    told = _restored(tmp_path / "a.mkv", tmp_path / "frames")["notes"]
    assert "frames: 8 bits a colour, of 10 in a.mkv; frames as png16 keep them" in told
    assert "frames: frames are of sRGB (EXR: linear light), in which 1 is 1000 nits" in told
    _restored(tmp_path / "a.mkv", tmp_path / "deep", frames="exr")
    light = read_pixels(tmp_path / "deep" / "000001.exr")[32, 8::16, 0]
    np.testing.assert_allclose(light, [_pq_nits((code - 64) / 876) / 1000 for code in PATCHES], rtol=2e-3, atol=1e-5)


def test_light_levels_that_are_not_carried_over_are_told(tmp_path: Path, unchanged: None) -> None:
    levels = (
        "hdr10=1:max-cll=1000,400:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    )
    luma = np.full((96, 64), 512, np.uint16)
    tags = {"color_range": 1, "colorspace": 9, "color_trc": 16, "color_primaries": 9}
    options = {"x265-params": f"log-level=none:{levels}"}
    _encode(tmp_path / "a.mp4", [luma] * 3, codec="libx265", pixels="yuv420p10le", tags=tags, **options)
    told = _restored(tmp_path / "a.mp4", tmp_path / "o.mp4")["notes"]
    assert told == ["o.mp4: the mastering display and light levels of a.mp4 are not carried over"]


@pytest.mark.parametrize(("transfer", "code", "ratio"), [(16, 518, 2.0), (16, 600, 0.5), (18, 500, 2.0)])
def test_spikes_relight_hdr_by_its_own_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: int, code: int, ratio: float
) -> None:
    """98 nits whose light was twice the mean in the middle of the exposure are 196 nits then, not 574."""
    _patches(tmp_path / "a.mkv", transfer, [code] * 4)
    # 40 ticks an exposure: in the middle eighth the pixel fires `ratio` times as often as over all of it
    rates = {2.0: (0.5, 0.25), 0.5: (0.25, 0.5)}[ratio]
    ticks = np.zeros((40, 32, 32), np.uint8)
    middle = slice(17, 23)
    for place, rate in ((np.arange(40), rates[1]), (np.arange(40)[middle], rates[0])):
        ticks[place] = (np.floor(np.arange(1, len(place) + 1) * rate) - np.floor(np.arange(len(place)) * rate))[
            :, None, None
        ]
    with SpikeWriter(tmp_path / "spikes.dat", SpikeGeometry(32, 32)) as writer:
        writer.append(np.concatenate([ticks] * 3))
    config = ModelConfig(spikes=SpikeConfig(num_bins=8, relight=True))
    network = FakeNetwork(config, lambda blur, vox: blur.clone())
    stand_in(lambda weights, device: (network, info(config)), monkeypatch.setattr)
    stream = open_stream(tmp_path / "spikes.dat", StreamFormat("packed", 32, 32))
    recording = loose_recording(tmp_path / "a.mkv", stream, Stated(tick_rate_hz=1000.0, exposure="40 ticks"))
    restore(Path("w"), recording, tmp_path / "o.mkv", RestoreOptions(tile_px=0))
    was, now = (CURVES[transfer]((value - 64) / 876) for value in (code, float(_codes(tmp_path / "o.mkv", 4)[0][1])))
    bins = ticks[:, 0, 0].reshape(8, 5).sum(1)
    stated = (bins[3:5].sum() / 10 + 0.02) / (bins.sum() / 40 + 0.02)
    assert now / was == pytest.approx(stated, rel=0.02)


# 6: luma alone


@pytest.mark.parametrize(
    ("codec", "pixels", "bits"),
    [("libx265", "gray", 8), ("libx265", "gray10le", 10), ("libx265", "gray12le", 12), ("ffv1", "gray", 8)]
    + [("ffv1", "gray10le", 10), ("ffv1", "gray12le", 12), ("ffv1", "gray16le", 16), ("libx264", "gray", 8)],
)
@pytest.mark.parametrize("code_range", [1, 2])
def test_black_and_white_of_a_grey_video_are_0_and_255(
    tmp_path: Path, codec: str, pixels: str, bits: int, code_range: int
) -> None:
    black, white = (16 << (bits - 8), 235 << (bits - 8)) if code_range == 1 else (0, (1 << bits) - 1)
    image = np.full((64, 64), black, np.uint8 if bits == 8 else np.uint16)
    image[:, 32:] = white
    options: dict[str, Any] = {"x265-params": "log-level=none:lossless=1"} if codec == "libx265" else {}
    options = {"qp": 0} if codec == "libx264" else options
    _encode(tmp_path / "a.mkv", [image] * 2, codec=codec, pixels=pixels, tags={"color_range": code_range}, **options)
    for deep, top in ((False, 255), (True, 255 if bits == 8 else 65535)):
        read = next(iter_video(tmp_path / "a.mkv", deep=deep))
        assert read.max() == top and (read[:, :30] == 0).all() and (read[:, 34:] == top).all()


# 7: packets that decode to nothing


def test_frames_are_counted_that_decode_where_a_stream_starts_between_refreshes(
    tmp_path: Path, unchanged: None
) -> None:
    images = [_grey(10 + 4 * index) for index in range(60)]
    _encode(tmp_path / "a.mp4", images, **{"x264-params": "intra-refresh=1:keyint=12:bframes=0"})
    _copy_packets(tmp_path / "a.mp4", tmp_path / "b.mp4", skip=24)
    found, decoded = probe_video(tmp_path / "b.mp4"), sum(1 for _ in iter_video(tmp_path / "b.mp4"))
    assert 0 < found.num_frames == decoded and found.num_frames + found.num_lost == 36
    summary = _restored(tmp_path / "b.mp4", tmp_path / "o.mp4")
    assert summary["num_frames"] == decoded
    assert probe_video(tmp_path / "o.mp4").num_frames == decoded


@pytest.mark.parametrize(
    ("codec", "name", "place"),
    [("libsvtav1", "a.mp4", 39), ("libsvtav1", "a.mp4", 9), ("libvpx-vp9", "a.mkv", 20), ("libx264", "a.mp4", 20)]
    + [("ffv1", "a.mkv", 20), ("libx265", "a.mp4", 39), ("prores_ks", "a.mov", 20)],
)
def test_pictures_that_cannot_be_decoded_are_left_out_and_told(
    tmp_path: Path, unchanged: None, codec: str, name: str, place: int
) -> None:
    """A packet of zeros, and what a decoder then leaves out with it; or it conceals all of it."""
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    images = [_grey(60 + 3 * index) for index in range(40)]
    options: dict[str, Any] = {"libx264": {"bf": 0}, "libx265": {"x265-params": "log-level=none:bframes=0"}}.get(
        codec, {}
    )
    _encode(tmp_path / name, images, codec=codec, pixels=pixels, **options)
    with open_media(tmp_path / name) as container:
        packets = [bytes(packet) for packet in container.demux(main_video(container)) if packet.size]
    data = (tmp_path / name).read_bytes()
    assert data.count(packets[place]) == 1 and len(packets) == 40
    (tmp_path / name).write_bytes(data.replace(packets[place], bytes(len(packets[place]))))
    found = probe_video(tmp_path / name)
    decoded = sum(1 for _ in iter_video(tmp_path / name))
    assert found.num_frames == decoded > 0 and found.num_frames + found.num_lost == 40
    assert found.num_lost == 1 or place != 39
    assert found.fps == pytest.approx(25)
    summary = _restored(tmp_path / name, tmp_path / "o.mp4")
    assert summary["num_frames"] == decoded == probe_video(tmp_path / "o.mp4").num_frames
    told = [f"pictures: {found.num_lost} of 40 in {name} cannot be decoded"] if found.num_lost else []
    assert [note for note in summary["notes"] if "decoded" in note] == told


# 8, 9: rates and units of time


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30000, 1001), Fraction(24)])
def test_a_last_frame_that_lasts_long_does_not_change_the_rate(tmp_path: Path, unchanged: None, rate: Fraction) -> None:
    import av

    _encode(tmp_path / "b.mp4", [_grey(10 * index) for index in range(10)], fps=rate, bf=0)
    with av.open(str(tmp_path / "b.mp4")) as source, av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        packets = [packet for packet in source.demux(video=0) if packet.size]
        packets[-1].duration = round(5 / packets[-1].time_base)
        for packet in packets:
            packet.stream = stream
            out.mux(packet)
    assert probe_video(tmp_path / "a.mp4").fps == pytest.approx(float(rate), rel=1e-9)
    for name in ("o.mp4", "o.mkv"):
        assert _restored(tmp_path / "a.mp4", tmp_path / name)["fps"] == pytest.approx(float(rate), rel=1e-9)
        assert probe_video(tmp_path / name).fps == pytest.approx(float(rate), rel=0.03)
        with open_media(tmp_path / name) as container:
            assert container.duration == pytest.approx((float(9 / rate) + 5) * 1e6, abs=2000)


def test_sound_from_matroska_to_matroska_keeps_its_begin(tmp_path: Path, unchanged: None) -> None:
    """AAC starts from a run-up that both files state."""
    _flash_and_beep(tmp_path / "a.mkv", num=25, flash=12, sound="aac")
    _restored(tmp_path / "a.mkv", tmp_path / "o.mkv")

    def samples(path: Path) -> tuple[float, int]:
        with open_media(path) as container:
            frames = list(container.decode(container.streams.audio[0]))
            return float(frames[0].pts * frames[0].time_base), sum(frame.samples for frame in frames)

    assert samples(tmp_path / "o.mkv") == samples(tmp_path / "a.mkv")
    assert _beeps(tmp_path / "o.mkv") == pytest.approx([0.48], abs=2e-3)


def test_the_transparency_of_vp9_is_told(tmp_path: Path, unchanged: None) -> None:
    """Its alpha lies beside the pictures in Matroska; the stream's words say so."""
    import av

    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream: Any = container.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuva420p"
        for index in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_grey(40 * index), format="rgb24")))
        container.mux(stream.encode())
    told = _restored(tmp_path / "a.webm", tmp_path / "o.mp4")["notes"]
    assert "o.mp4: the transparency (alpha) of a.webm is not carried over" in told


def test_what_a_cut_file_still_holds_is_read_whatever_a_decoder_thinks_of_the_rest(tmp_path: Path) -> None:
    """Threads of a decoder would lose good pictures with the one that was cut."""
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(24)]
    _encode(tmp_path / "b.mkv", images, bf=2)
    data = (tmp_path / "b.mkv").read_bytes()
    for part in (0.5, 0.6, 0.7, 0.8):
        path = tmp_path / f"{part}.mkv"
        path.write_bytes(data[: int(part * len(data))])
        decoded = []
        with open_media(path) as container:
            stream = main_video(container)
            stream.thread_type = "NONE"
            for packet in container.demux(stream):
                with contextlib.suppress(ValueError):
                    decoded += [frame.pts for frame in packet.decode()]
        assert list(probe_video(path).pts) == decoded
        assert len(list(iter_video(path))) == len(decoded)


@pytest.mark.parametrize(
    ("step", "factor"), [(33_000_000, 4), (33_366_667, 4), (40_000_000, 8), (1_000_000, 2), (33_366_667, 3)]
)
def test_times_in_nanoseconds_allow_slow_motion(tmp_path: Path, step: int, factor: int) -> None:
    """Where all times are multiples of something coarser they are kept; else they are rounded to nanoseconds."""
    from spikevrt.mux.pieces import video_pieces
    from spikevrt.restore.restorer import Restored

    base = Fraction(1, 10**9)
    segment, times = tmp_path / "a.mp4", [index * step for index in range(4)]
    write_segment(
        segment, [(time, _grey(9)) for time in times], time_base=base, fps=25, format=VideoFormat(), tags=VideoTags()
    )
    recording = loose_recording(segment, None)
    pieces = video_pieces(tmp_path / "pieces", VideoFormat(), recording, factor)
    places = [(source, part) for source in range(3) for part in range(factor)] + [(3, 0)]
    frame = torch.zeros(3, 64, 64)
    pieces.consume(Restored(number, frame, *place) for number, place in enumerate(places))
    pieces.join(tmp_path / "o.mp4", None)
    info_of = probe_video(tmp_path / "o.mp4")
    shown = [pts * info_of.time_base for pts in info_of.pts]
    expected = [(source + Fraction(part, factor)) * step * base for source, part in places]
    slack = 0 if step % 1000 == 0 else base
    assert all(abs(a - b) <= slack for a, b in zip(shown, expected, strict=True))


# 11: sound that a container holds by another name


@pytest.mark.parametrize(("name", "sound"), [("a.asf", "wmav2"), ("a.asf", "wmav1"), ("a.avi", "adpcm_ms")])
def test_sound_by_the_codes_of_windows_is_copied_into_mkv(
    tmp_path: Path, unchanged: None, name: str, sound: str
) -> None:
    import av

    folder = tmp_path / "with [brackets], 'quotes' | and: more"
    folder.mkdir()
    with av.open(str(folder / name), "w") as container:
        container.metadata["title"] = "A street"
        container.set_chapters([{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {}}])
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio: Any = container.add_stream(sound, rate=44100)
        audio.codec_context.layout, audio.codec_context.bit_rate = "stereo", 128000
        for index in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(_grey(9 * index), format="rgb24")))
        step = audio.codec_context.frame_size or 1024
        for done in range(0, 44100, step):
            wave = np.sin(np.arange(done, min(done + step, 44100)) * 0.05).astype(np.float32) * 0.4
            form = audio.codec_context.format.name
            array = np.stack([wave, wave]) if form == "fltp" else (np.stack([wave, wave]) * 32767).astype(np.int16)
            samples: Any = av.AudioFrame.from_ndarray(
                array if form in ("fltp", "s16p") else array.T.reshape(1, -1).copy(), format=form, layout="stereo"
            )
            samples.sample_rate, samples.pts, samples.time_base = 44100, done, Fraction(1, 44100)
            container.mux(audio.encode(samples))
        container.mux(video.encode())
        container.mux(audio.encode())

    def decoded(path: Path) -> np.ndarray:
        with open_media(path) as media:
            return np.concatenate([frame.to_ndarray() for frame in media.decode(media.streams.audio[0])], axis=1)

    notes = _restored(folder / name, folder / "o.mkv")["notes"]
    assert notes == (["o.mkv: chapters are not carried over"] if name == "a.asf" else [])
    np.testing.assert_array_equal(decoded(folder / "o.mkv"), decoded(folder / name))
    with open_media(folder / "o.mkv") as media:
        assert media.metadata.get("title", media.metadata.get("TITLE")) == "A street"
    notes = _restored(folder / name, folder / "o.mp4")["notes"]
    assert any(f"({sound}) is not carried over to .mp4" in note for note in notes)


# interlaced video, and curves that are not read


@pytest.mark.parametrize(
    ("codec", "name", "options"),
    [
        ("mpeg2video", "a.mpg", {"flags": "+ildct+ilme"}),
        ("libx264", "a.mp4", {"flags": "+ildct+ilme"}),
        ("ffv1", "a.mkv", {"flags": "+ildct"}),
        ("libx264", "a.ts", {"flags": "+ildct+ilme"}),
        ("prores_ks", "a.mov", {"flags": "+ildct"}),
    ],
)
def test_interlaced_video_is_refused_in_one_line(
    tmp_path: Path, codec: str, name: str, options: dict[str, str]
) -> None:
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    _encode(tmp_path / name, [_grey(5)] * 4, codec=codec, pixels=pixels, field="tff", **options)
    with pytest.raises(ValueError, match=rf"{name}: interlaced, .*bwdif"):
        probe_video(tmp_path / name)


@pytest.mark.parametrize("transfer", [8, 9, 10, 17])
def test_a_curve_that_is_not_read_is_refused(tmp_path: Path, transfer: int) -> None:
    _encode(tmp_path / "a.mkv", [_grey(90)] * 2, codec="ffv1", tags={"color_trc": transfer})
    with pytest.raises(ValueError, match=r"a\.mkv: its transfer curve is .*; allowed"):
        probe_video(tmp_path / "a.mkv")


def test_join_moves_sound_with_a_video_that_begins_before_zero(tmp_path: Path) -> None:
    """Whatever container: where the first picture lies before zero, all is moved."""
    _flash_and_beep(tmp_path / "a.mkv", sound="aac")
    segment = tmp_path / "segment"
    frames = ((index, image) for index, image in enumerate(iter_video(tmp_path / "a.mkv")))
    write_segment(segment, frames, time_base=Fraction(1, 25), fps=25, format=VideoFormat(), tags=VideoTags())
    join_segments(
        [segment], tmp_path / "o.mp4", fps=25, format=VideoFormat(), tags=VideoTags(), source=tmp_path / "a.mkv"
    )
    assert _beeps(tmp_path / "o.mp4") == pytest.approx(_beeps(tmp_path / "a.mkv"), abs=1e-3)


# real files


def test_a_real_programme_stream_put_behind_itself_goes_on_evenly(tmp_path: Path, shared: Path) -> None:
    stream = (shared / "media" / "video" / "cityCC0.mpg").read_bytes()
    (tmp_path / "a.mpg").write_bytes(stream + stream)
    found = probe_video(tmp_path / "a.mpg")
    assert (found.num_frames, found.fps, found.is_variable, found.num_lost) == (380, 25, False, 0)
    assert found.times_s == pytest.approx([index / 25 for index in range(380)], abs=1e-6)


def test_a_phone_clip_whose_first_frame_lasts_long_has_the_rate_of_the_others(shared: Path) -> None:
    found = probe_video(shared / "media" / "video" / "VID_20191220_170832.mp4")
    assert (found.num_frames, found.is_variable) == (41, True)
    assert found.fps == pytest.approx(30, abs=0.1)  # the mean, with the first frame, is 26.95
