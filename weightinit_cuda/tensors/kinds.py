"""What arguments must be: one table of kinds, and one way to refuse.

Doors that take models, plans, paths and functions ask here before they do anything, so that a wrong argument is named by the
function that was called, not by the line that stumbles over it. The functions of ``init`` have torch's own words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

__all__ = [
    "FLAG",
    "FUNCTION",
    "MODEL",
    "MODULE",
    "NUMBER",
    "PATH",
    "SEQUENCE",
    "TENSOR",
    "TENSORS",
    "TEXT",
    "ArgumentKind",
    "globs",
    "may_be",
    "must_be",
    "short",
]


class ArgumentKind(NamedTuple):
    """A kind of arguments: classes whose instances are of it, and how a sentence calls it."""

    types: tuple[type, ...]
    words: str


TENSOR = ArgumentKind((Tensor,), "a tensor")
MODEL = ArgumentKind((nn.Module, Mapping), "a module, or its tensors by name")
MODULE = ArgumentKind((nn.Module,), "a module")
TENSORS = ArgumentKind((Mapping,), "tensors by name")
PATH = ArgumentKind((str, os.PathLike), "a path")
TEXT = ArgumentKind((str,), "text")
FLAG = ArgumentKind((bool,), "True or False")
NUMBER = ArgumentKind((int, float), "a number")
SEQUENCE = ArgumentKind((Sequence,), "a list")
FUNCTION = ArgumentKind((Callable,), "a function")  # type: ignore[arg-type]


def must_be(kind: ArgumentKind, function: str, **arguments: object) -> None:
    """Refuses arguments that are of another kind.

    Raises:
        TypeError: the first of them, by its name; of tensors by name the first names.
    """
    for name, value in arguments.items():
        if not isinstance(value, kind.types):
            raise TypeError(f"{function}: {name} must be {kind.words}, got {short(value)}.")
        if kind in (MODEL, TENSORS) and isinstance(value, Mapping):
            wrong = [(key, one) for key, one in value.items() if not (isinstance(key, str) and isinstance(one, Tensor))]
            for key, one in wrong[:1]:
                raise TypeError(f"{function}: {name} must be tensors by name, got {short(one)} ({short(key)}).")


def may_be(kind: ArgumentKind, function: str, **arguments: object) -> None:
    """The same for arguments that may be None."""
    must_be(kind, function, **{name: value for name, value in arguments.items() if value is not None})


def globs(function: str, name: str, value: object, words: str = "globs of names") -> list[str]:
    """One glob, or several, as a list: a string is one, and not its letters.

    Raises:
        TypeError: it is something else, or has something else in it.
    """
    found: list[str] = []
    for one in [value] if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) else value:
        if not isinstance(one, str):
            raise TypeError(f"{function}: {name} must be {words}, got {short(one)}.")
        found.append(one)
    return found


def short(value: object) -> str:
    """A value in a sentence: small ones as they are, others by their class."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
