"""Suite ``model``: the parameters of whole models in one call, and models built from nothing by their library's code.

The tables are in ``shapes/``. By default a large model is a part of itself (the line above its row says which), so that the
suite fits a machine of two cores and 24 GiB; ``full`` measures all of it where memory allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..case import Case
from ..measuring.models import OF_TORCH, SHORT
from ..shapes import MODELS, SMALL, load, part_of

__all__ = ["cases"]

WHY = {
    SMALL: "250 of Linear(64, 64): what a call costs",
    "ResNet-50": "161 tensors, most of them small: the calls",
    "ViT-L": "392 tensors, 1.2 GB of float32: an encoder",
    "GPT-2 XL": "580 tensors: biases and norms between large matrices, two standard deviations",
    "Llama-3-8B": "291 tensors, 16 GB of bfloat16: large matrices only",
    "Mixtral-8x7B": "three-dimensional experts: two tensors are most of a layer",
    "DeepSeek-V2-Lite": "64 small experts a layer, low-rank attention",
}
TIMM = {
    "vit_base_patch16_224": "timm's own truncated normal: uniform_, erfinv_, mul_, add_, clamp_",
    "densenet121": "many small convolutions and norms",
    "inception_v3": "truncated normals of scipy's, or torch's",
    "maxvit_rmlp_pico_rw_256": "small attention layers, tables of positions",
    "ghostnet_100": "depthwise convolutions",
}
QUICK = (SMALL, "ResNet-50")


def cases(threads: Sequence[int], sizes: Sequence[int] | None = None, quick: bool = False, full: bool = False) -> list[Case]:
    """All rows: in place for each number of threads, construction for the largest alone.

    Args:
        sizes: not for models.
        quick: the smallest models only.
        full: whole models.
    """
    rows = []
    names = [name for name in WHY if not quick or name in QUICK]
    for count in threads:
        for name in names:
            table = load(name) if full else part_of(load(name))
            why = WHY[name] + (f"; {table.what}" if table.what else "")
            rows.append(Case("model", name, "model", (), getattr(torch, table.dtype), (table.values,), count, why))
    most = max(threads)
    for name in names:
        if name == SMALL:
            continue  # torch's own modules: the time is Python's
        rows.append(_construction(name, getattr(torch, MODELS[name][4]), most, f"with {SHORT[name] or 'all its layers'}"))
    rows += [_construction(name, torch.float32, most, "torch's own modules: what Python costs") for name in OF_TORCH]
    if not quick:
        rows += [_construction(f"timm {name}", torch.float32, most, why) for name, why in TIMM.items()]
    return rows


def _construction(label: str, dtype: torch.dtype, threads: int, why: str) -> Case:
    return Case("construct", label, "construct", (), dtype, (1,), threads, why)
