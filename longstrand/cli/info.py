"""``longstrand info``: what a folder is, without loading weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import JsonOption, new_app

app = new_app()


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(help="Folder of a model, tokenizer or run, shipped name or hub id.")],
    fasta: Annotated[
        Path | None, typer.Option(help="Genome to measure bases per token on; by default as written down in training.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe what a model, tokenizer or run folder is: family, size, context, tokenizer, quirks, metrics, origin.

    Weights are not loaded, so this is quick for a model of any size.
    """
    from longstrand.info.folder import inspect_folder

    finding = inspect_folder(folder, fasta)
    if as_json:
        print(json.dumps(finding.to_dict(), indent=2, ensure_ascii=False))
        return
    print(f"{finding.path}: a {finding.kind} folder")
    for title, facts in finding.facts.items():
        print(f"\n{title}")
        for name, value in facts.items():
            if value is not None:
                print(f"  {name:<17} {_show(value)}")


def _show(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
