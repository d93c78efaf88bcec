"""How large is each network, and what does a clip cost? `python benchmarks/model_size.py [CONFIG...]`

Prints, as a Markdown table, parameters and multiply-accumulates (MACs) of one 5x256x256 clip, spikes at half
resolution, for the whole and per part. MACs are those of convolutions and matrix products, counted by torch on shapes
alone (no arithmetic is done); bilinear sampling and elementwise work are not counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from spikevrt.config import load_config
from spikevrt.model import build_network

CONFIGS = Path(__file__).parents[1] / "configs"
FRAMES, SIZE_PX, RATIO = 5, 256, 2
PARTS = {
    "spynet": "vrt.spynet",
    **{f"stage {i}": f"vrt.stage{i}" for i in range(1, 9)},
    "spike encoder": "spike_encoder",
    "spike temporal attention": "spike_attention",
    "fusion": "fusion",
    "U-Net, first spike layers": "first_spikes",
    "U-Net, encoder": "encoder",
    "U-Net, halvings": "down",
    "U-Net, bottom": "bottom",
    "U-Net, doublings": "up",
    "U-Net, decoder": "decoder",
}


def table_rows(path: Path) -> list[tuple[str, int, int]]:
    """(part, parameters, MACs), the whole first."""
    config = load_config(path).model
    network = build_network(config).to("meta")
    blur = torch.empty(1, FRAMES, 3, SIZE_PX, SIZE_PX, device="meta")
    spikes = None
    if config.spikes is not None:
        half = SIZE_PX // RATIO
        spikes = torch.empty(1, FRAMES, config.spikes.num_bins, half, half, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(blur, spikes)
    root = type(network).__name__
    counts = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}

    def macs(part: str) -> int:
        exact = counts.get(f"{root}.{part}")
        if exact is not None:
            return exact
        depth = part.count(".") + 2  # a list of modules is never called itself: add up its members
        prefix = f"{root}.{part}."
        return sum(n for name, n in counts.items() if name.startswith(prefix) and name.count(".") == depth)

    def parameters(part: str) -> int:
        return sum(p.numel() for p in network.get_submodule(part).parameters())

    rows = [("whole", parameters(""), counts["Global"])]
    names = dict(network.named_modules())
    rows += [(name, parameters(part), macs(part)) for name, part in PARTS.items() if part in names]
    whole, parts = rows[0], rows[1:]
    rest = whole[1] - sum(row[1] for row in parts), whole[2] - sum(row[2] for row in parts)
    return [*rows, ("first and last layers", *rest)]


def main(paths: list[str]) -> None:
    for path in [Path(p) for p in paths] or sorted(CONFIGS.glob("*.yaml")):
        print(f"\n**{path.stem}**\n\n| part | parameters | GMAC | share |\n| --- | ---: | ---: | ---: |")
        rows = table_rows(path)
        for name, parameters, macs in rows:
            print(f"| {name} | {parameters:,} | {macs / 1e9:.2f} | {macs / rows[0][2]:.1%} |")


if __name__ == "__main__":
    main(sys.argv[1:])
