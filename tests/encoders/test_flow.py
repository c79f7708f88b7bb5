"""TV-L1 flow: known displacements are found, stillness stays still."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from outspike.encoders.flow import TvL1, _divergence, _forward_gradient
from outspike.encoders.frames import grey
from outspike.video.decode import decode

QUICK = TvL1(num_scales=3, num_warps=3, num_iterations=15)


def texture(height, width, seed=0):
    """A smooth random pattern, 0..255."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 1, height, width)
    for side in (6, 12, 24):
        coarse = torch.rand(1, 1, height // side + 2, width // side + 2, generator=generator)
        size = (height, width)
        picture += functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return (picture[0, 0] / picture.max() * 255).clamp(0, 255)


@settings(max_examples=6, deadline=None)
@given(right=st.integers(-4, 4), down=st.integers(-4, 4), seed=st.integers(0, 3))
def test_a_shift_is_found_everywhere_inside(right, down, seed):
    """Right is the first component, down the second, and both are in pixels."""
    wide = texture(88, 104, seed)
    first = wide[12:76, 12:92]
    second = wide[12 - down : 76 - down, 12 - right : 92 - right]
    inside = QUICK(first, second)[:, 10:-10, 10:-10]
    assert (inside[0] - right).abs().max() < 0.5
    assert (inside[1] - down).abs().max() < 0.5


def test_no_motion_gives_no_flow():
    """Also in a flat picture, where every flow explains the frames."""
    frame = texture(48, 64)
    assert QUICK(frame, frame).abs().max() < 1e-3
    flat = torch.full((48, 64), 90.0)
    assert QUICK(flat, flat).abs().max() == 0.0


def test_tiny_frames_need_no_pyramid():
    """Frames smaller than a pyramid step still have a field of their own size."""
    field = QUICK(texture(9, 7), texture(9, 7, seed=1))
    assert field.shape == (2, 9, 7)
    assert field.isfinite().all()


@pytest.mark.parametrize("seed", [0, 1])
def test_divergence_is_the_negative_adjoint_of_the_gradient(seed):
    """What makes the dual steps of the method converge."""
    generator = torch.Generator().manual_seed(seed)
    flow = torch.randn(2, 7, 9, generator=generator, dtype=torch.float64)
    dual = torch.randn(2, 2, 7, 9, generator=generator, dtype=torch.float64)
    left = (_forward_gradient(flow).double() * dual).sum()
    torch.testing.assert_close(left, -(flow * _divergence(dual)).sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.media
def test_people_move_and_the_walkway_does_not(media):
    """Two frames of a real clip: nearly all pixels stay, walkers move by a pixel or so."""
    frames = next(iter(decode(str(media / "ucsd_ped2" / "test" / "01.mp4")))).frames
    first, second = (torch.from_numpy(grey(frames[i : i + 1])[0]).float() for i in (10, 11))
    speed = QUICK(first, second).norm(dim=0)
    assert speed.median() < 0.1
    assert 0.005 < (speed > 0.5).float().mean() < 0.2
    assert speed.max() < 12
