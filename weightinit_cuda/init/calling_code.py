"""Code that stands in a function of ``torch.nn.init`` while it is patched: it hands the call to us."""

from __future__ import annotations

import ast
from types import CodeType, FunctionType

__all__ = ["calling_code"]


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
