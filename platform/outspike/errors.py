"""The errors a user can meet.

Every message says what was found, what was expected, and what to do next, with the name of the
recording, key or setting in it. Builtin parents let callers catch either name.
"""


class OutspikeError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(OutspikeError, ValueError):
    """A setting or command-line value that cannot be honoured."""


class UrlError(OutspikeError, OSError):
    """A file or folder, local or on S3, that cannot be read or written."""


class MissingUrlError(UrlError, FileNotFoundError):
    """A file or folder that is not there."""


class DatasetError(OutspikeError, ValueError):
    """A manifest, label table or directory layout that contradicts itself or the files found."""


class AlignmentError(OutspikeError, ValueError):
    """Features, scores and labels that do not cover the same frames."""


class MediaError(OutspikeError, ValueError):
    """A recording that cannot be decoded; ``reason`` is a short stable word for the ledger."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        """Keep ``reason`` across process boundaries."""
        return (_rebuild_media_error, (str(self), self.reason))


def _rebuild_media_error(message: str, reason: str) -> MediaError:
    return MediaError(message, reason=reason)


class StoreError(OutspikeError, RuntimeError):
    """A feature store that is absent, of another format, or refused an operation."""


class CorruptionError(StoreError):
    """Stored bytes that fail their checksum, length or layout check."""


class BagError(OutspikeError, ValueError):
    """A bag no detector can take: wrong width, no snippets, or values that are not finite."""


class CheckpointError(OutspikeError, ValueError):
    """Weights that do not fit the model: missing, extra or wrongly shaped entries."""


class ExtractionError(OutspikeError, RuntimeError):
    """Extraction that cannot go on: workers that kept being lost."""


class TrainingError(OutspikeError, RuntimeError):
    """Training that cannot go on: a loss that is not finite, or workers that kept failing."""


class RegistryError(OutspikeError, RuntimeError):
    """A model registry that is unreachable, or a promotion that its gate refuses."""
