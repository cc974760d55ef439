"""The strategies: how a start becomes better, round by round, within its rules.

A round takes a `State` and gives the next one. All that a round needs is in the state, and its random numbers depend on
seed, start and round alone; so a search that is stored after each round continues as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from longstrand.designs.options import DesignOptions
from longstrand.designs.rules import Rules, Unmet
from longstrand.errors import InputError, UsageError
from longstrand.explain.gradient import letter_ids
from longstrand.explain.perturb import BASES, substituted
from longstrand.explain.target import Target
from longstrand.genome.sequence import reverse_complement
from longstrand.inference.strands import strands_of
from longstrand.models.network import Network
from longstrand.questions.bases import Words
from longstrand.questions.scores import Score
from longstrand.questions.tokens import FloatArray, MaskedText, gradients, iter_log_probabilities, read_text, word_table
from longstrand.runtime import generator

STEPS = 10
"""Steps of the optimiser in a round of the strategy gradient."""
SMALLEST_GAIN = 1e-6
EDIT_COST = 0.1
"""gradient: what an edit costs, in units of the score, as in Ledidi."""
REFILLED = 2
"""lm: bases of a text that are masked and refilled together."""
MUTATIONS, TRIES = 1.5, 30
"""evolve: mean number of substitutions of a child, and places that are tried for one that obeys."""
Floats = np.ndarray


@dataclass(frozen=True)
class Objective:
    """One number to raise from the outputs of a score: what is wanted, minus what other outputs cost."""

    output: int = 0
    against: tuple[int, ...] = ()
    hold: tuple[int, ...] = ()
    hold_weight: float = 1.0
    lower: bool = False
    reach: float | None = None

    def signal(self, rows: Any) -> Any:
        """Give the output that is meant, minus the highest of those against it; rows (..., C), arrays or tensors."""
        if not self.against:
            return rows[..., self.output]
        others = rows[..., list(self.against)]
        return rows[..., self.output] - (others.amax(-1) if isinstance(others, Tensor) else others.max(-1))

    def __call__(self, rows: Any, start: FloatArray) -> Any:
        """Compute what is to be raised; ``start`` (C,) has the outputs of the start, which are held."""
        signal = self.signal(rows)
        wanted = -signal if self.lower else signal if self.reach is None else -abs(signal - self.reach)
        for number in self.hold:
            wanted = wanted - self.hold_weight * abs(rows[..., number] - float(start[number]))
        return wanted


@dataclass(frozen=True)
class Entry:
    """A text, its value, and whether its neighbours were scored."""

    text: str
    value: float
    done: bool = False


@dataclass(frozen=True)
class State:
    """A search after a round; plain values only, so that it can be stored.

    Attributes:
        round: 0 is the repaired start.
        pool: what the next round works on.
        best: the best texts so far that obey, distinct, best first.
        start_row: outputs of the start.
        mean: of what was scored in this round.
        forwards: texts scored so far (gradients count three).
        idle: rounds since the last gain.
        done: there is no next round.
        memory: what a strategy keeps.
        left_out: texts so far that were left out, because the edits made more tokens than a model reads.
    """

    round: int
    pool: tuple[Entry, ...]
    best: tuple[Entry, ...]
    start_row: tuple[float, ...]
    mean: float
    forwards: int
    idle: int = 0
    done: bool = False
    memory: dict[str, Any] = field(default_factory=dict)
    left_out: int = 0

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """Make a state of what `plain` has returned."""
        entries = {name: tuple(Entry(**one) for one in plain[name]) for name in ("pool", "best")}
        return cls(**{**plain, **entries, "start_row": tuple(plain["start_row"])})


class Search:
    """One start, what is wanted of it, and how it is searched.

    Args:
        start: A, C, G, T and N.
        rules: checked ones.
        score: of texts.
        objective: what is to be raised.
        options: strategy and numbers.
        index: number of the start.
        target: gradient: the model, and how a head per token or bin is averaged.
        prior: lm: a masked LM.
        fits: says whether all models can read a text; others are left out.
    """

    def __init__(
        self, start: str, rules: Rules, score: Score, objective: Objective, options: DesignOptions, *, index: int = 0,
        target: Target | None = None, prior: Network | None = None, fits: Callable[[str], bool] = lambda text: True,
    ) -> None:  # fmt: skip
        self.start, self.rules, self.score, self.objective, self.options = start, rules, score, objective, options
        self.index, self.target, self.prior, self.fits = index, target, prior, fits
        self.start_row = np.zeros(0, dtype=np.float32)
        self.num_scored = self.num_left_out = 0

    def values(self, texts: Sequence[str]) -> list[float]:
        """Score texts: what is to be raised, float; -inf where that is no number or a text is left out."""
        fitting = self.fitting(texts)
        kept = [text for text, is_read in zip(texts, fitting) if is_read]
        self.num_scored += len(kept)
        values = np.full(len(texts), -np.inf)
        if kept:
            found = np.asarray(self.objective(self.rows(kept), self.start_row), dtype=np.float64)
            values[np.flatnonzero(fitting)] = np.nan_to_num(found, nan=-np.inf)
        return [float(value) for value in values]

    def fitting(self, texts: Sequence[str]) -> list[bool]:
        """Say which texts all models can read, and count the others."""
        found = [self.fits(text) for text in texts]
        self.num_left_out += found.count(False)
        return found

    def rows(self, texts: Sequence[str]) -> FloatArray:
        """Score texts: all outputs, ``(n, C)``.

        Raises:
            InputError: the score function gave something else.
        """
        rows = np.asarray(self.score(texts), dtype=np.float32)
        rows = rows.reshape(len(texts), -1) if rows.ndim < 2 and rows.size == len(texts) else rows
        if rows.ndim != 2 or len(rows) != len(texts):
            raise InputError(
                f"the score function gave shape {rows.shape} for {len(texts)} sequences, not (n, outputs)."
            )
        asked = (self.objective.output, *self.objective.against, *self.objective.hold)
        if max(asked) >= rows.shape[1]:
            raise UsageError(f"no output {max(asked)}: the score has {rows.shape[1]}, numbered from 0.")
        return rows

    def first(self) -> State:
        """Score the start, put motifs in and repair it: round 0.

        Raises:
            InputError: the score of the start is no number, or no repair was found that the models can read.
        """
        self.num_scored, self.num_left_out, self.start_row = 1, 0, self.rows([self.start])[0]
        try:
            text, rules = self.rules.prepare(self.values)
        except Unmet:  # the best values led nowhere; the fewest edits do, as `Rules.check` has seen
            text, rules = self.rules.prepare()
        if not self.fits(text):
            raise InputError("what obeys the constraints has more tokens than a model reads; use a shorter start.")
        value = float(self.objective(self.start_row, self.start_row)) if text == self.start else self.values([text])[0]
        if not np.isfinite(value):
            raise InputError("the score of the start is no number; leave out sequences without tokens.")
        kept = np.flatnonzero(rules.fixed & ~self.rules.fixed).tolist()
        entry, row = Entry(text, value), tuple(self.start_row.tolist())
        counts = {"forwards": self.num_scored, "left_out": self.num_left_out}
        return State(0, (entry,), (entry,), row, value, memory={"kept": kept}, **counts)

    def step(self, state: State) -> State:
        """Compute the next round."""
        options = self.options
        self.num_scored, self.num_left_out, self.start_row = 0, 0, np.array(state.start_row, dtype=np.float32)
        fixed = self.rules.fixed.copy()
        fixed[state.memory["kept"]] = True
        random = generator(options.seed, self.index * 100_000 + state.round, "design")
        pool, found, memory = STEPS_OF[options.strategy](self, state, replace(self.rules, fixed=fixed), random)
        found = [one for one in found if one.value > -np.inf]
        best = _best([*state.best, *found], 1 if options.strategy == "greedy" else options.keep)
        idle = 0 if best[0].value > state.best[0].value + SMALLEST_GAIN else state.idle + 1
        patience = 1 if options.strategy == "greedy" else options.patience
        done = idle >= patience or state.round + 1 >= options.most_rounds
        done |= options.reach is not None and best[0].value > -SMALLEST_GAIN
        done |= not found and options.strategy in ("greedy", "beam")
        mean = float(np.mean([one.value for one in found] or best[0].value))
        forwards = state.forwards + memory.pop("forwards", self.num_scored)
        memory["kept"] = state.memory["kept"]
        row, left_out = state.start_row, state.left_out + self.num_left_out
        return State(state.round + 1, tuple(pool), tuple(best), row, mean, forwards, idle, bool(done), memory, left_out)

    @property
    def most_rounds(self) -> int:
        """Rounds at most; greedy edits a base in each."""
        rounds = self.options.most_rounds
        return min(rounds, self.rules.max_edits or rounds) if self.options.strategy == "greedy" else rounds

    def most_forwards(self) -> int:
        """Bound the texts that are scored for this start, gradients counted three times."""
        options, free = self.options, int((~self.rules.fixed).sum())
        size = options.size
        each = {
            "greedy": 3 * free, "beam": 3 * free * size, "evolve": size, "lm": 2 * size, "gradient": 3 * size * STEPS,
        }[options.strategy]  # fmt: skip
        mended = sum(self.rules.broken(self.start).values()) * 3 * free
        return 2 + mended + 2 * len(self.start) * len(self.rules.motifs) + each * self.most_rounds


Round = tuple[Sequence[Entry], Sequence[Entry], dict[str, Any]]


def _best(entries: Sequence[Entry], number: int) -> list[Entry]:
    """Give the best distinct texts; of equal values (to 1e-9) the first."""
    distinct: dict[str, Entry] = {}
    for one in entries:
        distinct.setdefault(one.text, one)
    return sorted(distinct.values(), key=lambda one: -round(one.value, 9))[:number]


def _entries(search: Search, texts: Sequence[str]) -> list[Entry]:
    """Score texts; those without a number are left out."""
    return [Entry(text, value) for text, value in zip(texts, search.values(texts)) if value > -np.inf]


def _expand(search: Search, state: State, rules: Rules, random: np.random.Generator) -> Round:
    """Score all neighbours of what was not expanded yet; greedy leaves bases alone that it has edited."""
    greedy, known = search.options.strategy == "greedy", {entry.text for entry in state.pool}
    texts: dict[str, None] = {}
    for entry in state.pool:
        if entry.done:
            continue
        places = None if not greedy else [p for p in np.flatnonzero(~rules.fixed).tolist()
                                          if entry.text[p] == rules.start[p]]  # fmt: skip
        for place, letter in rules.substitutions(entry.text, places):
            changed = substituted(entry.text, place, letter)
            if changed not in known:
                texts.setdefault(changed)
    found = _entries(search, list(texts))
    before = [replace(entry, done=True) for entry in state.pool]
    return _best([*before, *found], search.options.size), found, {}


def _evolve(search: Search, state: State, rules: Rules, random: np.random.Generator) -> Round:
    """Cross two parents, better ones more often, mutate, and keep the best of parents and children."""
    known, texts = {entry.text for entry in state.pool}, []
    for _ in range(search.options.size):
        one, other = (state.pool[int(random.integers(0, 1 + random.integers(0, len(state.pool))))] for _ in range(2))
        cut = int(random.integers(0, len(one.text)))
        text = one.text[:cut] + other.text[cut:]
        if rules.broken(text):
            text = one.text
        for _ in range(1 + random.poisson(MUTATIONS - 1)):
            text = _mutate(text, rules, random)
        if text not in known:
            known.add(text)
            texts.append(text)
    found = _entries(search, texts)
    return _best([*state.pool, *found], search.options.size), found, {}


def _mutate(text: str, rules: Rules, random: np.random.Generator) -> str:
    """Substitute one free base at random; with no edit left, take one back first."""
    edits = [place for place in rules.edits(text) if not rules.fixed[place]]
    if rules.max_edits is not None and len(rules.edits(text)) >= rules.max_edits and edits:
        place = int(random.choice(edits))
        back = substituted(text, place, rules.start[place])
        text = text if rules.broken(back) else back
    free = np.flatnonzero(~rules.fixed)
    for _ in range(TRIES):
        allowed = list(rules.substitutions(text, [int(random.choice(free))]))
        if allowed:
            return substituted(text, *allowed[int(random.integers(0, len(allowed)))])
    return text


def _refill(search: Search, state: State, rules: Rules, random: np.random.Generator) -> Round:
    """Mask bases of each chain, refill them as the LM expects, accept by Metropolis on the value.

    A proposal drawn from the LM's own conditional needs no further term for how natural it is: at temperature T the
    chains prefer a text by its probability times exp(value / T).
    """
    options, prior = search.options, search.prior
    assert prior is not None
    chains = list(state.pool) or [state.best[0]]
    chains = [chains[i % len(chains)] for i in range(options.size)]
    proposals = _refilled(prior, [chain.text for chain in chains], rules, random, options)
    asked = [i for i, text in enumerate(proposals) if text != chains[i].text and not rules.broken(text)]
    values = search.values([proposals[i] for i in asked])
    share = state.round / max(1, options.most_rounds - 1)
    temperature, found = options.temperature * 10 ** -min(1.0, share), []
    for i, value in zip(asked, values):
        found.append(Entry(proposals[i], value))
        if np.log(random.random()) < (value - chains[i].value) / temperature:
            chains[i] = found[-1]
    return chains, found, {"forwards": len(chains) + len(asked)}


def _refilled(
    prior: Network, texts: Sequence[str], rules: Rules, random: np.random.Generator, options: DesignOptions
) -> list[str]:
    """Refill some free bases of each text, all their tokens masked together, from the LM's distribution."""
    words, free, changed = Words(prior.require_tokenizer(), None), np.flatnonzero(~rules.fixed), list(texts)
    chosen = [random.choice(free, min(REFILLED, len(free)), replace=False) for _ in texts]
    encodings = [read_text(prior, text) for text in texts]
    over = [[each.rows_over(place, place + 1) for place in places] for each, places in zip(encodings, chosen)]
    rows = [np.unique(np.concatenate(each)) for each in over]
    answers = iter_log_probabilities(
        prior, (MaskedText(*each) for each in zip(encodings, rows, rows)), batch_tokens=options.batch_tokens
    )
    for i, logs in enumerate(answers):
        for place, covering in zip(chosen[i].tolist(), over[i]):
            parts = [
                words.at_place(
                    logs[np.searchsorted(rows[i], row)].astype(np.float64), texts[i][start:end], place - start
                )
                for row in covering.tolist()
                for start, end in [encodings[i].offsets[row].tolist()]
            ]
            expected = np.exp(np.mean(parts, axis=0)) if parts else np.full(4, np.nan)
            if np.isfinite(expected).all() and expected.sum() > 0:
                letter = BASES[int(random.choice(4, p=expected / expected.sum()))]
                changed[i] = substituted(changed[i], place, letter)
    return changed


