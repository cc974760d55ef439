"""From a task and a folder of published files to a built task: check the files, make the tables, check the tables."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longstrand.benchmarks.tasks.task import (
    SPLITS,
    BenchmarkTask,
    SourceFile,
    TaskData,
    file_sums,
    load_task_data,
    save_facts,
    task_facts,
)
from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import infer_task
from longstrand.errors import InputError, UsageError, nearest
from longstrand.evaluation.sanity import check_splits, leaks, lines_of, truncation, truncation_line
from longstrand.runtime import Notice, check_output, fingerprint_bytes, read_json, write_json

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

PIECE_COLUMN = "piece_of"
"""Column with the number of the sequence that a row is a piece of."""

VALID_SHARE = 0.1
"""Share of the training rows that becomes validation rows where none are published."""


def build_task(
    task: BenchmarkTask,
    sources: Path,
    output: Path,
    *,
    options: Mapping[str, Any] | None = None,
    strict: bool = False,
    notice: Notice = lambda sentence: None,
) -> TaskData:
    """Build a task into ``output/ID``: ``train``, ``valid``, ``test`` tables, ``task.json`` and ``sanity.json``.

    Building again replaces what is there; a folder without ``task.json`` is not complete.

    Args:
        task: what to build.
        sources: folder with the published files.
        output: folder for built tasks.
        options: choices of the task's builder, by name.
        strict: refuse a task whose splits leak into each other (its folder is removed).
        notice: called with the sanity report, a sentence at a time.

    Raises:
        InputError: a file is missing, damaged or not the published one; the labels do not fit the task; or, with
            ``strict``, the splits leak.
        UsageError: an option that the task does not have.
    """
    chosen = resolve_options(task, options or {})
    check_files(task, sources, chosen)
    folder = Path(output) / task.id
    check_output(folder, source_paths(task, sources, chosen))
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    data = task.build(task, Path(sources), folder, chosen)
    report = read_json(data.sanity)
    for line in lines_of(report):
        notice(f"{task.id}: {line}")
    found = leaks(report)
    if strict and found:
        shutil.rmtree(folder)
        raise InputError(f"task '{task.id}' is refused (--strict): {' '.join(found)}")
    return data


def add_truncation(data: TaskData, tokenizer: Tokenizer, max_tokens: int, *, name: str) -> str:
    """Measure what a model with this tokenizer and input length does not see, and add it to the sanity report.

    Returns:
        The result as a sentence. Windows of bins are never cut; it then says how many do not fit.
    """
    if data.kind == "bin":
        from longstrand.evaluation.sanity import too_long

        return too_long(data.load(), tokenizer, max_tokens)
    found = truncation(data.load(), tokenizer, max_tokens)
    report = read_json(data.sanity)
    report.setdefault("truncation", {})[name] = {"input_tokens": max_tokens, "splits": found}
    write_json(data.sanity, report)
    return truncation_line(found, max_tokens)


def resolve_options(task: BenchmarkTask, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in defaults and read words as the kind of value the default is.

    Raises:
        UsageError: the task has no such option, or the value is not of its kind.
    """
    chosen = {name: option.default for name, option in task.options.items()}
    for name, value in given.items():
        if name not in chosen:
            known = ", ".join(chosen) or "none"
            raise UsageError(f"task '{task.id}' has no option '{name}'{nearest(name, chosen)}; its options: {known}.")
        chosen[name] = _read_value(task, name, value)
    return chosen


def _read_value(task: BenchmarkTask, name: str, value: Any) -> Any:
    default = task.options[name].default
    if not isinstance(value, str) or isinstance(default, str) or default is None:
        return value
    text = value.strip().lower()
    if isinstance(default, bool) and text in ("true", "yes", "1", "false", "no", "0"):
        return text in ("true", "yes", "1")
    if isinstance(default, tuple):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        if isinstance(default, bool):
            raise ValueError(text)
        return type(default)(value)
    except ValueError:
        kind = {bool: "yes or no", int: "a whole number", float: "a number"}[type(default)]
        raise UsageError(f"task '{task.id}': option '{name}' is {kind}, got '{value}'.") from None


