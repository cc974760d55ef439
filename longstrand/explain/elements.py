"""Elements of an annotation on windows of a genome, and how well a masked LM reads their letters.

Reconstruction masks tokens (the central one, or a share of all, ``[MASK]`` only) and asks for them: accuracy over the
whole vocabulary and perplexity ``exp(mean loss in nats)``, over all tokens and over those inside each kind of element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from longstrand.data.rows import Record, read_intervals
from longstrand.errors import InputError, UsageError, nearest
from longstrand.evaluation.bootstrap import Resamples, interval
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval, merge_intervals
from longstrand.genome.regions import on_genome
from longstrand.models.network import Network
from longstrand.questions.tokens import BATCH_TOKENS, MaskedText, iter_log_probabilities, read_text
from longstrand.runtime import generator

Bools = npt.NDArray[np.bool_]
Stretches = dict[str, npt.NDArray[np.int64]]
"""Starts and ends on each contig, int64 ``(n, 2)``, disjoint and sorted."""
SHARE = 0.15


class Place(NamedTuple):
    """Where the bases of a row lie; a window may reach beyond the ends of its contig."""

    chrom: str
    start: int
    end: int
    strand: str


@dataclass(frozen=True)
class Elements:
    """Stretches of a genome by kind."""

    places: dict[str, Stretches]

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds."""
        return list(self.places)

    def marks(self, kind: str, where: Place | Interval) -> Bools:
        """Say which bases of an interval, read on its strand, lie in an element of a kind (of either strand)."""
        return marks_of(self.places[kind], where)


def by_chrom(intervals: Iterable[Interval]) -> Stretches:
    """Merge intervals of any strand, and order them by contig."""
    found: dict[str, list[tuple[int, int]]] = {}
    for place in merge_intervals(intervals):
        found.setdefault(place.chrom, []).append((place.start, place.end))
    return {chrom: np.array(rows, dtype=np.int64) for chrom, rows in found.items()}


def marks_of(stretches: Stretches, where: Place | Interval) -> Bools:
    """Say which bases of a place, read on its strand, lie in some stretches; a place may begin before its contig."""
    result = np.zeros(where.end - where.start, dtype=bool)
    table = stretches.get(where.chrom, np.empty((0, 2), dtype=np.int64))
    first, last = np.searchsorted(table[:, 1], where.start, "right"), np.searchsorted(table[:, 0], where.end)
    for start, end in table[first:last].tolist():
        result[max(0, start - where.start) : end - where.start] = True
    return result[::-1] if where.strand == "-" else result


def read_elements(path: Path, genome: Genome, kinds: Sequence[str] = ()) -> Elements:
    """Read an annotation: GFF and GTF (kinds are the third column), BED or a table (column ``kind`` or ``name``).

    Args:
        path: the file.
        genome: what it lies on.
        kinds: those to keep; none: all.

    Raises:
        InputError: an element leaves its contig (with line).
        UsageError: a kind does not occur.
    """
    table = on_genome(read_intervals(path), genome)
    column = next((table.labels[name] for name in ("kind", "name") if name in table.labels), None)
    names = ["element"] * len(table) if column is None else [name or "element" for name in column]
    known = list(dict.fromkeys(names))
    for kind in kinds:
        if kind not in known:
            shown = ", ".join(known[:12])
            raise UsageError(f"{path}: there is no element '{kind}'{nearest(kind, known)}; its kinds are {shown}.")
    rows = list(zip(table.intervals, names))
    return Elements({kind: by_chrom(place for place, name in rows if name == kind) for kind in kinds or known})


def place_of(record: Record) -> Interval:
    """Give the place of a row.

    Raises:
        InputError: it has none.
    """
    if record.interval is None or record.interval.length != record.num_bases:
        raise InputError(f"{record.where or record.name}: elements need rows with a place: a BED file and --genome.")
    return record.interval


def in_element(offsets: npt.NDArray[np.int32], marks: Bools) -> Bools:
    """Say for each token whether any of its bases is marked."""
    total = np.concatenate([[0], np.cumsum(marks)])
    found: Bools = total[offsets[:, 1]] > total[offsets[:, 0]]
    return found


