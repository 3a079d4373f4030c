"""The line of somebody's own code that is running: what a plan names as the source of a recorded fill.

Knows frames, no tensors.
"""

from __future__ import annotations

import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType

import torch

__all__ = ["caller"]

_OURS, _TORCH = str(Path(__file__).parents[1]), str(Path(torch.__file__).parent)
_STANDARD = sysconfig.get_path("stdlib")
_COPIES = str(Path("transformers", "initialization.py"))  # of the functions of torch.nn.init


@lru_cache(maxsize=4096)
def _is_own(code: CodeType) -> bool:
    """Whether the code belongs to a model: not to torch, to us, or to what stands between."""
    path = code.co_filename
    is_standard = path.startswith(_STANDARD) and "site-packages" not in path
    return not (is_standard or path.startswith((_OURS, _TORCH, "<")) or path.endswith(_COPIES))


def caller() -> str:
    """``"file.py:12 function"`` of the innermost frame outside torch, this package and Python's own machinery.

    torch's modules are machinery too: what ``nn.Linear`` draws for itself is said to come from the line that made the layer.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_own(frame.f_code):
        frame = frame.f_back
    if frame is None:
        return "interactive"
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
