"""Which network a config describes: SpikeVRT (or its spike-less twin), or the plain U-Net."""

from __future__ import annotations

from spikevrt.config import ModelConfig
from spikevrt.model.network import SpikeVRT
from spikevrt.model.unet import Unet

Network = SpikeVRT | Unet


def build_network(config: ModelConfig) -> Network:
    """The network of `config`, with fresh weights."""
    return SpikeVRT(config) if config.unet is None else Unet(config)
