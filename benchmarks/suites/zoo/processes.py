"""Each configuration in a process of its own, with a time limit: one that fails, hangs or ends the process stops no other.

The processes are forked from a server that has imported the libraries, so that each costs milliseconds instead of seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import warnings
from multiprocessing.connection import Connection
from typing import Any

import torch

from . import measures
from .libraries import builder, version

__all__ = ["run"]

Row = dict[str, Any]


def run(task: str, library: str, configuration: str = "", limit: float = 60.0) -> Row:
    """What the task gives for a configuration.

    Args:
        task: "version", "values", "times" or "first".
        library, configuration: which; a version needs no configuration.
        limit: seconds after which the process is ended.

    Returns:
        What the task found, or {"failed": one line}.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preloaded"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, task, library, configuration), daemon=True)
    process.start()
    theirs.close()
    try:
        found: Row = ours.recv() if ours.poll(limit) else {"failed": f"took more than {limit:g} s"}
    except EOFError:
        process.join()
        found = {"failed": f"its process ended with status {process.exitcode}"}
    process.kill()  # what it would still do is to take itself apart
    process.join()
    return found


def _work(answers: Connection, task: str, library: str, configuration: str) -> None:
    """The whole life of such a process. What libraries print is dropped."""
    warnings.simplefilter("ignore")
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        try:
            answers.send(_found(task, library, configuration))
        except BaseException as error:  # a library may raise SystemExit
            answers.send({"failed": measures.one_line(error)})


def _found(task: str, library: str, configuration: str) -> Row:
    if task == "version":
        return {"version": version(library)}
    build = builder(library, configuration)
    if task in ("times", "first"):
        return measures.times(build) if task == "times" else measures.first(build)
    torch.set_num_threads(1)
    return measures.values(build)
