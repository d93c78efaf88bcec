import dataclasses
import math

import numpy as np
import pytest
import torch

from spikevrt import checkpoint
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import ModelConfig, SpikeConfig
from spikevrt.recording.frames import to_float
from spikevrt.recording.loose import loose_recording
from spikevrt.restore.clip import ClipWork, restore_clip
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import LoadedNetwork, Restorer, load_network
from spikevrt.restore.tiling import Tile, cut_flows, spatial_tiles
from tests.restore.conftest import (
    NUM_BINS,
    RGB,
    SPIKES,
    FakeNetwork,
    identity,
    info,
    mark_cuts,
    restore_frames,
    voxels_as_frames,
)

SMALL = RestoreOptions(tile_px=32, overlap_px=8, clip_frames=3, overlap_frames=1)


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"tile_px": -1}, r"tile_px: -1; allowed: 0"),
        ({"clip_frames": 1}, r"clip_frames: 1; allowed: 0 \(the whole recording\), 2 or more"),
        ({"tile_px": 64, "overlap_px": 64}, r"overlap_px: 64; allowed: 0 or more, and less than tile_px 64"),
        ({"overlap_frames": 5}, r"overlap_frames: 5; allowed: 0 or more, and less than clip_frames 5"),
        ({"device": "tpu"}, r"device: 'tpu'; allowed: auto, cpu, cuda"),
        ({"precision": "int8"}, r"precision: 'int8'; allowed: fp32, bf16, fp16"),
        ({"skip_sharp": 0.0}, r"skip_sharp: 0\.0; allowed: above 0 \(a still scene reads about 1\)"),
        ({"skip_sharp": float("nan")}, r"skip_sharp: nan; allowed: above 0"),
        ({"skip_sharp": 2.0, "without_spikes": True}, r"skip_sharp: 2\.0; allowed with without_spikes: none"),
    ],
)
def test_an_option_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        RestoreOptions(**setting)


# --- one clip --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 16), (61, 103), (7, 97), (48, 64)])
def test_tiles_of_a_constant_clip_blend_to_that_constant_at_the_border_too(height, width):
    """Fault 7: a blending window that is zero at the picture's edge leaves a black border."""
    clip = torch.full((3, 3, height, width), 0.7)
    restored = restore_clip(identity(), clip, None, SMALL)
    torch.testing.assert_close(restored, clip, rtol=0, atol=1e-6)  # float32 sum of at most a few weights


def test_tiles_of_any_clip_blend_to_what_the_whole_picture_gives(noise):
    clip = torch.rand(2, 3, 61, 103, generator=noise)
    tiled = restore_clip(identity(), clip, None, SMALL)
    torch.testing.assert_close(tiled, clip, rtol=0, atol=1e-6)  # as above


def test_one_tile_is_no_tiling_bit_for_bit(noise):
    clip = torch.rand(2, 3, 48, 64, generator=noise)
    network = identity()
    assert torch.equal(restore_clip(network, clip, None, RestoreOptions(tile_px=64)), clip)
    assert torch.equal(network.calls[0][0][0], clip)
    assert torch.equal(restore_clip(network, clip, None, RestoreOptions(tile_px=0)), clip)
    assert len(network.calls) == 2


def test_a_nan_in_one_tile_stops_with_the_name_of_the_tile(noise):
    """Fault 7: failed tiles were left black, NaN was turned into 0."""
    clip = torch.rand(2, 3, 32, 56, generator=noise)
    network = identity()

    def answer(blur, vox):
        return blur if len(network.calls) == 1 else blur / 0 * 0

    network.answer = answer
    message = r"tile rows 0-31, columns 24-55: the network's output is not finite \(NaN or infinity, precision fp32\)"
    with pytest.raises(ValueError, match=message):
        restore_clip(network, clip, None, SMALL)


def test_a_tile_that_fails_stops_the_clip(noise):
    def answer(blur, vox):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        restore_clip(FakeNetwork(RGB, answer), torch.rand(2, 3, 32, 32, generator=noise), None, SMALL)


