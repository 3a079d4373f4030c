"""Writes the shape tables beside it: ``python -m benchmarks.shapes.generate [NAME ...]``, with transformers installed.

Names and shapes come from the real configuration, built on the meta device. How each parameter is initialised comes from the
model's own code: a thin copy of the architecture (few features, as many layers) is built for real on the CPU while
torch.nn.init's functions write down what they are called with; the last call on a parameter counts. Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .configs import MODELS, build, file_name

__all__ = ["table_of"]

INIT = (
    *("uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"),
)
POSITIONAL = {
    "constant_": ("val",),
    "normal_": ("mean", "std"),
    "uniform_": ("a", "b"),
    "trunc_normal_": ("mean", "std", "a", "b"),
}
Call = tuple[str, dict[str, Any]]


@contextmanager
def _written_down(calls: dict[int, Call]) -> Iterator[None]:
    """torch.nn.init, and transformers' copy of it, note the last call on each storage."""
    originals = {name: getattr(nn.init, name) for name in INIT}
    kept: Any = importlib.import_module("transformers.initialization").TORCH_INIT_FUNCTIONS
    in_transformers = dict(kept)
    for name, function in originals.items():
        noting = _noting(name, function, calls)
        setattr(nn.init, name, noting)
        kept[name] = noting
    try:
        yield
    finally:
        kept.update(in_transformers)
        for name, function in originals.items():
            setattr(nn.init, name, function)


def _noting(name: str, function: Callable[..., Any], calls: dict[int, Call]) -> Callable[..., Any]:
    @wraps(function)
    def noting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(POSITIONAL.get(name, ("a", "mode", "nonlinearity")), args, strict=False)) | kwargs
        given = {key: value for key, value in given.items() if key != "generator"}
        result = function(tensor, *args, **kwargs)
        calls[tensor.untyped_storage().data_ptr()] = (name, given)
        return result

    return noting


def table_of(name: str) -> dict[str, Any]:
    """The table of one model as it is written to JSON."""
    calls: dict[int, Call] = {}
    with _written_down(calls):
        thin = build(name, MODELS[name][3])
    with torch.device("meta"):
        model = build(name)
    copies = dict(thin.named_parameters())
    rows = []
    for parameter, tensor in model.named_parameters():
        call, given = calls[copies[parameter].untyped_storage().data_ptr()]
        rows.append([parameter, list(tensor.shape), call, given])
    transformers: Any = importlib.import_module("transformers")
    kind, config, sizes, _, dtype = MODELS[name]
    arguments = ", ".join(f"{key}={value!r}" for key, value in sizes.items())
    source = f"transformers {transformers.__version__}: {kind}({config}({arguments}))"
    return {"model": name, "source": source, "dtype": dtype, "parameters": rows}


def write(name: str, folder: Path) -> None:
    """One line a parameter, so that a diff can be read."""
    table = table_of(name)
    rows = ",\n".join(json.dumps(row) for row in table.pop("parameters"))
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
    text = f'{{{head},\n"parameters": [\n{rows}\n]}}\n'
    (folder / file_name(name)).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or MODELS:
        write(chosen, Path(__file__).parent)
