"""All tasks by id, and whole suites: what is known, what a folder holds of it, what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longstrand.benchmarks.suites.gena import gena_tasks
from longstrand.benchmarks.suites.genomes import genome_tasks
from longstrand.benchmarks.suites.genomic import genomic_tasks
from longstrand.benchmarks.suites.gue import gue_tasks
from longstrand.benchmarks.suites.nt import nt_revised_tasks, nt_tasks
from longstrand.benchmarks.tasks.build import Notice, build_task, find_file, resolve_options
from longstrand.benchmarks.tasks.own import find_tasks
from longstrand.benchmarks.tasks.task import Task, TaskData
from longstrand.errors import InputError, UsageError, nearest

SUITES = {
    "gue": gue_tasks,
    "nt": nt_tasks,
    "nt_revised": nt_revised_tasks,
    "genomic_benchmarks": genomic_tasks,
    "gena": gena_tasks,
    "longstrand": genome_tasks,
}
"""Suites by name: the functions that list their tasks."""


def all_tasks() -> dict[str, Task]:
    """Give every known task by its id, suite after suite."""
    return {task.id: task for tasks in SUITES.values() for task in tasks()}


def choose_tasks(names: Sequence[str]) -> list[Task]:
    """Give the tasks of ids and of whole suites, in the order asked for, each once.

    Raises:
        UsageError: there is no such task or suite; the nearest is named.
    """
    known = all_tasks()
    chosen: dict[str, Task] = {}
    for name in names:
        if name in SUITES:
            chosen |= {task.id: task for task in SUITES[name]()}
        elif name in known:
            chosen[name] = known[name]
        else:
            close = nearest(name, [*SUITES, *known])
            raise UsageError(
                f"unknown task '{name}'{close}; 'longstrand benchmark list' shows all, suites are: {', '.join(SUITES)}."
            )
    return list(chosen.values())


def look_at_suite(
    suite: str, sources: Path, options: Mapping[str, Any] | None = None
) -> tuple[list[Task], list[Task], list[str]]:
    """Compare a folder with a suite: ``(tasks it holds, tasks it lacks, data sets that are not of the suite)``.

    Raises:
        InputError: the folder is missing or holds no task of the suite at all.
    """
    sources = Path(sources)
    if not sources.is_dir():
        raise InputError(f"{sources}: no such folder; --source is the folder that holds the suite '{suite}'.")
    held: list[Task] = []
    lacking: list[Task] = []
    used: set[Path] = set()
    for task in SUITES[suite]():
        known = {name: value for name, value in (options or {}).items() if name in task.options}
        chosen = resolve_options(task, known)
        paths = [find_file(sources, item, chosen) for item in task.files]
        (lacking if None in paths else held).append(task)
        used |= {path.resolve() if path.is_dir() else path.resolve().parent for path in paths if path is not None}
    if not held:
        where = lacking[0].files[0]
        raise InputError(
            f"{sources}: holds no task of the suite '{suite}' (looked for {where.name} and its like); "
            f"published as {where.published}."
        )
    extra = sorted(
        str(path.parent.relative_to(sources))
        for path in sources.rglob("train*")
        if path.is_file() and path.resolve().parent not in used
    )
    return held, lacking, list(dict.fromkeys(extra))


def refuse_gaps(suite: str, sources: Path, lacking: Sequence[Task]) -> None:
    """Refuse a folder that lacks tasks of a suite.

    Raises:
        InputError: naming the tasks and where they are published.
    """
    if lacking:
        names = ", ".join(task.id for task in lacking)
        raise InputError(
            f"{sources}: lacks {len(lacking)} task(s) of the suite '{suite}': {names}; published as "
            f"{lacking[0].files[0].published}; build what is there with --available."
        )


def build_named(
    words: Sequence[str],
    sources: Path,
    output: Path,
    *,
    strict: bool = False,
    available: bool = False,
    notice: Notice = lambda sentence: None,
) -> list[TaskData]:
    """Build tasks, suites or (``own``) all data sets of a folder; words with ``=`` are options of the builders.

    Args:
        words: ids, suites, ``own`` or ``own/NAME``, and ``key=value``.
        sources: folder with the files.
        output: folder for built tasks.
        strict: refuse tasks whose splits leak.
        available: of suites build what is there; a task that fails is reported and the others go on.
        notice: called with sentences on the way.

    Raises:
        UsageError: an unknown task, suite or option, or no id at all.
        InputError: files are missing or wrong; with ``available`` only if no task could be built.
    """
    options = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word]
    if not names:
        raise UsageError("no task is named; give ids, a suite, or 'own' for the data sets of your folder.")
    tasks = _named_tasks(names, sources, options, available=available, notice=notice)
    built, failed = [], []
    for task in tasks:
        known = options if len(tasks) == 1 else _known(task, options, tasks)
        try:
            built.append(build_task(task, sources, output, options=known, strict=strict, notice=notice))
        except InputError as error:
            if not available:
                raise
            failed.append(str(error))
            notice(f"{task.id}: not built: {error}")
    if not built:
        raise InputError(f"{sources}: no task could be built; the first failed so: {failed[0]}")
    return built


def _named_tasks(
    names: Sequence[str], sources: Path, options: Mapping[str, Any], *, available: bool, notice: Notice
) -> list[Task]:
    tasks: list[Task] = []
    for name in names:
        if name.split("/")[0] == "own":
            own = find_tasks(sources)
            picked = own if name == "own" else [task for task in own if task.id == name]
            if not picked:
                ids = [task.id for task in own]
                raise UsageError(f"{sources}: no data set '{name}'{nearest(name, ids)}; it holds: {', '.join(ids)}.")
            tasks += picked
        elif name in SUITES:
            held, lacking, extra = look_at_suite(name, sources, options)
            if extra:
                notice(
                    f"{sources}: holds data sets that are not of the suite '{name}', left alone: {', '.join(extra)}."
                )
            if not available:
                refuse_gaps(name, sources, lacking)
            elif lacking:
                notice(f"{sources}: the suite '{name}' is not complete, lacking {', '.join(t.id for t in lacking)}.")
            tasks += held
        else:
            tasks += choose_tasks([name])
    return tasks


def _known(task: Task, options: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Any]:
    """Of several tasks, each takes the options it has; an option that none has is refused by the first."""
    everywhere = {name for other in tasks for name in other.options}
    return {name: value for name, value in options.items() if name in task.options or name not in everywhere}
