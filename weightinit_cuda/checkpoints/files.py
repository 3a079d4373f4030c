"""Checkpoints as files: read a part at a time, written from beginning to end without ever being in memory.

Reads safetensors (one file, several, or an index of shards) and what ``torch.save`` wrote; writes safetensors. Knows names,
shapes, dtypes and bytes, nothing of plans. The safetensors package is optional, and needed for reading only.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from ..tensors.named import named_tensors
from ..tensors.shards import is_dtensor

__all__ = ["Checkpoint", "Header", "Stored", "open_checkpoint", "write_safetensors"]

Slices = tuple[slice, ...]
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Checkpoint = Paths | Mapping[str, Tensor] | nn.Module
Header = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Names with dtype and shape, in the order in which their values come."""


class Stored(NamedTuple):
    """One tensor of a checkpoint: ``read(slices)`` gives a part, and only that part is looked at."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[Slices], Tensor]
    device: torch.device = torch.device("cpu")


# Source: safetensors' Dtype, https://github.com/huggingface/safetensors.
_DTYPES = {
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
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


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
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    found: dict[str, Stored] = {}
    for path in paths:
        stored = _opened(Path(path))
        if twice := sorted(found.keys() & stored.keys()):
            raise ValueError(f"checkpoint: every name must be in one file, got {', '.join(twice[:5])} twice ({path}).")
        found |= stored
    return found


def _opened(path: Path) -> dict[str, Stored]:
    if not path.exists():
        raise FileNotFoundError(f"checkpoint: a file is required, got {path}, which does not exist.")
    if path.is_dir():
        return _folder(path)
    if path.name.endswith(".index.json"):
        return _index(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return _in_memory(_state(path), str(path))


def _folder(path: Path) -> dict[str, Stored]:
    for pattern in ("*.safetensors.index.json", "*.safetensors"):
        if files := sorted(path.glob(pattern)):
            return open_checkpoint(files)
    raise FileNotFoundError(f"checkpoint: a folder with a .safetensors file or an index of them is required, got {path}.")


def _index(path: Path) -> dict[str, Stored]:
    """The shards that an index names."""
    try:
        places: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        stored = open_checkpoint([path.parent / file for file in sorted(set(places.values()))])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'checkpoint: an index with a "weight_map" is required, got {error!r} ({path}).') from error
    if lost := sorted(places.keys() - stored.keys()):
        raise ValueError(
            f"checkpoint: the shards must have every name of the index, got none of {', '.join(lost[:5])} ({path})."
        )
    return stored


def _safetensors(path: Path) -> dict[str, Stored]:
    stored = {}
    with _safe_open(path) as file:
        for name in file.keys():  # noqa: SIM118, it is no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise ValueError(f"checkpoint: a dtype of torch is required, got {part.get_dtype()} ({name}, {path}).")
            stored[name] = Stored(tuple(part.get_shape()), _DTYPES[part.get_dtype()], partial(_read, path, name))
    return stored


def _read(path: Path, name: str, slices: Slices) -> Tensor:
    """A part of a tensor. The file is mapped anew each time: what was read does not stay in memory."""
    with _safe_open(path) as file:
        tensor: Tensor = file.get_slice(name)[slices] if slices else file.get_tensor(name)
    return tensor


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
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise ValueError(f"checkpoint: a file of safetensors or torch.save is required, got {error} ({path}).") from error
    for key in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping):
        raise ValueError(f"checkpoint: tensors by name are required, got {type(data).__name__} ({path}).")
    return data


def _in_memory(tensors: Mapping[str, Tensor], where: str) -> dict[str, Stored]:
    wrong = [n for n, t in tensors.items() if not isinstance(t, Tensor) or t.layout is not torch.strided or t.is_meta]
    if wrong:
        raise ValueError(f"checkpoint: every value must be a strided tensor with memory, got {', '.join(wrong[:5])} ({where}).")
    if sharded := [name for name, tensor in tensors.items() if is_dtensor(tensor)]:
        raise NotImplementedError(
            f"checkpoint: whole tensors are required, got DTensors: {', '.join(sharded[:5])} ({where}). Compare fingerprints."
        )
    return {
        name: Stored(tuple(tensor.shape), tensor.dtype, tensor.detach().__getitem__, tensor.device)
        for name, tensor in tensors.items()
    }


# ---- writing --------------------------------------------------------------------------------------------------------


def write_safetensors(path: Path, header: Header, values: Iterable[Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file of which only a part is ever in memory. It appears under its name when it is complete.

    Args:
        path: where to.
        header: names, dtypes and shapes. Wider dtypes must come first, so that all values are aligned.
        values: the values of all tensors one after the other, in row-major pieces of any size, on the CPU.
        metadata: text by name, for readers.

    Raises:
        ValueError: a dtype that the format does not have.
    """
    beginning = _beginning(header, metadata)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(beginning)
            for piece in values:
                _write(file, piece)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _beginning(header: Header, metadata: Mapping[str, str]) -> bytes:
    """Length and JSON: https://github.com/huggingface/safetensors#format. Filled up with spaces to a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in header.items():
        if dtype not in _NAMES:
            raise ValueError(f"checkpoint: a dtype of safetensors is required, got {dtype} ({name}).")
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(file: BinaryIO, piece: Tensor) -> None:
    """The memory of a tensor, without a copy of it."""
    piece = piece.contiguous()
    if piece.numel():
        file.write((ctypes.c_char * (piece.numel() * piece.itemsize)).from_address(piece.data_ptr()))
