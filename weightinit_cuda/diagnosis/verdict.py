"""What the rows of a probe mean: findings, worst first, each with its numbers, its limit and its cure.

Every limit is a constant here with its source; ``docs/probe.md`` has them as a table, with what they were calibrated on. Knows
rows, no tensor.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from .depth import SCALES, depths, growth, hidden_layers
from .row import Row, Seen

__all__ = ["Finding", "Level", "judge"]

Level = Literal["FAIL", "WARN", "ok"]

STUCK = 2.0  # times the limit by depth: all 13 starts beyond it stayed above a loss of 1.0 to the end of 12 epochs of MNIST
TWINS = 0.5  # of a layer: half of the units are lost, for good (measured: loss 1.66 after 3 epochs against 0.10)
SHARP = 0.5  # of the queries: GPT at std 1 has 0.93, stock GPT-2, BERT, Llama and ViT have 0.00
SATURATED = 0.3  # of a layer's outputs. N(0, 1) on 5 sigmoid layers has 0.61 and is slow; Xavier has 0.00
DEAD = 0.6  # of a layer's units. MNIST on 5 ReLU layers has 0.03 to 0.48 by scheme; 0.5 is where all samples are alike
RANK = 2.0  # samples that differ in one direction only; Dong et al. (2021): attention alone collapses to it
WIDE = 8  # units without which a low rank is the shape's doing: a gate, a bottleneck
NATS = 1.0  # above ln(classes), the loss of guessing: the first steps only undo the output's confidence
STREAM = 3.0  # times sqrt(branches), which branches of the stream's own size at its start would reach


class Finding(NamedTuple):
    """Something that was found.

    Args:
        level: ``"FAIL"``: training will not get anywhere; ``"WARN"``: it will be slow, or part of the model is idle.
        code: what it is, for programs; docs/probe.md lists them.
        text: what was measured, and what helps.
        layer: the row where it is worst; empty if it is about all.
        value: what was measured.
        limit: what the value should not pass.
    """

    level: Level
    code: str
    text: str
    layer: str = ""
    value: float = math.nan
    limit: float = math.nan

    def __str__(self) -> str:
        return f"{self.level} {self.code}: {self.text}"


def judge(seen: Seen) -> list[Finding]:
    """The findings, worst first; none if all is well."""
    if bad := next((row for row in seen.rows if row.bad), None):
        text = (
            f"{bad.bad} outputs of {bad.name} are infinite or NaN. Everything after it is, too: narrow the weights before it."
        )
        return [Finding("FAIL", "not_finite", text, bad.name, bad.bad, 0)]
    found = [
        *_gradient_not_finite(seen.rows),
        *_twins(seen.rows),
        *_no_signal(seen),
        *_no_gradient(seen),
        *_depth(seen.rows),
        *_attention(seen.rows),
        *_shares(seen.rows),
        *_rank(seen.rows),
        *_stream(seen.rows),
        *_first_loss(seen),
    ]
    return sorted(found, key=lambda finding: ("FAIL", "WARN").index(finding.level))


# ---- what findings have in common ------------------------------------------------------------------------------------


def _worst(rows: Sequence[Row], figure: str) -> Row | None:
    known = [row for row in rows if not math.isnan(getattr(row, figure))]
    return max(known, key=lambda row: float(getattr(row, figure)), default=None)


def _cure(rows: Sequence[Row]) -> str:
    """The scheme of the nonlinearity that is used most."""
    counts = Counter(row.kind for row in rows)
    kind = max(("relu", "sigmoid", "tanh", "gelu", "silu"), key=lambda kind: counts[kind])
    if counts[kind] == 0:
        return 'rules="auto"'
    return {
        "relu": 'rules="kaiming"',
        "sigmoid": "Xavier with gain=4: a sigmoid's slope is 1/4",
        "tanh": 'rules="xavier", or orthogonal_ where the net is deep',
    }.get(kind, 'rules="kaiming"')


# ---- findings --------------------------------------------------------------------------------------------------------


def _gradient_not_finite(rows: Sequence[Row]) -> Iterator[Finding]:
    if bad := next((row for row in reversed(rows) if row.bad_gradient), None):
        text = f"the gradient is infinite or NaN from {bad.name} backwards. Narrow the weights, or use a wider dtype."
        yield Finding("FAIL", "gradient_not_finite", text, bad.name, math.inf, 0)


def _twins(rows: Sequence[Row]) -> Iterator[Finding]:
    """Equal units by their own weights, or by the layer that reads them: zeros have equal weights and no gradient yet."""
    layers = [row for row in rows if row.kind in ("weight", "gates")]
    found = [(row.twins, row.name, "units") for row in layers[:-1]] + [
        (row.input_twins, row.name, "inputs") for row in layers[1:]
    ]
    found = [(share, name, of) for share, name, of in found if share > 0]
    if not found:
        return
    share, name, of = max(found)
    text = (
        f"{share:.0%} of the {of} of {name} are twins: equal weights and equal gradients, so they stay one unit for ever."
        f" Draw the weights, for example {_cure(rows)}."
    )
    yield Finding("FAIL" if share > TWINS else "WARN", "twins", text, name, share, TWINS)


def _no_signal(seen: Seen) -> Iterator[Finding]:
    layers = [row for row in seen.rows if row.kind == "weight" and row.weight != 0 and not math.isnan(row.signal)]
    silent = 0
    while silent < len(layers) and layers[-1 - silent].signal == 0:
        silent += 1
    if silent:
        name = layers[-silent].name
        text = f"all samples are the same from {name} on: nothing of the input reaches the output. {_other_weights(seen.rows)}"
        yield Finding("FAIL", "no_signal", text, name, 0.0, 0.0)


def _other_weights(rows: Sequence[Row]) -> str:
    """Narrower ones where outputs are saturated, else wider ones."""
    worst = _worst(rows, "saturated")
    how = "narrower" if worst is not None and worst.saturated > SATURATED else "wider"
    return f"Draw {how} weights: {_cure(rows)}."


def _no_gradient(seen: Seen) -> Iterator[Finding]:
    layers = [row for row in hidden_layers(seen.rows) if not math.isnan(row.gradient)]
    silent = [row for row in layers if row.gradient == 0]
    if not silent:
        return
    where = f"no gradient arrives at {len(silent)} of {len(layers)} hidden layers, the first is {silent[0].name}"
    if seen.asleep:
        text = f"{where}: behind weights of zeros ({seen.asleep[-1]}), which wake after one step. LoRA and the like mean it so."
        yield Finding("WARN", "no_gradient", text, silent[0].name, 0.0, 0.0)
    elif silent[0] is layers[0]:
        yield Finding("FAIL", "no_gradient", f"{where}. {_other_weights(seen.rows)}", silent[0].name, 0.0, 0.0)
    else:
        text = f"{where}, though it arrives before them: a branch is shut. {_other_weights(seen.rows)}"
        yield Finding("WARN", "no_gradient", text, silent[0].name, 0.0, 0.0)


def _depth(rows: Sequence[Row]) -> Iterator[Finding]:
    """The change of signal and gradient over all hidden layers, in depth scales."""
    for what, way, (total, layers, limit) in zip(("signal", "gradient"), ("forward", "backward"), depths(rows), strict=True):
        if math.isnan(total) or 2 * abs(total) <= limit:
            continue
        each = total / (layers - 1)
        verb, change = ("shrinks", "vanishes") if total < 0 else ("grows", "explodes")
        advice = _other_weights(rows) if total < 0 else f"Draw narrower weights: {_cure(rows)}."
        text = (
            f"the {what} {verb} x {math.exp(abs(total)):.3g} {way} over {layers} hidden layers"
            f" (x {math.exp(each):.3g} each; six depth scales are {SCALES / (2 * abs(each)):.2g} layers). {advice}"
        )
        level: Level = "FAIL" if 2 * abs(total) > STUCK * limit else "WARN"
        yield Finding(level, f"{what}_{change}", text, "", 2 * total, limit)


def _attention(rows: Sequence[Row]) -> Iterator[Finding]:
    worst = _worst([row for row in rows if row.kind == "attention"], "saturated")
    if worst is not None and worst.saturated > SHARP:
        text = (
            f"attention in {worst.name} gives one key more than 99 % for {worst.saturated:.0%} of the queries, and its softmax"
            ' passes no gradient. q and k are too large: draw their weights narrower (std 0.02, or rules="xavier").'
        )
        yield Finding("FAIL", "attention_one_hot", text, worst.name, worst.saturated, SHARP)


def _shares(rows: Sequence[Row]) -> Iterator[Finding]:
    """Activations and gates that are flat."""
    for kinds, code, what in (
        (("sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign"), "saturated", "outputs of {} in {} are saturated"),
        (("gates",), "gates_saturated", "outputs of the {} of {} are saturated"),
    ):
        worst = _worst([row for row in rows if row.kind in kinds], "saturated")
        if worst is not None and worst.saturated > SATURATED:
            text = f"{worst.saturated:.0%} of the {what.format(worst.kind, worst.name or 'the model')} (slope below 5 %)."
            yield Finding("WARN", code, f"{text} Draw the weights before it narrower.", worst.name, worst.saturated, SATURATED)
    worst = _worst(rows, "dead")
    if worst is not None and worst.dead > DEAD:
        text = (
            f"{worst.dead:.0%} of the units of {worst.kind} in {worst.name or 'the model'} are off for all {worst.samples}"
            " samples. Start biases at 0 and draw the weights around 0."
        )
        yield Finding("WARN", "dead", text, worst.name, worst.dead, DEAD)


def _rank(rows: Sequence[Row]) -> Iterator[Finding]:
    hidden = [
        row
        for row in hidden_layers(rows)
        if not math.isnan(row.rank) and row.units >= WIDE and row.weight != 0 and row.signal > 0
    ]
    if not hidden or any(finding.level == "FAIL" for finding in _twins(rows)):
        return
    lowest = min(hidden, key=lambda row: row.rank)
    if lowest.rank < RANK < hidden[0].rank / 2:
        text = (
            f"samples become alike: their effective rank falls from {hidden[0].rank:.1f} to {lowest.rank:.1f} at {lowest.name}."
            " Use orthogonal_, residual connections or a norm."
        )
        yield Finding("WARN", "rank_collapse", text, lowest.name, lowest.rank, RANK)


def _stream(rows: Sequence[Row]) -> Iterator[Finding]:
    for name, factor, blocks, branches in growth(rows):
        limit = STREAM * math.sqrt(branches)
        if factor > limit:
            after = math.sqrt(1 + (factor * factor - 1) / branches)
            text = (
                f"the residual stream of {name or 'the model'} grows x {factor:.3g} over {blocks} blocks, {branches} branches."
                f' With the last weights of each branch divided by sqrt({branches}), as rules="gpt2" does, about x {after:.2g}.'
            )
            yield Finding("WARN", "residual_growth", text, name, factor, limit)


def _first_loss(seen: Seen) -> Iterator[Finding]:
    if seen.loss is None:
        return
    if not math.isfinite(seen.loss):
        yield Finding("FAIL", "not_finite", f"the loss is {seen.loss}. Narrow the last layer's weights.", "", seen.loss, 0)
    elif seen.classes and seen.classes > 1 and seen.loss > math.log(seen.classes) + NATS:
        guess = math.log(seen.classes)
        text = (
            f"the first loss is {seen.loss:.3g}, and guessing costs ln {seen.classes} = {guess:.3g}: the output is sure of what"
            " it cannot know. Draw the last layer narrower (tied to an embedding: narrow that), or start it at 0."
        )
        yield Finding("WARN", "first_loss", text, "", seen.loss, guess + NATS)
