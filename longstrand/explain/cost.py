"""What attributions cost, said before they are made: passes of the model, and seconds from one measured batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from longstrand.data.rows import Record
from longstrand.errors import UsageError
from longstrand.explain.attribution import GRADIENT, PER_BASE, Explainer
from longstrand.explain.options import CHANGES, PATHS
from longstrand.questions.tokens import gradients
from longstrand.tokenization.base import Encoding

SMALL_WORK = 100_000
"""Passes times tokens below which nothing is measured: some seconds."""
MEASURED_TOKENS = 1024
SPAN = 60
"""Bases that are proposed where every base is too many."""
SAID = 10.0
"""Seconds from which an estimate is printed."""


Page = Callable[[int, int, int], float]
"""Gives passes from the number of sequences, and bases and tokens of a typical one."""


@dataclass(frozen=True)
class Cost:
    """What a run will take.

    Attributes:
        rows: sequences.
        bases: of all of them.
        longest: bases of the longest one.
        work: passes times tokens, of the maps and of the tests of the page; what `Target.tick` adds up to.
        passes: forward passes of the maps; a gradient counts three.
        seconds: of the maps.
        page_seconds: of the tests of the page.
    """

    rows: int
    bases: int
    longest: int
    work: float
    passes: float
    seconds: float
    page_seconds: float

    @property
    def total(self) -> float:
        """Seconds of everything."""
        return self.seconds + self.page_seconds

    def __str__(self) -> str:
        """Say it in one line."""
        page = f", and {duration(self.page_seconds)} for the tests of the page" if self.page_seconds else ""
        rows = f"{self.rows:,} sequences (longest {self.longest:,} bases)"
        if self.rows == 1:
            rows = f"one sequence of {self.longest:,} bases"
        passes = f"about {self.passes:,.0f} passes of the model for {rows}"
        return f"{passes}: {duration(self.seconds)}{page}, as one measured batch suggests"


def duration(seconds: float) -> str:
    """Give a time in the unit that people would use."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(1, round(seconds / unit))} {name}"
    return f"{seconds / 86_400:,.0f} days"


def estimate(explainer: Explainer, records: Iterable[Record], page: Page | None = None) -> Cost | None:
    """Measure one batch of the longest sequence (and of the first one, if it is much shorter), and count the rest.

    Args:
        explainer: makes the maps.
        records: all rows; their lengths are read.
        page: passes of the tests of the page; None: there is none.

    Returns:
        None where the work is too small to be worth it.
    """
    sizes: list[int] = []
    samples: list[Record] = []  # the first row that has bases, and the longest
    for record in records:
        sizes.append(record.num_bases)
        if record.num_bases and (not samples or record.num_bases > samples[-1].num_bases):
            samples = [samples[0] if samples else record, record]
    if not samples:
        return None
    target, bases = explainer.target, np.array(sizes)
    encodings = [target.read(explainer.text(record), record.where or record.name) for record in samples]
    share = len(encodings[1]) / samples[1].num_bases
    tokens = np.ceil(bases * share)
    each = np.array([explainer.passes(int(n), int(t)) for n, t in zip(bases, tokens)])
    typical = int(np.mean(bases)), math.ceil(float(np.mean(tokens)))
    counted = page(len(sizes), *typical) if page else 0.0
    work = float(each @ tokens) + counted * typical[1]
    if work < SMALL_WORK:
        return None
    measured = encodings if 2 * len(encodings[0]) < len(encodings[1]) else encodings[1:]
    rates = [_seconds(explainer, one) / len(one) for one in measured]
    rate = np.interp([*tokens, typical[1]], [len(one) for one in measured], rates)
    seconds, page_seconds = float((each * tokens) @ rate[:-1]), counted * typical[1] * float(rate[-1])
    return Cost(len(sizes), int(bases.sum()), int(bases.max()), work, float(each.sum()), seconds, page_seconds)


def _seconds(explainer: Explainer, encoding: Encoding) -> float:
    """Measure the time of one forward pass of a text, among others of its batch."""
    target = explainer.target
    number = max(1, min(MEASURED_TOKENS, target.batch_tokens) // len(encoding))
    best, needs_gradient = math.inf, explainer.options.method in PATHS
    for _ in range(2):
        started = time.perf_counter()
        if needs_gradient:
            function, masked = target.function(encoding), target.masked_rows(encoding)
            asked = {"masks": [masked] * number, "batch_tokens": target.batch_tokens}
            list(gradients(target.model, [encoding] * number, [function] * number, **asked))
        else:
            target.measure([encoding] * number)
        best = min(best, time.perf_counter() - started)
        if best > 1:  # the first call of all is slower; that does not matter here
            break
    return best / number / (GRADIENT if needs_gradient else 1)


def refuse_if_long(cost: Cost, explainer: Explainer) -> None:
    """Stop before work that takes longer than the limit of the options.

    Raises:
        UsageError: with the options that make it shorter, and how long each would take.
    """
    options = explainer.options
    if cost.total <= 60 * options.most_minutes:
        return
    mean = cost.passes / max(1, cost.rows)
    shorter: list[tuple[str, float]] = []
    if cost.page_seconds:
        shorter.append(("--check 0", cost.seconds))
    page = " --check 0" if cost.page_seconds else ""
    if options.method != "gradient":
        few = 1 + GRADIENT if options.method != "ig" else explainer.passes(1, 1, options.of_method("gradient"))
        shorter.append((f"--method gradient{page}", cost.seconds * few / mean))
    if options.method in CHANGES and (options.span or cost.longest) > SPAN:
        part = SPAN * PER_BASE[options.method] * len(explainer.strands) / mean
        shorter.append((f"--span {SPAN}{page} (the middle)", cost.seconds * part))
    shown = ", ".join(f"{name}: {duration(seconds)}" for name, seconds in shorter)
    needed = math.ceil(1.2 * cost.total / 60)
    raise UsageError(
        f"{options.method} takes {cost}; that is more than --most-minutes {options.most_minutes:g}. Shorter sequences "
        f"or windows cost less{f' ({shown})' if shown else ''}; --most-minutes {needed} allows it."
    )