def check_files(task: BenchmarkTask, sources: Path, options: Mapping[str, Any]) -> None:
    """Check that all files of a task are there and are the published ones.

    Raises:
        InputError: the folder or files are missing (all are named, with where they are published), one is a damaged
            gzip file, or its content is not the published one.
    """
    sources = Path(sources)
    if not sources.is_dir():
        raise InputError(f"{sources}: no such folder; --source is the folder that holds the files of '{task.id}'.")
    for item, path in zip(task.files, source_paths(task, sources, options)):
        if item.sha256 is not None and not options.get("any_version", False):
            _check_sum(task, item, path)


def find_file(sources: Path, item: SourceFile, options: Mapping[str, Any]) -> Path | None:
    """Find a file or folder under its published name or another known one, plain or gzip; None if it is not there."""
    for name in (item.name, *item.also):
        path = Path(sources) / name.format_map(options)
        for candidate in (path, path.with_name(f"{path.name}.gz"), path.with_name(path.name.removesuffix(".gz"))):
            if candidate.exists():
                return candidate
    return None


def source_paths(task: BenchmarkTask, sources: Path, options: Mapping[str, Any]) -> list[Path]:
    """Give the paths of the files of a task, in its order.

    Raises:
        InputError: files are missing (all are named, with where they are published).
    """
    found = [(item, find_file(sources, item, options)) for item in task.files]
    missing = [item for item, path in found if path is None]
    if missing:
        names = ", ".join(item.name.format_map(options) for item in missing)
        where = "; ".join(dict.fromkeys(item.published for item in missing))
        raise InputError(f"{sources}: task '{task.id}' lacks {names}; published as {where}.")
    return [path for _, path in found if path is not None]


