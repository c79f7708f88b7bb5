"""Input scaling fitted on training bags and stored with the weights."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from outspike.config import AedConfig, GvVadConfig, IefVadConfig, MsfConfig, SaaConfig
from outspike.detectors.bags import Bags
from outspike.detectors.base import Detector
from outspike.errors import BagError, ConfigError

logger = logging.getLogger(__name__)

#: Features that vary less than this share of their mean over the training bags are only centred.
_CONSTANT = 1e-6


class Standardise(nn.Module):
    """Per-feature standardisation, ``[..., D] -> [..., D]``, once it has been fitted or loaded.

    ``clip`` keeps the result within that many deviations, so that no feature of a recording unlike
    the training ones can outweigh all others.
    """

    def __init__(self, width: int, clip: float | None = None) -> None:
        super().__init__()
        if clip is not None and not clip > 0:
            raise ConfigError(f"input_clip={clip}: a number of deviations must be positive.")
        self.clip = clip
        self.input_mean: Tensor
        self.input_std: Tensor
        self.register_buffer("input_mean", torch.full((width,), torch.nan))
        self.register_buffer("input_std", torch.full((width,), torch.nan))
        self._fitted = False

    def forward(self, x: Tensor) -> Tensor:
        """Centre, scale and clip; raises ConfigError before fitting."""
        if not self._fitted:
            raise ConfigError(
                "input_norm='standardise' needs the training bags first: call fit_inputs(batches) "
                "before the first step, or load weights that carry the statistics."
            )
        scaled = (x - self.input_mean) / self.input_std
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Use these statistics ``[D]``; features without variation are only centred."""
        floor = _CONSTANT * mean.abs().clamp_min(_CONSTANT)
        constant = std <= floor
        if constant.any():
            logger.info("input_norm constant_features=%d of=%d", int(constant.sum()), len(std))
        self.input_mean.copy_(mean)
        self.input_std.copy_(torch.where(constant, torch.ones_like(std), std))
        self._fitted = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._fitted = bool(torch.isfinite(self.input_mean).all())


def fit_standardise(batches: Iterable[Bags], modules: dict[str, Standardise]) -> None:
    """Fit one module a feature set on every snippet and crop of the batches, in one pass.

    Counts, means and squared deviations are merged in float64 batch by batch, so the batching does
    not matter.
    """
    moments: dict[str, tuple[int, Tensor, Tensor]] = {}
    for bags in batches:
        for name in modules:
            snippets = bags.mask[:, None].expand(-1, bags.features[name].shape[1], -1)
            rows = bags.features[name][snippets].double().cpu()
            mean = rows.mean(dim=0)
            part = (len(rows), mean, (rows - mean).square().sum(dim=0))
            moments[name] = _merged(moments[name], part) if name in moments else part
    for name, module in modules.items():
        if name not in moments:
            raise BagError(f"No training bags with features {name!r} to fit the inputs on.")
        count, mean, squares = moments[name]
        module.set(mean.to(module.input_mean), (squares / count).sqrt().to(module.input_std))


def _merged(
    a: tuple[int, Tensor, Tensor], b: tuple[int, Tensor, Tensor]
) -> tuple[int, Tensor, Tensor]:
    """Moments of two samples together (Chan's update)."""
    count = a[0] + b[0]
    shift = b[1] - a[1]
    mean = a[1] + shift * (b[0] / count)
    return count, mean, a[2] + b[2] + shift.square() * (a[0] * b[0] / count)


class OneInput(Detector):
    """A detector that reads one feature set, standardised where its configuration says so."""

    config: MsfConfig | AedConfig

    def __init__(self, config: MsfConfig | AedConfig) -> None:
        super().__init__()
        self.config = config
        scaled = config.input_norm != "none"
        self.standardise = Standardise(config.width, config.input_clip) if scaled else None

    @property
    def feature_sets(self) -> dict[str, int]:
        """The one feature set and its width."""
        return {self.config.feature_set: self.config.width}

    def fit_inputs(self, batches: Iterable[Bags]) -> None:
        """Fit the standardisation, where the configuration asks for one."""
        if self.standardise is not None:
            fit_standardise(batches, {self.config.feature_set: self.standardise})

    def scaled(self, x: Tensor) -> Tensor:
        """``[..., D]`` as the network reads it."""
        return x if self.standardise is None else self.standardise(x)


class Streams(Detector):
    """A detector that reads several feature sets, each standardised by itself where its
    configuration says so.

    Args:
        config: of the detector.
        streams: feature set and width of each stream; streams name modules, so without dots.
    """

    config: IefVadConfig | SaaConfig | GvVadConfig

    def __init__(
        self,
        config: IefVadConfig | SaaConfig | GvVadConfig,
        streams: Mapping[str, tuple[str, int]],
    ) -> None:
        super().__init__()
        self.config = config
        self.names = {stream: name for stream, (name, _) in streams.items()}
        self.widths = {stream: width for stream, (_, width) in streams.items()}
        scaled = self.widths if config.input_norm == "standardise" else {}
        self.standardise = nn.ModuleDict(
            {stream: Standardise(width, config.input_clip) for stream, width in scaled.items()}
        )

    @property
    def feature_sets(self) -> dict[str, int]:
        """The feature sets of the streams and their widths."""
        return {name: self.widths[stream] for stream, name in self.names.items()}

    def fit_inputs(self, batches: Iterable[Bags]) -> None:
        """Fit the standardisation of every stream, where the configuration asks for one."""
        modules = {}
        for stream, module in self.standardise.items():
            assert isinstance(module, Standardise)
            modules[self.names[stream]] = module
        if modules:
            fit_standardise(batches, modules)

    def scaled(self, stream: str, x: Tensor) -> Tensor:
        """``[..., D]`` of a stream as the network reads it."""
        return self.standardise[stream](x) if stream in self.standardise else x
