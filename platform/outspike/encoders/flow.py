"""Dense optical flow by TV-L1, the kind that flow networks for video were trained on.

Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical flow" (DAGM 2007), with
the parameters and the coarse-to-fine warping of Sanchez, Meinhardt-Llopis and Facciolo (IPOL 2013).
The number of iterations is fixed, so that the same two frames give the same field on one kind of
host. Published flow features were made from JPEG pictures of another program's TV-L1: near to
these, not equal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class TvL1:
    """Settings; the data term weighs ``attachment`` against the smoothness of the field."""

    attachment: float = 0.15
    tightness: float = 0.3
    time_step: float = 0.25
    num_scales: int = 5
    num_warps: int = 5
    num_iterations: int = 30

    def __call__(self, first_HW: Tensor, second_HW: Tensor) -> Tensor:
        """Displacement of every pixel from the first frame to the second.

        Args:
            first_HW, second_HW: grey levels 0..255, float.

        Returns:
            ``[2, H, W]``: right, then down, in pixels.
        """
        pyramid = [torch.stack([first_HW, second_HW])[None]]
        while len(pyramid) < self.num_scales and min(pyramid[-1].shape[-2:]) >= 32:
            height, width = pyramid[-1].shape[-2:]
            half = (height // 2, width // 2)
            pyramid.append(_resize(pyramid[-1], half))
        flow = torch.zeros((2, *pyramid[-1].shape[-2:]), device=first_HW.device)
        for frames in reversed(pyramid):
            flow = _enlarge(flow, frames.shape[-2], frames.shape[-1])
            flow = self._refine(frames[0, 0], frames[0, 1], flow)
        return flow

    def _refine(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """Warp, linearise, and alternate between data term and smoothing."""
        across, down = _central_gradient(second)
        channels = torch.stack([second, across, down])
        dual = torch.zeros((2, 2, *first.shape), device=first.device)
        step = self.time_step / self.tightness
        for _ in range(self.num_warps):
            warped, warped_x, warped_y = _warp(channels, flow)
            gradient = torch.stack([warped_x, warped_y])
            square = gradient.square().sum(dim=0)
            residual = warped - (gradient * flow).sum(dim=0) - first
            limit = self.attachment * self.tightness * square
            for _ in range(self.num_iterations):
                error = residual + (gradient * flow).sum(dim=0)
                share = torch.where(square > 1e-10, -error / square.clamp_min(1e-10), 0.0)
                bound = self.attachment * self.tightness
                share = torch.where(error.abs() > limit, -bound * error.sign(), share)
                auxiliary = flow + share * gradient
                flow = auxiliary + self.tightness * _divergence(dual)
                slope = _forward_gradient(flow)
                norm = slope.square().sum(dim=1, keepdim=True).sqrt()
                dual = (dual + step * slope) / (1.0 + step * norm)
        return flow


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(
        frames, size, mode="bilinear", align_corners=False, antialias=True
    )


def _enlarge(flow: Tensor, height: int, width: int) -> Tensor:
    """The field of a coarser scale on a finer one, displacements scaled along."""
    rows, columns = flow.shape[-2:]
    if (rows, columns) == (height, width):
        return flow
    larger = _resize(flow[None], (height, width))[0]
    scale = torch.tensor([width / columns, height / rows], device=flow.device)
    return larger * scale[:, None, None]


def _warp(pictures_CHW: Tensor, flow: Tensor) -> Tensor:
    """Pictures looked up where the flow points, bilinear, borders repeated."""
    height, width = flow.shape[-2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[1]
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)[None, :] + flow[0]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return functional.grid_sample(
        pictures_CHW[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def _central_gradient(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Half the difference of the two neighbours, right and down; borders repeated."""
    wide = functional.pad(picture[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across = (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2
    down = (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2
    return across, down


def _forward_gradient(flow_2HW: Tensor) -> Tensor:
    """Difference to the next pixel, ``[2, 2, H, W]`` (component, axis); zero at the last one."""
    slope = torch.zeros((2, 2, *flow_2HW.shape[1:]), device=flow_2HW.device)
    slope[:, 0, :, :-1] = flow_2HW[:, :, 1:] - flow_2HW[:, :, :-1]
    slope[:, 1, :-1] = flow_2HW[:, 1:] - flow_2HW[:, :-1]
    return slope


def _divergence(dual: Tensor) -> Tensor:
    """Adjoint of :func:`_forward_gradient` up to sign, ``[2, H, W]``."""
    out = torch.zeros_like(dual[:, 0])
    out[:, :, :-1] += dual[:, 0, :, :-1]
    out[:, :, 1:] -= dual[:, 0, :, :-1]
    out[:, :-1] += dual[:, 1, :-1]
    out[:, 1:] -= dual[:, 1, :-1]
    return out