def test_frames_with_nan_are_refused():
    clip = torch.zeros(3, 3, 16, 16)
    clip[1, 0, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"frames: NaN or infinity in frame 1 of the clip; allowed: finite values"):
        restore_clip(identity(), clip, None, SMALL)


def test_voxels_with_infinity_are_refused():
    voxels = torch.zeros(2, NUM_BINS, 8, 8)
    voxels[0, 2, 3, 5] = float("inf")
    with pytest.raises(ValueError, match=r"voxels: NaN or infinity in frame 0 of the clip; allowed: finite values"):
        restore_clip(voxels_as_frames(), torch.zeros(2, 3, 16, 16), voxels, SMALL)


def test_a_network_with_spikes_refuses_to_run_without():
    with pytest.raises(ValueError, match=r"voxels: none given, but this network reads spikes; allowed: \(2, 3, h, w\)"):
        restore_clip(voxels_as_frames(), torch.zeros(2, 3, 16, 16), None, SMALL)


def test_a_network_without_spikes_refuses_voxels():
    with pytest.raises(ValueError, match=r"voxels: given, but this network has no spike branch"):
        restore_clip(identity(), torch.zeros(2, 3, 16, 16), torch.zeros(2, NUM_BINS, 8, 8), SMALL)


def test_voxels_with_another_number_of_bins_are_refused():
    with pytest.raises(ValueError, match=r"voxels: shape \(2, 5, 8, 8\); allowed: \(2, 3, h, w\)"):
        restore_clip(voxels_as_frames(), torch.zeros(2, 3, 16, 16), torch.zeros(2, 5, 8, 8), SMALL)


def test_a_tile_smaller_than_the_network_takes_is_refused():
    with pytest.raises(ValueError, match=r"tile_px: 15; this network needs 16 or more"):
        restore_clip(identity(), torch.zeros(2, 3, 32, 32), None, RestoreOptions(tile_px=15, overlap_px=0))


def runs_out_above(side_px: int) -> FakeNetwork:
    """Answers with its frames, where no side is longer."""

    def answer(blur, vox):
        if max(blur.shape[-2:]) > side_px:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return blur.clone()

    return FakeNetwork(RGB, answer)


def test_where_memory_runs_out_tiles_are_halved_until_they_fit_and_that_is_told(noise, capsys):
    clip, told = torch.rand(2, 3, 128, 192, generator=noise), []
    network = runs_out_above(50)
    restored = restore_clip(network, clip, None, RestoreOptions(tile_px=0, overlap_px=8), tell=told.append)
    torch.testing.assert_close(restored, clip, rtol=0, atol=1e-6)  # float32 sum of at most a few weights
    assert told[0].tile_px == 48
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(");")[1] for line in lines] == [
        " tiles of 96 px instead of 192",
        " tiles of 48 px instead of 96",
    ]


def test_after_memory_ran_out_later_clips_begin_with_the_smaller_tiles(make_recording, capsys):
    network = runs_out_above(24)
    options = RestoreOptions(tile_px=32, overlap_px=4, clip_frames=3)
    assert len(list(restore_frames(network, info(RGB), make_recording(7), options))) == 7
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sum(max(blur.shape[-2:]) > 24 for blur, _ in network.calls) == 1


def test_memory_that_runs_out_for_the_smallest_tile_is_an_error(noise):
    with pytest.raises(torch.OutOfMemoryError):
        restore_clip(runs_out_above(8), torch.rand(2, 3, 64, 64, generator=noise), None, SMALL)


def test_other_errors_of_a_tile_are_not_tried_again(noise):
    network = FakeNetwork(RGB, lambda blur, vox: blur.view(7))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        restore_clip(network, torch.rand(2, 3, 64, 64, generator=noise), None, SMALL)
    assert len(network.calls) == 1


