"""What stands under names of torch while threads are recorded goes with the last of them, whatever comes between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

import weightinit_cuda as wi
from weightinit_cuda.recording.recorded_threads import RecordedThread, while_recorded
from weightinit_cuda.recording.recorder import Recorder


def everything() -> list[object]:
    """What the block exchanges."""
    names = ("empty", "zeros", "ones", "tensor", "manual_seed", "get_rng_state", "set_rng_state")
    return [*(getattr(torch, name) for name in names), UninitializedTensorMixin.materialize, set(vars(Tensor))]


def test_an_interrupt_while_it_is_put_there() -> None:
    firsts, removed = list[bool](), list[str]()

    def put(first: bool) -> None:
        firsts.append(first)
        if len(firsts) == 1:
            raise KeyboardInterrupt

    recorded = while_recorded(RecordedThread(), {"new_name": lambda self: 3}, put, lambda: removed.append("all"))
    with pytest.raises(KeyboardInterrupt), recorded(Recorder()):
        pass
    assert removed == ["all"]
    assert not hasattr(Tensor, "new_name")
    with recorded(Recorder()):
        assert torch.ones(1).new_name() == 3  # type: ignore[attr-defined]
    assert firsts == [True, True]
    assert removed == ["all", "all"]
    assert not hasattr(Tensor, "new_name")


def test_everything_is_as_before() -> None:
    before = everything()
    with wi.deferred():
        assert everything() != before
        nn.Linear(2, 2)
    assert everything() == before


def test_what_others_have_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(self: object, *args: object, **kwargs: object) -> None: ...

    with wi.deferred():
        monkeypatch.setattr(UninitializedTensorMixin, "materialize", theirs)
    assert UninitializedTensorMixin.materialize is theirs
