"""``longstrand logo``: what a language model expects at each base, as tracks for a genome browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import (
    JsonOption,
    ModelOption,
    OverwriteOption,
    QuietOption,
    given,
    model_first,
    new_app,
    options_of,
    progress_bar,
    show_result,
)
from longstrand.inference.options import OF_A_LOGO, TrackOptions

app = new_app()


@app.command()
@options_of(TrackOptions, leave_out=[name for name in TrackOptions.model_fields if name not in OF_A_LOGO])
def logo(
    arguments: Annotated[
        list[str], typer.Argument(metavar="MODEL GENOME", help="A masked language model and a FASTA file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    model: ModelOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Write how strongly a language model expects A, C, G and T at each base of regions: four BigWigs and a logo hub.

    Every base is masked in turn: one pass of the model for each token. Name --regions (BED, or
    chr1:1001-2000, counted from 1, both ends included) or --contigs. The same command continues after an interruption.
    """
    from longstrand.tracks.logo import write_logo

    source, genome = model_first(model, arguments, "MODEL GENOME")
    asked = given(options)
    if "contigs" in asked:
        asked["chroms"] = asked.pop("contigs")
    with progress_bar("logo", lambda: None, "bases", quiet=quiet) as advance:
        result = write_logo(source, genome, output, overwrite=overwrite, advance=advance, **asked)
    bases = result.counts.get("bases", 0)
    line = f"wrote {bases:,} bases of {result.num_rows} contig(s) to {output} ({result.seconds:.1f} s)"
    if result.already_finished:
        line = f"{output} is already complete; --overwrite makes it anew."
    summary = {"output": str(output), "bases": bases, "seconds": result.seconds}
    show_result(summary, [line, f"next: put {output} on a web server and open hub.txt in the UCSC browser"], [],
                as_json=json, quiet=quiet)  # fmt: skip
