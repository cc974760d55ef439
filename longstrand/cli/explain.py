"""``longstrand explain``: why a model says what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.explain_model import model_app
from longstrand.cli.options import (
    GenomeOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    QuietOption,
    WordsArgument,
    given,
    model_first,
    new_app,
    options_of,
    show_job,
)
from longstrand.explain.cost import SAID, Cost
from longstrand.explain.options import AttributeOptions

app = new_app(no_args_is_help=True, help="Say why a model says what it says.")


@app.command()
@options_of(AttributeOptions)
def attribute(
    arguments: WordsArgument,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    model: ModelOption = None,
    genome: GenomeOption = None,
    other: Annotated[
        list[str] | None, typer.Option(help="Another model of the same task (another seed), to compare; repeatable.")
    ] = None,
    sites: Annotated[
        Path | None, typer.Option(help="BED of known sites; the report measures whether the maps find them.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Give each base of each sequence its share in what a model says, with tests of whether to believe it.

    The folder gets the values (.zarr), one line a row (.tsv), strong stretches (.bed), a track (.bw or .bedgraph) and a
    report. The same command continues after an interruption. Several processes (torchrun) share the work.
    """
    from longstrand.explain.jobs import attribute_file
    from longstrand.runtime import progress_bar

    chosen, source = model_first(model, arguments, "MODEL INPUT")
    with progress_bar("explain", unit="tokens x passes") as bar:

        def begin(cost: Cost) -> None:
            bar.reset(total=cost.work)
            if cost.total > SAID and not quiet:
                typer.echo(f"{cost}; --most-minutes is the limit.", err=True)

        result = attribute_file(
            chosen, source, folder, genome=genome, others=other or (), sites=sites, overwrite=overwrite,
            begin=begin, tick=bar.update, **given(options),
        )  # fmt: skip
    show_job(result, "maps", as_json=json, quiet=quiet)


app.registered_commands += model_app.registered_commands
