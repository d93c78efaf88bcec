from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from spikevrt.recording.frames import write_image
from spikevrt.simulate.scene import cut_texture, fit, load_photo, mirror, resize
from tests.simulate.conftest import textured


def test_beyond_the_border_the_picture_continuesmirrored():
    assert mirror(torch.arange(-3, 8), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert mirror(torch.arange(-2, 3), 1).tolist() == [0] * 5


def test_a_large_photograph_is_reduced_and_a_small_one_is_left_alone(photo: Path):
    assert load_photo(photo, 53).shape == (37, 53, 3)
    assert np.array_equal(load_photo(photo, 1000).numpy(), textured(149, 211, seed=1))


def test_a_photograph_that_changed_on_disk_is_read_again(photo: Path):
    assert int(load_photo(photo, 1000).max()) == 255
    write_image(photo, np.zeros((7, 11, 3), np.uint8))
    os.utime(photo, ns=(1, 1))
    assert load_photo(photo, 1000).shape == (7, 11, 3)


def test_reducing_fine_stripes_gives_grey_and_no_alias():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    middle = resize(stripes, 16, 16)[4:12, 4:12].float()
    assert float((middle - 127).abs().max()) < 14  # a triangle filter; nearest would give 0 or 254


def test_a_cut_has_the_asked_shape_even_from_a_photograph_that_is_too_small():
    small = torch.from_numpy(textured(17, 23, seed=4))
    cut = cut_texture(small, width_px=80, height_px=40, field=(0.3, 1), generator=torch.Generator().manual_seed(1))
    assert cut.shape == (50, 100, 3)  # 1.25 texture pixels per view pixel
    assert len(cut.unique()) > 100


def test_a_cut_prefers_detail_to_flat_sky():
    sky = np.full((100, 400, 3), 90, np.uint8)
    sky[:, 300:] = textured(100, 100, seed=5)
    details = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        cut = cut_texture(torch.from_numpy(sky), width_px=64, height_px=64, field=(0.8, 1), generator=generator)
        details.append(float(cut.float().std()) > 5)
    assert sum(details) > 12  # one place in three shows any; the best of four does in four cases of five


def test_fit_takes_the_middle_and_keeps_shapes():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    assert bool((fit(image, 10, 10) == 200).all())
