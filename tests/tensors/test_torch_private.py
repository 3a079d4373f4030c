"""Each private name of torch that the library uses is there in this torch, and is said in one file."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

import pytest
import torch

from weightinit_cuda.tensors import torch_private

PACKAGE = Path(torch_private.__file__).parents[1]


@pytest.mark.parametrize("name", torch_private.PRIVATE)
def test_torch_has_it(name: str) -> None:
    if name.startswith("torch._C._cuda_") and torch.version.cuda is None:
        pytest.skip("this torch has no CUDA")
    if name.endswith("set_code_exec_strategy") and torch.__version__ < (2, 8):
        pytest.skip("did not come before torch 2.7 or 2.8")
    parts = name.split(".")
    for at in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:at]))
        except ImportError:
            continue
        try:
            functools.reduce(getattr, parts[at:], found)
        except AttributeError as error:
            pytest.fail(f"torch {torch.__version__} has lost {name} ({torch_private.PRIVATE[name]}): {error}")
        return


def test_no_other_file_says_one() -> None:
    private = re.compile(
        r"\btorch(?:\.\w+)*\._[a-zA-Z]\w*|from torch[\w.]*\._\w+[\w.]* import|from torch[\w.]* import .*\b_[a-z]\w*"
    )
    for path in PACKAGE.rglob("*.py"):
        if path.stem == "torch_private":
            continue
        code = re.sub(r"#.*|``[^`]*``", "", path.read_text())
        found = [match for match in private.findall(code) if "OpOverload" not in match and match != "torch._ops"]
        assert not found, f"{path.relative_to(PACKAGE)} says {found}: put it into tensors/torch_private.py"
