"""One forward and one backward pass under an :class:`Observer`, with everything of the model as before afterwards.

Sits between ``observing``, which looks, and ``probe``, which is asked. Gradients are computed by ``torch.autograd.grad``, so no
``.grad`` is touched and no hook of an optimiser or a reducer runs.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import checkpoint

from ..init import normal_
from ..init.generators import generators_kept
from .measures import local
from .observing import Observer
from .row import Row, Seen

__all__ = ["Question", "as_before", "look", "loss_of", "unwrapped"]

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Question:
    """What is asked of a model: its inputs and its loss.

    Args:
        inputs, kwargs: of ``forward``.
        loss: of the output, or of the prediction and the target.
        target: what the prediction is compared with.
        classes: how many the loss tells apart.
        seed: of everything that is drawn in the passes.
    """

    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    loss: Loss | None = None
    target: Any = None
    classes: int | None = None
    seed: int = 0


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, DistributedDataParallel (which waits for gradients of its own) and DataParallel."""
    while True:
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def look(model: nn.Module, question: Question) -> Seen:
    """Runs a model once forward and once backward.

    Raises:
        ValueError: it has nothing to train, lies on meta, gives no tensor with a gradient, or was given one sample.
    """
    _require_trainable(model)
    with ExitStack() as stack:
        stack.enter_context(as_before(model, question.seed))
        observer = Observer(model)
        stack.callback(observer.close)
        with observer:
            out = model(*question.inputs, **question.kwargs)
        observer.watching = False
        prediction = _prediction(out)
        loss = _loss(question, out, prediction)
        _go_back(model, observer, prediction, loss, question.seed)
    _require_seen(observer.rows)
    _fill_steps(observer.rows)
    value = None if loss is None else float(local(loss))
    return Seen(observer.rows, value, _classes(question, prediction, loss), observer.asleep)


def _require_trainable(model: nn.Module) -> None:
    parameters = list(model.parameters())
    lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in parameters)
    if lazy:
        raise ValueError("probe: parameters with values are required, got lazy ones. Run the model once first.")
    if any(p.is_meta for p in parameters):
        way = "Build the model under deferred() and materialize_ it."
        raise ValueError(f"probe: parameters with values are required, got some on meta. {way}")
    if not any(p.requires_grad for p in parameters):
        what = f"{len(parameters)} parameters that are all frozen" if parameters else "a model without parameters"
        raise ValueError(f"probe: a parameter with requires_grad is required, got {what}. Unfreeze what is to be trained.")


def _require_seen(rows: Sequence[Row]) -> None:
    if not any(row.kind in ("weight", "table") for row in rows):
        raise ValueError(
            "probe: a layer that multiplies by a parameter is required, got none that torch's functions show. A scripted module"
            " hides its own: probe the module that it was made of."
        )
    samples = max(row.samples for row in rows)
    if samples < 2 and not any(row.bad for row in rows):
        raise ValueError(
            f"probe: two samples or more are required, got {samples}. Give a batch: the signal is what tells samples apart."
        )


def _fill_steps(rows: list[Row]) -> None:
    """Fills in by how much each layer changes the signal of the layer before."""
    last = 0.0
    for row in rows:
        if row.kind in ("weight", "table"):
            row.step = row.signal / last if last > 0 else row.step
            last = row.signal if row.signal > 0 else last


# ---- before and after ------------------------------------------------------------------------------------------------


