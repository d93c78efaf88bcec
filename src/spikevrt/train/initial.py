"""What a run starts from: nothing, a published VRT checkpoint, or weights of an earlier run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spikevrt.checkpoint import WeightsInfo, load_weights
from spikevrt.config import STAGES, Config, ModelConfig
from spikevrt.data.dataset import VoxelStats
from spikevrt.model.weights import load_strict, load_vrt_checkpoint

if TYPE_CHECKING:
    from spikevrt.model.network import Network


@dataclass(frozen=True)
class Initial:
    """Where the weights come from, and the voxel statistics that they were trained with (None: the dataset's)."""

    config: Config
    tensors: dict[str, Tensor] | None = None
    info: WeightsInfo | None = None
    stats: VoxelStats | None = None

    def load(self, network: Network) -> None:
        """Give the network its first weights, strictly.

        From scratch, the restored clip starts as the blurry one. Weights without spikes, SpikeVRT's or published ones,
        become the VRT inside; a fresh fusion is the identity, so the network starts as that VRT. A U-Net takes the
        weights of a U-Net alike.
        """
        if self.config.train.init_vrt is not None:
            load_vrt_checkpoint(network.get_submodule("vrt"), self.config.train.init_vrt)
        elif self.tensors is None or self.info is None:
            network.start_at_identity()
        elif self.info.model.spikes is None and self.info.model.unet is None:
            vrt = {name.removeprefix("vrt."): value for name, value in self.tensors.items()}
            load_strict(network.get_submodule("vrt"), vrt, str(self.config.train.init))
        else:
            load_strict(network, self.tensors, str(self.config.train.init))


def read_initial(config: Config, saved: dict[str, Any] | None) -> Initial:
    """Read `train.init`. A resumed run (`saved`) has its weights already and keeps its statistics.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no weights, or of another network than `config.model`.
    """
    path = config.train.init
    if path is None:
        return Initial(config)
    if saved is not None:
        return Initial(config, stats=None if config.model.spikes is None else VoxelStats(*saved["statistics"]))
    tensors, info = load_weights(path)
    wanted, found = _bare(config.model), _bare(info.model)
    has_twin = wanted.unet is None  # whose weights are a part of it
    if found != wanted and not (has_twin and found == dataclasses.replace(wanted, spikes=None)):
        raise ValueError(
            f"train.init: {path} holds another network than model says; "
            f"allowed: the same{', or its twin without spikes' if has_twin else ''}"
        )
    stats = None if info.model.spikes is None else VoxelStats(info.voxel_mean, info.voxel_std)
    return Initial(config, tensors, info, stats)


def _bare(model: ModelConfig) -> ModelConfig:
    """The model without what changes nothing in its weights."""
    return dataclasses.replace(model, checkpoint=(), checkpoint_stages=STAGES)
