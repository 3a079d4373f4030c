"""The commonest operators, recorded in a shorter way than ``recorder`` has for any: memory that is made, and filled as a whole.

They are what most of a model is made of. Each function here looks whether a call is as plain as that, records it and returns
its result; None: nothing is recorded, and the call takes the general way, which is always right. Two doors lead here: operators
in the dispatcher (``SHORT_WAYS``), and names of torch that others stand under (``stand_ins``).
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..init import schemes
from ..numerics.distributions import Constant, Distribution
from ..tensors.torch_private import TensorBase, function_modes
from .changes import RULES
from .on_meta import CHANGES
from .operators import Call, nature
from .plain_tape import made_on_meta
from .source_line import here
from .tape import META

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["ONE", "SHORT_WAYS", "ZERO", "constant", "fill", "make"]

Args = tuple[Any, ...]
Named = dict[str, Any]
ShortWay = Callable[["Recorder", Args, Named], Tensor | None]

ZERO, ONE = schemes.ZERO, schemes.ONE
_NUMBERS = (float, int)
_SIZED = {"dtype", "device", "pin_memory"}


def constant(value: object) -> Constant | None:
    """All elements are a number; None if it is none, or one that a float is not."""
    if type(value) not in _NUMBERS or (type(value) is int and abs(value) >= 2**53):
        return None
    number = float(value)  # type: ignore[arg-type]
    if number == 1:
        return ONE
    return ZERO if number == 0 and copysign(1, number) > 0 else Constant(number)


def make(
    recorder: Recorder, size: Args, dtype: torch.dtype | None, device: torch.device, distribution: Distribution | None
) -> Tensor | None:
    """``torch.empty(*size)``: memory with a tensor that is all of it, filled if a distribution is given. None if it would have
    no elements, or a size is a recorded tensor."""
    made = made_on_meta(size, dtype)
    if made is None or 0 in made.shape:
        return None
    memory = recorder.enter(made, device)
    if distribution is not None:
        recorder.fill_plain(memory, distribution, here())
    return made


def fill(recorder: Recorder, tensor: Tensor, distribution: Distribution) -> bool:
    """Fills a tensor that is all of a plain memory; False if it is not."""
    memory = recorder.plain_memory(tensor)
    if memory is None:
        return False
    recorder.fill_plain(memory, distribution, here())
    return True


def _made(recorder: Recorder, size: Any, named: Named, distribution: Distribution | None = None) -> Tensor | None:
    device = named.get("device")
    if device is None or device == META or not named.keys() <= _SIZED or named.get("pin_memory"):
        return None
    return make(recorder, (size,), named.get("dtype"), device, distribution)


def _empty(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    return _made(recorder, args[0], named)


def _zeros(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    return _made(recorder, args[0], named, ZERO)


def _ones(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    return _made(recorder, args[0], named, ONE)


def _lift_fresh(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    """``torch.tensor`` of one number."""
    real: Tensor = args[0]
    if real.dim() or real.dtype.is_complex or not real.is_cpu:
        return None
    value = constant(real.item() if real.dtype != torch.bool else int(real.item()))
    return None if value is None else _made(recorder, (), {"dtype": real.dtype, "device": real.device}, value)


def _full(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    value = constant(args[1]) if type(args[1]) is float or "dtype" in named else None  # else the dtype follows from the number
    return None if value is None else _made(recorder, args[0], named, value)


def _zero_(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    return _filled(recorder, args[0], ZERO)


def _fill_(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    value = constant(args[1])
    return None if value is None else _filled(recorder, args[0], value)


def _filled(recorder: Recorder, tensor: Tensor, distribution: Distribution) -> Tensor | None:
    return tensor if fill(recorder, tensor, distribution) else None


def _uniform_(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    return None if named or recorder.seeding.is_set else _drawn(recorder, schemes.uniform_, *args, *(0.0, 1.0)[len(args) - 1 :])


def _normal_(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    return None if named or recorder.seeding.is_set else _drawn(recorder, schemes.normal_, *args, *(0.0, 1.0)[len(args) - 1 :])


def _drawn(recorder: Recorder, scheme: Callable[..., Distribution], tensor: Tensor, *numbers: Any) -> Tensor | None:
    try:
        distribution = scheme(tensor.dtype, *numbers)
    except Exception:
        return None  # torch words it
    return _filled(recorder, tensor, distribution)


def _changing(operator: torch._ops.OpOverload) -> ShortWay:
    """Arithmetic with numbers on what was drawn: truncated normals are written so, five operators each."""
    name, parameters, rule = nature(operator).name, nature(operator).parameters[1:], RULES[nature(operator).name]

    def short_way(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
        tensor: Tensor = args[0]
        numbers = args[1:]
        if named or not tensor.dtype.is_floating_point or tensor.dtype.itemsize == 1:  # float8 has no arithmetic
            return None
        if bool(numbers) == (name == "erfinv") or not all(type(x) in _NUMBERS and abs(x) < 2**53 for x in numbers):
            return None  # torch words a clamp to nothing
        memory = recorder.plain_memory(tensor)
        before = None if memory is None else recorder.held(memory)
        if memory is None or before is None or isinstance(before, Constant):
            return None
        change = rule(dict(zip(parameters, map(float, numbers), strict=False)), True)
        if change is None:
            return None
        changed = change(before) if 0 in numbers else before.form((name, *numbers), lambda: change(before))  # zeros have signs
        if changed is None:
            return None
        recorder.change_plain(memory, Call(operator, (memory.whole, *numbers), {}), changed, here())
        return tensor

    return short_way


def _detach(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
    """The same memory: nothing is read here."""
    tensor: Tensor = args[0]
    return tensor.detach() if recorder.plain_memory(tensor) is not None or recorder.look_into(tensor) else None


def _viewing(operator: Callable[..., Tensor], direct: Callable[..., Tensor]) -> ShortWay:
    """A view of one tensor: no step. Through the operator's own object it takes twice the time of torch's function."""

    def short_way(recorder: Recorder, args: Args, named: Named) -> Tensor | None:
        if not recorder.look_into(args[0]):
            return None
        try:
            return operator(*args, **named) if named or function_modes() else direct(*args)
        except Exception:
            return None  # torch words it on real tensors

    return short_way


_aten = torch.ops.aten
_VIEWS: dict[Any, Callable[..., Tensor]] = {
    _aten.view.default: TensorBase.view,
    _aten.select.int: torch.select,
    _aten.slice.Tensor: _aten.slice.Tensor,
    _aten.expand.default: TensorBase.expand,
    _aten.permute.default: torch.permute,
    _aten.transpose.int: torch.transpose,
    _aten.t.default: torch.t,
    _aten.unsqueeze.default: torch.unsqueeze,
    _aten.squeeze.dim: torch.squeeze,
}
SHORT_WAYS: dict[int, ShortWay] = {
    id(_aten.empty.memory_format): _empty,
    id(_aten.zeros.default): _zeros,
    id(_aten.ones.default): _ones,
    id(_aten.full.default): _full,
    id(_aten.lift_fresh.default): _lift_fresh,
    id(_aten.zero_.default): _zero_,
    id(_aten.fill_.Scalar): _fill_,
    id(_aten.uniform_.default): _uniform_,
    id(_aten.normal_.default): _normal_,
    id(_aten.detach.default): _detach,
    **{id(operator): _changing(operator) for operator in CHANGES},
    **{id(operator): _viewing(operator, direct) for operator, direct in _VIEWS.items()},
}
"""By the identity of the operator, of which torch has one object: its own hash is Python's."""
