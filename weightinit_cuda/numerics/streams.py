"""Names to streams: where a parameter's random numbers come from, independent of every other parameter.

A stream is the high half of Philox's counter (`docs/numerics.md`, 1. Words): two streams never share a block. Stream 0 is the
stream of unnamed draws; a name never maps to it. This file knows names and numbers, no tensors.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

__all__ = ["UNNAMED", "noise_stream_of", "stream_of"]

UNNAMED = 0
"""The stream of draws that have no name: the drop-in calls."""

DOMAIN = b"weightinit_cuda"[:16]
"""BLAKE2's personalisation (at most 16 bytes): keeps our hashes apart from anyone else's hash of the same name."""
NOISE_DOMAIN = b"weightinit_noise"
"""The same for noise that is added to values, which is so apart from the values themselves."""


@lru_cache(maxsize=65536)
def stream_of(name: str) -> int:
    """The stream of a qualified name: ``BLAKE2b-64(name as UTF-8, person=b"weightinit_cuda")``, little endian, never 0.

    Two different names share a stream with probability 2^-64; a model of 10^6 parameters meets that with probability 3e-8.

    Args:
        name: qualified parameter name, for example ``"layers.0.attn.wq.weight"``.

    Returns:
        An integer in [1, 2^64). The one name in 2^64 that hashes to :data:`UNNAMED` gets 1.

    Raises:
        UnicodeEncodeError: the name holds a lone surrogate, which UTF-8 cannot express.

    >>> hex(stream_of("tok.weight"))
    '0xdaef894c3be395ed'
    """
    return _hash(name, DOMAIN)


@lru_cache(maxsize=65536)
def noise_stream_of(name: str) -> int:
    """The stream of noise on a tensor: ``BLAKE2b-64(name as UTF-8, person=b"weightinit_noise")``, as :func:`stream_of`."""
    return _hash(name, NOISE_DOMAIN)


def _hash(name: str, domain: bytes) -> int:
    digest = blake2b(name.encode("utf-8"), digest_size=8, person=domain).digest()
    return int.from_bytes(digest, "little") or UNNAMED + 1
