"""The initial checkpoint of a plan as files, without a model and without ever being in memory.

Sits on ``regenerate``, which makes the values a chunk at a time, ``safetensors_file``, which writes them, and ``folder``, which
knows what else is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor

from .._version import __version__
from ..init.arguments import seed_of
from ..plans.entry import Entry
from ..plans.plan import PLAN, Plan
from ..tensors.kinds import FLAG, FUNCTION, NUMBER, PATH, globs, may_be, must_be
from .folder import INDEX, claimed, file_in, lone_file, make_room, older
from .regenerate import chunks, unknown
from .safetensors_file import Header, beginning, is_written, write_values

__all__ = ["export"]

SHARD_BYTES = 5 * 10**9  # as transformers shards


def export(
    plan: Plan,
    path: str | Path,
    *,
    seed: SupportsIndex | None = None,
    shard_bytes: int = SHARD_BYTES,
    names: str | Collection[str] | None = None,
    values: Callable[[str], Tensor] | None = None,
    progress: Callable[[int], object] = lambda _: None,
    overwrite: bool = False,
    also: Mapping[str, bytes] | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """Writes what ``plan.apply_`` would fill a model with, in safetensors, a chunk of some megabytes at a time.

    Of tied tensors the first name is written. Buffers that a model's own code computes are left to that code, unless ``values``
    gives them. A file takes its name when it is complete, and a folder gets its index last, so that nobody ever loads a part. A
    run that was ended in the middle is resumed by the same call: shards that are complete are kept.

    Args:
        plan: the plan; ``plan.with_dtype`` gives another dtype.
        path: a ``.safetensors`` file, or a folder for shards with ``model.safetensors.index.json``.
        seed: instead of the plan's.
        shard_bytes: size of a shard at most, unless one tensor is larger. For folders only.
        names: of the tensors to write; default all of the plan. A string is one name.
        values: gives tensors whose values the plan does not say, by name: ``recorded.values(model, seed)``.
        progress: called with the number of bytes after each chunk.
        overwrite: whether a checkpoint that is there is removed first, its index before all else.
        also: further files of the folder, by name.
        note: called with a sentence when the work of an earlier run is resumed, or begun again.

    Returns:
        The files written.

    Raises:
        ValueError: the plan does not say every value of some parameter (all of those are named), has not a name that is asked
            for, or safetensors has not its dtype or name; nothing is written then.
        FileExistsError: a checkpoint is there. BlockingIOError: another run is writing there.
    """
    must_be(PLAN, "export", plan=plan)
    must_be(PATH, "export", path=path)
    must_be(FUNCTION, "export", progress=progress, note=note)
    may_be(FUNCTION, "export", values=values)
    must_be(FLAG, "export", overwrite=overwrite)
    must_be(NUMBER, "export", shard_bytes=shard_bytes)
    if not os.fspath(path):
        raise ValueError("export: the name of a file or folder is required, got ''. '.' is the current folder.")
    path, seed = Path(path), plan.seed if seed is None else seed_of("export", seed)
    work = _Work(plan, seed, _names(plan, _chosen(plan, names), values is not None), values, progress)
    if path.suffix != ".safetensors":
        return _export_folder(work, path, shard_bytes, overwrite, also or {}, note)
    begins = work.beginning(work.names)
    with lone_file(path, overwrite) as (file, was_ended):
        if was_ended:
            note(f"restarts: a run that wrote {path.name} was ended in the middle")
        file.write(begins)
        write_values(file, work.made(work.names))
    return [path]


@dataclass(frozen=True)
class _Work:
    """What is written: tensors of a plan under a seed."""

    plan: Plan
    seed: int
    names: list[str]
    values: Callable[[str], Tensor] | None
    progress: Callable[[int], object]

    @cached_property
    def _metadata(self) -> dict[str, str]:
        """What a file says of itself. The digest is of all that decides values: shards of one are shards of the other."""
        digest = blake2b(self.plan.with_seed(self.seed).to_json().encode(), digest_size=16).hexdigest()
        own = {"weightinit_cuda": __version__, "weightinit_format": str(self.plan.format), "weightinit_plan": digest}
        return {"format": "pt", **own, "seed": str(self.seed)}

    def beginning(self, names: Sequence[str]) -> bytes:
        """The first bytes of a file of these tensors."""
        header: Header = {name: (self.plan[name][0].dtype, self.plan[name][0].shape) for name in names}
        return beginning(header, self._metadata)

    def size(self, names: Sequence[str]) -> int:
        """Bytes of values."""
        return sum(_size(self.plan, name) for name in names)

    def is_known(self, names: Sequence[str]) -> bool:
        """Whether the plan says all values of these tensors. Those that it does not say could be others today."""
        return not any(unknown(self.plan, name) for name in names)

    def write(self, file: Path, begins: bytes, names: Sequence[str], is_there: bool) -> None:
        """One file of a folder, if it is not there."""
        if is_there:
            self.progress(self.size(names))
            return
        with file_in(file) as target:
            target.write(begins)
            write_values(target, self.made(names))

    def made(self, names: Sequence[str]) -> Iterator[Tensor]:
        """The values, a piece at a time."""
        for name in names:
            if self.values is not None and unknown(self.plan, name):
                parts: Iterable[Tensor] = [self.values(name)]
            else:
                parts = (made for _, made in chunks(self.plan, name, seed=self.seed))
            for part in parts:
                yield part
                self.progress(part.nbytes)


def _export_folder(
    work: _Work, path: Path, shard_bytes: int, overwrite: bool, also: Mapping[str, bytes], note: Callable[[str], object]
) -> list[Path]:
    shards = _shards(work.plan, work.names, shard_bytes)
    files = [path / f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    places = {name: file.name for file, shard in zip(files, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": work.size(work.names)}, "weight_map": dict(sorted(places.items()))}
    begins = [work.beginning(shard) for shard in shards]
    also = {**also, INDEX: (json.dumps(index, indent=2) + "\n").encode()}  # the index is the last one
    path.mkdir(parents=True, exist_ok=True)
    with claimed(path) as claim:
        ours: dict[Path, list[str]] = {}  # what an earlier run of the same has written
        if claim.unfinished:
            ready = zip(files, begins, shards, strict=True)
            ours = {file: shard for file, begin, shard in ready if is_written(file, begin, work.size(shard))}
            ours |= {path / INDEX: []} if _holds(path / INDEX, also[INDEX]) else {}
        make_room(claim, [file for file in older(path) if file not in ours], overwrite, path)
        kept = [file for file in files if file in ours and work.is_known(ours[file])]
        if len(kept) < len(files):
            (path / INDEX).unlink(missing_ok=True)
        if claim.unfinished:
            what = f"{len(kept)} of {len(files)} shards are there"
            note(f"{'resumes' if kept else 'restarts'}: a run before this one was ended in the middle, {what}")
        for file, begin, shard in zip(files, begins, shards, strict=True):
            work.write(file, begin, shard, file in kept)
        for name, content in also.items():
            with file_in(path / name) as beside:
                beside.write(content)
    return [*files, *(path / name for name in also)]


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content


def _chosen(plan: Plan, names: str | Collection[str] | None) -> list[str]:
    """The names asked for, in the plan's order: of tied ones the first."""
    if names is None:
        return plan.names()
    wanted = globs("export", "names", names, "names of the plan")
    if lost := [name for name in wanted if name not in plan]:
        raise ValueError(
            f"export: names of the plan are required, got {', '.join(map(repr, lost[:5]))}. plan.names() lists them."
        )
    listed = {plan[name][0].name for name in wanted}
    return [name for name in plan.names() if name in listed]


