"""``clip`` and ``event-clip``: CLIP embeddings of frames, and of pictures of what moved.

``clip`` embeds every crop of every frame and averages over the snippet. ``event-clip`` embeds one
picture per crop and snippet that shows how often each pixel changed (``ief_vad.md`` section 2).
Pictures go through the tower in batches of one fixed, padded shape whose places are given by the
row number, on a fixed number of threads, so that a row does not depend on how frames arrived.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outspike.config import EncoderConfig
from outspike.encoders.base import (
    Encoder,
    EncoderStream,
    FrameWindow,
    Piece,
    Rows,
    SourceInfo,
)
from outspike.encoders.clip_weights import load_tower
from outspike.encoders.crops import CropLayout, Crops
from outspike.encoders.threads import fixed_threads
from outspike.errors import ConfigError
from outspike.events.simulate import LUMA, ief_event_images, ief_threshold_counts
from outspike.recording import Modality
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

_REVISION = 1
#: Normalisation that CLIP was trained with, per colour.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_PICTURES_PER_BATCH = {"cpu": 16, "cuda": 128}


class Tower(Protocol):
    """What an image encoder must offer here; :class:`~outspike.encoders.clip_weights.ClipTower`."""

    image_size: int
    width: int
    architecture: dict[str, Any]
    digest: str

    def __call__(self, pictures: Tensor, /) -> Tensor:
        """Embed ``[n, 3, H, W] -> [n, D]``."""
        ...

    def to(self, device: str) -> Any:
        """Move the weights."""
        ...


class _TowerEncoder(Encoder):
    """What both kinds share: a tower, crops, and the published form as an option."""

    modalities: frozenset[Modality] = frozenset({"video"})

    def __init__(self, config: EncoderConfig, tower: Tower | None = None) -> None:
        self._check(config)
        self.config = config
        self.name = config.kind
        self.grid = config.grid
        self.exact = config.compat == "ief_vad_2025"
        tower = load_tower(config.weights, config.kind) if tower is None else tower
        self.tower: Tower = tower.to(config.device)
        self.width = tower.width
        layout = _crop_layout(config)
        self.crops = Crops(size=tower.image_size, layout=layout, exact_ief_2025=self.exact)
        self.num_crops = self.crops.num_crops

    def document(self) -> dict[str, Any]:
        """Settings, tower and revision."""
        return {
            "revision": _REVISION,
            "weights": self.tower.digest,
            "tower": self.tower.architecture,
            "crops": self.crops.document(),
            "compat": self.config.compat,
        }

    def embed(self, pictures: Tensor) -> Tensor:
        """Embed one fixed batch of floats ``[n, 3, H, W]`` to ``[n, D]`` on the CPU."""
        with torch.inference_mode(), fixed_threads(self.config.threads):
            return self.tower(pictures.to(self.config.device)).float().cpu()

    @property
    def pictures_per_batch(self) -> int:
        """Pictures that fill the device without waiting long for rows."""
        return _PICTURES_PER_BATCH[torch.device(self.config.device).type]

    @staticmethod
    def _check(config: EncoderConfig) -> None:
        device = torch.device(config.device).type
        if device not in _PICTURES_PER_BATCH or (device == "cuda" and not _cuda_is_there()):
            raise ConfigError(
                f"{config.kind}: device={config.device!r} is not available here; use 'cpu', or "
                "'cuda' on a host with a CUDA device."
            )
        _crop_layout(config)
        if config.compat not in (None, "ief_vad_2025"):
            raise ConfigError(
                f"{config.kind}: compat={config.compat!r}; the published form is ief_vad_2025."
            )
        expected = SnippetGrid(tail="ief_vad_2025")
        if config.compat == "ief_vad_2025" and config.grid != expected:
            raise ConfigError(
                f"compat='ief_vad_2025' is defined on the grid {expected.document()}, found "
                f"{config.grid.document()}."
            )


class ClipFrames(_TowerEncoder):
    """Rows ``[K, D]``: mean embedding of the snippet's frames, per crop."""

    @cached_property
    def pictures(self) -> Tensor:
        """Room for one snippet ``[F, K, 3, H, W]``, used by one stream after the other.

        Ten crops are 96 MB, whose pages cost as much as cropping some snippets does.
        """
        size, device = self.crops.size, self.config.device
        shape = (self.grid.snippet_frames, self.num_crops, 3, size, size)
        return torch.zeros(shape, device=device)

    def document(self) -> dict[str, Any]:
        """Settings, tower and revision."""
        return super().document() | {"pooling": "mean", "mean": _MEAN, "std": _STD}

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording."""
        return _FrameStream(self)


class EventClip(_TowerEncoder):
    """Rows ``[K, D]``: embedding of the picture of changes of the snippet, per crop.

    A pixel's value is the share of its frame-to-frame luma differences above ``event_threshold``
    (with 16 frames: the count divided by 15), so a row depends on its own frames only. The
    published form divides by the maximum over a buffer of 32 snippets instead.
    """

    def __init__(
        self, config: EncoderConfig, tower: Tower | None = None, *, buffer_snippets: int = 32
    ) -> None:
        super().__init__(config, tower)
        self.buffer_snippets = buffer_snippets

    def document(self) -> dict[str, Any]:
        """Settings, tower and revision."""
        scaling = (
            f"maximum of {self.buffer_snippets} snippets" if self.exact else "number of differences"
        )
        return super().document() | {
            "event_threshold": self.config.event_threshold,
            "luma": LUMA,
            "scaling": scaling,
        }

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording."""
        return _BufferedEventStream(self) if self.exact else _EventStream(self)