def test_one_frame_alone_is_run_as_a_clip_that_repeats_it(noise):
    """Fault 8: inference with T = 1, which the network was never trained for."""
    frame = torch.rand(1, 3, 16, 24, generator=noise)
    network = identity()
    assert torch.equal(restore_clip(network, frame, None, SMALL), frame)
    assert torch.equal(network.calls[0][0][0], torch.cat([frame, frame]))


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_every_tile_of_spikes_sees_what_its_tile_of_frames_sees(noise, ratio):
    """Fault 8: a centre crop of frames met a corner crop of spikes."""
    voxels = torch.rand(2, NUM_BINS, 37, 53, generator=noise)
    frames = voxels.repeat_interleave(ratio, -1).repeat_interleave(ratio, -2)
    network = voxels_as_frames()
    restored = restore_clip(network, frames, voxels, RestoreOptions(tile_px=48, overlap_px=8))
    assert len(network.calls) > 1
    for blur, vox in network.calls:
        assert torch.equal(blur, vox.repeat_interleave(ratio, -1).repeat_interleave(ratio, -2))
    torch.testing.assert_close(restored, frames, rtol=0, atol=1e-6)  # float32 sum of at most a few weights


def test_density_normalisation_gives_recordings_of_any_rate_the_mean_of_training(make_recording, capsys):
    config = ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS, normalize="density"))
    for per_bin in (2, 9):  # spikes a bin and pixel: far from the mean of training, and no warning
        recording = make_recording(per_bin, ticks=per_bin * NUM_BINS)
        network = voxels_as_frames()
        network.config = config
        _, frame = next(restore_frames(network, info(config, mean=0.01), recording, SMALL))
        torch.testing.assert_close(frame, torch.zeros(3, 22, 34), rtol=0, atol=1e-6)
    assert capsys.readouterr().err == ""


def test_ticks_shared_among_more_bins_than_there_are_keep_their_sum(make_recording):
    config = ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS, binning="fractional"))
    recording = make_recording(2, ticks=1)
    network = voxels_as_frames()
    network.config = config
    _, frame = next(restore_frames(network, info(config, mean=0.0), recording, SMALL))
    torch.testing.assert_close(torch.expm1(frame), torch.full((3, 22, 34), 1 / NUM_BINS), rtol=0, atol=1e-6)


def test_spikes_at_no_whole_ratio_are_brought_to_the_frames_field_of_view(make_recording):
    """Frames of 35x23 pixels and 17x11 spikes, the lower rows lit: the light's edge stays at the same height."""
    spikes = np.zeros((NUM_BINS, 11, 17), dtype=np.uint8)
    spikes[:, 6:] = 1
    recording = make_recording(2, height=23, width=35, ticks=NUM_BINS, spikes=spikes)
    _, frame = next(restore_frames(voxels_as_frames(), info(SPIKES, mean=0.3), recording, SMALL))
    lit = frame[0, :, 17] > (torch.log1p(torch.tensor(0.5)) - 0.3)  # (log1p(count) - mean) / std, half a spike
    assert lit.tolist() == [row >= 13 for row in range(23)]  # the edge lies at 6 / 11 of 23 rows, at 12.55


def test_the_inputs_are_left_as_they_were(noise):
    frames, voxels = torch.rand(2, 3, 21, 35, generator=noise), torch.rand(2, NUM_BINS, 7, 12, generator=noise)
    before = frames.clone(), voxels.clone()
    restore_clip(voxels_as_frames(), frames, voxels, RestoreOptions(tile_px=48, overlap_px=8))
    assert torch.equal(frames, before[0]) and torch.equal(voxels, before[1])


# --- flows shared by tiles -------------------------------------------------------------------------------------------


def test_flows_are_computed_once_and_each_tile_gets_what_lies_in_it(noise):
    """The fake's flows say where each pixel lies, at every scale."""
    network = identity()
    restore_clip(network, torch.rand(3, 3, 64, 96, generator=noise), None, SMALL)
    tiles = spatial_tiles(64, 96, 32, 8, multiple=8)
    assert network.flow_calls == 1 and len(network.flows) == len(tiles) > 4
    for tile, flows in zip(tiles, network.flows, strict=True):
        for s, flow in enumerate(flows.backward[0]):
            assert flow.shape == (1, 2, 2, 32 >> s, 32 >> s)
            assert flow[0, 0, :, 0, 0].tolist() == [tile.left, tile.top]
            assert flow[0, 1, :, -1, -1].tolist() == [tile.left + 32 - 2**s, tile.top + 32 - 2**s]


