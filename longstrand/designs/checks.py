"""Is it a design, or an input that fools the model? What is printed beside every design.

The same number of random edits, other models, the language model, single changes of the design, and training data say
whether a gain is one of the sequence or one of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np
import polars as pl

from longstrand.data.rows import Record
from longstrand.designs.rules import Rules
from longstrand.designs.search import Objective
from longstrand.evaluation.leakage import Sketch, sketch
from longstrand.explain.perturb import BASES, substituted
from longstrand.genome.sequence import gc_fraction
from longstrand.questions.scores import Score
from longstrand.runtime import generator

SAMPLES, TRIES = 10, 10
"""Texts with random edits, and single substitutions of a design, whose scores are averaged; draws for each."""


@dataclass(frozen=True, eq=False)
class Design:
    """One designed sequence.

    Attributes:
        record: the row that it began with.
        number: 1 is the best of its start.
        start: letters of the start, as the model was shown them.
        sequence: letters of the design.
        edits: what was changed, as ``12A>G``, counted from 1.
        values: ``score_start``, ``score``, and what `check` measured.
        trace: round, best, mean (of what was scored in the round), forwards and texts left out (both so far); of all
            designs of the start.
    """

    record: Record
    number: int
    start: str
    sequence: str
    edits: tuple[str, ...]
    values: Mapping[str, float]
    trace: pl.DataFrame

    @property
    def score(self) -> float:
        """Return what the score says of the design: the output, minus the highest of those against it."""
        return self.values["score"]

    def row(self) -> dict[str, Any]:
        """Return a line of the table."""
        return {
            "name": self.record.name, "design": self.number, "edits": len(self.edits),
            "gc": round(gc_fraction(self.sequence), 4), **self.values, "changes": " ".join(self.edits),
            "sequence": self.sequence,
        }  # fmt: skip


def controls(
    design: str, rules: Rules, seed: int, index: int, fits: Callable[[str], bool] = lambda text: True
) -> tuple[list[str], list[str]]:
    """Draw texts with as many random edits as the design has, and neighbours of the design.

    Returns:
        `SAMPLES` texts each, fewer where `TRIES` times as many draws do not fit; they keep the fixed bases, and need
        not obey the other rules.
    """
    random, free = generator(seed, index, "design controls"), np.flatnonzero(~rules.fixed)
    number = min(len(rules.edits(design)), len(free))

    def drawn(text: str, edits: int, *, replace: bool) -> list[str]:
        texts = (_edited(text, random.choice(free, edits, replace=replace), random) for _ in range(TRIES * SAMPLES))
        return list(islice(filter(fits, texts), SAMPLES))

    return drawn(rules.start, number, replace=False), drawn(design, 1, replace=True)


def _edited(text: str, places: Sequence[int] | np.ndarray, random: np.random.Generator) -> str:
    for place in np.asarray(places).tolist():
        letters = [letter for letter in BASES if letter != text[place]]
        text = substituted(text, place, letters[int(random.integers(0, len(letters)))])
    return text


def check(
    start: str, design: str, rules: Rules, score: Score, objective: Objective, *, others: Mapping[str, Score],
    prior: Score | None, known: Sketch | None, seed: int, index: int, fits: Callable[[str], bool] = lambda text: True,
) -> dict[str, Any]:  # fmt: skip
    """Measure what speaks for and against a design.

    Args:
        start: where it began.
        design: the result.
        rules: what it obeys.
        score: what it was designed with.
        objective: which outputs.
        others: further models by name.
        prior: log-likelihood of a masked LM.
        known: words of the training data.
        seed: of the controls.
        index: of the design.
        fits: says whether all models can read a text.

    Returns:
        In units of the score: ``score_start``, ``score``, ``random_edits`` (mean of as many random edits), and
        ``neighbours`` (mean of single substitutions); for each other model its ``start``, its ``score`` and the
        ``share`` of the gain that carries over, its gain over the random edits as a share of this model's; nats a base
        of the language model; the largest share of 16-mers in one training row.
    """
    randoms, near = controls(design, rules, seed, index, fits)
    texts = [start, design, *randoms]
    signal = np.asarray(objective.signal(score([*texts, *near])), dtype=np.float64)
    ours = _summary(signal[: len(texts)])
    found: dict[str, Any] = {
        "score_start": ours[0], "score": ours[1], "random_edits": ours[2],
        "neighbours": _mean(signal[len(texts) :]),
    }  # fmt: skip
    for name, other in others.items():
        theirs = _summary(np.asarray(objective.signal(other(texts)), dtype=np.float64))
        gain, same = ours[1] - ours[2], theirs[1] - theirs[2]
        found |= {f"{name}_start": theirs[0], f"{name}_score": theirs[1], f"{name}_random_edits": theirs[2]}
        found[f"{name}_share"] = same / gain if gain else float("nan")
    if prior is not None:
        before, after, *drawn = (np.asarray(prior(texts))[:, 0] / len(start)).tolist()
        found |= {"likelihood_start": before, "likelihood": after, "likelihood_random_edits": _mean(drawn)}
    if known is not None:
        found |= {"known_start": nearest(start, known), "known": nearest(design, known)}
    return found


def _summary(signal: np.ndarray) -> tuple[float, float, float]:
    return float(signal[0]), float(signal[1]), _mean(signal[2:])


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def nearest(text: str, known: Sketch) -> float:
    """Give the largest share of a text's 16-mers (either strand) that one row of a set holds; NaN if it is shorter."""
    codes = sketch([text]).near_codes
    if not len(codes):
        return float("nan")
    left, right = (np.searchsorted(known.near_codes, codes, side) for side in ("left", "right"))
    rows = [known.near_rows[a:b] for a, b in zip(left.tolist(), right.tolist())]
    return float(np.bincount(np.concatenate(rows), minlength=1).max(initial=0) / len(codes))


def diversity(designs: pl.DataFrame) -> pl.DataFrame:
    """Count the bases in which designs of one start differ: mean and smallest number over pairs, a row a start."""
    rows = []
    for (name,), own in designs.group_by("name", maintain_order=True):
        pairs = combinations(own["sequence"].to_list(), 2)
        found = [sum(a != b for a, b in zip(one, other)) for one, other in pairs]
        mean = float(np.mean(found)) if found else None
        rows.append((name, len(own), mean, min(found, default=None)))
    return pl.DataFrame(rows, schema={"name": pl.String, "designs": pl.Int64, "mean": pl.Float64, "least": pl.Int64},
                        orient="row")  # fmt: skip
