"""The pages of what a language model knows: reconstruction, attention, dependency maps, elements, species."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from longstrand.data.rows import Record
from longstrand.explain.attention import FEW_ARCS, arcs_of
from longstrand.explain.dependency import LEVEL, DependencyMap
from longstrand.explain.elements import Elements, place_of
from longstrand.genome.intervals import Interval
from longstrand.models.network import Network
from longstrand.report.locus import Arcs, Locus, Logo, Marks, Ruler, Track, marked
from longstrand.report.page import write_report
from longstrand.report.sections import Curves, Line, Report, Section, Table, grid, provenance_table, text
from longstrand.runtime import provenance, write_frame

TOP = 30
SHOWN = ["element", "layer", "head", "arcs", "p_alpha", "p2", "effect", "share"]
SHOWN += ["p_shift", "p_shift_all", "z", "p_z_all"]
MOST_ROWS = 60
"""Rows that a drawn map has; longer ones are pooled by their largest value."""


def write_page(
    folder: Path, title: str, sections: Sequence[Section], tables: Mapping[str, pl.DataFrame], *,
    inputs: Mapping[str, Any] | None = None, **more: Any,
) -> Path:  # fmt: skip
    """Write the tables as ``.tsv`` and the page beside them; ``more`` goes to the report (subtitle, warnings)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_frame(folder / f"{name}.tsv", table)
    return write_report(folder, Report(title, [*sections, provenance_table(provenance(), **(inputs or {}))], **more))[0]


def table_of(title: str, explain: str, frame: pl.DataFrame) -> Table:
    """Show a frame as a table."""
    return Table(title, explain, frame.columns, frame.rows())


def reconstruction_page(folder: Path, name: str, tokens: pl.DataFrame, summary: pl.DataFrame, vocabulary: int) -> Path:
    """Write how well masked tokens are read back, by element."""
    explain = text("reconstruction", vocabulary=vocabulary, chance=1 / vocabulary)
    return write_page(folder, f"What {name} reads back", [table_of("By element", explain, summary)],
                      {"elements": summary, "tokens": tokens})  # fmt: skip


def attention_examples(
    model: Network, records: Sequence[Record], elements: Elements, tables: dict[str, pl.DataFrame], mu: float
) -> list[Section]:
    """Draw for each kind of element the arcs of the head that points at it most, on a row that holds the element."""
    found: list[Section] = []
    for kind, frame in tables.items():
        best = frame.filter("enough").sort("effect", descending=True, nulls_last=True).head(1).rows(named=True)
        row = next((one for one in records if 0 < elements.marks(kind, place_of(one)).mean() < 0.5), None)
        if not best or row is None:
            continue
        place, marks = place_of(row), elements.marks(kind, place_of(row))
        pairs, weights = arcs_of(model, row.sequence, best[0]["layer"], best[0]["head"], mu=mu)
        if place.strand == "-":
            pairs, marks = place.length - pairs, marks[::-1]
        components = [Ruler(), Arcs(pairs + place.start, weights, f"attention\n> {mu:g}"),
                      Marks(marked(marks, place), name=kind)]  # fmt: skip
        title = f"Layer {best[0]['layer']}, head {best[0]['head']}: {kind}"
        found.append(Locus(title, text("attention_example"), components, place))
    return found


def attention_page(
    folder: Path, name: str, tables: dict[str, pl.DataFrame], mu: float, examples: Sequence[Section] = ()
) -> Path:
    """Write where attention points, by kind of element.

    Args:
        folder: where to.
        name: of the model.
        tables: kind of element to the rows of `longstrand.explain.attention.attention_by_element`.
        mu: threshold of an arc.
        examples: pictures, see `attention_examples`.
    """
    every = pl.concat([frame.with_columns(pl.lit(kind).alias("element")) for kind, frame in tables.items()])
    every = every.with_columns(
        (pl.col("p_shift_bonferroni") * len(tables)).clip(0, 1).alias("p_shift_all"),
        (pl.col("p_z_bonferroni") * len(tables)).clip(0, 1).alias("p_z_all"),
    )
    enough = every.filter("enough")
    lines, counts = [], []
    for kind, frame in tables.items():
        own = frame.filter("enough").group_by("layer").agg(pl.col("effect").max()).sort("layer").drop_nulls()
        lines.append(Line(kind, [float(x) for x in own["layer"]], own["effect"].to_list(), style="points"))
        found = enough.filter(pl.col("element") == kind)
        significant = (int((found[column] < 0.05).sum()) for column in ("p_shift_all", "p_z_all"))
        counts.append([kind, len(frame), len(found), *significant])
    strongest = enough.sort("effect", descending=True, nulls_last=True).head(TOP).select(SHOWN)
    heads = ["element", "heads", f"with {FEW_ARCS} arcs or more", "p_shift < 0.05", "z: p < 0.05"]
    lines = [line for line in lines if line.x]
    best = Curves(
        "Best head of each layer", text("attention_layers", mu=mu), lines, "layer", "p_alpha / p2", {"chance": 1}
    )
    sections = [
        Table("Heads that point at elements", text("attention"), heads, counts), *([best] if lines else []),
        table_of("Strongest heads", f"Heads with at least {FEW_ARCS} arcs; layers and heads count from 0.", strongest),
    ]  # fmt: skip
    return write_page(folder, f"Where {name} looks", [*sections, *examples],
                      {"heads": every})  # fmt: skip


