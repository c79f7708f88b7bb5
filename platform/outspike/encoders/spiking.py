"""Features of event recordings by pretrained spiking networks: histograms in, rows out.

A snippet of events is cut into equal time steps, each a histogram ``[P, H, W]`` resized to the
network's input. Every snippet starts with its neurons at rest and its row is the mean of the
network's features over its steps, so that a row depends on its own snippet only. Whatever the
recording's length, one histogram and the resized steps of one snippet are held.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from outspike.config import EncoderConfig
from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo
from outspike.encoders.clip_weights import digest
from outspike.encoders.event_input import by_frame
from outspike.encoders.spiking_neurons import SpikingNetwork
from outspike.encoders.threads import fixed_threads
from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.events.frames import add_counts
from outspike.recording import Modality

_REVISION = 2


class SpikingFeatures(Encoder):
    """Rows ``[1, C]`` of a spiking network.

    ``compat="msf_2025"`` is the published Spikingformer extraction instead: a snippet is a single
    time step, and neurons remember earlier snippets until they forget every ``chunk_steps`` rows
    (``ucf_crime_dvs_msf.md`` section 3.3).
    """

    num_crops = 1
    modalities: frozenset[Modality] = frozenset({"events"})

    def __init__(self, config: EncoderConfig, network: SpikingNetwork) -> None:
        self.name = config.kind
        self.config = config
        self.grid = config.grid
        self.steps = self._checked_steps(config)
        self.network = network.to(config.device)
        self.width = network.width
        self._digest = digest(network.state_dict())
        self._current: EncoderStream | None = None

    def document(self) -> dict[str, Any]:
        """Settings, sizes, weights digest and revision."""
        size = self.network.size
        state: dict[str, Any] = {"steps_per_snippet": self.steps, "state": "reset each snippet"}
        if self.carries_state:
            state = {"chunk_steps": self.config.chunk_steps, "state": "carried over snippets"}
        return {
            "revision": _REVISION,
            "weights": self._digest,
            "input": f"{size}x{size} bilinear counts, OFF and ON",
            **state,
        }

    @property
    def carries_state(self) -> bool:
        """Whether neurons remember earlier snippets, as published."""
        return self.config.compat is not None

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording; the stream opened before it ends here, as both share the neurons."""
        self._current = _StepHistograms(self, source)
        self.network.reset()
        return self._current

    def resized(self, counts_PHW: NDArray[np.int64]) -> Tensor:
        """The counts of one step as the network takes them, ``[P, size, size]``.

        Resized in double precision, then cut to single, as published frame files were.
        """
        size = (self.network.size, self.network.size)
        counts = torch.from_numpy(counts_PHW).double()[None]
        frame = functional.interpolate(counts, size, mode="bilinear", align_corners=False)
        return frame[0].float()

    def row(self, stream: EncoderStream, number: int, steps_PHW: Sequence[Tensor]) -> Rows:
        """Row ``number`` of the recording, ``[1, C]``, from the time steps of its snippet."""
        assert stream is self._current, "a stream was used after another recording was opened"
        if not self.carries_state or number % self.config.chunk_steps == 0:
            self.network.reset()
        frames = torch.stack(list(steps_PHW))[:, None].to(self.config.device)
        with torch.inference_mode(), fixed_threads(self.config.threads):
            features: Tensor = self.network(frames)
        return features.mean(dim=0).float().cpu().numpy()

    @staticmethod
    def _checked_steps(config: EncoderConfig) -> int:
        grid, kind = config.grid, config.kind
        if grid.stride != grid.snippet_frames or grid.tail == "ief_vad_2025":
            raise ConfigError(
                f"{kind} takes snippets one after the other: set the grid's stride to its "
                f"snippet_frames and tail to keep or drop, found {grid.document()}."
            )
        if config.chunk_steps < 1:
            raise ConfigError(f"chunk_steps={config.chunk_steps}: at least one step a chunk.")
        if config.compat == "msf_2025":
            if config.steps_per_snippet not in (None, 1):
                raise ConfigError(
                    f"compat='msf_2025' takes a snippet as one time step, found steps_per_snippet="
                    f"{config.steps_per_snippet}."
                )
            return 1
        if config.compat is not None:
            raise ConfigError(f"{kind}: compat={config.compat!r}; the published form is msf_2025.")
        if config.chunk_steps != EncoderConfig().chunk_steps:
            raise ConfigError(
                f"chunk_steps={config.chunk_steps} belongs to compat='msf_2025'; by default the "
                "neurons forget at every snippet."
            )
        steps = (
            grid.snippet_frames if config.steps_per_snippet is None else config.steps_per_snippet
        )
        if steps < 1 or grid.snippet_frames % steps:
            raise ConfigError(
                f"steps_per_snippet={steps}: must divide the {grid.snippet_frames} frames of a "
                "snippet."
            )
        return steps


class _StepHistograms(EncoderStream):
    """Counts events per pixel and polarity until their time step is over."""

    def __init__(self, encoder: SpikingFeatures, source: SourceInfo) -> None:
        self._encoder = encoder
        self._source = source
        self._step_frames = encoder.grid.snippet_frames // encoder.steps
        self._step = 0
        self._row = 0
        self._last_frame = 0
        self._pending: list[Tensor] = []
        self._counts = self._empty()

    def push(self, piece: Piece) -> Rows:
        """Rows of the snippets that ended before the last event of this piece."""
        assert isinstance(piece, Events)
        done: list[Rows] = []
        for frame, events in by_frame(piece, self._source, self._step * self._step_frames):
            done.extend(self._advance(frame // self._step_frames))
            add_counts(events, self._counts)
            self._last_frame = max(self._last_frame, frame)
        return self._join(done)

    def finish(self, num_frames: int) -> Rows:
        """Rows of the snippets from the last event's on."""
        if num_frames <= self._last_frame:
            raise AlignmentError(
                f"The encoder was given events up to frame {self._last_frame}, the recording has "
                f"{num_frames}."
            )
        num_rows = self._encoder.grid.num_snippets(num_frames)
        last_frame = min(num_frames, num_rows * self._encoder.grid.snippet_frames)
        rows = list(self._advance(-(-last_frame // self._step_frames)))
        if self._row < num_rows:  # a last snippet of fewer steps
            rows.append(self._emit())
        return self._join(rows)

    def _advance(self, step: int) -> Iterator[Rows]:
        while self._step < step:
            self._pending.append(self._encoder.resized(self._counts))
            self._counts = self._empty()
            self._step += 1
            if len(self._pending) == self._encoder.steps:
                yield self._emit()

    def _emit(self) -> Rows:
        row = self._encoder.row(self, self._row, self._pending)
        self._row += 1
        self._pending = []
        return row

    def _empty(self) -> NDArray[np.int64]:
        return np.zeros((2, self._source.height, self._source.width), dtype=np.int64)

    def _join(self, rows: list[Rows]) -> Rows:
        return np.array(rows, dtype=np.float32).reshape(-1, 1, self._encoder.width)
