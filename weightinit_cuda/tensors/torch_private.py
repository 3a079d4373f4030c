"""Every private name of torch that this library uses: what it is for, and what breaks without it.

No other file says one (`tests/tensors/test_torch_private.py`). They are looked up once, here, so that a torch that lost a name
fails at import with that name; the test says which torch it was. All but one have been there in every release from 2.6 on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch._ops import _len_torch_dispatch_stack_pre_dispatch as modes_before_dispatch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.jit._builtins import _register_builtin as register_builtin
from torch.utils._contextlib import _NoParamDecoratorContextManager as DecoratorContextManager
from torch.utils._device import _device_constructors as device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._python_dispatch import _disable_current_modes as disable_current_modes
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

__all__ = [
    "PRIVATE",
    "DecoratorContextManager",
    "FakeTensor",
    "FakeTensorMode",
    "TensorBase",
    "TorchDispatchMode",
    "as_seen",
    "assert_async",
    "compiled_code_runs",
    "copying_code",
    "cuda_stream",
    "default_device",
    "device_constructors",
    "dispatch_modes",
    "forget_what_dynamo_knows",
    "forward_ad_runs",
    "function_modes",
    "functorch_transform",
    "increment_version",
    "is_traceable_wrapper_subclass",
    "is_transformed",
    "jit_trace",
    "keystr",
    "known_to_dynamo",
    "make_wrapper",
    "outside_transforms",
    "overlaps_itself",
    "register_builtin",
    "schema_of",
    "set_grad_enabled",
    "storage_key",
    "strided_shard",
    "swap_tensor_impl",
    "tree_flatten_with_path",
    "tree_map",
    "unseen_by_compile",
    "without_dispatch",
    "without_functions",
    "without_modes",
]

PRIVATE: dict[str, str] = {
    "torch._subclasses.fake_tensor.FakeTensor": "fake tensors have no memory: a fill neither writes nor draws. Else: a crash",
    "torch._subclasses.fake_tensor.FakeTensorMode": "shapes that differ between meta and the CPU, in deferred()",
    "torch.utils._contextlib._NoParamDecoratorContextManager": "patched() as a decorator, with and without parentheses",
    "torch.utils._python_dispatch.TorchDispatchMode": "deferred() sees every operator",
    "torch.utils._python_dispatch.is_traceable_wrapper_subclass": "deferred() leaves DTensors and their like alone",
    "torch.utils._python_dispatch._disable_current_modes": "our scratch tensors are nobody's business. Else: modes count them",
    "torch.utils._pytree.keystr": "names of tensors in attributes",
    "torch.utils._pytree.tree_flatten_with_path": "the same",
    "torch.utils._pytree.tree_map": "arguments of recorded operators; inputs of traced models",
    "torch._C._increment_version": "a fill writes through a pointer: else a re-initialised weight gives wrong gradients",
    "torch._C._len_torch_dispatch_stack": "whether a fill must be an operator. Else: FakeTensor and make_fx miss it",
    "torch._ops._len_torch_dispatch_stack_pre_dispatch": "the same in torch.export, before autograd",
    "torch._C._len_torch_function_stack": "whether a default device, or another mode, is asked at every call",
    "torch.utils._device._device_constructors": "remembered before torch.tensor is exchanged. Else: devices are not set later",
    "torch.jit._builtins._register_builtin": "torch.jit.script knows what stands under torch.tensor",
    "torch._C._disabled_torch_dispatch_impl": "deferred() makes tensors on meta without asking its own mode",
    "torch._C._functorch.peek_interpreter_stack": "the same for vmap and grad",
    "torch._C._functorch.is_functorch_wrapped_tensor": "the probe looks at no tensor of vmap, which has no values",
    "torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack": "checks draw on scratch tensors, which vmap refuses",
    "torch._C._is_tracing": "in torch.jit.trace a fill must be an operator. Else: the trace misses it",
    "torch._C._dynamo.eval_frame.get_eval_frame_callback": "patched() is refused in compiled code",
    "torch._dynamo.trace_rules.get_torch_obj_rule_map.cache_info": "whether torch.compile was first used inside of deferred()",
    "torch._dynamo.trace_rules.clear_lru_cache": "torch.compile works after that. Else: it knows what stood in for torch.empty",
    "torch._C._dynamo.eval_frame.set_code_exec_strategy": "torch.compile leaves the recorder alone. Else: it takes seconds",
    "torch._C._set_grad_enabled": "constants of small tensors without the cost of torch.no_grad()",
    "torch.Tensor._make_wrapper_subclass": "a partitioned parameter is shown as the whole tensor",
    "torch.Tensor._reduce_ex_internal": "a tensor that is pickled in deferred() is one on meta",
    "torch._C.TensorBase": "the methods of tensors that patched() hides",
    "torch._C._swap_tensor_impl": "materialize_ puts memory under the same objects. Else: optimisers hold other tensors",
    "torch._C._cuda_getCurrentRawStream": "the stream of a short call on a GPU; only in a torch with CUDA",
    "torch._neg_view": "the imaginary part of a conjugate has the bits of its negative, in recorded models, too",
    "torch._debug_has_internal_overlap": "expanded tensors are refused, as torch does",
    "torch._C.DisableTorchFunction": "what the probe measures is no part of the pass: no function mode sees it",
    "torch._assert_async": "orthogonal_ on a GPU is loud where a factorisation fails, without waiting for one",
    "torch.autograd.forward_ad._current_level": "patched() leaves methods to torch under forward-mode autograd",
}
"""Each name, and what it is for."""

increment_version = torch._C._increment_version
dispatch_modes = torch._C._len_torch_dispatch_stack
function_modes = torch._C._len_torch_function_stack
functorch_transform = torch._C._functorch.peek_interpreter_stack
is_transformed = torch._C._functorch.is_functorch_wrapped_tensor
jit_trace = torch._C._is_tracing
without_dispatch = torch._C._disabled_torch_dispatch_impl
set_grad_enabled = torch._C._set_grad_enabled
assert_async = torch._assert_async
swap_tensor_impl = torch._C._swap_tensor_impl
TensorBase = torch._C.TensorBase
without_functions = torch._C.DisableTorchFunction
_forward_ad = torch.autograd.forward_ad


_modes_before_dispatch: Callable[[], int] = modes_before_dispatch
_nothing = nullcontext[Any]()


def without_modes() -> AbstractContextManager[Any]:
    """A context in which no mode sees an operator. Mostly there is none, which torch takes 5 us to find."""
    return disable_current_modes() if dispatch_modes() or _modes_before_dispatch() else _nothing


def cuda_stream(device: int) -> int:
    """The handle of the current stream of a GPU."""
    handle: int = torch._C._cuda_getCurrentRawStream(device)
    return handle


def default_device() -> torch.device:
    """Where tensors are made if nobody says where. Torch 2.6 does not answer after ``torch.set_default_device(None)``."""
    try:
        return torch.get_default_device()
    except AttributeError:
        return torch.device("cpu")


def as_seen(tensor: torch.Tensor, conj: bool, neg: bool) -> torch.Tensor:
    """The same memory, whose values are taken conjugated, negated, or as they are."""
    seen = tensor.conj() if conj else tensor
    return torch._neg_view(seen) if neg else seen


def outside_transforms() -> AbstractContextManager[Any]:
    """A context in which vmap and its like see nothing."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    cleared: AbstractContextManager[Any] = temporarily_clear_interpreter_stack()
    return cleared


