"""Whether ranks that should hold the same values do: hashes of what each holds, compared where two hold the same part.

Sits on ``fingerprint``, which gives one number for a whole model; this says where two ranks part. Knows nothing of plans.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from ..tensors.named import Model
from ..tensors.shards import parts
from .fingerprint import Buffers, chosen, tensor_hash

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["check_ranks"]


def check_ranks(
    model: Model, *, group: ProcessGroup | None = None, buffers: Buffers = "persistent"
) -> dict[str, tuple[int, ...]]:
    """The tensors that ranks should hold alike and do not, each with the ranks that hold something else than most do.

    Compared are parts that several ranks hold: a plain tensor of one name as a whole (replicas of data parallelism), of a
    DTensor the same box of indices. Names that only some ranks have, as pipeline stages do, are compared among those. Of a
    tie the lowest rank is right. Plain tensors that are shards differ by design: give the group of ranks that hold copies.

    Args:
        model: a module, or tensors by name, as for :func:`fingerprint`. All ranks of the group must call this together.
        group: the ranks to compare; all by default.
        buffers: which buffers of a module count: those that ``state_dict`` saves, all, or none.

    Returns:
        Names and ranks, the same on every rank; empty if all agree. About 30 bytes a tensor and rank are exchanged.

    Raises:
        TypeError, ValueError: values that are no dense tensors, or have no memory (meta); all of them are named.

    >>> check_ranks(torch.nn.Linear(2, 2))  # a process alone agrees with itself
    {}
    """
    names, held = _held(model, buffers)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {}
    everyone = _gathered(held, group)
    odd = {part: ranks for part in sorted({part for one in everyone for part in one}) if (ranks := _odd(part, everyone))}
    if not odd:
        return {}
    mine = {part: names[part] for part in odd if part in names}
    called = {part: name for one in _gathered(mine, group) for part, name in one.items()}
    found: dict[str, set[int]] = {}
    for part, ranks in odd.items():
        found.setdefault(called[part], set()).update(ranks)
    members = torch.distributed.get_process_group_ranks(group or torch.distributed.group.WORLD)
    return {name: tuple(members[rank] for rank in sorted(found[name])) for name in sorted(found)}


def _held(model: Model, buffers: Buffers) -> tuple[dict[int, str], dict[int, int]]:
    """What this rank holds: the name of each part, and the hash of its dtype, shape and bits, both by a hash of the place."""
    names: dict[int, str] = {}
    held: dict[int, int] = {}
    for named in chosen("check_ranks", model, buffers):
        about = str(named.tensor.dtype), tuple(named.tensor.shape)
        for local, region in parts(named.tensor, "check_ranks"):
            part = _hash64(named.name, region and (region.offset, tuple(local.shape)))
            names[part], held[part] = named.name, _hash64(*about, tensor_hash(local, region))
    return names, held


def _hash64(*about: Any) -> int:
    return int.from_bytes(blake2b(repr(about).encode(), digest_size=8).digest(), "little")


def _gathered(mine: Mapping[int, Any], group: ProcessGroup | None) -> list[Mapping[int, Any]]:
    everyone: list[Mapping[int, Any]] = [{}] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(everyone, mine, group)
    return everyone


def _odd(part: int, everyone: Sequence[Mapping[int, int]]) -> list[int]:
    """The ranks, of those that hold the part, whose values are not the most frequent."""
    values = {rank: one[part] for rank, one in enumerate(everyone) if part in one}
    ((usual, _),) = Counter(values.values()).most_common(1)  # of equally frequent ones the first met
    return [rank for rank, value in values.items() if value != usual]
