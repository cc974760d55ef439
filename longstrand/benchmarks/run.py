"""The runner: every trial of models, methods, baselines, tasks and seeds, resumable, shared out over processes.

Layout of a run folder: ``config.yaml``; ``tasks/`` (own data, built); ``trials/TASK/METHOD/ROWS/seedN/`` each with
``result.json`` and ``test.parquet`` (targets and predictions of the test rows) or ``error.json``; then
``results.json``, ``results.parquet``, ``report.html``. A trial with a result is done; one with an error is tried again
by the same command.
"""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import yaml

from longstrand.benchmarks.page import duration, write_results
from longstrand.benchmarks.protocol import PROBE, BenchmarkConfig, Protocol, protocol_of
from longstrand.benchmarks.results import Benchmark, Result, read_result, result_frame, write_scores
from longstrand.benchmarks.run_trial import RunContext, StoppedBySignal, is_tuned_once, run_trial
from longstrand.benchmarks.tasks.task import TaskData, find_built, load_task_data
from longstrand.benchmarks.trials import Trial, methods_of, share_out, trials_of
from longstrand.config import build, differences, paths_of, read_yaml
from longstrand.data.labelled import LabelledTable
from longstrand.errors import LongstrandError, ResumeError, UsageError, one_of
from longstrand.inference.loaded import stored_folder
from longstrand.models.tensors import fingerprint_weights
from longstrand.runtime import (
    Launch,
    Notice,
    check_output,
    leave_process_group,
    model_folder,
    read_json,
    resolve_device,
    write_atomically,
    write_json,
)
from longstrand.training.examples import check_strand
from longstrand.training.methods import FinetuneMethod, check_method

if TYPE_CHECKING:
    import polars as pl

    from longstrand.models.network import Network

logger = logging.getLogger(__name__)
GROWS = frozenset(BenchmarkConfig.model_fields) - {"tasks", "data", "protocol", "build_options", "strict"}
"""Settings that may change between two commands on one run folder: they add trials, or do not touch results."""


@dataclass(frozen=True)
class RunSummary:
    """What a call did.

    Attributes:
        folder: of the run.
        num_done: trials with a result, of this and earlier calls and of all processes.
        failed: trials without: reason.
        complete: whether every trial has a result.
        is_last: whether no other process of the same ``torchrun`` is still at work.
        found: all results, in the process that wrote them.
    """

    folder: Path
    num_done: int
    failed: dict[str, str]
    complete: bool
    is_last: bool = True
    found: Benchmark | None = None


def benchmark(
    data: str | Path,
    models: Sequence[str | Path | Network],
    *,
    output: str | Path = "benchmark",
    methods: Sequence[Any] = ("full", "lora", "frozen", "probe"),
    seeds: Sequence[int] = (0,),
    **settings: Any,
) -> pl.DataFrame:
    """Compare models with baselines and with their random starts on a folder of labelled tables.

    Args:
        data: folder of CSV, TSV, Parquet or BED files (one task each), or of tables train, valid and test.
        models: folders, names that `longstrand.load_model` takes, or loaded models.
        output: run folder; the same call goes on where it stopped. ``report.html`` is in it.
        methods: of using a model: full, lora, frozen, probe, ...
        seeds: each model, method and task is run with each.
        settings: further ones of `longstrand.benchmarks.protocol.BenchmarkConfig`.

    Returns:
        One row a trial: task, method, group, seed, metric, value, low, high, valid, cost, flags, ...

    Raises:
        LongstrandError: wrong settings or data, or trials that failed.
    """
    folders = [stored_folder(model) for model in models]
    given = {"data": Path(data), "output": Path(output), "models": folders, "methods": list(methods)}
    found = run_benchmark(build(BenchmarkConfig, given | {"seeds": list(seeds)} | settings))
    if found.failed:
        name, reason = next(iter(found.failed.items()))
        raise LongstrandError(f"{found.folder}: {len(found.failed)} trials failed; {name}: {reason}")
    assert found.found is not None
    return result_frame(found.found.results)