_F = TypeVar("_F", bound=Callable[..., Any])


def unseen_by_compile(function: _F) -> _F:
    """Marks a function: where torch.compile meets it, neither it nor what it calls is compiled.

    Said so, it does not import torch.compile. A torch too old to be told compiles it, which takes seconds and changes nothing.
    """
    frames: Any = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function


def known_to_dynamo() -> bool:
    """Whether torch.compile has its table of torch's functions, which knows them by identity and is made once."""
    rules = sys.modules.get("torch._dynamo.trace_rules")
    return rules is not None and rules.get_torch_obj_rule_map.cache_info().currsize > 0


def forget_what_dynamo_knows() -> None:
    """That table is made again when torch.compile asks for it next."""
    sys.modules["torch._dynamo.trace_rules"].clear_lru_cache()


def compiled_code_runs() -> bool:
    """Whether torch.compile would compile what is called next."""
    return callable(torch._C._dynamo.eval_frame.get_eval_frame_callback())


def copying_code() -> frozenset[Any]:
    """The code by which torch copies and pickles tensors, which must know that one has no memory."""
    return frozenset((torch.Tensor.__deepcopy__.__code__, torch.Tensor._reduce_ex_internal.__code__))


def make_wrapper(kind: type, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """A tensor of that subclass, shape and dtype without memory."""
    return torch.Tensor._make_wrapper_subclass(kind, shape, dtype=dtype, device=device)


def forward_ad_runs() -> bool:
    """Whether forward-mode autograd sees what is called now."""
    return _forward_ad._current_level >= 0


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether two elements share memory for sure."""
    return torch._debug_has_internal_overlap(tensor) == 1


def storage_key(storage: torch.UntypedStorage) -> int:
    """What tells storages apart, those on meta too; ``data_ptr()`` is 0 there."""
    key: int = storage._cdata
    return key


def schema_of(operator: Any) -> Any:
    """The schema of an operator of ``torch.ops``."""
    return operator._schema


def strided_shard() -> type:
    """The placement of tensor parallelism below FSDP2."""
    from torch.distributed.tensor.placement_types import _StridedShard

    return _StridedShard