def _climb(search: Search, state: State, rules: Rules, random: np.random.Generator) -> Round:
    """Follow the gradient of the score through hard samples of letters (Ledidi: Schreiber et al. 2020).

    Logits of the letters begin at the start. Each step draws texts with Gumbel noise, takes the gradient of the
    objective at their letters as if they were soft (straight through), and moves the logits with Adam.
    """
    options, target = search.options, search.target
    assert target is not None
    memory, origin = state.memory, state.memory.get("origin", state.pool[0].text)
    start = np.array([[letter == base for base in BASES] for letter in origin], dtype=np.float64)
    fixed = rules.fixed | (start.sum(1) == 0)  # an N stays
    blank = np.zeros_like(start)
    logits = np.array(memory.get("logits", np.log(start + 1e-4)))
    first, second = np.array(memory.get("first", blank)), np.array(memory.get("second", blank))
    found: list[Entry] = []
    for step in range(1, STEPS + 1):
        soft = softmax((logits + random.gumbel(size=(options.size, *logits.shape))) / options.temperature, axis=-1)
        picks = soft.argmax(-1).tolist()
        texts = ["".join(old if stays else BASES[i] for i, old, stays in zip(pick, origin, fixed)) for pick in picks]
        slopes, values = _slopes(search, target, texts)
        kept = [(text, value) for text, value in zip(texts, values) if not rules.broken(text)]
        fitting = search.fitting([text for text, _ in kept])
        found += [Entry(*one) for one, is_read in zip(kept, fitting) if is_read]
        slopes = slopes + EDIT_COST * start  # a letter of the start saves an edit
        gradient = (soft * (slopes - (soft * slopes).sum(-1, keepdims=True))).mean(0) / options.temperature
        gradient[fixed] = 0
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        count = state.round * STEPS + step
        logits = logits + (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
    numbers = {"logits": logits.tolist(), "first": first.tolist(), "second": second.tolist()}
    return state.pool, found, {**numbers, "origin": origin, "forwards": 3 * STEPS * options.size}


def _slopes(search: Search, target: Target, texts: Sequence[str]) -> tuple[Floats, list[float]]:
    """Give the objective's slope along each letter, ``(n, num_bases, 4)``, and the objective; mean over strands."""
    model = target.model
    strands = strands_of(search.options.strand or (model.reading.strand if model.reading else "+"))
    ids = letter_ids(target)
    vectors = word_table(model)[ids]
    columns = range(len(search.start_row))
    slopes, values = np.zeros((len(texts), len(texts[0]), 4)), np.zeros(len(texts))
    for strand in strands:
        encodings = [target.read(text if strand == "+" else reverse_complement(text)) for text in texts]
        functions = [
            _objective_of(
                [replace(target, output=i, against=None, strand=strand).function(one) for i in columns], search
            )
            for one in encodings
        ]
        found = gradients(model, encodings, functions, batch_tokens=search.options.batch_tokens)
        for i, one in enumerate(found):
            rows = one.encoding.content_rows
            along = (one.values[rows] @ vectors.T).astype(np.float64)
            slopes[i] += (along if strand == "+" else along[::-1, ::-1]) / len(strands)
            values[i] += one.target / len(strands)
    return slopes, values.tolist()


def _objective_of(parts: Sequence[Callable[[Tensor], Tensor]], search: Search) -> Callable[[Tensor], Tensor]:
    def objective(logits: Tensor) -> Tensor:
        rows = torch.stack([part(logits) for part in parts])
        found: Tensor = search.objective(rows, search.start_row)
        return found

    return objective


STEPS_OF: dict[str, Callable[[Search, State, Rules, np.random.Generator], Round]] = {
    "greedy": _expand, "beam": _expand, "evolve": _evolve, "lm": _refill, "gradient": _climb,
}  # fmt: skip
