"""The runner: every cell of models, ways, baselines, tasks and seeds, resumable, shared out over processes.

Layout of a run folder: ``config.yaml``; ``tasks/`` (own data, built); ``cells/TASK/ARM/ROWS/seedN/`` each with
``result.json`` and ``test.parquet`` (targets and predictions of the test rows) or ``error.json``; then
``results.json``, ``results.parquet``, ``report.html``. A cell with a result is done; one with an error is tried again
by the same command.
"""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from longstrand.benchmarks.arms import (
    Notice,
    Outcome,
    Place,
    StoppedBySignal,
    is_tuned_once,
    run_arm,
    weights_fingerprints,
)
from longstrand.benchmarks.cells import Arm, Cell, arms_of, cells_of, share_out, thin_out
from longstrand.benchmarks.progress import Progress
from longstrand.benchmarks.protocol import PROBE, BenchmarkConfig, Protocol, protocol_of
from longstrand.benchmarks.results import write_results
from longstrand.benchmarks.tasks.task import TaskData, find_built, load_task_data
from longstrand.config import dump_config, read_yaml
from longstrand.data.labelled import LabelledTable
from longstrand.errors import LongstrandError, ResumeError, UsageError, one_of
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.runtime import (
    Launch,
    leave_process_group,
    provenance,
    read_json,
    resolve_device,
    write_atomically,
    write_json,
)
from longstrand.training.examples import check_strand
from longstrand.training.run_folder import differences

logger = logging.getLogger(__name__)
GROWS = frozenset(
    {
        "output",
        "only",
        "random_init",
        "device",
        "threads",
        "keep_models",
        "models",
        "ways",
        "baselines",
        "seeds",
        "fewshot",
    }
)
"""Settings that may change between two commands on one run folder: they add cells, or do not touch results."""


@dataclass(frozen=True)
class RunSummary:
    """What a call did.

    Attributes:
        folder: of the run.
        num_done: cells with a result, of this and earlier calls and of all processes.
        failed: cells without: reason.
        complete: whether every cell has a result.
        is_last: whether no other process of the same ``torchrun`` is still at work.
    """

    folder: Path
    num_done: int
    failed: dict[str, str]
    complete: bool
    is_last: bool = True


def run_benchmark(config: BenchmarkConfig, *, notice: Notice = logger.info) -> RunSummary:
    """Compute every cell that has no result yet, then write results and report.

    Under ``torchrun`` every process takes its share of the cells, each alone on its GPU; the last one writes the whole.

    Raises:
        LongstrandError: wrong settings, data or models; a cell that fails is recorded instead.
        KeyboardInterrupt: a signal asked to stop; the same command goes on.
    """
    import torch

    launch = leave_process_group()
    if launch.count > 1:
        notice = partial(_say_as, launch.rank, notice)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = str(resolve_device(config.device))
    _check_models(config)
    _check_folder(config, launch.rank)
    tasks = _tasks(config, launch, notice)
    cells = _all_cells(tasks, config, notice)
    mine = share_out(cells, launch.rank, launch.count, together=partial(_are_together, config))
    weights = {model: weights_fingerprints(model) for model in config.models}
    tables: dict[str, dict[str, LabelledTable]] = {}
    progress = Progress(config.output, mine)
    for cell in mine:
        folder = config.output / cell.folder
        data = tasks[cell.task]
        if (folder / "result.json").exists():
            _check_result(folder, data, weights.get(cell.arm.model))
            continue
        if cell.task not in tables:
            tables = {cell.task: data.load()}
        notice(progress.line(cell))
        _compute(cell, data, tables[cell.task], config, device, notice)
    return _finish(config, tasks, cells, is_last=launch.is_last())


def _say_as(rank: int, notice: Notice, sentence: str) -> None:
    notice(f"process {rank}: {sentence}")


def _are_together(config: BenchmarkConfig, cell: Cell) -> bool:
    """Say whether the seeds of an arm share something that one process must make: a learning rate, or embeddings."""
    return cell.arm.kind == "probe" or is_tuned_once(cell, _protocol(cell.task, config))


