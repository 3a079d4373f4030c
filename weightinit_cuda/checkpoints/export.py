"""The initial checkpoint of a plan as files, without a model and without ever being in memory.

Sits on ``regenerate``, which makes the values a chunk at a time, and ``files``, which knows the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor

from .._version import __version__
from ..init.arguments import seed_of
from ..plans.entry import Entry
from ..plans.plan import Plan
from .files import Header, write_safetensors
from .regenerate import chunks, unknown

__all__ = ["export"]

SHARD_BYTES = 5 * 10**9  # as transformers shards


def export(
    plan: Plan,
    path: str | Path,
    *,
    seed: SupportsIndex | None = None,
    shard_bytes: int = SHARD_BYTES,
    names: Collection[str] | None = None,
    values: Callable[[str], Tensor] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Writes what ``plan.apply_`` would fill a model with, in safetensors, a chunk of some megabytes at a time.

    Of tied tensors the first name is written. Buffers that a model's own code computes are left to that code, unless ``values``
    gives them.

    Args:
        plan: the plan; ``plan.with_dtype`` gives another dtype.
        path: a ``.safetensors`` file, or a folder for shards with ``model.safetensors.index.json``.
        seed: instead of the plan's.
        shard_bytes: size of a shard at most, unless one tensor is larger. For folders only.
        names: of the tensors to write; default all of the plan.
        values: gives tensors whose values the plan does not say, by name: ``recorded.values(model, seed)``.
        progress: called with the number of bytes after each chunk.

    Returns:
        The files written.

    Raises:
        ValueError: the plan does not say every value of some parameter (all of those are named), or safetensors has not its
            dtype; nothing is written then.
    """
    path, seed = Path(path), plan.seed if seed is None else seed_of("export", seed)
    chosen = _names(plan, plan.names() if names is None else [n for n in plan.names() if n in names], values is not None)
    metadata = {"format": "pt", "weightinit_cuda": __version__, "weightinit_format": str(plan.format), "seed": str(seed)}

    def write(file: Path, some: Sequence[str]) -> Path:
        write_safetensors(file, _header(plan, some), _values(plan, some, seed, values, progress), metadata)
        return file

    if path.suffix == ".safetensors":
        return [write(path, chosen)]
    path.mkdir(parents=True, exist_ok=True)
    shards = _shards(plan, chosen, shard_bytes)
    files = [path / f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    places = {name: file.name for file, shard in zip(files, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": sum(_size(plan, name) for name in chosen)}, "weight_map": dict(sorted(places.items()))}
    written = [write(file, shard) for file, shard in zip(files, shards, strict=True)]
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [*written, path / "model.safetensors.index.json"]


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


def _header(plan: Plan, names: Sequence[str]) -> Header:
    return {name: (plan[name][0].dtype, plan[name][0].shape) for name in names}


def _size(plan: Plan, name: str) -> int:
    entry = plan[name][0]
    return torch.Size(entry.shape).numel() * entry.dtype.itemsize


def _values(
    plan: Plan,
    names: Sequence[str],
    seed: int,
    values: Callable[[str], Tensor] | None,
    progress: Callable[[int], object],
) -> Iterator[Tensor]:
    for name in names:
        if values is not None and unknown(plan, name):
            parts: Iterable[Tensor] = [values(name)]
        else:
            parts = (made for _, made in chunks(plan, name, seed=seed))
        for part in parts:
            yield part
            progress(part.numel() * part.itemsize)


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
