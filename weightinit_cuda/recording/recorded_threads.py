"""Threads that are recorded, and what stands under names of torch for as long as there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ..init.torch_draws import put_methods, remove_methods
from ..tensors.torch_private import dispatch_modes

if TYPE_CHECKING:
    from .plain_tape import PlainCalls
    from .recorder import Recorder

__all__ = ["RecordedThread", "while_recorded"]


class RecordedThread(threading.local):
    """What a thread knows of its own recording."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.plain: PlainCalls | None = None  # of the recorder
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

    def undo() -> None:
        remove()
        remove_methods(methods)

    @contextmanager
    def recorded(recorder: Recorder) -> Iterator[None]:
        nonlocal users
        with lock:
            try:
                put(users == 0)
                put_methods(methods)
            except BaseException:  # Ctrl-C
                if users == 0:
                    undo()
                raise
            users += 1
        thread.recorder, thread.plain, thread.depth = recorder, recorder.plain, dispatch_modes()
        try:
            yield
        finally:
            thread.recorder = thread.plain = None
            with lock:
                users -= 1
                if users == 0:
                    undo()

    return recorded
