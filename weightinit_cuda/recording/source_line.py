"""The line of somebody's own code that is running: what a plan names as the source of a recorded fill.

While code is recorded only the place is noted, which is a code object and an instruction; what it is called is found out when a
plan asks. Knows frames, no tensors.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

import torch

__all__ = ["Place", "described", "here", "is_own"]

Place = tuple[CodeType, int] | None
"""An instruction of somebody's own code; None: there was none on the stack."""

_OURS, _TORCH = str(Path(__file__).parents[1]), str(Path(torch.__file__).parent)
_STANDARD = sysconfig.get_path("stdlib")
_COPIES = str(Path("transformers", "initialization.py"))  # of the functions of torch.nn.init
_MANY = 4096

# By the identity of the code, which the value keeps alive: a code object's own hash goes through all of its instructions.
_judged: dict[int, tuple[bool, CodeType]] = {}
_names: dict[tuple[int, int], tuple[str, CodeType]] = {}


def is_own(code: CodeType) -> bool:
    """Whether the code belongs to a model: not to torch, to us, or to what stands between."""
    path = code.co_filename
    is_standard = path.startswith(_STANDARD) and "site-packages" not in path
    own = not (is_standard or path.startswith((_OURS, _TORCH, "<")) or path.endswith(_COPIES))
    if len(_judged) >= _MANY:
        _judged.clear()
    _judged[id(code)] = own, code
    return own


def here() -> Place:
    """The instruction that runs in the innermost frame outside torch, this package and Python's own machinery.

    torch's modules are machinery too: what ``nn.Linear`` draws for itself is said to come from the line that made the layer.
    """
    frame: FrameType | None = sys._getframe(2)  # who calls this is ours
    while frame is not None:
        code = frame.f_code
        known = _judged.get(id(code))
        if known[0] if known is not None else is_own(code):
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def described(place: Place) -> str:
    """``"file.py:12 function"``."""
    if place is None:
        return "interactive"
    code, instruction = place
    known = _names.get((id(code), instruction))
    if known is None:
        if len(_names) >= _MANY:
            _names.clear()
        name = f"{Path(code.co_filename).name}:{_line(code, instruction)} {code.co_name}"
        known = _names[id(code), instruction] = name, code
    return known[0]


def _line(code: CodeType, instruction: int) -> int | None:
    """The line that a frame at that instruction is said to be on."""
    return next((line for begin, end, line in code.co_lines() if begin <= instruction < end), code.co_firstlineno)
