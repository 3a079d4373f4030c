"""Threads that are recorded, and what stands under names of torch for as long as there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..tensors.torch_private import dispatch_modes

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["RecordedThread", "while_recorded"]


class RecordedThread(threading.local):
    """What a thread knows of its own recording."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.depth = 0  # of modes, while the recorder is the last of them


def while_recorded(
    thread: RecordedThread, methods: Mapping[str, Any], put: Callable[[bool], None], remove: Callable[[], None]
) -> Callable[[Recorder], AbstractContextManager[None]]:
    """A context in which this thread, already under its recorder's mode, is recorded.

    Args:
        thread: gets the recorder.
        methods: stand under ``Tensor`` meanwhile, unless a name is somebody's own.
        put: called for each thread that comes, with whether it is the first.
        remove: called when the last has gone.
    """
    lock, users = threading.Lock(), 0

    @contextmanager
    def recorded(recorder: Recorder) -> Iterator[None]:
        nonlocal users
        with lock:
            users += 1
            put(users == 1)
            for name, method in methods.items():
                if name not in vars(Tensor):
                    setattr(Tensor, name, method)
        thread.recorder, thread.depth = recorder, dispatch_modes()
        try:
            yield
        finally:
            thread.recorder = None
            with lock:
                users -= 1
                if users == 0:
                    remove()
                    for name, method in methods.items():
                        if vars(Tensor).get(name) is method:
                            delattr(Tensor, name)

    return recorded
