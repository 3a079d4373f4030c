"""Checkpoints as files, read a part at a time.

Reads safetensors (one file, several, or an index of shards) and what ``torch.save`` wrote. Any file gets an answer, or is
refused by a ValueError, in a time that follows from its size: only regular files are opened, shards lie in the folder of their
index, and tensors have the memory that they show. Knows names, shapes, dtypes and bytes, nothing of plans. The safetensors
package is optional.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..engine.checks import is_virtual, lacks_memory
from ..plans.whole_file import read_whole
from ..tensors.kinds import short
from ..tensors.named import named_tensors
from ..tensors.shards import is_spread
from .folder import UNFINISHED, is_unfinished

__all__ = ["DTYPES", "Checkpoint", "Stored", "open_checkpoint"]

Slices = tuple[slice, ...]
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Checkpoint = Paths | Mapping[str, Tensor] | nn.Module


class Stored(NamedTuple):
    """One tensor of a checkpoint: ``read(slices)`` gives a part, and only that part is looked at.

    ``file`` is where it is stored, ``metadata`` what that file says of itself; both are empty for tensors in memory.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[Slices], Tensor]
    device: torch.device = torch.device("cpu")
    file: str = ""
    metadata: Mapping[str, str] = {}


# Source: safetensors' Dtype, https://github.com/huggingface/safetensors.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


# ---- reading --------------------------------------------------------------------------------------------------------


def open_checkpoint(source: Checkpoint) -> dict[str, Stored]:
    """The tensors of a checkpoint by name; their values are read when asked for.

    Args:
        source: a path or several (``.safetensors``, ``.safetensors.index.json``, a folder of these, or a file of
            ``torch.save``), a mapping of names to tensors, or a model.

    Raises:
        FileNotFoundError, ImportError, ValueError: nothing there, safetensors is not installed, or it is no checkpoint.
    """
    if isinstance(source, nn.Module):
        source = {name: n.tensor for n in named_tensors(source) for name in (n.name, *n.aliases)}
    if isinstance(source, Mapping):
        return _in_memory(source, "the mapping")
    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    if (
        not isinstance(paths, Sequence)
        or isinstance(paths, bytes)
        or not all(isinstance(one, (str, os.PathLike)) for one in paths)
    ):
        raise TypeError(f"checkpoint: a path or several, tensors by name, or a module are required, got {short(source)}.")
    found: dict[str, Stored] = {}
    for path in paths:
        _merge(found, _opened(Path(path)), path)
    return found


def _opened(path: Path) -> dict[str, Stored]:
    if not path.exists():
        raise FileNotFoundError(f"checkpoint: a file is required, got {path}, which does not exist.")
    if path.is_dir():
        return _folder(path)
    return _index(path) if path.name.endswith(".index.json") else _file(path)


