"""Results of a benchmark: one typed value a trial, which is written, read, shown, compared and exported as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from longstrand.baselines.registry import BASELINES
from longstrand.benchmarks.protocol import Protocol
from longstrand.benchmarks.tasks.task import TaskData, find_built
from longstrand.benchmarks.trials import training_title
from longstrand.config import StrictModel, read_yaml
from longstrand.data.targets import Task
from longstrand.errors import InputError
from longstrand.evaluation.compare import PairedDifference, compare_predictions, holm
from longstrand.evaluation.metrics import LOWER_IS_BETTER, Scores
from longstrand.runtime import provenance, read_json, write_frame
from longstrand.training.methods import FinetuneMethod

if TYPE_CHECKING:
    import polars as pl

FORMAT = {"format": "longstrand.benchmark", "format_version": 2}
COLLAPSED = 0.01
"""A result is at the level of the majority if its main metric is no more than this above it."""
COSTS = ("trained_parameters", "storage_bytes", "seconds", "peak_memory_bytes")
Group = Literal["baseline", "model", "control"]


class Result(StrictModel):
    """What one trial gave: a method on a task with a seed and a number of training rows."""

    task: str
    method: str = Field(description="its line in the table")
    group: Group = Field(description="control: the same network from random weights")
    kind: Literal["baseline", "finetune", "probe"]
    baseline: str | None = Field(None, description="name in the registry of baselines")
    model: str | None = Field(None, description="folder of the model")
    finetuning: FinetuneMethod | None = None
    init: Literal["pretrained", "random"] | None = None
    seed: int
    num_train: int | None = Field(None, description="training rows asked for; None: all")
    metric: str = Field(description="the main one of the task")
    rows: dict[str, int] = Field(description="rows used, by split")
    valid: dict[str, Any] = Field(description="evaluation without intervals: what choices are made by")
    test: dict[str, Any] = Field(description="evaluation of the test rows")
    cost: dict[str, Any]
    details: dict[str, Any] = Field(description="learning rate, probed layers, cut rows, ...")
    data: str = Field(description="fingerprint of the tables")
    weights: dict[str, str] | None = Field(None, description="fingerprints of the model's files")
    protocol: Protocol
    notices: tuple[str, ...] = ()
    provenance: dict[str, Any]
    wall_seconds: float
    flags: tuple[str, ...] = Field((), description="why it is not to be trusted; known when the run is collected")
    extra: dict[str, float] = Field(default_factory=dict, description="further columns of an exported table")
    folder: Path | None = Field(None, exclude=True, description="of the trial, where it lies")

    def value(self, metric: str | None = None, *, split: str = "test", end: str = "value") -> float | None:
        """Return a metric, or the ``low`` or ``high`` end of its interval; None where it is undefined."""
        entry = (self.test if split == "test" else self.valid)["metrics"].get(metric or self.metric, {})
        found = entry.get(end)
        return None if found is None or found != found else float(found)

    @property
    def training(self) -> str:
        """Return how it was trained: full, lora (r=4), probe, or the name of a baseline."""
        return training_title(self.finetuning) if self.finetuning else self.baseline or self.kind

    def scores(self) -> Scores:
        """Read the predictions of the test rows.

        Raises:
            InputError: they are missing or damaged.
        """
        import polars as pl

        path = Path(self.folder or "") / "test.parquet"
        try:
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError):
            raise InputError(
                f"{path}: the predictions of this trial are missing or damaged; delete its folder, and run the same "
                "'longstrand benchmark run' command again."
            ) from None
        values = frame.select(pl.col("^value_.*$")).to_numpy()
        targets = frame.select(pl.col("^target_.*$")).to_numpy()
        problem: Any = self.test["problem"]
        if problem in ("single_label", "token"):
            targets = targets[:, 0]
        names = tuple(map(str, range(values.shape[1])))
        return Scores(Task(problem, names, ("label",)), targets, values, frame["unit"].to_numpy())

    def row(self) -> dict[str, Any]:
        """Return its row of a table, main metric only."""
        return {
            **{key: getattr(self, key) for key in ("task", "method", "group", "kind", "model", "init", "training")},
            **{key: getattr(self, key) for key in ("seed", "num_train", "metric")},
            **{end: self.value(end=end) for end in ("value", "low", "high")},
            "valid": self.value(split="valid"),
            **{f"{split}_rows": self.rows[split] for split in ("train", "test")},
            **{key: self.cost.get(key) for key in COSTS},
            "flags": "; ".join(self.flags),
            "data": self.data.removeprefix("sha256:")[:12],
            **self.extra,
        }


def write_scores(scores: Scores, path: Path) -> None:
    """Keep targets and predictions of the test rows, for paired tests: one row a sequence, or a base."""
    import polars as pl

    targets = scores.targets if scores.targets.ndim == 2 else scores.targets[:, None]
    columns = {"unit": scores.units.astype(np.int64)}
    columns |= {f"target_{number}": column for number, column in enumerate(targets.T)}
    columns |= {f"value_{number}": column for number, column in enumerate(scores.values.T.astype(np.float32))}
    write_frame(path, pl.DataFrame(columns))


def read_result(folder: Path) -> Result:
    """Read the result of a trial.

    Raises:
        InputError: it was written by another version.
    """
    try:
        return Result.model_validate(read_json(folder / "result.json")).model_copy(update={"folder": folder})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{folder / 'result.json'}: a result of another version ({where}: {first['msg']}); use a new output."
        ) from None


def read_results(folder: Path) -> list[Result]:
    """Read the results of all finished trials, flagged where they collapsed, in a fixed order.

    Raises:
        InputError: there is none.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").exists():
        raise InputError(f"{folder}: no benchmark run (no config.yaml); make one with 'longstrand benchmark run'.")
    results = [read_result(path.parent) for path in sorted((folder / "trials").rglob("result.json"))]
    if not results:
        raise InputError(f"{folder}: no trial has a result yet; run the same 'longstrand benchmark run' command again.")
    return sort_and_flag(results)


