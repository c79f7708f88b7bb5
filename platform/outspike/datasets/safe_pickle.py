"""Pickles of labels, read without running anything in them.

Label files of several published systems are pickles. This reader admits lists, tuples, dicts,
numbers, text and NumPy arrays of those; every other name in a pickle is refused before it could be
looked up. Arrays are rebuilt here from their bytes, so NumPy's own unpickling is never reached.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from outspike.errors import DatasetError

_PLAIN = (bool, int, float, str, bytes, type(None))
_KINDS = "biuf"
#: Deeper nesting than any label file has; the check below is recursive.
_MOST_LEVELS = 20


def load_plain(data: bytes, name: str) -> Any:
    """The value a pickle describes, if it is made of plain things only.

    Args:
        data: the file.
        name: its address, for messages.

    Returns:
        Dicts, lists, tuples, numbers, text, None and arrays of numbers.

    Raises:
        DatasetError: code or any object of another kind is in it, or it is no pickle.
    """
    try:
        value = _Unpickler(io.BytesIO(data), name).load()
        return _Plain(name).of(value, 0)
    except DatasetError:
        raise
    except Exception as error:  # a broken stream makes the machine raise nearly anything
        raise DatasetError(
            f"{name}: not a readable pickle ({type(error).__name__}: {error})."
        ) from error


class _Unpickler(pickle.Unpickler):
    """Hands out stand-ins for the few names that arrays need, and nothing else."""

    def __init__(self, file: io.BytesIO, name: str) -> None:
        super().__init__(file)
        self._name = name

    def find_class(self, module: str, name: str, /) -> Any:
        """The stand-in for a name; DatasetError for any name without one."""
        found = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise DatasetError(
                f"{self._name}: refused, since it asks for {module}.{name}. Labels are lists, "
                "dicts, numbers and arrays; code in a pickle is never run."
            )
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        """References out of the file have no meaning here."""
        raise DatasetError(f"{self._name}: refused, since it refers to objects outside of itself.")


class _Dtype:
    """``numpy.dtype(text, align, copy)`` and its state; only plain kinds."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.text = text.decode("ascii") if isinstance(text, bytes) else str(text)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"a byte order {state[1]!r}")
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        """The NumPy type."""
        dtype = np.dtype(self.text)
        if dtype.hasobject or dtype.kind not in _KINDS:
            raise ValueError(f"an array of {dtype}, expected numbers")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Array:
    """What ``_reconstruct`` answers: an array to be, once its state has come."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if isinstance(data, list):  # an array of objects: a list with a shape
            self.value = _reshaped(data, shape)
            return
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        self.value = _from_bytes(raw, dtype, shape, "F" if is_fortran else "C")


def _reshaped(data: list[Any], shape: Any) -> Any:
    """Objects of an array as a list; a dict that was saved as an array of no dimensions."""
    if tuple(shape) == ():
        return data[0]
    if len(shape) != 1:
        raise ValueError(f"an array of objects of shape {shape}, expected a list")
    return data


def _from_bytes(data: bytes, dtype: _Dtype, shape: Any, order: Any) -> NDArray[Any]:
    values = np.frombuffer(data, dtype=dtype.resolve())
    return values.reshape(tuple(int(n) for n in shape), order="F" if order == "F" else "C").copy()


def _frombuffer(data: Any, dtype: _Dtype, shape: Any, order: Any, *_: Any) -> NDArray[Any]:
    return _from_bytes(bytes(data), dtype, shape, order)


def _scalar(dtype: _Dtype, data: Any = b"") -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(raw, dtype=dtype.resolve())[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``, with which old protocols write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


class _Call:
    """A function that a pickle may call and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise ValueError("a function has no state")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_frombuffer),
    ("numpy", "ndarray"): _Call(_Array),
    ("numpy", "dtype"): _Call(_Dtype),
    ("_codecs", "encode"): _Call(_encode),
    **dict.fromkeys([("__builtin__", "bytes"), ("builtins", "bytes")], _Call(lambda: b"")),
}


class _Plain:
    """Puts arrays in their places and checks everything, each shared part once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._done: dict[int, Any] = {}

    def of(self, value: Any, level: int) -> Any:
        """The plain value; DatasetError for any other kind, or nesting beyond reason."""
        if type(value) in _PLAIN:
            return value
        if id(value) not in self._done:
            if level > _MOST_LEVELS:
                raise DatasetError(
                    f"{self._name}: nested more than {_MOST_LEVELS} deep; not a label file."
                )
            self._done[id(value)] = (value, self._converted(value, level + 1))
        return self._done[id(value)][1]

    def _converted(self, value: Any, level: int) -> Any:
        if isinstance(value, _Array):
            return self.of(value.value, level)
        if type(value) is np.ndarray:
            return value
        if type(value) in (list, tuple):
            return type(value)(self.of(entry, level) for entry in value)
        if type(value) is dict:
            return {self.of(k, level): self.of(entry, level) for k, entry in value.items()}
        raise DatasetError(f"{self._name}: holds a {type(value).__name__}; expected plain values.")
