"""What a launch asks of its process, each in one of its own: the first use in a capture, any number of rows there, another
thread, and a fork after ``backend_info()``."""

from __future__ import annotations

import subprocess
import sys

import pytest
from on_device import on_gpu

pytestmark = list(on_gpu)

START = """
import os, threading
import torch
import weightinit_cuda as wi

def seven(device):
    return torch.zeros(2 * 14 * 2 * 2 * 2 * 2 * 2, device=device).view(2, 14, 2, 2, 2, 2, 2).permute(1, 6, 5, 4, 3, 2, 0)

def check(filled):
    torch.cuda.synchronize()
    assert torch.equal(filled.cpu(), wi.init.normal_(torch.empty(filled.shape), seed=5))
"""
CASES = {
    "the first use is captured": """
        filled = torch.zeros(1000, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            wi.init.normal_(filled, seed=5)
        graph.replay()
        check(filled)
    """,
    "many rows of one tensor are captured": """
        filled = seven("cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            wi.init.normal_(filled, seed=5)
        filled.zero_()
        graph.replay()
        check(filled)
    """,
    "a thread that has used no CUDA": """
        filled = torch.zeros(1000, device="cuda")
        thread = threading.Thread(target=lambda: wi.init.normal_(filled, seed=5))
        thread.start()
        thread.join()
        check(filled)
    """,
    "a fork after backend_info": """
        assert wi.backend_info().cuda == "native"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                check(wi.init.normal_(torch.empty(1000, device="cuda"), seed=5))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_in_a_process_of_its_own(case: str) -> None:
    body = "\n".join(line.removeprefix(" " * 8) for line in CASES[case].splitlines())
    done = subprocess.run([sys.executable, "-c", START + body], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
