"""The folder of designs: table, FASTA, trace, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from longstrand.designs.checks import SAMPLES, Design, diversity
from longstrand.designs.options import DesignOptions
from longstrand.explain.model_pages import write_page
from longstrand.genome.intervals import Interval
from longstrand.report.locus import MAX_LETTERS, Locus, Logo, Marks
from longstrand.report.sections import Curves, Line, Section, Table, text
from longstrand.runtime import write_atomically

WIDTH, MOST_ROWS, MOST_LINES = 120, 50, 8
CARRIED = 0.5
"""A gain of which another model sees less than this share is marked."""
TEXTS = {
    "score_start": "the score of the start", "score": "the score of the design",
    "random_edits": f"the mean of {SAMPLES} texts with as many random edits",
    "neighbours": f"the mean of {SAMPLES} single substitutions of the design: real optima are broad",
    "likelihood_start": "log-likelihood of the start, nats a base", "likelihood": "of the design",
    "likelihood_random_edits": "of the random edits",
    "known_start": "largest share of the start's 16-mers in one training row", "known": "of the design's",
}  # fmt: skip


def write(
    folder: Path, designs: Sequence[Design], options: DesignOptions, *, names: Sequence[str], inputs: Mapping[str, Any]
) -> None:
    """Write ``designs.tsv``, ``designs.fasta``, ``trace.tsv`` and the report into a folder (made here)."""
    frame = pl.DataFrame([one.row() for one in designs], infer_schema_length=None)
    firsts = [one for one in designs if one.number == 1]
    traces = [one.trace.select(pl.lit(one.record.name).alias("name"), pl.all()) for one in firsts]
    lines = [f">{one.record.name}_{one.number} score={one.score:.6g} edits={len(one.edits)}\n{one.sequence}\n"
             for one in designs]  # fmt: skip
    best = max(firsts, key=lambda one: abs(one.score - one.values["score_start"]))
    warnings = list(_warnings(firsts, names, options))
    gains = [one.score - one.values["score_start"] for one in firsts]
    forwards = sum(int(one.trace["forwards"][-1]) for one in firsts)
    summary = [
        f"{len(firsts):,} starts, {len(designs):,} designs; the score of the best one of each changed by "
        f"{np.median(gains):.3f} (median; {min(gains):.3f} to {max(gains):.3f}) with {forwards:,} forwards.",
        "All scores are predictions of a model; no cell was asked.",
    ]
    write_page(
        folder, "Designed sequences", [_picture(best), _curves(firsts), *_tables(frame)],
        {"designs": frame, "trace": pl.concat(traces)}, inputs={**inputs, **options.identity()},
        subtitle=f"strategy {options.strategy}", summary=summary, warnings=warnings,
    )  # fmt: skip
    write_atomically(folder / "designs.fasta", "".join(lines))


def _warnings(firsts: Sequence[Design], names: Sequence[str], options: DesignOptions) -> Iterator[str]:
    for name in names:
        shares = [one.values[f"{name}_share"] for one in firsts]
        few = sum(not share >= CARRIED for share in shares)
        if few:
            yield (
                f"{few} of {len(shares)} designs: {name} sees less than half of the gain over random edits "
                f"(median share {np.nanmedian(shares):.2f}); they may fool the model instead of doing what it says."
            )
    gained = [one.trace["best"].to_list() for one in firsts if len(one.trace) > options.most_rounds]
    unfinished = sum(best[-1] > best[-2] for best in gained)
    if unfinished:
        yield f"{unfinished} of {len(firsts)} searches still gained in their last round; --rounds gives them more."
    left_out = sum(int(one.trace["left_out"][-1]) for one in firsts)
    if left_out:
        yield f"{left_out:,} candidates were left out, because their edits make more tokens than a model reads."
    if not names:
        yield "no other model was asked whether it agrees (--check-model); a gain may be one of this model alone."
    if "likelihood" in firsts[0].values:
        low = sum(one.values["likelihood"] < one.values["likelihood_random_edits"] for one in firsts)
        if low:
            yield f"{low} of {len(firsts)} designs are less likely to the language model than as many random edits."
    broad = [(one.values["neighbours"] - one.values["random_edits"]) / (one.score - one.values["random_edits"] or 1.0)
             for one in firsts]  # fmt: skip
    narrow = sum(share < CARRIED for share in broad)
    if narrow:
        yield f"{narrow} of {len(firsts)} designs lose more than half of their gain by one more edit, on average."


def _picture(one: Design) -> Section:
    """Draw start and design under each other where most edits are, the edited letters tall."""
    changed = np.array([a != b for a, b in zip(one.start, one.sequence)])
    size = min(len(changed), WIDTH if len(changed) > MAX_LETTERS else MAX_LETTERS)
    sums = np.convolve(changed, np.ones(size), "valid")
    first = int(sums.argmax())
    shown = slice(first, first + size)
    region = Interval(one.record.name, first, first + size)
    heights = np.where(changed[shown], 1.0, 0.45)
    marks = [Interval(region.chrom, first + int(i), first + int(i) + 1) for i in np.flatnonzero(changed[shown])]
    components = [
        Logo(heights, name="start", kind="height", sequence=one.start[shown]),
        Logo(heights, name="design", kind="height", sequence=one.sequence[shown]), Marks(marks, name="edits"),
    ]  # fmt: skip
    explain = (
        f"The design that gained most: score {one.values['score_start']:.3f} to {one.score:.3f} with {len(one.edits)} "
        f"edits ({int(sums.max())} in this picture). Tall letters are edited."
    )
    return Locus(f"Start and design: {one.record.name}", explain, components, region)


def _curves(firsts: Sequence[Design]) -> Section:
    lines = []
    for one in firsts[:MOST_LINES]:
        rounds = one.trace["round"].to_list()
        lines.append(Line(one.record.name, rounds, one.trace["best"].to_list(), "points"))
        if len(firsts) == 1:
            lines.append(Line("mean of the round", rounds, one.trace["mean"].to_list(), "faint"))
    more = f" The first {MOST_LINES} starts." if len(firsts) > MOST_LINES else ""
    explain = text("design_search") + more
    return Curves("The search", explain, lines, x_label="round", y_label="best so far")


def _tables(frame: pl.DataFrame) -> Iterator[Section]:
    columns = [name for name in frame.columns if name != "sequence"]
    more = f" The first {MOST_ROWS} of {len(frame):,}." if len(frame) > MOST_ROWS else ""
    meaning = "; ".join(f"{name}: {TEXTS[name]}" for name in columns if name in TEXTS)
    explain = text("designs", meaning=meaning, more=more)
    rows = frame.select(columns).head(MOST_ROWS).rows()
    yield Table("The designs, and what speaks for and against them", explain, columns, rows)
    spread = diversity(frame)
    if spread["designs"].max() > 1:  # type: ignore[operator]
        columns = ["start", *spread.columns[1:]]
        yield Table("How different are the designs?", text("design_spread"), columns, spread.head(MOST_ROWS).rows())