def sort_and_flag(results: Sequence[Result]) -> list[Result]:
    """Put results into a fixed order, and flag those that collapsed."""
    order, names = {"baseline": 0, "model": 1, "control": 2}, list(BASELINES)
    majority = {result.task: result for result in results if result.baseline == "majority"}
    return sorted(
        (result.model_copy(update={"flags": flags_of(result, majority.get(result.task))}) for result in results),
        key=lambda result: (
            result.task,
            order[result.group],
            names.index(result.baseline) if result.baseline in names else 0,
            result.method,
            result.num_train or 1e12,
            result.seed,
        ),
    )


def flags_of(result: Result, majority: Result | None) -> tuple[str, ...]:
    """Say whether a run collapsed: the same answer for all rows, or no better than the majority's result."""
    if result.baseline == "majority":
        return ()
    is_constant = any(split.get("constant_prediction") for split in (result.test, result.valid))
    flags = ["constant prediction"] if is_constant else []
    if majority is not None:
        ours, theirs = result.value(), majority.value() or 0.0
        if ours is None or sign_of(result.metric) * (ours - theirs) <= COLLAPSED:
            flags.append("no better than the majority")
    return tuple(flags)


def sign_of(metric: str) -> int:
    """Return 1 where higher values of a metric are better, else -1."""
    return -1 if metric in LOWER_IS_BETTER else 1


