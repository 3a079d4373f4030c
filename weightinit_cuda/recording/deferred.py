"""``deferred()``: a model's own construction code, recorded instead of run; later its plan, and its values.

Inside the block every tensor that the code makes is on meta and costs nothing, and what the code does with it goes on a tape
(``recorder``). :class:`Recording` finds the tensors of a model on that tape (``targets``), turns the tape into a plan
(``folding``, ``ownership``) and puts real memory under the same tensors (``memory``): one pass of the engine for all that is a
fill, a copy of small tables that are known (``known``), a replay for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..init import patching
from ..init.arguments import seed_of
from ..plans.plan import Plan
from ..plans.seeds import prefix_of
from ..plans.without_elements import with_those_without_elements
from ..rules import Rules
from ..tensors.boxes import remainder
from ..tensors.kinds import MODULE, must_be
from ..tensors.named import PLAIN_TYPES, TENSOR, Named, look_inside
from ..tensors.shards import is_dtensor
from ..tensors.torch_private import default_device, function_modes
from .answers import answering
from .computing import compute
from .folding import Folded
from .interrupts import Interrupts
from .lines import by_rules, entries_of
from .materialize import (
    finish,
    is_one_fill,
    materialize,
    memory_apart,
    move_others,
    one_like,
    unmixed,
)
from .ownership import Claims
from .recorder import Recorder
from .stand_ins import standing_in
from .tape import CPU, META, FillStep, Memory, View
from .targets import NOBODY, Found, Target, attributes, kept, without_elements
from .views import box_of
from .wholes import ByModule, Made, Whole, Wholes, registered

__all__ = ["Recording", "deferred"]

Module = TypeVar("Module", bound=nn.Module)
Device = torch.device | str | int | None
NO_PLAN = Plan((), 0, "deferred")


class Recording:
    """What was recorded in a ``with deferred()`` block.

    A part of a model gets the values that it has in the whole: its tensors are named from the outermost module that the block
    made. Without ``seed=`` a model's seed is drawn at its first need and kept here, so parts that are filled one after the
    other have one seed; another model of the block gets another one, unless it holds copies (``deepcopy``, ``AveragedModel``),
    which are equal, as in eager code. Where such models need names for what they share, those of the first that is asked for
    are taken.
    """

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._modules = ByModule[dict[str, View | Memory]]()
        self._wholes = Wholes(self._modules)
        self._attributes = ByModule[View | Memory]()  # of tensors that are plain attributes of modules
        self._elsewhere = Whole(lambda: None, made=False)  # of all parts that come with a prefix
        self._active = False

    def __repr__(self) -> str:
        return f"<Recording: {len(self._recorder.steps)} steps, {self.filled:,} values filled>"

    @property
    def filled(self) -> int:
        """How many values the code has filled, overwritten ones included, which is what eager construction would draw."""
        steps = (step for step in self._recorder.steps if isinstance(step, FillStep) and step.distribution is not None)
        return sum(step.writes[0].geometry.numel for step in steps)

    # ---- plan and values -------------------------------------------------------------------------------------------

    def plan(
        self,
        model: nn.Module,
        seed: SupportsIndex | None = None,
        *,
        rules: Rules | None = None,
        prefix: str | None = None,
    ) -> Plan:
        """What the recorded code fills the model with: each entry names the line of code that it comes from.

        The model may have been sharded (``fully_shard``), cast or given memory since: its tensors are found by their storage,
        else by their place in their module.

        Args:
            model: a module that was made in the block, or a part of one.
            seed: 64 bits. None: drawn once for each model of the block, from torch's default generator. Ranks that share
                DTensors agree on one, so all of them must call this; of plain tensors they do not: call
                ``torch.manual_seed`` alike on all ranks, or give ``seed=``.
            rules: for tensors that the code leaves unwritten (``torch.empty``).
            prefix: where the model belongs in a whole that this block did not make: ``"layers.0"``. Streams are made of the
                longer names; the plan lists the model's own. None: the block knows; "": the model is the whole.

        Returns:
            A plan of all parameters and buffers. Lines with :class:`.Computed` are no fills: :meth:`materialize_` replays them.

        Raises:
            ValueError: the code leaves tensors unwritten, or never made them; all of them are named.
        """
        found = self._found("plan", model)
        whole, claims = self._claims("plan", model, found, found.held(), prefix)
        made = self._plan("plan", model, [t for t in found.targets if not t.attribute], whole, claims, seed, rules)
        if not (bare := without_elements(found.targets, found.others)):
            return made
        return replace(made, entries=with_those_without_elements(made.entries, bare, found.names(), claims.stream))

    def materialize_(
        self,
        model: Module,
        device: Device = None,
        dtype: torch.dtype | None = None,
        seed: SupportsIndex | None = None,
        *,
        rules: Rules | None = None,
        prefix: str | None = None,
        keep: str | Sequence[str] = (),
    ) -> Module:
        """Gives the model its memory and its initial values, in one pass over the CPU, or on each GPU one launch
        for each size of an element.

        Tensors stay the same objects, with their ties, hooks and attributes. Those that have memory already are filled where
        they are. What is no fill is replayed on the CPU, so that its bits are the same for every device. Of a DTensor each
        rank allocates and fills its own shard.

        Args:
            model: a module that was made in the block, or a part of one.
            device: None: for each tensor the one that the code asked for.
            dtype: of floating-point parameters and buffers, not of plain attributes; None: the code's own.
            seed, rules, prefix: as for :meth:`plan`.
            keep: globs of names that ``dtype`` does not change: ``"*inv_freq"``, whose rotary angles bfloat16 spoils.

        Returns:
            The model.

        Raises:
            ValueError: as :meth:`plan`; or a glob matches nothing. Nothing is allocated then.
            RuntimeError: called inside the block.
        """
        found = self._found("materialize_", model)
        unchanged = kept("materialize_", found, keep)
        steps = self._recorder.steps
        alone, targets, held = found.apart(steps) if dtype is None else (NOBODY, found.targets, found.held())
        whole, claims = self._claims("materialize_", model, found, held, prefix)
        if alone.layered and not claims.are_first:
            alone, targets, _ = found.apart(steps, layers=False)
        planned = targets if dtype is not None else [t for t in targets if not is_one_fill(t)]
        if planned:
            plan = self._decided("materialize_", model, planned, whole, claims, unchanged, seed, dtype, rules)
            key = plan.seed
        else:
            plan, key = NO_PLAN, self._key("materialize_", whole, (), seed)  # all plain: no rank need be asked
        where = None if device is None else torch.device(device)
        with torch.no_grad():
            materialize(alone, targets, claims, plan, key, where, partial(compute, claims, plan))
            empty = [t.named._replace(tensor=one) for t in targets if not t.named.tensor.numel() for one in t.objects]
            move_others((*found.others, *empty), device, dtype, unchanged)
            finish(model, found, [named.tensor for named in (*(t.named for t in targets), *found.others)])
        return model

    def values(
        self,
        model: nn.Module,
        seed: SupportsIndex | None = None,
        *,
        dtype: torch.dtype | None = None,
        rules: Rules | None = None,
        prefix: str | None = None,
        keep: str | Sequence[str] = (),
    ) -> Callable[[str], Tensor]:
        """The values of single tensors on the CPU, without the rest: for checkpoints of models that do not fit into memory.

        Args:
            model, seed, dtype, rules, prefix, keep: as for :meth:`materialize_`.

        Returns:
            A function of a name of ``plan(model)``, or of one without elements.

        Raises:
            ValueError: as :meth:`plan`.

        >>> import weightinit_cuda as wi
        >>> with wi.deferred() as recorded:
        ...     net = nn.Linear(2, 2, bias=False)
        ...     net.register_buffer("steps", torch.arange(3.0).square())
        >>> recorded.values(net)("steps")
        tensor([0., 1., 4.])
        """
        found = self._found("values", model)
        unchanged = kept("values", found, keep)
        whole, claims = self._claims("values", model, found, found.held(), prefix)
        plan = self._decided("values", model, found.targets, whole, claims, unchanged, seed, dtype, rules)
        by_name = {t.named.name: t for t in found.targets}
        bare = {n: named for named in without_elements(found.targets, found.others) for n in (named.name, *named.aliases)}

        def value(name: str) -> Tensor:
            if name in bare and name not in plan:
                return one_like(bare[name], None if bare[name].name in unchanged else dtype)
            target = by_name[plan[name][0].name]
            chosen = [by_name[target.within], target] if target.within else [target]
            with torch.no_grad():
                real = memory_apart(chosen, plan)
                plan.fill_(real)
                compute(claims, plan, chosen, real)
            return real[target.named.name]

        return value

    def unwritten(self, model: nn.Module) -> list[str]:
        """The tensors that the code only allocates (``torch.empty``), wholly or in part."""
        found = self._found("unwritten", model)
        names = Claims(self._recorder.steps, self._folded, found.held()).unwritten
        return [target.named.name for target in found.targets if target.named.name in names and not target.attribute]

    def overwritten(self, model: nn.Module) -> dict[str, list[str]]:
        """For each tensor the lines of code whose random fill later fills overwrite wholly: what eager construction draws in
        vain."""
        found: dict[str, list[str]] = {}
        for target in self._found("overwritten", model).targets:
            memory, frame = target.memory, target.view.geometry
            steps = [self._recorder.steps[number] for number in memory.steps]
            views = [(step, view) for step in steps for view in step.writes if view.memory is memory]
            boxes = [box_of(frame, view.geometry) for _, view in views]
            for at, (step, _) in enumerate(views):
                box, later = boxes[at], [box for box in boxes[at + 1 :] if box is not None]
                random = isinstance(step, FillStep) and step.distribution is not None and step.distribution.is_random
                if random and box is not None and not remainder(box, later):
                    found.setdefault(target.named.name, []).append(step.source)
        return found

    def _decided(
        self,
        function: str,
        model: nn.Module,
        targets: Sequence[Target],
        whole: Whole,
        claims: Claims,
        unchanged: Collection[str],
        seed: SupportsIndex | None,
        dtype: torch.dtype | None,
        rules: Rules | None,
    ) -> Plan:
        """The plan of these targets, plain attributes too, in the dtype that is asked for."""
        plan = self._plan(function, model, targets, whole, claims, seed, rules)
        if dtype is None:
            return unmixed(plan, targets)
        as_recorded = {*unchanged, *(t.named.name for t in targets if t.attribute and not t.within)}  # as `.to()` leaves them
        cast = plan.with_dtype(dtype)
        entries = tuple(a if a.name in as_recorded else b for a, b in zip(plan, cast, strict=True))
        return unmixed(Plan(entries, cast.seed, "deferred"), targets)

    def _plan(
        self,
        function: str,
        model: nn.Module,
        targets: Sequence[Target],
        whole: Whole,
        claims: Claims,
        seed: SupportsIndex | None,
        rules: Rules | None,
    ) -> Plan:
        unwritten = claims.unwritten if targets else ()
        given = by_rules(model, [t for t in targets if t.named.name in unwritten], rules, claims)
        entries = tuple(entry for t in targets for entry in (*given.get(t.named.name, ()), *entries_of(t, claims)))
        tensors = (tensor for target in targets for tensor in target.objects)
        return Plan(entries, self._key(function, whole, tensors, seed), "deferred")

    def _key(self, function: str, whole: Whole, tensors: Iterable[Tensor], seed: SupportsIndex | None) -> int:
        """The seed of a plan: what is given, or the model's."""
        return self._wholes.seed(function, whole, tensors) if seed is None else seed_of(function, seed)

    @cached_property
    def _folded(self) -> Folded:
        """What the memories of the tape hold at its end."""
        return Folded(self._recorder.steps)

    def _claims(
        self, function: str, model: nn.Module, found: Found, held: dict[str, View | Memory], prefix: str | None
    ) -> tuple[Whole, Claims]:
        """What the tensors hold, and the model that they are a part of."""
        steps = self._recorder.steps
        if prefix is not None:
            return self._elsewhere, Claims(steps, self._folded, held, prefix_of(function, prefix))
        whole, name = self._wholes.place(model, found.modules)
        if not whole.made:
            return whole, Claims(steps, self._folded, held)
        if not name or whole.claims is None:
            root = whole.root()
            assert root is not None
            self._claim(whole, held if not name else self._found(function, root, strict=False).held())
        assert whole.claims is not None
        if not name:
            return whole, whole.claims
        return whole, Claims(steps, self._folded, held, name, [whole.claims, *self._wholes.others(whole)])

    def _claim(self, whole: Whole, held: dict[str, View | Memory]) -> None:
        """Decides what a model holds; it stays so while the model has the same tensors."""
        if whole.claims is None or list(whole.claims.held.items()) != list(held.items()):
            whole.claims = Claims(self._recorder.steps, self._folded, held, "", self._wholes.others(whole))
            self._wholes.needed(whole)

    # ---- which tensors ---------------------------------------------------------------------------------------------

    def _found(self, function: str, model: nn.Module, strict: bool = True) -> Found:
        """The recorded tensors of the model: parameters, buffers, attributes, as a plan has them. Strict: none is missing."""
        must_be(MODULE, function, model=model)
        if self._active:
            raise RuntimeError(f"{function}: must be called after the block, got a call inside. Leave `with deferred()` first.")
        inside = look_inside(model)
        tensors = [*inside.tensors, *attributes(inside.held)] if inside.held else inside.tensors
        plain = list(map(self._recorder.plain_memory, map(TENSOR, tensors)))
        held: Sequence[View | Memory | None] = plain
        if None in plain:
            held = [self._held(named) if memory is None else memory for named, memory in zip(tensors, plain, strict=True)]
        found = Found(tensors, plain, held, inside.modules)
        if inside.held:
            self._attributes.update(*found.attributes())
        missing = [named.name for named in found.others if named.tensor.is_meta] if strict else []
        if missing:
            raise ValueError(
                f"{function}: tensors on meta must have been made in the block, got {', '.join(missing)}."
                " Make the whole model inside `with deferred()`."
            )
        return found

    def _held(self, named: Named) -> View | Memory | None:
        """What a tensor that is no plain memory is of the tape: by its storage, else by its place in its module, or what it was
        before it had memory."""
        tensor = named.tensor
        if is_lazy(tensor):
            return None
        if (view := self._recorder.view_of(tensor)) is not None:
            return view
        held = self._attributes.get(tensor)
        if named.module is not None and named.attribute:
            held = (self._modules.get(named.module) or {}).get(named.attribute)
        if held is None or held.shape != tuple(tensor.shape):
            return None
        return held.whole if isinstance(held, Memory) and not (held.plain and type(tensor) in PLAIN_TYPES) else held

    # ---- recording -------------------------------------------------------------------------------------------------

    def _remember(self, made: Made) -> None:
        """Where the tensors are, for the time when others have taken their places; shards may have done so in the block."""
        modules = made.all_modules()
        all_held, others = self._recorder.plain.held_by(modules)
        for held, module, key, tensor in others:
            if (one := self._held_other(tensor, made.tensors.get((id(module), key)))) is not None:
                held[key] = one
        self._modules.update(modules, all_held)

    def _held_other(self, tensor: Tensor, registered: Tensor | None) -> View | Memory | None:
        """What a tensor holds that is all of no plain memory; of a sharded one, what was registered before it."""
        if is_dtensor(tensor):
            return None if registered is None else self._recorder.plain_memory(registered) or self._view_of(registered)
        return self._view_of(tensor)

    def _view_of(self, tensor: Tensor) -> View | None:
        return None if is_lazy(tensor) else self._recorder.view_of(tensor)


