"""A checkout in which Python finds the source tree before the installed module: that is said, and what helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from weightinit_cuda import engine

PACKAGE = Path(engine.__file__).parents[1]
CODE = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]  # of the tests' own environment
import weightinit_cuda as wi
print(wi.backend_info().reason)
"""


@pytest.mark.parametrize(("paths", "is_hidden"), [(("tree", "site"), True), (("tree",), False)])
def test_a_source_tree_that_hides_the_installed_module(paths: tuple[str, ...], is_hidden: bool, tmp_path: Path) -> None:
    """After ``pip install .`` the tree has no kernels; to reinstall would not help."""
    for folder in ("tree", "site"):
        shutil.copytree(PACKAGE, tmp_path / folder / PACKAGE.name, ignore=shutil.ignore_patterns("_C*.so", "__pycache__"))
    (tmp_path / "site" / PACKAGE.name / "_C.abi3.so").touch()
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(str(tmp_path / path) for path in paths), "WEIGHTINIT_BACKEND": ""}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    hidden = str(tmp_path / "site" / PACKAGE.name)
    assert (hidden in done.stdout) == is_hidden
    assert (hidden in done.stderr) == is_hidden
    assert ("make build" in done.stderr) == is_hidden
    assert ("Reinstall" in done.stderr) != is_hidden
