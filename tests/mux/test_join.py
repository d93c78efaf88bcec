"""Joined segments: the same frames and times, and what the source holds beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.atomic import complete_or_absent
from spikevrt.mux.encode import VideoTags, tags_of, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.recording.video import iter_video, probe_video
from spikevrt.restore.options import CONTAINERS, VideoFormat

BASE = Fraction(1, 90000)
UNEVEN = (100, 3103, 6106, 9886, 12000, 21000, 24000)  # of BASE
FORMATS = [
    VideoFormat(),
    VideoFormat(bits=10),
    VideoFormat(lossless=True),
    VideoFormat("hevc"),
    VideoFormat("av1"),
    VideoFormat("ffv1"),
]
PAIRS = [(format, suffix) for format in FORMATS for suffix in CONTAINERS if format.codec in CONTAINERS[suffix]]
SRT = "1\n00:00:00,100 --> 00:00:00,500\nhello\n\n2\n00:00:00,600 --> 00:00:01,200\nworld\n"
CHAPTERS = [
    {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}},
    {"id": 2, "start": 500, "end": 1200, "time_base": Fraction(1, 1000), "metadata": {"title": "two"}},
]


def _frames(num: int = 7, height: int = 64, width: int = 64) -> list[np.ndarray]:
    rows, columns = np.mgrid[0:height, 0 : width + num]
    wide = np.stack([columns * 3, rows * 4, rows + columns], axis=-1).astype(np.uint8)
    return [wide[:, index : index + width] for index in range(num)]


def _segments(
    folder: Path,
    format: VideoFormat,
    tags: VideoTags | None = None,
    *,
    pts: Sequence[int] = UNEVEN,
    time_base: Fraction = BASE,
    cuts: tuple[int, ...] = (0, 3, 5, 7),
) -> list[Path]:
    frames, made = _frames(len(pts)), []
    for index, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
        path = folder / f"segment{index}"
        pairs = zip(pts[start:stop], frames[start:stop], strict=True)
        write_segment(path, pairs, time_base=time_base, fps=30, format=format, tags=tags or VideoTags())
        made.append(path)
    return made


def _join(
    segments: Sequence[Path], out: Path, format: VideoFormat | None = None, source: Path | None = None
) -> tuple[str, ...]:
    return join_segments(segments, out, fps=30, format=format or VideoFormat(), tags=VideoTags(), source=source)


def _source(path: Path, *, rotation: int = 0, num_frames: int = 36) -> None:
    """A video of 64x48 with sound, subtitles, chapters, words about it, and in .mkv a font."""
    import av

    srt = path.with_name("words.srt")
    srt.write_text(SRT)
    with av.open(str(path), "w") as container, av.open(str(srt)) as words:
        container.metadata.update(
            title="A street", artist="us", comment="by hand", creation_time="2020-01-02T03:04:05.000000Z"
        )
        video = container.add_stream("libx264", rate=30, options={"bf": "2", "g": "10"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        context = video.codec_context
        context.time_base, context.sample_aspect_ratio = BASE, Fraction(8, 9)
        context.color_primaries = context.color_trc = context.colorspace = 6
        if rotation:
            video.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=48000)
        video.metadata["language"], sound.metadata["language"] = "ger", "fra"
        if path.suffix == ".mkv":
            text = container.add_stream_from_template(words.streams[0], opaque=True)
            container.add_attachment("font.ttf", "font/ttf", b"a font")
        else:
            text = container.add_mux_stream("mov_text", time_base=Fraction(1, 1000))
        text.metadata["language"] = "eng"
        container.set_chapters(CHAPTERS)
        for index in range(num_frames):
            image = np.full((48, 64, 3), 7 * index, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 3000 * index, BASE
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = np.repeat((np.sin(np.arange(57600) * 0.05) * 8000).astype(np.int16), 2)[None]
        samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
        samples.rate, samples.pts = 48000, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
        for packet in words.demux():
            if packet.size:
                shown = packet
                if path.suffix != ".mkv":
                    shown = av.Packet(packet.size.to_bytes(2, "big") + bytes(packet))
                    shown.pts = shown.dts = packet.pts
                    shown.duration, shown.time_base = packet.duration, packet.time_base
                shown.stream = text
                container.mux(shown)


def _streams(path: Path) -> list[tuple[str, str]]:
    """(kind, language) of each stream that is no track of chapters."""
    import av

    with av.open(str(path)) as container:
        return [
            (stream.type, stream.metadata.get("language", "")) for stream in container.streams if stream.type != "data"
        ]


def _payload(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, bytes) of the packets of a kind that show or sound."""
    import av

    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size and bytes(packet) != b"\0\0"
        ]


