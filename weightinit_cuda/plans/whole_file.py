"""Files that are there whole or not at all: written beside under another name, and renamed when they are complete.

Whoever is ended in the middle (a full disk, a signal) leaves the file that was there before. No symbolic link is written
through, and only regular files are read, so that a pipe keeps nobody waiting. Knows paths and bytes.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["create", "read_whole", "require_replaceable", "whole_file", "write_whole"]

_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file.

    Raises:
        ValueError: it is something else: a folder, a pipe, a device.
        OSError: it cannot be read.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"a regular file is required, got {os.fspath(path)}, which is none. Write it to a file first.")
        return file.read()


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """A file with that content, in place of one that may be there.

    Raises:
        ValueError: what is there is no regular file, or a symbolic link to one.
        OSError: it cannot be written; then the file that was there before still is.
    """
    path = Path(path)
    with whole_file(path, path.with_name(f".{secrets.token_hex(8)}.unfinished")) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path, unfinished: Path) -> Iterator[BinaryIO]:
    """A file to write to, which has the name ``unfinished`` until all is written, and then ``path``.

    Raises:
        ValueError, OSError: as :func:`write_whole`.
    """
    require_replaceable(path)
    with create(unfinished, os.O_WRONLY | os.O_EXCL) as file:
        try:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())  # what a disk refuses late, it refuses here
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def create(path: Path, flags: int) -> BinaryIO:
    """Opens a file to write to, made if it is not there; a symbolic link is not followed."""
    return open(os.open(path, flags | _FLAGS, 0o666), "wb" if flags & os.O_WRONLY else "r+b")


def require_replaceable(path: Path) -> None:
    """Refuses to put a file where something else than a file is: a link, a folder, a device."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        what = "a symbolic link" if path.is_symlink() else "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"the name of a regular file is required, got {path}, which is {what}. Name another file.")
