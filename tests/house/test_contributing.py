"""The contributor's page names things that exist."""

import re
from pathlib import Path

import outspike.encoders.catalog as encoder_catalog
from outspike.datasets import DATASETS
from outspike.encoders import ENCODERS
from outspike.evaluate.protocols import PROTOCOLS


def test_every_file_named_there_exists(repository: Path) -> None:
    """Paths in backticks are real, apart from the examples called mine and <name>."""
    text = (repository / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`([\w./<>*-]+\.(?:py|md|csv))`", text)
    assert len(named) > 10
    bases = [repository, repository / "platform" / "outspike"]
    bases += [base / "datasets" for base in bases] + [repository / "platform/outspike/detectors"]
    for name in named:
        if "mine" in name or "<" in name or "*" in name or name in ("__init__.py", "labels.csv"):
            continue
        assert any((base / name).is_file() for base in bases), name


def test_every_name_of_code_there_exists() -> None:
    """Registries that a newcomer is told to extend are where the page says."""
    from outspike.detectors.base import Detector, LossTerm
    from outspike.detectors.batch_stats import MaskedBatchNorm1d
    from outspike.detectors.build import DETECTORS
    from outspike.encoders.base import Encoder, EncoderStream, WindowedStream

    assert all((Detector, LossTerm, MaskedBatchNorm1d, DETECTORS))
    assert all((Encoder, EncoderStream, WindowedStream, ENCODERS, DATASETS, PROTOCOLS))
    assert encoder_catalog._ONLY_FOR