def _check_models(config: BenchmarkConfig) -> None:
    from longstrand.training.methods import FinetuneMethod, check_method

    for model in config.models:
        if not (model / "config.json").is_file():
            raise UsageError(f"{model}: no model folder (it has no config.json).")
    for way in config.ways:
        if isinstance(way, FinetuneMethod):
            check_method(way)
    if not config.models and list(config.baselines) == ["none"]:
        raise UsageError("there is nothing to run: give a model (--model FOLDER) or baselines.")


def _check_folder(config: BenchmarkConfig, rank: int) -> None:
    """Bind the folder to the settings that results depend on, as soon as it has a cell.

    Raises:
        ResumeError: it holds a run with other data or another protocol.
    """
    path = config.output / "config.yaml"
    settings = yaml.safe_load(dump_config(config))
    if path.exists() and (config.output / "cells").exists():
        changed = [
            f"{key}: {old!r} -> {new!r}"
            for key, old, new in differences(read_yaml(path), settings)
            if key.split(".")[0] not in GROWS
        ]
        if changed:
            raise ResumeError(
                f"{path}: this folder holds a benchmark with other settings ({'; '.join(changed[:6])}); "
                "repeat the old settings to go on, or use another output."
            )
    if rank == 0:
        config.output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _tasks(config: BenchmarkConfig, launch: Launch, notice: Notice) -> dict[str, TaskData]:
    """Find the built tasks, or build them from the user's own folder (the first process does, others wait)."""
    from longstrand.benchmarks.suites.catalogue import build_named

    if (config.tasks is None) == (config.data is None):
        raise UsageError("give either a folder of your own data (--data) or one of built tasks (--tasks).")
    if config.data is not None:
        folder, ready = config.output / "tasks", config.output / "tasks" / "ready.json"
        if launch.rank == 0:
            ready.unlink(missing_ok=True)
            words = ["own", *(f"{key}={value}" for key, value in config.build_options.items())]
            built = build_named(words, config.data, folder, strict=config.strict, notice=notice)
            write_json(ready, [str(data.folder.relative_to(folder)) for data in built])
            launch.announce("tasks are built")
        elif not launch.wait_for("tasks are built"):
            while not ready.exists():
                time.sleep(0.5)
        found = [load_task_data(folder / name) for name in read_json(ready)]
    else:
        assert config.tasks is not None
        found = find_built(config.tasks)
    known = {data.id: data for data in found}
    if not config.only:
        return known
    return {name: known[one_of(name, known, "task")] for name in config.only}


def _protocol(task: str, config: BenchmarkConfig) -> Protocol:
    return protocol_of(task.split("/")[0], config.protocol)


def _all_cells(tasks: dict[str, TaskData], config: BenchmarkConfig, notice: Notice) -> list[Cell]:
    cells: list[Cell] = []
    for name, data in tasks.items():
        protocol = _protocol(name, config)
        if data.problem == "token":
            labels = data.load()["train"].task
            check_strand(labels, protocol.strand)
            check_strand(labels, protocol.finetuned_strand)
        ways = tuple(way for way in config.ways if way != PROBE)
        if data.kind == "bin" and len(ways) < len(config.ways) and config.models:
            notice(f"{name}: not probed, its labels are numbers per bin; fine-tune with the way 'frozen' instead")
        mine = config.model_copy(update={"ways": ways}) if data.kind == "bin" else config
        problem = "bins" if data.kind == "bin" else data.problem
        arms: list[Arm] = arms_of(mine, problem, len(data.class_names))
        cells += cells_of(name, arms, config)
    if not cells:
        raise UsageError("no task is left that can be run.")
    return cells


