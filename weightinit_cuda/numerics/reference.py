"""The executable specification: every value of format 1 in plain PyTorch, on any device that has float64.

It reads like `docs/numerics.md`, function by function, and every other backend is tested to equal it bit for bit. It is also
the backend that is used where the compiled extension is missing. It knows transforms and tensors, and nothing of jobs,
generators, argument checks or the compiled code.

Bits are the same on every device because only these operations occur: add, sub, mul and div of IEEE binary32 and binary64,
casts, integer arithmetic, comparisons with `torch.where`, bit views, and sqrt corrected to the nearest (torch's own is not
exact on CPUs with AVX-512). A word is an int64 in [0, 2^32); a 64-bit draw or index is the int64 with the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import coefficients as table
from .combine import STORE, Combine, Mode, made_dtype
from .lowering import QUIET_NAN, Kind, Transform
from .rounding import subnormals_kept
from .runs import box_runs, boxes, scratch_values

__all__ = ["bits", "combined", "fill", "values"]

MASK32 = 0xFFFFFFFF
MINUS_2_LN_2 = -1.3862943611198906  # f64(-2 ln 2)
MINUS_2_LN_2_F32 = -1.3862943649291992  # f32(-2 ln 2)
C0_F32 = 1.0000000031710769e-30  # f32(1e-30): keeps the radius above 0 where u = 1
C0_F64 = 1e-300  # the same


# ---- words ----------------------------------------------------------------------------------------------------------


def philox4x32_10(block: Tensor, stream: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words of every block: Philox4x32-10 of counter (block, stream) under key seed, low halves first.

    One round, with `hi`, `lo` the halves of the 64-bit product:
    ``(x0, x1, x2, x3) <- (hi(M1 x2) ^ x1 ^ k0, lo(M1 x2), hi(M0 x0) ^ x3 ^ k1, lo(M0 x0))``, then ``k += (W0, W1)``.

    Args:
        block: int64 tensor of any shape, read as unsigned 64-bit.
        stream, seed: integers, taken modulo 2^64.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
    """
    key0, key1 = seed & MASK32, (seed >> 32) & MASK32
    x0, x1 = block & MASK32, (block >> 32) & MASK32
    x2, x3 = block.new_tensor(stream & MASK32), block.new_tensor((stream >> 32) & MASK32)
    for _ in range(10):
        # The int64 products wrap: as unsigned 64-bit numbers they are exact.
        p0, p1 = x0 * 0xD2511F53, x2 * 0xCD9E8D57
        x0, x1 = ((p1 >> 32) & MASK32) ^ x1 ^ key0, p1 & MASK32
        x2, x3 = ((p0 >> 32) & MASK32) ^ x3 ^ key1, p0 & MASK32
        key0, key1 = (key0 + 0x9E3779B9) & MASK32, (key1 + 0xBB67AE85) & MASK32
    return x0, x1, x2, x3


def _words(seed: int, stream: int, block: Tensor) -> Tensor:
    """The 32-bit draws of every block, shape ``(*block.shape, 4)``."""
    return torch.stack(philox4x32_10(block, stream, seed), -1)


def _draws(seed: int, stream: int, block: Tensor) -> Tensor:
    """The 64-bit draws of every block, first word high, shape ``(*block.shape, 2)``."""
    w0, w1, w2, w3 = philox4x32_10(block, stream, seed)
    return torch.stack(((w0 << 32) | w1, (w2 << 32) | w3), -1)


# ---- float32 --------------------------------------------------------------------------------------------------------


def fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """``a * b + c`` of float32 numbers with one rounding, signed zeros, infinities and subnormals included.

    The product of two 24-bit numbers is exact in float64. Its sum with c is rounded to odd there: the nearest sum s and its
    exact error (Knuth's TwoSum) are known; s is cut towards zero and its last bit is set if anything was lost. 53 bits are
    more than 24 + 2, so the cast to float32 then rounds as if from the exact sum.

    Args:
        a, b, c: float32 tensors; b and c may be Python numbers that float32 holds exactly.

    Source: Boldo, Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd",
    IEEE Transactions on Computers 57 (2008).
    """
    addend = c.double() if isinstance(c, Tensor) else c
    product = a.double().mul_(b.double() if isinstance(b, Tensor) else b)
    nearest = product + addend
    part = nearest - product
    error = product.sub_(nearest - part).add_(part.neg_().add_(addend))
    error *= nearest  # only its sign counts from here; NaN where the sum is not finite, and then both tests are false
    below, above = (error < 0).long(), (error > 0).long()
    nearest.view(torch.int64).sub_(below).bitwise_or_(below).bitwise_or_(above)
    return nearest.float()


def _float(word: Tensor) -> Tensor:
    """``float(i)``: integers below 2^53 to float32, round to nearest even (exact in float64, so rounded once)."""
    return word.double().float()


def _i32(word: Tensor) -> Tensor:
    """``i32(w)``: the word read as a signed integer."""
    return (word ^ 0x80000000) - 0x80000000


