"""Crops of a frame for encoders that look at square pictures: one resize, then cutting.

The ten crops are, in order: centre, upper left, upper right, lower left, lower right, then the
same five mirrored left-right.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from outspike.encoders.cutting import cut_through_table
from outspike.encoders.fixed_point import resize_linear_fixed
from outspike.errors import ConfigError

CropLayout = Literal["centre", "ten"]

_IEF_HEIGHT, _IEF_WIDTH, _IEF_SIZE = 256, 340, 224


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Square crops of ``size`` pixels.

    By default the shorter side is resized to ``size`` (``centre``) or 8/7 of it (``ten``), bicubic
    and antialiased as CLIP was trained, aspect kept. ``exact_ief_2025`` is the published IEF-VAD
    geometry instead: 340 x 256 whatever the aspect, by OpenCV's arithmetic (``ief_vad.md`` 2.1).
    """

    size: int
    layout: CropLayout = "centre"
    exact_ief_2025: bool = False

    def __post_init__(self) -> None:
        if self.exact_ief_2025 and self.size != _IEF_SIZE:
            raise ConfigError(
                f"compat='ief_vad_2025' cuts crops of {_IEF_SIZE} pixels, the weights want "
                f"{self.size}; use weights for {_IEF_SIZE}."
            )

    @property
    def num_crops(self) -> int:
        """``K``."""
        return 10 if self.layout == "ten" else 1

    def document(self) -> dict[str, Any]:
        """What the fingerprint says of the crops."""
        resize = (
            f"{_IEF_WIDTH}x{_IEF_HEIGHT} bilinear, OpenCV fixed point"
            if self.exact_ief_2025
            else f"shorter side {self._short_side}, bicubic antialiased uint8"
        )
        return {"layout": self.layout, "size": self.size, "resize": resize}

    def resize(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frames ``[F, H, W, 3]`` at the size that crops are cut from."""
        if self.exact_ief_2025:
            return resize_linear_fixed(frames, _IEF_HEIGHT, _IEF_WIDTH)
        height, width = frames.shape[1:3]
        scale = self._short_side / min(height, width)
        target = (round(height * scale), round(width * scale))
        if target == (height, width):
            return frames
        writable = np.require(frames, requirements=["C", "W"])  # torch takes no other array
        pictures = torch.from_numpy(writable).permute(0, 3, 1, 2)
        resized = functional.interpolate(pictures, target, mode="bicubic", antialias=True)
        return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())

    def cut(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Cut resized pictures, ``[F, H, W, ...] -> [F, K, size, size, ...]``."""
        size = self.size
        corners = self._corners(*pictures.shape[1:3])
        cut = [pictures[:, top : top + size, left : left + size] for top, left in corners]
        if self.layout == "ten":
            cut += [crop[:, :, ::-1] for crop in cut]
        return np.stack(cut, axis=1)

    def cut_into(self, batch_FKCHW: Tensor, pictures_FCHW: Tensor) -> None:
        """As :meth:`cut`, of tensors on one device, into a batch that is there already."""
        size, width = self.size, pictures_FCHW.shape[3]
        corners = self._corners(*pictures_FCHW.shape[2:])
        for k, (top, left) in enumerate(corners):
            batch_FKCHW[:, k] = pictures_FCHW[..., top : top + size, left : left + size]
        if self.layout == "ten":
            mirrored = pictures_FCHW.flip(-1)
            for k, (top, left) in enumerate(corners, start=len(corners)):
                right = width - left  # the crop's left border, seen from the other side
                batch_FKCHW[:, k] = mirrored[..., top : top + size, right - size : right]

    def cut_through_table(
        self,
        batch_FKCHW: NDArray[np.float32],
        pictures_FHWC: NDArray[np.uint8],
        table: NDArray[np.float32],
    ) -> None:
        """As :meth:`cut_into`, each level of each colour replaced by that of ``table [3, 256]``."""
        corners = np.array(self._corners(*pictures_FHWC.shape[1:3]))
        cut_through_table(pictures_FHWC, table, corners, batch_FKCHW)

    def _corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left of the crops that are not mirrored."""
        bottom, right = height - self.size, width - self.size
        centre = (bottom // 2, right // 2)
        if self.layout == "centre":
            return [centre]
        return [centre, (0, 0), (0, right), (bottom, 0), (bottom, right)]

    @property
    def _short_side(self) -> int:
        return self.size * 8 // 7 if self.layout == "ten" else self.size
