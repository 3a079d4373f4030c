"""Who owns which random numbers: from folded memories to the entries of a plan, and the streams of what is replayed.

A fill that the model's code made may reach several tensors (deep copies, chunks of one draw), and a replay besides. As in the
model's own code they must then hold the same numbers. So the first tensor that holds all of a fill owns it, under the stream of
its name; who holds the same values in the same places shares the stream; and where no entry of a plan can say what a tensor
holds, it is computed: replayed from the tape, with the owner's numbers. No two draws have the same random words: what lives on
of a draw in copies, while a later one lies over it in its owner, has words of its own. What has been settled for one model of a
tape stays so for its parts, and for other models that hold copies of it. Makes no tensors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, cast

from .. import engine
from ..numerics.distributions import Computed, Constant, Distribution
from ..numerics.streams import stream_of
from ..tensors.boxes import Box, are_apart, intersection, remainder
from ..tensors.named import joined
from .folding import Folded
from .pieces import Drawn, Nothing, Replayed, Value
from .replay import Place, Source, has_long_words, is_random, needed
from .tape import ChangedFill, DataStep, FillStep, Memory, OperatorStep, Step, View
from .views import Geometry, box_of, cut, same_order

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
        folded: what its memories hold at its end.
        held: views, or plain memories as a whole, by name, in the order of the plan. Of plain memory all is clear: its last
            fill is its own.
        prefix: of the names that streams are made of.
        before: claims that stay as they are: of the whole that this is a part of, and of other models of the tape. What they
            hold, too, has its numbers from there.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        folded: Folded,
        held: dict[str, View | Memory],
        prefix: str = "",
        before: Sequence[Claims] = (),
    ) -> None:
        self._steps, self.held, self._prefix = steps, held, prefix
        known = {one: (claims, name) for claims in reversed(before) for name, one in claims.held.items()}
        self._elsewhere = {name: known[one] for name, one in held.items() if one in known} if known else {}
        own = {name: one for name, one in held.items() if name not in self._elsewhere} if self._elsewhere else held
        self._plain = {name: one for name, one in own.items() if type(one) is Memory and one.steps}
        self._views = {name: one for name, one in own.items() if type(one) is View} if len(self._plain) < len(own) else {}
        self._behind: dict[Memory, list[Step]] = {}
        self._unwritten = own.keys() - self._plain.keys() - self._views.keys()
        self._owners: dict[Step, Source] = {}
        self._given: dict[Step, Source] = {}
        self._parts: dict[str, list[tuple[Box, Value]]] = {}
        self._shown: dict[str, dict[int, list[Box]]] = defaultdict(dict)
        self._side_by_side: set[str] = set()
        self._mixed: set[str] = set()
        self.linked: list[Claims] = []
        self._taken: set[str] = set()
        self._number = len(before)
        self._undecided = folded if self._views or before else None
        if before:
            self._decide(before)

    def _decide(self, before: Sequence[Claims] = ()) -> None:
        """Whose draws the views hold, and what is to be replayed, once somebody needs it: what a model has beside plain memory is
        mostly known without."""
        folded, self._undecided = self._undecided, None
        if folded is None:
            return
        self._given = {step: owner for claims in reversed(before) for step, owner in claims.owners.items()}
        self._parts = {name: self._read(folded, view) for name, view in self._views.items()}
        self._unwritten |= {name for name, parts in self._parts.items() if any(isinstance(v, Nothing) for _, v in parts)}
        self._unwritten |= {name for name, (claims, there) in self._elsewhere.items() if there in claims.unwritten}
        self._mixed = {name for name, parts in self._parts.items() if _lies_among_values(parts)}
        self._mixed |= {name for name, (claims, there) in self._elsewhere.items() if there in claims.mixed}
        self._side_by_side = {name for name, parts in self._parts.items() if _is_sum(parts, self._views[name].shape)}
        self._settle()
        self.linked = self._linked(before)
        self._taken = {claims.stream_name(name) for claims in self.linked for name in claims.held}
        self._owners = self._given | self._owned() | self._free()

    @property
    def unwritten(self) -> set[str]:
        """The tensors that nobody has written, wholly or in part."""
        self._decide()
        return self._unwritten

    @property
    def mixed(self) -> set[str]:
        """Those of them where what is not written lies among values."""
        self._decide()
        return self._mixed

    def entries(self, name: str) -> list[Claimed]:
        """What the tensor is filled with; later entries over earlier ones.

        Boxes that are all filled alike (experts in a loop; q, k and v of a fused weight) are one entry, of all their lines of
        code: a value depends on its index, not on its box.
        """
        if name in self._elsewhere:
            claims, there = self._elsewhere[name]
            return claims.entries(there)
        if name in self._plain:
            return [Claimed(*self._plain_fill(name), _fill_of(self._last(name)).source, None)]
        self._decide()
        parts = self._parts.get(name, ())
        entries = [self._claimed(name, at, *part) for at, part in enumerate(parts) if not isinstance(part[1], Nothing)]
        alike = len({(entry.distribution, entry.stream) for entry in entries}) == 1 and name not in self.unwritten
        if not alike or (len(entries) > 1 and _zeros_differ(entries)):
            return entries
        return [entries[0]._replace(box=None, source=", ".join(dict.fromkeys(entry.source for entry in entries)))]

    def plain_fills(self, names: Sequence[str]) -> tuple[list[Distribution], list[int]]:
        """The one fill of each of these tensors, which are all of a plain memory, and its stream."""
        if not (self._elsewhere or self._taken):
            full = [joined(self._prefix, name) for name in names] if self._prefix else list(names)
            steps, plain = cast("Sequence[FillStep]", self._steps), self._plain  # a ChangedFill says the same
            made = [steps[plain[name].steps[-1]].distribution for name in names]
            return cast("list[Distribution]", made), engine.streams_of(full)
        fills = list(map(self._plain_fill, names))
        return [distribution for distribution, _ in fills], [stream for _, stream in fills]

    @property
    def are_first(self) -> bool:
        """Whether nothing here has its numbers from other claims."""
        return not (self._elsewhere or self._taken or self._given)

    def streams(self, names: Sequence[str]) -> list[int]:
        """The streams of the tensors' own draws, where these claims are the first."""
        return engine.streams_of([joined(self._prefix, name) for name in names])

    def _plain_fill(self, name: str) -> tuple[Distribution, int]:
        if name in self._elsewhere:
            claims, there = self._elsewhere[name]
            return claims._plain_fill(there)
        distribution = self._distribution(name)
        return distribution, stream_of(self.stream_name(name)) if distribution.is_random else self.stream(name)

    def _last(self, name: str) -> FillStep | ChangedFill:
        """The last of the steps on a plain memory."""
        return cast("FillStep | ChangedFill", self._steps[self._plain[name].steps[-1]])

    def _distribution(self, name: str) -> Distribution:
        distribution = self._last(name).distribution
        assert distribution is not None
        return distribution

    @cached_property
    def owners(self) -> dict[Step, Source]:
        """Whose numbers each draw has."""
        self._decide()
        plain = {}
        for name, one in self._plain.items():
            stream, shape = stream_of(self.stream_name(name)), one.frame.shape
            plain[_fill_of(self._last(name))] = Source(
                0, stream, (Place(stream, shape, Box.whole(shape), one.frame, one.dtype),)
            )
        return self._owners | plain

    def computed(self, name: str) -> list[Box]:
        """The boxes of the tensor that only a replay gives."""
        if name in self._elsewhere:
            claims, there = self._elsewhere[name]
            return claims.computed(there)
        self._decide()
        return [box for box, value in self._parts.get(name, ()) if isinstance(value, Replayed)]

    def needed(self, memory: Memory) -> list[Step]:
        """What the values of a memory depend on, in order."""
        known = self._behind.get(memory)
        if known is None:
            known = self._behind[memory] = needed(self._steps, [memory])
        return known

    def source(self, step: Step, seed: int) -> Source:
        """Where a random step takes its numbers."""
        self._decide()
        return self._owners[step]._replace(seed=seed)

    def stream(self, name: str) -> int:
        """The stream of a tensor's name, whatever the tensor holds."""
        return stream_of(joined(self._prefix, name))

    def stream_name(self, name: str) -> str:
        """The name that a tensor's own draws have their streams from.

        Where copies tie two models of a tape, and so must have one seed, other draws may have one name in both: in the second
        it is marked with a number, or they would be equal.
        """
        if name in self._elsewhere:
            claims, there = self._elsewhere[name]
            return claims.stream_name(there)
        full = joined(self._prefix, name)
        return f"{full}@{self._number}" if full in self._taken else full

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, folded: Folded, view: View) -> list[tuple[Box, Value]]:
        parts = folded.read(view)
        if parts is not None and view.is_resolved:
            return parts
        source = self._steps[view.memory.steps[-1]].source
        some, every = folded.has_nothing(view)
        return [(Box.whole(view.shape), Nothing(source, not every) if some else Replayed(source))]

    def _claimed(self, name: str, at: int, box: Box, value: Value) -> Claimed:
        where = None if box == Box.whole(self._views[name].shape) else box
        if not isinstance(value, Drawn):
            return Claimed(Computed(self._how(name)), self.stream(name), value.source, where)
        if value.step is None:
            return Claimed(value.distribution, self.stream(name), value.source, where)
        source = self._owners.get(value.step)
        place = source and self._place_in(source, _Claim(name, at, box, value))
        stream = stream_of(self.stream_name(name)) if place is None else place.stream
        return Claimed(value.distribution, stream, value.source, where)

    def _how(self, name: str) -> str:
        steps = self.needed(self._views[name].memory)
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
                self._shown.pop(claim.name, None)

    def _wrong(self, step: FillStep, claims: Sequence[_Claim], replayed: bool) -> Iterator[_Claim]:
        if step in self._given:
            yield from (c for c in claims if self._place_in(self._given[step], c) is None)
            return
        if len(claims) == 1 and not replayed:
            return
        kind = step.distribution and step.distribution.kind
        other = [c for c in claims if c.value.distribution.kind != kind]
        if other and (replayed or len(other) < len(claims)):  # drawn, they would have other numbers
            yield from other
            return
        drawn = step.writes[0].dtype
        cast = [c for c in claims if has_long_words(self._views[c.name].dtype) != has_long_words(drawn)]
        if cast and (replayed or len(cast) < len(claims)):  # drawn in their dtype these would be other numbers
            yield from cast
            return
        whole = [claim for claim in claims if self._is_whole(step, claim)]
        first = self._placed(self._first(whole), 0) if whole else None
        if first and first.shown is not None and not whole[0].value.distribution.elementwise and (replayed or claims[1:]):
            yield from claims  # each of its elements is made of all its words
            return
        owners = {claim.name for claim in whole if not claim.value.copied}
        scattered = not whole and all(claim.value.copied for claim in claims) and _apart(step, claims)
        overlap = not whole and not scattered and self._overlap(step, claims)
        for claim in claims:
            if first is not None and claim in whole:
                if not self._fits(first, claim):
                    yield claim
            elif claim.value.copied:
                if not scattered and (replayed or len(claims) > 1):
                    yield claim
            elif first is not None and claim.name in owners and self._fits(first, claim):  # what has become of a part
                continue
            elif replayed or whole or overlap:  # a chunk of a draw that others know too
                yield claim

    def _is_whole(self, step: FillStep, claim: _Claim) -> bool:
        if claim.value.copied:
            return claim.value.whole
        return box_of(self._views[claim.name].geometry, step.writes[0].geometry) == claim.box

    def _first(self, whole: Sequence[_Claim]) -> _Claim:
        """The owner of a draw among those that have all of it: no other draw lies over it there, if there is such a one."""
        return next((claim for claim in whole if self._seen(claim) == [claim.box]), whole[0])

    def _overlap(self, step: FillStep, claims: Sequence[_Claim]) -> bool:
        """Whether an element of the draw may be in two of the claims that lie in its own memory."""
        there = [cut(self._views[claim.name].geometry, claim.box) for claim in claims if not claim.value.copied]
        boxes = [box for one in there if (box := box_of(step.writes[0].geometry, one)) is not None]
        return len(there) > 1 and (len(boxes) < len(there) or not are_apart(boxes))

    def _seen(self, claim: _Claim) -> list[Box]:
        """What of the part no later draw of its tensor lies over."""
        if claim.name in self._side_by_side:
            return [claim.box]
        known = self._shown[claim.name]
        if claim.at not in known:
            later = self._parts[claim.name][claim.at + 1 :]
            drawn = [box for box, v in later if isinstance(v, Drawn) and v.step is not None and v.step is not claim.value.step]
            known[claim.at] = remainder(claim.box, drawn)
        return known[claim.at]

    def _fits(self, place: Place, claim: _Claim) -> bool:
        """Whether the claim has elements of the place at their indices, and all that is seen of them has its words."""
        view, step = self._views[claim.name], claim.value.step
        assert step is not None
        if place.shape != view.shape or has_long_words(place.dtype) != has_long_words(view.dtype):
            return False
        if intersection(place.box, claim.box) != claim.box:
            return False
        if place.shown is not None and any(remainder(box, place.shown) for box in self._seen(claim) if box not in place.shown):
            return False
        there, elements = place.geometry, self._elements(claim)
        if claim.box == place.box:
            there = there or step.writes[0].geometry
        elif there is not None:
            there = cut(there, Box(tuple(map(int.__sub__, claim.box.offset, place.box.offset)), claim.box.shape))
        return there is not None and elements is not None and same_order(elements, there)

    def _place_in(self, source: Source, claim: _Claim) -> Place | None:
        """The place of a draw that has these values."""
        return next((place for place in source.places if self._fits(place, claim)), None)

    def _elements(self, claim: _Claim) -> Geometry | None:
        """The elements of the draw that the claim has, in its order, in the memory of the draw; None: not known."""
        value = claim.value
        assert value.step is not None
        if not value.copied:
            return cut(self._views[claim.name].geometry, claim.box)
        return value.step.writes[0].geometry if value.whole and value.origin is None else value.origin

    def _replays(self) -> Iterator[tuple[str, list[Step]]]:
        """For each tensor with computed parts its steps."""
        for name in self._parts:
            if self.computed(name):
                yield name, self.needed(self._views[name].memory)

    def _linked(self, before: Sequence[Claims]) -> list[Claims]:
        """Those that know a tensor or a draw of these."""
        draws: set[Step] = {*self._claims(), *(step for _, steps in self._replays() for step in steps if is_random(step))}
        known = [claims for claims, _ in self._elsewhere.values()]
        return [claims for claims in before if claims in known or not draws.isdisjoint(claims.owners)]

    def _owned(self) -> dict[Step, Source]:
        """The sources of fills that entries stand for: under the name of the first tensor that holds all of it, or under the
        names of all that hold parts of it."""
        owned: dict[Step, Source] = {}
        for step, claims in self._claims().items():
            if step in self._given:
                continue
            whole = [claim for claim in claims if self._is_whole(step, claim)]
            if not whole and not _apart(step, claims):
                continue
            owners = [self._first(whole)] if whole else claims
            places = tuple(self._placed(c, stream_of(self.stream_name(c.name))) for c in owners)
            rest = f"{self.stream_name(owners[0].name)}/rest {owners[0].at}"
            owned[step] = Source(0, places[0].stream if whole and places[0].shown is None else stream_of(rest), places)
        return owned

    def _placed(self, claim: _Claim, stream: int) -> Place:
        view, seen = self._views[claim.name], self._seen(claim)
        elements = claim.value.origin if claim.value.copied else self._elements(claim)
        shown = None if seen == [claim.box] else tuple(seen)
        return Place(stream, view.shape, claim.box, elements, view.dtype, shown)

    def _free(self) -> dict[Step, Source]:
        """The sources of all other draws: the nth of a tensor has the stream of ``name/n``."""
        owned, free = self._given | self._owned(), dict[Step, Source]()
        for name, steps in self._replays():
            draws = [step for step in steps if is_random(step) and step not in owned and step not in free]
            called = self.stream_name(name)
            free |= {step: Source(0, stream_of(f"{called}/{n}")) for n, step in enumerate(draws)}
        return free