def _horner_32(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """``c[0] + x (c[1] + x (c[2] + ...))``, one fma a step from the last coefficient down."""
    total = fma(x, coefficients[-1], coefficients[-2])
    for c in reversed(coefficients[:-2]):
        total = fma(total, x, c)
    return total


def sqrt_32(x: Tensor) -> Tensor:
    """``sqrt(x)`` to the nearest float32. None comes within 2^-51 of a tie, so a float64 root off by 1 ulp will do."""
    return x.double().sqrt().float()


def _clamp(x: Tensor, lo: float, hi: float) -> Tensor:
    """``min(max(x, lo), hi)``, written out so that equal zeros of either sign leave x as it is."""
    if lo > -math.inf:
        x = torch.where(x < lo, lo, x)
    if hi < math.inf:
        x = torch.where(x > hi, hi, x)
    return x


def uniform_32(w: Tensor, low: float, scale: float, lo: float = -math.inf, hi: float = math.inf) -> Tensor:
    """Uniform on [low, low + 2^24 scale): ``fma(k, scale, low)`` with ``k = w mod 2^24``, then kept within [lo, hi]."""
    return _clamp(fma(_float(w & 0xFFFFFF), scale, low), lo, hi)


def log_m2_32(u: Tensor, c0: float) -> Tensor:
    """``c0 - 2 ln(u)`` for float32 u in (0, 1]: u = m 2^e with m in [sqrt(1/2), sqrt(2)), a polynomial in m - 1."""
    raw = u.view(torch.int32)
    exponent = (raw - 0x3F3504F3) & -(1 << 23)
    e = exponent.float()  # a multiple of 2^23: exact
    f = (raw - exponent).view(torch.float32) - 1
    q = _horner_32(table.LOG32, f)
    return fma(f, q, fma(e, MINUS_2_LN_2_F32 * 2.0**-23, c0))


def normal_32(w0: Tensor, w1: Tensor, mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Two normals from two words (Box-Muller): ``mean + std r (cos, sin)(pi a)``, r from 31 bits of w0, a from w1.

    The top bit of w0 chooses the half of the circle. Largest radius: 6.6604 (w0 mod 2^31 = 0).
    """
    u = fma(_float(w0 & 0x7FFFFFFF), 2.0**-31, 2.0**-32)
    r = sqrt_32(log_m2_32(u, C0_F32))
    a = fma(_float(_i32(w1)), 2.0**-32, 2.0**-33)
    y = a * a
    s = a * _horner_32(table.SIN32, y)
    c = _horner_32(table.COS32, y)
    c = (c.view(torch.int32) ^ (w0 & 0x80000000).int()).view(torch.float32)
    return fma(r * c, std, mean), fma(r * s, std, mean)


def trunc_normal_central_32(w: Tensor, scale: float, center: float, mean: float, std: float, lo: float, hi: float) -> Tensor:
    """Truncated normal, both bounds near the mean: ``z = sqrt(2) erfinv(x)`` as x times a rational in ``X2 - x^2``."""
    x = fma(_float(_i32(w | 1)), scale, center)
    v = fma(-x, x, table.CENTRAL_X2)
    z = x * (_horner_32(table.QUANTILE_CENTRAL_P32, v) / _horner_32(table.QUANTILE_CENTRAL_Q32, v))
    return _clamp(fma(z, std, mean), lo, hi)


def trunc_normal_32(w: Tensor, split: int, params: Sequence[float]) -> Tensor:
    """Truncated normal for any bounds: the tail probability v counted from the nearer end, then its quantile.

    With ``r = sqrt(log_ref - 2 ln v)`` and ``t = r - sqrt(2 ln 2)`` the quantile is ``t + P(t) / Q(t)``; words below split lie
    left of the mean.
    """
    base_left, base_right, step, log_ref, mean, std, lo, hi = params
    left = w < split
    n = torch.where(left, w, w ^ MASK32) >> 1
    base = torch.where(left, n.new_tensor(base_left, dtype=torch.float32), base_right)
    v = fma(_float(n), step, base)
    r = sqrt_32(log_m2_32(v, log_ref))
    t = r - table.QUANTILE_TAIL_R0_32
    z = t + _horner_32(table.QUANTILE_TAIL_P32, t) / _horner_32(table.QUANTILE_TAIL_Q32, t)
    z = torch.where(left, -z, z)
    return _clamp(fma(z, std, mean), lo, hi)


# ---- float64 --------------------------------------------------------------------------------------------------------


def _horner_64(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """``c[0] + x (c[1] + x (c[2] + ...))``, mul then add from the last coefficient down."""
    total = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * x + c
    return total


def sqrt_64(x: Tensor) -> Tensor:
    """``sqrt(x)`` to the nearest float64, for x in [1e-300, 1e100], from torch's root r, which may be off by 1 ulp.

    With g the gap to the next number up (down), the root lies beyond the middle of it if ``x > (r + g/2)^2``, that is, since
    all terms are multiples of g^2, if ``x - r^2 > r g`` (``<= -r g``). The square of r is Dekker's exact product p + rest.
    """
    x = x * 2.0**512  # an even power of two, so that the rest cannot underflow
    r = x.sqrt()
    high = r * 134217729.0 - (r * 134217729.0 - r)
    low = r - high
    p = r * r
    rest = ((high * high - p) + 2 * high * low) + low * low
    residue = (x - p) - rest
    up, down = ((r.view(torch.int64) + step).view(torch.float64) for step in (1, -1))
    r = torch.where(residue > r * (up - r), up, torch.where(residue <= r * (down - r), down, r))
    return r * 2.0**-256


def _one_to_two(d: Tensor) -> Tensor:
    """``as_double((d >> 12) | 0x3ff0000000000000)``: the top 52 bits of d as a float64 in [1, 2)."""
    return ((d >> 12) & ((1 << 52) - 1) | (0x3FF << 52)).view(torch.float64)


def uniform_64(d: Tensor, low: float, scale: float, lo: float = -math.inf, hi: float = math.inf) -> Tensor:
    """Uniform on [low, low + 2^53 scale): ``k scale + low`` with ``k = d >> 11``, then kept within [lo, hi]."""
    k = ((d >> 11) & ((1 << 53) - 1)).double()
    return _clamp(k * scale + low, lo, hi)


def log_m2_64(u: Tensor, c0: float) -> Tensor:
    """``c0 - 2 ln(u)`` for float64 u in (0, 1]: u = m 2^e, ``ln m = 2 artanh(s)`` with ``s = (m - 1) / (m + 1)``."""
    raw = u.view(torch.int64)
    exponent = (raw - 0x3FE6A09E667F3BCD) & -(1 << 52)
    m = (raw - exponent).view(torch.float64)
    e = (exponent >> 52).double()
    s = (m - 1) / (m + 1)
    q = _horner_64(table.LOG64, s * s)
    return s * q + (e * MINUS_2_LN_2 + c0)


def normal_64(d0: Tensor, d1: Tensor, mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Two normals from two 64-bit draws (Box-Muller): ``std r (cos, sin)(pi a) + mean``.

    r from 52 bits of d0, up to 8.4907; a from 52 bits of d1, whose last bit chooses the half of the circle.
    """
    r = sqrt_64(log_m2_64(2 - _one_to_two(d0), C0_F64))
    a = _one_to_two(d1 | (1 << 12)) - 1.5
    y = a * a
    s = a * _horner_64(table.SIN64, y)
    c = _horner_64(table.COS64, y)
    c = (c.view(torch.int64) ^ (d1 << 63)).view(torch.float64)
    return r * c * std + mean, r * s * std + mean


def trunc_normal_64(d: Tensor, split: int, params: Sequence[float]) -> Tensor:
    """Truncated normal for any bounds, as :func:`trunc_normal_32` from 52 bits of the draw. split is unsigned."""
    base_left, base_right, step, log_ref, mean, std, lo, hi = params
    left = (d ^ -(1 << 63)) < split - (1 << 63)  # both sides moved by 2^63: the signed comparison is the unsigned one
    v = (_one_to_two(torch.where(left, d, ~d)) - 1) * step
    v = torch.where(left, v + base_left, v + base_right)
    r = sqrt_64(log_m2_64(v, log_ref))
    t = r - table.QUANTILE_TAIL_R0_64
    z = t + _horner_64(table.QUANTILE_TAIL_P64, t) / _horner_64(table.QUANTILE_TAIL_Q64, t)
    z = torch.where(left, -z, z)
    return _clamp(z * std + mean, lo, hi)


_SATURATES_AT = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


def convert(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x rounded to nearest even in dtype. float16 and bfloat16 overflow to infinity, float8 saturates."""
    largest = _SATURATES_AT.get(dtype)
    return (x if largest is None else _clamp(x, -largest, largest)).to(dtype)


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values are made before :func:`convert`: float64 and integers as they are, else float32."""
    return dtype if dtype == torch.float64 or not dtype.is_floating_point else torch.float32


_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def combined(x: Tensor, made: Tensor, combine: Combine) -> Tensor:
    """What becomes of elements x and the values made for them: x + v, or x + weight (v - x), rounded once to x's dtype.

    A NaN is the positive quiet one without payload: which one an addition gives differs from machine to machine.
    """
    working = _working_dtype(x.dtype)
    old, v, weight = x.to(working), made.to(working), combine.weight
    if combine.mode is Mode.ADD:
        new = old + v
    else:
        new = (v - old) * weight + old if working == torch.float64 else fma(v - old, weight, old)
    result = convert(new, x.dtype)
    result.view(_INTEGER[x.itemsize]).masked_fill_(new.isnan(), QUIET_NAN[x.dtype])
    return result


_UNIFORMS = (Kind.UNIFORM, Kind.UNIFORM_CLAMPED)
_Values = Callable[[Tensor, tuple[float, ...], tuple[int, ...]], Tensor]

TRANSFORMS: dict[tuple[int, bool], _Values] = {
    **dict.fromkeys(((Kind.BITS, False), (Kind.BITS, True)), lambda draws, _, __: draws),
    **dict.fromkeys(((kind, False) for kind in _UNIFORMS), lambda draws, params, _: uniform_32(draws, *params)),
    **dict.fromkeys(((kind, True) for kind in _UNIFORMS), lambda draws, params, _: uniform_64(draws, *params)),
    (Kind.NORMAL, False): lambda draws, params, _: _in_pairs(normal_32, draws, params),
    (Kind.NORMAL, True): lambda draws, params, _: _in_pairs(normal_64, draws, params),
    (Kind.TRUNC_NORMAL, False): lambda draws, params, integers: trunc_normal_32(draws, integers[0], params),
    (Kind.TRUNC_NORMAL, True): lambda draws, params, integers: trunc_normal_64(draws, integers[0], params),
    (Kind.TRUNC_NORMAL_CENTRAL, False): lambda draws, params, _: trunc_normal_central_32(draws, *params),
}
"""By kind, and whether it is the float64 one: values of whole blocks from draws, float64 (..., 2) or float32 (..., 4)."""


def _in_pairs(transform: Callable[..., tuple[Tensor, Tensor]], draws: Tensor, params: tuple[float, ...]) -> Tensor:
    return torch.stack(transform(draws[..., 0::2], draws[..., 1::2], *params), -1).flatten(-2)


def _evaluate(transform: Transform, wide: bool, draws: Tensor) -> Tensor:
    """The values of whole blocks from their draws: float64 from (..., 2) if wide, float32 from (..., 4) if not."""
    if (transform.kind, wide) not in TRANSFORMS:
        raise NotImplementedError(f"reference: no float{64 if wide else 32} transform for {transform.kind!r}.")
    params = transform.params
    if not wide:
        params = tuple(torch.tensor(params, dtype=torch.float32, device="cpu").tolist())
    return TRANSFORMS[transform.kind, wide](draws, params, transform.integers)


def _one_hot(transform: Transform, dtype: torch.dtype, index: Tensor) -> Tensor:
    """value where ``k < limit and i % row == offset + k step``, k = (i // row) % period, else 0."""
    row, period, limit, offset, step = transform.integers[:5]
    number, place = _divmod(index, row)
    _, k = _divmod(number, period)
    hit = (k < limit) & (place == offset + k * step)
    value = torch.tensor(transform.params[0], dtype=dtype, device=index.device)
    return torch.where(hit, value, torch.zeros_like(value))


def _divmod(index: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of int64 read as unsigned by a divisor below 2^63: first half of the number, then the rest."""
    quotient = (index >> 1 & (1 << 63) - 1) // divisor * 2
    rest = index - quotient * divisor  # below 2 * divisor
    more = (rest < 0) | (rest >= divisor)
    return quotient + more, rest - more * divisor


def _runs(block_values: Callable[[Tensor], Tensor], width: int, starts: Tensor, length: int) -> Tensor:
    """Values of the indices ``starts[r] + (0 .. length - 1)``, shape (R, length), every block of a run made once.

    Args:
        block_values: the values of whole blocks, (...) -> (..., width).
        width: values a block, 2 or 4.
        starts: int64 tensor (R,), read as unsigned 64-bit.
    """
    per_run = (length + width - 2) // width + 1  # blocks that a run can touch, wherever in a block it starts
    shift = width // 2  # log2(width)
    first = (starts >> shift) & ((1 << (64 - shift)) - 1)
    made = block_values(first[:, None] + torch.arange(per_run, device=starts.device)).flatten(1)
    columns = (starts & (width - 1))[:, None] + torch.arange(length, device=starts.device)
    return made.gather(1, columns)


def _run_values(transform: Transform, dtype: torch.dtype, seed: int, stream: int, starts: Tensor, length: int) -> Tensor:
    """The values of R runs of consecutive indices, shape (R, length)."""
    working = _working_dtype(dtype)
    if transform.kind is Kind.CONSTANT:
        shape, value = (len(starts), length), transform.params[0]
        if value != value:  # NaN: these bits, not the ones that a conversion would choose
            return torch.full(shape, transform.integers[0], dtype=_INTEGER[dtype.itemsize], device=starts.device).view(dtype)
        return convert(torch.tensor(value, dtype=working, device=starts.device).expand(shape), dtype)
    if transform.kind is Kind.ONE_HOT:
        return convert(_one_hot(transform, working, starts[:, None] + torch.arange(length, device=starts.device)), dtype)
    bits_wanted, wide = transform.kind is Kind.BITS, dtype.itemsize == 8
    if dtype.itemsize < 4 if bits_wanted else not dtype.is_floating_point:
        raise TypeError(f"reference: {transform.kind!r} cannot be written as {dtype}.")
    draws, width = (_draws, 2) if wide else (_words, 4)
    made = _runs(lambda block: _evaluate(transform, wide, draws(seed, stream, block)), width, starts, length)
    if bits_wanted:
        return (made if wide else made.int()).view(dtype)
    return convert(made, dtype)


def values(transform: Transform, dtype: torch.dtype, seed: int, stream: int, index: Tensor) -> Tensor:
    """The value of every index, in the shape of index: the pure function of (seed, stream, index, transform, dtype).

    Args:
        transform: kind and parameters, already rounded for dtype.
        dtype: a real dtype; a complex tensor of n elements is a real one of 2n.
        seed, stream: integers, taken modulo 2^64.
        index: int64 tensor of any shape, row-major positions in the global tensor, read as unsigned 64-bit.
    """
    return _run_values(transform, dtype, seed, stream, index.reshape(-1), 1).reshape(index.shape)


def bits(seed: int, stream: int, n: int, start: int = 0, device: torch.device | str | None = None) -> Tensor:
    """The 32-bit words of indices start .. start + n - 1, as an int64 tensor of n numbers in [0, 2^32).

    >>> [hex(word) for word in bits(seed=0, stream=0, n=4).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    words = torch.empty(n, dtype=torch.int32, device=device)
    return fill(words, Transform(Kind.BITS, ()), seed, stream, ((1 << 64,), (start,))).long() & MASK32


def fill(
    tensor: Tensor,
    transform: Transform,
    seed: int,
    stream: int = 0,
    region: tuple[Sequence[int], Sequence[int]] | None = None,
    combine: Combine = STORE,
) -> Tensor:
    """Writes ``tensor[i] = value(index of i)``, or combines the two, in place, in chunks, outside autograd.

    Args:
        tensor: any strides, any device, without overlaps; conjugate and negative views are resolved by the caller.
        transform, seed, stream: as in :func:`values`.
        region: (global_shape, offset) of a shard, ``tensor[i]`` has the row-major index of ``offset + i`` in
            global_shape; None if the tensor is the global one.
        combine: how the value meets ``tensor[i]``; the transform is one for the dtype that ``made_dtype`` gives.
    """
    target = tensor.detach()
    shape, offset = (target.shape, (0,) * target.dim()) if region is None else region
    global_shape, origin = tuple(shape), tuple(offset)
    if target.is_complex():
        target, global_shape, origin = torch.view_as_real(target), (*global_shape, 2), (*origin, 0)
    with torch.no_grad(), subnormals_kept():
        for start, extent in boxes(global_shape, (0,) * target.dim(), tuple(target.shape), scratch_values(target.device)):
            place = tuple(o + s for o, s in zip(origin, start, strict=True))
            starts, length = box_runs(global_shape, place, extent, target.device)
            dtype = made_dtype(combine.mode, target.dtype)
            made = _run_values(transform, dtype, seed, stream, starts, length).reshape(extent)
            there = target[tuple(slice(s, s + n) for s, n in zip(start, extent, strict=True))]
            _store(there, made if combine.mode is Mode.STORE else combined(_loaded(there), made, combine))
    return tensor


def _loaded(target: Tensor) -> Tensor:
    """The elements of target in one piece, for the same reason as :func:`_store`."""
    return target.view(_INTEGER[target.itemsize]).contiguous().view(target.dtype)


def _store(target: Tensor, made: Tensor) -> None:
    """Copies made into target; float8 as bytes, since torch copies those for every layout."""
    if target.dtype in _SATURATES_AT:
        target, made = target.view(torch.uint8), made.view(torch.uint8)
    target.copy_(made)
