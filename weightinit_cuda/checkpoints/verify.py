"""Does a checkpoint hold the initial values of a plan, bit for bit? And if not, where not.

Sits on ``regenerate``, which makes the values, and ``files``, which reads the others; both a chunk at a time, so a large
checkpoint needs little memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, SupportsIndex

import torch
from torch import Tensor

from .._version import FORMAT
from ..init.arguments import seed_of
from ..plans.plan import PLAN, Plan
from ..plans.table import html_table, visible
from ..tensors.kinds import FUNCTION, globs, may_be, must_be
from .files import Checkpoint, Stored, open_checkpoint
from .regenerate import chunks, unknown

__all__ = ["Finding", "Report", "verify"]

Status = Literal["equal", "differs", "shape", "dtype", "missing", "extra", "absent", "unchecked", "seed"]
Expected = Iterable[tuple[tuple[slice, ...], Tensor]]  # parts of a tensor with their places
HEADERS = ("tensor", "status", "elements", "differing", "first at", "")
GOOD: frozenset[Status] = frozenset(("equal", "absent", "unchecked"))


class Finding(NamedTuple):
    """What was found about one name.

    Args:
        name: of the checkpoint, or of the plan where the checkpoint does not have it; of a file where that is meant.
        status: "equal", "differs" (in bits), other "shape" or "dtype"; "missing" (a parameter) or "absent" (a
            buffer, or without elements: not every one is saved) in the checkpoint, "extra" in it; "unchecked" where the model's
            own code computes the values; "seed" where a file says that it was written with another seed or format.
        elements: how many the tensor has.
        differing: how many of them differ.
        first: index of the first one that differs.
        note: what else there is to say.
    """

    name: str
    status: Status
    elements: int = 0
    differing: int = 0
    first: tuple[int, ...] | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All findings; ``report.ok`` if something was compared, and nothing differs, is missing or too much. ``print(report)``
    shows what is not equal."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return self.counts["equal"] > 0 and all(finding.status in GOOD for finding in self.findings)

    @property
    def counts(self) -> Counter[Status]:
        """How many names have each status."""
        return Counter(finding.status for finding in self.findings)

    def table(self, everything: bool = False) -> Any:
        """The findings as a ``rich`` table: those that are not equal, or all."""
        from rich import box
        from rich.table import Table

        made = Table(title=self.summary(), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for header in HEADERS:
            made.add_column(header, justify="right" if header in ("elements", "differing") else "left", overflow="fold")
        for row in self._rows(everything):
            made.add_row(*map(visible, row))
        return made

    def _rows(self, everything: bool) -> Iterator[tuple[str, ...]]:
        for f in self.findings:
            if everything or f.status != "equal":
                differing = f"{f.differing:,}" if f.differing else ""
                yield f.name, f.status, f"{f.elements:,}", differing, "" if f.first is None else str(f.first), f.note

    def _repr_html_(self) -> str:
        return html_table(self.summary(), HEADERS, list(self._rows(False)))

    def summary(self) -> str:
        """One line: ``2 tensors: 1 equal, 1 differs``."""
        found = [f"{count} {status}" for status, count in self.counts.items()]
        compared = self.counts["equal"] or self.counts["differs"]
        return f"{len(self.findings)} tensors: " + ", ".join(found if compared else [*found, "nothing was compared"])

    def __str__(self) -> str:
        from rich.console import Console

        if all(finding.status == "equal" for finding in self.findings):
            return self.summary()
        text = StringIO()
        Console(file=text, width=160, color_system=None, markup=False, highlight=False, emoji=False).print(self.table())
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def verify(
    plan: Plan,
    checkpoint: Checkpoint,
    *,
    seed: SupportsIndex | None = None,
    ignore: str | Sequence[str] = (),
    values: Callable[[str], Tensor] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Report:
    """Compares every tensor of a checkpoint with the initial values that the plan gives it, bit by bit.

    Both are looked at some megabytes at a time. Tied tensors are compared under each name that the checkpoint has.

    Args:
        plan: the plan; ``plan.with_dtype`` for a checkpoint in another dtype.
        checkpoint: a path or several (``.safetensors``, an index of shards, a folder, a file of ``torch.save``), tensors by
            name, or a model.
        seed: instead of the plan's.
        ignore: globs of names that do not matter, on either side. A string is one glob.
        values: gives tensors whose values the plan does not say, by name: ``recorded.values(model, seed)``. Without it they are
            "unchecked".
        progress: called with the number of elements after each chunk.

    Returns:
        A :class:`Report`; ``ok`` if every parameter of the plan is there and equal, and nothing else is. Nothing compared is
        never ok.

    Raises:
        FileNotFoundError, ImportError, ValueError: the checkpoint cannot be read, or a run of ``init`` has not completed it;
            nothing was compared.
        TypeError: ``ignore`` is something else.

    >>> import torch, weightinit_cuda as wi
    >>> net = torch.nn.Linear(3, 2)
    >>> plan = wi.plan(net, rules="kaiming", seed=0)
    >>> print(wi.verify(plan, plan.apply_(net)))
    2 tensors: 2 equal
    >>> _ = net.weight.data[1].neg_()
    >>> wi.verify(plan, net).findings[0]
    Finding(name='weight', status='differs', elements=6, differing=3, first=(1, 0), note='')
    """
    must_be(PLAN, "verify", plan=plan)
    must_be(FUNCTION, "verify", progress=progress)
    may_be(FUNCTION, "verify", values=values)
    ignored = globs("verify", "ignore", ignore)
    opened = open_checkpoint(checkpoint)
    stored = {name: tensor for name, tensor in opened.items() if not _matches(name, ignored)}
    names = [name for name in plan.names() if not _matches(name, ignored)]

    def expected(name: str) -> Expected:
        if values is not None and unknown(plan, name):
            return [(tuple(slice(0, size) for size in plan[name][0].shape), values(plan[name][0].name))]
        return chunks(plan, name, seed=seed)

    findings = [finding for name in names for finding in _findings(plan, name, stored, expected, values is not None, progress)]
    sizes = {name: torch.Size(one.shape).numel() for name, one in stored.items() if name not in plan}
    extra = [Finding(name, "extra", size) for name, size in sizes.items() if size]
    other = _of_other_runs(opened.values(), plan.seed if seed is None else seed_of("verify", seed))
    return Report((*findings, *extra, *other))


def _of_other_runs(stored: Iterable[Stored], seed: int) -> Iterator[Finding]:
    """The files that say they were written by this library with another seed, or in another format of values."""
    for file, metadata in {one.file: one.metadata for one in stored if "weightinit_cuda" in one.metadata}.items():
        written = metadata.get("seed"), metadata.get("weightinit_format")
        if written != (str(seed), str(FORMAT)):
            yield Finding(
                PurePath(file).name,
                "seed",
                note=f"written with seed {written[0]} in format {written[1]}, not {seed} and {FORMAT}",
            )


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _present(plan: Plan, name: str, stored: Mapping[str, Stored]) -> list[str]:
    """The names of one tensor of the plan that the checkpoint has."""
    names = dict.fromkeys((name, *(alias for entry in plan[name] for alias in entry.aliases)))
    return [alias for alias in names if alias in stored]


def _findings(
    plan: Plan,
    name: str,
    stored: Mapping[str, Stored],
    expected: Callable[[str], Expected],
    all_known: bool,
    progress: Callable[[int], object],
) -> Iterator[Finding]:
    """What is found about one tensor of the plan, under each name that it has in the checkpoint."""
    entry = plan[name][0]
    elements = torch.Size(entry.shape).numel()
    there = _present(plan, name, stored)
    if not there:
        yield Finding(name, "absent" if entry.buffer or not elements else "missing", elements)
    reason = "" if all_known else unknown(plan, name)
    for alias in there:
        tensor = stored[alias]
        if tuple(tensor.shape) != tuple(entry.shape):
            yield Finding(alias, "shape", elements, note=f"{tensor.shape}, in the plan {entry.shape}")
        elif tensor.dtype != entry.dtype:
            yield Finding(alias, "dtype", elements, note=f"{tensor.dtype}, in the plan {entry.dtype}")
        elif reason:
            yield Finding(alias, "unchecked", elements, note=reason)
        else:
            yield _compared(plan, alias, tensor, expected(alias), progress)


def _compared(plan: Plan, name: str, stored: Stored, expected: Expected, progress: Callable[[int], object]) -> Finding:
    elements, differing, first = 0, 0, None
    for index, values in expected:
        count, position = _differing(stored.read(index), values.to(stored.device))
        if count and first is None:
            first = tuple(at + s.start for at, s in zip(_unravelled(position, values.shape), index, strict=True))
        elements, differing = elements + values.numel(), differing + count
        progress(values.numel())
    linear_algebra = differing and any(entry.distribution.linear_algebra for entry in plan[name])
    note = "orthogonal: its QR may differ between machines" if linear_algebra else ""
    return Finding(name, "differs" if differing else "equal", elements, differing, first, note)


def _differing(one: Tensor, other: Tensor) -> tuple[int, int]:
    """How many elements differ in any bit, and the row-major position of the first."""
    a, b = (t.resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8) for t in (one, other))
    if torch.equal(a, b):
        return 0, 0
    places = (a != b).view(-1, one.itemsize).any(1)
    return int(places.sum()), int(places.to(torch.uint8).argmax())


def _unravelled(position: int, shape: Sequence[int]) -> tuple[int, ...]:
    index: list[int] = []
    for size in reversed(shape):
        position, at = divmod(position, size)
        index.insert(0, at)
    return tuple(index)
