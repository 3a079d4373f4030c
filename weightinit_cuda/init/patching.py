"""``patched()``: the functions of ``init`` under every caller of ``torch.nn.init``.

A function of ``torch.nn.init`` is replaced by exchanging its code, not its name. Whoever bound the function before or binds it
meanwhile (``torch.nn.modules``, the table of originals in ``transformers.initialization``, default arguments, class attributes)
keeps the same object and gets our values, and afterwards there is nothing to find and give back. Modules also call two methods
themselves, ``weight.data.normal_()`` and ``.uniform_()``: these become attributes of ``torch.Tensor`` that hide inherited ones.

In place of both stands a fork: ours in threads that have entered ``patched()``, torch's own in all others. Where operators are
recorded (torch.compile, torch.jit.trace, dispatch modes) ours are operators, too, so that no fill goes unseen. torch's own run
under functorch, and where torch.compile or TorchScript do not look at what stands under a name: the two methods. While
``deferred()`` records a thread, a call is one step of the recording, or else runs torch's function; those that torch's
operators do not show are ours, which are operators themselves (``torch_ops``). This file knows how to get under torch; what the
functions do is in ``init``.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.overrides import handle_torch_function, has_torch_function_unary

from .. import init
from ..engine import backend
from ..engine.drop_in import called
from ..engine.drop_in import method as short_method
from ..tensors.torch_private import (
    DecoratorContextManager,
    TensorBase,
    compiled_code_runs,
    functorch_transform,
    jit_trace,
)
from . import module_attributes
from .calling_code import Fork, calling_code, exchange, exchange_back
from .catalog import CATALOG
from .coverage import Origins, PatchReport
from .records import Records
from .torch_draws import INIT_ONLY, Options, Seen, SeenByModes, TorchDraws, fillable, put_methods, remove_methods

__all__ = ["patch", "patched", "recording", "unpatch"]

_F = TypeVar("_F", bound=Callable[..., Any])

# The names in torch.nn.init. torch's deprecated names call the others, and its private fills with a constant are called by ours
# too.
_ROWS = {name: row for row in CATALOG.values() for name in (row.name, row.private) if name}
_FUNCTIONS = [name for name in (*_ROWS, "calculate_gain") if hasattr(torch.nn.init, name)]
_METHODS = {"uniform_": ("from", "to"), "normal_": ("mean", "std")}  # and, by keyword only, generator

# Looked up once: they are asked in every call, whose whole work may be ten elements.
_dynamo_traces = torch.compiler.is_dynamo_compiling

_ANSWERS = ("tolist", "numpy")  # methods that ask for values, and no operator


class _Thread(threading.local):
    def __init__(self) -> None:
        self.entered: list[patched] = []  # the patched() that this thread is in
        self.recorder: Records | None = None
        self.seen = Seen()


_lock = threading.RLock()
_thread = _Thread()
_everywhere: list[Options] = []  # of each patch() that awaits its unpatch()
_seen_everywhere = Seen()
_users = 0  # all of these together: torch is changed while there are any
_drawing, _recorded = 0, 0  # those with draws="ours"; how many threads are recorded


def _ours_now() -> bool:
    """Whether this thread gets ours, outside of torch.compile. Under functorch it gets torch's."""
    return (
        not _dynamo_traces()  # first: it is all that torch.compile sees of this function
        and (bool(_everywhere) or bool(_thread.entered))
        and functorch_transform() is None
    )


def _ours_in_graphs(drawn: bool) -> bool:
    """Whether torch.compile, which traces this, is to put ours into its graph: what it looks at here it guards.

    Args:
        drawn: with an explicit ``generator=``, which no graph can keep.

    Raises:
        RuntimeError: such a draw is to be ours. torch.compile then leaves the graph, unless it has to be a full one.
    """
    seen = _thread.seen if _thread.seen.ours else _seen_everywhere
    if drawn and seen.generators:
        raise RuntimeError("patched(generators='ours'): a draw with generator= cannot be in a graph of torch.compile.")
    return seen.ours and not drawn


