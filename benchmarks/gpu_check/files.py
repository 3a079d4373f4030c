"""How a stage keeps what it finds: a file that is whole at any time, also if its writer is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["write_json"]


def write_json(path: Path, data: object) -> None:
    """The old file stays until the new one is complete."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
