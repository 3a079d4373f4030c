"""Where a checkpoint is written: one run at a time, never over an older one unasked, and complete when its index appears.

While a run writes into a folder, the file ``UNFINISHED`` is there, locked. A run that is ended in the middle, by whatever,
leaves it there unlocked, so that the next one knows, and readers refuse the folder. A single file is locked by its unfinished
self. Knows names of files, and nothing of tensors.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..plans.whole_file import create, require_replaceable, whole_file

__all__ = ["INDEX", "UNFINISHED", "Claim", "claimed", "file_in", "is_unfinished", "lone_file", "make_room", "older"]

INDEX = "model.safetensors.index.json"
UNFINISHED = "weightinit.unfinished"
_KIND = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json|\.unfinished)?")


_UNFINISHED = ".unfinished"  # at the end of the name of a file that is being written


@dataclass
class Claim:
    """A folder held by this run.

    Args:
        unfinished: a run before this one was ended in the middle.
        begun: something in the folder was changed; it is not complete until all is written.
    """

    unfinished: bool
    begun: bool = False


@contextmanager
def claimed(folder: Path) -> Iterator[Claim]:
    """Holds a folder, which has the mark of unfinished work from the first change in it until the block ends well.

    Raises:
        BlockingIOError: another run holds it.
    """
    mark = folder / UNFINISHED
    file, is_new = _locked(mark)
    claim = Claim(not is_new)
    with file:
        try:
            yield claim
        except BaseException:
            if is_new and not claim.begun:
                mark.unlink()
            raise
        mark.unlink()


def is_unfinished(folder: Path) -> bool:
    """Whether a run is writing into the folder, or was ended while it did."""
    return os.path.lexists(folder / UNFINISHED)


@contextmanager
def lone_file(path: Path, overwrite: bool) -> Iterator[tuple[BinaryIO, bool]]:
    """A single file to write to, which takes its name when the block ends well; and whether a run before this one was ended.

    Raises:
        BlockingIOError: another run is writing it.
        FileExistsError: it is there, and shall not be overwritten.
        ValueError: something else is there: a folder, a symbolic link.
    """
    require_replaceable(path)
    unfinished = path.with_name(path.name + _UNFINISHED)
    file, is_new = _locked(unfinished)
    with file:
        try:
            if not overwrite:
                _require_room([path] if path.exists() else [], path.parent)
            file.truncate()
            yield file, not is_new
            file.flush()
            os.fsync(file.fileno())  # what a disk refuses late, it refuses here
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> tuple[BinaryIO, bool]:
    """A file that nobody else has locked, and whether it was made for that. The system unlocks it when the process ends."""
    while True:
        try:
            file, is_new = create(path, os.O_RDWR | os.O_EXCL), True
        except FileExistsError:
            require_replaceable(path)
            try:
                file, is_new = os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b"), False
            except FileNotFoundError:  # another run was done with it just now
                continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                return file, is_new
        except FileNotFoundError:  # the same
            pass
        except BlockingIOError:
            file.close()
            where = f"{path.parent}, where another run is writing {path.name}"
            raise BlockingIOError(f"export: a place of its own is required, got {where}. Wait for it.") from None
        file.close()


def older(folder: Path) -> list[Path]:
    """The files of a checkpoint that are in the folder: what a loader would take, or take for a part. The index first."""
    found = [path for path in folder.iterdir() if _KIND.fullmatch(path.name)]
    return sorted(found, key=lambda path: (path.name != INDEX, path.name))


@contextmanager
def file_in(path: Path) -> Iterator[BinaryIO]:
    """A file of a folder that this run holds, to write to; it takes its name when the block ends well."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    unfinished.unlink(missing_ok=True)  # of a run that was ended: nobody else is writing
    with whole_file(path, unfinished) as file:
        yield file


def make_room(claim: Claim, surplus: Sequence[Path], overwrite: bool, folder: Path) -> None:
    """Removes files of an older checkpoint, the index first, so that at no time a loader finds parts of two.

    Raises:
        FileExistsError: nobody asked for that. Nothing is removed.
    """
    if not overwrite:  # what is unfinished is no checkpoint
        _require_room([path for path in surplus if not path.name.endswith(_UNFINISHED)], folder)
    claim.begun = True
    for path in surplus:
        path.unlink()


def _require_room(there: Sequence[Path], folder: Path) -> None:
    if there:
        names = ", ".join(path.name for path in there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise FileExistsError(
            f"export: a place without a checkpoint is required, got {names} ({folder}). Ask for overwrite (init --overwrite),"
            " which removes these, or name another place."
        )