def test_one_tile_computes_its_own_flows(noise):
    network = identity()
    restore_clip(network, torch.rand(2, 3, 48, 64, generator=noise), None, RestoreOptions(tile_px=64))
    assert network.flows == [None] and network.flow_calls == 0


def test_tiles_of_the_real_network_with_shared_flows_equal_the_network_given_them(micro_weights, noise):
    network, _ = load_network(micro_weights, torch.device("cpu"))
    frames, voxels = torch.rand(2, 3, 64, 96, generator=noise), torch.rand(2, 16, 32, 48, generator=noise)
    told = []
    tiled = restore_clip(network, frames, voxels, RestoreOptions(tile_px=64, overlap_px=32), tell=told.append)
    assert told == [ClipWork(2, 0, True, ())]
    with torch.no_grad():
        flows = network.clip_flows(frames[None])
        left = Tile(0, 0, 64, 64, torch.ones(64), torch.ones(64))
        expected = network(frames[None, ..., :64], voxels[None, ..., :32], flows=cut_flows(flows, left))[0]
    torch.testing.assert_close(tiled[..., :32], expected[..., :32], rtol=0, atol=1e-5)  # SpyNet in other parts


# --- tiles that are sharp already ------------------------------------------------------------------------------------


def doubled() -> FakeNetwork:
    return FakeNetwork(SPIKES, lambda blur, vox: 2 * blur)


def test_a_tile_below_the_threshold_stays_as_it_is_and_the_others_are_restored(noise):
    """Voxels at half the size: blocks of 8 are 16 pixels. The right third is in motion in the second frame."""
    frames, voxels = torch.rand(2, 3, 32, 96, generator=noise), torch.zeros(2, NUM_BINS, 16, 48)
    activity = torch.ones(2, 2, 6)
    activity[1, 1, 5] = 3.0
    options = RestoreOptions(tile_px=32, overlap_px=0, skip_sharp=2.0)
    network, told = doubled(), []
    restored = restore_clip(network, frames, voxels, options, activity=activity, tell=told.append)
    assert torch.equal(restored[..., :64], frames[..., :64])
    assert torch.equal(restored[..., 64:], 2 * frames[..., 64:])
    assert told == [ClipWork(3, 2, False, (1.0, 1.0, 3.0))] and len(network.calls) == 1


def test_a_clip_in_which_nothing_moves_needs_no_network(noise):
    frames, voxels = torch.rand(2, 3, 32, 48, generator=noise), torch.zeros(2, NUM_BINS, 16, 24)
    network = doubled()
    options = RestoreOptions(skip_sharp=2.0)
    assert torch.equal(restore_clip(network, frames, voxels, options, activity=torch.ones(2, 2, 3)), frames)
    assert network.calls == []


def test_skipping_without_activity_is_refused():
    frames, voxels = torch.zeros(2, 3, 32, 48), torch.zeros(2, NUM_BINS, 16, 24)
    with pytest.raises(ValueError, match=r"skip_sharp: 2\.0, but the activity of the spikes was not given"):
        restore_clip(doubled(), frames, voxels, RestoreOptions(skip_sharp=2.0))


def test_skipping_with_weights_without_spikes_is_refused_before_the_first_frame(make_recording):
    message = r"skip_sharp: 2\.0; allowed for weights without spikes: none \(spikes tell what moves\)"
    with pytest.raises(ValueError, match=message):
        restore_frames(identity(), info(RGB), make_recording(2), RestoreOptions(skip_sharp=2.0))


def test_skipping_with_a_single_bin_is_refused(make_recording):
    config = ModelConfig(spikes=SpikeConfig(num_bins=1))
    with pytest.raises(ValueError, match=r"skip_sharp: 2\.0; allowed for weights that read a single bin: none"):
        restore_frames(voxels_as_frames(), info(config), make_recording(2), RestoreOptions(skip_sharp=2.0))


