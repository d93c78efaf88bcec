"""SpikeVRT: a VRT whose four encoder stages are fused with a spike pyramid by cross-attention over time.

The spike branch is a pyramid of features from voxels, with attention over time at each of its pixels. There every pixel
is a short sequence of its own over the frames, independent of all other pixels. Features keep their layout in
memory, (frames, pixels, channels), for all layers around the attention.

Dimension key: B samples, T query frames, U key frames, K temporal bins of an exposure, S pixels, H x W
pixels of the colour camera (in the branch: rows and columns), h x w pixels of the spike camera, C channels, G heads;
scale i of the pyramid has C_i channels at 1/2^i of the spikes' resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.config import ModelConfig, SpikeConfig
from spikevrt.kernels import chosen, use_triton
from spikevrt.kernels.operators import MAX_FRAMES, TemporalWeights, temporal_triton
from spikevrt.model.blocks import recompute
from spikevrt.model.flow import Flows, SpyNetLevel
from spikevrt.model.layers import Linear, on_cpu
from spikevrt.model.network import Network, check_voxels
from spikevrt.model.vrt import VRT

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


BYTES_PER_PIECE = 1 << 22  # of one tensor of features, on a CPU: a few of them fit its cache
MAX_SEQUENCES = 65_535  # CUDA's fused attention kernels take no larger batch


def attend_over_time(
    q: Float[Tensor, "T S C"],
    k: Float[Tensor, "U S C"],
    v: Float[Tensor, "U S C"],
    num_heads: int,
    bias: Float[Tensor, "G T U"] | None,
) -> Float[Tensor, "T S C"]:
    """softmax(q k^T / sqrt(E) + bias) v over the frames of every pixel."""
    q, k, v = (t.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.permute(2, 0, 1, 3).flatten(2)


def over_pixels(
    function: nn.Module, *features: Float[Tensor, "B T H W C"], max_tokens: int, recomputed: bool = False
) -> Float[Tensor, "B T H W C"]:
    """Apply `function` to the sequence over time of every pixel, a bounded number of them at a time.

    `function` maps (T, S, C), ... to (T, S, C) for any number S of pixels. Pieces are whole rows of one sample, so that
    each lies in memory in T blocks: on a CPU `BYTES_PER_PIECE`, and nowhere more than about `max_tokens` tokens. The
    result does not depend on the pieces. With `recomputed` the backward pass computes each again from its input.
    Where a kernel of ours runs, `function.fused` maps (B, T, S, C), ... at once, and recomputes in any case.
    """
    b, t, h, w, c = features[0].shape
    if use_triton(features[0]) and (t <= MAX_FRAMES or chosen() == "triton"):  # which then refuses more
        fused: Callable[..., Tensor] = function.fused  # type: ignore[assignment]
        return fused(*(f.flatten(2, 3) for f in features)).unflatten(2, (h, w))
    if torch.compiler.is_compiling():  # one piece, whatever the sizes
        sequences = [f.transpose(0, 1).reshape(t, b * h * w, c) for f in features]
        return recompute(function, *sequences, when=recomputed).view(t, b, h, w, c).transpose(0, 1)
    if on_cpu(features[0]):
        max_tokens = min(max_tokens, BYTES_PER_PIECE // (c * features[0].element_size()))
    rows = max(1, min(max_tokens // (t * w), MAX_SEQUENCES // w))
    cuts = [(sample, slice(top, top + rows)) for sample in range(b) for top in range(0, h, rows)]

    def piece(sample: int, cut: slice) -> Tensor:
        sequences = [f[sample, :, cut].flatten(1, 2) for f in features]
        return recompute(function, *sequences, when=recomputed).unflatten(1, (-1, w))

    if torch.is_grad_enabled():
        parts = [piece(*cut) for cut in cuts]
        count = len(cuts) // b
        return torch.stack([torch.cat(parts[i : i + count], 1) for i in range(0, len(parts), count)])
    out = torch.empty_like(features[0])
    for sample, cut in cuts:
        out[sample, :, cut] = piece(sample, cut)
    return out


class ResidualBlock3D(nn.Module):
    """x + conv(LeakyReLU(conv(x))), with 3x3x3 convolutions over frames, rows and columns.

    With activation relu: ReLU(x + conv(ReLU(conv(x)))).
    """

    def __init__(self, dim: int, is_relu: bool) -> None:
        super().__init__()
        self.is_relu = is_relu
        self.conv1 = nn.Conv3d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv3d(dim, dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        if self.is_relu:
            return F.relu(x + self.conv2(F.relu(self.conv1(x))))
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))


class SpikeEncoder3D(nn.Module):
    """A pyramid of 3-D convolutions and residual 3-D blocks; the K bins of a frame enter as channels, T is kept.

    The first scale has the sensor's own resolution; each further one halves rows and columns.
    """

    def __init__(self, spikes: SpikeConfig, recomputed: tuple[bool, ...]) -> None:
        super().__init__()
        self.recomputed = recomputed  # scales whose intermediate values are recomputed in the backward pass
        dims, widths, is_relu = spikes.dims, (spikes.num_bins, *spikes.dims), spikes.activation == "relu"
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(widths[i], widths[i + 1], 3, stride=(1, 1, 1) if i == 0 else (1, 2, 2), padding=1),
                nn.ReLU() if is_relu else nn.LeakyReLU(0.1),
                *(ResidualBlock3D(widths[i + 1], is_relu) for _ in range(spikes.num_blocks)),
            )
            for i in range(len(dims))
        )

    def forward(self, voxels: Float[Tensor, "B T K H W"]) -> list[Float[Tensor, "B T h w C"]]:
        x = voxels.transpose(1, 2)
        pyramid = []
        for scale, recomputed in zip(self.scales, self.recomputed, strict=True):
            x = recompute(scale, x, when=recomputed)
            pyramid.append(x.permute(0, 2, 3, 4, 1))
        return pyramid


class FeedForward(nn.Sequential):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, ratio: float) -> None:
        hidden = int(dim * ratio)
        super().__init__(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))


class SpikeTemporalSA(nn.Module):
    """One pre-LayerNorm transformer block over the T time steps of a pixel; no dropout, no position code."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(self, x: Float[Tensor, "T S C"]) -> Float[Tensor, "T S C"]:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(attend_over_time(q, k, v, self.num_heads, None))
        return x + self.mlp(self.norm2(x))

    def fused(self, x: Float[Tensor, "B T S C"]) -> Float[Tensor, "B T S C"]:
        """`forward` as one kernel."""
        c, norm = x.shape[-1], (self.norm1.weight, self.norm1.bias)
        weight, bias = self.qkv.weight, self.qkv.bias
        w = TemporalWeights(
            *norm, *norm, weight[:c], bias[:c], weight[c:], bias[c:],
            *self.proj.parameters(), *self.norm2.parameters(), *self.mlp.parameters(),
        )  # fmt: skip
        return temporal_triton(x, None, None, w, self.num_heads)


