"""``i3d-rgb``, ``i3d-flow`` and ``i3d-combine``: I3D features of clips of sixteen frames.

Frames are resized to 340 x 256 and cut to 224 (``i3d_extraction.md`` section 3, recipe B: values in
[-1, 1]); a last clip that is short repeats its last frame. Crops come in the order of the published
UCF-Crime archive: centre, four corners, the same five mirrored. The features published for LAD2000,
Avenue and Ped2 (recipe A) have ``crops="whole"``, ``scale="raw255"``, ``flow="xx"`` and
``tail="drop"``.

Flow is computed here by TV-L1 (:mod:`outspike.encoders.flow`) between resized frames; the field of
a frame points to the next frame, and the last frame of a recording repeats the field before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from outspike.config import EncoderConfig
from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo, WindowedStream
from outspike.encoders.clip_weights import digest
from outspike.encoders.crops import Crops
from outspike.encoders.flow import TvL1
from outspike.encoders.frames import grey, resize_uint8
from outspike.encoders.i3d_model import CLIP_FRAMES, SIDE, WIDTH, I3d, from_state_dict
from outspike.encoders.threads import fixed_threads
from outspike.encoders.weights import load_state
from outspike.errors import ConfigError
from outspike.recording import Modality
from outspike.video.decode import FrameChunk

_REVISION = 1
_HEIGHT, _WIDTH = 256, 340
#: Displacements beyond this many pixels are cut, and become the ends of the input range.
_FLOW_BOUND = 20.0
_STREAMS = {
    "i3d-rgb": ("rgb",),
    "i3d-flow": ("flow",),
    "i3d-combine": ("rgb", "flow"),
}
_CHANNELS = {"rgb": 3, "flow": 2}


@dataclass(frozen=True)
class _Frame:
    """A resized frame ``[H, W, 3]``, and its displacement field ``[H, W, 2]`` where one is read."""

    rgb: NDArray[np.uint8]
    flow: NDArray[np.float32] | None


class I3dFeatures(Encoder):
    """Rows ``[K, 1024]``, or ``[K, 2048]`` (RGB, then flow) for ``i3d-combine``.

    Raises:
        ConfigError: no weights, a grid other than sixteen frames, or an unknown device.
        CheckpointError: the weights are not those of an I3D with these input channels.
    """

    modalities: frozenset[Modality] = frozenset({"video"})

    def __init__(self, config: EncoderConfig) -> None:
        _check(config)
        self.config = config
        self.name = config.kind
        self.grid = config.grid
        self.streams = _STREAMS[config.kind]
        self.networks = {
            stream: from_state_dict(
                load_state(_weights_of(config, stream), config.kind), _CHANNELS[stream]
            ).to(config.device)
            for stream in self.streams
        }
        self.width = WIDTH * len(self.streams)
        self.crops = None if config.crops == "whole" else Crops(size=SIDE, layout=config.crops)
        self.num_crops = 1 if self.crops is None else self.crops.num_crops
        self.flow = TvL1()

    def document(self) -> dict[str, Any]:
        """Settings, preprocessing, weights digests and revision."""
        document: dict[str, Any] = {
            "revision": _REVISION,
            "weights": {s: digest(_decisive(net)) for s, net in self.networks.items()},
            "resize": "whole frame" if self.crops is None else f"{_WIDTH}x{_HEIGHT}",
            "interpolation": "bilinear antialiased uint8",
            "crops": {"layout": self.config.crops, "size": SIDE},
            "scale": self.config.scale,
            "short_clip": "last frame repeated",
        }
        if "flow" in self.streams:
            document["flow"] = {
                "algorithm": "TV-L1",
                "frames": f"{_WIDTH}x{_HEIGHT}",
                "bound": _FLOW_BOUND,
                "channels": self.config.flow,
                **asdict(self.flow),
            }
        return document

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording."""
        return _ClipStream(self)

    def resized(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One frame at the size that crops are cut from and flow is computed on."""
        resized: NDArray[np.uint8] = resize_uint8(frame_HWC[None], _HEIGHT, _WIDTH)[0]
        return resized

    def displacement(
        self, first_HWC: NDArray[np.uint8], second_HWC: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Flow ``[H, W, 2]`` from one resized frame to the next."""
        frames = [torch.from_numpy(grey(f)).float() for f in (first_HWC, second_HWC)]
        first, second = (frame.to(self.config.device) for frame in frames)
        with torch.inference_mode(), fixed_threads(self.config.threads):
            field: NDArray[np.float32] = self.flow(first, second).permute(1, 2, 0).cpu().numpy()
        return field

    def embed(self, frames: Sequence[_Frame]) -> Rows:
        """The row ``[K, D]`` of one clip; a short one repeats its last frame."""
        full = [*frames, *[frames[-1]] * (CLIP_FRAMES - len(frames))]
        rows = []
        for stream in self.streams:
            pictures = self._rgb(full) if stream == "rgb" else self._flow(full)
            clips = torch.from_numpy(pictures).permute(1, 4, 0, 2, 3).contiguous()
            with torch.inference_mode(), fixed_threads(self.config.threads):
                rows.append(self.networks[stream](clips.to(self.config.device)).float().cpu())
        row: Rows = torch.cat(rows, dim=1).numpy()
        return row

    def _rgb(self, frames: Sequence[_Frame]) -> NDArray[np.float32]:
        """``[F, K, 224, 224, 3]``."""
        pictures = np.stack([frame.rgb for frame in frames])
        if self.crops is None:
            cut = resize_uint8(pictures, SIDE, SIDE)[:, None]
        else:
            cut = self.crops.cut(pictures)
        values = cut.astype(np.float32)
        return values if self.config.scale == "raw255" else values * np.float32(2 / 255) - 1

    def _flow(self, frames: Sequence[_Frame]) -> NDArray[np.float32]:
        """``[F, K, 224, 224, 2]``: right and down; mirrored crops move the other way."""
        fields = np.stack([frame.flow for frame in frames if frame.flow is not None])
        if self.crops is None:
            whole = torch.from_numpy(fields).permute(0, 3, 1, 2)
            cut = _squashed(whole).permute(0, 2, 3, 1).numpy()[:, None]
        else:
            cut = self.crops.cut(fields)
            cut[:, 5:, ..., 0] *= -1
        if self.config.flow == "xx":
            cut = cut[..., [0, 0]]
        values: NDArray[np.float32] = np.clip(cut, -_FLOW_BOUND, _FLOW_BOUND) / np.float32(
            _FLOW_BOUND
        )
        return values if self.config.scale == "unit" else np.rint((values + 1) * np.float32(127.5))


class _ClipStream(WindowedStream[_Frame]):
    """A frame is complete once its flow is known, that is with the frame after it."""

    def __init__(self, encoder: I3dFeatures) -> None:
        super().__init__(encoder)
        self._encoder = encoder
        self._reads_flow = "flow" in encoder.streams
        self._waiting: NDArray[np.uint8] | None = None
        self._last_field = np.zeros((_HEIGHT, _WIDTH, 2), dtype=np.float32)

    def items(self, piece: Piece) -> Iterator[_Frame]:
        """Frames that these complete."""
        assert isinstance(piece, FrameChunk)
        for frame in piece.frames:
            resized = self._encoder.resized(frame)
            if not self._reads_flow:
                yield _Frame(resized, None)
                continue
            if self._waiting is not None:
                self._last_field = self._encoder.displacement(self._waiting, resized)
                yield _Frame(self._waiting, self._last_field)
            self._waiting = resized

    def last_items(self, num_frames: int) -> Iterator[_Frame]:
        """The last frame, whose field is that of the frame before it (of a single one, zero)."""
        if self._waiting is not None:
            yield _Frame(self._waiting, self._last_field)

    def row(self, items: Sequence[_Frame]) -> Rows:
        """Features of one clip."""
        return self._encoder.embed(items)


def _check(config: EncoderConfig) -> None:
    if config.grid.snippet_frames != CLIP_FRAMES or config.grid.tail == "ief_vad_2025":
        raise ConfigError(
            f"{config.kind} reads clips of {CLIP_FRAMES} frames under tail keep or drop, found "
            f"{config.grid.document()}."
        )
    device = torch.device(config.device).type
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(
            f"{config.kind}: device={config.device!r} is not available here; use 'cpu', or 'cuda' "
            "on a host with a CUDA device."
        )


def _weights_of(config: EncoderConfig, stream: str) -> str | None:
    if config.kind == "i3d-combine" and stream == "flow":
        if config.flow_weights is None:
            raise ConfigError(
                "i3d-combine needs two pretrained networks: set weights= to that of RGB and "
                "flow_weights= to that of flow."
            )
        return config.flow_weights
    return config.weights


def _decisive(network: I3d) -> dict[str, Tensor]:
    """Entries that decide a feature: the counters of batch norms do not."""
    return {k: v for k, v in network.state_dict().items() if v.is_floating_point()}


def _squashed(pictures: Tensor) -> Tensor:
    return functional.interpolate(
        pictures, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
    )
