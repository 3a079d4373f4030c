"""``__torch_function__`` for the functions of ``init``: tensor subclasses and ``TorchFunctionMode`` see them as torch's own.

torch gives a mode the function that was called. Empty-init modes (Lightning's, for example) skip a function whose
``__module__`` is ``torch.nn.init``; tables of overrides are keyed by torch's function objects. A mode that lets the call pass
calls what it was given (``with torch.device("cuda"):`` is such a mode), so it must be given ours: torch's own would write
torch's values. Hence :class:`InitFunction`: it looks, compares and hashes as torch's function, and runs ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

__all__ = ["InitFunction", "redirect"]


class InitFunction:
    """One of our functions under the name, module, hash and equality of its namesake in ``torch.nn.init``.

    Functions that torch has not (``lecun_normal_``) get the module too, so that empty-init modes skip them.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.__module__ = "torch.nn.init"
        self._function = function
        self._identity = getattr(torch.nn.init, function.__name__, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return repr(self._function)


_seen_by_torch = functools.lru_cache(maxsize=None)(InitFunction)


def redirect(function: Callable[..., Any], arguments: dict[str, Any]) -> Tensor:
    """Hands a call to the ``__torch_function__`` of its tensor or of the active mode.

    Args:
        function: the function of ``init`` that was called.
        arguments: its ``locals()`` on entry. Keyword-only ones left at their defaults are dropped: torch has none of them.
    """
    defaults = function.__kwdefaults__ or {}
    given = {name: value for name, value in arguments.items() if name not in defaults or value is not defaults[name]}
    result: Tensor = handle_torch_function(_seen_by_torch(function), (arguments["tensor"],), **given)
    return result
