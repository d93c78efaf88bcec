"""Show scores and frames to people: the printed table, labelled pictures, videos, and one HTML page.

A results folder: results.json, report.html, pictures/, and where frames are kept frames/<method>/<recording>/ and
videos/. The page refers to its pictures by relative names, so the folder can be moved.

Dimension key: H rows, W columns. Pictures are uint8 (H, W, 3), RGB.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from spikevrt.evaluate.scores import METRICS_ALL
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import read_image, to_uint8, write_image

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from spikevrt.recording.recording import Recording

PLAYBACK_FPS = 5.0  # recordings are milliseconds long; their videos play slowed down to this
UNITS = {metric.name: metric.unit for metric in METRICS_ALL}
LABEL_PX = 20
GAP_PX = 4
DETAIL = 6  # a detail's side is the picture's over this, and it is magnified as much


def frame_path(folder: Path, method: str, recording: str, index: int) -> Path:
    """Where a restored frame lies in a results folder."""
    return folder / "frames" / method / recording / f"{index:06d}.png"


def picture_path(folder: Path, method: str, recording: str) -> Path:
    """Where the three-column picture of a method and recording lies in a results folder."""
    return folder / "pictures" / f"{recording}_{method}.png"


def video_path(folder: Path, method: str, recording: str) -> Path:
    """Where a restored video lies; the method "side_by_side" is all of them beside each other."""
    return folder / "videos" / f"{recording}_{method}.mp4"


def write_three_columns(
    path: Path, blur: Float[Tensor, "3 H W"], restored: Float[Tensor, "3 H W"], sharp: Float[Tensor, "3 H W"]
) -> None:
    """Write the picture of `three_columns` from frames in [0, 1]; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, three_columns(to_uint8(blur), to_uint8(restored), to_uint8(sharp)))


