from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from spikevrt.evaluate import metrics, scores
from spikevrt.evaluate.metrics import FFMPEG_VARIABLE, flip, lpips_network, lpips_scores
from spikevrt.evaluate.motion import edge_rise, reblur_psnr, tof
from spikevrt.evaluate.scores import DEFAULT, METRICS_ALL, NAMES, available, choose, clip_scores, lacking
from spikevrt.recording.sidecar import Exposure

HERE = tuple(name for name in NAMES if name not in ("lpips_vgg", "vmaf_neg", "flip"))  # wherever the tests run


def clip(seed: int, num_frames: int = 3) -> torch.Tensor:
    """Blocks of 4 x 4 pixels of one colour, 47 x 53 pixels: frames with edges."""
    coarse = torch.rand(num_frames, 3, 12, 14, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, scale_factor=4)[..., :47, :53].contiguous()


def exposures(num_frames: int = 3) -> list[Exposure]:
    return [Exposure(t, 0, 1, 0.01 * t, 0.01 * t + 0.005) for t in range(num_frames)]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """A function that makes a package impossible to find."""
    find_spec = importlib.util.find_spec
    missing: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name))
    return missing.add


def test_the_default_is_the_four_metrics_of_the_training_s_validation():
    assert DEFAULT == metrics.METRICS == NAMES[:4]


def test_every_metric_says_what_it_is_and_is_named_once():
    assert len(set(NAMES)) == len(NAMES)
    assert all(metric.words and metric.better in ("up", "down", None) for metric in METRICS_ALL)


def test_each_score_is_that_of_its_own_function_frame_by_frame():
    restored, sharp, blur = clip(1), clip(2), clip(3)
    frames, sequence = clip_scores(restored, sharp, blur, exposures(), HERE)
    distances, changes = lpips_scores(lpips_network(), restored, sharp)
    rise = edge_rise(restored, sharp)
    expected = {name: getattr(metrics, name)(restored, sharp) for name in (*metrics.METRICS, "ssim_rgb_3d")}
    expected |= {"lpips_alex": distances, "edge_rise_px": rise.restored_px, "edge_rise_px_sharp": rise.sharp_px}
    expected |= {"reblur_psnr": reblur_psnr(restored, blur, exposures())}
    expected |= {"reblur_psnr_sharp": reblur_psnr(sharp, blur, exposures())}
    assert len(frames) == 3
    for t, frame in enumerate(frames):
        assert frame == {name: expected[name][t].item() for name in NAMES if name in expected}
        assert tuple(frame) == tuple(name for name in NAMES if name in expected)  # in the order of the table
    mean_change, mean_flow = changes.double().mean().item(), tof(restored, sharp).mean().item()
    assert sequence == {"tof": mean_flow, "tlp": mean_change}


def test_only_what_was_asked_for_is_there():
    frames, sequence = clip_scores(clip(1), clip(2), clip(3), exposures(), ("ssim_y", "lpips_alex"))
    assert [set(frame) for frame in frames] == [{"ssim_y", "lpips_alex"}] * 3 and sequence == {}
    frames, sequence = clip_scores(clip(1), clip(2), clip(3), exposures(), ("tlp",))
    assert frames == [{}, {}, {}] and set(sequence) == {"tlp"}


def test_a_frame_without_edges_has_no_width_and_the_mean_is_over_the_others():
    sharp = clip(2)
    sharp[1] = 0.5
    frames, _ = clip_scores(clip(1), sharp, clip(3), exposures(), ("psnr_y", "edge_rise_px"))
    assert ["edge_rise_px" in frame for frame in frames] == [True, False, True]
    mean = metrics.sequence_mean(frames)
    assert mean["edge_rise_px"] == (frames[0]["edge_rise_px"] + frames[2]["edge_rise_px"]) / 2


def test_flip_is_among_them_where_its_package_is():
    pytest.importorskip("flip_evaluator")
    assert "flip" in available()
    frames, _ = clip_scores(clip(1), clip(2), clip(3), exposures(), ("flip",))
    assert [frame["flip"] for frame in frames] == flip(clip(1), clip(2)).tolist()