def run_benchmark(config: BenchmarkConfig, *, notice: Notice = logger.info) -> RunSummary:
    """Compute every trial that has no result yet, then write results and report.

    Under ``torchrun`` every process takes its share of the trials, each alone on its GPU; the last writes the whole.

    Raises:
        LongstrandError: wrong settings, data or models; a trial that fails is recorded instead.
        KeyboardInterrupt: a signal asked to stop; the same command goes on.
    """
    import torch

    launch = leave_process_group()
    if launch.count > 1:
        notice = partial(_as_process, launch.rank, notice)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = str(resolve_device(config.device))
    config = config.model_copy(update={"models": tuple(map(model_folder, config.models))})
    _check_models(config)
    _check_folder(config, launch.rank)
    tasks = _tasks(config, launch, notice)
    trials = _all_trials(tasks, config, notice)
    mine = share_out(trials, launch.rank, launch.count, together=partial(_are_together, config))
    weights = {model: fingerprint_weights(model) for model in config.models}
    tables: dict[str, dict[str, LabelledTable]] = {}
    known: dict[str, list[float]] = {}
    missing = [trial for trial in mine if not (config.output / trial.folder / "result.json").exists()]
    for trial in (trial for trial in mine if trial not in missing):
        model = trial.method.model
        found = _check_result(config.output / trial.folder, tasks[trial.task], weights[model] if model else None)
        for key in time_keys(trial):
            known.setdefault(key, []).append(found.wall_seconds)
    for place, trial in enumerate(missing):
        if trial.task not in tables:
            tables = {trial.task: tasks[trial.task].load()}
        notice(progress_line(missing[place:], known, len(mine)))
        start = time.perf_counter()
        if _compute(trial, tasks[trial.task], tables[trial.task], config, device, notice):
            for key in time_keys(trial):
                known.setdefault(key, []).append(time.perf_counter() - start)
    return _finish(config, tasks, trials, is_last=launch.is_last())


def _as_process(rank: int, notice: Notice, sentence: str) -> None:
    notice(f"process {rank}: {sentence}")


def _are_together(config: BenchmarkConfig, trial: Trial) -> bool:
    """Return whether the seeds of a method share something that one process must make: a rate, or embeddings."""
    return trial.method.kind == "probe" or is_tuned_once(trial, _protocol(trial.task, config))


def _check_models(config: BenchmarkConfig) -> None:
    for model in config.models:
        if not (model / "config.json").is_file():
            raise UsageError(f"{model}: no model folder (it has no config.json).")
    for method in config.methods:
        if isinstance(method, FinetuneMethod):
            check_method(method)
    if not config.models and list(config.baselines) == ["none"]:
        raise UsageError("there is nothing to run: give a model (--model FOLDER) or baselines.")


def _check_folder(config: BenchmarkConfig, rank: int) -> None:
    """Bind the folder to the settings that results depend on, as soon as it has a trial.

    Raises:
        ResumeError: it holds a run with other data or another protocol.
    """
    made = ("config.yaml", "trials", "shared", "results.*", "report.*", *(["tasks"] if config.data else []))
    check_output(config.output, paths_of(config), replaced=made)
    path = config.output / "config.yaml"
    settings = config.model_dump(mode="json")
    if path.exists() and (config.output / "trials").exists():
        changed = differences(read_yaml(path), settings, leave_out=GROWS)
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


def _all_trials(tasks: dict[str, TaskData], config: BenchmarkConfig, notice: Notice) -> list[Trial]:
    trials: list[Trial] = []
    for name, data in tasks.items():
        protocol, mine = _protocol(name, config), config
        if data.problem == "token":
            labels = data.load()["train"].task
            check_strand(labels, protocol.strand)
            check_strand(labels, protocol.finetuned_strand)
        if data.kind == "bin":
            methods = tuple(method for method in config.methods if method != PROBE)
            if len(methods) < len(config.methods) and config.models:
                notice(
                    f"{name}: not probed, its labels are numbers per bin; fine-tune with the method 'frozen' instead"
                )
            mine = config.model_copy(update={"methods": methods})
        problem = "bins" if data.kind == "bin" else data.problem
        trials += trials_of(name, methods_of(mine, problem, len(data.class_names)), config)
    if not trials:
        raise UsageError("no task is left that can be run.")
    return trials


