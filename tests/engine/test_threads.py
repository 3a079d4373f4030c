"""The threads of the kernels: how many there are and where they may run, fork, the end of the process, no memory for a thread.

The pool alone is tested by tests/native/thread_tests.cpp. Here it is a part of a Python process, beside torch's own threads;
every test looks at the values, too. What depends on the process runs in another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import available, made

from weightinit_cuda.engine import backend
from weightinit_cuda.numerics.distributions import Normal

N = 1 << 22  # milliseconds: worth all threads
EXPECTED = zlib.crc32(made(Normal(0.0, 1.0), torch.float32, N, 1).numpy().tobytes())
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

pytestmark = [
    pytest.mark.skipif(available() == ["reference"], reason="no compiled kernels"),
    pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc"),
]

PRELUDE = f"""
import os, resource, signal, sys, threading, zlib
import torch
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Normal, Uniform

tensor = torch.empty({N})

def fill(into=tensor):
    engine.fill([FillJob(into, Normal(0.0, 1.0), 1)])

def right():
    tensor.numpy().fill(0)  # torch's own kernels may hang in a child
    fill()
    return zlib.crc32(tensor.numpy()) == {EXPECTED}

def fill_until_there_are(n):
    '''A worker that comes late calls no others, and has its name once it has come.'''
    while len(workers()) < n:
        assert right()

def workers():
    '''The threads of ours: the CPUs that each may run on.'''
    found = []
    for task in os.listdir("/proc/self/task"):
        if open(f"/proc/self/task/{{task}}/comm").read() == "weightinit\\n":
            found.append(os.sched_getaffinity(int(task)))
    return found

def in_child(test):
    '''The status of a child that ends with what `test` returns.'''
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs is killed
        os._exit(0 if test() else 3)
    return os.waitpid(child, 0)[1]
"""


def python(code: str, **settings: str) -> str:
    """What another interpreter prints, which must end well and complain of nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WEIGHTINIT_", "OMP_"))}
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | settings
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_number_of_workers() -> None:
    """As torch.set_num_threads says, at most one for each CPU, none before there is work, none for little work."""
    code = """
        torch.set_num_threads(1)
        assert right() and not workers(), "one thread"
        torch.set_num_threads(8)
        engine.fill([FillJob(torch.empty(1 << 16), Uniform(0.0, 1.0), 1)])
        assert not workers(), "20 microseconds"
        cpus = sorted(os.sched_getaffinity(0))
        fill_until_there_are(min(len(cpus), 8) - 1)
        for _ in range(20):
            assert right()
        print(len(workers()), cpus)
        torch.ones(1 << 23).exp_()  # torch's own threads
        assert right()
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert in_child(lambda: right() and not workers()) == 0, "a child on one CPU needs no workers"
    """
    number, cpus = python(code).split(maxsplit=1)
    assert int(number) == min(len(cpus.split(",")), 8) - 1


@pytest.mark.skipif(CPUS < 2, reason="one CPU")
def test_where_openmp_binds_threads() -> None:
    """libgomp binds the interpreter's thread to one place when torch is loaded. Workers do not inherit that, and are as many as
    torch has threads."""
    code = """
        torch.set_num_threads(8)
        fill_until_there_are(7)
        for _ in range(20):
            assert right()
        print(len(workers()), min(map(len, workers())))
    """
    number, narrowest = map(int, python(code, OMP_PROC_BIND="true").split())
    assert number == 7
    assert narrowest >= 2


@pytest.mark.skipif(CPUS < 2, reason="one CPU")
def test_forked_children_have_workers_of_their_own() -> None:
    """After the parent has filled, four children at once, and a child of a child."""
    code = """
        torch.set_num_threads(2)
        fill_until_there_are(1)

        def child():
            assert not workers()
            fill_until_there_are(1)
            return right() and len(workers()) == 1

        assert in_child(lambda: child() and in_child(child) == 0) == 0
        children = [threading.Thread(target=lambda: statuses.append(in_child(child))) for _ in range(4)]
        statuses = []
        for one in children:
            one.start()
        for one in children:
            one.join()
        assert statuses == [0] * 4, statuses
        assert right() and len(workers()) == 1
    """
    python(code)


def test_the_end_of_the_process() -> None:
    """While threads fill, and by a fill at exit: no crash, no message, no waiting.

    What the threads call is the kernels alone: a daemon thread that is ended in a method of a tensor may abort the process,
    with torch's own functions, too.
    """
    code = """
        import atexit
        from weightinit_cuda.engine import native
        from weightinit_cuda.numerics.lowering import lower

        normal = Normal(0.0, 1.0)

        def forever():
            mine = torch.empty(1 << 20)
            job = native.native_job(FillJob(mine, normal, 1), lower(normal, mine.dtype))
            fill_again = native.kernels.CpuFill([job])
            started.release()
            while True:
                fill_again.run(1, 2)

        started = threading.Semaphore(0)
        for _ in range(3):
            threading.Thread(target=forever, daemon=True).start()
            started.acquire()
        atexit.register(lambda: print(right()))
    """
    assert python(code) == "True\n"


def test_no_memory_for_a_thread() -> None:
    """A worker that cannot be started is done without."""
    code = """
        torch.set_num_threads(2)
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, ((pages << 12) + (4 << 20),) * 2)  # a stack takes 8 MB
        assert right() and right() and not workers()
    """
    python(code)


def test_openmp_is_not_used() -> None:
    module = backend.kernels.__file__
    assert module is not None
    with open(module, "rb") as file:
        content = file.read()
    assert b"GOMP_parallel" not in content
    assert b"omp_get" not in content


def test_many_sizes_on_many_threads_at_once() -> None:
    """Fills of all lengths side by side, workers shared among six callers: nobody takes a tile twice or leaves one out."""
    sizes = [1 << 15, (1 << 17) + 5, (1 << 19) - 3, 1 << 20, 777_777, 20 * 768 * 3]
    torch.set_num_threads(1)
    expected = [made(Normal(0.0, 1.0), torch.float32, n, n) for n in sizes]
    torch.set_num_threads(2)

    def work(caller: int) -> list[bool]:
        order = [(caller + step) % len(sizes) for step in range(30)]
        return [torch.equal(made(Normal(0.0, 1.0), torch.float32, sizes[i], sizes[i]), expected[i]) for i in order]

    with ThreadPoolExecutor(6) as pool:
        assert all(all(right) for right in pool.map(work, range(6)))