@contextmanager
def as_before(model: nn.Module, seed: int) -> Iterator[None]:
    """In training mode but without dropout, with gradients; modes, buffers and generators are put back."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, b, b.detach().clone())
        for module in model.modules()
        for name, b in module._buffers.items()
        if b is not None
    ]
    model.train()
    for module in model.modules():
        if re.search(r"Drop(out|Path|Block)|StochasticDepth", type(module).__name__):
            module.training = False
    try:
        with _generators(model, seed), _eager(), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                module._buffers[name] = buffer
                if not torch.equal(local(buffer), local(values)):
                    buffer.copy_(values)


@contextmanager
def _generators(model: nn.Module, seed: int) -> Iterator[None]:
    """Those of Python, NumPy (if loaded) and torch, of the CPU and of the model's GPUs, are seeded, and put back."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    numpy: Any = sys.modules.get("numpy.random")
    with generators_kept(devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        random.seed(seed)
        if numpy:
            numpy.seed(seed % (1 << 32))
        yield


@contextmanager
def _eager() -> Iterator[None]:
    """Compiled parts run as they are written; reentrant checkpoints, which refuse ``autograd.grad``, as the others do."""
    with torch.compiler.set_stance("force_eager"), patch.object(checkpoint.CheckpointFunction, "apply", _checkpointed):
        yield


def _checkpointed(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    """In place of a reentrant checkpoint; like that one it gives no gradient where no input has one."""
    if not any(isinstance(a, Tensor) and a.requires_grad for a in args):
        with torch.no_grad():
            return function(*args)
    return checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


# ---- output and loss -------------------------------------------------------------------------------------------------


def _tensors(out: Any, depth: int = 0) -> Iterator[Tensor]:
    """The tensors of an output of any structure: containers, dataclasses, objects with attributes."""
    if isinstance(out, Tensor):
        yield out
        return
    if isinstance(out, Mapping):
        inside = list(out.values())
    elif isinstance(out, (list, tuple, set, frozenset)):
        inside = list(out)
    elif is_dataclass(out) and not isinstance(out, type):
        inside = [getattr(out, f.name) for f in fields(out)]
    else:
        inside = list(vars(out).values()) if hasattr(out, "__dict__") and not isinstance(out, (nn.Module, type)) else []
    if depth < 8:
        for value in inside:
            yield from _tensors(value, depth + 1)


def _prediction(out: Any) -> Tensor:
    """What the model predicts: its ``logits``, else the first tensor that has a gradient; losses alone are added up."""
    found = [t for t in _tensors(out) if t.requires_grad]
    if not found:
        kinds = sorted({type(t).__name__ for t in _tensors(out)}) or [type(out).__name__]
        raise ValueError(
            f"probe: an output with a tensor that depends on trainable parameters is required, got {', '.join(kinds)} without"
            " a gradient. Probe the part of the model that computes one."
        )
    logits = getattr(out, "logits", None)
    if isinstance(logits, Tensor) and logits.requires_grad:
        return logits
    wide = [t for t in found if t.numel() != 1]
    return wide[0] if wide else torch.stack([t.reshape(()) for t in found]).sum()


def loss_of(question: Question, out: Any) -> Tensor | None:
    """The loss of an output; None where nobody says what it is."""
    return _loss(question, out, _prediction(out))


def _loss(question: Question, out: Any, prediction: Tensor) -> Tensor | None:
    """A scalar; None where nobody says what the loss is."""
    target = question.target
    value: Any
    if question.loss is not None:
        value = question.loss(out) if target is None else question.loss(prediction, target)
    elif target is not None:
        value = _usual_loss(prediction, target)
    else:
        value = getattr(out, "loss", out.get("loss") if isinstance(out, Mapping) else None)
        value = prediction if value is None and prediction.numel() == 1 else value
    if value is None or (isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad):
        return value
    what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise ValueError(f"probe: a loss of one element that has a gradient is required, got {what}. Take its mean.")


def _usual_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Cross entropy for whole numbers, mean square error for others."""
    if target.is_floating_point():
        return F.mse_loss(prediction, target.to(prediction.dtype))
    if prediction.shape[:-1] == target.shape:  # classes last
        return F.cross_entropy(prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1))
    return F.cross_entropy(prediction, target)


def _classes(question: Question, prediction: Tensor, loss: Tensor | None) -> int | None:
    if question.classes is not None or loss is None or question.loss is not None:
        return question.classes
    target = question.kwargs.get("labels") if question.target is None else question.target
    if not isinstance(target, Tensor) or target.is_floating_point() or prediction.dim() < 2:
        return None
    return prediction.shape[-1] if prediction.shape[:-1] == target.shape else prediction.shape[1]


# ---- backward --------------------------------------------------------------------------------------------------------

HALF_SCALE = 2.0**10  # of a loss in float16, as a GradScaler has one: gradients of a mean over 1000 tokens underflow


def _go_back(model: nn.Module, observer: Observer, prediction: Tensor, loss: Tensor | None, seed: int) -> None:
    """The backward pass: of the loss; without one of a random projection, N(0, 1) for each element of the prediction."""
    leaves: dict[int, Tensor] = {id(p): p for p in model.parameters() if p.requires_grad}
    leaves |= {id(p): p for p in observer.weights.factors if p.requires_grad and p.is_leaf}  # FSDP2's gathered ones
    scale = HALF_SCALE if loss is not None and prediction.dtype == torch.float16 else 1.0
    start = _projection(prediction, seed) if loss is None else torch.full_like(loss, scale)
    with observer:  # checkpointed parts run again, and must be the same
        torch.autograd.grad(prediction if loss is None else loss, list(leaves.values()), start, allow_unused=True)
    for row in observer.rows:
        row.gradient /= scale
        row.weight_gradient /= scale


def _projection(prediction: Tensor, seed: int) -> Tensor:
    """The same numbers on every device and for every sharding."""
    return normal_(torch.empty_like(prediction, requires_grad=False), seed=seed, stream="probe")
