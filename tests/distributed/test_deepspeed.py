"""DeepSpeed itself, on CPUs: what its ranks gather after a fill of their own parts has the bits of a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.peer
@pytest.mark.parametrize("size", [2, 3])
def test_zero3(size: int, tmp_path: Path) -> None:
    found = run(size, tmp_path)
    assert len(found) == size
    for rank in found:
        assert rank.pop("differing") == dict.fromkeys(("initialize_", "apply_", "gathered, then partitioned", "drawn seeds"), 0)
        assert rank == found[0]
    assert found[0]["fingerprint"] == found[0]["expected"]


def run(size: int, scratch: Path) -> list[dict[str, Any]]:
    worker = Path(__file__).parent / "deepspeed_worker.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), str(worker)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run([*command, str(scratch)], capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((scratch / f"{rank}.json").read_text()) for rank in range(size)]
