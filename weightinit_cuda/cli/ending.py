"""How a command ends: with 0, with 1 for "differs", or with 2 and one sentence; never with a traceback.

Output goes on where it can: to terminals that know ASCII only, and into pipes that nobody reads any more, where it is dropped
so that the work and its exit status stay what they are.
"""

from __future__ import annotations

import codecs
import os
import sys
import traceback
from collections.abc import Callable
from typing import TextIO

import click

from ..plans.table import visible

__all__ = ["FAILED", "ended", "say"]

FAILED = 2  # bad arguments, or an error. 1 says that something was found: values that differ, symptoms
TRACEBACK = "WEIGHTINIT_TRACEBACK"  # in the environment: shows where an error came from
INTERRUPTED = 130  # as shells have it


def ended(command: Callable[[], int], name: str) -> int:
    """Runs a command; its exit status. ``name`` is the program's, before each sentence."""
    _prepare_streams()
    try:
        status = command()
        sys.stdout.flush()
        return status
    except (KeyboardInterrupt, click.Abort):
        _complain(f"{name}: interrupted.")
        return INTERRUPTED
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            _drop(sys.stdout)  # help that nobody reads on; commands use `say`
            return 0
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _complain(f"{name}: {_sentence(error)}")
        return FAILED


def say(text: str) -> None:
    """Prints to stdout. If its reader has gone, the command goes on.

    Raises:
        OSError: it cannot be written: a full disk.
    """
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
    except OSError as error:
        _drop(sys.stdout)
        raise OSError(error.errno, error.strerror, "stdout") from error


def _complain(text: str) -> None:
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except OSError:  # nobody is there to be told
        _drop(sys.stderr)


def _sentence(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        said, param = error.format_message(), getattr(error, "param", None)
        if type(error) is click.BadParameter and param is not None:
            said = f"{param.opts[0]}: {error.message}"
        return f"{said}{f' See {error.ctx.command_path} --help.' if error.ctx else ''}"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}."
    if isinstance(error, (ValueError, OSError, ImportError, NotImplementedError)) and str(error):
        return str(error)
    said = " ".join(str(error).split())[:300].rstrip(". ")
    return f"{type(error).__name__}{': ' if said else ''}{said}. Set {TRACEBACK}=1 to see where."


# ---- streams ---------------------------------------------------------------------------------------------------------

_LINES = str.maketrans("─━═│┃║…", "-==|||.")


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    """Lines of tables as dashes, all else with backslashes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LINES)
    plain = "".join("+" if "─" <= c <= "╿" else c for c in text)
    return plain.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("weightinit_ascii", _as_ascii)


def _prepare_streams() -> None:
    """Closed ones lead nowhere; what an encoding cannot say is said in ASCII."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, for as long as the process lives
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="weightinit_ascii")


def _drop(stream: TextIO) -> None:
    """What is still to be written to a pipe without a reader goes nowhere, now and when Python ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # a stream without a number
        pass
