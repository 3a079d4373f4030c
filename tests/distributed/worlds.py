"""Worlds of several processes, each started once: torchrun runs all flows in it, the tests read what the ranks wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).parent / "worker.py"
SIZES = (8, 4, 3, 2, 1)  # in this order: a world loads the checkpoints of those before it
USUAL = (2, 1)
PATIENCE = 240  # seconds for one world, many times what it takes

Reports = list[dict[str, dict[str, Any]]]  # of each rank, what each flow found
Worlds = Callable[[int], Reports]


def sizes(config: pytest.Config) -> tuple[int, ...]:
    """All where this folder was asked for (`make test-distributed`); two in a run of everything, to keep it short."""
    asked = any("distributed" in argument for argument in config.invocation_params.args)
    return SIZES if asked else USUAL


@pytest.fixture(scope="session")
def worlds(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    scratch, chosen = tmp_path_factory.mktemp("worlds"), sizes(pytestconfig)

    @cache
    def world(size: int) -> Reports:
        if size != chosen[0]:  # it loads what those before it have saved
            world(chosen[chosen.index(size) - 1])
        run(size, scratch)
        return [_report(scratch / f"{size}-{rank}.jsonl") for rank in range(size)]

    return world


def run(size: int, scratch: Path) -> None:
    """One torchrun. Its rendezvous takes a port that is free; a world that hangs is ended, all processes of it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), str(WORKER)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "examples"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with (scratch / f"{size}.log").open("w+") as log:
        process = subprocess.Popen([*command, str(scratch)], stdout=log, stderr=log, env=environment)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            print(f"a world of {size} took longer than {PATIENCE} s")  # once: what its ranks have written is read
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun passes it on to the ranks, and kills those that stay
                process.wait()
        if process.returncode:
            log.seek(0)
            print(log.read()[-8000:])  # pytest shows it with the first test that fails


def _report(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["flow"]: found for found in map(json.loads, lines)}
