"""`spikevrt record`: loose files become a folder that says all of it, with links or copies."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt import cli
from spikevrt.mux.join import write_video
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.loose import keep_recording, open_beside, with_sharp
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import Stated

STATED = Stated(spike_width=7, spike_height=5, tick_rate_hz=1000.0, first_tick=1, exposure="11ms", period_ticks=12)


def loose(root: Path, frames: Path | None = None, **stated: Any) -> tuple[Recording, Stated]:
    told = Stated(**{**vars(STATED), **stated})
    return open_beside(frames or root / "blur", root / "raw" / "car.dat", told), told


@pytest.fixture
def lab(root: Path, tmp_path: Path) -> Path:
    """A folder with blur/ and raw/car.dat, and no recording.json."""
    (root / "raw").mkdir()
    (root / "spikes.dat").rename(root / "raw" / "car.dat")
    (root / "recording.json").unlink()
    return root


@pytest.mark.parametrize("copy", [False, True])
def test_the_folder_opens_as_what_was_loose(lab: Path, tmp_path: Path, copy: bool) -> None:
    recording, stated = loose(lab, readout="2ms")
    keep_recording(with_sharp(recording, lab / "sharp"), tmp_path / "kept", stated, copy=copy)
    kept = open_recording(tmp_path / "kept", keep_outside=True)  # the last rows of the last frame
    assert kept.exposures == recording.exposures and kept.notes == recording.notes
    assert (kept.fps, kept.readout_ticks, kept.num_ticks) == (recording.fps, 2, 35)
    assert [kept.is_inside(index) for index in range(3)] == [True, True, False]
    for index in range(3):
        if index < 2:
            np.testing.assert_array_equal(kept.read_exposure_spikes(index), recording.read_exposure_spikes(index))
        np.testing.assert_array_equal(kept.read_blur(index), recording.read_blur(index))
        np.testing.assert_array_equal(kept.read_sharp(index), kept.read_blur(index) + 100)
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["blur", "car.dat", "recording.json", "sharp"]
    assert all((tmp_path / "kept" / name).is_symlink() != copy for name in names if name != "recording.json")
    said = json.loads((tmp_path / "kept" / "recording.json").read_text())["provenance"]["stated"]
    assert said["exposure"] == "11ms" and said["readout"] == "2ms" and "fps" not in said


def test_links_hold_where_folder_and_files_move_together_and_one_that_leads_nowhere_is_told(
    lab: Path, tmp_path: Path
) -> None:
    recording, stated = loose(lab)
    keep_recording(recording, lab / "kept", stated)
    moved = lab.rename(tmp_path / "elsewhere") / "kept"
    assert open_recording(moved).num_frames == 3
    (tmp_path / "elsewhere" / "raw").rename(tmp_path / "gone")
    message = r"kept/car.dat: a link to \.\./raw/car.dat, where there is nothing; was it moved\?"
    with pytest.raises(FileNotFoundError, match=message):
        open_recording(moved)


def test_a_recording_is_not_replaced_by_one_that_is_made_of_its_frames(lab: Path, tmp_path: Path) -> None:
    recording, stated = loose(lab)
    keep_recording(recording, tmp_path / "kept", stated, copy=True)
    inner, _ = loose(lab, tmp_path / "kept" / "blur")
    with pytest.raises(FileExistsError, match=r"kept: holds what is read \(.*\), and would be lost"):
        keep_recording(inner, tmp_path / "kept", stated, overwrite=True)
    assert open_recording(tmp_path / "kept").num_frames == 3


def test_a_video_is_linked_and_another_in_its_place_is_refused(lab: Path, tmp_path: Path) -> None:
    video = tmp_path / "a film.mp4"
    write_video(video, [np.full((16, 16, 3), 50 * i, dtype=np.uint8) for i in range(3)], fps=100)
    recording, stated = loose(lab, video, period_ticks=None, exposure="10ticks")
    keep_recording(recording, tmp_path / "kept", stated)
    kept = open_recording(tmp_path / "kept")
    assert [(one.start_tick, one.stop_tick) for one in kept.exposures] == [(1, 11), (11, 21), (21, 31)]
    assert kept.blur == tmp_path / "kept" / "a film.mp4" and round(kept.read_blur(2).mean() / 50) == 2
    video.write_bytes(video.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"a film.mp4: \d+ bytes, but recording.json says \d+; is it another video"):
        open_recording(tmp_path / "kept")


def test_what_was_changed_behind_a_link_is_told(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, stated = loose(lab)
    keep_recording(recording, tmp_path / "kept", stated)
    shutil.copy(lab / "sharp" / "000000.png", lab / "blur" / "000000.png")
    cli.main(["inspect", str(tmp_path / "kept")])
    assert "blur: not the frames that were recorded (sha256 differs)" in capsys.readouterr().out


def test_record_tells_what_it_assumes_and_writes_nothing_where_it_fails(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept"
    arguments = ["record", str(lab / "blur"), "--spikes", str(lab / "raw" / "car.dat"), "--out", str(out)]
    assert cli.main(arguments) == 2
    assert "a spike file without a header does not tell its geometry" in capsys.readouterr().err
    arguments += ["--spike-width", "7", "--spike-height", "5"]
    assert cli.main([*arguments, "--sharp", str(tmp_path)]) == 2
    assert not out.exists() and "no images in it" in capsys.readouterr().err
    assert cli.main([*arguments, "--exposure", "11"]) == 2
    assert capsys.readouterr().err.startswith("spikevrt: --exposure: '11'; allowed: a time with its unit: 6.4ms")
    assert cli.main([*arguments, "--exposure", "11ticks"]) == 0
    told = capsys.readouterr()
    assert "spikevrt: first tick: the first exposure is taken to start with the stream; --first-tick states" in told.err
    assert "--fps or --period-ticks states another" in told.err
    assert "spikevrt: comparison: the exposure is taken as it is stated: the footage does not tell (" in told.err
    assert told.out.startswith("3 frames of 14 x 10, without sharp frames, exposures of 11 ticks, 37 ticks of 7 x 5")
    assert set(open_recording(out).notes) == {"first tick", "period", "tick rate", "comparison"}
    assert cli.main([*arguments, "--exposure", "11ticks"]) == 2
    assert "exists; choose another --out or pass --overwrite" in capsys.readouterr().err
    assert cli.main([*arguments, "--exposure", "9ticks", "--overwrite"]) == 0
    assert {one.num_ticks for one in open_recording(out).exposures} == {9}
    assert "alignment" not in capsys.readouterr().err  # there was none
    write_alignment(out, Alignment(offset_ticks=1.0))
    assert cli.main([*arguments, "--exposure", "9ticks", "--overwrite"]) == 0
    assert f"this one, whose files may be others, has none; run `spikevrt align {out}`" in capsys.readouterr().err
    assert open_recording(out).alignment == Alignment()
    assert (lab / "raw" / "car.dat").is_file() and len(os.listdir(lab / "blur")) == 3  # what was linked is untouched


def test_the_loose_pair_is_looked_at_and_scored_as_its_folder_is(
    recording_folder: Path, micro_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spikes = ["--spikes", str(recording_folder / "spikes.dat"), "--spike-width", "40", "--spike-height", "32"]
    times = ["--first-tick", "0", "--exposure", "19ticks", "--period-ticks", "23", "--tick-rate-hz", "20000"]
    pair = [str(recording_folder / "blur"), *spikes, *times]
    scores = []
    for out, paths in (("a", [str(recording_folder)]), ("b", [*pair, "--sharp", str(recording_folder / "sharp")])):
        more = ["--weights", str(micro_weights), "--ignore-health", "registration", "time offset", "orientation"]
        assert cli.main(["evaluate", *paths, *more, "--out", str(tmp_path / out)]) == 0
        results = json.loads((tmp_path / out / "results.json").read_text())
        scores.append([one["mean"] for one in results["methods"]])
    assert scores[0] == scores[1] and scores[0]
    capsys.readouterr()
    told = []
    for paths in ([str(recording_folder)], pair):
        cli.main(["inspect", *paths])
        told.append([line for line in capsys.readouterr().out.splitlines() if "sharp frames" not in line])
    assert told[0] == [line.replace("/blur", "") for line in told[1]]


def test_align_makes_the_recording_of_a_loose_pair_or_only_tells(lab: Path, tmp_path: Path, capsys: Any) -> None:
    spikes = ["--spikes", str(lab / "raw" / "car.dat"), "--spike-width", "7", "--spike-height", "5"]
    pair = ["align", str(lab / "blur"), *spikes, "--exposure", "11ticks"]
    for more in ([], ["--dry-run", "--out", str(tmp_path / "kept")]):
        assert cli.main([*pair, *more]) == 2
        assert capsys.readouterr().err.startswith("spikevrt: --out: of frames and --spikes the recording to make, or")
    assert cli.main(["align", str(lab), "--exposure", "11ticks"]) == 2
    assert capsys.readouterr().err == "spikevrt: --exposure: only with --spikes\n"
    assert cli.main([*pair, "--out", str(tmp_path / "kept")]) == 2  # noise of 7 x 5 pixels
    assert "cannot be aligned" in capsys.readouterr().err and not (tmp_path / "kept").exists()
