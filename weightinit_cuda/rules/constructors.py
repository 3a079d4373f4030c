"""What a constructor of transformers alone gives a model's parameters: it runs again, on meta, and its numbers are followed.

Only classes of transformers itself: code of others may do anything when it runs once more.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..init.generators import generators_kept
from ..tensors.named import joined
from ..tensors.torch_private import device_constructors
from .shadows import Following

__all__ = ["constructed"]


class _OnMeta(TorchFunctionMode):
    """Tensors are made on meta; those of numbers that Python has on the CPU first, since meta would lose them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor:
            return func(*args, **kwargs | {"device": "cpu"}).to("meta")
        if func in device_constructors() and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)


def constructed(model: nn.Module) -> dict[str, Tensor]:
    """Parameters of a model, by name, of which its constructor says every number, in modules of the classes that it makes; none
    if it cannot run on meta."""
    kind: Any = type(model)
    if not kind.__module__.startswith("transformers."):
        return {}
    kinds = {path: type(module) for path, module in model.named_modules()}
    watch = Following()
    try:
        with generators_kept(), torch.no_grad():
            with watch, _OnMeta():
                twin: nn.Module = kind(copy.deepcopy(model.config))
            found = {
                joined(path, name): watch.shadows.numbers(parameter)
                for path, module in twin.named_modules()
                for name, parameter in module.named_parameters(recurse=False)
                if type(module) is kinds.get(path) and parameter.is_meta
            }
    except Exception:  # of the library's code
        return {}
    return {name: numbers for name, numbers in found.items() if numbers is not None}
