"""All tasks by id, and whole suites: what is known, what a folder holds of it, what it lacks.

What is published of a suite (files, checksums, rows, numbers) is data: ``SUITE.toml`` beside this module. There a task
takes what it does not say from ``defaults``; ``options`` name choices of its builder, ``published.NAME`` are values by
model of the measure that ``numbers.NAME`` describes; -1 rows are not published.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from longstrand.benchmarks.suites.deepsea import build_deepsea
from longstrand.benchmarks.suites.promoters import build_annotated_promoters, build_epd_promoters
from longstrand.benchmarks.suites.species import build_species
from longstrand.benchmarks.suites.splice import build_splice_tokens, build_splice_windows, build_spliceai
from longstrand.benchmarks.tasks.bins import build_bins
from longstrand.benchmarks.tasks.build import build_task, find_file, resolve_options
from longstrand.benchmarks.tasks.own import find_tasks
from longstrand.benchmarks.tasks.released import (
    ANY_VERSION,
    SEED,
    build_aparent,
    build_class_folders,
    build_deepstarr,
    build_tables,
)
from longstrand.benchmarks.tasks.task import BenchmarkTask, SourceFile, TaskData, read_options
from longstrand.errors import InputError, UsageError, nearest
from longstrand.runtime import Notice

SUITES = ("gue", "nt", "nt_revised", "genomic_benchmarks", "gena", "longstrand")
BUILDERS: dict[str, Callable[..., TaskData]] = {
    "annotated_promoters": build_annotated_promoters,
    "aparent": build_aparent,
    "bins": build_bins,
    "class_folders": build_class_folders,
    "deepsea": build_deepsea,
    "deepstarr": build_deepstarr,
    "epd_promoters": build_epd_promoters,
    "species": build_species,
    "splice_tokens": build_splice_tokens,
    "splice_windows": build_splice_windows,
    "spliceai": build_spliceai,
    "tables": build_tables,
}
FIELDS = ("id", "title", "split_rule", "kind", "problem", "metric", "window", "needs")


@lru_cache(maxsize=len(SUITES))
def suite_tasks(suite: str) -> tuple[BenchmarkTask, ...]:
    """Read the tasks of a suite."""
    facts = tomllib.loads((Path(__file__).parent / f"{suite}.toml").read_text())
    return tuple(_task(entry, facts) for entry in facts["task"])


def _task(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> BenchmarkTask:
    """Make a task from its entry and what all of the suite share."""
    values = {**facts.get("defaults", {}), **entry}
    choices = {**facts.get("options", {}), **entry.get("option", {})}
    options = {"seed": SEED, "any_version": ANY_VERSION, **read_options(choices)}
    published = {
        model: {"value": value, "protocol": "", **facts["numbers"][group]}
        for group, members in entry.get("published", {}).items()
        for model, value in members.items()
    }
    files = [
        SourceFile(
            file["name"],
            file.get("published", values.get("published_as")),
            file.get("sha256"),
            tuple(file.get("also", ())),
        )
        for file in values["files"]
    ]
    rows = tuple(None if count < 0 else count for count in values.get("num_rows", ()))
    return BenchmarkTask(
        **{name: values[name] for name in FIELDS if name in values},
        files=tuple(files),
        build=BUILDERS[values["build"]],
        num_rows=rows or None,  # type: ignore[arg-type]
        published=published,
        options={name: options[name] for name in values["options"]},
        notes=tuple(values.get("notes", ())),
    )


def all_tasks() -> dict[str, BenchmarkTask]:
    """Give every known task by its id, suite after suite."""
    return {task.id: task for suite in SUITES for task in suite_tasks(suite)}


def choose_tasks(names: Sequence[str]) -> list[BenchmarkTask]:
    """Give the tasks of ids and of whole suites, in the order asked for, each once.

    Raises:
        UsageError: there is no such task or suite; the nearest is named.
    """
    known = all_tasks()
    chosen: dict[str, BenchmarkTask] = {}
    for name in names:
        if name in SUITES:
            chosen |= {task.id: task for task in suite_tasks(name)}
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
) -> tuple[list[BenchmarkTask], list[BenchmarkTask], list[str]]:
    """Compare a folder with a suite: ``(tasks it holds, tasks it lacks, data sets that are not of the suite)``.

    Raises:
        InputError: the folder is missing or holds no task of the suite at all.
    """
    sources = Path(sources)
    if not sources.is_dir():
        raise InputError(f"{sources}: no such folder; --source is the folder that holds the suite '{suite}'.")
    held: list[BenchmarkTask] = []
    lacking: list[BenchmarkTask] = []
    used: set[Path] = set()
    for task in suite_tasks(suite):
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
) -> list[BenchmarkTask]:
    tasks: list[BenchmarkTask] = []
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
            if lacking:
                sentence = f"{sources}: lacks {len(lacking)} task(s) of the suite '{name}': "
                sentence += ", ".join(task.id for task in lacking)
                if not available:
                    where = f"{lacking[0].files[0].published}; build what is there with --available."
                    raise InputError(f"{sentence}; published as {where}")
                notice(f"{sentence}.")
            tasks += held
        else:
            tasks += choose_tasks([name])
    return tasks


def _known(task: BenchmarkTask, options: Mapping[str, Any], tasks: Sequence[BenchmarkTask]) -> dict[str, Any]:
    """Of several tasks, each takes the options it has; an option that none has is refused by the first."""
    everywhere = {name for other in tasks for name in other.options}
    return {name: value for name, value in options.items() if name in task.options or name not in everywhere}
