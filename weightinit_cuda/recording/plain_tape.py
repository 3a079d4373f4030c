"""What recorded code does most, written on the tape in the shortest way: memory that is made, and filled as a whole.

Each method of :class:`PlainTape` looks whether a call is as plain as that, and records it. If it is not, nothing is recorded,
and the caller takes the general way (``recorder``), which is always right. The native module has the same once more, without a
line of Python (csrc/plain_tape.cpp); :func:`fastest` takes that where it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..engine.backend import kernels
from ..init.catalog import Function
from ..numerics.distributions import Distribution
from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import TensorBase, dispatch_modes, function_modes, storage_key, without_dispatch
from .source_line import Place, here, is_own
from .tape import CPU, META, FillStep, Memory, Step

if TYPE_CHECKING:
    from .seeding import Seeding

__all__ = ["PlainCalls", "PlainTape", "fastest", "made_on_meta", "torchs_data"]

_torchs_empty = torch.empty
torchs_data: Callable[[Tensor], Tensor] = TensorBase.data.__get__  # type: ignore[attr-defined]
_grad_enabled = torch.is_grad_enabled
_ASKED = {"dtype", "device"}


Other = tuple[dict[str, Any], nn.Module, str, Tensor]
"""What is to hold it, and a tensor of a module with its name there."""


class PlainCalls(Protocol):
    """What :class:`PlainTape` does, whoever does it."""

    depth: int

    def plain_memory(self, tensor: Tensor) -> Memory | None:
        """The memory that the tensor is all of, as it was made, if nobody has read it; None for any other tensor."""

    def make(self, args: tuple[Any, ...], named: dict[str, Any], distribution: Distribution | None) -> Tensor | None:
        """``torch.empty(*args, **named)``, filled if a distribution is given."""

    def fill(self, tensor: Tensor, distribution: Distribution) -> bool:
        """A method of a tensor that fills it, as far as autograd has no objection."""

    def called(self, function: Function, args: tuple[Any, ...], own: int) -> bool:
        """A call of a function of ``torch.nn.init``: of its arguments that many are the tensor and its own; a generator may
        follow."""

    def data(self, tensor: Tensor) -> Tensor | None:
        """``tensor.data``."""

    def held_by(self, modules: list[nn.Module]) -> tuple[list[dict[str, Memory]], list[Other]]:
        """For each module the plain memories of its parameters and buffers; and those tensors that are something else."""


class PlainTape:
    """The plain calls of one recorder.

    Args:
        steps, memories: the tape, and its memories by the keys of their storages; they are the recorder's.
        seeding: whether draws are under a seed of the code's own.
    """

    def __init__(self, steps: list[Step], memories: dict[int, Memory], seeding: Seeding) -> None:
        self.steps, self.memories, self.seeding = steps, memories, seeding
        self.depth = 0  # of the stack of modes that the recorder is on top of

    def _sees_first(self) -> bool:
        """Whether the recorder would be the first to see an operator."""
        return dispatch_modes() == self.depth and not function_modes()

    def plain_memory(self, tensor: Tensor) -> Memory | None:
        if type(tensor) not in PLAIN_TYPES:
            return None
        try:
            memory = self.memories.get(storage_key(tensor.untyped_storage()))
        except RuntimeError:  # a layout, or a wrapper, that has none
            return None
        if (
            memory is not None
            and memory.plain
            and tensor.shape == memory.shape
            and tensor.dtype is memory.dtype
            and tensor.is_contiguous()
            and not (tensor.is_conj() or tensor.is_neg())
        ):
            return memory
        return None

    def enter(self, made: Tensor, device: torch.device) -> Memory:
        """A tensor on meta that was made as a whole, contiguous, with memory of its own."""
        storage = made.untyped_storage()
        memory = Memory(storage, device, made.dtype, made.shape, None, True)
        self.memories[storage_key(storage)] = memory
        return memory

    def fill_plain(self, memory: Memory, distribution: Distribution, place: Place) -> None:
        """Records a fill of all of a plain memory."""
        memory.steps.append(len(self.steps))
        self.steps.append(FillStep(place, memory, distribution))

    def make(self, args: tuple[Any, ...], named: dict[str, Any], distribution: Distribution | None) -> Tensor | None:
        if not self._sees_first() or not named.keys() <= _ASKED:
            return None
        device = CPU if named.get("device") is None else torch.device(named["device"])
        if device == META or not _are_sizes(args) or (made := made_on_meta(args, named.get("dtype"))) is None:
            return None
        memory = self.enter(made, device)
        if distribution is not None:
            self.fill_plain(memory, distribution, here())
        return made

    def fill(self, tensor: Tensor, distribution: Distribution) -> bool:
        if not self._sees_first() or (tensor.requires_grad and _grad_enabled()) or tensor.is_inference():
            return False
        memory = self.plain_memory(tensor)
        if memory is None:
            return False
        self.fill_plain(memory, distribution, here())
        return True

    def called(self, function: Function, args: tuple[Any, ...], own: int) -> bool:
        if not self._sees_first() or any(generator is not None for generator in args[own:]):
            return False
        memory = self.plain_memory(args[0])
        if memory is None:
            return False
        try:
            distribution = function.distribution(memory.dtype, memory.shape, *args[1:own])
        except Exception:
            return False  # torch words it
        if distribution.is_random and self.seeding.is_set:
            return False
        self.fill_plain(memory, distribution, here())
        return True

    def data(self, tensor: Tensor) -> Tensor | None:
        if not self._sees_first() or self.plain_memory(tensor) is None:
            return None
        seen: Tensor = without_dispatch(torchs_data, (), (tensor,), {})
        return seen

    def held_by(self, modules: list[nn.Module]) -> tuple[list[dict[str, Memory]], list[Other]]:
        found: list[dict[str, Memory]] = []
        others: list[Other] = []
        for module in modules:
            held: dict[str, Memory] = {}
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    if (memory := self.plain_memory(tensor)) is None:
                        others.append((held, module, name, tensor))
                    else:
                        held[name] = memory
            found.append(held)
        return found, others


def _are_sizes(args: tuple[Any, ...]) -> bool:
    """Whether each size is a number of 64 bits, and none is 0."""
    sizes = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    return bool(args) and all(type(size) is int and 0 < size < 2**63 for size in sizes)


def made_on_meta(size: tuple[Any, ...], dtype: torch.dtype | None) -> Tensor | None:
    """``torch.empty(*size)`` on meta, whatever modes there are; None where torch refuses."""
    try:
        made: Tensor = without_dispatch(_torchs_empty, (), size, {"dtype": dtype, "device": META})
    except RuntimeError:
        return None
    return made


def fastest(tape: PlainTape) -> PlainCalls:
    """The same by the native module, if it is there."""
    if kernels is None:
        return tape
    return kernels.PlainTape(_parts(), tape.steps, tape.memories, tape.seeding)


@cache
def _parts() -> Any:
    """What the native module has to know of torch and of tapes."""
    nothing: Any = None
    return kernels.TapeParts(
        types=(Tensor, *PLAIN_TYPES - {Tensor}),
        memory=Memory(nothing, nothing, nothing, nothing),
        fill_step=FillStep(nothing, nothing, nothing),
        empty=_torchs_empty,
        without_dispatch=without_dispatch,
        dispatch_modes=dispatch_modes,
        function_modes=function_modes,
        grad_enabled=_grad_enabled,
        data=torchs_data,
        cpu=CPU,
        meta=META,
        is_own=is_own,
    )
