"""Arguments of the Python interface: what is wrong in kind is refused in one sentence.

Each refusal is a TypeError that names the argument, what came, and what is wanted.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from torch import Tensor


def check_kind(name: str, value: Any, kind: type, wanted: str) -> None:
    """Refuse what is not of a type."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is of type {type(value).__name__}: give {wanted}")


def check_floats(name: str, value: Any, wanted: str) -> None:
    """Refuse what is not a tensor of floats."""
    check_kind(name, value, Tensor, wanted)
    if not value.is_floating_point():
        raise TypeError(f"{name} is a tensor of {_dtype(value)}: give {wanted}")


def check_indices(name: str, value: Any, wanted: str) -> None:
    """Refuse what is not a tensor of whole numbers."""
    check_kind(name, value, Tensor, wanted)
    if value.is_floating_point() or value.is_complex() or _dtype(value) == "bool":
        raise TypeError(f"{name} is a tensor of {_dtype(value)}: give {wanted}")


def whole(name: str, value: Any, wanted: str) -> int:
    """A whole number as Python's int, NumPy's too; to Python a bool is one, here it is not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: give {wanted}")
    return int(value)


def number(name: str, value: Any, wanted: str) -> float:
    """A real number as Python's float, NumPy's too."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: give {wanted}")
    return float(value)


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