def _compute(
    trial: Trial, data: TaskData, tables: dict[str, LabelledTable], config: BenchmarkConfig, device: str, notice: Notice
) -> bool:
    """Compute one trial and write its result, or its error; returns whether it has a result."""
    folder = config.output / trial.folder
    folder.mkdir(parents=True, exist_ok=True)
    shared = config.output / "shared" / trial.task / trial.method_folder
    context = RunContext(
        folder,
        shared,
        _protocol(trial.task, config),
        device,
        config.threads,
        notice,
        config.keep_models,
        config.seeds[0],
    )
    try:
        with _signals_given_back():
            result, scores = run_trial(trial, tables, data, context)
        write_scores(scores, folder / "test.parquet")
        write_json(folder / "result.json", result.model_dump(mode="json"))
        (folder / "error.json").unlink(missing_ok=True)
        return True
    except StoppedBySignal:
        raise KeyboardInterrupt from None
    except Exception as error:
        reason = str(error) if isinstance(error, LongstrandError) else f"{type(error).__name__}: {error}"
        attempts = read_json(folder / "error.json")["attempts"] if (folder / "error.json").exists() else 0
        facts = {key: value for key, value in trial.facts().items() if key != "finetuning"}
        facts |= {"reason": reason, "traceback": traceback.format_exc(), "attempts": attempts + 1}
        write_json(folder / "error.json", facts)
        notice(f"{trial.task}: {trial.method.name} failed ({reason.splitlines()[0][:300]}); the others go on")
        return False


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


def _check_result(folder: Path, data: TaskData, weights: dict[str, str] | None) -> Result:
    """Refuse to mix results of other data or other weights into one table.

    Raises:
        ResumeError: the tables or the model changed since the trial was computed.
    """
    before = read_result(folder)
    for what, old, new in (("data", before.data, data.fingerprint), ("model", before.weights, weights)):
        if old != new:
            raise ResumeError(
                f"{folder}: the {what} changed since this trial was computed; delete the trial, or use another output."
            )
    return before


def _finish(
    config: BenchmarkConfig, tasks: dict[str, TaskData], trials: Sequence[Trial], *, is_last: bool
) -> RunSummary:
    """Count what is there and, in the last process to end, write the results."""
    failed, num_done = {}, 0
    for trial in trials:
        folder = config.output / trial.folder
        if (folder / "result.json").exists():
            num_done += 1
        elif (folder / "error.json").exists():
            failed[f"{trial.task}: {trial.method.name}, seed {trial.seed}"] = read_json(folder / "error.json")["reason"]
    found = write_results(config.output, tasks) if num_done and is_last else None
    return RunSummary(config.output, num_done, failed, num_done == len(trials), is_last, found)


def progress_line(missing: Sequence[Trial], seconds: Mapping[str, Sequence[float]], count: int) -> str:
    """Say which trial is begun, how many there are, and how long it and the rest may take.

    Args:
        missing: the one that is begun, and those after it.
        seconds: of finished trials by `time_keys`; a kind of trial that was never seen leaves the time out.
        count: of all trials of this process.
    """
    guesses = [next((fmean(seconds[key]) for key in time_keys(each) if key in seconds), None) for each in missing]
    left = "" if None in guesses else f", about {duration(sum(filter(None, guesses)))} left"
    trial = missing[0]
    rows = "" if trial.num_train is None else f", {trial.num_train:,} rows"
    return f"[{count - len(missing) + 1}/{count}{left}] {trial.task}: {trial.method.name}, seed {trial.seed}{rows}"


def time_keys(trial: Trial) -> tuple[str, str]:
    """Name the trials that take about as long: of this method with as many training rows, else of this kind."""
    return f"{trial.method.name}, {trial.num_train}", trial.method.kind
