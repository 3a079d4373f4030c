"""``python -m weightinit_cuda``, and the program ``weightinit-cuda``: the commands of ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, program: str = "weightinit-cuda") -> int:
    """Runs a command; returns the exit status: 0, 1 for what differs or is wrong with a model, 2 for an error."""
    try:
        from .cli.commands import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(f"weightinit-cuda: {error.name} is not installed. pip install {error.name}", file=sys.stderr)
        return 2
    return run(arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m weightinit_cuda"))
