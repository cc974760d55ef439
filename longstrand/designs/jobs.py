"""Design sequences in memory, or into a folder that survives a kill after every round.

The folder holds ``designs.tsv`` (one line a design, with what speaks for and against it), ``designs.fasta``,
``trace.tsv`` (one line a round) and a report.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl
from torch import nn

from longstrand.config import build
from longstrand.data.rows import Record
from longstrand.designs import page
from longstrand.designs.checks import SAMPLES, Design, check
from longstrand.designs.options import DesignOptions
from longstrand.designs.rules import Rules
from longstrand.designs.search import Objective, Search, State
from longstrand.errors import InputError, SequenceError, UsageError
from longstrand.evaluation.leakage import Sketch, sketch
from longstrand.explain.gradient import letter_ids
from longstrand.explain.maps import Inside, identity_of, inside_of
from longstrand.explain.target import Target, target_of
from longstrand.genome.sequence import normalise
from longstrand.inference.jobs import JobResult
from longstrand.inference.loaded import LoadedModel, Model, fingerprint_input, open_model, window_of
from longstrand.inference.options import PredictOptions
from longstrand.inference.resumable import ResumableOutput
from longstrand.inference.sequences import Sequences, as_records, open_genome
from longstrand.inference.strands import read_on, strands_of
from longstrand.models.network import Network
from longstrand.questions.scores import Score, scorer
from longstrand.questions.tokens import prepare_text, read_text, read_within, reading_of
from longstrand.runtime import Advance, Notice, check_output, torch_threads, world_size

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Setting:
    """Model, what is wanted of it, and what checks it. Make it with `Setting.of`."""

    options: DesignOptions
    score: Score
    objective: Objective
    loaded: LoadedModel | None
    target: Target | None
    prior: Network | None
    others: Mapping[str, tuple[Score, LoadedModel | None, Target | None]]
    known: Sketch | None
    inside: Inside | None

    @classmethod
    def of(
        cls, model: Model | Score, options: DesignOptions, *, check_models: Sequence[Model | Score] = (),
        prior: Model | None = None, train: Sequences | None = None, fixed_bed: str | Path | None = None,
        genome: Genome | None = None,
    ) -> Setting:  # fmt: skip
        """Open everything and check that it belongs together; intervals get by default the model's window.

        Raises:
            LongstrandError: a file is missing or damaged, the model has no such output, or the strategy is not for it.
        """
        score, loaded, target = _open(model, options)
        options = options.changed(
            window=window_of(options.window, loaded and loaded.reading, intervals=genome is not None)
        )
        objective = _objective(options, target)
        language = None if prior is None else open_model(prior, device=options.device).network
        if language is not None and language.kind != "masked_lm":
            raise UsageError("the prior is a masked LM; this model has another head.")
        if options.strategy == "lm" and language is None:
            raise UsageError("the strategy lm needs a language model: --prior MODEL (prior=).")
        if options.strategy == "gradient" and (target is None or target.model.kind == "masked_lm"):
            raise UsageError("the strategy gradient needs a model with labels; of functions and masked LMs use beam.")
        if options.strategy == "gradient" and target is not None and letter_ids(target) is None:
            raise UsageError(
                "the strategy gradient is for vocabularies of single bases: with k-mers or BPE another letter makes "
                "other tokens, and no gradient says which; use beam, evolve or lm."
            )
        others = {f"model{number}": _open(other, options) for number, other in enumerate(check_models, start=2)}
        same = [one for _, one, _ in others.values() if one and loaded and one.fingerprint() == loaded.fingerprint()]
        if same:
            raise UsageError("a model that checks is this model itself; ask different ones (other seeds or kinds).")
        known = None
        if train is not None:
            columns = options.changed(window=None, name_column=None).reading()
            known = sketch([record.sequence.upper() for record in as_records(train, options=columns)])
        inside = None if fixed_bed is None else inside_of(Path(fixed_bed), options.window, genome)
        return cls(options, score, objective, loaded, target, language, others, known, inside)

    def search(self, record: Record, index: int) -> Search:
        """Begin with a row; its rules can hold.

        Raises:
            InputError: the row is empty, a pair or no DNA.
            UsageError: rules exclude each other, or fixed bases lie outside.
        """
        where = record.where or record.name
        if record.second is not None or not record.sequence:
            raise InputError(
                f"{where}: a design begins with one sequence; this row has {'two' if record.second else 'none'}."
            )
        if self.target is None:
            text = normalise(record.sequence, where=where).sequence
        else:
            text = prepare_text(self.target.model, record.sequence, where)
        self._read(text, where)  # one that is too long stops here
        if not set(text) <= set("ACGTN"):
            raise InputError(f"{where}: a design begins with A, C, G, T and N in capital letters.")
        fixed = np.zeros(len(text), dtype=bool)
        for start, end in self.options.fixed:
            if end > len(text):
                raise UsageError(f"{where}: fixed bases {start + 1}-{end} end after its {len(text):,} bases.")
            fixed[start:end] = True
        if self.inside is not None:
            fixed |= self.inside(record)
        options = self.options
        rules = Rules(text, fixed, options.max_edits, options.gc, options.forbidden, options.motifs)
        rules.check(where)
        return Search(
            text, rules, self.score, self.objective, options, index=index, target=self.target, prior=self.prior,
            fits=self.fits,
        )  # fmt: skip

    def _read(self, text: str, where: str = "") -> None:
        """Cut a text into tokens as every model that is asked will, on all its strands.

        Raises:
            InputError: one of them cannot read it.
        """
        for target in (self.target, *(one for _, _, one in self.others.values())):
            if target is not None:
                for strand in strands_of(self.options.strand or reading_of(target.model).strand):
                    target.read(read_on(strand, text), where)
        if self.prior is not None:
            read_within(self.prior, text, where)

    def fits(self, text: str) -> bool:
        """Say whether all models can read a text: edits can make more tokens of it."""
        try:
            self._read(text)
        except InputError:
            return False
        return True

    def cost(self, searches: Sequence[Search]) -> str:
        """Say how much is computed at most, before anything is."""
        model, passes = self.target.model if self.target else None, 1
        if model is not None:
            passes = len(strands_of(self.options.strand or reading_of(model).strand))
            passes *= max(len(read_text(model, one.start)) for one in searches) if model.kind == "masked_lm" else 1
        texts = passes * sum(search.most_forwards() for search in searches)
        checks = passes * len(searches) * min(self.options.keep, self.options.size) * (2 + 2 * SAMPLES)
        longest, rounds = (max(numbers) for numbers in zip(*((len(one.start), one.most_rounds) for one in searches)))
        return (
            f"cost: at most {texts:,} forwards ({len(searches):,} starts of up to {longest:,} bases, at most "
            f"{rounds} rounds of {self.options.strategy}), and {checks:,} to check the designs"
        )

    def results(self, search: Search, record: Record, states: Sequence[State]) -> list[Design]:
        """Measure the designs of one start."""
        rows = [(s.round, s.best[0].value, s.mean, s.forwards, s.left_out) for s in states]
        trace = pl.DataFrame(rows, schema=["round", "best", "mean", "forwards", "left_out"], orient="row")
        prior = None if self.prior is None else scorer(self.prior, strand="+")
        found, others = [], {name: score for name, (score, *_) in self.others.items()}
        for number, entry in enumerate(states[-1].best, start=1):
            with _named(record):
                values = check(
                    search.start, entry.text, search.rules, self.score, self.objective, others=others, prior=prior,
                    known=self.known, seed=self.options.seed, index=search.index * 1000 + number,
                    fits=self.fits,
                )  # fmt: skip
            places = search.rules.edits(entry.text)
            edits = tuple(f"{place + 1}{search.start[place]}>{entry.text[place]}" for place in places)
            found.append(Design(record, number, search.start, entry.text, edits, values, trace))
        return found


def _open(model: Model | Score, options: DesignOptions) -> tuple[Score, LoadedModel | None, Target | None]:
    """Make the score function of a model; a function passes through."""
    if callable(model) and not isinstance(model, nn.Module):
        if options.region is not None or options.strand is not None:
            raise UsageError("region and strand are for models; a score function reads what it wants.")
        return model, None, None
    loaded = open_model(model, device=options.device)
    network = loaded.network
    if network.kind == "masked_lm":
        if options.target is not None:
            raise UsageError("a masked LM has one score, the log-likelihood of the sequence; leave out --target.")
        target = target_of(network)
    else:
        target = target_of(network, options.target, region=options.region, batch_tokens=options.batch_tokens)
    reading = reading_of(network)
    settings = {
        "exact_text": reading.exact_text,
        "max_tokens": reading.max_tokens,
        "batch_tokens": options.batch_tokens,
    }
    shown = PredictOptions.model_validate(settings)
    return scorer(network, strand=options.strand, region=options.region, options=shown), loaded, target


def _objective(options: DesignOptions, target: Target | None) -> Objective:
    """Number the outputs that are wanted."""

    def number(name: str | int) -> int:
        if target is not None and target.model.kind != "masked_lm":
            return target_of(target.model, name).output
        if not str(name).isdigit():
            raise UsageError(f"outputs of a score function are numbers from 0, got {name!r}.")
        return int(name)

    against = tuple(map(number, options.against))
    if target is not None and options.target is None:
        output = target.output
        against = against or (() if target.against is None else (target.against,))
    else:
        output = number(options.target or 0)
    hold = tuple(map(number, options.hold))
    if output in against or output in hold:
        raise UsageError("the output that is raised cannot be held or stand against itself.")
    return Objective(output, against, hold, options.hold_weight, options.lower, options.reach)


def design(
    model: Model | Score, sequences: Sequences, *, genome: Genome | str | Path | None = None,
    check_models: Sequence[Model | Score] = (), prior: Model | None = None, train: Sequences | None = None,
    fixed_bed: str | Path | None = None, notice: Notice = logger.info, **options: Any,
) -> list[Design]:  # fmt: skip
    """Change sequences until a model (or any score function) says what is wanted, within constraints.

    Args:
        model: folder of a checkpoint or run, name of a shipped model, hub id, a loaded model, or a function from
            sequences to float ``(n, outputs)``.
        sequences: starts: one text, a list or column of them, or a path (FASTA, table, BED with ``genome``).
        genome: what the intervals of a file lie on.
        check_models: other models of the same outputs (another seed, another kind): does the gain carry over?
        prior: a masked LM: the strategy ``lm`` draws from it, and its log-likelihood of starts and designs is reported.
        train: what the model was trained on, to say whether a design is a copy.
        fixed_bed: intervals that stay, on the genome or by the names of sequences.
        notice: receives the cost before anything is computed.
        **options: of `longstrand.designs.options.DesignOptions`, for example ``strategy="beam", max_edits=10``.

    Returns:
        The best designs of each start, best first, in the order of the starts.

    Raises:
        ConfigError: an option is unknown or wrong.
        InputError: a row is empty or no DNA.
        UsageError: constraints exclude each other (the two are named), or the strategy is not for this model.
    """
    setting, records, searches = _begin(
        model, sequences, genome, build(DesignOptions, options, "options"), notice, check_models=check_models,
        prior=prior, train=train, fixed_bed=fixed_bed,
    )  # fmt: skip
    found = []
    with torch_threads(_threads(setting)):
        for record, search in zip(records, searches):
            found += setting.results(search, record, [state for state, _ in _rounds(search, record)])
    return found


def _begin(
    model: Model | Score, sequences: Sequences, genome: Genome | str | Path | None, options: DesignOptions,
    notice: Notice, **others: Any,
) -> tuple[Setting, list[Record], list[Search]]:  # fmt: skip
    """Open everything, read the starts, and say what is computed at most."""
    opened = open_genome(genome)
    setting = Setting.of(model, options, genome=opened, **others)
    records = list(as_records(sequences, genome=opened, options=setting.options.reading()))
    if not records:
        raise InputError("there is no sequence to begin with.")
    if setting.inside is not None and not any(setting.inside(record).any() for record in records):
        raise InputError("no interval of --fixed-bed (fixed_bed=) lies on a start.")
    searches = [setting.search(record, index) for index, record in enumerate(records)]
    notice(setting.cost(searches))
    return setting, records, searches


def _rounds(
    search: Search, record: Record, kept: Callable[[], State | None] = lambda: None
) -> Iterator[tuple[State, bool]]:
    """Give the rounds of a start, and whether each was computed now; ``kept`` gives the next one if it is known."""
    state: State | None = None
    while state is None or not state.done:
        known = kept()
        with _named(record):
            state = known or (search.first() if state is None else search.step(state))
        yield state, known is None


@contextmanager
def _named(record: Record) -> Iterator[None]:
    try:
        yield
    except SequenceError as error:
        where = record.where or record.name
        raise InputError(f"{where}: a text with edits of it cannot be scored: {error.what}") from None


def _threads(setting: Setting) -> int | None:
    return setting.options.threads or (setting.loaded.threads if setting.loaded else None)


def design_file(
    model: Model, input: str | Path, output: str | Path, /, *, genome: Genome | str | Path | None = None,
    check_models: Sequence[str | Path] = (), prior: str | Path | None = None, train: str | Path | None = None,
    fixed_bed: str | Path | None = None, overwrite: bool = False, notice: Notice = logger.info,
    advance: Advance = lambda number: None, **options: Any,
) -> JobResult:  # fmt: skip
    """Design every row of a file into a folder; repeated after an interruption, go on after the last round.

    Args:
        model: as `design`, but no function.
        input: FASTA or a table with a column of sequences; BED or a table of intervals with ``genome``.
        output: folder to write.
        genome: what the intervals lie on (FASTA).
        check_models: as `design`.
        prior: as `design`.
        train: as `design`, a file.
        fixed_bed: as `design`.
        overwrite: replace an output that was made otherwise.
        notice: receives the cost before anything is computed.
        advance: called with the number of starts that are done.
        **options: of `DesignOptions`.

    Raises:
        LongstrandError: as `design`; a file is missing or damaged, or an output of other options is there.
    """
    started, source, target = time.perf_counter(), Path(input).expanduser(), Path(output).expanduser()
    wanted = build(DesignOptions, options, "options")
    check_output(target, [source, genome, model, prior, train, fixed_bed, *check_models])
    if world_size() > 1:
        raise UsageError("a design is one process; give every process starts of its own.")
    if callable(model) and not isinstance(model, nn.Module):
        raise UsageError("a function has no identity that a folder could name; use design(...) in Python.")
    opened = open_genome(genome)
    setting, records, searches = _begin(
        model, source, opened, wanted, notice, check_models=check_models, prior=prior, train=train, fixed_bed=fixed_bed
    )
    wanted, loaded = setting.options, cast(LoadedModel, setting.loaded)
    identity = {
        **identity_of(loaded, source, opened, wanted),
        "prior": None if setting.prior is None else open_model(setting.prior).fingerprint(),
        "check_models": [open_model(other).fingerprint() for other in check_models],
        "train": None if train is None else fingerprint_input(Path(train)),
        "fixed_bed": None if fixed_bed is None else fingerprint_input(Path(fixed_bed)),
    }  # fmt: skip
    computed = number = 0
    with (
        ResumableOutput.open(target, identity, suffix=".state", overwrite=overwrite) as parts,
        torch_threads(_threads(setting)),
    ):
        finished = None if overwrite else parts.finished()
        already = finished is not None
        if finished is None:

            def known() -> State | None:
                return State.of(json.loads(parts.data(number).read_text())) if parts.is_complete(number) else None

            for search, record in zip(searches, records):
                for state, is_new in _rounds(search, record, known):
                    if is_new:
                        counts = {"forwards": state.forwards if state.done else 0, "rounds": 1}
                        write = partial(Path.write_text, data=json.dumps(state.plain()))
                        parts.commit(number, write, num_rows=int(state.done), counts=counts)
                        computed += 1
                    number += 1
                advance(1)
            plain = wanted.identity()
            inputs = {name: value for name, value in identity.items() if value and name not in plain}
            join = partial(_join, setting, searches, records, inputs)
            finished = parts.finish(number, join)
    notes = [f"warning: {line}" for line in json.loads((target / "report.json").read_text())["warnings"]]
    return JobResult.of(target, finished, notes, computed=computed, started=started, already=already)


def _join(
    setting: Setting, searches: Sequence[Search], records: Sequence[Record], inputs: Mapping[str, Any],
    parts: Sequence[Path], target: Path,
) -> None:  # fmt: skip
    """Check the designs and write everything that the folder holds."""
    states, found = iter(State.of(json.loads(path.read_text())) for path in parts), []
    for search, record in zip(searches, records):
        own = [next(states)]
        while not own[-1].done:
            own.append(next(states))
        found += setting.results(search, record, own)
    page.write(target, found, setting.options, names=tuple(setting.others), inputs=inputs)