MAX_TIME_DIFFERENCE = 8  # frames; larger differences share one bias
INITIAL_DECAY = 2.0  # of the time bias, in logits per frame of difference


class TemporalCrossAttnFuse(nn.Module):
    """Cross-attention over time: RGB features are the queries, spike features keys and values.

    out = y + FFN(LN y), y = rgb + attention(LN rgb, LN spikes).

    The residual carries the RGB feature itself, not its normalised copy, and both output projections start at zero: a
    new fusion is exactly the identity, whatever the spikes. With `time_bias` each head learns how much a difference in
    time between the two frames counts; at first it prefers the spikes of its own frame.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, time_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_rgb = nn.LayerNorm(dim)
        self.norm_spikes = nn.LayerNorm(dim)
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)
        for layer in (self.proj, self.mlp[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.time_bias: nn.Parameter | None = None
        if time_bias:
            difference = torch.arange(-MAX_TIME_DIFFERENCE, MAX_TIME_DIFFERENCE + 1, dtype=torch.float32)
            self.time_bias = nn.Parameter((-INITIAL_DECAY * difference.abs()).repeat(num_heads, 1))

    def forward(self, rgb: Float[Tensor, "T S C"], spikes: Float[Tensor, "T S C"]) -> Float[Tensor, "T S C"]:
        q = self.q(self.norm_rgb(rgb))
        k, v = self.kv(self.norm_spikes(spikes)).chunk(2, -1)
        y = rgb + self.proj(attend_over_time(q, k, v, self.num_heads, self._bias(rgb.shape[0], q.dtype)))
        return y + self.mlp(self.norm_mlp(y))

    def fused(self, rgb: Float[Tensor, "B T S C"], spikes: Float[Tensor, "B T S C"]) -> Float[Tensor, "B T S C"]:
        """`forward` as one kernel."""
        layers = (self.norm_rgb, self.norm_spikes, self.q, self.kv, self.proj, self.norm_mlp, self.mlp)
        weights = TemporalWeights(*(p for layer in layers for p in layer.parameters()))
        return temporal_triton(rgb, spikes, self._bias(rgb.shape[1], torch.float32), weights, self.num_heads)

    def _bias(self, num_frames: int, dtype: torch.dtype) -> Float[Tensor, "G T T"] | None:
        if self.time_bias is None:
            return None
        time = torch.arange(num_frames, device=self.time_bias.device)
        difference = (time - time[:, None]).clamp(-MAX_TIME_DIFFERENCE, MAX_TIME_DIFFERENCE)
        return self.time_bias[:, difference + MAX_TIME_DIFFERENCE].to(dtype)


def resize_features(x: Float[Tensor, "B T h w C"], height: int, width: int) -> Float[Tensor, "B T H W C"]:
    """Bilinear resize (align_corners=False) of every frame; nothing is touched where the size is right."""
    if not torch.compiler.is_exporting() and x.shape[2:4] == (height, width):
        return x
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    pictures = F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False)
    return pictures.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


FLOW_MIN_SIZE_PX = 64  # SpyNet needs more than 32 pixels
BYTES_PER_PIXEL_AND_CHANNEL = 260  # activations of a tile at the peak, for each channel of the widest stage, at most
FLOW_MAX_PIXELS = 1 << 18  # the optical flow of a whole picture is computed on so many pixels at a time
FLOW_BYTES_PER_PIXEL = 320  # pyramids of two pictures, warped ones, positions
FLOW_BYTES_PER_PIXEL_AND_CHANNEL = 12  # inside SpyNet, for each channel of two neighbouring layers
FLOW_BYTES_PER_PAIR = 22  # both directions of two frames, x and y, float32, scales 1 to 1/8; for each pixel


class SpikeVRT(Network):
    """The network of `config`. Without a spike branch (`config.spikes` None) it is its spike-less twin, VRT alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widest_window = max(config.vrt.window[1:])
        self.pad_multiple = 8
        self.min_size_px = max(FLOW_MIN_SIZE_PX, 8 * widest_window)  # one window at 1/8 of the resolution
        self.min_free_px = max(self.min_size_px, 8 * (widest_window + 1))  # torch traces one window as another program
        self.min_frames = max(2, 1 + config.vrt.pa_frames // 2)
        self.window_frames = config.vrt.window[0]
        self.shares_flows = config.vrt.pa_frames > 0
        self.vrt = VRT(config.vrt, config.checkpoint, config.checkpoint_stages)
        spikes = config.spikes
        if spikes is not None:
            recomputed = tuple(self._recomputes("spikes", index) for index in range(len(spikes.dims)))
            self.spike_encoder = SpikeEncoder3D(spikes, recomputed)
            self.spike_attention = nn.ModuleList(
                SpikeTemporalSA(dim, spikes.attention_heads, spikes.attention_mlp_ratio) for dim in spikes.dims
            )
            self.fusion = nn.ModuleList(
                TemporalCrossAttnFuse(dim, spikes.fusion_heads, spikes.fusion_mlp_ratio, spikes.fusion_time_bias)
                for dim in spikes.dims
            )

    def start_at_identity(self) -> None:
        """For training from scratch: the restored clip starts as the blurry one, the optical flow as no motion.

        A random last convolution costs hundreds of steps, and a random flow misaligns what it should align.
        """
        levels = [module for module in self.vrt.modules() if isinstance(module, SpyNetLevel)]
        for end in (self.vrt.conv_last, *(level.basic_module[-1] for level in levels)):
            for parameter in end.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        blur: Float[Tensor, "B T 3 H W"],
        spike_vox: Float[Tensor, "B T K h w"] | None = None,
        spikes_present: Bool[Tensor, " B"] | None = None,
        flows: Flows | None = None,
    ) -> Float[Tensor, "B T 3 H W"]:
        """Restore a clip with values in [0, 1]; the output is not clamped. Without spikes it runs as VRT.

        A sample whose `spikes_present` is False runs as VRT too, whatever its voxels; None: all samples have spikes.
        `flows` stand in for those that the network would compute from `blur` (`clip_flows`).

        Raises:
            ValueError: spikes for a network without a spike branch, or voxels of another shape than it reads.
        """
        if spike_vox is None:
            return self.vrt(blur, flows=flows)
        pyramid = self._spike_pyramid(blur, spike_vox)

        def fuse(index: int, rgb: Tensor) -> Tensor:
            fused = self._fuse(index, rgb, pyramid[index])
            if spikes_present is None:
                return fused
            return torch.where(spikes_present.view(-1, 1, 1, 1, 1), fused, rgb)

        return self.vrt(blur, fuse=fuse, flows=flows)

    def clip_flows(self, blur: Float[Tensor, "B T 3 H W"]) -> Flows:
        """SpyNet's flows of a clip, on `FLOW_MAX_PIXELS` at a time."""
        return self.vrt.clip_flows(blur, FLOW_MAX_PIXELS)

    def frame_flow(self, first: Float[Tensor, "N 3 H W"], second: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 2 H W"]:
        flow: Tensor = self.vrt.spynet(first, second)[0]
        return flow

    def bytes_per_pixel(self) -> float:
        return BYTES_PER_PIXEL_AND_CHANNEL * max(self.config.vrt.dims)

    def stored_flow_bytes(self, num_frames: int, height_px: int, width_px: int) -> int:
        """The flows of a clip, kept while its tiles are restored."""
        pairs = sum(max(0, num_frames - distance) for distance in range(1, self.config.vrt.pa_frames // 2 + 1))
        return FLOW_BYTES_PER_PAIR * pairs * height_px * width_px

    def flow_bytes(self, num_frames: int, height_px: int, width_px: int) -> int:
        """Counted from the sizes of things, with constants above what was measured.

        Flows of a whole picture, five frames, MB measured (counted), the larger of both allocators:

            tiny        512 x 768   220  (268)   720 x 1280  454  (529)
            reference   512 x 768   443  (495)   720 x 1280  634  (755)
        """
        widths = self.config.vrt.flow_widths
        channels = max(a + b for a, b in zip(widths, widths[1:], strict=False))
        at_work = FLOW_BYTES_PER_PIXEL * height_px * width_px + FLOW_BYTES_PER_PIXEL_AND_CHANNEL * channels * min(
            FLOW_MAX_PIXELS, 2 * num_frames * height_px * width_px
        )
        return at_work + 2 * self.stored_flow_bytes(num_frames, height_px, width_px)  # in parts, then put together

    def check_exportable(self) -> None:
        vrt = self.config.vrt
        if vrt.pa_frames == 0 or vrt.upscale != 1 or vrt.in_channels != 3:
            raise ValueError("only networks that deblur are exported (pa_frames above 0, upscale 1, RGB)")

    def _recomputes(self, part: str, index: int) -> bool:
        return part in self.config.checkpoint and index + 1 in self.config.checkpoint_stages

    def _spike_pyramid(self, blur: Tensor, spike_vox: Tensor) -> list[Tensor]:
        spikes = check_voxels(self.config.spikes, blur, spike_vox)
        max_tokens, scales = spikes.max_tokens, zip(self.spike_attention, self.spike_encoder(spike_vox), strict=True)
        return [
            over_pixels(attention, features, max_tokens=max_tokens, recomputed=self._recomputes("spikes", index))
            for index, (attention, features) in enumerate(scales)
        ]

    def _fuse(self, index: int, rgb: Tensor, spikes: Tensor) -> Tensor:
        assert self.config.spikes is not None
        spikes = resize_features(spikes, rgb.shape[2], rgb.shape[3])
        max_tokens, recomputed = self.config.spikes.max_tokens, self._recomputes("fusion", index)
        return over_pixels(self.fusion[index], rgb, spikes, max_tokens=max_tokens, recomputed=recomputed)
