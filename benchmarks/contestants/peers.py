"""The other generators, each in a file of its own: how it is opened for a distribution, and why it cannot be where it cannot.

A peer says nothing about time or statistics: ``contestants`` times it, ``quality`` looks at what it draws. A new peer is a
function in a file here and a row in ``PEERS``.
"""

from __future__ import annotations

from functools import partial

from .cupy_random import open_curand
from .jax_random import open_jax
from .mkl import GAUSSIANS, GENERATORS, open_mkl
from .numpy_random import open_numpy
from .peer import Draw, Peer, Wanted
from .torch_random import open_stateless
from .triton_random import open_triton

__all__ = ["PEERS", "Draw", "Peer", "Wanted"]

PEERS: tuple[Peer, ...] = (
    Peer("torch.func._random", open_stateless, devices=("cpu", "cuda")),
    Peer("numpy Philox", partial(open_numpy, "Philox")),
    Peer("numpy SFC64", partial(open_numpy, "SFC64")),
    *(Peer(f"mkl {name}", partial(open_mkl, name, None), ("uniform_",)) for name in GENERATORS),
    *(Peer(f"mkl {name} {how}", partial(open_mkl, name, how), ("normal_",)) for name in GENERATORS for how in GAUSSIANS),
    Peer("jax threefry", partial(open_jax, "threefry2x32")),
    Peer("jax rbg", partial(open_jax, "rbg")),
    Peer("cuRAND Philox", open_curand, ("uniform_", "normal_"), ("cuda",)),
    Peer("triton", partial(open_triton, 1), ("uniform_", "normal_"), ("cuda",)),
    Peer("triton 4x", partial(open_triton, 4), ("uniform_", "normal_"), ("cuda",)),
)