def _compute(
    cell: Cell, data: TaskData, tables: dict[str, LabelledTable], config: BenchmarkConfig, device: str, notice: Notice
) -> None:
    """Compute one cell and write its result, or its error."""
    folder = config.output / cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    protocol = _protocol(cell.task, config)
    said: list[str] = []

    def tell(sentence: str) -> None:
        said.append(sentence)
        notice(sentence)

    shared = config.output / "shared" / cell.task / cell.arm_folder
    place = Place(folder, shared, protocol, device, config.threads, tell, config.keep_models, config.seeds[0])
    start = time.perf_counter()
    try:
        thinned = thin_out(tables, cell.num_train or protocol.max_train_rows, cell.seed)
        with _signals_given_back():
            outcome = run_arm(cell, thinned, data.data_settings(), place)
        result = _result(cell, data, outcome, thinned, protocol.resamples)
        result |= {"protocol": protocol.model_dump(mode="json"), "notices": said, "provenance": provenance()}
        result["wall_seconds"] = time.perf_counter() - start
        _write_scores(outcome.scores["test"], folder / "test.parquet")
        write_json(folder / "result.json", result)
        (folder / "error.json").unlink(missing_ok=True)
    except StoppedBySignal:
        raise KeyboardInterrupt from None
    except Exception as error:
        reason = str(error) if isinstance(error, LongstrandError) else f"{type(error).__name__}: {error}"
        attempts = read_json(folder / "error.json")["attempts"] if (folder / "error.json").exists() else 0
        facts = {**cell.facts(), "reason": reason, "traceback": traceback.format_exc(), "attempts": attempts + 1}
        write_json(folder / "error.json", facts)
        notice(f"{cell.task}: {cell.arm.name} failed ({reason.splitlines()[0][:300]}); the others go on")


@contextmanager
def _signals_given_back() -> Iterator[None]:
    """A training that fails leaves its signal handlers behind; put back those from before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _result(
    cell: Cell, data: TaskData, outcome: Outcome, tables: dict[str, LabelledTable], resamples: int
) -> dict[str, Any]:
    return {
        **cell.facts(),
        "metric": data.metric,
        "rows": {name: len(table) for name, table in tables.items()},
        "valid": evaluate(outcome.scores["valid"], num_resamples=0, curves=False),
        "test": evaluate(outcome.scores["test"], num_resamples=resamples, curves=False),
        "cost": outcome.cost,
        "facts": outcome.facts,
        "data": data.fingerprint,
        "weights": None if cell.arm.model is None else weights_fingerprints(cell.arm.model),
    }


def _check_result(folder: Path, data: TaskData, weights: dict[str, str] | None) -> None:
    """Refuse to mix results of other data or other weights into one table.

    Raises:
        ResumeError: the tables or the model changed since the cell was computed.
    """
    before = read_json(folder / "result.json")
    for what, old, new in (("data", before["data"], data.fingerprint), ("model", before["weights"], weights)):
        if old != new:
            raise ResumeError(
                f"{folder}: the {what} changed since this cell was computed; delete the cell, or use another output."
            )


def _write_scores(scores: Scores, path: Path) -> None:
    """Keep targets and predictions of the test rows, for paired tests: one row a sequence, or a base."""
    import polars as pl

    targets = scores.targets if scores.targets.ndim == 2 else scores.targets[:, None]
    unit = np.arange(len(targets)) if scores.unit is None else scores.unit
    columns: dict[str, Any] = {"unit": unit.astype(np.int64)}
    columns |= {f"target_{number}": targets[:, number] for number in range(targets.shape[1])}
    columns |= {
        f"value_{number}": scores.values[:, number].astype(np.float32) for number in range(scores.values.shape[1])
    }
    temporary = path.with_name(f".tmp-{path.name}")
    pl.DataFrame(columns).write_parquet(temporary)
    temporary.replace(path)


def _finish(config: BenchmarkConfig, tasks: dict[str, TaskData], cells: Sequence[Cell], *, is_last: bool) -> RunSummary:
    """Collect what is there and, in the last process to end, flag collapsed runs and write the results."""
    failed, num_done = {}, 0
    for cell in cells:
        folder = config.output / cell.folder
        if (folder / "result.json").exists():
            num_done += 1
        elif (folder / "error.json").exists():
            failed[f"{cell.task}: {cell.arm.name}, seed {cell.seed}"] = read_json(folder / "error.json")["reason"]
    if num_done and is_last:
        write_results(config.output, tasks)
    return RunSummary(config.output, num_done, failed, num_done == len(cells), is_last)