# ---------------------------------------------------------------------------------- streams


class _SnippetStream(EncoderStream):
    """Gathers resized frames into snippets and rows into batches."""

    def __init__(self, encoder: _TowerEncoder) -> None:
        self._encoder = encoder
        self._window: FrameWindow[NDArray[np.uint8]] = FrameWindow(encoder.grid)

    def push(self, piece: Piece) -> Rows:
        """Rows of the snippets completed by these frames."""
        assert isinstance(piece, FrameChunk)
        snippets = (
            snippet
            for i in range(len(piece.frames))
            for snippet in self._window.add(self._encoder.crops.resize(piece.frames[i : i + 1])[0])
        )
        return self._join([rows for snippet in snippets for rows in self.add(np.stack(snippet))])

    def finish(self, num_frames: int) -> Rows:
        """Rows of the last snippets."""
        last = [
            rows
            for snippet in self._window.finish(num_frames)
            for rows in self.add(np.stack(snippet))
        ]
        return self._join([*last, *self.flush()])

    @abstractmethod
    def add(self, frames_FHWC: NDArray[np.uint8]) -> Iterator[Rows]:
        """Take a snippet's resized frames; give the rows ``[s, K, D]`` that are ready."""

    def flush(self) -> Iterator[Rows]:
        """Rows that waited for a full batch."""
        return iter(())

    def _join(self, parts: Sequence[Rows]) -> Rows:
        empty = np.zeros((0, self._encoder.num_crops, self._encoder.width), dtype=np.float32)
        return np.concatenate([empty, *parts])


class _FrameStream(_SnippetStream):
    """One snippet is one batch: ``snippet_frames * K`` pictures, blank where a frame is missing."""

    def __init__(self, encoder: ClipFrames) -> None:
        super().__init__(encoder)
        device = encoder.config.device
        self._pictures = encoder.pictures
        self._is_on_cpu = torch.device(device).type == "cpu"
        self._mean, self._std = (
            torch.tensor(values, device=device).reshape(3, 1, 1) for values in (_MEAN, _STD)
        )
        levels = torch.arange(256, dtype=torch.float32, device=device).expand(3, 1, 256)
        self._table = self._normalised(levels.clone())[:, 0].cpu().numpy()

    def add(self, frames_FHWC: NDArray[np.uint8]) -> Iterator[Rows]:
        """The mean embedding over the frames there are."""
        encoder, num_frames = self._encoder, len(frames_FHWC)
        with fixed_threads(encoder.config.threads):
            if self._is_on_cpu:
                batch = self._pictures[:num_frames].numpy()
                encoder.crops.cut_through_table(batch, frames_FHWC, self._table)
            else:  # bytes go to the device, where they are normalised once for all crops
                frames = torch.from_numpy(frames_FHWC).to(encoder.config.device)
                levels = frames.permute(0, 3, 1, 2).to(
                    torch.float32, memory_format=torch.contiguous_format
                )
                encoder.crops.cut_into(self._pictures[:num_frames], self._normalised(levels))
            self._pictures[num_frames:] = 0
        embedded = encoder.embed(self._pictures.flatten(0, 1))
        rows = embedded.reshape(*self._pictures.shape[:2], -1)[:num_frames]
        yield rows.mean(dim=0)[None].numpy()

    def _normalised(self, levels_CHW: Tensor) -> Tensor:
        """Levels ``[..., 3, H, W]`` of 0 to 255 as the tower takes them, in place."""
        return levels_CHW.div_(255).sub_(self._mean).div_(self._std)


