"""Who owns which random numbers: from folded memories to the entries of a plan, and the streams of what is replayed.

A fill that the model's code made may reach several tensors (deep copies, chunks of one draw), and a replay besides. As in the
model's own code they must then hold the same numbers. So the first tensor that holds all of a fill owns it, under the stream of
its name; who holds the same values in the same places shares the stream; and where no entry of a plan can say what a tensor
holds, it is computed: replayed from the tape, with the owner's numbers. Makes no tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..numerics.distributions import Computed, Distribution
from ..numerics.streams import stream_of
from ..tensors.boxes import Box, Region
from .folding import Drawn, Folded, Nothing, Replayed, Value
from .replay import Source, is_random, needed
from .tape import DataStep, FillStep, OperatorStep, Step, View
from .views import box_of, cut

__all__ = ["Claimed", "Claims"]


class Claimed(NamedTuple):
    """One entry of a plan, but for what belongs to the model."""

    distribution: Distribution
    stream: int
    source: str
    box: Box | None


class _Claim(NamedTuple):
    name: str
    at: int  # which part of that tensor
    box: Box
    value: Drawn


class Claims:
    """What each view of a tape holds under its name.

    Args:
        steps: the tape.
        views: by name, in the order of the plan.
    """

    def __init__(self, steps: Sequence[Step], views: dict[str, View]) -> None:
        self._steps, self._views = steps, views
        folded = Folded(steps)
        self._parts = {name: self._read(folded, view) for name, view in views.items()}
        self.unwritten = {name for name, parts in self._parts.items() if any(isinstance(v, Nothing) for _, v in parts)}
        self._settle()
        self._sources = self._owned() | self._free()

    def entries(self, name: str) -> list[Claimed]:
        """What the tensor is filled with; later entries over earlier ones.

        Boxes that are all filled alike (experts in a loop) are one entry: a value depends on its index, not on its box.
        """
        entries = [self._claimed(name, box, value) for box, value in self._parts[name] if not isinstance(value, Nothing)]
        alike = len({entry._replace(box=None) for entry in entries}) == 1 and name not in self.unwritten
        return [entries[0]._replace(box=None)] if alike else entries

    def computed(self, name: str) -> list[Box]:
        """The boxes of the tensor that only a replay gives."""
        return [box for box, value in self._parts[name] if isinstance(value, Replayed)]

    def source(self, step: Step, seed: int) -> Source:
        """Where a random step takes its numbers."""
        return self._sources[step]._replace(seed=seed)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, folded: Folded, view: View) -> list[tuple[Box, Value]]:
        parts = folded.read(view)
        if parts is not None and not view.conj:
            return parts
        source = self._steps[view.memory.steps[-1]].source
        unwritten = parts is None and folded.unwritten(view)
        return [(Box.whole(view.shape), Nothing(source) if unwritten else Replayed(source))]

    def _claimed(self, name: str, box: Box, value: Drawn | Replayed) -> Claimed:
        where = None if box == Box.whole(self._views[name].shape) else box
        if not isinstance(value, Drawn):
            return Claimed(Computed(self._how(name)), stream_of(name), value.source, where)
        owner = self._sources.get(value.step) if value.step else None
        return Claimed(value.distribution, owner.stream if owner else stream_of(name), value.source, where)

    def _how(self, name: str) -> str:
        steps = needed(self._steps, [self._views[name].memory])
        names = dict.fromkeys(step.call.nature.name.strip("_") for step in steps if isinstance(step, OperatorStep))
        if not names:
            return "given values" if any(isinstance(step, DataStep) for step in steps) else "several fills"
        return ", ".join(list(names)[:6]) + (", ..." if len(names) > 6 else "")

    # ---- owners ----------------------------------------------------------------------------------------------------

    def _claims(self) -> dict[FillStep, list[_Claim]]:
        claims: dict[FillStep, list[_Claim]] = defaultdict(list)
        for name, parts in self._parts.items():
            for at, (box, value) in enumerate(parts):
                if isinstance(value, Drawn) and value.step is not None:
                    claims[value.step].append(_Claim(name, at, box, value))
        return claims

    def _settle(self) -> None:
        """Turns claims that no entry can express into computed parts, until none is left: each may make others so."""
        while True:
            replayed = {step for _, steps in self._replays() for step in steps}
            wrong = [c for step, claims in self._claims().items() for c in self._wrong(step, claims, step in replayed)]
            if not wrong:
                return
            for claim in wrong:
                self._parts[claim.name][claim.at] = claim.box, Replayed(claim.value.source)

    def _wrong(self, step: FillStep, claims: Sequence[_Claim], replayed: bool) -> Iterator[_Claim]:
        whole = [claim for claim in claims if self._is_whole(step, claim)]
        owners = {claim.name for claim in whole if not claim.value.copied}
        for claim in claims:
            if claim in whole:
                if self._place(claim) != self._place(whole[0]):
                    yield claim
            elif claim.value.copied:
                if replayed or len(claims) > 1:
                    yield claim
            elif claim.name not in owners and (replayed or whole):  # a chunk of a draw that others know too
                yield claim

    def _is_whole(self, step: FillStep, claim: _Claim) -> bool:
        if claim.value.copied:
            return claim.value.whole
        return box_of(self._views[claim.name].geometry, step.writes[0].geometry) == claim.box

    def _place(self, claim: _Claim) -> tuple[tuple[int, ...], Box]:
        return self._views[claim.name].shape, claim.box

    def _replays(self) -> Iterator[tuple[str, list[Step]]]:
        """For each tensor with computed parts its steps."""
        for name in self._parts:
            if self.computed(name):
                yield name, needed(self._steps, [self._views[name].memory])

    def _owned(self) -> dict[Step, Source]:
        """The sources of fills that entries stand for: under the name of the first tensor that holds all of it."""
        return {
            step: self._owner(whole[0])
            for step, claims in self._claims().items()
            if (whole := [claim for claim in claims if self._is_whole(step, claim)])
        }

    def _owner(self, claim: _Claim) -> Source:
        view, distribution = self._views[claim.name], claim.value.distribution
        source = Source(0, stream_of(claim.name))
        if not distribution.elementwise:  # never a part of a tensor
            return source
        region = Region(view.shape, claim.box.offset)
        if claim.value.copied:
            return source._replace(region=region, shape=claim.box.shape)
        return source._replace(region=region, geometry=cut(view.geometry, claim.box))

    def _free(self) -> dict[Step, Source]:
        """The sources of all other draws: the nth of a tensor has the stream of ``name/n``."""
        owned, free = self._owned(), dict[Step, Source]()
        for name, steps in self._replays():
            draws = [step for step in steps if is_random(step) and step not in owned and step not in free]
            free |= {step: Source(0, stream_of(f"{name}/{n}")) for n, step in enumerate(draws)}
        return free
