"""A long recording takes no more memory than a short one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from spikevrt import runtime
from spikevrt.recording.loose import loose_recording
from spikevrt.model.network import Network
from spikevrt.mux.join import write_video
from spikevrt.restore.options import RestoreOptions
from tests.restore.conftest import RGB, info, restore, stand_in
folder, num_frames = Path(sys.argv[1]), int(sys.argv[2])
class Brighter(Network):  # remembers nothing
    pad_multiple, min_size_px, min_frames = 8, 16, 2
    def bytes_per_pixel(self):
        return 1.0
    def forward(self, blur, spike_vox=None, spikes_present=None, flows=None):
        return blur + 0.01
stand_in(lambda weights, device: (runtime.tune_allocator(), (Brighter(RGB).eval(), info(RGB)))[1])
# grey that drifts, as from one camera: no cuts
frames = (np.full((128, 192, 3), 100 + (i % 100) // 10, np.uint8) for i in range(num_frames))
write_video(folder / f"in{num_frames}.mp4", frames, 30.0)
options = RestoreOptions(device="cpu", clip_frames=25)
summary = restore(Path("w"), loose_recording(folder / f"in{num_frames}.mp4", None), folder / f"out{num_frames}.mp4", options)
assert summary["num_frames"] == num_frames and summary["cuts"] == [], summary["cuts"]
print(summary["peak_bytes"])
"""  # noqa: E501


def peak_of(folder: Path, num_frames: int) -> int:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(num_frames)]
    path = f"{ROOT / 'src'}:{ROOT}"
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONPATH": path, "PATH": ""})
    return int(done.stdout)


@pytest.mark.slow
def test_a_thousand_frames_take_within_a_tenth_the_memory_of_a_hundred(tmp_path: Path):
    assert peak_of(tmp_path, 1_000) < 1.1 * peak_of(tmp_path, 100)