def _names(plan: Plan, names: Sequence[str], all_known: bool) -> list[str]:
    """What is written, wider dtypes first; refuses parameters whose values nobody says."""
    made = [n for n in names if all_known or not _is_computed_buffer(plan[n])]
    if all_known:
        return sorted(made, key=lambda name: -plan[name][0].dtype.itemsize)
    if reasons := [f"{name}: {reason}" for name in made if (reason := unknown(plan, name))]:
        raise ValueError("\n  ".join(["export: the plan must say every value of every parameter, got some without.", *reasons]))
    return sorted(made, key=lambda name: -plan[name][0].dtype.itemsize)


def _is_computed_buffer(entries: Sequence[Entry]) -> bool:
    return entries[0].buffer and any(not entry.distribution.is_fill for entry in entries)


def _size(plan: Plan, name: str) -> int:
    entry = plan[name][0]
    return torch.Size(entry.shape).numel() * entry.dtype.itemsize


def _shards(plan: Plan, names: Sequence[str], limit: int) -> list[list[str]]:
    """The names in order, a new shard wherever the next tensor would not fit."""
    shards: list[list[str]] = [[]]
    full = 0
    for name in names:
        size = _size(plan, name)
        if shards[-1] and full + size > limit:
            shards.append([])
            full = 0
        shards[-1].append(name)
        full += size
    return shards
