"""Random words: the raw ones of a stream, and the 64-bit seeds that drop-in calls draw where torch would draw values."""

from __future__ import annotations

import operator
import threading
from typing import SupportsIndex

import torch

from ..numerics.streams import DOMAIN, stream_of
from ..tensors.torch_private import without_modes
from . import backend, native
from .backend import kernels

__all__ = ["bits", "draw_seed", "seed_cell", "streams_of", "take_position"]

MASK64 = 0xFFFFFFFFFFFFFFFF
LOWEST = -(2**63)  # random_(LOWEST, None) draws all 64 bits


def _new_cell() -> torch.Tensor:
    with torch.inference_mode(False), without_modes():  # an ordinary tensor, whatever the caller is in
        return torch.empty((), dtype=torch.int64, device="cpu")


class _SeedCell(threading.local):
    """Where the short way of a thread draws its seed: one int64 that is used again and again. The native module draws and reads
    in one call, which no signal handler interrupts."""

    def __init__(self) -> None:
        self.tensor = _new_cell()
        self.both = self.tensor.random_, self.tensor.data_ptr()  # as a pair: one look-up


seed_cell = _SeedCell()
_free_cells = list[torch.Tensor]()


def draw_seed(tensor: torch.Tensor, generator: torch.Generator | None = None) -> int:
    """One 64-bit seed, drawn where torch would draw the tensor's values: from ``generator``, else its device's default."""
    if generator is None and tensor.is_cpu:
        return _draw_on_cpu()
    if generator is None and tensor.is_cuda:
        generator = torch.cuda.default_generators[tensor.device.index]
    if generator is not None and generator.device.type == "cuda":
        return _draw_cuda_seed(generator)
    device = tensor.device if generator is None else generator.device
    return int(torch.empty((), dtype=torch.int64, device=device).random_(LOWEST, None, generator=generator).item()) & MASK64


def streams_of(names: list[str]) -> list[int]:
    """:func:`.stream_of` of each name.

    Raises:
        UnicodeEncodeError: a name holds a lone surrogate.
    """
    return kernels.streams_of(names, DOMAIN) if backend.native else list(map(stream_of, names))


def _draw_on_cpu() -> int:
    """What runs between the draw and the reading, a signal handler or a thread, has a cell of its own."""
    try:
        cell = _free_cells.pop()
    except IndexError:
        cell = _new_cell()
    drawn = int(cell.random_(LOWEST, None).item()) & MASK64
    _free_cells.append(cell)
    return drawn


_one_at_a_time = threading.RLock()


def take_position(generator: torch.Generator) -> int:
    """Where a CUDA generator stands; it moves on by one block of 4. In Python alone, a signal handler may come between."""
    if kernels is not None:
        return kernels.take_position(generator, 4)
    with _one_at_a_time:
        offset = generator.get_offset()
        generator.set_offset(offset + 4)
    return offset


def _draw_cuda_seed(generator: torch.Generator) -> int:
    """64 bits of the generator's own sequence, made on the host: no kernel, no synchronisation. Advances it by one block of 4.

    torch's CUDA generator is Philox with key ``initial_seed()`` and a position, ``get_offset()``; its kernels use the upper
    half of the counter for threads from 0 on. Counting those from the top keeps our block apart from all of theirs.
    """
    offset = take_position(generator)
    w0, w1 = bits(generator.initial_seed(), stream=MASK64, n=2, start=offset).tolist()
    return int(w0 << 32 | w1)


def _integer(name: str, value: SupportsIndex, least: int) -> int:
    """An integer of 64 bits from ``least`` on, as an unsigned one."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"bits: {name} must be an integer, got {value!r}.")
    if not least <= operator.index(value) < 2**64:
        wanted = "at least 0" if least == 0 > operator.index(value) else f"in [{'-2**63' if least else '0'}, 2**64)"
        raise ValueError(f"bits: {name} must be {wanted}, got {value}.")
    return operator.index(value) & MASK64


def bits(seed: SupportsIndex, stream: SupportsIndex, n: SupportsIndex, start: SupportsIndex = 0) -> torch.Tensor:
    """The raw 32-bit words of ``stream`` under ``seed``, as the kernels use them.

    Word ``i`` of the result is word ``(start + i) % 4`` of Philox block ``(start + i) // 4``.

    Args:
        seed, stream: 64-bit numbers; negative ones are taken modulo 2^64, as ``torch.manual_seed`` does.
        n: how many words.
        start: index of the first one, 64-bit.

    Returns:
        A uint32 tensor of n words on the CPU.

    Raises:
        TypeError, ValueError: something that is no integer, or one that is out of range.

    >>> import weightinit_cuda as wi
    >>> [hex(word) for word in wi.bits(seed=0, stream=0, n=4).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    seed, stream = _integer("seed", seed, -(2**63)), _integer("stream", stream, -(2**63))
    n, start = _integer("n", n, 0), _integer("start", start, 0)
    if start + n > 2**64:
        raise ValueError(f"bits: start + n must be at most 2**64, got {start} + {n}.")
    with without_modes():
        if not backend.native:
            from ..numerics import reference

            return reference.bits(seed, stream, n, start, "cpu").to(torch.uint32)
        words = torch.empty(n, dtype=torch.uint32, device="cpu")
    if n:
        native.write_words(words, seed, stream, start)
    return words