def three_columns(
    blur: UInt8[np.ndarray, "H W 3"], restored: UInt8[np.ndarray, "H W 3"], sharp: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """blur | restored | sharp under their labels, and below them one detail, magnified: where the blur is worst."""
    box = _detail_box(blur, sharp)
    return np.concatenate(
        [
            columns([_framed(image, box) for image in (blur, restored, sharp)], ["blur", "restored", "sharp"]),
            columns([_detail(image, box) for image in (blur, restored, sharp)], None),
        ]
    )


def restored_column(
    sheet: UInt8[np.ndarray, "H2 W2 3"], blur: UInt8[np.ndarray, "H W 3"], sharp: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The restored frame out of a sheet of `three_columns`, exactly: what the red box covers is in the detail.

    Raises:
        ValueError: the sheet is not one of frames of this size.
    """
    height, width = blur.shape[:2]
    top, left, box_height, box_width = _detail_box(blur, sharp)
    times = width // box_width
    detail_top = LABEL_PX + height + GAP_PX
    size = (detail_top + box_height * times + GAP_PX, 3 * (width + GAP_PX) - GAP_PX)
    if sheet.shape[:2] != size:
        raise ValueError(f"a sheet of {sheet.shape[1]}x{sheet.shape[0]} pixels; allowed: {size[1]}x{size[0]}")
    first = width + GAP_PX
    restored = sheet[LABEL_PX : LABEL_PX + height, first : first + width].copy()
    detail = sheet[detail_top : detail_top + box_height * times : times, first + (width - box_width * times) // 2 :]
    restored[top : top + box_height, left : left + box_width] = detail[:, : box_width * times : times]
    return restored


def columns(images: Sequence[UInt8[np.ndarray, "H W 3"]], labels: Sequence[str] | None) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Pictures of one size beside each other, each under its label; the pixels are not changed."""
    height, width = images[0].shape[:2]
    top = LABEL_PX if labels else 0
    sheet = np.full((top + height + GAP_PX, len(images) * (width + GAP_PX) - GAP_PX, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        assert image.shape == (height, width, 3), (image.shape, height, width)
        left = index * (width + GAP_PX)
        sheet[top : top + height, left : left + width] = image
        if labels:
            sheet[:top, left : left + width] = _label(labels[index], width)
    return sheet


def write_videos(folder: Path, methods: Sequence[str], recordings: Sequence[Recording]) -> None:
    """From the frames in a results folder: one video per method and recording, and one with all columns."""
    (folder / "videos").mkdir()
    for recording in recordings:
        num_frames = recording.num_frames
        for method in methods:
            restored = (read_image(frame_path(folder, method, recording.name, i)) for i in range(num_frames))
            write_video(video_path(folder, method, recording.name), restored, PLAYBACK_FPS)
        beside = _side_by_side(folder, methods, recording)
        write_video(video_path(folder, "side_by_side", recording.name), beside, PLAYBACK_FPS)


def table(results: dict[str, Any]) -> str:
    """The totals as plain text, one method a line."""
    return aligned(_rows(results))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of one length as columns of plain text, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join(lines)


def write_html(folder: Path, results: dict[str, Any], *, title: str, credits: str) -> None:
    """Write report.html from the results and from the pictures and videos that lie in the folder."""
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(_summary(results))}</p>", _html_table(_rows(results))]
    for index, recording in enumerate(results["data"]["recordings"]):
        parts.append(_html_recording(folder, results, index, recording))
    parts.append(_html_protocol(results))
    if credits:
        parts.append(f"<h2>Credits</h2>\n<pre>{html.escape(credits)}</pre>")
    page = _PAGE.format(title=html.escape(title), body="\n".join(parts))
    (folder / "report.html").write_text(page, encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }}
th, td {{ padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #8886; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
img, video {{ max-width: 100%; display: block }}
figure {{ margin: 1rem 0 }}
figcaption, dl, pre {{ font-size: .875rem }}
pre {{ white-space: pre-wrap }}
dt {{ font-weight: 600 }}
</style>
{body}
</html>
"""


def _rows(results: dict[str, Any]) -> list[list[str]]:
    names = _metrics(results)
    rows = [["method", *map(_heading, names), "ms/frame", "peak MB", "parameters"]]
    for method in results["methods"]:
        scores = _scores(method["mean"], names)
        if "weights" in method:
            cost = [
                f"{method['ms_per_frame']:.0f}",
                f"{method['peak_memory_bytes'] / 1e6:.0f}",
                f"{method['parameters']:,}",
            ]
        else:
            cost = ["-"] * 3
        rows.append([method["name"], *scores, *cost])
    return rows


def _metrics(results: dict[str, Any]) -> list[str]:
    """The metrics that were taken, in the order of the table."""
    taken = {name for method in results["methods"] for name in method["mean"]}
    return [metric.name for metric in METRICS_ALL if metric.name in taken]


def _heading(name: str) -> str:
    return f"{name} {UNITS[name]}".rstrip()


def _scores(mean: dict[str, float], names: Sequence[str]) -> list[str]:
    return [f"{mean[name]:.{2 if UNITS[name] == 'dB' else 4}f}" if name in mean else "-" for name in names]


def _summary(results: dict[str, Any]) -> str:
    recordings, environment = results["data"]["recordings"], results["environment"]
    num_frames = sum(recording["num_frames"] for recording in recordings)
    return (
        f"{num_frames} frames of {len(recordings)} recordings, data {results['data']['sha256'][:12]}, "
        f"commit {(environment['commit'] or 'unknown')[:12]}, restored on {_machine(results)}. "
        "Numbers in full: results.json."
    )


def _machine(results: dict[str, Any]) -> str:
    environment = results["environment"]
    if any(method.get("device", "cpu") != "cpu" for method in results["methods"]):
        return str(environment["device"])
    return f"a CPU with {environment['num_threads']} threads"


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    return "<table>\n<tr>" + head + "</tr>\n" + "\n".join(f"<tr>{row}</tr>" for row in body) + "\n</table>"


def _tagged(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    for index, row in enumerate(rows):
        yield ("td" if index else "th"), row


def _html_recording(folder: Path, results: dict[str, Any], index: int, recording: dict[str, Any]) -> str:
    name = recording["name"]
    names = _metrics(results)
    rows = [["method", *map(_heading, names)]]
    rows += [[m["name"], *_scores(m["sequences"][index]["mean"], names)] for m in results["methods"]]
    pixels = f"{recording['width']}x{recording['height']}"
    size = f"{recording['num_frames']} frames of {pixels} pixels, {recording['fps']:g} a second"
    parts = [f"<h2>{html.escape(name)}</h2>", f"<p>{size}</p>", _html_table(rows)]
    middle = recording["num_frames"] // 2
    for method in results["methods"]:
        picture = picture_path(folder, method["name"], name)
        if picture.is_file():
            (score,) = _scores(method["sequences"][index]["frames"][middle], names[:1])
            told = f"{method['name']}, frame {middle}: {_heading(names[0])} {score}"
            caption = f"{told} (blur | restored | sharp, and a detail)"
            parts.append(_html_figure(folder, picture, caption))
    video = video_path(folder, "side_by_side", name)
    if video.is_file():
        parts.append(_html_figure(folder, video, f"Side by side, slowed down to {PLAYBACK_FPS:g} frames a second"))
    return "\n".join(parts)


def _html_figure(folder: Path, path: Path, caption: str) -> str:
    source, text = html.escape(quote(path.relative_to(folder).as_posix())), html.escape(caption)
    if path.suffix == ".mp4":
        media = f'<video src="{source}" controls loop muted autoplay playsinline></video>'
    else:
        media = f'<img src="{source}" alt="{text}" loading="lazy">'
    return f"<figure>{media}<figcaption>{text}</figcaption></figure>"


def _html_protocol(results: dict[str, Any]) -> str:
    items = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in results["protocol"].items())
    return f"<h2>What the numbers are</h2>\n<dl>{items}</dl>"


def _side_by_side(folder: Path, methods: Sequence[str], recording: Recording) -> Iterator[UInt8[np.ndarray, "H2 W2 3"]]:
    for index in range(recording.num_frames):
        restored = [read_image(frame_path(folder, method, recording.name, index)) for method in methods]
        yield columns([recording.read_blur(index), *restored, recording.read_sharp(index)], ["blur", *methods, "sharp"])


def _detail_box(blur: np.ndarray, sharp: np.ndarray) -> tuple[int, int, int, int]:
    return worst_box(blur, sharp, *(max(size // DETAIL, 1) for size in blur.shape[:2]))


def worst_box(
    blur: UInt8[np.ndarray, "H W 3"], sharp: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the box of that size in which the blurry frame's squared error is largest."""
    error = np.square(blur.astype(np.float64) - sharp).sum(axis=2)
    integral = np.pad(error.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    summed_rows = integral[height:] - integral[:-height]
    sums = summed_rows[:, width:] - summed_rows[:, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), height, width


def _framed(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = box
    framed = image.copy()
    framed[[top, top + height - 1], left : left + width] = (255, 0, 0)
    framed[top : top + height, [left, left + width - 1]] = (255, 0, 0)
    return framed


def _detail(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The box, its pixels repeated to fill the column as far as whole pixels go, centred on white."""
    top, left, height, width = box
    times = image.shape[1] // width
    magnified = image[top : top + height, left : left + width].repeat(times, axis=0).repeat(times, axis=1)
    sheet = np.full((magnified.shape[0], image.shape[1], 3), 255, dtype=np.uint8)
    start = (sheet.shape[1] - magnified.shape[1]) // 2
    sheet[:, start : start + magnified.shape[1]] = magnified
    return sheet


def _label(text: str, width: int) -> UInt8[np.ndarray, "H W 3"]:
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_PX), "white")
    ImageDraw.Draw(strip).text((2, 2), text, fill="black", font=ImageFont.load_default(size=14))
    return np.asarray(strip)
