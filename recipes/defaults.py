"""Do the defaults of ``finetune`` hold up against a grid of rates and epochs? Four tables, two starts, three seeds.

    python recipes/defaults.py run --output runs/defaults [--tables splice/dranet_donor] [--rows 400] [--seeds 0]
    python recipes/defaults.py show --output runs/defaults

``run`` fine-tunes each table (in ``$LONGSTRAND_DATA/data/labelled``) from the shipped checkpoint and random weights,
once with the defaults and once with each rate and number of epochs of the grid; finished runs are not repeated, so it
may be stopped at any time. ``show`` prints, for each table and start, the mean test value over seeds of the defaults
and of the best grid cell, the difference, the collapsed runs, and what the search cost in chosen runs.
All of it takes about 60 hours of one core; ``--rows`` thins the training rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.runtime import data_root
from longstrand.training.verbs import finetune

TABLES = ("splice/dranet_donor", "yeast/upstream_300", "gue_lite/EMP_H4", "enhancer/ienhancer")
ROWS = {"yeast/upstream_300": 400}
RATES, EPOCHS, STARTS = (3e-4, 1e-3, 3e-3), (3, 10, 30), ("pretrained", "random")
DEFAULT = "defaults"


def cells() -> list[tuple[str, dict[str, Any]]]:
    """List the defaults, then the grid, as names with settings."""
    grid = [(rate, epochs) for epochs in EPOCHS for rate in RATES]
    named = [(f"{rate:g}x{epochs}", {"learning_rate": rate, "epochs": epochs}) for rate, epochs in grid]
    return [(DEFAULT, {}), *named]


def data_of(table: str, rows: int | None) -> dict[str, Any]:
    """Give the data section of a table, with its own validation rows if it has some."""
    root = data_root()
    assert root is not None, "set LONGSTRAND_DATA to the folder of real data"
    folder = root / "data" / "labelled" / table
    novel = folder / "test_novel.csv.gz"  # without the rows that are also in the training rows
    data: dict[str, Any] = {"test": str(novel if novel.exists() else folder / "test.csv.gz")}
    if (folder / "dev.csv.gz").exists():
        data["valid"] = str(folder / "dev.csv.gz")
    most = rows or ROWS.get(table)
    return {"train": folder / "train.csv.gz", "data": data | ({} if most is None else {"max_train_rows": most})}


def run(options: argparse.Namespace) -> None:
    """Fine-tune every cell that has no result yet, seed by seed."""
    chosen = [cell for cell in cells() if options.cells is None or cell[0] in options.cells]
    for seed in options.seeds:
        for table in options.tables:
            for start in options.starts:
                for name, settings in chosen:
                    folder = options.output / table.replace("/", "_") / start / name / f"seed{seed}"
                    result = folder.with_suffix(".json")
                    if result.exists():
                        continue
                    more = {"init": start, "evaluation": {"resamples": 0, "baselines": False, "page": False}}
                    given = data_of(table, options.rows)
                    fixed = {"seed": seed, "threads": options.threads, "pack": True, "device": "cpu"}
                    done = finetune("mixed_6mer_1m", output=folder, **given, **more, **fixed, **settings)
                    if done.stopped_by is not None:
                        raise SystemExit(f"stopped by {done.stopped_by}; the same command goes on")
                    keep = ("test", "search", "collapsed", "best_step", "steps", "cost")
                    facts = {key: done.report[key] for key in keep}
                    facts["test"] = {key: facts["test"][key] for key in ("metrics", "primary", "constant_prediction")}
                    result.write_text(json.dumps(facts, default=float) + "\n")
                    shutil.rmtree(folder)
                    print(f"{table} {start} {name} seed {seed}: {value_of(facts):.3f}", flush=True)


def value_of(facts: dict[str, Any]) -> float:
    """Give the main metric of the test rows; undefined counts as 0."""
    value = facts["test"]["metrics"].get(facts["test"]["primary"], {}).get("value")
    return 0.0 if value is None or value != value else float(value)


def show(options: argparse.Namespace) -> None:
    """Print the comparison as a Markdown table."""
    print("| table | start | seeds | defaults | best of the grid | cell | difference | collapsed | search / run |")
    print("|---|---|---|---|---|---|---|---|---|")
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(options.output.glob("*/*/*/seed*.json")):
        table, start, name = path.parts[-4:-1]
        found[table, start][name][path.stem] = json.loads(path.read_text())
    for (table, start), results in found.items():
        if DEFAULT not in results:
            continue
        ours = results.pop(DEFAULT)
        full = {name: runs for name, runs in results.items() if runs.keys() >= ours.keys()}
        means = {name: float(np.mean([value_of(runs[seed]) for seed in ours])) for name, runs in full.items()}
        best = max(means, key=means.__getitem__, default=None)
        mean = float(np.mean([value_of(facts) for facts in ours.values()]))
        costs = [sum(trial.get("seconds", 0.0) for trial in facts["search"]["trials"]) / facts["cost"]["seconds"]
                 for facts in ours.values()]  # fmt: skip
        other = (
            "| | " if best is None else f"{means[best]:.3f} | {best} ({len(means)} cells) | {mean - means[best]:+.3f}"
        )
        collapsed = sum(facts["collapsed"] for facts in ours.values())
        print(f"| {table} | {start} | {len(ours)} | {mean:.3f} | {other} | {collapsed} | {np.mean(costs):.2f} |")


def main() -> None:
    """Read the command line."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "show"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--starts", nargs="+", default=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--cells", nargs="+", help="defaults, or cells such as 0.001x10; all if absent")
    parser.add_argument("--rows", type=int, help="training rows, at most; by default all (upstream_300: 400)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    {"run": run, "show": show}[options.step](options)


if __name__ == "__main__":
    main()
