"""The build without a build: the architectures it chooses, what it says is missing, what it ships, and old glibc's symbols."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import old_glibc  # noqa: E402

CMAKE = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
needs_cmake = pytest.mark.skipif(CMAKE is None, reason="no cmake")

# ---- architectures --------------------------------------------------------------------------------------------------

ALL_13 = "75-real;80-real;86-real;89-real;90-real;100;120-real"


def chosen(
    tmp_path: Path, defines: dict[str, str], torch_list: str = "", gpus: str = "", cuda: str = "13.0"
) -> tuple[int, str]:
    """Status and last line of cmake/architectures.cmake on a machine with such GPUs, as nvidia-smi prints them."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\nprintf '{gpus}'\n" if gpus else "#!/bin/sh\necho 'no devices were found'; exit 6\n")
    smi.chmod(0o755)
    cache = {"CMAKE_CUDA_COMPILER_VERSION": cuda, "WEIGHTINIT_NVIDIA_SMI": str(smi), **defines}
    command = [str(CMAKE), *(f"-D{name}={value}" for name, value in cache.items())]
    done = subprocess.run(
        [*command, "-P", str(ROOT / "tests" / "native" / "architectures.cmake")],
        env={**os.environ, "TORCH_CUDA_ARCH_LIST": torch_list},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, " ".join(done.stdout.split())


IN_PLACE = {"WEIGHTINIT_IN_PLACE": "1"}
CASES = {
    "nothing said, no GPU": ({}, "", "", "13.0", f"{ALL_13}|all there are, since there is no GPU here"),
    "the oldest CUDA": ({}, "", "", "11.8.89", "75-real;80-real;86-real;89-real;90|all there are, since there is no GPU here"),
    "before that": ({}, "", "", "11.7", "CUDA 11.7 is too old, 11.8 is needed"),
    "before CUDA 12.8": ({}, "", "", "12.4", "75-real;80-real;86-real;89-real;90|all there are, since there is no GPU here"),
    "development, no GPU": (IN_PLACE, "", "", "13.0", "90-real|a development build without a GPU"),
    "development, a GPU": (IN_PLACE, "", "8.0\\n", "13.0", "80|the GPUs of this machine"),
    "GPUs": ({}, "", "9.0\\n7.5\\n9.0\\n10.0\\n", "13.0", "75-real;90-real;100|the GPUs of this machine"),
    "a GPU that this nvcc does not know": ({}, "", "8.9\\n10.0\\n", "12.4", "89-real;90-virtual|the GPUs of this machine"),
    "said": ({"WEIGHTINIT_CUDA_ARCHITECTURES": "70;86"}, "9.0", "8.0\\n", "12.4", "70;86|WEIGHTINIT_CUDA_ARCHITECTURES"),
    "said: all": ({"WEIGHTINIT_CUDA_ARCHITECTURES": "all"}, "9.0", "", "13.0", f"{ALL_13}|WEIGHTINIT_CUDA_ARCHITECTURES=all"),
    "torch's list": (IN_PLACE, "8.0;8.6+PTX", "9.0\\n", "13.0", "80-real;86|TORCH_CUDA_ARCH_LIST"),
    "torch's list, spaces": ({}, "8.0 9.0a", "", "13.0", "80-real;90a-real|TORCH_CUDA_ARCH_LIST"),
    "torch's names": ({}, "Ampere Hopper", "", "13.0", "80-real;86;90|TORCH_CUDA_ARCH_LIST"),
}  # fmt: skip


@needs_cmake
@pytest.mark.parametrize("case", CASES)
def test_architectures(case: str, tmp_path: Path) -> None:
    defines, torch_list, gpus, cuda, expected = CASES[case]
    assert chosen(tmp_path, defines, torch_list, gpus, cuda) == (0, expected)


@needs_cmake
def test_what_cannot_be_built_is_left_out_and_said(tmp_path: Path) -> None:
    status, said = chosen(tmp_path, {}, "6.1 7.0 8.0")
    assert status == 0
    assert said.endswith("80-real|TORCH_CUDA_ARCH_LIST")
    assert "7.0 is left out, sm_75 is the oldest" in said
    assert chosen(tmp_path, {}, "7.0", cuda="12.4")[1] == "70-real|TORCH_CUDA_ARCH_LIST"
    wrong = {"6.1": 'nothing in "6.1" can be built here', "9.0 fast": 'must be a list as "8.0 9.0+PTX", got "fast"'}
    for nonsense, message in wrong.items():
        status, said = chosen(tmp_path, {}, nonsense)
        assert status != 0
        assert message in said


# ---- setup.py -------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """In the last lines, with the way out: no compiler, no CMake, no Ninja."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CMAKE_ARGS", "WEIGHTINIT_NATIVE")}
    code = "import sysconfig; sysconfig.get_path = lambda *_: ''; import runpy, sys; sys.argv = ['setup.py', 'build_ext']"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} + ['--build-temp', '{tmp_path}']; runpy.run_path('setup.py')"],
        cwd=ROOT,
        env={**environment, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-3:]
    assert last[0].endswith("could not be built: no C++ compiler and no cmake and no ninja.")
    assert "WEIGHTINIT_NATIVE=0" in last[-1]