class _PictureStream(_SnippetStream):
    """Snippets of one picture per crop, several to a batch; row ``i`` has place ``i % rows``."""

    def __init__(self, encoder: EventClip) -> None:
        super().__init__(encoder)
        self._threshold = encoder.config.event_threshold
        self._rows_per_batch = max(1, encoder.pictures_per_batch // encoder.num_crops)
        self._waiting: list[NDArray[np.float32]] = []

    def counts(self, frames_FHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How often each pixel changed, per crop ``[K, H, W]``; counted once, then cut."""
        counted = ief_threshold_counts(frames_FHWC[None], self._threshold)
        cut: NDArray[np.float32] = self._encoder.crops.cut(counted)[0]
        return cut

    def embed_when_full(self, picture_KHW: NDArray[np.float32]) -> Iterator[Rows]:
        """Queue the grey pictures of one row; embed once a batch is full."""
        self._waiting.append(picture_KHW)
        if len(self._waiting) == self._rows_per_batch:
            yield self._embed_waiting()

    def flush(self) -> Iterator[Rows]:
        """Embed what is queued, padded to the fixed batch."""
        if self._waiting:
            yield self._embed_waiting()

    def _embed_waiting(self) -> Rows:
        num_rows, size = len(self._waiting), self._waiting[0].shape
        grey = torch.zeros((self._rows_per_batch, *size))
        grey[:num_rows] = torch.from_numpy(np.stack(self._waiting))
        self._waiting = []
        coloured = grey.flatten(0, 1)[:, None].expand(-1, 3, -1, -1).contiguous()
        embedded = self._encoder.embed(coloured).reshape(*grey.shape[:2], -1)
        rows: Rows = embedded[:num_rows].numpy()
        return rows


class _EventStream(_PictureStream):
    """Stateless scaling: a row depends on its own frames only."""

    def add(self, frames_FHWC: NDArray[np.uint8]) -> Iterator[Rows]:
        """Scale by the number of differences."""
        num_differences = max(1, len(frames_FHWC) - 1)
        return self.embed_when_full(self.counts(frames_FHWC) / np.float32(num_differences))


class _BufferedEventStream(_PictureStream):
    """Published scaling by the maximum of the buffer, each crop on its own."""

    def __init__(self, encoder: EventClip) -> None:
        super().__init__(encoder)
        self._buffer_snippets = encoder.buffer_snippets
        self._buffer: list[NDArray[np.float32]] = []

    def add(self, frames_FHWC: NDArray[np.uint8]) -> Iterator[Rows]:
        """Wait for the buffer to fill."""
        self._buffer.append(self.counts(frames_FHWC))
        if len(self._buffer) == self._buffer_snippets:
            yield from self._scaled(tail=False)

    def flush(self) -> Iterator[Rows]:
        """The tail buffer, which the published code scales in its own way."""
        if self._buffer:
            yield from self._scaled(tail=True)
        yield from super().flush()

    def _scaled(self, *, tail: bool) -> Iterator[Rows]:
        counts_SKHW = np.stack(self._buffer)
        self._buffer = []
        scaled = np.stack(
            [
                ief_event_images(counts_SKHW[:, k], tail=tail)[:, 0]
                for k in range(counts_SKHW.shape[1])
            ],
            axis=1,
        )
        for picture in scaled:
            yield from self.embed_when_full(picture)


# ---------------------------------------------------------------------------------- helpers


def _crop_layout(config: EncoderConfig) -> CropLayout:
    """The crops asked for; raises ConfigError where CLIP has no such layout."""
    if config.crops == "whole":
        raise ConfigError(f"{config.kind} cuts crops='centre' or 'ten'; 'whole' is I3D's.")
    return config.crops


def _cuda_is_there() -> bool:
    return torch.cuda.is_available()
