"""The acceptance: is SpikeVRT at least as good as its spike-less twin, and are its edges sharper?

Three checks of the means over the recordings that both have been measured on. Each has its own bit in the exit status.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spikevrt.evaluate.results import KNOWN, Results, ScoredMethod, ScoredRecording, read_results, shown
from spikevrt.typed import amount

MAX_PSNR_LOSS_DB = 0.05
MAX_LPIPS_LOSS = 0.005
STATUS = {"psnr_rgb": 1, "lpips_alex": 4, "edge_rise_px": 8}  # 2 is a user's mistake, as everywhere


@dataclass(frozen=True)
class Check:
    """One metric of both networks, over the `num_recordings` that have it of both."""

    metric: str
    spike: float
    twin: float
    num_recordings: int

    @property
    def is_met(self) -> bool:
        if self.metric == "psnr_rgb":
            return self.spike >= self.twin - MAX_PSNR_LOSS_DB
        if self.metric == "lpips_alex":
            return self.spike <= self.twin + MAX_LPIPS_LOSS
        assert self.metric == "edge_rise_px", self.metric
        return self.spike < self.twin


RULES = {
    "psnr_rgb": f">= twin - {MAX_PSNR_LOSS_DB} dB",
    "lpips_alex": f"<= twin + {MAX_LPIPS_LOSS}",
    "edge_rise_px": "< twin",
}


@dataclass(frozen=True)
class Acceptance:
    """What was compared, and what came out."""

    spike: str
    twin: str
    num_recordings: int
    data_sha256: str
    checks: tuple[Check, ...]

    @property
    def status(self) -> int:
        """The exit status: the sum of the bits of the checks that fail; 0 when all hold."""
        return sum(STATUS[check.metric] for check in self.checks if not check.is_met)


def accept(spike: str, twin: str) -> Acceptance:
    """Check a network that reads spikes against one that does not. Each is RUN or RUN:METHOD; RUN is a results.json or
    its folder. Without METHOD it is the only network of its kind in that run.

    Raises:
        FileNotFoundError, ValueError: no such results, the choice is not clear, the data differ, nothing was measured
            by both, or a metric is missing.
    """
    (spike_results, spike_method), (twin_results, twin_method) = _choose(spike, reads_spikes=True), _choose(
        twin, reads_spikes=False
    )  # fmt: skip
    hashes = spike_results.data_sha256, twin_results.data_sha256
    if hashes[0] != hashes[1]:
        raise ValueError(f"--twin: {twin}: data {hashes[1][:12]}, --spike has {hashes[0][:12]}; allowed: the same data")
    names = [recording.name for recording in twin_results.recordings if recording.name in twin_method.scores]
    both = [r for r in spike_results.recordings if r.name in names and r.name in spike_method.scores]
    if not both:
        raise ValueError(f"--twin: {twin}: {twin_method.name} has no recording that {spike_method.name} has")
    checks = tuple(_check(metric, spike_method, twin_method, both) for metric in STATUS)
    return Acceptance(spike_method.name, twin_method.name, len(both), hashes[0], checks)


def told(acceptance: Acceptance) -> list[str]:
    """A line of what was compared, and one line a check."""
    num = acceptance.num_recordings
    of = f"{amount(num, 'recording')}, data {acceptance.data_sha256[:12]}"
    lines = [f"{acceptance.spike} against its twin {acceptance.twin}, {of}"]
    for check in acceptance.checks:
        unit = f" {KNOWN[check.metric][0]}".rstrip()
        values = f"{shown(check.spike, check.metric)}{unit}, twin {shown(check.twin, check.metric)}{unit}"
        fewer = f" (of {amount(check.num_recordings, 'recording')})" if check.num_recordings < num else ""
        verdict = "PASS" if check.is_met else "FAIL"
        lines.append(f"{verdict}  {check.metric:<12}  {values}{fewer}; needed: {RULES[check.metric]}")
    return lines


def _choose(run: str, *, reads_spikes: bool) -> tuple[Results, ScoredMethod]:
    option = "--spike" if reads_spikes else "--twin"
    path, name = Path(run), ""
    if not path.exists() and ":" in run:
        path, name = Path(run.rpartition(":")[0]), run.rpartition(":")[2]
    results = read_results(path)
    kind = "with spikes" if reads_spikes else "without spikes"
    found = [m for m in results.methods if m.is_network and m.reads_spikes == reads_spikes]
    names = ", ".join(method.name for method in found) or "none"
    chosen = [method for method in found if method.name == name] if name else found
    if name and not chosen:
        raise ValueError(f"{option}: {path} has no network {kind} called {name}; allowed: {names}")
    if not chosen:
        raise ValueError(f"{option}: {path} has no network {kind}; allowed: results of one")
    if len(chosen) > 1:
        raise ValueError(f"{option}: {path} has {len(chosen)} networks {kind}; allowed: {path}:METHOD, of {names}")
    return results, chosen[0]


def _check(metric: str, spike: ScoredMethod, twin: ScoredMethod, recordings: list[ScoredRecording]) -> Check:
    pairs = []
    for method in (spike, twin):
        if not any(metric in method.scores[recording.name].mean for recording in recordings):
            text = f"{method.name} has no {metric}; `spikevrt evaluate --metrics all` measures it"
            raise ValueError(f"{method.folder}: {text}")
    for recording in recordings:
        means = [method.scores[recording.name].mean for method in (spike, twin)]
        if all(metric in mean for mean in means):
            pairs.append([mean[metric] for mean in means])
    if not pairs:
        raise ValueError(f"{twin.folder}: no recording has {metric} of both {spike.name} and {twin.name}")
    of_spike, of_twin = (sum(pair[k] for pair in pairs) / len(pairs) for k in (0, 1))
    return Check(metric, of_spike, of_twin, len(pairs))
