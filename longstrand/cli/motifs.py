"""``longstrand motifs``: find motifs in sequences, compare them, discover them, and ask a model about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstrand.cli.options import GenomeOption, JsonOption, QuietOption, new_app, show_result
from longstrand.errors import one_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from longstrand.data.rows import Record
    from longstrand.explain.motifs import Motif

app = new_app(no_args_is_help=True, help="Scan for motifs, compare and discover them, ask a model about them.")

SequencesArgument = Annotated[
    str, typer.Argument(help="FASTA, a table with a sequence column, or intervals with --genome.", show_default=False)
]
MotifsArgument = Annotated[Path, typer.Argument(help="Motifs: MEME, JASPAR or TRANSFAC file.", show_default=False)]
TableOption = Annotated[
    Path, typer.Option("--output", "-o", help="Table to write: .tsv, .csv, .parquet, .bed.", show_default=False)
]
MotifOption = Annotated[str | None, typer.Option("--motif", help="Names of the motifs to use, with commas; all.")]
BackgroundOption = Annotated[
    str, typer.Option(help="Of p values: nrdb (FIMO's), uniform, input (the sequences'), or A,C,G,T as numbers.")
]


def chosen_motifs(path: Path, names: str | None) -> list[Motif]:
    """Read motifs and keep those that are named."""
    from longstrand.explain.motifs import choose, read_motifs

    motifs = read_motifs(path)
    return motifs if names is None else choose(motifs, names.split(","))


def records_of(source: str, genome: Path | None) -> Iterator[Record]:
    """Read what a user calls sequences."""
    from longstrand.inference.sequences import as_records

    return as_records(source, genome=genome)


@app.command()
def scan(
    sequences: SequencesArgument,
    motifs: MotifsArgument,
    output: TableOption,
    genome: GenomeOption = None,
    motif: MotifOption = None,
    threshold: Annotated[float, typer.Option(help="Write hits whose p value is below this.")] = 1e-4,
    max_q: Annotated[float, typer.Option("--q", help="Write hits whose q value is at most this.")] = 1.0,
    background: BackgroundOption = "nrdb",
    strand: Annotated[str, typer.Option(help="both, or + alone.")] = "both",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write every place that matches a motif, with FIMO's score and exact p value, and a q value (per motif).

    Windows with N are skipped. Places count from 0 without the end, as in BED; with intervals they are the genome's.
    """
    from longstrand.explain import scan as scanning
    from longstrand.explain.tables import check_ending, hits_table, write_table

    check_ending(output)
    both = one_of(strand, ("both", "+"), "--strand") == "both"
    wanted = chosen_motifs(motifs, motif)
    texts = (record.sequence for record in records_of(sequences, genome)) if background == "input" else ()
    frequencies = scanning.background_of(background, texts)
    seen: list[Record] = []
    longest = 0

    def letters() -> Iterator[str]:
        nonlocal longest
        for record in records_of(sequences, genome):
            longest = max(longest, record.num_bases)
            seen.append(replace(record, sequence="", flanks=("", "")))
            yield record.sequence

    hits = scanning.scan(wanted, letters(), threshold=threshold, background=frequencies, both_strands=both)
    hits = hits.take(hits.q <= max_q)
    write_table(output, hits_table(hits, wanted, seen))
    lines = [f"wrote {len(hits):,} hits of {len(wanted):,} motifs in {len(seen):,} sequences to {output}"]
    wide = [each.name for each in wanted if each.width > longest]
    notes = [f"note: {len(wide)} motifs are longer than every sequence, so they have no hits: {', '.join(wide[:5])}."]
    summary = {"output": str(output), "hits": len(hits), "motifs": len(wanted), "sequences": len(seen)}
    show_result(summary, lines, notes if wide else [], as_json=json, quiet=quiet)
