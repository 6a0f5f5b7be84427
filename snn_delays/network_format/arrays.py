"""Nested JSON number lists as numpy arrays, and the path of the first number that is wrong.

Sizes come from the lists themselves, so nothing is allocated unseen.
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
from pydantic_core import PydanticCustomError

MAX_AXES = 3


def refusal(path: str, expected: str, got: object, remedy: str = "") -> PydanticCustomError:
    """The error of the value at `path` (relative to the field being validated)."""
    context = {"path": path, "expected": expected, "got": got, "remedy": remedy}
    return PydanticCustomError("refused", "must be {expected}; got {got}", context)


def shown(value: object) -> str:
    """`value` in a few words, however large it is."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 64:
        return "an integer of more than 64 bits"
    return reprlib.repr(value)


Sizes = tuple[int, ...] | None


def read_integers(value: Any, sizes: Sizes = None) -> np.ndarray:
    """Nested lists (or an array) of integers as int64; floats such as 3.0 and booleans are refused.

    Args:
        sizes: which of several rows that differ in length are right.
    Raises:
        PydanticCustomError: with the path of the first value that is not a 64-bit integer.
    """
    return _read(value, np.dtype(np.int64), {int}, "an integer", "iu", sizes)


def read_numbers(value: Any, sizes: Sizes = None) -> np.ndarray:
    """Nested lists (or an array) of finite numbers as float64.

    Args:
        sizes: which of several rows that differ in length are right.
    Raises:
        PydanticCustomError: with the path of the first value that is not a finite number.
    """
    array = _read(value, np.dtype(np.float64), {int, float}, "a finite number", "iuf", sizes)
    bad = first_index(~np.isfinite(array))
    if bad is not None:
        raise refusal(index_path(bad), "a finite number", array[bad])
    return array


def first_index(mask: np.ndarray) -> tuple[int, ...] | None:
    """Index of the first true cell of `mask`, or None."""
    if not mask.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def index_path(index: tuple[int, ...]) -> str:
    """`(3, 2, 0)` as `[3][2][0]`."""
    return "".join(f"[{i}]" for i in index)


def _read(
    value: Any, dtype: np.dtype, types: set[type], what: str, kinds: str, sizes: Sizes
) -> np.ndarray:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in kinds:
            raise refusal("", f"an array in which each value is {what}", f"dtype {value.dtype}")
        return value.astype(dtype)
    shape = _shape(value)
    flat: list[Any] = []
    try:
        _flatten(value, shape, "", flat, types, what)
    except PydanticCustomError:
        if sizes is not None:
            _flatten(value, sizes, "", [], types, what)  # names the row that is wrong
        raise
    try:
        return np.array(flat, dtype=dtype).reshape(shape)
    except OverflowError:
        most = np.iinfo(dtype).max if dtype.kind == "i" else int(np.finfo(dtype).max)
        bad = next(i for i, number in enumerate(flat) if not -most - 1 <= number <= most)
        index = tuple(int(i) for i in np.unravel_index(bad, shape))
        raise refusal(index_path(index), what, shown(flat[bad])) from None


def _shape(value: Any) -> tuple[int, ...]:
    """Sizes along the first elements; every other element is then compared with them."""
    shape: list[int] = []
    while isinstance(value, list) and len(shape) < MAX_AXES:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _flatten(
    value: Any, shape: tuple[int, ...], path: str, flat: list[Any], types: set[type], what: str
) -> None:
    if not shape:
        if type(value) not in types:
            raise refusal(path, what, shown(value))
        flat.append(value)
        return
    if not isinstance(value, list):
        raise refusal(path, f"a list of {shape[0]}", shown(value))
    if len(value) != shape[0]:
        raise refusal(path, f"a list of {shape[0]}", f"a list of {len(value)}")
    if len(shape) > 1:
        for i, item in enumerate(value):
            _flatten(item, shape[1:], f"{path}[{i}]", flat, types, what)
    elif set(map(type, value)) <= types:
        flat.extend(value)
    else:
        i = next(i for i, item in enumerate(value) if type(item) not in types)
        raise refusal(f"{path}[{i}]", what, shown(value[i]))