@pytest.mark.parametrize("representation", ["counts", "profile"])
def test_where_nothing_moves_the_blurry_frame_comes_out_and_not_the_relit_one(make_recording, representation):
    """Steady spikes: activity 0, below any threshold. Their number is counted, whatever the network reads."""
    recording = make_recording(2)
    config = ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS, relight=True, representation=representation))
    network = voxels_as_frames()
    network.config = config
    for index, frame in restore_frames(network, info(config), recording, RestoreOptions(skip_sharp=2.0)):
        assert torch.equal(frame, to_float(recording.read_blur(index)))
    assert network.calls == []


def test_a_profile_of_steady_spikes_is_zero_and_lights_nothing_whatever_their_number(make_recording, capsys):
    config = ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS, representation="profile", relight=True))
    for per_bin in (2, 9):
        recording = make_recording(per_bin, ticks=per_bin * NUM_BINS)
        network = voxels_as_frames()
        network.config = config
        list(restore_frames(network, info(config, mean=0.01), recording, SMALL))
        frames, voxels = network.calls[0]
        torch.testing.assert_close(voxels, torch.zeros_like(voxels), rtol=0, atol=1e-6)
        blur = to_float(recording.read_blur(0))
        torch.testing.assert_close(frames[0, 0, :, :16, :16], blur[:, :16, :16], rtol=0, atol=1e-4)
    assert capsys.readouterr().err == ""


# --- a recording -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 7, 11])
@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_every_frame_comes_out_exactly_once_in_order_and_at_full_weight(make_recording, num_frames, overlap):
    options = RestoreOptions(tile_px=32, overlap_px=8, clip_frames=3, overlap_frames=overlap)
    restored = list(restore_frames(identity(), info(RGB), make_recording(num_frames), options))
    assert [index for index, _ in restored] == list(range(num_frames))
    for index, frame in restored:
        torch.testing.assert_close(frame, torch.full((3, 22, 34), index / 255), rtol=0, atol=1e-6)  # as above


@pytest.mark.parametrize("overlap", [3, 4])
def test_clips_share_as_many_frames_as_asked_beyond_half_a_clip_too(make_recording, overlap):
    network = identity()
    options = RestoreOptions(tile_px=64, clip_frames=5, overlap_frames=overlap)
    restored = list(restore_frames(network, info(RGB), make_recording(9), options))
    starts = [round(blur[0, 0, 0, 0, 0].item() * 255) for blur, _ in network.calls]  # frame i has the grey level i
    assert starts == list(range(0, 5, 5 - overlap))
    assert [index for index, _ in restored] == list(range(9))
    for index, frame in restored:
        torch.testing.assert_close(frame, torch.full((3, 22, 34), index / 255), rtol=0, atol=1e-6)  # as above


def test_a_recording_is_run_in_clips_of_the_asked_length(make_recording):
    """Fault 8: directory inference ran frame by frame."""
    network = identity()
    list(restore_frames(network, info(RGB), make_recording(7), RestoreOptions(tile_px=64, clip_frames=3)))
    assert {blur.shape[1] for blur, _ in network.calls} == {3}
    network.calls.clear()
    list(restore_frames(network, info(RGB), make_recording(11), RestoreOptions(tile_px=64, clip_frames=0)))
    assert [blur.shape[1] for blur, _ in network.calls] == [11]


def test_frames_leave_as_soon_as_no_later_clip_can_change_them(make_recording):
    network = identity()
    restored = restore_frames(network, info(RGB), make_recording(7), RestoreOptions(tile_px=64, clip_frames=3))
    assert network.calls == []
    assert next(restored)[0] == 0 and next(restored)[0] == 1
    assert len(network.calls) == 1
    assert next(restored)[0] == 2
    assert len(network.calls) == 2


