"""The whole way in one call: simulate recordings from shipped footage, restore them, measure, write a report.

The photographs and the video (assets/CREDITS.md) were never trained on. Nothing is downloaded and nothing is trained.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spikevrt import shipped
from spikevrt.align.health import admit
from spikevrt.evaluate.runner import results_folder, write_results
from spikevrt.evaluate.scores import score_table
from spikevrt.recording.recording import open_recording
from spikevrt.report.results_page import write_page, write_videos
from spikevrt.restore.options import RestoreOptions
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

ASSETS = Path(__file__).parents[1] / "assets"
PHOTOS = ("bridge.jpg", "clock.jpg", "astronaut.jpg")
VIDEO = "city.mp4"
SCENES = {Path(name).stem: name for name in (*PHOTOS, VIDEO)}
# The sensor and the exposure are those of the training recordings; 480x256 pixels are two tiles, side by side.
OPTIONS = SimulateOptions(frames=5, exposure_ticks=128, period_ticks=160, width=480, height=256, motion_px=16.0)


def simulate_scene(name: str, out: Path, options: SimulateOptions = OPTIONS) -> None:
    """Write the recording of a scene (of `SCENES`): a video as it is; a photograph with cut-outs of the others moving
    before it.
    """
    file = SCENES[name]
    layers = [ASSETS / photo for photo in PHOTOS if photo != file] if file in PHOTOS else []
    seed = options.seed + list(SCENES).index(name)
    simulate_recording(ASSETS / file, out, replace(options, seed=seed), layer_photos=layers)


def run_demo(
    out: Path,
    *,
    weights: Sequence[str | Path] | None = None,
    options: SimulateOptions = OPTIONS,
    overwrite: bool = False,
) -> Path:
    """Write the demo's folder and return its path: recordings/, frames/, videos/, pictures/, results.json, report.html.

    `weights`: networks, as `shipped.find` takes them; by default `shipped.COMPARED`.

    Raises:
        FileNotFoundError: the weights are not there.
        FileExistsError: `out` exists and `overwrite` is not set.
    """
    files = [shipped.find(name) for name in (shipped.COMPARED if weights is None else weights)]
    with results_folder(out, overwrite=overwrite) as folder:
        for name, file in SCENES.items():
            print(f"simulate {file}", file=sys.stderr)
            simulate_scene(name, folder / "recordings" / name, options)
        print("restore and measure", file=sys.stderr)
        recordings = [open_recording(folder / "recordings" / name) for name in SCENES]
        results = write_results(files, recordings, folder, RestoreOptions(), keep_frames=True, gate=admit)
        write_videos(folder, recordings)
        shutil.copyfile(ASSETS / "CREDITS.md", folder / "CREDITS.md")
        credits = (ASSETS / "CREDITS.md").read_text(encoding="utf-8")
        write_page([folder], folder / "report.html", recordings=recordings, title="demo", credits=credits)
    print(score_table(results))
    return Path(out)
