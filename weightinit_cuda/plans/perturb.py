"""Moving parameters by random numbers that are made on the fly: noise by seed, and steps towards the initial values.

Both read and write each parameter once. What they add or approach exists in registers and cache only, so a model that fills the
memory can be perturbed (MeZO) or pulled back to its initialisation (L2-Init) in place. Above plans and the engine; how old and
made values meet is `docs/numerics.md`, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import SupportsFloat, SupportsIndex, TypeVar

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .. import engine
from ..engine.checks import is_virtual
from ..engine.job import FillJob
from ..init.arguments import seed_of
from ..numerics.combine import ADD, lerp
from ..numerics.distributions import Normal
from ..numerics.streams import noise_stream_of
from ..tensors.kinds import MODEL, must_be, short
from ..tensors.named import Model, Named, named_tensors
from ..tensors.shards import mark_written, parts_to_write
from .entry import Entry
from .plan import PLAN, Plan, misfits

__all__ = ["add_noise_", "lerp_to_init_"]

Perturbed = TypeVar("Perturbed", bound=Model)


def add_noise_(model: Perturbed, scale: SupportsFloat, *, seed: SupportsIndex) -> Perturbed:
    r"""Adds normal noise to every floating-point parameter: ``x <- x + scale * z``, z ~ N(0, 1) from (seed, name, index).

    The same seed gives the same z again, so a perturbation is undone by its negative, and zeroth-order optimisers (MeZO:
    ``+eps``, evaluate, ``-2 eps``, evaluate, ``+eps``) need no copy of the parameters. z depends on neither scale, nor device,
    threads, layout or sharding, and has nothing in common with initial values of the same seed and name.

    Numerics: ``scale * z`` is the float32 value of ``normal_(std=scale)`` and is not rounded before it is added; the sum is
    rounded to the parameter's dtype. So a perturbation and its negative leave x up to one rounding each: exact where the sum
    was, else off by a unit in the last place of the larger of x and x + scale z. In bfloat16 noise below 2^-9 of x is lost.

    Args:
        model: a module, whose parameters are meant and not its buffers; or tensors by name, of which integers stay as they are.
            ``{name: p for name, p in model.named_parameters() if p.requires_grad}`` leaves frozen ones out.
        scale: standard deviation of what is added; may be negative. Of a complex parameter both parts get so much.
        seed: 64 bits. Take another one for every step.

    Returns:
        The model. Autograd sees no operation, as under ``torch.no_grad()``, but knows that parameters have changed.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: something that cannot be written; nothing has been, then.

    >>> import torch, weightinit_cuda as wi
    >>> net = torch.nn.Linear(2, 2, dtype=torch.float64)
    >>> before = net.weight.clone()
    >>> for scale in (1e-3, -2e-3, 1e-3):
    ...     net = wi.add_noise_(net, scale, seed=5)
    >>> torch.allclose(net.weight, before, atol=1e-15)
    True
    """
    must_be(MODEL, "add_noise_", model=model)
    number, std = seed_of("add_noise_", seed), _finite("add_noise_", "scale", scale)
    named = list(_floating("add_noise_", model))
    jobs = [job for item in named for job in _noise(item, Normal(0.0, std), number)]
    engine.fill(list({_memory(job.tensor): job for job in reversed(jobs)}.values())[::-1] if std != 0 else [])
    return _written(model, named)


def lerp_to_init_(model: Perturbed, plan: Plan, weight: SupportsFloat) -> Perturbed:
    r"""Moves every floating-point parameter towards its initial value: ``x <- x + weight * (init - x)``.

    This is weight decay towards the initialisation (L2-Init, for plasticity in continual learning); the initial values are
    made again from the plan instead of kept. A weight of 0 leaves x, bit for bit; a weight of 1 gives the initial values, bit
    for bit, whatever x was.

    Args:
        model: a module, whose parameters are meant and not its buffers; or some of its tensors by name.
        plan: has every one of these, in the same shape and dtype, and as random numbers or constants.
        weight: in [0, 1].

    Returns:
        The model. Autograd sees no operation, as under ``torch.no_grad()``, but knows that parameters have changed.

    Raises:
        ValueError: parameters that the plan lacks, has otherwise, or makes by linear algebra or the model's own code; all of
            them are named, and nothing is written.

    Source: Kumar, Marklund, Van Roy, "Maintaining plasticity in continual learning via regenerative regularization" (2023).

    >>> import torch, weightinit_cuda as wi
    >>> net = torch.nn.Linear(4, 4)
    >>> plan = wi.plan(net, rules="kaiming", seed=0)
    >>> trained = plan.apply_(net).weight.detach() + 1
    >>> _ = net.weight.data.copy_(trained)
    >>> torch.allclose(wi.lerp_to_init_(net, plan, 0.25).weight, trained - 0.25, atol=1e-6)
    True
    """
    must_be(MODEL, "lerp_to_init_", model=model)
    must_be(PLAN, "lerp_to_init_", plan=plan)
    number = _finite("lerp_to_init_", "weight", weight)
    if not 0 <= number <= 1:
        raise ValueError(f"lerp_to_init_: weight must be in [0, 1], got {weight}.")
    named = list(_floating("lerp_to_init_", model))
    if problems := [problem for item in named for problem in _obstacles(item, plan)]:
        raise ValueError("\n  ".join([f"lerp_to_init_: the plan must fit, got {len(problems)} differences.", *problems]))
    tensors = {_listed(item, plan)[0].name: item.tensor for item in named if not is_virtual(item.tensor)}
    engine.fill([job._replace(combine=lerp(number)) for job in plan.jobs(tensors)])
    return _written(model, named)


def _finite(function: str, name: str, value: SupportsFloat) -> float:
    try:
        if isinstance(value, (str, bytes)):  # float would read them
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{function}: {name} must be a number, got {short(value)}.") from None
    if not math.isfinite(number):
        raise ValueError(f"{function}: {name} must be finite, got {number}.")
    return number


def _floating(function: str, model: Model) -> Iterator[Named]:
    """The tensors to be moved."""
    for item in named_tensors(model, buffers=False):
        if is_lazy(item.tensor):
            raise ValueError(
                f"{function}: a parameter with a shape is required, got a lazy one ({item.name}). Run the model once."
            )
        if (item.tensor.dtype.is_floating_point or item.tensor.dtype.is_complex) and item.tensor.numel():
            yield item


def _noise(item: Named, distribution: Normal, seed: int) -> list[FillJob]:
    if is_virtual(item.tensor):
        return []
    stream = noise_stream_of(item.name)
    local = parts_to_write(item.tensor, "add_noise_")
    return [FillJob(part, distribution, seed, stream, region, item.name, ADD) for part, region in local]


def _memory(tensor: Tensor) -> Sequence[object]:
    """Equal for tensors that are the same elements: a ``state_dict`` has tied parameters as several of them."""
    if tensor.layout is not torch.strided or tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _listed(item: Named, plan: Plan) -> list[Entry]:
    """The plan's entries of a parameter, by any of its names; none if it has several tensors by them."""
    listed = {plan[name][0].name: plan[name] for name in (item.name, *item.aliases) if name in plan}
    return listed.popitem()[1] if len(listed) == 1 else []


def _obstacles(item: Named, plan: Plan) -> Iterator[str]:
    """What keeps a parameter from being moved towards the plan."""
    entries = _listed(item, plan)
    if not entries:
        yield f"{item.name}: a parameter that the plan does not have as one tensor. Leave it out: pass a dict of the others."
        return
    yield from misfits(item, entries[0])
    for entry in entries:
        if not entry.distribution.one_pass:
            yield f"{item.name}: {entry.distribution} is not made in one pass. Leave it out: pass a dict of the others."


def _written(model: Perturbed, named: Sequence[Named]) -> Perturbed:
    for item in named:
        mark_written(item.tensor)
    return model
