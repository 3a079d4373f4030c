"""The options of commands, and what they are read as. A value that is none is a sentence that names the option."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
import torch

from ..rules import RULE_SETS, Rules
from .blueprint import Blueprint, floating_dtype, open_blueprint
from .libraries import Permissions

__all__ = ["How", "gigabytes", "takes_how"]

Command = TypeVar("Command", bound=Callable[..., Any])


class How(NamedTuple):
    """How a plan is made of a source: the arguments of :func:`.open_blueprint`."""

    rules: str | list[str] | None
    seed: int | None
    dtype: torch.dtype | None
    permissions: Permissions

    def open(self, source: str, unwritten: Rules | None = None) -> Blueprint:
        """The plan of the source, and what else is known."""
        return open_blueprint(source, self.rules, self.seed, self.dtype, self.permissions, unwritten)


def takes_how(function: Command) -> Command:
    """The options that say how a plan is made; the function gets them as one :class:`How`."""

    @wraps(function)
    def called(
        rules: str | list[str] | None,
        seed: int | None,
        dtype: torch.dtype | None,
        online: bool,
        remote_code: bool,
        bare: bool,
        **others: Any,
    ) -> Any:
        return function(how=How(rules, seed, dtype, Permissions(online, remote_code, bare)), **others)

    rules = (
        f"Instead of the model's own code: {', '.join(sorted(RULE_SETS))}. Of several the first that covers a tensor decides."
    )
    dtype = "Of floating-point tensors: float32, bfloat16, ... Default: the plan's or the config's."
    code = "Run Python files that come with a config. Default: never."
    decorated: Any = called
    for option in (
        click.option("--trust-remote-code", "remote_code", is_flag=True, help=code),
        click.option("--online", is_flag=True, help="Download what a config names. Default: nothing is downloaded."),
        click.option("--bare", is_flag=True, help="Take the model without a head where nobody knows the config's class."),
        click.option("--dtype", metavar="DTYPE", callback=_dtype, help=dtype),
        click.option("--seed", metavar="INTEGER", callback=_integer, help="Default: the plan's, or 0."),
        click.option("--rules", metavar="SET[,SET]", callback=_rules, help=rules),
    ):
        decorated = option(decorated)
    result: Command = decorated
    return result


def gigabytes(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """A size of files."""
    try:
        size = float(value)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size > 0):
        raise click.BadParameter(f"a number of gigabytes above 0 is required, got {value!r}.")
    return size


def _integer(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else int(value, 0)
    except ValueError:
        raise click.BadParameter(f"an integer is required, as 7 or 0xff, got {value!r:.100}.") from None


def _dtype(_ctx: click.Context, _param: click.Parameter, value: str | None) -> torch.dtype | None:
    dtype = floating_dtype(value)
    if value is not None and dtype is None:
        raise click.BadParameter(f"a floating-point dtype is required, got {value!r}.")
    return dtype


def _rules(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= RULE_SETS.keys():
        raise click.BadParameter(f"rules must be one of {', '.join(sorted(RULE_SETS))}, got {value!r}.")
    return names[0] if len(names) == 1 else names