def _draws_from_generators() -> bool:
    """Whether a draw with an explicit ``generator=`` is ours in this thread. By default it is torch's: who passes one means its
    numbers, such as the fixed projections of an adapter."""
    return _options().generators == "ours"


def _options() -> Options:
    """The innermost ones of this thread."""
    return _thread.entered[-1].options if _thread.entered else _everywhere[-1] if _everywhere else INIT_ONLY


def _draws_ours(generator: torch.Generator | None) -> bool:
    """Whether ``torch.randn`` and its like are ours in this thread."""
    return (
        _ours_now()
        and _thread.recorder is None
        and (options := _options()).draws == "ours"
        and (generator is None or options.generators == "ours")
    )


_forks: dict[str, Fork] = {}
_calls: dict[str, Callable[..., Any]] = {}  # all that a function of torch.nn.init does while its code is exchanged


def _forked_function(torchs: FunctionType, ours: Callable[..., Any]) -> Callable[..., Any]:
    row = _ROWS.get(torchs.__name__)
    code = torchs.__code__
    generators = "generator" in code.co_varnames[: code.co_argcount]
    own = code.co_argcount - generators  # it comes last

    def careful(*args: Any) -> Any:
        if _dynamo_traces():
            drawn = generators and args[-1] is not None
            return ours(*args) if row is not None and _ours_in_graphs(drawn) else torchs(*args)
        recorder = _thread.recorder
        if recorder is not None and row is not None:
            if recorder.called(row, args, own):
                return args[0]
            if generators and recorder.seeded(args[-1]):
                return torchs(*args)
            if row.recorded and isinstance(args[0], Tensor) and args[0].is_meta and not is_lazy(args[0]):
                return ours(*args)
        if generators and args[-1] is not None and not _draws_from_generators():
            return torchs(*args)
        return ours(*args) if _ours_now() else torchs(*args)

    def call(*args: Any) -> Any:
        thread = _thread
        if thread.recorder is None and (thread.entered or _everywhere) and backend.native and called(row, args, own):
            return args[0]
        return careful(*args)

    if row is None or not (row.random or row.name in ("zeros_", "ones_")):
        return careful
    call._torchdynamo_inline = careful  # type: ignore[attr-defined]
    return call


def _find_functions() -> None:
    """Completes ``_forks``. What others have put into ``torch.nn.init``, an empty-init for example, is theirs and stays."""
    if len(_forks) == len(_FUNCTIONS):
        return
    namespace = vars(torch.nn.init)
    for name in _FUNCTIONS:
        function = None if name in _forks else namespace.get(name)
        if isinstance(function, FunctionType) and function.__globals__ is namespace and function.__closure__ is None:
            torchs = FunctionType(function.__code__, namespace, name, function.__defaults__)
            _calls[name] = _forked_function(torchs, getattr(init, name))
            _forks[name] = Fork(function, torchs.__code__, calling_code(function, __name__, "_calls"))


