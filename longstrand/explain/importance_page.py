"""Figure 3 of GENA-LM for any head and motif database: one page and its tables from attributions.

Where along the sequence importance lies, which tokens are important, whether motif sites are, and which motifs hide in
important tokens that no known motif explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError
from longstrand.explain import importance as imp
from longstrand.explain.compare import compare
from longstrand.explain.discover import Discovered, discover
from longstrand.explain.model_pages import table_of, write_page
from longstrand.explain.motifs import Motif, write_meme
from longstrand.explain.scan import scan
from longstrand.genome.coverage import is_signal, open_signal
from longstrand.genome.intervals import Interval
from longstrand.report.locus import Locus, Logo
from longstrand.report.sections import Boxes, Curves, Line, Section, Table, text
from longstrand.runtime import generator, write_frame
from longstrand.tokenization.base import Tokenizer

FLANK = 4
"""Bases around important tokens that discovery reads, as published."""
TOP = 25
MOST_REGIONS = 4000


def read_attributions(path: Path, records: Sequence[Record], *, letters: bool = False) -> list[npt.NDArray[np.float32]]:
    """Read one value a base for each row, or the hypothetical scores of A, C, G and T.

    Args:
        path: the folder of ``explain attribute``; ``.npz`` or ``.zarr`` with ``values`` (all bases, one row after the
            other; of several columns the first one, or those called A, C, G, T) and ``offsets`` (where rows begin); or
            a BigWig or bedGraph for rows with a place (flipped for the strand ``-``).
        records: the rows.
        letters: give ``(num_bases, 4)`` hypothetical scores in place of ``(num_bases,)`` values.

    Raises:
        InputError: the file has another form, does not fit the rows, or has no scores of letters.
    """
    path = Path(path)
    if path.is_dir() and (path / "attributions.zarr").exists():
        path = path / "attributions.zarr"
    if is_signal(path) and not letters:
        track = open_signal(path)
        if any(record.interval is None for record in records):
            raise UsageError(f"{path}: a track needs intervals with --genome, not sequences.")
        places = [record.interval for record in records if record.interval is not None]
        parts = [track.values(place.chrom, place.start, place.end) for place in places]
        return [part[::-1] if place.strand == "-" else part for part, place in zip(parts, places)]
    names: list[str] = []
    try:
        if path.suffix == ".zarr":
            import zarr

            group: Any = zarr.open_group(str(path), mode="r")
            values, offsets = np.asarray(group["values"]), np.asarray(group["offsets"])
            names = list(group.attrs.get("value_names", ()))
        elif path.exists() and path.suffix != ".npz":
            raise ValueError("another kind of file")
        else:
            with np.load(path) as held:
                values, offsets = held["values"], held["offsets"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no attributions ('values' and 'offsets' in .npz or .zarr): {error}.") from None
    if len(offsets) != len(records) + 1:
        raise InputError(f"{path}: attributions of {len(offsets) - 1:,} rows for {len(records):,} sequences.")
    if letters:
        places = [names.index(letter) for letter in "ACGT" if letter in names]
        if len(places) < 4:
            raise InputError(
                f"{path}: there are no scores of A, C, G and T; explain attribute writes them with --method ism, and "
                "for models of single bases."
            )
        values = values[:, places]
    elif values.ndim == 2 and (names[:1] == ["attribution"] or values.shape[1] == 1):
        values = values[:, 0]
    if values.ndim != 1 + letters:
        raise InputError(f"{path}: one value a base is needed, but 'values' has the shape {values.shape}.")
    return np.split(values, offsets[1:-1])


def importance_report(
    records: Sequence[Record],
    values: Sequence[npt.NDArray[np.float32]],
    tokenizer: Tokenizer,
    motifs: Sequence[Motif],
    folder: Path,
    *,
    database: Sequence[Motif] | None = None,
    background: npt.NDArray[np.float64] | None = None,
    title: str = "What matters to the model",
) -> Path:
    """Write the page and its tables: profile, tokens, motif classes, enriched tokens, discovered motifs.

    Args:
        records: sequences.
        values: one attribution a base for each, as `longstrand.attribute` gives them.
        tokenizer: of the model.
        motifs: motifs of the target, whose sites make the classes of tokens.
        folder: where ``report.html``, ``report.json``, ``tokens.parquet``, ``*.tsv`` and ``discovered.meme`` go.
        database: motifs to name discovered ones by; None: ``motifs``.
        background: of the scan; None: FIMO's.
        title: of the page.

    Returns:
        Path of the page.

    Raises:
        InputError: values do not fit the sequences, or nothing is left to look at.
    """
    texts = [record.sequence for record in records]
    tokens = imp.token_table(texts, [tokenizer.encode(text.upper()).offsets for text in texts], values)
    hits = scan(motifs, texts, threshold=1e-3, background=background).found_room("the sequences")
    classes, q = imp.hit_classes(tokens, hits)
    table, unit = imp.compare_classes(tokens, classes)
    without = np.array(classes) == "none"
    enriched = imp.enriched_tokens(tokens)
    inside, outside = regions_of(texts, tokens, tokens.important & without)
    found: list[Discovered] = []
    why_not = ""
    try:
        found = discover(inside, outside)
    except InputError as error:
        why_not = str(error)
    names = compare([one.motif for one in found], database or motifs, top=3)
    tables = {"profile": imp.position_profile(values), "classes": table, "enriched": enriched, "matches": names}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed = pl.DataFrame({
        "sequence": [records[i].name for i in tokens.sequence.tolist()], "start": tokens.start, "end": tokens.end,
        "token": tokens.text, "importance": tokens.importance, "important": tokens.important, "q": q, "class": classes,
    })  # fmt: skip
    write_frame(folder / "tokens.parquet", listed)
    if found:
        write_meme(folder / "discovered.meme", [one.motif for one in found])
    honest = unit.row(0, named=True)
    sections = [*_statistics(tables, honest, motifs), *_discovered(found, names, why_not)]
    subtitle = (
        f"{len(texts):,} sequences, {len(tokens.text):,} tokens, of which {int(tokens.important.sum()):,} above the "
        f"{imp.PERCENTILE:.0f}th percentile are called important"
    )
    return write_page(folder, title, sections, tables, subtitle=subtitle, warnings=_warnings(honest, classes))


def regions_of(
    texts: Sequence[str], tokens: imp.TokenTable, chosen: npt.NDArray[np.bool_], *, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Cut out chosen tokens with `FLANK` bases around, and as many others of the same sequences.

    Regions of one sequence that touch are joined. The others are tokens whose regions hold no chosen token, drawn by
    the seed; they may overlap each other.
    """
    inside: list[str] = []
    outside: list[str] = []
    for number in np.unique(tokens.sequence[chosen]).tolist():
        rows, text = tokens.rows_of(number), texts[number].upper()
        marked = np.zeros(len(text) + 1, dtype=np.int8)
        spans = np.stack([tokens.start[rows] - FLANK, tokens.end[rows] + FLANK], axis=1).clip(0, len(text))
        for start, end in spans[chosen[rows]].tolist():
            marked[start:end] = 1
        borders = np.flatnonzero(np.diff(np.concatenate([[0], marked]))).reshape(-1, 2)
        inside += [text[start:end] for start, end in borders.tolist()]
        free = [text[start:end] for start, end in spans[~chosen[rows]].tolist() if not marked[start:end].any()]
        drawn = generator(seed, number, "unimportant regions").permutation(len(free))[: len(borders)]
        outside += [free[i] for i in drawn.tolist()]
    return inside[:MOST_REGIONS], outside[:MOST_REGIONS]


