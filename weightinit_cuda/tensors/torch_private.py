"""Every private name of torch that this library uses: what it is for, and what breaks without it.

No other file says one. They are looked up once, here, so that a torch that lost a name fails at import with that name, and
`tests/tensors/test_torch_private.py` says which torch lost it. Each has been there in all releases from 2.6 on.
"""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes as without_modes

__all__ = [
    "FakeTensor",
    "increment_version",
    "without_modes",
]

# Moves autograd's version counters without writing, since a fill writes through a pointer. Without it a tensor that was
# re-initialised between forward and backward would give wrong gradients instead of an error.
increment_version = torch._C._increment_version