def test_the_truth_has_the_best_score_of_every_metric():
    sharp, names = clip(2), [name for name in available() if name != "vmaf_neg"]
    worse, best = (clip_scores(x, sharp, sharp, exposures(), names) for x in ((sharp + clip(1)) / 2, sharp))
    for metric in METRICS_ALL:
        if metric.name not in names:
            continue
        of_worse, of_best = ({**metrics.sequence_mean(frames), **sequence} for frames, sequence in (worse, best))
        if metric.better == "up":
            assert of_best[metric.name] > of_worse[metric.name], metric.name
        elif metric.better == "down":
            assert of_best[metric.name] < of_worse[metric.name], metric.name
        elif metric.name.endswith("_sharp"):
            assert of_best[metric.name] == of_worse[metric.name], metric.name


def test_the_clips_are_untouched():
    clip_scores(*(clips := (clip(1), clip(2), clip(3))), exposures(), HERE)
    assert all(torch.equal(x, clip(seed)) for x, seed in zip(clips, (1, 2, 3), strict=True))


def test_a_value_that_is_not_a_number_is_an_error_of_every_metric():
    restored = clip(1)
    restored[1, 2, 3, 5] = math.nan
    for name in HERE:
        with pytest.raises(ValueError, match="NaN or infinite"):
            clip_scores(restored, clip(2), clip(3), exposures(), (name,))


@pytest.mark.parametrize("name", ["reblur_psnr", "reblur_psnr_sharp", "tof", "tlp"])
def test_a_metric_that_compares_neighbours_refuses_a_single_frame(name: str):
    with pytest.raises(ValueError, match=f"{name} of a recording of 1 frame; allowed: 2 or more"):
        clip_scores(clip(1, 1), clip(2, 1), clip(3, 1), exposures(1), ("psnr_rgb", name))


def test_those_asked_for_come_in_the_table_s_order_each_once():
    assert choose(["tlp", "psnr_y", "psnr_rgb", "psnr_y"]) == ("psnr_rgb", "psnr_y", "tlp")


def test_all_is_what_this_machine_can_compute(without):
    without("flip_evaluator")
    assert choose(["all"]) == available()
    assert "flip" not in choose(["all"]) and "lpips_vgg" not in choose(["all"]) and set(HERE) <= set(choose(["all"]))


def test_all_and_one_that_is_lacking_is_refused_for_the_one(without):
    without("flip_evaluator")
    with pytest.raises(
        ValueError, match=r"^metrics: flip needs the package flip-evaluator; install spikevrt\[metrics\]$"
    ):
        choose(["all", "flip"])


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(
        ValueError, match="^metrics: ssim; allowed: all, or some of psnr_rgb, psnr_y, ssim_rgb, .*, tlp$"
    ):
        choose(["psnr_rgb", "ssim"])


def test_no_metric_at_all_is_refused():
    with pytest.raises(ValueError, match="^metrics: none; allowed: all, or some of psnr_rgb"):
        choose([])


def test_vgg_without_its_file_is_refused():
    with pytest.raises(
        ValueError, match=r"^metrics: lpips_vgg needs a file with the weights of VGG-16, which examples"
    ):
        choose(["lpips_vgg"])


def test_a_file_that_holds_no_weights_of_vgg_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "vgg.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"vgg\.safetensors: not a safetensors file"):
        choose(["lpips_vgg"], tmp_path / "vgg.safetensors")


@pytest.mark.parametrize("name", ["tof", "reblur_psnr", "reblur_psnr_sharp", "edge_rise_px", "edge_rise_px_sharp"])
def test_without_opencv_what_needs_it_is_refused_by_name(name: str, without):
    without("cv2")
    with pytest.raises(ValueError, match=rf"^metrics: {name} needs OpenCV; install spikevrt\[metrics\]$"):
        choose([name])
    assert name not in available()


def test_vmaf_without_its_program_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FFMPEG_VARIABLE, "/nothing")
    with pytest.raises(ValueError, match="^metrics: SPIKEVRT_FFMPEG: /nothing is no ffmpeg with libvmaf$"):
        choose(["vmaf_neg"])
    assert lacking("vmaf_neg") is not None and "vmaf_neg" not in available()
    assert scores.ALL not in available()
