"""Plans: what every parameter of a model is filled with, as data that can be read, compared, saved and applied.

A :class:`Plan` is made by rules (``by_rules``) or by recording a model's own code (``deferred``). It knows names, shapes and
distributions but holds no tensor, so it can fill any model of the same shape, all of a checkpoint, or one shard. Applying it is
one call of the engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar, cast

import torch
from torch import Tensor

from .. import engine
from .._version import FORMAT, __version__
from ..engine.job import FillJob
from ..init.arguments import seed_of
from ..numerics.combine import STORE
from ..numerics.distributions import Distribution
from ..tensors.boxes import Box, Region, intersection, visible
from ..tensors.kinds import MODEL, PATH, TENSORS, ArgumentKind, must_be
from ..tensors.named import PLAIN_TYPES, Model, Named, alike, named_tensors
from ..tensors.shards import Part, mark_written, parts_to_write
from .bound import Bound
from .buffers import fill_and_recompute, must_recompute, way_off_meta
from .checks import require_sound, shown
from .entry import Entry, as_line, as_text, read_entries
from .reading import Readable
from .whole_file import read_whole, write_whole

__all__ = ["PLAN", "Entry", "Plan"]

SCHEMA = 1  # of the file. A reader refuses any other
Module = TypeVar("Module", bound=Model)
_new = tuple.__new__  # what a NamedTuple's name calls, in half the time: a model has thousands of tensors
Held = Tensor | Sequence[Part]  # all that this rank holds of a tensor, or just the parts that are wanted
_COMPARED = ("name", "shape", "dtype", "aliases")
LocalFill = tuple[Entry, Tensor, Region | None]  # an entry, the local memory that it fills, and where that lies


@dataclass(frozen=True)
class Plan(Readable):
    """An immutable list of fills with the seed that all of them use.

    ``print(plan)`` is a table, in a notebook, too; ``len``, iteration
    and ``plan[name]`` (a list of entries: most names have one) look inside.

    Args:
        entries: the fills.
        seed: 64 bits, the key of the generator.
        rules: where they come from: the name of a rule set, "custom", or "deferred".
        format: of the values (`docs/numerics.md`).
        version: of the library that made the plan.

    Raises:
        ValueError: an entry that no tensor can be filled by, or entries that do not agree about a tensor; it is named.
    """

    entries: tuple[Entry, ...]
    seed: int = 0
    rules: str = "custom"
    format: int = FORMAT
    version: str = field(default=__version__, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", seed_of("Plan", self.seed))
        object.__setattr__(self, "entries", require_sound(self.entries))
        if self.format != FORMAT or type(self.format) is not int:
            raise ValueError(f"Plan: format must be {FORMAT}, the values of this library, got {self.format!r}.")
        if not (isinstance(self.rules, str) and isinstance(self.version, str)):
            raise ValueError(f"Plan: rules and version must be text, got {shown(self.rules)} and {shown(self.version)}.")

    @cached_property
    def _by_name(self) -> dict[str, list[Entry]]:
        by_name: dict[str, list[Entry]] = {}
        for entry in self.entries:
            by_name.setdefault(entry.name, []).append(entry)
        return by_name

    @cached_property
    def _names(self) -> dict[str, str]:
        """Every name and alias, with the name it is listed under."""
        return {alias: entry.name for entry in self.entries for alias in (entry.name, *entry.aliases)}

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> list[Entry]:
        """The entries of a tensor, by any of its names.

        Raises:
            KeyError: no entry has that name.
        """
        if name not in self._names:
            raise KeyError(f"plan: a name of the plan is required, got {name!r}. plan.names() lists them.")
        return list(self._by_name[self._names[name]])

    def names(self) -> list[str]:
        """The tensors' names in order, each once, without aliases."""
        return list(self._by_name)

    def with_seed(self, seed: SupportsIndex) -> Plan:
        """The same plan under another seed."""
        return replace(self, seed=seed_of("with_seed", seed))

    def with_dtype(self, dtype: torch.dtype) -> Plan:
        """The same plan with every floating-point parameter in another dtype; float32 and narrower values are then roundings
        of the same numbers.

        Raises:
            TypeError, ValueError: it is no dtype, no floating-point one, or one that some entry cannot be made in.
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            kind = ValueError if isinstance(dtype, torch.dtype) else TypeError
            raise kind(f"with_dtype: a floating-point dtype is required, got {dtype!r}. For example torch.bfloat16.")
        entries = (e._replace(dtype=dtype) if e.dtype.is_floating_point else e for e in self.entries)
        return replace(self, entries=tuple(entries))

    # ---- filling ----------------------------------------------------------------------------------------------------

    def apply_(self, model: Module, *, seed: SupportsIndex | None = None, buffers: str = "keep") -> Module:
        """Fills the model in place: one pass over all CPU tensors, and on each GPU one launch for each
        size of an element.

        Of a DTensor each rank fills its own shard, without communication. Computed entries are left as they are, and so are
        buffers without an entry.

        Args:
            model: a module, or its tensors by name. It has every name of the plan and no parameter more, in the same shapes and
                dtypes, on any devices; what has no elements may be missing in either.
            seed: instead of the plan's.
            buffers: what becomes of those that fills do not decide wholly, as for :func:`.initialize_`; "keep" or "recompute".

        Returns:
            The model.

        Raises:
            ValueError: names, shapes or dtypes differ, memory is missing, a buffer cannot be recomputed; nothing is written.
        """
        must_be(MODEL, "apply_", model=model)
        recompute, named = must_recompute("apply_", buffers), named_tensors(model)
        if not recompute and self._whole_fills[0] and (whole := self._plain_alike(named)):
            self._fill_whole(whole, seed)
            return model
        tensors = self.matched("apply_", named)
        if recompute:
            fill_and_recompute("apply_", self, model, named, tensors, seed)
        else:
            self.fill_(tensors, seed=seed)
        return model

    def matched(self, function: str, named: Sequence[Named]) -> dict[str, Tensor]:
        """The model's tensors by the names that the plan lists them under."""
        if found := alike(list(named), self._names, *self._columns):
            return dict(zip(self._columns[0], found, strict=True))
        if problems := list(self._problems(named)):
            raise ValueError(
                "\n  ".join(
                    [
                        f"{function}: the model must fit the plan, got {len(problems)} differences.",
                        *problems,
                        *way_off_meta(function, named, self._names),
                    ]
                )
            )
        return {self._names[name]: n.tensor for n in named for name in (n.name, *n.aliases) if name in self._names}

    def _plain_alike(self, named: list[Named]) -> list[Tensor] | None:
        """The model's tensors, if they are those of the plan in its order, and plain."""
        found = alike(named, self._names, *self._columns)
        return found if found and PLAIN_TYPES.issuperset(map(type, found)) else None

    @cached_property
    def _columns(self) -> tuple[tuple[Any, ...], ...]:
        """Names, shapes, dtypes and aliases of its tensors."""
        first = [entries[0] for entries in self._by_name.values()]
        return tuple(tuple(map(itemgetter(field), first)) for field in map(Entry._fields.index, _COMPARED))

    def bind(self, model: Model) -> Callable[..., None]:
        """The plan bound to a model's memory, for filling it many times: restarts, ensembles, one seed after another.

        Everything that does not depend on the seed is done here; a model of 500 small tensors is then filled in less time than
        it takes to walk through it.

        Args:
            model: as for :meth:`apply_`. A tensor that gets other memory later is noticed.

        Returns:
            A function ``fill(seed=None)``: as ``plan.apply_(model, seed=seed)``, for the tensors that the model has now.

        Raises:
            ValueError: as :meth:`apply_`.

        >>> import torch, weightinit_cuda as wi
        >>> net = torch.nn.Linear(4, 4)
        >>> fill = wi.plan(net, "xavier").bind(net)
        >>> fill(seed=3)
        >>> torch.equal(net.weight, wi.plan(net, "xavier", seed=3).apply_(torch.nn.Linear(4, 4)).weight)
        True
        """
        must_be(MODEL, "bind", model=model)

        def now() -> Bound:
            tensors = self.matched("bind", named_tensors(model))
            return Bound(tensors, self._jobs(tensors, self.seed))

        bound = now()

        def fill(seed: SupportsIndex | None = None) -> None:
            nonlocal bound
            key = self.seed if seed is None else seed_of("fill", seed)
            if bound.places != bound.places_now():
                bound = now()
            bound.run(key)

        return fill

    def _problems(self, named: Sequence[Named]) -> Iterator[str]:
        """What keeps the plan from being applied, a line each."""
        seen = set()
        for tensor in named:
            listed = {self._names[name] for name in (tensor.name, *tensor.aliases) if name in self._names}
            seen |= listed
            if not listed and not tensor.buffer and tensor.tensor.numel():
                yield f"{tensor.name}: a parameter that the plan does not have. Add a rule for it."
            if len(listed) > 1:
                yield f"{tensor.name}: tied in the model, but the plan has {', '.join(sorted(listed))} apart."
            for name in listed:
                yield from misfits(tensor, self._by_name[name][0])
            if tensor.tensor.is_meta:
                yield f"{tensor.name}: on meta, without memory."
        for name in [name for name in self._by_name if name not in seen and not self._is_empty(name)]:
            yield f"{name}: in the plan, but not in the model."

    def jobs(self, tensors: Mapping[str, Tensor], *, seed: SupportsIndex | None = None) -> list[FillJob]:
        """The plan's fills of these tensors, without overlap. Tensors that the mapping lacks, and entries that are no fill, are
        left out.

        Args:
            tensors: by the names the plan lists them under; of the plan's shapes, or DTensors of it.
            seed: instead of the plan's.
        """
        must_be(TENSORS, "jobs", tensors=tensors)
        return self._jobs(tensors, self.seed if seed is None else seed_of("jobs", seed))

    def fill_(self, tensors: Mapping[str, Held], *, seed: SupportsIndex | None = None) -> None:
        """As :meth:`apply_`, of the tensors (or parts of them) of a mapping only, which are not checked against the plan."""
        if whole := self._all_whole(tensors):
            self._fill_whole(whole, seed)
            return
        engine.fill(self._jobs(tensors, self.seed if seed is None else seed_of("fill_", seed)))
        if not PLAIN_TYPES.issuperset(map(type, tensors.values())):
            for tensor in tensors.values():
                if isinstance(tensor, Tensor):
                    mark_written(tensor)

    def _fill_whole(self, tensors: list[Tensor], seed: SupportsIndex | None) -> None:
        names, distributions, streams = self._whole_fills
        engine.fill_whole(tensors, distributions, self.seed if seed is None else seed_of("fill_", seed), streams, names)

    def _jobs(self, tensors: Mapping[str, Held], seed: int) -> list[FillJob]:
        """Every fill of local memory, without what only the model's own code makes."""
        names, distributions, streams = self._whole_fills
        if whole := self._all_whole(tensors):  # most models: no line of Python for each tensor
            fields = zip(whole, distributions, repeat(seed), streams, repeat(None), names, repeat(STORE), strict=False)
            return list(map(_new, repeat(FillJob), fields))
        jobs = []
        for name, entries in self._by_name.items():
            if (held := tensors.get(name)) is None:
                continue
            entry = entries[0]
            if len(entries) == 1 and entry.box is None and type(held) in PLAIN_TYPES:  # most of most models
                if entry.distribution.is_fill:
                    jobs.append(_new(FillJob, (held, entry.distribution, seed, entry.stream, None, name, STORE)))
                continue
            jobs += [
                FillJob(part, entry.distribution, seed, entry.stream, region, name)
                for entry, part, region in self._local_fills(name, held)
                if entry.distribution.is_fill
            ]
        return jobs

    def _all_whole(self, tensors: Mapping[str, Held]) -> list[Tensor] | None:
        """The tensors of the plan if all are there, plain, and filled as a whole; None if not, or if there are none."""
        whole = list(map(tensors.get, self._whole_fills[0]))
        return cast("list[Tensor]", whole) if whole and PLAIN_TYPES.issuperset(map(type, whole)) else None

    @cached_property
    def _whole_fills(self) -> tuple[list[str], list[Distribution], list[int]]:
        """Names, distributions and streams if every tensor has one fill of all of it; else nothing."""
        entries = [entries[0] for entries in self._by_name.values() if len(entries) == 1]
        if len(entries) < len(self._by_name) or any(e.box is not None or not e.distribution.is_fill for e in entries):
            return [], [], []
        return list(self._by_name), [e.distribution for e in entries], [e.stream for e in entries]

    def _local_fills(self, name: str, held: Held) -> Iterator[LocalFill]:
        """The entries of a tensor with the local memory that each fills: what later entries take is cut out, and what other
        ranks hold."""
        entries = self._by_name[name]
        local = parts_to_write(held, "apply_") if isinstance(held, Tensor) else held
        if len(entries) == 1 and entries[0].box is None:
            yield from ((entries[0], *part) for part in local)
            return
        whole = Box.whole(entries[0].shape)
        for entry, left in self.shares(name):
            yield from ((entry, *found) for box in left for part in local if (found := _local_fill(part, box, whole)))

    def shares(self, name: str) -> list[tuple[Entry, list[Box]]]:
        """Each entry of a tensor with the boxes that it decides: what no later entry takes.

        Raises:
            ValueError: the boxes cut each other into too many parts.
        """
        entries = self[name]
        if entries[0].name not in self._shares:
            try:
                boxes = visible([entry.box or Box.whole(entry.shape) for entry in entries])
            except ValueError as error:
                raise ValueError(f"plan: {error} ({name})") from None
            self._shares[entries[0].name] = list(zip(entries, boxes, strict=True))
        return self._shares[entries[0].name]

    @cached_property
    def _shares(self) -> dict[str, list[tuple[Entry, list[Box]]]]:
        return {}

    # ---- reading ----------------------------------------------------------------------------------------------------

    def diff(self, other: Plan) -> list[str]:
        """What another plan has differently, a line each; an empty list if both give every tensor the same values.

        >>> import torch, weightinit_cuda as wi
        >>> a = wi.plan(torch.nn.Linear(2, 2), "xavier", seed=0)
        >>> a.diff(a.with_seed(1))
        ['seed: 0 -> 1']
        """
        must_be(PLAN, "diff", other=other)
        found = [
            f"{key}: {mine} -> {theirs}"
            for key in ("format", "seed")
            if (mine := getattr(self, key)) != (theirs := getattr(other, key))
        ]
        for name in dict.fromkeys([*self._by_name, *other._by_name]):
            mine, theirs = (_values(p._by_name.get(name, ())) for p in (self, other))
            if mine != theirs and not (self._is_empty(name) and other._is_empty(name)):
                found.append(f"{name}: {mine or 'missing'} -> {theirs or 'missing'}")
        return found

    def _is_empty(self, name: str) -> bool:
        """Whether the plan says nothing about any element of that name."""
        return 0 in self._by_name[name][0].shape if name in self._by_name else True

    def to_json(self) -> str:
        """The plan as text, a line of the file for each of the plan: JSON with schema, format, library version and seed."""
        head = {"schema": SCHEMA, "library": "weightinit_cuda", "version": self.version, "format": self.format}
        text = as_text(head | {"rules": self.rules, "seed": self.seed}, indent=1)
        return text.removesuffix("\n}") + ',\n "entries": [' + ",".join(f"\n  {as_line(e)}" for e in self) + "\n ]\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "text") -> Plan:
        """The plan that :meth:`to_json` wrote.

        Raises:
            ValueError: it is no plan, or one of another schema or format; the entry is named.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict):
                raise ValueError(f"an object is required, got a {type(data).__name__}")
            for key, known in (("library", "weightinit_cuda"), ("schema", SCHEMA), ("format", FORMAT)):
                if data.get(key) != known or type(data[key]) is not type(known):
                    raise ValueError(f"{key} {known!r} is required, got {shown(data.get(key))}")
            return cls(tuple(read_entries(data["entries"])), data["seed"], data["rules"], data["format"], data["version"])
        except (ValueError, LookupError, TypeError, RecursionError, MemoryError) as error:
            what = (f"no {error}" if isinstance(error, LookupError) else str(error).rstrip("."))[:500]
            raise ValueError(f"Plan.load: a plan of this library is required, got {what} ({where}).") from error

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON. The file is there whole or not at all; one that was there stays until then."""
        must_be(PATH, "save", path=path)
        write_whole(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a plan that :meth:`save` wrote.

        Raises:
            ValueError: it is no plan, or one of another schema or format; the message says where.
        """
        must_be(PATH, "Plan.load", path=path)
        return cls.from_json(read_whole(path), str(path))


PLAN = ArgumentKind((Plan,), "a plan")


def misfits(tensor: Named, entry: Entry) -> Iterator[str]:
    """What a tensor has differently from its entry, in words."""
    if tensor.tensor.shape != entry.shape:
        yield f"{tensor.name}: shape {tuple(tensor.tensor.shape)}, but {entry.shape} in the plan."
    if tensor.tensor.dtype != entry.dtype:
        yield f"{tensor.name}: {tensor.tensor.dtype}, but {entry.dtype} in the plan. plan.with_dtype() changes it."


def _local_fill(part: Part, box: Box, whole: Box) -> tuple[Tensor, Region | None] | None:
    """The local memory of a box, and where it lies; None if this part of the tensor has none of it."""
    local, region = part
    if box == whole:
        return part
    mine = whole if region is None else Box(region.offset, tuple(local.shape))
    common = intersection(box, mine)
    return common and (local.detach()[common.slices(mine.offset)], Region(whole.shape, common.offset))


def _values(entries: Sequence[Entry]) -> str:
    """What decides the values of a tensor."""
    return "; ".join(
        f"{e.distribution} in {e.box or 'all'} of {tuple(e.shape)}, {e.dtype}, stream {e.stream:#018x}" for e in entries
    )
