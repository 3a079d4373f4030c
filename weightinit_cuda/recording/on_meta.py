"""Results of operators on meta, in the block: what torch says of shapes and dtypes, and what need not be asked again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..tensors.torch_private import FakeTensorMode, overlaps_itself, storage_key
from .operators import Call, leaves
from .tape import CPU, META
from .views import Geometry, fills_storage

__all__ = ["CHANGES", "IMPOSSIBLE", "on_meta"]

_aten = torch.ops.aten
IMPOSSIBLE = object()
CHANGES = (
    _aten.add_.Tensor,
    _aten.sub_.Tensor,
    _aten.mul_.Tensor,
    _aten.div_.Tensor,
    _aten.erfinv_.default,
    _aten.clamp_.default,
    _aten.clamp_min_.default,
    _aten.clamp_max_.default,
)
"""Arithmetic in place that leaves shapes as they are."""
_IN_PLACE = set(map(id, CHANGES))
_AS_ON_THE_CPU = {  # other shapes or strides on meta, where torch takes the device for a GPU
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_embedding_bag",
    "_embedding_bag_forward_only",
    "_fft_c2c",
    "_fft_r2c",
    "_fft_c2r",
    "_linalg_svd",
    "linalg_eig",
}


_MANY = 4096
_known: dict[Any, tuple[torch.Size, tuple[int, ...], torch.dtype] | int] = {}
"""Sizes, strides and dtype of a new tensor, or which of its tensors an operator returns, by the default dtype and the likeness
of the call: models do the same again and again, and on meta Python looks at most operators, for 0.05 to 0.5 ms."""


def on_meta(call: Call) -> Any:
    """The result; ``IMPOSSIBLE`` where the shape depends on values, nobody has written the operator for meta, or it is an
    error, which torch words better on real tensors; but for those that real tensors of their own would not show."""
    if id(call.operator) in _IN_PLACE and _is_arithmetic(call):
        return call.args[0]
    if call.nature.written:
        _refuse_shared(call)
    like = None if call.nature.only_views else call.likeness()
    key = torch.get_default_dtype(), like
    made = _known.get(key) if like else None
    if isinstance(made, int):
        return call.tensors()[made]
    if made is not None:
        return torch.empty_strided(made[0], made[1], dtype=made[2], device=META)
    try:
        result = _on_fakes(call) if call.nature.name in _AS_ON_THE_CPU else call.with_device(META)()
    except Exception:
        return IMPOSSIBLE
    tensors = call.tensors()
    if any(t.layout is not torch.strided for t in (*tensors, *leaves(result))):
        return IMPOSSIBLE
    if len(_known) >= _MANY:
        _known.clear()
    if not like or not isinstance(result, Tensor):
        return result
    if not call.nature.written:
        if type(result) is Tensor and _is_new(result, tensors):
            _known[key] = result.shape, result.stride(), result.dtype
    elif call.likeness() == like and len(at := [n for n, t in enumerate(tensors) if t is result]) == 1:
        _known[key] = at[0]  # it returns the tensor that it writes, of the shape that it had
    return result


def _refuse_shared(call: Call) -> None:
    """On meta nobody looks whether an operator writes to elements that share memory, with each other or with other operands.

    Raises:
        RuntimeError: torch's own, where it refuses that on the CPU.
    """
    tensors = call.tensors()
    if call.nature.name == "copy" and tensors[-1].numel() == 1:
        tensors = tensors[:1]  # torch fills with the number on the CPU
    if not any(overlaps_itself(t) or any(_overlap_in_part(t, other) for other in tensors) for t in call.written()):
        return
    storages: dict[int, Tensor] = {}

    def zeros(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        held = storages.setdefault(storage_key(storage), torch.zeros(storage.nbytes(), dtype=torch.uint8, device=CPU))
        made = torch.empty(0, dtype=t.dtype, device=CPU)
        return made.set_(held.untyped_storage(), t.storage_offset(), t.size(), t.stride())

    try:
        with torch.random.fork_rng(devices=[]):
            call.with_device(CPU).map(Tensor, zeros)()
    except Exception as error:
        if _SHARED in str(error):
            raise


_SHARED = "a single memory location"


def _overlap_in_part(one: Tensor, other: Tensor) -> bool:
    """As torch decides it, which does not ask this of tensors with gaps between their elements."""
    if one is other or storage_key(one.untyped_storage()) != storage_key(other.untyped_storage()):
        return False
    if not all(t.numel() and fills_storage(Geometry(0, tuple(t.shape), t.stride()), t.numel()) for t in (one, other)):
        return False
    begins, sizes = [int(t.storage_offset()) * t.element_size() for t in (one, other)], [one.nbytes, other.nbytes]
    if begins[0] == begins[1] and sizes[0] == sizes[1]:
        return one.stride() != other.stride()
    return begins[0] < begins[1] + sizes[1] and begins[1] < begins[0] + sizes[0]


def _on_fakes(call: Call) -> Any:
    """What the operator returns on the CPU, on meta: all of it new memory."""

    def fake(t: Tensor) -> Tensor:
        return torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=CPU)

    with FakeTensorMode():
        made = call.map(Tensor, fake)()

    def twin(t: Tensor) -> Tensor:
        return torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=META)

    return twin(made) if isinstance(made, Tensor) else tuple(map(twin, made))


def _is_arithmetic(call: Call) -> bool:
    """Whether an operator of ``_IN_PLACE`` is so plain that it returns its tensor: on meta Python would look at it for 2 ms."""
    tensor, *numbers = call.args
    return (
        tensor.dtype.is_floating_point
        and tensor.dtype.itemsize > 1  # float8 has no arithmetic
        and bool(numbers) == (call.nature.name != "erfinv")  # a clamp to nothing is an error
        and all(type(x) in (int, float) for x in (*numbers, *call.kwargs.values()))
        and not overlaps_itself(tensor)
    )


def _is_new(made: Tensor, tensors: list[Tensor]) -> bool:
    """Whether a result is a tensor of its own, and nothing but its shape, strides and dtype."""
    storage = storage_key(made.untyped_storage())
    is_view = any(storage_key(t.untyped_storage()) == storage for t in tensors)
    return not (is_view or made.storage_offset() or made.is_conj() or made.is_neg())