@dataclass(frozen=True)
class Line:
    """One line of a table: the seeds of a method on a task with a number of training rows."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """Return the result of the first seed, for what all seeds share."""
        return self.results[0]

    def values(self, metric: str | None = None, *, split: str = "test", end: str = "value") -> list[float]:
        """Return a metric of each seed that has one."""
        found = [result.value(metric, split=split, end=end) for result in self.results]
        return [value for value in found if value is not None]

    def mean(self, metric: str | None = None, *, split: str = "test", end: str = "value") -> float | None:
        """Return the mean over seeds, None if no seed has a value."""
        return _mean(self.values(metric, split=split, end=end))

    @property
    def sd(self) -> float | None:
        """Return the sample standard deviation over seeds, None for one."""
        values = self.values()
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def cost(self, key: str) -> float | None:
        """Return the mean of a cost."""
        return _mean([result.cost[key] for result in self.results if result.cost.get(key) is not None])

    def height(self, split: str = "test") -> float:
        """Return the mean with the sign that makes higher better; -inf without one."""
        mean = self.mean(split=split)
        return float("-inf") if mean is None else sign_of(self.first.metric) * mean

    @property
    def flags(self) -> list[str]:
        """Return what any seed is flagged for."""
        return sorted({flag for result in self.results for flag in result.flags})

    def row(self) -> dict[str, Any]:
        """Return its row of ``summary`` in results.json."""
        names = ("task", "method", "group", "kind", "model", "num_train", "metric")
        return {
            **{key: getattr(self.first, key) for key in names},
            "seeds": [result.seed for result in self.results],
            "values": self.values(),
            "mean": self.mean(),
            "sd": self.sd,
            "low": self.mean(end="low"),
            "high": self.mean(end="high"),
            "valid": self.mean(split="valid"),
            "metrics": {
                name: {end: self.mean(name, end=end) for end in ("value", "low", "high")}
                for name in self.first.test["metrics"]
            },
            "cost": {key: self.cost(key) for key in ("parameters", *COSTS)},
            "flags": self.flags,
        }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def lines_of(results: Sequence[Result]) -> list[Line]:
    """Put the seeds of each task, method and number of rows together."""
    groups: dict[tuple[str, str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.task, result.method, result.num_train), []).append(result)
    return [Line(tuple(members)) for members in groups.values()]


def ranks_of(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Rank the methods within each task: {method: rank in each task}, 1 is best, ties share the mean; best mean first.

    Only methods that every task has are ranked, so that no method gains by being absent.
    """
    from scipy.stats import rankdata

    tasks = list(dict.fromkeys(line.first.task for line in lines))
    known = {(line.first.task, line.first.method): line for line in lines if line.mean() is not None}
    methods = [name for name in dict.fromkeys(line.first.method for line in lines)
               if all((task, name) in known for task in tasks)]  # fmt: skip
    if not methods:
        return {}
    ranks = np.array([rankdata([-known[task, name].height() for name in methods]) for task in tasks])
    return {methods[place]: ranks[:, place].tolist() for place in np.argsort(ranks.mean(axis=0), kind="stable")}


@dataclass(frozen=True)
class Comparison:
    """A method against another one on the same test rows.

    Attributes:
        task: its id.
        method: ours.
        against: theirs.
        what: ``best baseline``, or ``random start``.
        found: the difference; corrected for the number of methods against the best baseline (Holm).
        collapsed: whether the other one collapsed, so that being better says nothing.
    """

    task: str
    method: str
    against: str
    what: Literal["best baseline", "random start"]
    found: PairedDifference
    collapsed: bool = False

    @property
    def verdict(self) -> str:
        """Return better, worse or unclear, by the paired test; never better than what collapsed."""
        return "unclear" if self.collapsed and self.found.verdict == "better" else self.found.verdict


def compare_methods(lines: Sequence[Line]) -> list[Comparison]:
    """Compare every method that has a model with the best baseline, and with its random start, task by task.

    The best baseline is the one with the best validation score, so the test rows choose nothing.
    """
    found: list[Comparison] = []
    full = [line for line in lines if line.first.num_train is None]
    for task in dict.fromkeys(line.first.task for line in full):
        mine = [line for line in full if line.first.task == task]
        baselines = [line for line in mine if line.first.group == "baseline"]
        models = [line for line in mine if line.first.group != "baseline"]
        if baselines:
            best = max(baselines, key=lambda line: line.height("valid"))
            compared = [_compared(line, best, "best baseline") for line in models]
            corrected = holm([each.found.p for each in compared])
            found += [replace(each, found=replace(each.found, p_corrected=p)) for each, p in zip(compared, corrected)]
        for line in models:
            control = next((other for other in models if _is_control(other.first, line.first)), None)
            if control is not None:
                found.append(_compared(line, control, "random start"))
    return found


def _is_control(other: Result, ours: Result) -> bool:
    """Return whether a result is of the random start of the same model, fine-tuned or probed as ours."""
    return ours.group == "model" and (other.group, other.model, other.kind) == ("control", ours.model, ours.kind)


def _compared(ours: Line, theirs: Line, what: Literal["best baseline", "random start"]) -> Comparison:
    first, resamples = ours.first, max(ours.first.protocol.resamples, 200)
    sides = [[result.scores() for result in line.results] for line in (ours, theirs)]
    found = compare_predictions(sides[0], sides[1], first.metric, num_resamples=resamples)
    return Comparison(first.task, first.method, theirs.first.method, what, found, bool(theirs.flags))