def reconstruct(
    model: Network,
    records: Sequence[Record],
    *,
    elements: Elements | None = None,
    mask: str = "share",
    seed: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> pl.DataFrame:
    """Mask tokens and read them back.

    Args:
        model: a masked LM.
        records: sequences; with a place if there are elements.
        elements: what tokens may lie in.
        mask: ``share``: `SHARE` of the tokens together, drawn by the seed; ``central``: the one in the middle.
        seed: draws the tokens of ``share``; 0.
        batch_tokens: most tokens of a batch.

    Returns:
        A row a masked token: sequence, start, end, token, loss (nats), correct, and a column for each kind of element.

    Raises:
        UsageError: the model is no masked LM, or ``mask`` is another word.
        InputError: rows have no place, or are too long.
    """
    if mask not in ("share", "central"):
        raise UsageError(f"mask is share or central, got '{mask}'.")
    if mask == "central" and seed is not None:
        raise UsageError("the central token is not drawn, so a seed changes nothing; leave it out.")
    strings = model.require_tokenizer().token_strings
    asked = list(_asked(model, records, mask, seed or 0))
    kinds = elements.kinds if elements else []
    rows = []
    answers = iter_log_probabilities(model, (one for _, one in asked), batch_tokens=batch_tokens)
    for (number, one), logs in zip(asked, answers):
        encoding = one.encoding
        labels, offsets = encoding.input_ids[one.rows], encoding.offsets[one.rows]
        inside = [in_element(offsets, elements.marks(kind, place_of(records[number]))) for kind in kinds if elements]
        loss, right = -logs[np.arange(len(labels)), labels], logs.argmax(1) == labels
        for i in range(len(labels)):
            place = int(offsets[i, 0]), int(offsets[i, 1])
            shown = strings[labels[i]]
            rows.append((number, *place, shown, float(loss[i]), bool(right[i]), *(bool(own[i]) for own in inside)))
    types = {"sequence": pl.Int64, "start": pl.Int64, "end": pl.Int64, "token": pl.String, "loss": pl.Float64}
    schema = types | {"correct": pl.Boolean} | dict.fromkeys(kinds, pl.Boolean)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _asked(model: Network, records: Sequence[Record], mask: str, seed: int) -> Iterator[tuple[int, MaskedText]]:
    for number, record in enumerate(records):
        encoding = read_text(model, record.sequence, record.where or record.name)
        content = encoding.content_rows
        if not len(content):
            continue
        rows = content[len(content) // 2 : len(content) // 2 + 1]
        if mask == "share":
            size = max(1, round(SHARE * len(content)))
            rows = np.sort(generator(seed, record.index, "reconstruction").choice(content, size, replace=False))
        yield number, MaskedText(encoding, rows, rows)


def by_element(tokens: pl.DataFrame, kinds: Sequence[str]) -> pl.DataFrame:
    """Sum up masked tokens: all of them, those in each kind of element, and those in none.

    Returns:
        element, tokens, sequences, accuracy with its 95 % interval (bootstrap over sequences), loss (nats a token),
        perplexity (exp of the mean loss).
    """
    groups = [("all", tokens), *((kind, tokens.filter(pl.col(kind))) for kind in kinds)]
    if kinds:
        groups.append(("outside", tokens.filter(~pl.any_horizontal(*kinds))))
    rows = []
    for name, own in groups:
        if not len(own):
            continue
        sums = own.group_by("sequence", maintain_order=True).agg(pl.col("correct").sum(), pl.len().alias("n"))
        correct, counts = sums["correct"].to_numpy().astype(float), sums["n"].to_numpy().astype(float)
        drawn = np.concatenate([w @ correct / (w @ counts) for w in Resamples(len(sums)).blocks()])
        accuracy, loss = float(correct.sum() / counts.sum()), float(own["loss"].mean())  # type: ignore[arg-type]
        low, high = interval(accuracy, drawn, "accuracy", len(sums))
        rows.append((name, len(own), len(sums), accuracy, low, high, loss, float(np.exp(loss))))
    names = ["element", "tokens", "sequences", "accuracy", "low", "high", "loss", "perplexity"]
    return pl.DataFrame(rows, schema=names, orient="row")