def test_progress_counts_every_frame(make_recording):
    seen = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    list(restore_frames(identity(), info(RGB), make_recording(4), SMALL, progress=progress))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_network_sees_the_voxels_of_the_exposure_standardised(make_recording):
    network = voxels_as_frames()
    recording = make_recording(2)  # all ones: 6 ticks in 3 bins count 2 each
    list(restore_frames(network, info(SPIKES, mean=0.5), recording, SMALL))
    expected = math.log(3) - 0.5
    torch.testing.assert_close(network.calls[0][1], torch.full((1, 2, 3, 16, 16), expected), rtol=0, atol=1e-6)


def test_no_clip_reaches_across_a_cut(make_recording, monkeypatch):
    network = identity()
    mark_cuts(monkeypatch, [4])
    list(restore_frames(network, info(RGB), make_recording(9), SMALL))
    clips = [(blur[0, 0, 0, 0, 0].item() * 255, blur[0, -1, 0, 0, 0].item() * 255) for blur, _ in network.calls]
    assert all(round(last) < 4 or round(first) >= 4 for first, last in clips) and len(clips) > 2


def test_frames_without_usable_spikes_are_restored_from_the_frames_alone(make_recording):
    network = FakeNetwork(SPIKES, lambda blur, vox: blur.clone())
    recording = make_recording(7, dead=(3, 4))
    restored = list(restore_frames(network, info(SPIKES), recording, SMALL))
    assert [index for index, _ in restored] == list(range(7))
    alone = {
        round(level) for blur, vox in network.calls if vox is None for level in (blur[0, :, 0, 0, 0] * 255).tolist()
    }
    with_spikes = {
        round(v) for blur, vox in network.calls if vox is not None for v in (blur[0, :, 0, 0, 0] * 255).tolist()
    }
    assert (alone, with_spikes) == ({3, 4}, {0, 1, 2, 5, 6})


@pytest.mark.parametrize("first", [1, 4, 6, 10])
def test_a_frame_is_the_same_whatever_frame_is_begun_with(make_recording, first):
    recording, options = make_recording(11), RestoreOptions(tile_px=64, clip_frames=5, overlap_frames=2)
    network = FakeNetwork(RGB, lambda blur, vox: blur + blur.mean(1, keepdim=True))  # depends on the clip
    every = dict(restore_frames(network, info(RGB), recording, options))
    later = dict(restore_frames(network, info(RGB), recording, options, first=first))
    assert list(later) == list(range(first, 11))
    assert all(torch.equal(later[index], every[index]) for index in later)


def test_a_bad_tile_of_a_recording_is_named_with_its_frames(make_recording):
    network = FakeNetwork(RGB, lambda blur, vox: blur * float("nan"))
    with pytest.raises(ValueError, match=r"grey4, frames 0-2: tile rows 0-23, columns 0-31: the network's output"):
        list(restore_frames(network, info(RGB), make_recording(4), SMALL))


def test_a_recording_without_spikes_is_refused_before_the_first_frame(make_recording):
    frames_only = loose_recording(make_recording(2).root / "blur", None)
    with pytest.raises(ValueError, match=r"blur: no spikes, but these weights read them"):
        restore_frames(voxels_as_frames(), info(SPIKES), frames_only, SMALL)


def test_told_to_do_without_spikes_a_network_gets_none_and_the_gate_is_not_asked(make_recording):
    frames_only = loose_recording(make_recording(2).root / "blur", None)
    network = FakeNetwork(SPIKES, lambda blur, vox: blur.clone())
    alone = dataclasses.replace(SMALL, without_spikes=True)
    assert len(list(restore_frames(network, info(SPIKES), frames_only, alone))) == 2
    assert len(list(restore_frames(network, info(SPIKES), make_recording(3, ticks=2), alone))) == 3
    assert {vox for _, vox in network.calls} == {None}


