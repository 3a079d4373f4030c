"""What stands under names of torch while threads are recorded goes with the last of them, whatever comes between."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
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


def test_another_recording_begins_and_ends_while_a_tensor_is_registered() -> None:
    def elsewhere() -> None:
        with wi.deferred() as other:
            layer = nn.Linear(3, 3)
        others.append(other.materialize_(layer, seed=1))

    def begin_another(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if not threads:
            threads.append(threading.Thread(target=elsewhere))
            threads[0].start()
            threads[0].join()

    others, threads = list[nn.Linear](), list[threading.Thread]()
    hook = register_module_parameter_registration_hook(begin_another)
    try:
        with wi.deferred() as recorded:
            here = nn.Linear(3, 3)
    finally:
        hook.remove()
    recorded.materialize_(here, seed=1)
    assert torch.equal(here.weight, others[0].weight)


def test_each_thread_is_told_of_its_own_registrations() -> None:
    def elsewhere() -> None:
        with wi.deferred() as other:
            layers.append(nn.Linear(3, 3))
        recordings.append(other)

    layers, recordings = list[nn.Linear](), list[wi.Recording]()
    with wi.deferred() as recorded:
        before = nn.Linear(3, 3)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        after = nn.Linear(3, 3)
    assert [len(recording._modules) for recording in (recorded, *recordings)] == [2, 1]
    for recording, layer in ((recorded, before), (recorded, after), (recordings[0], layers[0])):
        assert recording._modules.get(layer) is not None
