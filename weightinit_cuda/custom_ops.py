"""The fills as operators of torch, ``torch.ops.weightinit_cuda.normal_`` and so on.

In ordinary code a function of ``init`` goes straight to the engine. Where operators are traced, faked or batched (by
torch.compile, make_fx, FakeTensor, vmap) it calls its operator instead (``filling.as_operator``). That one changes its first
argument, returns nothing, and does what the function does when its time comes: a seed that is not given is drawn then, so a
compiled function draws anew in every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from . import init

__all__ = ["NAMESPACE", "SCHEMAS", "by_name"]

NAMESPACE = "weightinit_cuda"
_AXES = "int[]? in_axes=None, int[]? out_axes=None, int[]? batch_axes=None"
_DRAWN = (
    "*, Generator? generator=None, int? seed=None, int stream=0, str? name=None, "
    "SymInt[]? global_shape=None, SymInt[]? offset=None, SymInt[]? flat_range=None"
)
# What each takes beside its tensor. What `init` calls mode is fan: torch.compile has a mode itself. Streams are numbers or
# names; seeds and streams from 2^63 on are written as negative.
SCHEMAS = {
    "uniform_": f"float a=0., float b=1., {_DRAWN}",
    "normal_": f"float mean=0., float std=1., {_DRAWN}",
    "trunc_normal_": "float mean=0., float std=1., float a=-2., float b=2., "
    f'str bounds="absolute", bool compensate=False, {_DRAWN}',
    "xavier_uniform_": f"float gain=1., {_AXES}, {_DRAWN}",
    "xavier_normal_": f"float gain=1., {_AXES}, {_DRAWN}",
    "kaiming_uniform_": f'float a=0., str fan="fan_in", str nonlinearity="leaky_relu", {_AXES}, {_DRAWN}',
    "kaiming_normal_": f'float a=0., str fan="fan_in", str nonlinearity="leaky_relu", {_AXES}, {_DRAWN}',
    "variance_scaling_": f'float scale=1., str fan="fan_in", str distribution="truncated_normal", {_AXES}, {_DRAWN}',
    "orthogonal_": f"float gain=1., {_DRAWN}",
    "sparse_": f"float sparsity, float std=0.01, {_DRAWN}",
    "eye_": "",
    "dirac_": "int groups=1",
}
_PLACED = ("eye_", "dirac_")


def by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """An operator's arguments under the names that the function has for them, without those that are not given."""
    return {"mode" if key == "fan" else key: value for key, value in given.items() if value is not None}


def _run(function: str, tensor: Tensor, *own: Any, name: str | None = None, **drawn: Any) -> None:
    """Calls the function; what the dispatcher leaves out has the same default there."""
    schema = getattr(torch.ops.weightinit_cuda, function).default._schema
    given = by_name(dict(zip((argument.name for argument in schema.arguments[1:]), own, strict=False)) | drawn)
    with _disable_current_modes():  # they have seen the operator
        getattr(init, function)(tensor, **(given if name is None else {**given, "stream": name}))


def _fake(function: str, tensor: Tensor, *own: Any, **drawn: Any) -> None:
    """Checks arguments as far as they are known while code is traced: sizes may be symbols."""
    if all(isinstance(size, int) for size in tensor.shape):
        _run(function, tensor, *own, **drawn)  # writes nothing, since the tensor is fake


def _batched(function: str, info: Any, in_dims: Any, tensor: Tensor, *own: Any, **drawn: Any) -> tuple[None, None]:
    """Under vmap: all examples alike, or each with a seed of its own, as ``randomness`` asks; alike where a seed is given."""
    call = partial(getattr(torch.ops.weightinit_cuda, function), **drawn)
    dim = in_dims[0]
    given = function in _PLACED or drawn.get("seed") is not None
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


def _register() -> Any:
    library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
    for name, schema in SCHEMAS.items():
        tags = [torch.Tag.pt2_compliant_tag]
        if name not in _PLACED:
            tags.append(torch.Tag.nondeterministic_seeded)
        arguments = f"Tensor(a!) tensor, {schema}" if schema else "Tensor(a!) tensor"
        library.define(f"{name}({arguments}) -> ()", tags=tags)
        run = partial(_run, name)
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", partial(_fake, name), lib=library)
        torch.library.register_vmap(f"{NAMESPACE}::{name}", partial(_batched, name), lib=library)
    return library


_library = _register()
