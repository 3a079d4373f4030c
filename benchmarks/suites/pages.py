"""Suite ``pages``: what huge pages are worth, or cost, where a model's memory is touched first.

Each setting of ``WEIGHTINIT_HUGE_PAGES`` in processes of its own, in turns: what an older process has given back and gets again
has been touched before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Any

__all__ = ["SETTINGS", "measure"]

SETTINGS = ("0", "1", "auto")
ROUNDS = 3
WORKER = """
import json, os, sys, time
import torch, weightinit_cuda as wi
from weightinit_cuda.recording.memory import huge_pages_wanted

width, layers = map(int, sys.argv[1:])
wi.deferred  # is imported when it is first asked for
with wi.deferred() as recorded:
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(layers)))
wall, cpu = time.perf_counter(), time.process_time()
recorded.materialize_(model, device="cpu", seed=0)
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "huge": huge_pages_wanted()}))
"""


def measure(width: int = 4096, layers: int = 4, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """A row for each setting: medians of seconds, wall and CPU, of ``materialize_`` of linear layers of that width, and whether
    huge pages were asked for."""
    taken: dict[str, list[dict[str, Any]]] = {setting: [] for setting in SETTINGS}
    for number in range(rounds):
        for setting in (*SETTINGS[number % len(SETTINGS) :], *SETTINGS[: number % len(SETTINGS)]):
            taken[setting].append(_in_a_fresh_process(setting, width, layers))
    megabytes = layers * (width * width + width) * 4 / 1e6
    return [
        {
            "setting": setting,
            "huge": found[0]["huge"],
            "megabytes": round(megabytes, 1),
            **{key: statistics.median(each[key] for each in found) for key in ("wall", "cpu")},
            "walls": [each["wall"] for each in found],
        }
        for setting, found in taken.items()
    ]


def _in_a_fresh_process(setting: str, width: int, layers: int) -> dict[str, Any]:
    command = [sys.executable, "-c", WORKER, str(width), str(layers)]
    environment = os.environ | {"WEIGHTINIT_HUGE_PAGES": setting}
    made: dict[str, Any] = json.loads(
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    )
    return made