@dataclass(frozen=True)
class Benchmark:
    """All that is known of a run.

    Attributes:
        settings: of the run.
        results: of all trials.
        lines: their seeds put together.
        comparisons: paired tests.
        errors: trials without a result: task, method, seed, num_train, reason.
        tasks: the built ones that were found again.
        provenance: of what put this together.
    """

    settings: Mapping[str, Any]
    results: Sequence[Result]
    lines: Sequence[Line]
    comparisons: Sequence[Comparison]
    errors: Sequence[Mapping[str, Any]]
    tasks: Mapping[str, TaskData]
    provenance: Mapping[str, Any]

    def names(self) -> list[str]:
        """Return the ids of the tasks that have a result."""
        return list(dict.fromkeys(result.task for result in self.results))

    def lines_of(self, task: str, *, full: bool = True) -> list[Line]:
        """Return the lines of a task, those of all training rows only unless told."""
        return [line for line in self.lines if line.first.task == task and (not full or line.first.num_train is None)]

    def facts(self, task: str) -> dict[str, Any]:
        """Return what a reader must know of a task: metric, rows, title, split rule, findings, published numbers."""
        mine, data = [result for result in self.results if result.task == task], self.tasks.get(task)
        return {
            "metric": mine[0].metric,
            "rows": max((result.rows for result in mine), key=lambda rows: rows["train"]),
            "title": data.facts.get("title") if data else None,
            "split_rule": data.facts.get("split_rule") if data else None,
            "sanity": read_json(data.sanity) if data and data.sanity.exists() else None,
            "published": data.facts.get("published", {}) if data else {},
            "data": mine[0].data,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values: results.json."""
        full = [line for line in self.lines if line.first.num_train is None]
        return {
            **FORMAT,
            "settings": self.settings,
            "tasks": {task: self.facts(task) for task in self.names()},
            "summary": [line.row() for line in self.lines],
            "ranks": ranks_of(full),
            "comparisons": [asdict(each) | {"verdict": each.verdict} for each in self.comparisons],
            "results": [result.model_dump(mode="json") for result in self.results],
            "errors": self.errors,
            "provenance": self.provenance,
        }


def read_benchmark(folder: Path, tasks: Mapping[str, TaskData] | None = None, *, compare: bool = True) -> Benchmark:
    """Collect the finished trials of a run folder.

    Args:
        folder: of the run.
        tasks: the built tasks; None finds them again.
        compare: also do the paired tests (the slow part).

    Raises:
        InputError: the folder holds no benchmark, or no trial has a result.
    """
    folder = Path(folder)
    results = read_results(folder)
    lines = lines_of(results)
    errors = [read_json(path) for path in sorted((folder / "trials").rglob("error.json"))]
    kept = [{key: error[key] for key in ("task", "method", "seed", "num_train", "reason")} for error in errors]
    tasks = find_tasks(folder) if tasks is None else tasks
    compared = compare_methods(lines) if compare else []
    return Benchmark(read_yaml(folder / "config.yaml"), results, lines, compared, kept, tasks, provenance())


def find_tasks(folder: Path) -> dict[str, TaskData]:
    """Find the tasks of a run again; those whose folder is gone are left out of the report."""
    settings = read_yaml(folder / "config.yaml")
    try:
        return {data.id: data for data in find_built(folder / "tasks" if settings.get("data") else settings["tasks"])}
    except InputError:
        return {}


def result_frame(results: Sequence[Result]) -> pl.DataFrame:
    """Return one row a trial with its main metric, cost and flags."""
    import polars as pl

    return pl.DataFrame([result.row() for result in results], infer_schema_length=None)


def metric_frame(results: Sequence[Result]) -> pl.DataFrame:
    """Return one row a trial, split and metric."""
    import polars as pl

    names = ("task", "method", "group", "kind", "model", "init", "seed", "num_train")
    rows = [
        {
            **{key: getattr(result, key) for key in names},
            "split": split,
            "metric": metric,
            **{end: result.value(metric, split=split, end=end) for end in ("value", "low", "high")},
            **{f"cost_{key}": result.cost.get(key) for key in COSTS},
            "flags": "; ".join(result.flags),
            "commit": result.provenance["commit"],
            "data": result.data,
        }
        for result in results
        for split in ("valid", "test")
        for metric in getattr(result, split)["metrics"]
    ]
    return pl.DataFrame(rows, infer_schema_length=None)