def _restored(source: Path, out: Path, suffix: str) -> tuple[Path, tuple[str, ...]]:
    """The source's own frames, through two segments, as `out`."""
    info, tags = probe_video(source), tags_of(probe_video(source))
    frames = list(zip(info.pts, iter_video(source), strict=True))
    paths = [out / "s0", out / "s1"]
    for path, part in zip(paths, (frames[:17], frames[17:]), strict=True):
        write_segment(path, part, time_base=info.time_base, fps=info.fps, format=VideoFormat(), tags=tags)
    result = out / f"result{suffix}"
    notes = join_segments(paths, result, fps=info.fps, format=VideoFormat(), tags=tags, source=source)
    return result, notes


@pytest.mark.parametrize(("format", "suffix"), PAIRS, ids=lambda value: getattr(value, "codec", value))
def test_joined_segments_are_the_same_frames_at_the_same_times(
    tmp_path: Path, format: VideoFormat, suffix: str
) -> None:
    segments = _segments(tmp_path, format)
    out = tmp_path / f"out{suffix}"
    notes = _join(segments, out, format)
    apart = [image for segment in segments for image in iter_video(segment, deep=True)]
    joined = list(iter_video(out, deep=True))
    assert len(joined) == len(apart) == 7
    for one, other in zip(apart, joined, strict=True):
        np.testing.assert_array_equal(one, other)
    info = probe_video(out)
    times = [pts * info.time_base for pts in info.pts]
    if suffix == ".mkv":
        assert [abs(time - pts * BASE) <= Fraction(1, 2000) for time, pts in zip(times, UNEVEN, strict=True)] == [
            True
        ] * 7
        assert notes == (f"{out.name}: timestamps are rounded to milliseconds, of which .mkv counts",)
    else:
        assert times == [pts * BASE for pts in UNEVEN]
        assert notes == ()


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_joining_twice_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "source.mp4"
    _source(source)
    results = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        results.append(_restored(source, tmp_path / name, suffix)[0].read_bytes())
    assert results[0] == results[1]


def test_milliseconds_go_through_mkv_untouched(tmp_path: Path) -> None:
    stamps = (0, 33, 67, 100, 133, 400, 433)
    segments = _segments(tmp_path, VideoFormat("ffv1"), pts=stamps, time_base=Fraction(1, 1000))
    assert _join(segments, tmp_path / "out.mkv", VideoFormat("ffv1")) == ()
    info = probe_video(tmp_path / "out.mkv")
    assert (info.pts, info.time_base) == (stamps, Fraction(1, 1000))


def test_sound_subtitles_fonts_chapters_and_words_go_from_mkv_to_mkv(tmp_path: Path) -> None:
    import av

    source = tmp_path / "source.mkv"
    _source(source)
    result, notes = _restored(source, tmp_path, ".mkv")
    assert notes == ()
    assert _streams(result) == [("video", "ger"), ("audio", "fra"), ("subtitle", "eng"), ("attachment", "")]
    assert _payload(result, "subtitle") == [(Fraction(1, 10), b"hello"), (Fraction(3, 5), b"world")]
    assert _payload(result, "audio") == _payload(source, "audio") != []
    with av.open(str(source)) as before, av.open(str(result)) as after:
        assert after.chapters() == before.chapters() != []
        words = {key.lower(): value for key, value in after.metadata.items()}
        assert (words["title"], words["comment"], words["artist"]) == ("A street", "by hand", "us")
        assert words["creation_time"] == "2020-01-02T03:04:05.000000Z"
    assert probe_video(result).pts == probe_video(source).pts


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_sound_subtitles_and_chapters_go_from_mp4_to_its_kin(tmp_path: Path, suffix: str) -> None:
    import av

    source = tmp_path / "source.mp4"
    _source(source)
    result, notes = _restored(source, tmp_path, suffix)
    assert notes == ()
    assert _streams(result) == [("video", "ger"), ("audio", "fra"), ("subtitle", "eng")]
    for kind in ("audio", "subtitle"):
        assert _payload(result, kind) == _payload(source, kind) != []
    with av.open(str(result)) as after:
        chapters = [(entry["start"] * entry["time_base"], entry["metadata"]["title"]) for entry in after.chapters()]
        assert chapters == [(0, "one"), (Fraction(1, 2), "two")]
        assert (after.metadata["title"], after.metadata["artist"]) == ("A street", "us")
    before, after_info = probe_video(source), probe_video(result)
    assert (after_info.pts, after_info.time_base) == (before.pts, before.time_base)


def test_what_the_container_cannot_hold_is_told_by_name(tmp_path: Path) -> None:
    source = tmp_path / "source.mkv"
    _source(source)
    result, notes = _restored(source, tmp_path, ".mp4")
    assert notes == (
        "result.mp4: subtitle stream 2 (subrip) is not carried over to .mp4",
        "result.mp4: attachment stream 3 (font.ttf) is not carried over to .mp4",
    )
    assert _streams(result) == [("video", "ger"), ("audio", "fra")]


