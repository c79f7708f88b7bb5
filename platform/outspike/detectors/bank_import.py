"""Published text embeddings as a prompt bank with a word on where they come from."""

from pathlib import Path

import numpy as np

from outspike.detectors.gv_vad.prompts import PromptBank, read_bank, write_bank
from outspike.errors import CheckpointError, ConfigError


def import_bank(
    source: str, target: str, *, encoder: str, phrases: str | None = None
) -> PromptBank:
    """Check a published array ``[N, E]`` of text embeddings and write it as a prompt bank.

    Args:
        source: the ``.npy`` file.
        target: the bank, ``.safetensors``.
        encoder: what made the embeddings, as its publication says; scores depend on it.
        phrases: a text file with one phrase a line, in the order of the rows.

    Raises:
        CheckpointError: not such an array: empty, not finite, or with a row of zeros.
        ConfigError: nothing said of the encoder, or no such file of phrases.
    """
    if not encoder.strip():
        raise ConfigError("Say what made the embeddings (origin): the file does not.")
    if phrases is not None and not Path(phrases).is_file():
        raise ConfigError(f"phrases={phrases!r}: no such file.")
    bank = read_bank(source, _width(source))
    lines = Path(phrases).read_text(encoding="utf-8").splitlines() if phrases else []
    told = tuple(line.strip() for line in lines if line.strip())
    named = PromptBank(rows=bank.rows, phrases=told, encoder=encoder.strip())
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write_bank(target, named)
    return named


def _width(source: str) -> int:
    """Columns of a ``.npy`` array, from its header."""
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{source}: not a .npy array of numbers ({error}).") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise CheckpointError(
            f"{source}: {array.dtype} of shape {array.shape}; expected text embeddings [N, E]."
        )
    return int(array.shape[1])