def test_weights_that_never_learnt_to_do_without_spikes_are_told(capsys):
    alone = dataclasses.replace(SMALL, without_spikes=True)
    Restorer(LoadedNetwork(identity(), info(SPIKES), "run/best.safetensors"), alone)
    assert capsys.readouterr().err.startswith("spikevrt: warning: run/best.safetensors was not trained to do without")
    trained = WeightsInfo(SPIKES, 0.5, 1.0, {"config": {"data": {"spike_dropout": 0.25}}})
    Restorer(LoadedNetwork(identity(), trained, "run/best.safetensors"), alone)
    assert capsys.readouterr().err == ""


def test_doing_without_spikes_is_refused_where_there_are_none():
    with pytest.raises(ValueError, match="without_spikes: a is a network without spikes; allowed: false"):
        Restorer(LoadedNetwork(identity(), info(RGB), "a"), dataclasses.replace(SMALL, without_spikes=True))


def test_fewer_ticks_than_bins_are_refused_before_the_first_frame(make_recording):
    with pytest.raises(ValueError, match=r"grey2: frame 0 has 2 ticks; these weights need 3 or more"):
        restore_frames(voxels_as_frames(), info(SPIKES), make_recording(2, ticks=2), SMALL)


def test_a_density_unlike_the_training_datas_is_told_in_one_line(make_recording, capsys):
    """Fault 14: a network trained at one density collapses at another."""
    restore_frames(voxels_as_frames(), info(SPIKES, mean=0.5), make_recording(2), SMALL)
    warning = capsys.readouterr().err
    assert "spike density 1.1 (mean log1p count of a bin) against 0.5 in training" in warning
    assert warning.count("\n") == 1


def test_a_density_like_the_training_datas_passes_in_silence(make_recording, capsys):
    restore_frames(voxels_as_frames(), info(SPIKES, mean=0.9), make_recording(2), SMALL)
    assert capsys.readouterr().err == ""


def test_spikes_that_do_not_divide_the_frames_are_resampled_and_that_is_told(make_recording, capsys):
    recording = make_recording(2, height=23, width=35)  # spikes of 11 x 17
    network = voxels_as_frames()
    restored = list(restore_frames(network, info(SPIKES, mean=0.9), recording, SMALL))
    assert [frame.shape for _, frame in restored] == [(3, 23, 35)] * 2
    warning = capsys.readouterr().err
    assert "frames of 35x23 are no multiple of 17x11 spikes; they are resampled to 34x22 and back" in warning


# --- the real network ------------------------------------------------------------------------------------------------


def test_a_wrong_weights_file_is_refused_and_names_a_key(micro_weights):
    """Fault 9: weights loaded with strict=False train, and restore, from noise."""
    state, description = checkpoint.load_weights(micro_weights)
    first = sorted(state)[0]
    state["other." + first] = state.pop(first)
    checkpoint.save_weights(micro_weights, state, description)
    with pytest.raises(ValueError, match=r"micro\.safetensors: does not fit the network: 1 missing key \(.*1 unknown"):
        load_network(micro_weights, torch.device("cpu"))


def test_a_loaded_network_is_ready_to_infer_and_equals_the_saved_one(micro_weights):
    network, description = load_network(micro_weights, torch.device("cpu"))
    assert not network.training
    state, _ = checkpoint.load_weights(micro_weights)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert description.model == network.config


def test_the_real_network_restores_one_tile_as_it_would_by_hand(micro_weights, noise):
    network, _ = load_network(micro_weights, torch.device("cpu"))
    frames, voxels = torch.rand(2, 3, 64, 80, generator=noise), torch.rand(2, 16, 32, 40, generator=noise)
    with torch.no_grad():
        expected = network(frames[None], voxels[None])[0]
    assert torch.equal(restore_clip(network, frames, voxels, RestoreOptions(tile_px=80)), expected)


def test_the_real_network_takes_any_size_and_a_single_frame(micro_weights, noise):
    network, _ = load_network(micro_weights, torch.device("cpu"))
    frames, voxels = torch.rand(1, 3, 37, 71, generator=noise), torch.rand(1, 16, 19, 36, generator=noise)
    small = RestoreOptions(tile_px=64, overlap_px=16, clip_frames=2, device="cpu")
    assert restore_clip(network, frames, voxels, small).shape == (1, 3, 37, 71)