@contextmanager
def deferred() -> Iterator[Recording]:
    """Records, in this thread, what the code inside does to the tensors it makes; nothing is allocated, drawn or written.

    The model that comes out has all its tensors on meta, of the right shapes and dtypes. :meth:`Recording.materialize_` gives
    it memory and values; :meth:`Recording.plan` says which. The scheme is the model's own: what its code does, in whatever
    order, by ``torch.nn.init``, methods of tensors, or arithmetic. What Python asks for inside (``item()``, shapes that depend
    on values) is computed at once, random values by torch's default generator. So are small tables that follow from the code
    alone: positions, rotary frequencies.

    Inside, the default device stays what it was, so code that skips its initialisation on meta (transformers) does not; a
    default device of meta, set outside, is taken for cpu. Tensors say that they are where the code put them. What the code
    draws under a generator or a seed that it sets inside is drawn at once, as torch does: seed before the block.

    Yields:
        Recording: to be used after the block.

    Raises:
        RuntimeError: inside another ``deferred()`` of this thread, torch.compile or torch.jit.trace.
        NotImplementedError: DeepSpeed's ZeRO-3 partitions parameters inside.

    >>> import weightinit_cuda as wi
    >>> with wi.deferred() as recorded:
    ...     net = nn.Linear(4, 2)
    >>> net.weight.is_meta
    True
    >>> recorded.plan(net)["bias"][0].distribution
    Uniform(a=-0.5, b=0.5)
    >>> recorded.materialize_(net, seed=0).weight.device
    device(type='cpu')
    """
    recording, interrupts = Recording(), Interrupts()
    recorder = recording._recorder
    interrupts.hold()
    try:
        with (
            patching.recording(recorder),
            CPU if function_modes() and default_device() == META else nullcontext(),  # it is a mode that sets it
            registered() as made,
            recorder,
            standing_in(recorder),
            answering(recorder),
        ):
            recording._active = True
            try:
                interrupts.let()
                yield recording
            except RuntimeError as error:
                made.refuse_partitioned(error)
                raise
            finally:
                recording._active = False
                interrupts.hold()
                recording._remember(made)
    finally:
        interrupts.let()