def _file(path: Path) -> dict[str, Stored]:
    """A file with tensors, no folder and no index."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"checkpoint: a regular file is required, got {path}, which is none.")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return {name: one._replace(file=str(path)) for name, one in _in_memory(_state(path), str(path)).items()}


def _folder(path: Path) -> dict[str, Stored]:
    if is_unfinished(path):
        raise ValueError(
            f"checkpoint: a complete checkpoint is required, got {path}, into which a run is writing, or was ended while it did"
            f" ({UNFINISHED}). Run it again."
        )
    files = sorted(path.glob("*.safetensors"))
    if indexes := sorted(path.glob("*.safetensors.index.json")):
        _require_no_other(path, indexes, files)
        return open_checkpoint(indexes)
    if files:
        return open_checkpoint(files)
    raise FileNotFoundError(f"checkpoint: a folder with a .safetensors file or an index of them is required, got {path}.")


def _require_no_other(path: Path, indexes: Sequence[Path], files: Sequence[Path]) -> None:
    """Refuses files of a checkpoint beside the index of another one: loaders differ in which of the two they take."""
    listed = {name for index in indexes for name in _places(index).values()}
    for index in indexes:
        stem = index.name.removesuffix(".safetensors.index.json")
        like = re.compile(re.escape(stem) + r"(-\d+-of-\d+)?\.safetensors")
        if other := [file.name for file in files if like.fullmatch(file.name) and file.name not in listed]:
            raise ValueError(
                f"checkpoint: a folder must hold one checkpoint, got {', '.join(other[:5])} beside {index.name}, which does not"
                f" list them ({path}). Remove one, or name the file that you mean."
            )


def _index(path: Path) -> dict[str, Stored]:
    """The shards that an index names."""
    places = _places(path)
    stored: dict[str, Stored] = {}
    for file in sorted(set(places.values())):
        if not (path.parent / file).exists():
            raise FileNotFoundError(f"checkpoint: every shard of the index must be there, got none at {file} ({path}).")
        _merge(stored, _file(path.parent / file), file)
    if lost := sorted(places.keys() - stored.keys()):
        raise ValueError(
            f"checkpoint: the shards must have every name of the index, got none of {', '.join(lost[:5])} ({path})."
        )
    return stored


def _places(path: Path) -> dict[str, str]:
    """The files of an index by the names of their tensors: in its folder, by relative names."""
    try:
        places = json.loads(read_whole(path))["weight_map"]
        if not isinstance(places, dict):
            raise TypeError(f"a {type(places).__name__}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f'checkpoint: an index with a "weight_map" is required, got {error!r:.200} ({path}).') from error
    for file in places.values():
        parts = PurePath(file).parts if isinstance(file, str) else ()
        if not parts or PurePath(file).is_absolute() or ".." in parts or "\0" in file or file.endswith(".index.json"):
            raise ValueError(f"checkpoint: an index must name files with tensors in its folder, got {file!r:.200} ({path}).")
    return places


def _merge(found: dict[str, Stored], more: Mapping[str, Stored], where: object) -> None:
    if twice := sorted(found.keys() & more.keys()):
        raise ValueError(f"checkpoint: every name must be in one file, got {', '.join(twice[:5])} twice ({where}).")
    found.update(more)


def _safetensors(path: Path) -> dict[str, Stored]:
    opened = _Opened(path)
    metadata = opened.file.metadata() or {}
    stored = {}
    for name in opened.file.keys():  # noqa: SIM118, it is no mapping
        part = opened.file.get_slice(name)
        if part.get_dtype() not in DTYPES:
            raise ValueError(f"checkpoint: a dtype of torch is required, got {part.get_dtype()} ({name}, {path}).")
        shape, dtype = tuple(part.get_shape()), DTYPES[part.get_dtype()]
        stored[name] = Stored(shape, dtype, partial(opened.read, name), file=str(path), metadata=metadata)
    return stored


class _Opened:
    """A file of safetensors, mapped anew now and then: what was read does not stay in memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.file, self._read = path, _safe_open(path), 0

    def read(self, name: str, slices: Slices) -> Tensor:
        """A part of a tensor."""
        if self._read > _MAPPED:
            self.file, self._read = _safe_open(self.path), 0
        tensor: Tensor = self.file.get_slice(name)[slices] if slices else self.file.get_tensor(name)
        self._read += tensor.nbytes
        return tensor


_MAPPED = 1 << 23  # bytes that stay mapped after they were read; small tensors share one reading of the header


def _safe_open(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(
            f"checkpoint: reading {path} requires safetensors. pip install 'weightinit_cuda[checkpoint]'"
        ) from error
    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise ValueError(f"checkpoint: a safetensors file is required, got {error} ({path}).") from error


def _state(path: Path) -> Mapping[str, Tensor]:
    """A state dict that ``torch.save`` wrote, also one level down (``{"model": ...}``). Mapped, if the format allows it."""
    try:
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of bytes that are no pickle, anything
        said = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueError(f"checkpoint: a file of safetensors or torch.save is required, got {said} ({path}).") from error
    for key in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping):
        raise ValueError(f"checkpoint: tensors by name are required, got {type(data).__name__} ({path}).")
    small = [name for name, one in data.items() if isinstance(one, Tensor) and _is_larger_than_its_memory(one)]
    if small:  # a file of a kilobyte could have a tensor of a petabyte
        raise ValueError(f"checkpoint: a tensor in a file must have all its elements, got {_first(small)} expanded ({path}).")
    return data


def _is_larger_than_its_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta and tensor.nbytes > tensor.untyped_storage().nbytes()


def _in_memory(tensors: Mapping[str, Tensor], where: str) -> dict[str, Stored]:
    if strange := [name for name in tensors if not isinstance(name, str)]:
        raise ValueError(f"checkpoint: names must be text, got {_first(strange)} ({where}).")
    if wrong := [name for name, tensor in tensors.items() if not _is_readable(tensor)]:
        raise ValueError(f"checkpoint: every value must be a strided tensor with memory, got {_first(wrong)} ({where}).")
    if sharded := [name for name, tensor in tensors.items() if is_spread(tensor)]:
        raise NotImplementedError(
            f"checkpoint: whole tensors are required, got parts (DTensors, ZeRO-3): {_first(sharded)} ({where})."
            " Compare fingerprints."
        )
    return {
        name: Stored(tuple(tensor.shape), tensor.dtype, tensor.detach().__getitem__, tensor.device)
        for name, tensor in tensors.items()
    }


def _is_readable(tensor: object) -> bool:
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or is_virtual(tensor):
        return False
    return is_spread(tensor) or not lacks_memory(tensor)


def _first(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:5]))
