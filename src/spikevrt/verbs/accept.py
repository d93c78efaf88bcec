"""`spikevrt accept`."""

from __future__ import annotations

import argparse
from typing import Any

from spikevrt.verbs.options import add_verb


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "accept", _accept, "spikevrt accept --spike out/scores:spikefold_tiny --twin out/scores")
    text = "results.json of `evaluate --metrics all`, or its folder; with :METHOD where it holds several such networks"
    parser.add_argument("--spike", required=True, metavar="RUN", help=f"the network with spikes: {text}")
    parser.add_argument("--twin", required=True, metavar="RUN", help="the network without: likewise")


def _accept(parsed: argparse.Namespace) -> int:
    """Check SpikeVRT against its spike-less twin; exit status 0, or the sum of 1 PSNR, 4 LPIPS, 8 edges not met."""
    from spikevrt.evaluate.accept import accept, told

    acceptance = accept(parsed.spike, parsed.twin)
    print("\n".join(told(acceptance)))
    return acceptance.status
