"""``longstrand benchmark``: the tasks that are known, tables built from published or own files, runs and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Compare models, ways to use them and baselines on tasks, honestly.",
)


@app.command("list")
def list_tasks(
    suite: Annotated[str | None, typer.Argument(help="Only the tasks of this suite, or this one task in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the tasks that can be built: id, rows, bases, metric, and what has to be at hand."""
    from longstrand.benchmarks.listing import full_text, table_lines, task_facts
    from longstrand.benchmarks.suites import all_tasks, choose_tasks

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
    output: Annotated[Path, typer.Option(help="Folder for built tasks; each gets the folder of its id.")],
    strict: Annotated[bool, typer.Option("--strict", help="Refuse tasks whose splits leak into each other.")] = False,
    available: Annotated[
        bool, typer.Option("--available", help="Of a suite build what the folder holds, and go on after a failure.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model or tokenizer folder; also say what inputs of --max-tokens would cut off.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest input of the model, special tokens included.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as JSON.")] = False,
) -> None:
    """Turn published files into checked tables, with a report on leakage and balance.

    ID is a task (gue/tf_0), a suite (gue), or 'own' for every data set in your folder: sub-folders with train and test
    tables, single tables, or BED files with a genome.
    """
    from longstrand.benchmarks.suites import build_named

    built = build_named(
        words,
        source,
        output,
        strict=strict,
        available=available,
        notice=lambda sentence: typer.echo(sentence, err=True),
    )
    if tokenizer is not None:
        from longstrand.benchmarks.build import add_truncation
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