def _warnings(honest: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    warnings = []
    if honest["p"] is None or honest["p"] > 0.05:
        warnings.append("By sequence, tokens under motif sites matter no more than others: do not show the token test.")
    if "strong" not in classes:
        warnings.append(
            "No token overlaps a hit with q < 0.01: the motif may be too short to reach it, so the class is left out."
        )
    return warnings


def _statistics(tables: Mapping[str, pl.DataFrame], unit: Mapping[str, Any], motifs: Sequence[Motif]) -> list[Section]:
    """Show panels A, B and C."""
    profile, classes, top = tables["profile"], tables["classes"], tables["enriched"].head(TOP)
    columns = {name: profile[name].to_list() for name in ("position", "mean", "low", "high")}
    line = Line("mean", columns["position"], columns["mean"], low=columns["low"], high=columns["high"])
    boxes = {
        f"{row['class']} ({row['tokens']:,})": [row[key] for key in ("p5", "p25", "median", "p75", "p95")]
        for row in classes.rows(named=True)
    }
    test = ["class", "tokens", "median", "u", "p", "p_holm", "auroc"]
    known = ", ".join(motif.label for motif in motifs[:8])
    mean, p = _short(unit["mean_difference"]), _short(unit["p"])
    honest = text("importance_by_sequence", sequences=unit["sequences"], mean=mean, p=p)
    expected = _short(top["expected"][0] if len(top) else None)
    return [
        Curves("A. Where importance lies", text("importance_profile"), [line], "base", "attribution", {"zero": 0.0}),
        Boxes("B. Tokens under motif sites", text("importance_classes", known=known, strong=imp.STRONG, weak=imp.WEAK)
              + f" {honest}", boxes, "importance of a token", (test, classes.select(test).rows())),
        table_of("C. Enriched tokens", text("importance_tokens", expected=expected), top),
    ]  # fmt: skip


def _discovered(found: Sequence[Discovered], names: pl.DataFrame, why_not: str) -> Iterator[Section]:
    """Show panel D."""
    explain, rows = text("importance_motifs", flank=FLANK, why_not=why_not), []
    for one in found:
        like = names.filter(pl.col("query") == one.motif.name).rows(named=True)
        named = "; ".join(f"{row['target']} {row['target_name']} (p {_short(row['p'])})" for row in like)
        shares = "{} of {} against {} of {}".format(*one.held_out)
        rows.append([one.motif.name, one.word, one.sites, one.p_training, one.p, shares, named])
    heads = ["motif", "grew from", "sites", "p (search)", "p (held out)", "held-out regions with a site", "looks like"]
    title = "D. Motifs that were found"
    yield Table(title, explain, heads, rows) if rows else Section(title, f"{explain} None was found.")
    for one in found:
        logo = Logo(one.motif.frequencies, "bits")
        place = Interval(one.motif.name, 0, one.motif.width)
        yield Locus(f"D. Motifs that were found: {one.motif.name}", "Information of each column.", [logo], place)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
