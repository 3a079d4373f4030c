"""What stands behind ``[]`` of tensors and of classes below them in the block, and that it is torch's own again afterwards."""

from typing import Any

import torch
from torch import Tensor

import weightinit_cuda as wi


class Reads(Tensor):
    """Has a method of its own."""

    def __getitem__(self, index: Any) -> Any:
        return "mine", super().__getitem__(index)


class Writes(Tensor):
    """Has one of the two."""

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value + 1)


class Below(Writes):
    pass


def as_before(kind: type[Tensor]) -> bool:
    """Whether ``[]`` of a class is torch's, and its tensors of no dimensions are numbers where torch reads data."""
    number, tensor = torch.tensor(2.0).as_subclass(kind), torch.arange(3.0).as_subclass(kind)
    tensor[0] = 5.0
    return (
        not {"__getitem__", "__setitem__"} & vars(Tensor).keys()
        and float(tensor[0]) == 5.0
        and torch.tensor([number, number]).tolist() == [2.0, 2.0]
    )


def test_lists_are_indices_of_each_class_that_has_not_its_own() -> None:
    with wi.deferred():
        for kind in (Tensor, Writes, Below):
            assert torch.arange(3.0).as_subclass(kind)[[2, 0]].tolist() == [2.0, 0.0]
        table = torch.zeros(3)
        table[[0, 2]] = 7.0
        assert table.tolist() == [7.0, 0.0, 7.0]
        below = torch.zeros(3).as_subclass(Below)
        below[[0, 2]] = 7.0
        assert below.tolist() == [8.0, 0.0, 8.0]
    assert as_before(Tensor)
    below = torch.zeros(3).as_subclass(Below)
    below[0] = 1.0
    assert below.tolist() == [2.0, 0.0, 0.0]


def test_a_class_has_its_own_in_the_block_and_afterwards() -> None:
    for block in (wi.deferred(), wi.deferred()):
        with block:
            said, value = torch.arange(3.0).as_subclass(Reads)[1]
            assert (said, float(value)) == ("mine", 1.0)
        said, value = torch.arange(3.0).as_subclass(Reads)[1]
        assert (said, float(value)) == ("mine", 1.0)


def test_classes_that_are_made_or_changed_meanwhile() -> None:
    with wi.deferred():

        class Made(Tensor):
            pass

        class Changed(Tensor):
            pass

        class BelowChanged(Changed):
            pass

        Changed.__getitem__ = lambda self, index: "changed"  # type: ignore[assignment,method-assign]
        assert torch.arange(3.0).as_subclass(BelowChanged)[0] == "changed"
    assert as_before(Made)
    assert torch.arange(3.0).as_subclass(Changed)[0] == "changed"
    assert torch.arange(3.0).as_subclass(BelowChanged)[0] == "changed"
