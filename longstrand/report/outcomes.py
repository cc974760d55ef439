"""Reports of commands that write files without training anything: predict, embed, tokenizer, convert, plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from longstrand.report.page import write_report
from longstrand.report.sections import Curves, Line, Report, Section, Table, flatten, histogram, provenance_table
from longstrand.runtime import provenance

if TYPE_CHECKING:
    import polars as pl

    from longstrand.tokenization.report import TokenizerReport

MOST_ROWS = 1_000_000
"""Rows of an output that are drawn; the page says when there are more."""
MOST_COLUMNS = 8


def write_outcome(
    folder: Path, report: Report, *, files: Sequence[Path] = (), about: Mapping[str, Any] | None = None
) -> Path:
    """Write ``report.html`` and ``report.json``: the sections, then the files, and where they come from.

    Args:
        folder: made if missing.
        report: title, summary and the first sections.
        files: what the command wrote; a folder stands for all files in it.
        about: inputs and settings for the last section.

    Raises:
        InputError: the folder cannot be written.
    """
    origin = provenance_table(provenance(), **(about or {}))
    return write_report(folder, replace(report, sections=[*report.sections, origin]), files=files)[0]


def predictions_page(folder: Path, output: Path, *, title: str, notes: Sequence[str], about: Mapping[str, Any]) -> Path:
    """Report a finished output of ``predict`` or ``embed``: how numbers spread, what was called, extreme rows."""
    values, table, total = read_output(output)
    sections: list[Section] = []
    names = list(values)
    vectors = not any(name.startswith(("probability", "logit", "prediction")) for name in names)
    if vectors:
        norms = np.sqrt(sum(np.square(column, dtype=np.float64) for column in values.values()))
        explain = "The length of each vector. Vectors of length 0, or a second hump, deserve a look."
        shown: dict[str, npt.ArrayLike] = {"length of the vector": norms}
    else:
        explain = "A probability near 0 or 1 is a sure answer; a hump in the middle is an unsure model."
        shown = {name: values[name] for name in names[:MOST_COLUMNS]}
        if len(names) > MOST_COLUMNS:
            explain += f" The first {MOST_COLUMNS} of {len(names):,} columns."
    if any(np.isfinite(column).any() for column in shown.values()):
        label = "length of the vector" if vectors else "value"
        sections.append(histogram("How the numbers spread", explain, shown, label))
    if table is not None and not vectors:
        sections += _rows(table, names) + _locus(table, names[:MOST_COLUMNS])
    summary = [f"{total:,} rows of numbers in {len(names):,} columns: {output.name}."]
    if total > MOST_ROWS:
        summary.append(f"The pictures show the first {MOST_ROWS:,} rows.")
    summary += [f"{sentence[0].upper()}{sentence[1:]}" for note in notes if (sentence := note.removeprefix("note: "))]
    report = Report(title, sections, output.name, summary)
    return write_outcome(folder, report, files=[output], about=about)


def read_output(path: Path) -> tuple[dict[str, npt.NDArray[np.float32]], pl.DataFrame | None, int]:
    """Read the columns of numbers of an output (at most `MOST_ROWS` rows), the table if it is one, and count rows."""
    if path.suffix == ".zarr":
        import zarr

        group = zarr.open_group(str(path), mode="r")
        array: Any = group["values"]
        names: Any = group.attrs["value_names"]
        block = np.asarray(array[:MOST_ROWS]).reshape(-1, len(names))
        return {str(name): block[:, number] for number, name in enumerate(names)}, None, array.shape[0]
    import polars as pl

    if path.suffix == ".parquet":
        lazy = pl.scan_parquet(path)
    else:
        lazy = pl.scan_csv(path, separator="\t" if ".tsv" in path.name else ",", infer_schema_length=10_000)
    total = int(lazy.select(pl.len()).collect().item())
    table = lazy.head(MOST_ROWS).collect()
    known = {"index", "start", "end", "position", "bin", "token_start", "token_end"}
    kinds = [name for name, kind in table.schema.items() if kind.is_float() and name not in known]
    return {name: table[name].cast(pl.Float32).to_numpy() for name in kinds}, table, total


def _rows(table: pl.DataFrame, names: Sequence[str]) -> list[Section]:
    """List how often each class was called, and the rows with the highest first number and the least sure answer."""
    parts: list[Section] = []
    if "prediction" in table.columns and not table["prediction"].dtype.is_numeric():
        counts = table["prediction"].value_counts(sort=True).rows()
        shares = [[name, number, f"{number / len(table):.1%}"] for name, number in counts[:20]]
        parts.append(Table("What was called", "", ["prediction", "rows", "share"], shares))
    kept = ("index", "name", "chrom", "start", "end", "strand", "prediction", *names[:MOST_COLUMNS])
    columns = [name for name in dict.fromkeys(kept) if name in table.columns]
    last = names[-1]
    highest = table.sort(last, descending=True, nulls_last=True).head(10).select(columns)
    parts.append(Table(f"The ten rows with the highest {last}", "", columns, highest.rows()))
    if names[0].startswith("probability") and len(names) > 1:
        sure = np.stack([table[name].to_numpy() for name in names], axis=1).max(axis=1)
        unsure = table[np.argsort(np.nan_to_num(sure, nan=2.0), kind="stable")[:10].tolist()].select(columns)
        parts.append(Table("The ten least sure rows", "Look at these before the sure ones.", columns, unsure.rows()))
    return parts


def _locus(table: pl.DataFrame, names: Sequence[str]) -> list[Section]:
    """Draw the row with the highest last number along its bases or bins; nothing for one answer a row."""
    from longstrand.genome.intervals import Interval
    from longstrand.report.locus import Locus, Ruler, Track

    step = next((name for name in ("position", "bin") if name in table.columns), None)
    best = None if step is None else table[names[-1]].arg_max()
    if best is None:
        return []
    rows = table.filter(table["index"] == table["index"][best])
    first = rows.row(0, named=True)
    start, size, turn = 0, 1, 1
    if first.get("chrom") is not None:  # minus strands are read from their end
        start, turn = first["start"], -1 if first["strand"] == "-" else 1
        size = max(1, (first["end"] - start) // len(rows))
    limits = (0.0, 1.0) if names[0].startswith("probability") else None
    tracks = [Track(rows[name].to_numpy()[::turn], name.removeprefix("probability_"), "fill", start=start,
                    bin_size=size, limits=limits) for name in names]  # fmt: skip
    place = Interval(str(first.get("chrom") or first["name"]), start, start + size * len(rows))
    title = f"Along {first['name']}, which has the highest {names[-1]}"
    return [Locus(title, f"Counted in {'bases' if step == 'position' or size > 1 else 'bins'}.", [Ruler(), *tracks],
                  place)]  # fmt: skip


def tokenizer_sections(found: TokenizerReport) -> list[Section]:
    """Show how a tokenizer cuts a text."""
    total = max(1, sum(found.length_counts))
    heights = [number / total for number in found.length_counts]
    lengths = Line("tokens of the text", list(range(len(heights))), heights)
    ranks, counts = zip(*found.rank_counts)
    shares = Line("tokens by frequency", list(ranks), [count / found.num_tokens for count in counts])
    facts = [[name.replace("_", " "), value] for name, value in found.to_dict().items()
             if isinstance(value, int | float | str) and name != "fingerprint"]  # fmt: skip
    facts += [[f"token length, {name}", value] for name, value in found.token_lengths.items()]
    words = [list(pair) for pair in found.frequent_tokens]
    longest = [list(pair) for pair in found.longest_used_tokens]
    return [
        Table("How it cuts this text", "Longer tokens read more DNA at once and are learned from less.",
              ["what", "value"], facts),
        Curves("How long tokens are", "", [lengths], "bases per token", "share of tokens"),
        Curves("How often tokens occur", "A steep fall: few tokens make most of the text.", [shares],
               "rank of the token", "share of tokens", log=True),
        Table("The most frequent tokens", "", ["token", "times"], words),
        Table("The longest tokens that occur", "", ["token", "times"], longest),
    ]  # fmt: skip


def facts_table(title: str, explain: str, facts: Mapping[str, Any]) -> Table:
    """List a nested dictionary of plain values."""
    return Table(title, explain, ["what", "value"], flatten(facts))
