r"""One number for the bits of a model: the same on any device, in any memory layout and for any sharding.

The bits of a tensor are words of 16 (8 for one-byte dtypes). Its hash is a sum over the words, in LANES independent lanes:

    hash = sum over i_0, ..., i_n of  x[i_0, ..., i_n] * key_0(i_0) * ... * key_n(i_n)    mod p,  p = 2^26 - 5, a prime

with keys that every index chooses for itself. The order of summation does not matter, parts of a tensor add up, and a part
needs the keys of its own indices only. Knows tensors and regions; nothing of plans, seeds or fills.

Why different tensors do not collide. No key is 0, and the difference of two words is no multiple of p, so a change within one
word always changes every lane. In general, let d be the difference of two given tensors, not 0: be it by two exchanged
elements or shards, flipped signs or all values. A sum of d times random keys over one index is 0 everywhere with probability
1/p at most, so the sum over all of n indices with at most n/p; all five lanes agree with (n/p)^5, which is 2^-117 for the six
indices of a 4-dimensional float32 tensor. The keys are fixed numbers without structure, so this holds for changes made
without looking at them: a fingerprint finds faults, it is no signature against forgers.

Why it is exact and fast. Keys lie in (-p/2, p/2); a row of at most 2^13 words then sums to less than 2^53, so its five lanes
are one float64 matrix product without any rounding, whatever the order and the library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from ..engine.checks import is_virtual, lacks_memory
from ..tensors.boxes import Region
from ..tensors.kinds import MODEL, must_be
from ..tensors.named import Model, Named, named_tensors
from ..tensors.shards import is_spread, parts, spread_over
from ..tensors.torch_private import without_modes

__all__ = ["Buffers", "chosen", "combine", "fingerprint", "tensor_hash", "tensor_hashes"]

VERSION = 1  # of the hash, and part of every fingerprint: numbers made in another way never look comparable
LANES = 5
PRIME = (1 << 26) - 5
Buffers = Literal["persistent", "all", "none"]
_LANE_BITS = 26
_BLOCK = (
    1024  # the last dimension counts as two from here on, so that the keys of long ones repeat: index = high * _BLOCK + low
)
_ROW = 1 << 13  # words in a row at most: more would not be exact
_PIECE = 1 << 22  # words at once: bounds the scratch memory, 32 MB, and is long enough for a GPU
_CACHED = 1 << 16  # words at once on the CPU: 512 kB of float64 stay in the L2 cache


def fingerprint(model: Model, *, buffers: Buffers = "persistent") -> str:
    """The bits of all named tensors as one hexadecimal number of 128 bits.

    ``BLAKE2b-128`` over name, dtype, shape and ``tensor_hash`` of each tensor, in the order of the names. Every bit counts:
    -0.0 is not 0.0, and NaN payloads differ. Device, strides, sharding and the order of registration do not count.
    A tied tensor counts under each of its names, as in a ``state_dict``.

    Args:
        model: a module (its parameters and buffers), or tensors by name: ``model.state_dict()``, a loaded checkpoint.
        buffers: which buffers of a module count: those that ``state_dict`` saves, all, or none.

    Returns:
        32 hexadecimal digits. With DTensors all ranks of their meshes must call this together; 40 bytes a tensor are exchanged.

    Raises:
        TypeError, ValueError: values that are no dense tensors, or have no memory (meta); all of them are named.

    >>> import torch, weightinit_cuda as wi
    >>> w = wi.init.normal_(torch.empty(3, 4), seed=0, stream="w")
    >>> wi.fingerprint({"w": w})
    '1175266dc9ed1af21cbf40dd4109a50e'
    >>> wi.fingerprint({"w": w.clone().T.contiguous().T}) == wi.fingerprint({"w": w})
    True
    """
    named = chosen("fingerprint", model, buffers)
    lines = [
        (name, str(n.tensor.dtype).removeprefix("torch."), list(n.tensor.shape), f"{number:032x}")
        for n, number in zip(named, tensor_hashes([n.tensor for n in named]), strict=True)
        for name in (n.name, *n.aliases)
    ]
    text = "\n".join(map(json.dumps, sorted(lines)))
    return blake2b(text.encode(), digest_size=16, person=b"fingerprint %d" % VERSION).hexdigest()


def chosen(function: str, model: Model, buffers: Buffers) -> list[Named]:
    """The tensors that count; refuses those that cannot."""
    must_be(MODEL, function, model=model)
    if buffers not in ("persistent", "all", "none"):
        raise ValueError(f"{function}: buffers must be 'persistent', 'all' or 'none', got {buffers!r}.")
    named = named_tensors(model, buffers=buffers != "none")
    if buffers == "persistent":
        named = [n for n in named if not (n.buffer and n.module and n.attribute in n.module._non_persistent_buffers_set)]
    if bad := [f"{n.name} ({n.tensor.layout}, {n.tensor.device})" for n in named if _unreadable(n.tensor)]:
        raise ValueError(f"{function}: every tensor must be strided and have memory, got {', '.join(bad)}.")
    return named


def _unreadable(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_quantized or is_virtual(tensor):
        return True
    return not is_spread(tensor) and lacks_memory(tensor)


def tensor_hashes(tensors: Sequence[Tensor]) -> list[int]:
    """The hash of each tensor, of a DTensor that of the global one: the local parts, then one small sum over the ranks."""
    return _over_ranks(tensors, [combine(tensor_hash(*part) for part in parts(t, "fingerprint")) for t in tensors])


def _over_ranks(tensors: Sequence[Tensor], hashes: Sequence[int]) -> list[int]:
    """Adds what the ranks hold of the same tensor: over the groups that shard it, so that replicas count once.

    Tensors of the same group travel together, in one all_reduce of 40 bytes each.
    """
    totals = list(hashes)
    sharded: dict[tuple[Any, str], list[int]] = {}
    for number, tensor in enumerate(tensors):
        for group in spread_over(tensor):
            sharded.setdefault(group, []).append(number)
    for (group, device), numbers in sharded.items():
        sums = torch.tensor([_lanes(totals[n]) for n in numbers], dtype=torch.int64, device=device)
        torch.distributed.all_reduce(sums, group=group)
        for n, lanes in zip(numbers, sums.tolist(), strict=True):
            totals[n] = _packed(lanes)
    return totals


def combine(hashes: Iterable[int]) -> int:
    """The hash of a tensor from those of its parts: each lane is added mod p."""
    return _packed([sum(lane) for lane in zip([0] * LANES, *map(_lanes, hashes), strict=True)])


def _lanes(number: int) -> list[int]:
    return [number >> lane * _LANE_BITS & (1 << _LANE_BITS) - 1 for lane in range(LANES)]


def _packed(lanes: Sequence[int]) -> int:
    return sum(value % PRIME << lane * _LANE_BITS for lane, value in enumerate(lanes))


def tensor_hash(tensor: Tensor, region: Region | None = None) -> int:
    """The hash of one tensor, or what a part of it adds to that hash; dtype and shape are not part of it.

    Args:
        tensor: any strides, any device.
        region: where it lies in the global tensor; None if it is the global one.

    Returns:
        Five lanes of 26 bits as one integer. The hashes of parts add up by :func:`combine`.

    >>> whole = torch.arange(12.0).view(3, 4)
    >>> halves = [tensor_hash(whole[:, 2 * i : 2 * i + 2], Region((3, 4), (0, 2 * i))) for i in range(2)]
    >>> combine(halves) == tensor_hash(whole)
    True
    """
    offset = (0,) * tensor.dim() if region is None else tuple(region.offset)
    with torch.no_grad(), without_modes():
        tensor = tensor.detach()
        if tensor.device.type == "mps":  # has no float64
            tensor = tensor.cpu()
        total = torch.zeros(LANES, dtype=torch.int64, device=tensor.device)
        if tensor.numel():
            for part, start in _blocks(tensor, offset):
                for chunk in _chunk_sums(part, start):
                    total += chunk
        return _packed(total.tolist())


def _blocks(tensor: Tensor, offset: tuple[int, ...]) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The tensor with its last dimension as two, the block and the index in it: a rest of a block, whole blocks, a rest."""
    if tensor.dim() == 0:
        tensor, offset = tensor[None], (0,)
    begin = offset[-1]
    end = begin + tensor.shape[-1]
    borders = -(-begin // _BLOCK) * _BLOCK, end // _BLOCK * _BLOCK
    for low, high in pairwise(sorted({begin, end, *(border for border in borders if begin < border < end)})):
        part = tensor.narrow(-1, low - begin, high - low)
        blocks = part.view(*part.shape[:-1], -1, min(_BLOCK, high - low))
        yield blocks, (*offset[:-1], low // _BLOCK, low % _BLOCK)


def _chunk_sums(tensor: Tensor, offset: tuple[int, ...]) -> Iterator[Tensor]:
    """The lanes of each chunk. The last dimensions are taken as one, a row, whose keys are made once."""
    words, dims = max(1, tensor.itemsize // 2), tensor.dim()
    first, row = dims, words  # dimensions from the first on are the row
    while first and row * tensor.shape[first - 1] <= _ROW:
        first, row = first - 1, row * tensor.shape[first - 1]
    if first and row < _ROW // 8 and tensor.shape[: first - 1].numel() > 64:  # short rows, many of the same keys: lengthen them
        for piece, start in _cut(tensor, offset, first - 1, _ROW // row):
            yield from _chunk_sums(piece, start)
        return
    keys = _row_keys(tuple((d, offset[d], tensor.shape[d]) for d in range(first, dims)), dims, words, tensor.device)
    for piece, start in _pieces(tensor, offset, first):
        sums = _mod(_row_sums(_words(piece).view(-1, row), keys)).view(*piece.shape[:first], LANES)
        for d in reversed(range(first)):
            sums = _mod(_mod(sums * _keys(d, start[d], piece.shape[d], tensor.device)).sum(-2))
        yield sums


def _pieces(tensor: Tensor, offset: tuple[int, ...], dims: int) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Views of a bounded size with their offsets, cut along the first ``dims`` dimensions."""
    limit = _PIECE // max(1, tensor.itemsize // 2)
    dim = next((d for d in range(dims) if tensor.shape[d] > 1), None)
    if tensor.numel() <= limit or dim is None:
        yield tensor, offset
        return
    for piece, start in _cut(tensor, offset, dim, max(1, limit // (tensor.numel() // tensor.shape[dim]))):
        yield from _pieces(piece, start, dims)


def _cut(tensor: Tensor, offset: tuple[int, ...], dim: int, step: int) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Views of at most ``step`` indices of one dimension, with their offsets."""
    for begin in range(0, tensor.shape[dim], step):
        piece = tensor.narrow(dim, begin, min(step, tensor.shape[dim] - begin))
        yield piece, (*offset[:dim], offset[dim] + begin, *offset[dim + 1 :])


def _row_sums(rows: Tensor, keys: Tensor) -> Tensor:
    """``rows @ keys`` as int64; of each row at once what stays in the cache as float64."""
    step = max(1, (_CACHED if rows.is_cpu else _PIECE) // rows.shape[1])
    scratch = torch.empty((min(step, len(rows)), rows.shape[1]), dtype=torch.float64, device=rows.device)
    sums = torch.empty((len(rows), LANES), dtype=torch.float64, device=rows.device)
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        _multiply(scratch[: len(some)].copy_(some), keys, sums[begin : begin + step])
    return sums.to(torch.int64)


def _refuses_products(device: torch.device) -> bool:
    return device.type == "cuda" and torch.are_deterministic_algorithms_enabled()


def _multiply(rows: Tensor, keys: Tensor, out: Tensor) -> None:
    """``out = rows @ keys``. On a GPU torch refuses matrix products in deterministic mode, unless an environment variable had
    been set before the first one; this one is exact, so any order of its sums is the same."""
    if _refuses_products(rows.device):
        for lane in range(LANES):
            torch.sum(rows * keys[:, lane], 1, out=out[:, lane])
    else:
        torch.mm(rows, keys, out=out)


@lru_cache(maxsize=32)  # layers repeat their shapes; 320 kB each at most
def _row_keys(dims: tuple[tuple[int, int, int], ...], word_dim: int, words: int, device: torch.device) -> Tensor:
    """The product of the keys of all dimensions of a row, (words in a row, LANES). Each one is (dim, start, n)."""
    product = _keys(word_dim, 0, words, device)
    for dim, start, n in reversed(dims):
        product = _mod(_keys(dim, start, n, device)[:, None] * product).flatten(0, 1)
    return product.to(torch.float64)


def _words(piece: Tensor) -> Tensor:
    """The bits in logical order as signed words; an element of several has them as a new last dimension, the lowest first."""
    piece = piece.resolve_conj().resolve_neg().contiguous()
    return piece.unsqueeze(-1).view(torch.int8 if piece.itemsize == 1 else torch.int16)


def _keys(dim: int, start: int, n: int, device: torch.device) -> Tensor:
    """The keys, in [1, p), of indices ``start, ..., start + n - 1`` of a dimension, (n, LANES): SplitMix64 from its own point.

    Source: Steele, Lea, Flood (2014), Fast splittable pseudorandom number generators; the constants are Vigna's.
    """
    begin = torch.tensor([_signed(_origin(lane, dim) + start * _GOLDEN) for lane in range(LANES)], device=device)
    z = torch.arange(n, device=device)[:, None] * _signed(_GOLDEN) + begin
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z ^= (z >> shift) & (_MASK64 >> shift)  # torch's shift of int64 copies the sign; the mask takes that away
        z *= _signed(factor)
    return z % (PRIME - 1) + 1


def _mod(numbers: Tensor) -> Tensor:
    """The same residues mod p, in [-p/2, p/2]."""
    return (numbers + PRIME // 2) % PRIME - PRIME // 2


_MASK64 = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's step: 2^64 divided by the golden ratio


@lru_cache(maxsize=256)
def _origin(lane: int, dim: int) -> int:
    """Where the keys of a dimension begin: a hash, so that nobody chose it."""
    digest = blake2b(b"%d %d" % (lane, dim), digest_size=8, person=b"fingerprint %d" % VERSION).digest()
    return int.from_bytes(digest, "little")


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return (number + (1 << 63) & _MASK64) - (1 << 63)