def test_the_source_distribution_is_complete() -> None:
    """Every file of the repository is in a folder or has a name that MANIFEST.in holds, or setuptools takes it by itself."""
    try:
        tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True, stderr=subprocess.DEVNULL).splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git repository")
    words = re.findall(r"^(?:include|graft) (.*)$", (ROOT / "MANIFEST.in").read_text(), re.MULTILINE)
    held = {word for line in words for word in line.split()} | {"weightinit_cuda"}
    held |= {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    of_github = {".github", ".gitignore", ".pre-commit-config.yaml"}
    assert {name.split("/")[0] for name in tracked} - of_github <= held


# ---- tools/old_glibc.py ---------------------------------------------------------------------------------------------

OBJDUMP = """\
0000000000089380 g    DF .text\t0000000000000eed  GLIBC_2.34  pthread_create
0000000000089380 g    DF .text\t0000000000000eed (GLIBC_2.2.5) pthread_create
0000000000089380 g    DF .text\t0000000000000eed (GLIBC_2.1) pthread_create
00000000000a1340 g    DF .text\t00000000000000ad  GLIBC_2.35  epoll_pwait2
00000000000c13b0  w   DF .text\t000000000000000d  GLIBC_2.34  sem_wait
00000000000c13b0 g    DF .text\t000000000000000d (GLIBC_2.18) sem_wait
00000000000a2680 g   iD  .text\t0000000000000109  GLIBC_2.14  memcpy
00000000000a2680 g   iD  .text\t0000000000000109 (GLIBC_2.2.5) memcpy
"""


def test_moved_symbols() -> None:
    """Those that are too new and were there before 2.17, under the latest version until then."""
    assert old_glibc.moved(OBJDUMP) == {"pthread_create": "2.2.5"}


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc") or not shutil.which("objdump"), reason="no gcc, no objdump"
)
def test_a_library_for_old_systems(tmp_path: Path) -> None:
    """It asks for what is linked with the made libraries under no version after 2.17; it did before."""
    source = tmp_path / "used.c"
    source.write_text("#include <pthread.h>\n#include <dlfcn.h>\nvoid* used[] = {pthread_create, pthread_once, dlsym};\n")

    def versions(*libraries: str) -> list[tuple[int, ...]]:
        command = ["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", str(source), *libraries, "-o", str(tmp_path / "used.so")]
        subprocess.run(command, check=True)
        table = subprocess.check_output(["objdump", "-T", tmp_path / "used.so"], text=True)
        return [old_glibc.version(number) for number in re.findall(r"\*UND\*.*GLIBC_([\d.]+)\)? +(?:pthread|dl)", table)]

    old_glibc.main(tmp_path / "old")
    made = [str(tmp_path / "old" / name) for name in ("libpthread.so.0", "libdl.so.2")]
    before, after = versions(), versions(*made)
    assert len(before) == len(after) == 3
    assert max(after) <= old_glibc.NEWEST
    if max(before) <= old_glibc.NEWEST:
        pytest.skip("this system's glibc is an old one")
