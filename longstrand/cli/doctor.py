"""``longstrand doctor``: check the installation, or a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from longstrand.cli.options import new_app
from longstrand.errors import InputError

app = new_app()


@app.command()
def doctor(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a model to check as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check versions, processor, GPU, caches and disk, and compute a little; given a folder, check that model wholly.

    Ends with code 1 if something will not work.
    """
    from longstrand.info.doctor import examine

    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    checks = examine(folder)
    broken = [check for check in checks if check.status == "broken"]
    if as_json:
        print(json.dumps({"healthy": not broken, "checks": [check.to_dict() for check in checks]}, indent=2))
    else:
        for check in checks:
            print(f"{check.status:<7} {check.name:<22} {check.found}")
            if check.advice:
                print(f"{'':<30} -> {check.advice}")
        print("something will not work; see above." if broken else "everything works.")
    if broken:
        raise typer.Exit(1)
