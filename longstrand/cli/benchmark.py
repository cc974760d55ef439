"""``longstrand benchmark``: the tasks that are known, tables built from published or own files, runs and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import JsonOption, new_app, run_options

if TYPE_CHECKING:
    from longstrand.benchmarks.results import Benchmark

app = new_app(no_args_is_help=True, help="Compare models, methods to use them and baselines on tasks, honestly.")


@app.command("list")
def list_tasks(
    suite: Annotated[str | None, typer.Argument(help="Only the tasks of this suite, or this one task in full.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the tasks that can be built: id, rows, bases, metric, and what has to be at hand."""
    from longstrand.benchmarks.suites.catalogue import all_tasks, choose_tasks
    from longstrand.benchmarks.tasks.task import full_text, table_lines, task_facts

    tasks = list(all_tasks().values()) if suite is None else choose_tasks([suite])
    if as_json:
        typer.echo(json.dumps([task_facts(task) for task in tasks], indent=2))
    elif len(tasks) == 1 and suite == tasks[0].id:
        typer.echo(full_text(tasks[0]))
    else:
        typer.echo("\n".join(table_lines(tasks)))


@app.command()
def build(
    words: Annotated[
        list[str],
        typer.Argument(metavar="ID... [KEY=VALUE]...", help="Tasks or suites, and options of their builders."),
    ],
    source: Annotated[Path, typer.Option(help="Folder with the published (or your own) files.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for built tasks; each gets the folder of its id.")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Refuse tasks whose splits leak into each other.")] = False,
    available: Annotated[
        bool, typer.Option("--available", help="Of a suite build what the folder holds, and go on after a failure.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model or tokenizer folder; also say what inputs of --max-tokens would cut off.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest input of the model, special tokens included.")] = 512,
    as_json: JsonOption = False,
) -> None:
    """Turn published files into checked tables, with a report on leakage and balance.

    ID is a task (gue/tf_0), a suite (gue), or 'own' for every data set in your folder: sub-folders with train and test
    tables, single tables, or BED files with a genome.
    """
    from longstrand.benchmarks.suites.catalogue import build_named

    built = build_named(
        words,
        source,
        output,
        strict=strict,
        available=available,
        notice=lambda sentence: typer.echo(sentence, err=True),
    )
    if tokenizer is not None:
        from longstrand.benchmarks.tasks.build import add_truncation
        from longstrand.tokenization.hub import load_tokenizer

        loaded = load_tokenizer(tokenizer)
        for data in built:
            typer.echo(f"{data.id}: {add_truncation(data, loaded, max_tokens, name=tokenizer.name)}", err=True)
    if as_json:
        facts = [{"id": data.id, "folder": str(data.folder), "fingerprint": data.fingerprint} for data in built]
        typer.echo(json.dumps(facts, indent=2))
        return
    for data in built:
        rows = data.facts["num_rows_built"]
        typer.echo(f"{data.id}: {rows['train']:,} / {rows['valid']:,} / {rows['test']:,} rows in {data.folder}")


@app.command()
@run_options("benchmark", example="protocol.epochs=3 keep_models=true")
def run(read: Any, as_json: JsonOption = False) -> None:
    """Compare models, methods to use them, a random start and baselines: one honest table, and a report.

    Every line is trained by the same protocol, chosen on validation rows and measured once on the test rows. Kill it at
    any moment: the same command goes on. Several GPUs: torchrun --nproc-per-node N -m longstrand benchmark run ...
    """
    from longstrand.benchmarks.protocol import BenchmarkConfig

    resolved = read(BenchmarkConfig)
    from longstrand.benchmarks.run import run_benchmark

    found = run_benchmark(resolved, notice=lambda sentence: typer.echo(sentence, err=True))
    if not found.is_last:
        return  # the last process shows the table; an exit status now would make torchrun stop the others
    for name, reason in found.failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if found.found is not None:
        _show(found.found, found.folder, as_json)
    if found.failed:
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of 'longstrand benchmark run'.")],
    as_json: JsonOption = False,
) -> None:
    """Write results.json, results.parquet and report.html of a run anew, from the finished cells."""
    from longstrand.benchmarks.page import write_results

    for folder in folders:
        _show(write_results(folder), folder, as_json)


def _show(found: Benchmark, folder: Path, as_json: bool) -> None:
    """Print the table of each task, best first, and what is better than the best baseline."""
    from longstrand.benchmarks.page import text_lines

    if as_json:
        plain = found.to_dict()
        typer.echo(json.dumps({key: plain[key] for key in ("tasks", "summary", "comparisons", "errors")}, indent=2))
        return
    typer.echo("\n".join(text_lines(found)))
    typer.echo(f"report: {folder / 'report.html'}")
