"""``longstrand data``: make labelled tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from longstrand.cli.options import JsonOption, new_app

app = new_app(no_args_is_help=True)
Chroms = Annotated[str, typer.Option(help="Chromosomes for this split, separated by commas; default: chosen by size.")]


@app.callback()
def data() -> None:
    """Make labelled tables for 'longstrand finetune', 'probe' and 'benchmark run'."""


@app.command("from-gtf")
def from_gtf(
    annotation: Annotated[Path, typer.Argument(help="GTF or GFF3 file, plain or gzip.", show_default=False)],
    genome: Annotated[Path, typer.Argument(help="Its genome (FASTA).", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; each task gets a folder in it.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="splice_sites, promoters or gene_structure; may be repeated; default: all.", show_default=False
        ),
    ] = None,
    valid_chroms: Chroms = "",
    test_chroms: Chroms = "",
    splice_window: Annotated[
        int, typer.Option(min=20, help="Bases of a window with a splice site in its middle.")
    ] = 400,
    promoter_window: Annotated[int, typer.Option(min=20, help="Bases of a window of a promoter.")] = 300,
    before: Annotated[
        int, typer.Option(min=-1, help="Bases of it before the transcription start; -1: 249 of 300, else half.")
    ] = -1,
    structure_window: Annotated[int, typer.Option(min=20, help="Bases of a window of gene structure.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Draws the windows that are no site and no promoter.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """From an annotation and its genome to labelled tables: splice sites, promoters, gene structure base by base.

    Each task is a folder with train.csv, valid.csv, test.csv (name, chrom, sequence, label), split by chromosome where
    the genome has enough of them. Gene structure has one digit a base; classes.csv says what the digits mean.
    """
    import sys

    from longstrand.benchmarks.suites import from_gtf as tables

    chosen = {
        name: tuple(word for word in text.split(",") if word)
        for name, text in (("valid_chroms", valid_chroms), ("test_chroms", test_chroms))
    }
    options = {"splice_window": splice_window, "promoter_window": promoter_window, "before": before}
    made = tables.from_gtf(
        annotation,
        genome,
        output,
        tasks=task or (),
        notice=lambda line: print(line, file=sys.stderr, flush=True),
        options={**options, **chosen, "structure_window": structure_window, "seed": seed},
    )
    if as_json:
        shown = {
            name: {"folder": str(x.folder), "rows": x.rows, "split_rule": x.split_rule} for name, x in made.items()
        }
        print(json.dumps(shown, indent=2))
        return
    folder = next(iter(made.values())).folder
    print(
        f"next: longstrand finetune --model mixed_6mer_1m --train {folder}/train.csv --valid {folder}/valid.csv "
        f"--test {folder}/test.csv --output {folder.name}_model"
    )
