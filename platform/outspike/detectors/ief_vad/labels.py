"""Label texts of the published lists as vectors (``ief_vad.md`` section 1.5)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Codes of the XD-Violence file names, in the order of the published label map; A is normal.
XD_CODES = ("A", "B1", "B2", "B4", "B5", "B6", "G")
_SHANGHAI_CLASSES = 17


def label_vector(text: str, names: Sequence[str]) -> NDArray[np.float32]:
    """The published label vector of one text; index 0 means normal.

    Args:
        text: what the list says of a recording.
        names: keys of the data set's label map, in order. Their number selects the rule: 17 and 2
            give a pair (normal, not), 7 sets every code of an XD-Violence text, any other number is
            one-hot. A text that the map does not know gives zeros, which counts as anomalous.
    """
    if len(names) in (2, _SHANGHAI_CLASSES):
        normal = text == ("normal" if len(names) == _SHANGHAI_CLASSES else "Normal")
        return np.array([normal, not normal], dtype=np.float32)
    parts = text.split("-") if len(names) == len(XD_CODES) else [text]
    return np.array([name in parts for name in names], dtype=np.float32)


def is_anomalous(vector: NDArray[np.float32]) -> float:
    """The 0/1 target that the loss makes of a label vector."""
    return 1.0 - float(vector[0])