def _forked_method(name: str) -> Callable[..., Any]:
    torchs, ours, names, row = getattr(TensorBase, name), getattr(init, name), _METHODS[name], CATALOG[name]

    def careful(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if (
            not _dynamo_traces()
            and (recorder := _thread.recorder) is not None
            and not kwargs
            and len(args) <= 2
            and not (self.requires_grad and torch.is_grad_enabled())
            and not self.is_inference()
            and recorder.called(row, (self, *args, *(0.0, 1.0)[len(args) :]), 3)
        ):
            return self
        if not (_ours_now() and fillable(self)) or (self.requires_grad and torch.is_grad_enabled()):
            return torchs(self, *args, **kwargs)
        if kwargs and kwargs.get("generator") is not None and not _draws_from_generators():
            return torchs(self, *args, **kwargs)
        if has_torch_function_unary(self):
            return handle_torch_function(seen, (self,), self, *args, **kwargs)
        if len(args) <= 2 and not kwargs:
            return ours(self, *args)
        if len(args) > 2 or not kwargs.keys() <= {*names[len(args) :], "generator"}:
            return torchs(self, *args, **kwargs)  # raises its TypeError
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return ours(self, given.get(names[0], 0.0), given.get(names[1], 1.0), given.get("generator"))

    @functools.wraps(torchs)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        thread = _thread
        is_ours = thread.recorder is None and (thread.entered or _everywhere) and backend.native
        if is_ours and short_method(row, names, self, args, kwargs):
            return self
        return careful(self, *args, **kwargs)

    method._torchdynamo_inline = careful  # type: ignore[attr-defined]
    seen = SeenByModes(method, torchs)
    return method


def _answering_method(name: str) -> Callable[..., Any]:
    torchs = getattr(TensorBase, name)

    @functools.wraps(torchs)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder = None if _dynamo_traces() else _thread.recorder
        if recorder is None or not self.is_meta:
            return torchs(self, *args, **kwargs)
        answer = torchs(recorder.value(self), *args, **kwargs)
        if name == "numpy":  # what is written into it would not be recorded: NumPy says so, at that line
            answer.setflags(write=False)
        return answer

    return method


_methods = {name: _forked_method(name) for name in _METHODS}
_answers = {name: _answering_method(name) for name in _ANSWERS}
_draws = TorchDraws(_draws_ours)
_find_functions()


def _install() -> None:
    _find_functions()
    exchange(_forks.values())
    put_methods(_methods)
    module_attributes.put()  # the same as torch's own, sooner


def _uninstall() -> None:
    exchange_back(_forks.values())
    remove_methods(_methods)
    module_attributes.remove()


def _in_compiled_code() -> bool:
    """Whether torch.compile traces this, or runs it because it could not trace it: then it compiles what is called next."""
    return _dynamo_traces() or compiled_code_runs()


def _acquire(function: str, options: Options = INIT_ONLY) -> None:
    global _users, _drawing
    if _in_compiled_code() or jit_trace():
        raise RuntimeError(
            f"{function}: must be called outside of torch.compile and torch.jit.trace, got a call inside."
            " Put it around the call of the compiled or traced function."
        )
    drawing = options.draws == "ours"
    with _lock:
        try:
            if _users == 0:
                _install()
            if drawing and _drawing == 0:
                _draws.put()
        except BaseException:  # Ctrl-C
            if drawing and _drawing == 0:
                _draws.remove()
            if _users == 0:
                _uninstall()
            raise
        _users += 1
        _drawing += drawing


def _release(options: Options = INIT_ONLY) -> None:
    global _users, _drawing
    drawing = options.draws == "ours"
    with _lock:
        _users -= 1
        _drawing -= drawing
        if drawing and _drawing == 0:
            _draws.remove()
        if _users == 0:
            _uninstall()


@contextmanager
def recording(recorder: Records) -> Iterator[None]:
    """Puts a recorder, and real values, under the callers of this thread, for ``deferred()``.

    Raises:
        RuntimeError: the thread is recorded already, or is inside torch.compile or torch.jit.trace.
    """
    global _recorded
    if _thread.recorder is not None:
        raise RuntimeError("deferred: must not be nested in a thread, got a second one. Use the recording of the outer block.")
    _acquire("deferred")
    with _lock:
        _recorded += 1
    try:
        with _lock:
            put_methods(_answers)
        _thread.recorder = recorder
        yield
    finally:
        _thread.recorder = None
        with _lock:
            _recorded -= 1
            if _recorded == 0:
                remove_methods(_answers)
        _release()


class patched(DecoratorContextManager):
    """Puts :mod:`weightinit_cuda.init` under every caller of ``torch.nn.init``, in this thread, until it is left.

    A context manager, and a decorator of functions and generator functions, with or without parentheses. It may be nested.
    Every function of ``torch.nn.init`` becomes ours wherever it is bound, and ``Tensor.normal_`` and ``Tensor.uniform_`` for
    float and complex tensors and DTensors, in a forward pass as well. The other draws in place (``exponential_``, ...) stay
    torch's; ``torch.randn`` does where ``draws`` does not say otherwise. The marks of transformers (``_is_hf_initialized``) are
    honoured, by transformers.

    Draws with an explicit ``generator=`` stay torch's, too: who passes one means its numbers, such as fixed projections.

    Args:
        report: watch where values come from, in this thread: ``with patched(report=True) as report:``, then
            ``report.of(model)``. Every call of torch takes longer meanwhile.
        generators: "ours" takes draws with a ``generator=``, too, and draws a seed from it.
        draws: "ours" takes ``torch.randn``, ``rand``, ``randn_like``, ``rand_like`` and ``normal`` of numbers, too, called by
            these names: what was bound before (``from torch import randn``) stays torch's. So do, then as well, calls with
            ``out=``, tensor subclasses, what is not float or complex, and calls in torch.compile.

    Other threads keep torch's functions, those started inside too; :func:`patch` is for all threads. What ``nn.Module`` does
    with attributes is done sooner in all of them meanwhile, and is the same. Under dispatch modes, in
    torch.jit.trace and torch.compile ours are operators of the graph. Three things stay torch's there: both methods in
    torch.compile, what torch.jit.script compiles, and everything under functorch transforms.

    Raises:
        RuntimeError: entered inside torch.compile or torch.jit.trace, or left in another thread than it was entered in.
        TypeError: it decorates a class or a coroutine.
        ValueError: generators or draws is something else.

    >>> import weightinit_cuda as wi
    >>> with wi.patched():
    ...     _ = torch.manual_seed(0)
    ...     layer = torch.nn.Linear(4, 2)
    >>> _ = torch.manual_seed(0)
    >>> bool((layer.weight == wi.init.kaiming_uniform_(torch.empty(2, 4), a=5**0.5)).all())
    True
    """

    def __new__(cls, orig_func: Any = None, **options: Any) -> Any:
        return super().__new__(cls, orig_func)

    def __init__(
        self, orig_func: None = None, *, report: bool = False, generators: str = "torch", draws: str = "torch"
    ) -> None:
        self.report, self.options = report, Options.checked("patched", generators, draws)
        self._watches: list[Origins | None] = []

    def clone(self) -> patched:
        """One for each call of a decorated function."""
        return type(self)(report=self.report, **self.options._asdict())

    def __enter__(self) -> PatchReport:  # type: ignore[override]
        _acquire("patched", self.options)
        _thread.entered.append(self)
        _thread.seen = Seen.of(self.options)
        watch = Origins() if self.report else None
        self._watches.append(watch)
        if watch is not None:
            watch.__enter__()  # type: ignore[no-untyped-call]
        return PatchReport(watch)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self not in _thread.entered:
            raise RuntimeError(
                f"patched: must be left in the thread that entered it, got thread {threading.get_ident()}, which has not."
                " Give each thread a patched() of its own, or use patch() and unpatch()."
            )
        if (watch := self._watches.pop()) is not None:
            watch.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        _thread.entered.remove(self)
        _thread.seen = Seen.of(_thread.entered[-1].options if _thread.entered else None)
        _release(self.options)

    def __call__(self, function: _F) -> _F:
        if inspect.isclass(function) or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"patched: only functions and generator functions can be decorated, got {function!r}."
                " Decorate __init__ instead of a class; use `with patched():` between two awaits instead of around them."
            )
        return super().__call__(function)


def patch(*, generators: str = "torch", draws: str = "torch") -> None:
    """As :func:`patched`, in all threads, until :func:`unpatch` has been called as often.

    Args:
        generators, draws: as of :func:`patched`. The last call decides; inside a :func:`patched` that one does.

    Raises:
        RuntimeError: called inside torch.compile or torch.jit.trace.
        ValueError: generators or draws is something else.
    """
    global _seen_everywhere
    options = Options.checked("patch", generators, draws)
    with _lock:
        _acquire("patch", options)
        _everywhere.append(options)
        _seen_everywhere = Seen.of(options)


def unpatch() -> None:
    """Takes back one :func:`patch`.

    Raises:
        RuntimeError: there is none to take back.
    """
    global _seen_everywhere
    with _lock:
        if not _everywhere:
            raise RuntimeError("unpatch: must follow a patch(), got none to take back. A `with patched():` ends by itself.")
        _release(_everywhere.pop())
        _seen_everywhere = Seen.of(_everywhere[-1] if _everywhere else None)
