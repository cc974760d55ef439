"""The cells of a benchmark: one model (or baseline), one way to use it, one task, one seed, one number of rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longstrand.baselines.ladder import LADDER, rungs
from longstrand.benchmarks.protocol import PROBE, BenchmarkConfig
from longstrand.data.bins import BinTargets
from longstrand.data.labelled import LabelledTable
from longstrand.errors import UsageError, one_of
from longstrand.runtime import generator
from longstrand.training.methods import FinetuneMethod

FULL = "all rows"
FEWEST_VALID = 32


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Attributes:
        name: what the reader sees, unique in a run.
        kind: baseline, finetune or probe.
        baseline: name in the ladder, for baselines.
        model: folder, else None.
        way: of fine-tuning, else None.
        init: pretrained, or random for the control.
        seeded: whether another seed gives another result.
    """

    name: str
    kind: Literal["baseline", "finetune", "probe"]
    baseline: str = ""
    model: Path | None = None
    way: FinetuneMethod | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    seeded: bool = True

    @property
    def group(self) -> str:
        """``baseline``, ``control`` (random init) or ``model``."""
        return "baseline" if self.kind == "baseline" else "control" if self.init == "random" else "model"


@dataclass(frozen=True)
class Cell:
    """One thing to compute; ``num_train`` None means all training rows."""

    task: str
    arm: Arm
    seed: int
    num_train: int | None = None

    @property
    def folder(self) -> str:
        """Give its place in the run folder."""
        rows = "all" if self.num_train is None else f"n{self.num_train}"
        return f"cells/{self.task}/{self.arm_folder}/{rows}/seed{self.seed}"

    @property
    def arm_folder(self) -> str:
        """Give the name of its arm as a folder, unique in a run."""
        word = re.sub(r"[^\w.+-]+", "_", self.arm.name).strip("_")
        return f"{word}-{hashlib.sha256(self.arm.name.encode()).hexdigest()[:6]}"

    def facts(self) -> dict[str, Any]:
        """Describe the cell in its result."""
        arm = self.arm
        return {
            "task": self.task,
            "arm": arm.name,
            "group": arm.group,
            "kind": arm.kind,
            "baseline": arm.baseline or None,
            "model": None if arm.model is None else str(arm.model),
            "way": None if arm.way is None else arm.way.model_dump(),
            "init": None if arm.model is None else arm.init,
            "seed": self.seed,
            "num_train": self.num_train,
        }


def arms_of(config: BenchmarkConfig, problem: str, num_outputs: int) -> list[Arm]:
    """List the lines of the table for a kind of problem, baselines first.

    Raises:
        UsageError: a baseline is unknown.
    """
    names = rungs(problem, num_outputs)
    if list(config.baselines) == ["none"]:
        names = []
    elif list(config.baselines) != ["all"]:
        asked = [one_of(name, LADDER, "baseline") for name in config.baselines]
        names = [name for name in names if name in asked]
    arms = [Arm(LADDER[name].title, "baseline", name, seeded=LADDER[name].seeded) for name in names]
    for model, title in zip(config.models, model_names(config.models)):
        for way in config.ways:
            if way == PROBE:
                arms.append(Arm(f"{title}: probe", "probe", model=model))
            else:
                arms.append(Arm(f"{title}: {way_name(way)}", "finetune", model=model, way=way))
        if config.random_init:
            arms.append(Arm(f"{title}: random init", "finetune", model=model, way=FinetuneMethod(), init="random"))
            if PROBE in config.ways:
                arms.append(Arm(f"{title}: probe of random init", "probe", model=model, init="random"))
    titles = [arm.name for arm in arms]
    twice = next((name for name in titles if titles.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"'{twice}' is asked for twice; name each model and way once.")
    return arms


def model_names(models: Sequence[Path]) -> list[str]:
    """Give each model a short name: its folder, with those above it where that is ambiguous or says nothing."""
    names = []
    for model in models:
        parts = [part for part in Path(model).resolve().parts if part != "/"]
        length = 2 if parts[-1] in ("model", "checkpoint", "final") and len(parts) > 1 else 1
        while length < len(parts) and any(
            other is not model and Path(other).resolve().parts[-length:] == tuple(parts[-length:]) for other in models
        ):
            length += 1
        names.append("/".join(parts[-length:]))
    return names


def way_name(way: FinetuneMethod) -> str:
    """Write a way with the settings that were given."""
    given = ", ".join(f"{key}={value}" for key, value in way.settings.items())
    return f"{way.name} ({given})" if given else way.name


def cells_of(task: str, arms: Sequence[Arm], config: BenchmarkConfig) -> list[Cell]:
    """List the cells of a task: the cheap ones first; what no seed changes is computed once for all rows."""
    order = {"baseline": 0, "probe": 1, "finetune": 2}
    cells = []
    for arm in sorted(arms, key=lambda arm: order[arm.kind]):
        for num_train in (*sorted(config.fewshot), None):
            fixed = not arm.seeded and num_train is None
            cells += [Cell(task, arm, seed, num_train) for seed in (config.seeds[:1] if fixed else config.seeds)]
    return cells


def share_out(cells: Sequence[Cell], rank: int, count: int, *, together: Callable[[Cell], bool]) -> list[Cell]:
    """Give one process its cells, in their order; every cell belongs to exactly one of ``count`` processes.

    Args:
        cells: all of the run.
        rank: number of the process, from 0.
        count: number of processes.
        together: says of a cell whether all seeds of its arm, task and number of rows must be computed by one process,
            because the later ones need what the first one found.
    """
    units: dict[Any, list[Cell]] = {}
    for cell in cells:
        key = (cell.task, cell.arm.name, cell.num_train)
        units.setdefault(key if together(cell) else (*key, cell.seed), []).append(cell)
    return [cell for unit in list(units.values())[rank::count] for cell in unit]


def thin_out(tables: dict[str, LabelledTable], num_train: int | None, seed: int) -> dict[str, LabelledTable]:
    """Keep ``num_train`` training rows; the validation rows shrink with them (a quarter, at least `FEWEST_VALID`).

    Subsets of one seed are nested, and classes keep their shares; every class has a row as soon as there is room.
    """
    if num_train is None or num_train >= len(tables["train"]):
        return tables
    few = max(FEWEST_VALID, num_train // 4)
    return {
        "train": take(tables["train"], nested_order(tables["train"], seed)[:num_train]),
        "valid": take(tables["valid"], nested_order(tables["valid"], seed)[:few]),
        **{name: table for name, table in tables.items() if name not in ("train", "valid")},
    }


def nested_order(table: LabelledTable, seed: int) -> np.ndarray:
    """Order rows so that every beginning of it is a stratified random subset: int64 (n,)."""
    random = generator(seed, 0, "few shots")
    if table.task.problem != "single_label":
        return random.permutation(len(table))
    targets = np.asarray(table.targets)
    place = np.empty(len(table))
    for kind in np.unique(targets):
        rows = random.permutation((targets == kind).nonzero()[0])
        place[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
        place[rows[0]] = -random.random()
    return np.argsort(place, kind="stable")


def take(table: LabelledTable, rows: np.ndarray) -> LabelledTable:
    """Give some rows of a table, in the order of the table."""
    chosen = sorted(int(row) for row in rows)
    if isinstance(table.targets, BinTargets):
        targets: Any = table.targets.take(chosen)
    else:
        targets = [table.targets[row] for row in chosen] if isinstance(table.targets, list) else table.targets[chosen]
    return replace(table, raw=table.raw.take(chosen), targets=targets)
