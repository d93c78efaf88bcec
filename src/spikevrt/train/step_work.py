"""What one step of training amounts to, counted on shapes: peak of the live bytes, and arithmetic.

The real network takes the step on fake tensors, which have shapes and no values; every storage that comes and goes is
added up, in the order in which a real step makes and frees it.

Dimension key: B samples of one micro-batch, T frames, K bins, H x W pixels of a frame, h x w pixels of the spikes.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from spikevrt import runtime
from spikevrt.losses import charbonnier
from spikevrt.model.blocks import kept_shift_mask

if TYPE_CHECKING:
    from jaxtyping import Float

    from spikevrt.config import Config

Batch = dict[str, Tensor]  # blur and sharp (B,T,3,H,W); spike_vox (B,T,K,h,w) where the network reads spikes
# the loss of one micro-batch, autocast obeyed: (network, batch) -> scalar
StepLoss = Callable[[nn.Module, Batch], "Float[Tensor, '']"]


@dataclass(frozen=True, order=True)
class Size:
    """Of one micro-batch: crops of `crop_px` x `crop_px`, `batch` of them."""

    crop_px: int
    batch: int

    @property
    def pixels(self) -> int:
        return self.batch * self.crop_px**2


@dataclass(frozen=True)
class Work:
    """Of one forward, loss and backward pass: `live_bytes`, the peak of all tensors beside the parameters; `flops` of
    convolutions and matrix products, those that are recomputed included."""

    live_bytes: int
    flops: int


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of every storage that an operation creates, from creation to its end, and the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def ignore(self, tensors: Sequence[Tensor]) -> None:
        """Count these as nothing: they were there before."""
        for tensor in tensors:
            self.seen.add(tensor.untyped_storage())

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            num_bytes = storage.nbytes()
            self.now += num_bytes
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, num_bytes)

    def _freed(self, num_bytes: int) -> None:
        self.now -= num_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out


def charbonnier_loss(config: Config, device: torch.device) -> StepLoss:
    """The first term of the loss alone, as the training loop computes it."""

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        with runtime.autocast(device, config.train.precision):
            restored = network(batch["blur"], batch.get("spike_vox")).float()
        return charbonnier(restored, batch["sharp"], config.loss.charbonnier_eps)

    return loss


def step_work(network: nn.Module, loss: StepLoss, config: Config, size: Size, *, spike_ratio: int = 2) -> Work:
    """Forward, loss and backward of `network` (untouched) at `size`, on shapes alone: nothing is computed.

    Acts as on the device where the network lies. Checkpointing and mixed precision do what they do in a real step. Only
    the masks of shifted windows are really made, as a real step makes them.
    """
    device = next(network.parameters()).device
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    kept_shift_mask.cache_clear()  # they count as part of a step
    with fake:
        values = {id(b): torch.empty_like(b) for b in network.buffers()}
        values |= {id(p): nn.Parameter(torch.empty_like(p), p.requires_grad) for p in network.parameters()}
        batch = random_batch(config, size, device, spike_ratio)
    network = copy.deepcopy(network, values)  # the layers anew, around the fake values
    network.train()
    live = LiveBytes()
    live.ignore([*network.parameters(), *network.buffers()])
    for tensor in batch.values():
        live.add(tensor)
    with live:
        loss(network, batch).backward()
    kept_shift_mask.cache_clear()
    return Work(live.peak, live.flops)


def random_batch(config: Config, size: Size, device: torch.device, spike_ratio: int) -> Batch:
    """A micro-batch of noise, of the shapes that the data loader gives."""
    num_frames, side = config.data.clip_frames, size.crop_px
    shape = (size.batch, num_frames, 3, side, side)
    batch = {"blur": torch.rand(shape, device=device), "sharp": torch.rand(shape, device=device)}
    if config.model.spikes is not None:
        spikes_side = side // spike_ratio
        shape = (size.batch, num_frames, config.model.spikes.num_bins, spikes_side, spikes_side)
        batch["spike_vox"] = torch.rand(shape, device=device)
    return batch