def content_sum(path: Path) -> str:
    """Give the hexadecimal SHA-256 of a file, of what a gzip file holds.

    Raises:
        InputError: the gzip file is truncated or damaged.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is truncated or damaged ({error}); get it again.") from None
    return digest.hexdigest()


def _check_sum(task: BenchmarkTask, item: SourceFile, path: Path) -> None:
    found = content_sum(path)
    if found != item.sha256:
        raise InputError(
            f"{path}: not the published file of task '{task.id}' (SHA-256 {found[:12]}..., published {item.sha256}; "
            f"{item.published}); get it again, or accept another version with any_version=yes."
        )


def join_rows(tables: Iterable[RawTable], source: object) -> RawTable:
    """Put tables below each other; rows are numbered anew."""
    tables = list(tables)
    first = tables[0]

    def column(name: str) -> list[str] | None:
        parts = [getattr(table, name) for table in tables]
        return None if any(part is None for part in parts) else [value for part in parts for value in part]

    sequences = column("sequences") or []
    return RawTable(
        source=str(source),
        rows=list(range(1, len(sequences) + 1)),
        sequences=sequences,
        labels={name: [value for table in tables for value in table.labels[name]] for name in first.labels},
        num_lower_case=sum(table.num_lower_case for table in tables),
        pairs=column("pairs"),
        names=column("names"),
        chroms=column("chroms"),
    )


def split_off_valid(train: RawTable, *, seed: int = 0, share: float = VALID_SHARE) -> dict[str, RawTable]:
    """Set a tenth of the training rows apart, stratified by label; identical sequences stay together."""
    from longstrand.data.splits import split_at_random

    return split_at_random(train, {"valid": share}, seed=seed)


def write_task(
    task: BenchmarkTask,
    folder: Path,
    tables: Mapping[str, RawTable],
    options: Mapping[str, Any],
    *,
    sources: Iterable[Path] = (),
    origin: str = "",
    class_names: Sequence[str] | None = None,
) -> TaskData:
    """Check the three tables of a task and write them, the sanity report and, last, ``task.json``.

    Args:
        task: whose tables they are.
        folder: of the built task.
        tables: ``train``, ``valid`` and ``test``.
        options: as chosen.
        sources: files that were read, for the record.
        origin: where the splits come from, if it differs from the task's rule.
        class_names: names of the classes or outputs, where the tables hold their numbers.

    Raises:
        InputError: a split is empty, lacks a class or holds one that the training rows lack, or leaves the primary
            metric undefined.
    """
    labelled = check_labels(task, tables, class_names)
    report = check_splits(tables, labelled)
    first = tables["train"]
    return finish_task(
        task,
        folder,
        tables,
        options,
        sources=sources,
        report=report,
        origin=origin,
        class_names=list(labelled["train"].task.names),
        names_given=class_names is not None,
        piece_column=PIECE_COLUMN if first.is_cut else None,
        label_columns=list(first.labels),
        pair_column="pair" if first.pairs is not None else None,
        fingerprint=fingerprint_rows(tables),
    )


def finish_task(
    task: BenchmarkTask,
    folder: Path,
    tables: Mapping[str, RawTable],
    options: Mapping[str, Any],
    *,
    sources: Iterable[Path],
    report: Mapping[str, Any],
    origin: str,
    **facts: Any,
) -> TaskData:
    """Write the tables, the sanity report and, last, ``task.json`` with further ``facts``."""
    write_json(folder / "sanity.json", report)
    files = {name: f"{name}.parquet" for name in SPLITS}
    for name in SPLITS:
        write_rows(folder / files[name], tables[name])
    described = {name: value for name, value in task_facts(task).items() if name not in ("files", "needs", "num_rows")}
    described |= {
        "split_rule": origin or task.split_rule,
        "options": options,
        "sources": {path.name: f"sha256:{content_sum(path)}" for path in sources if path.is_file()},
        "num_rows_built": {name: len(tables[name]) for name in SPLITS},
        "tables": files,
        "checksums": file_sums(folder, files),
    }
    save_facts(folder, described | facts)
    return load_task_data(folder, check=False)


def check_labels(
    task: BenchmarkTask, tables: Mapping[str, RawTable], class_names: Sequence[str] | None = None
) -> dict[str, LabelledTable]:
    """Give the splits with targets.

    Raises:
        InputError: as `write_task`.
    """
    for name in SPLITS:
        if name not in tables or not len(tables[name]):
            raise InputError(f"task '{task.id}': the {name} split has no row; check the files and the options.")
    problem: Any = task.problem
    found = infer_task(tables["train"], problem=problem, class_names=class_names)
    labelled = {name: label(tables[name], found) for name in SPLITS}
    for name, table in labelled.items():
        _check_measurable(task, name, table)
    return labelled


def _check_measurable(task: BenchmarkTask, name: str, table: LabelledTable) -> None:
    """Refuse a split in which a class has no row, or in which the primary metric is undefined."""
    import numpy as np

    where = f"{table.raw.source}: in the {name} split of task '{task.id}'"
    if task.problem in ("single_label", "token"):
        values = np.concatenate(table.targets) if isinstance(table.targets, list) else table.targets
        counts = np.bincount(values[values >= 0], minlength=table.task.num_outputs)
        empty = [class_name for class_name, count in zip(table.task.names, counts) if count == 0]
        if empty:
            raise InputError(
                f"{where}, class '{empty[0]}' has no row; drop or merge the class, or choose another split."
            )
        return
    targets = np.asarray(table.targets, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        spread = np.nanmax(targets, axis=0) - np.nanmin(targets, axis=0) > 0
    if not spread.any() or (task.problem == "regression" and not spread.all()):
        flat = table.task.names[int(np.flatnonzero(~spread)[0])]
        raise InputError(
            f"{where}, all values of '{flat}' are the same, so {task.metric} is undefined; choose another split."
        )


def write_rows(path: Path, table: RawTable) -> None:
    """Write a split as Parquet: ``sequence``, the label columns, and ``pair``, ``name``, ``chrom`` if there are any.

    Pieces of longer sequences also have `PIECE_COLUMN`.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    import polars as pl

    try:
        pl.DataFrame(_columns(table)).write_parquet(path, compression="zstd", row_group_size=20_000)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from None


def fingerprint_rows(tables: Mapping[str, RawTable]) -> str:
    """Give ``sha256:...`` of all cells of all splits."""
    parts = []
    for name in sorted(tables):
        for column, values in _columns(tables[name]).items():
            digest = hashlib.sha256()
            for value in values:
                digest.update(("\n" if value is None else value).encode() + b"\n")
            parts.append(f"{name} {column} {digest.hexdigest()}")
    return fingerprint_bytes("\n".join(parts).encode())


def _columns(table: RawTable) -> dict[str, Sequence[str | None]]:
    columns: dict[str, Sequence[str | None]] = {"sequence": table.sequences, **table.labels}
    for name, values in (("pair", table.pairs), ("name", table.names), ("chrom", table.chroms)):
        if values is not None and name not in columns:
            columns[name] = values
    if table.is_cut:
        columns[PIECE_COLUMN] = [str(row) for row in table.rows]
    return columns