def dependency_page(
    folder: Path, name: str, found: DependencyMap, cut_off: float | None, place: Interval, *, raw: bool = False
) -> Path:
    """Write the map of one sequence: picture, strongest pairs, arrays (``map.npz``)."""
    between = found.between
    order = np.argsort(-np.nan_to_num(between, nan=-1).reshape(-1), kind="stable")[: 4 * TOP]
    pairs = [
        (int(i), int(j), float(between[i, j])) for i, j in zip(*np.divmod(order, len(between))) if between[i, j] > 0
    ]
    frame = pl.DataFrame(
        [(i, j, found.sequence[i], found.sequence[j], j - i, value) for i, j, value in pairs],
        schema=["changed", "looked_at", "base", "other", "distance", "change"], orient="row",
    )  # fmt: skip
    size = len(between)
    pool = -(-size // MOST_ROWS)
    rows = [np.nanmax(np.where(np.isnan(part), 0, part), axis=0) for part in np.split(between, range(pool, size, pool))]
    drawn = np.stack(rows, axis=1)
    cut = "; bases whose own token they cut otherwise are left out there" if found.resegmented else ""
    explain = text("dependency", unit=found.unit, moved=100 * found.resegmented, cut=cut, highest=drawn.max())
    components = [
        Ruler(found.sequence),
        Logo(found.probabilities, "expected\n(bits)"),
        Track(drawn, "changed", kind="heat"),
    ]
    sections: list[Section] = [Locus("Map", explain, components, place)]
    if cut_off is not None:
        share = float((between > cut_off).sum() / max(1, np.isfinite(between).sum()))
        chance = text("dependency_null", level=LEVEL, cut_off=cut_off, above=100 * share, left=100 - LEVEL)
        sections.append(Section("What chance gives", chance))
        frame = frame.with_columns((pl.col("change") > cut_off).alias("above_chance"))
    sections.append(table_of("Strongest pairs", "Positions count from 0.", frame.head(TOP)))
    page = write_page(folder, f"Which bases depend on which, for {name}", sections, {"pairs": frame})
    arrays = {"odds": found.odds, "jacobian": found.jacobian, "influence": found.influence}
    arrays |= {"probabilities": found.probabilities} | ({"raw": found.raw} if raw and found.raw is not None else {})
    np.savez_compressed(Path(folder) / "map.npz", sequence=np.array(found.sequence), **arrays)
    return page


def _scatter(points: pl.DataFrame, group: str, method: str) -> Curves:
    """Draw vectors in two dimensions, coloured by a column."""
    parts = [(str(name), own) for (name,), own in points.group_by([group], maintain_order=True)]
    lines = [Line(name, own["x"].to_list(), own["y"].to_list(), "dots") for name, own in parts]
    counts = (group, "vectors"), [(name, len(own)) for name, own in parts]
    title = f"A look at the vectors ({method.upper()})"
    return Curves(title, text("vectors"), lines, f"{method} 1", f"{method} 2", table=counts)


def separation_page(folder: Path, name: str, table: pl.DataFrame, points: pl.DataFrame, method: str = "pca") -> Path:
    """Write whether elements lie apart in embeddings, beside the controls."""
    sections = [table_of("How far apart", text("separation"), table), _scatter(points, "element", method)]
    return write_page(folder, f"Elements in the space of {name}", sections,
                      {"separation": table, "coordinates": points})  # fmt: skip


def species_page(folder: Path, name: str, table: pl.DataFrame, points: pl.DataFrame, method: str = "pca") -> Path:
    """Write how well pairs of labels are told apart, by kind of features."""
    kinds = list(dict.fromkeys(table["features"].to_list()))
    rows = {
        f"{a} and {b}": [own.filter(pl.col("features") == kind)["f1_macro"][0] for kind in kinds]
        for (a, b), own in table.group_by(["a", "b"], maintain_order=True)
    }
    means = {f"mean of {len(rows)} pairs": [float(np.mean(column)) for column in zip(*rows.values())]}
    sections = [
        grid("Pairs", text("species"), kinds, means | rows, [False] * len(kinds)),
        _scatter(points, "species", method),
    ]
    tables = {"pairs": table, "coordinates": points}
    return write_page(folder, f"Pairs told apart by {name}", sections, tables)