def test_words_that_the_container_has_no_place_for_are_told(tmp_path: Path) -> None:
    import av

    segments, source = _segments(tmp_path, VideoFormat()), tmp_path / "source.mkv"
    with av.open(str(segments[0])) as given, av.open(str(source), "w") as container:
        container.metadata.update(title="kept", weather="lost")
        video = container.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
    notes = join_segments(segments, tmp_path / "out.mp4", fps=30, format=VideoFormat(), tags=VideoTags(), source=source)
    assert [note.lower() for note in notes] == ["out.mp4: .mp4 does not hold the file's weather"]


def test_sound_that_cannot_be_written_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spikevrt.mux import join

    source = tmp_path / "source.mp4"
    _source(source)
    honest = join._copied_packets

    def backwards(*arguments: Any) -> Iterator[Any]:  # as in a file whose index is damaged
        yield from reversed(list(honest(*arguments)))

    monkeypatch.setattr(join, "_copied_packets", backwards)
    result, notes = _restored(source, tmp_path, ".mp4")
    assert notes == ("result.mp4: sound and subtitles are not carried over: they are damaged",)
    assert _streams(result) == [("video", "ger")]
    assert probe_video(result).pts == probe_video(source).pts


def test_a_source_with_a_font_and_no_sound_gives_its_font(tmp_path: Path) -> None:
    import av

    source, segments = tmp_path / "source.mkv", _segments(tmp_path, VideoFormat())
    with av.open(str(segments[0])) as pictures, av.open(str(source), "w") as container:
        stream = container.add_stream_from_template(pictures.streams.video[0], opaque=True)
        container.add_attachment("font.ttf", "font/ttf", b"a font")
        for packet in pictures.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    _join(segments, tmp_path / "out.mkv", source=source)
    assert [kind for kind, _ in _streams(tmp_path / "out.mkv")] == ["video", "attachment"]
    assert probe_video(tmp_path / "out.mkv").num_frames == 7


def test_a_turned_source_gives_an_upright_result_of_turned_pixel_aspect(tmp_path: Path) -> None:
    import av

    source = tmp_path / "source.mp4"
    _source(source, rotation=90)
    assert tags_of(probe_video(source)) == VideoTags(Fraction(9, 8), primaries=6, transfer=6)
    result, _ = _restored(source, tmp_path, ".mp4")
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (48, 64, 0)
    assert tags_of(probe_video(result)) == VideoTags(Fraction(9, 8), primaries=6, transfer=6)


def test_pixel_aspect_that_mkv_would_lose_is_told(tmp_path: Path) -> None:
    tags, format = VideoTags(Fraction(4, 3)), VideoFormat("av1")
    segments = _segments(tmp_path, format, tags, pts=range(0, 700, 100), time_base=Fraction(1, 1000))
    with complete_or_absent(tmp_path / "out.mkv") as partial:  # as `restore` does
        notes = join_segments(segments, partial, fps=10, format=format, tags=tags)
    assert notes == ("out.mkv: pixel aspect 4/3 is not stored with av1 in .mkv",)
    assert join_segments(segments, tmp_path / "out.mp4", fps=10, format=format, tags=tags) == ()
    assert tags_of(probe_video(tmp_path / "out.mp4")) == tags


def test_hevc_in_mp4_is_tagged_for_players_that_want_its_parameters_in_the_header(tmp_path: Path) -> None:
    format = VideoFormat("hevc")
    _join(_segments(tmp_path, format), tmp_path / "out.mp4", format)
    assert b"hvc1" in (tmp_path / "out.mp4").read_bytes()


def test_an_mp4_can_be_played_before_all_of_it_is_there(tmp_path: Path) -> None:
    _join(_segments(tmp_path, VideoFormat()), tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_segments_of_another_size_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    segments = _segments(tmp_path, VideoFormat(), cuts=(0, 3))
    frames = [(30000, image) for image in _frames(1, 32, 64)]
    write_segment(tmp_path / "b", frames, time_base=BASE, fps=30, format=VideoFormat(), tags=VideoTags())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="b: encoded otherwise than .*segment0; they do not make one video"):
        _join([*segments, tmp_path / "b"], tmp_path / "out.mp4")
    assert sorted(tmp_path.iterdir()) == before


def test_segments_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    segments = _segments(tmp_path, VideoFormat())
    with pytest.raises(ValueError, match="segment0: begins at 100, before the segment before it ends"):
        _join(segments[::-1][1:], tmp_path / "out.mp4")


def test_frames_closer_than_a_millisecond_are_refused_in_mkv(tmp_path: Path) -> None:
    segments = _segments(tmp_path, VideoFormat(), pts=range(0, 350, 50))
    with pytest.raises(
        ValueError, match=r"\.mkv counts milliseconds, and two frames lie closer; allowed: \.mp4, \.mov"
    ):
        _join(segments, tmp_path / "out.mkv")
    _join(segments, tmp_path / "out.mp4")
    assert probe_video(tmp_path / "out.mp4").pts == tuple(range(0, 350, 50))


def test_no_segments_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no segments to join"):
        _join([], tmp_path / "out.mp4")
    with pytest.raises(FileNotFoundError, match="gone: no such video"):
        _join([tmp_path / "gone"], tmp_path / "out.mp4")
