"""Put all data that the GPU runs need into one folder below 64 MiB, for a machine with neither network nor shared data.

    python recipes/gpu/pack.py [--output gpu_data]

Reads the data folder named by ``LONGSTRAND_DATA`` (default: ../shared). The YAML files beside this script say what is
needed: genomes are copied to ``OUTPUT/data/genomes``, tasks are built and checked here, on a CPU, in ``OUTPUT/tasks``.
``OUTPUT/MANIFEST.json`` holds size and SHA-256 of every file; ``--check`` compares them after the folder was carried.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from longstrand.benchmarks.suites.catalogue import build_named
from longstrand.config import read_yaml
from longstrand.runtime import fingerprint_file, read_json, write_json

HERE = Path(__file__).resolve().parent
LIMIT = 64 * 2**20


def needed(folder: Path = HERE) -> tuple[list[str], list[str]]:
    """Read names of genome files and ids of tasks out of the YAML files of a folder."""
    genomes: dict[str, None] = {}
    tasks: dict[str, None] = {}
    for path in sorted(folder.glob("*.yaml")):
        settings: dict[str, Any] = read_yaml(path)
        if "data" in settings:
            genomes |= {Path(entry["fasta"]).name: None for entry in settings["data"]["genomes"]}
        tasks |= dict.fromkeys(settings.get("only", ()))
    return list(genomes), list(tasks)


def build_options() -> dict[str, list[str]]:
    """Give the builders' options of the tasks that have some, as the runs on a CPU have them."""
    sys.path.insert(0, str(HERE.parent))
    from first_results import BUILD_OPTIONS

    return {f"own/{task}": words for task, words in BUILD_OPTIONS.items()}


def pack(source: Path, output: Path, *, limit: int = LIMIT) -> dict[str, dict[str, Any]]:
    """Copy the genomes, build the tasks, and write the manifest; gives it.

    Raises:
        SystemExit: a genome is missing, or the folder is larger than ``limit`` bytes.
    """
    genomes, tasks = needed()
    missing = [name for name in genomes if not (source / "data" / "genomes" / name).exists()]
    if missing:
        raise SystemExit(f"{source}/data/genomes lacks {', '.join(missing)}; set LONGSTRAND_DATA to the data folder.")
    (output / "data" / "genomes").mkdir(parents=True, exist_ok=True)
    for name in genomes:
        shutil.copy(source / "data" / "genomes" / name, output / "data" / "genomes" / name)
    options = build_options()
    for task in tasks:
        if not (output / "tasks" / task / "task.json").exists():
            words = [task, *options.get(task, [])]
            build_named(words, source / "data" / "labelled", output / "tasks", notice=print)
    files = {
        str(path.relative_to(output)): {"bytes": path.stat().st_size, "fingerprint": fingerprint_file(path)}
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }
    write_json(output / "MANIFEST.json", files)
    size = sum(entry["bytes"] for entry in files.values())
    if size > limit:
        raise SystemExit(f"{output} holds {size:,} bytes, more than {limit:,}; take a task out of the YAML files.")
    print(f"{output}: {len(genomes)} genomes, {len(tasks)} tasks, {len(files)} files, {size / 2**20:.1f} MiB")
    return files


def check(output: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        SystemExit: a file is missing or differs.
    """
    files = read_json(output / "MANIFEST.json")
    bad = [
        name
        for name, entry in files.items()
        if not (output / name).is_file() or fingerprint_file(output / name) != entry["fingerprint"]
    ]
    if bad:
        raise SystemExit(
            f"{output}: {', '.join(bad[:5])} missing or changed ({len(bad)} files); copy the folder again."
        )
    print(f"{output}: all {len(files)} files are as packed")


def main() -> None:
    """Parse the command line and pack, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu_data"))
    parser.add_argument("--check", action="store_true", help="compare with MANIFEST.json, change nothing")
    options = parser.parse_args()
    if options.check:
        check(options.output)
    else:
        pack(Path(os.environ.get("LONGSTRAND_DATA", "../shared")), options.output)


if __name__ == "__main__":
    main()
