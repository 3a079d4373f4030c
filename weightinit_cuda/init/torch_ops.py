"""The fills as operators of torch, ``torch.ops.weightinit_cuda.normal_`` and so on.

In ordinary code a function of ``init`` goes straight to the engine. Where operators are traced, faked or batched (by
torch.compile, make_fx, FakeTensor, vmap) it calls its operator instead (``call``). That one changes its first
argument, returns nothing, and does what the function does when its time comes: a seed that is not given is drawn then, so a
compiled function draws anew in every call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import init
from ..tensors.torch_private import schema_of, without_modes
from .catalog import AXES, CATALOG, Function

__all__ = ["NAMESPACE", "by_name", "define"]

NAMESPACE = "weightinit_cuda"
_AXES = ", ".join(f"int[]? {name}=None" for name in AXES)
_DRAWN = (
    "*, Generator? generator=None, int? seed=None, int stream=0, str? name=None, "
    "SymInt[]? global_shape=None, SymInt[]? offset=None, SymInt[]? flat_range=None"
)
_OTHER_NAME = {"mode": "fan"}  # torch.compile has a mode itself


def _schema(row: Function) -> str:
    """What an operator takes beside its tensor. Streams are numbers or names; seeds and streams from 2^63 on are written as
    negative."""
    own = [_parameter(_OTHER_NAME.get(name, name), default) for name, default in row.own.items()]
    return ", ".join([*own, *([_AXES] if row.axes else []), *([_DRAWN] if row.random else [])])


def _parameter(name: str, default: Any) -> str:
    if isinstance(default, type):
        return f"{default.__name__} {name}"
    return f"{type(default).__name__} {name}={json.dumps(default) if isinstance(default, str) else default}"


def by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """An operator's arguments under the names that the function has for them, without those that are not given."""
    names = {other: name for name, other in _OTHER_NAME.items()}
    return {names.get(key, key): value for key, value in given.items() if value is not None}


def _run(function: str, tensor: Tensor, *own: Any, name: str | None = None, **drawn: Any) -> None:
    """Calls the function; what the dispatcher leaves out has the same default there."""
    schema = schema_of(getattr(torch.ops.weightinit_cuda, function).default)
    given = by_name(dict(zip((argument.name for argument in schema.arguments[1:]), own, strict=False)) | drawn)
    with without_modes():  # they have seen the operator
        getattr(init, function)(tensor, **(given if name is None else {**given, "stream": name}))


def _fake(function: str, tensor: Tensor, *own: Any, **drawn: Any) -> None:
    """Checks arguments as far as they are known while code is traced: sizes may be symbols."""
    if all(isinstance(size, int) for size in tensor.shape):
        _run(function, tensor, *own, **drawn)  # writes nothing, since the tensor is fake


def _batched(function: str, info: Any, in_dims: Any, tensor: Tensor, *own: Any, **drawn: Any) -> tuple[None, None]:
    """Under vmap: all examples alike, or each with a seed of its own, as ``randomness`` asks; alike where a seed is given."""
    call = partial(getattr(torch.ops.weightinit_cuda, function), **drawn)
    dim = in_dims[0]
    given = not CATALOG[function].random or drawn.get("seed") is not None
    if not given and info.randomness == "error":
        raise RuntimeError(
            f'vmap: {function} was called in randomness "error" mode. Use vmap(..., randomness="same"), "different", or seed=.'
        )
    if dim is None:
        if not given and info.randomness == "different":
            raise RuntimeError(f"vmap: {function} cannot fill a tensor that is not batched differently for each example.")
        call(tensor, *own)
    elif given or info.randomness == "same":
        one = torch.empty_like(tensor.select(dim, 0))
        call(one, *own)
        tensor.copy_(one.unsqueeze(dim))
    else:
        for example in tensor.unbind(dim):
            call(example, *own)
    return None, None


def define(library: Any, row: Function) -> None:
    """Makes the operator of a row."""
    name, tags = row.name, [torch.Tag.pt2_compliant_tag]
    if row.random:
        tags.append(torch.Tag.nondeterministic_seeded)
    schema = ", ".join(filter(None, ("Tensor(a!) tensor", _schema(row))))
    library.define(f"{name}({schema}) -> ()", tags=tags)
    library.impl(name, partial(_run, name), "CompositeExplicitAutograd")
    for seen in ("Conjugate", "Negative"):  # the engine knows them, and the dispatcher would take the tensor that is returned
        library.impl(name, torch.library.fallthrough_kernel, seen)
    torch.library.register_fake(f"{NAMESPACE}::{name}", partial(_fake, name), lib=library)
    torch.library.register_vmap(f"{NAMESPACE}::{name}", partial(_batched, name), lib=library)


_library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
for _row in CATALOG.values():
    if _row.is_operator:
        define(_library, _row)