def _lies_among_values(parts: Sequence[tuple[Box, Value]]) -> bool:
    """Whether something that nobody has written has been mixed with values, or lies over some."""
    bare = [(at, box, value) for at, (box, value) in enumerate(parts) if isinstance(value, Nothing)]
    return any(
        value.mixed or any(not isinstance(under, Nothing) and intersection(box, b) is not None for b, under in parts[:at])
        for at, box, value in bare
    )


def _zeros_differ(entries: Sequence[Claimed]) -> bool:
    """Whether equal distributions are 0.0 and -0.0."""
    known = entries[0].distribution
    return isinstance(known, Constant) and known.value == 0 and len({str(entry.distribution) for entry in entries}) > 1


def _is_sum(parts: Sequence[tuple[Box, Value]], shape: tuple[int, ...]) -> bool:
    """Whether parts that together are a tensor lie side by side."""
    return sum(box.numel for box, _ in parts) == math.prod(shape)


def _apart(step: FillStep, claims: Sequence[_Claim]) -> bool:
    """Whether it is known which elements of the draw each claim has, and no two have one in common."""
    origins = [claim.value.origin for claim in claims]
    if len(claims) == 1:
        return origins[0] is not None
    frame = step.writes[0].geometry
    boxes = [origin and box_of(frame, origin) for origin in origins]
    known = [box for box in boxes if box is not None]
    return len(known) == len(claims) and are_apart(known)


def _fill_of(last: FillStep | ChangedFill) -> FillStep:
    """The fill that a plain memory holds, by the last of its steps."""
    return last.fill if isinstance(last, ChangedFill) else last
