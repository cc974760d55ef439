"""The trials of a benchmark: one model used by one method (or a baseline), a task, a seed, a number of rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longstrand.baselines.registry import BASELINES, baselines_for
from longstrand.benchmarks.protocol import PROBE, BenchmarkConfig
from longstrand.data.labelled import LabelledTable
from longstrand.errors import UsageError, one_of
from longstrand.runtime import generator
from longstrand.training.methods import FinetuneMethod

FULL = "all rows"
FEWEST_VALID = 32


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        name: what the reader sees, unique in a run.
        kind: baseline, finetune or probe.
        baseline: name in `longstrand.baselines.registry.BASELINES`, for baselines.
        model: folder, else None.
        finetuning: which weights are trained, for fine-tuning.
        init: pretrained, or random for the control.
        seeded: whether another seed gives another result.
    """

    name: str
    kind: Literal["baseline", "finetune", "probe"]
    baseline: str = ""
    model: Path | None = None
    finetuning: FinetuneMethod | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    seeded: bool = True

    @property
    def group(self) -> str:
        """``baseline``, ``control`` (random init) or ``model``."""
        return "baseline" if self.kind == "baseline" else "control" if self.init == "random" else "model"


@dataclass(frozen=True)
class Trial:
    """One thing to compute; ``num_train`` None means all training rows."""

    task: str
    method: Method
    seed: int
    num_train: int | None = None

    @property
    def folder(self) -> str:
        """Return its place in the run folder."""
        rows = "all" if self.num_train is None else f"n{self.num_train}"
        return f"trials/{self.task}/{self.method_folder}/{rows}/seed{self.seed}"

    @property
    def method_folder(self) -> str:
        """Return the name of its method as a folder, unique in a run."""
        word = re.sub(r"[^\w.+-]+", "_", self.method.name).strip("_")
        return f"{word}-{hashlib.sha256(self.method.name.encode()).hexdigest()[:6]}"

    def facts(self) -> dict[str, Any]:
        """Return what its result says of it."""
        method = self.method
        return {
            "task": self.task,
            "method": method.name,
            "group": method.group,
            "kind": method.kind,
            "baseline": method.baseline or None,
            "model": None if method.model is None else str(method.model),
            "finetuning": method.finetuning,
            "init": None if method.model is None else method.init,
            "seed": self.seed,
            "num_train": self.num_train,
        }


def methods_of(config: BenchmarkConfig, problem: str, num_outputs: int) -> list[Method]:
    """List the lines of the table for a kind of problem, baselines first.

    Raises:
        UsageError: a baseline is unknown.
    """
    names = baselines_for(problem, num_outputs)
    if list(config.baselines) == ["none"]:
        names = []
    elif list(config.baselines) != ["all"]:
        asked = [one_of(name, BASELINES, "baseline") for name in config.baselines]
        names = [name for name in names if name in asked]
    methods = [Method(BASELINES[name].title, "baseline", name, seeded=BASELINES[name].seeded) for name in names]
    for model, title in zip(config.models, model_names(config.models)):
        for method in config.methods:
            if method == PROBE:
                methods.append(Method(f"{title}: probe", "probe", model=model))
            else:
                methods.append(Method(f"{title}: {training_title(method)}", "finetune", model=model, finetuning=method))
        if config.random_init:
            methods.append(
                Method(f"{title}: random init", "finetune", model=model, finetuning=FinetuneMethod(), init="random")
            )
            if PROBE in config.methods:
                methods.append(Method(f"{title}: probe of random init", "probe", model=model, init="random"))
    titles = [method.name for method in methods]
    twice = next((name for name in titles if titles.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"'{twice}' is asked for twice; name each model and method once.")
    return methods


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


def training_title(finetuning: FinetuneMethod) -> str:
    """Write a method of fine-tuning with the settings that were given: lora (r=4)."""
    given = ", ".join(f"{key}={value}" for key, value in finetuning.settings.items())
    return f"{finetuning.name} ({given})" if given else finetuning.name


def trials_of(task: str, methods: Sequence[Method], config: BenchmarkConfig) -> list[Trial]:
    """List the trials of a task: the cheap ones first; what no seed changes is computed once for all rows."""
    order = {"baseline": 0, "probe": 1, "finetune": 2}
    trials = []
    for method in sorted(methods, key=lambda method: order[method.kind]):
        for num_train in (*sorted(config.fewshot), None):
            fixed = not method.seeded and num_train is None
            trials += [Trial(task, method, seed, num_train) for seed in (config.seeds[:1] if fixed else config.seeds)]
    return trials


def share_out(trials: Sequence[Trial], rank: int, count: int, *, together: Callable[[Trial], bool]) -> list[Trial]:
    """Give one process its trials, in their order; every trial belongs to exactly one of ``count`` processes.

    Args:
        trials: all of the run.
        rank: number of the process, from 0.
        count: number of processes.
        together: says of a trial whether all seeds of its method, task and number of rows must be computed by one
            process, because the later ones need what the first one found.
    """
    units: dict[Any, list[Trial]] = {}
    for trial in trials:
        key = (trial.task, trial.method.name, trial.num_train)
        units.setdefault(key if together(trial) else (*key, trial.seed), []).append(trial)
    return [trial for unit in list(units.values())[rank::count] for trial in unit]


def thin_out(tables: dict[str, LabelledTable], num_train: int | None, seed: int) -> dict[str, LabelledTable]:
    """Keep ``num_train`` training rows; the validation rows shrink with them (a quarter, at least `FEWEST_VALID`).

    Subsets of one seed are nested, and classes keep their shares; every class has a row as soon as there is room.
    """
    if num_train is None or num_train >= len(tables["train"]):
        return tables
    few = max(FEWEST_VALID, num_train // 4)
    return {
        "train": tables["train"].take(nested_order(tables["train"], seed)[:num_train]),
        "valid": tables["valid"].take(nested_order(tables["valid"], seed)[:few]),
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
