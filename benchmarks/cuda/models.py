"""The shapes of whole models, in the order of their parameters. Numbers only: nothing is downloaded, nothing constructed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

__all__ = ["MODELS", "Shape"]

Shape = tuple[int, ...]


def _gpt2() -> list[Shape]:
    """GPT-2 small: 12 layers of 768 (openai-community/gpt2); the head is the embedding."""
    d = 768
    layer: list[Shape] = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *layer * 12, (d,), (d,)]


def _resnet50() -> Iterator[Shape]:
    """torchvision.models.resnet50."""
    yield from ((64, 3, 7, 7), (64,), (64,))
    into = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            out = 4 * width
            for shape in ((width, into, 1, 1), (width, width, 3, 3), (out, width, 1, 1)):
                yield from (shape, shape[:1], shape[:1])
            if block == 0:
                yield from ((out, into, 1, 1), (out,), (out,))
            into = out
    yield from ((1000, into), (1000,))


def _llama3_8b() -> list[Shape]:
    """meta-llama/Meta-Llama-3-8B: 32 layers of 4096, 8 key and value heads of 128."""
    d, kv, hidden, words = 4096, 1024, 14336, 128256
    layer: list[Shape] = [(d, d), (kv, d), (kv, d), (d, d), (hidden, d), (hidden, d), (d, hidden), (d,), (d,)]
    return [(words, d), *layer * 32, (d,), (words, d)]


# Label: the shapes, the dtype it is trained in, why it is here.
MODELS: dict[str, tuple[Callable[[], list[Shape]], torch.dtype, str]] = {
    "500 x (64, 64)": (lambda: [(64, 64)] * 500, torch.float32, "nothing but calls: what one launch saves"),
    "ResNet-50": (lambda: list(_resnet50()), torch.float32, "161 tensors, most of them small"),
    "GPT-2": (_gpt2, torch.float32, "148 tensors, half a GB"),
    "Llama-3-8B": (_llama3_8b, torch.bfloat16, "291 tensors, 16 GB: the speed of the kernel"),
}
