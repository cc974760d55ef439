"""``longstrand doctor``: check the installation, or a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from longstrand.cli.options import JsonOption, new_app

app = new_app()


@app.command()
def doctor(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a model to check as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, processor, GPU, caches and disk, and compute a little; given a folder, check that model wholly.

    Ends with code 1 if something will not work.
    """
    from longstrand.info.doctor import examine
    from longstrand.runtime import model_folder

    if folder is not None:
        folder = model_folder(folder)
    checks = []
    for check in examine(folder):
        checks.append(check)
        if not as_json:
            print(f"{check.status:<11} {check.name:<22} {check.found}", flush=True)
            if check.advice:
                print(f"{'':<34} -> {check.advice}")
    broken = [check for check in checks if check.status == "broken"]
    if as_json:
        print(json.dumps({"healthy": not broken, "checks": [check.to_dict() for check in checks]}, indent=2))
    else:
        missing = [check.name for check in checks if check.status == "not checked"]
        left = f"; not checked: {', '.join(missing)}" if missing else ""
        print("something will not work; see above." if broken else f"everything that was checked works{left}.")
    if broken:
        raise typer.Exit(1)
