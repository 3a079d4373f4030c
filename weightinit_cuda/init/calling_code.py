"""Code that stands in functions of torch while they are patched, instead of their own."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from types import CodeType, FunctionType
from typing import NamedTuple

__all__ = ["Fork", "calling_code", "exchange", "exchange_back"]


class Fork(NamedTuple):
    """A function of torch, the code that it has, and the code that stands there while it is patched."""

    function: FunctionType
    torchs: CodeType
    ours: CodeType


def exchange(forks: Iterable[Fork]) -> None:
    """Puts our code where torch's is; what others have put there stays."""
    for function, torchs, ours in forks:
        if function.__code__ is torchs:
            function.__code__ = ours


def exchange_back(forks: Iterable[Fork]) -> None:
    """Puts torch's code back where ours is."""
    for function, torchs, ours in forks:
        if function.__code__ is ours:
            function.__code__ = torchs


def calling_code(function: FunctionType, module: str, table: str) -> CodeType:
    """Code with the parameters of ``function`` that hands them to the function of that name in a module's table.

    It claims to stand where the function's own code stands, for tracebacks and for those who read the source (``inspect``,
    TorchScript). It comes to us by a way that exists in ``torch.nn.init`` anyway, so that nothing is left there.
    """
    own, name = function.__code__, function.__name__
    parameters = ", ".join(own.co_varnames[: own.co_argcount])
    tree = ast.parse(f"def {name}({parameters}): return torch.sys.modules[{module!r}].{table}[{name!r}]({parameters})")
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr, ast.arg)):
            node.lineno = node.end_lineno = own.co_firstlineno
            node.col_offset = node.end_col_offset = 0
    compiled = compile(tree, own.co_filename, "exec", dont_inherit=True)
    return next(constant for constant in compiled.co_consts if isinstance(constant, CodeType))
