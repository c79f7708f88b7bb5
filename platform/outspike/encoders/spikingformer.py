"""``spikingformer``: features of event recordings by a pretrained spiking transformer.

One snippet of events is one time step of the network and one row. Its neurons remember earlier
snippets and forget every ``chunk_steps`` rows, as the published extraction did every 100; that
number changes the features and is part of their identity (``ucf_crime_dvs_msf.md`` section 3.3).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from outspike.config import EncoderConfig
from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo
from outspike.encoders.clip_weights import digest
from outspike.encoders.event_input import frames_in_order
from outspike.encoders.spikingformer_model import (
    SpikingformerConfig,
    from_state_dict,
)
from outspike.encoders.threads import fixed_threads
from outspike.errors import AlignmentError, CheckpointError, ConfigError
from outspike.events.columns import Events
from outspike.recording import Modality

_REVISION = 1


class SpikingformerFeatures(Encoder):
    """Rows ``[1, C]``: the network's mean token after each snippet's histogram of events.

    ``sizes`` is only needed for weights that are none of the two published widths.
    """

    name = "spikingformer"
    num_crops = 1
    modalities: frozenset[Modality] = frozenset({"events"})

    def __init__(self, config: EncoderConfig, sizes: SpikingformerConfig | None = None) -> None:
        grid = config.grid
        if grid.stride != grid.snippet_frames or grid.tail == "ief_vad_2025":
            raise ConfigError(
                "spikingformer takes one time step per snippet: set the grid's stride to its "
                f"snippet_frames and tail to keep or drop, found {grid.document()}."
            )
        if config.chunk_steps < 1:
            raise ConfigError(f"chunk_steps={config.chunk_steps}: at least one step a chunk.")
        state = load_state(config.weights)
        self.grid = grid
        self.config = config
        self.model = from_state_dict(state, sizes).to(config.device)
        self.width = self.model.config.width
        self._digest = digest(self.model.state_dict())
        self._current: EncoderStream | None = None

    def document(self) -> dict[str, Any]:
        """Settings, sizes, weights digest and revision."""
        sizes = self.model.config
        return {
            "revision": _REVISION,
            "weights": self._digest,
            "heads": sizes.heads,
            "input": f"{sizes.size}x{sizes.size} bilinear counts, OFF and ON",
            "chunk_steps": self.config.chunk_steps,
        }

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording; the stream opened before it ends here, as both share the neurons."""
        self._current = _SnippetHistograms(self, source)
        self.model.reset()
        return self._current

    def step(self, stream: EncoderStream, row: int, counts_PHW: NDArray[np.int64]) -> Rows:
        """One time step: the row ``[1, C]`` of a snippet's event counts."""
        assert stream is self._current, "a stream was used after another recording was opened"
        if row % self.config.chunk_steps == 0:
            self.model.reset()
        size = self.model.config.size
        # Resized in double precision, then cut to single, as published frame files were.
        counts = torch.from_numpy(counts_PHW).double()[None]
        frame = functional.interpolate(counts, (size, size), mode="bilinear", align_corners=False)
        with torch.inference_mode(), fixed_threads(self.config.threads):
            features: Tensor = self.model(frame.float()[None].to(self.config.device))
        return features[0].float().cpu().numpy()


class _SnippetHistograms(EncoderStream):
    """Counts events per pixel and polarity until their snippet is over."""

    def __init__(self, encoder: SpikingformerFeatures, source: SourceInfo) -> None:
        self._encoder = encoder
        self._source = source
        self._length = encoder.grid.snippet_frames
        self._row = 0
        self._last_frame = 0
        self._counts = self._empty()

    def push(self, piece: Piece) -> Rows:
        """Rows of the snippets that ended before the last event of this piece."""
        assert isinstance(piece, Events)
        if len(piece) == 0:
            return self._join([])
        frames, order = frames_in_order(piece, self._source, self._row * self._length)
        snippets = frames // self._length
        pixels = self._pixels(piece)[order]
        done: list[Rows] = []
        borders = np.flatnonzero(np.diff(snippets)) + 1
        starts = [0, *borders.tolist()]
        for first, last in zip(starts, [*starts[1:], len(frames)], strict=True):
            done.extend(self._advance(int(snippets[first])))
            counted = np.bincount(pixels[first:last], minlength=self._counts.size)
            self._counts += counted.reshape(self._counts.shape)
        self._last_frame = max(self._last_frame, int(frames[-1]))
        return self._join(done)

    def finish(self, num_frames: int) -> Rows:
        """Rows of the snippets from the last event's on."""
        if num_frames <= self._last_frame:
            raise AlignmentError(
                f"The encoder was given events up to frame {self._last_frame}, the recording has "
                f"{num_frames}."
            )
        return self._join(list(self._advance(self._encoder.grid.num_snippets(num_frames))))

    def _advance(self, row: int) -> Iterator[Rows]:
        while self._row < row:
            yield self._encoder.step(self, self._row, self._counts)
            self._counts = self._empty()
            self._row += 1

    def _pixels(self, events: Events) -> NDArray[np.int64]:
        polarity = (events.p != 0).astype(np.int64)
        line = polarity * self._source.height + events.y
        pixels: NDArray[np.int64] = line * self._source.width + events.x
        return pixels

    def _empty(self) -> NDArray[np.int64]:
        return np.zeros((2, self._source.height, self._source.width), dtype=np.int64)

    def _join(self, rows: list[Rows]) -> Rows:
        return np.array(rows, dtype=np.float32).reshape(-1, 1, self._encoder.width)


def load_state(weights: str | None) -> Mapping[str, Tensor]:
    """Read a state dictionary from a ``.safetensors`` file or a torch checkpoint, weights only.

    Raises:
        ConfigError: no weights are given, or there is no such file.
        CheckpointError: the file holds something else.
    """
    if weights is None:
        raise ConfigError(
            "spikingformer needs pretrained weights: set weights= to a checkpoint file; the "
            "features of a random network would mean nothing."
        )
    path = Path(weights)
    if not path.is_file():
        raise ConfigError(f"weights={weights!r}: no such file.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: dict[str, Tensor] = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: not a safetensors file: {error}") from error
        return tensors
    return _named_tensors(path)


def _named_tensors(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises a different class for every kind of bad file
        raise CheckpointError(f"{path}: not a checkpoint of plain tensors: {error}") from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: expected named tensors, plain or under 'state_dict'.")
    return {name.removeprefix("module."): value for name, value in content.items()}
