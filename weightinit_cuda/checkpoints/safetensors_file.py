"""Files of safetensors written from beginning to end, of which only a part is ever in memory. Needs no package for that."""

from __future__ import annotations

import ctypes
import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .files import DTYPES

__all__ = ["Header", "beginning", "is_written", "write_values"]

Header = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Names with dtype and shape, in the order in which their values come. Wider dtypes first, so that all values are aligned."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"  # where the format keeps text about the file


def beginning(header: Header, metadata: Mapping[str, str]) -> bytes:
    """Length and JSON: https://github.com/huggingface/safetensors#format. Filled up with spaces to a multiple of 8 bytes.

    Raises:
        ValueError: a dtype or a name that the format does not have.
    """
    entries: dict[str, object] = {_METADATA: dict(metadata)}
    end = 0
    for name, (dtype, shape) in header.items():
        if dtype not in _NAMES:
            raise ValueError(f"checkpoint: a dtype of safetensors is required, got {dtype} ({name}).")
        if name == _METADATA:
            raise ValueError(f"checkpoint: a name that safetensors can store is required, got {name!r}. Rename the tensor.")
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def is_written(path: Path, begins: bytes, size: int) -> bool:
    """Whether a file is there that begins so and has that many bytes of values."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != len(begins) + size:
        return False
    with path.open("rb") as file:
        return file.read(len(begins)) == begins


def write_values(file: BinaryIO, values: Iterable[Tensor]) -> None:
    """The memory of all tensors, one after the other in row-major pieces of any size, on the CPU; without a copy of them."""
    for piece in values:
        piece = piece.contiguous()
        if piece.numel():
            file.write((ctypes.c_char * piece.nbytes).from_address(piece.data_ptr()))
