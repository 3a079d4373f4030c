"""Ctrl-C while a block begins or ends: it waits until all that a block exchanges is exchanged, or back.

A signal may come between any two calls. If the block were left there, names of torch would stay exchanged, or the recorder
would go on recording.
"""

from __future__ import annotations

from _signal import getsignal, signal  # type: ignore[import-not-found]  # those of ``signal`` make enumerations: 3 us each
from signal import SIGINT
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Ctrl-C, held back or let through. Only the main thread sees it; in others nothing happens here."""

    def __init__(self) -> None:
        self._handler: Any = None
        self._came: tuple[int, FrameType | None] | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame

    def hold(self) -> None:
        """From here on it waits."""
        handler = getsignal(SIGINT)
        if not callable(handler):  # the process ends by it, or takes no notice
            return
        try:
            signal(SIGINT, self._note)
        except ValueError:  # another thread
            return
        self._handler = handler

    def let(self) -> None:
        """What came meanwhile comes now.

        Raises:
            KeyboardInterrupt: it came, or whatever the handler of the process raises.
        """
        handler, self._handler = self._handler, None
        if handler is None:
            return
        signal(SIGINT, handler)
        came, self._came = self._came, None
        if came is not None:
            handler(*came)
