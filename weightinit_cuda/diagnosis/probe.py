"""``wi.probe``: what an initialisation does to a model, said before training.

One forward and one backward pass are watched (``passing``, ``observing``); what was seen is judged (``verdict``) and reported
(``report``). ``docs/probe.md`` says what each figure means and what a probe cannot see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, SupportsIndex

from torch import Tensor, nn

from .compare import compare
from .inputs import made_up
from .passing import Question, look, unwrapped
from .report import ProbeReport
from .verdict import judge
from .watch import Watch, Writer

__all__ = ["Probe", "probe"]


class Probe:
    r"""``wi.probe(model, *inputs)``: what each layer does to the signal and the gradient of one pass, and a verdict.

    In each layer it measures how far the samples of a batch lie apart (the signal) and the gradient that comes back. A factor
    :math:`\chi` per layer makes :math:`\chi^L` over L layers; a net trains while :math:`|\ln \chi^L|` of the variance is below
    six (Schoenholz et al., 2017). Of the model nothing is left changed: values, gradients, buffers, modes, hooks and generators
    are as before. Dropout is left out; batch norms use the batch.

    >>> import torch, weightinit_cuda as wi
    >>> net = nn.Sequential(*(m for _ in range(50) for m in (nn.Linear(64, 64), nn.ReLU())), nn.Linear(64, 10))
    >>> report = wi.probe(wi.initialize_(net, rules="xavier", seed=0), torch.randn(64, 64))
    >>> report.verdict, [finding.code for finding in report.findings]
    ('FAIL', ['signal_vanishes', 'gradient_vanishes', 'rank_collapse'])
    >>> wi.probe(wi.initialize_(net, rules="kaiming", seed=0), torch.randn(64, 64)).verdict != "FAIL"
    True
    """

    def __call__(
        self,
        model: nn.Module,
        *inputs: Any,
        loss: Callable[..., Tensor] | None = None,
        target: Any = None,
        classes: int | None = None,
        seed: SupportsIndex = 0,
        **kwargs: Any,
    ) -> ProbeReport:
        """Probes a model.

        Args:
            model: any module with something to train; compiled, checkpointed, partly frozen, sharded.
            inputs, kwargs: of ``model``: a batch of 16 samples or more. Without any, they are made up if
                ``model.example_inputs`` or a configuration of transformers says how.
            loss: a function of the output, or with ``target`` of (prediction, target), that gives a scalar. Default: cross
                entropy or mean square error with ``target``, else the output's own ``loss``, else a random projection of it.
            target: what the prediction is compared with: classes, or numbers.
            classes: how many the loss tells apart, for its first value; default: what the target and the prediction say.
            seed: of what the passes draw. The same seed gives the same report.

        Returns:
            A :class:`.ProbeReport`: ``verdict``, ``findings``, ``rows``.

        Raises:
            TypeError: the model is no module.
            ValueError: nothing is to be trained, parameters lie on meta, the batch has one sample, the output has no tensor
                with a gradient, the loss is no scalar, or inputs are needed.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"probe: a module is required, got a {type(model).__name__}.")
        model, number, note = unwrapped(model), int(seed), ""
        if not inputs and not kwargs:
            (inputs, kwargs), note = made_up(model, number)
        question = Question(inputs, kwargs, loss, target, classes, number)
        seen = look(model, question)
        return ProbeReport(
            seen.rows,
            judge(seen),
            seen.loss,
            type(model).__name__,
            note,
            lambda rules, seeds: compare(model, question, rules, seeds),
        )

    def watch(self, model: nn.Module, *, every: int = 100, writer: Writer | None = None) -> Watch:
        """Measures a training loop as it runs: each ``every``-th forward pass and its backward pass, no pass of its own.

        Args:
            model: that is trained.
            every: how many forward passes in training mode lie between two measurements.
            writer: anything with ``add_scalar(tag, value, step)``, such as TensorBoard's SummaryWriter.

        Returns:
            A context manager with ``rows`` (the last measurement) and ``findings``; ``close()`` takes its hooks away.

        >>> import torch, weightinit_cuda as wi
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> with wi.probe.watch(net, every=2) as watch:
        ...     for _ in range(4):
        ...         net(torch.randn(16, 8)).square().mean().backward()
        >>> watch.step, [row.kind for row in watch.rows]
        (3, ['weight', 'tanh', 'weight'])
        """
        return Watch(unwrapped(model), every, writer)


probe: Final = Probe()
