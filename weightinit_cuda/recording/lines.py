"""The lines of a recording's plan: what the tape has for a tensor, and what rules have where the code leaves one unwritten."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..numerics.distributions import Computed
from ..numerics.streams import stream_of
from ..plans.entry import Entry
from ..rules import Rules, resolve
from .ownership import Claims
from .targets import Target, overlapping

__all__ = ["by_rules", "entries_of"]


def entries_of(target: Target, claims: Claims) -> list[Entry]:
    """What the tape has for the tensor."""
    named, tensor = target.named, target.named.tensor
    about = named.name, tuple(tensor.shape), tensor.dtype
    rest = named.aliases, named.buffer
    if target.within:
        return [Entry(*about, Computed(f"a view of {target.within}"), claims.stream(named.name), "", None, *rest)]
    entries = claims.entries(named.name)
    return [Entry(*about, entry.distribution, entry.stream, entry.source, entry.box, *rest) for entry in entries]


def by_rules(model: nn.Module, targets: Sequence[Target], rules: Rules | None, claims: Claims) -> dict[str, list[Entry]]:
    """Lines for tensors that the code leaves unwritten, wholly or in part. What it does write lies over them."""
    if not targets:
        return {}
    unwritten = [target.named for target in targets]
    if unwritten and rules is None:
        raise ValueError(
            f"deferred: the code must write every tensor it keeps, got {len(unwritten)} that it only allocates"
            f" ({', '.join(n.name for n in unwritten)}). Fill them in the block, or give rules= for them."
        )
    if mixed := [n.name for n in unwritten if n.name in claims.mixed]:
        raise ValueError(
            f"deferred: rules= can fill what the code leaves unwritten, got {len(mixed)} tensors where that lies among values"
            f" that it writes ({', '.join(mixed)}). Fill them in the block."
        )
    if shared := overlapping(targets):
        raise ValueError(
            f"deferred: tensors that rules= fill must not overlap in memory, got {', '.join(shared)}. Fill them in the block."
        )
    made: dict[str, list[Entry]] = {}
    for n, fills in resolve(model, unwritten, rules) if unwritten and rules is not None else ():
        shape, stream = tuple(n.tensor.shape), stream_of(claims.stream_name(n.name))
        made[n.name] = [
            Entry(n.name, shape, n.tensor.dtype, distribution, stream, source, box, n.aliases, n.buffer)
            for distribution, box, source in fills
        ]
    if bare := [n.name for n in unwritten if n.name not in made]:
        raise ValueError(
            f"deferred: rules= must cover every tensor that the code leaves unwritten, got {len(bare)} without a rule"
            f" ({', '.join(bare)}). Fill them in the block, or add rules; those for buffers say so (rules.buffer)."
        )
    return made
