"""What a benchmark task is, what a built task is, and how a built task is read back from its folder.

A `BenchmarkTask` is a value: which files it needs, how they become tables, how they are split, and how the result is
measured. `build_task` turns it into a `TaskData`: a folder with three tables that ``longstrand finetune`` reads, the
facts of the task (``task.json``) and the sanity report (``sanity.json``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from longstrand.data.bins import BinTargets, count_bins
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.tables import read_table
from longstrand.data.targets import Task
from longstrand.errors import InputError, UsageError, nearest
from longstrand.evaluation.metrics import METRICS
from longstrand.runtime import fingerprint_file, read_json, write_json
from longstrand.training.examples import load_splits
from longstrand.training.settings import DataSettings

Kind = Literal["sequence", "token", "bin"]
Problem = Literal["single_label", "multi_label", "regression", "token"]
FORMAT = "longstrand-task"
VERSION = 1
SPLITS = ("train", "valid", "test")
FACTS = ("id", "tables", "checksums", "class_names", "fingerprint", "problem", "kind", "metric")
"""What ``task.json`` holds at least."""


@dataclass(frozen=True)
class SourceFile:
    """A published file (or folder) that a task is built from.

    Attributes:
        name: path inside the source folder; ``.gz`` may follow, and the words in braces are filled in by an option.
        published: where it is published, in words.
        sha256: hexadecimal checksum of the content (unpacked, if it is gzip), or None if none is known.
        also: other paths under which it is found, as other releases of the same file name it.
    """

    name: str
    published: str
    sha256: str | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Option:
    """A choice that a builder offers: its default, and what it does in one sentence."""

    default: Any
    help: str


def read_options(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Option]:
    """Read options from a table of TOML; its lists become tuples."""
    options = {}
    for name, entry in table.items():
        default = entry["default"]
        options[name] = Option(tuple(default) if isinstance(default, list) else default, entry["help"])
    return options


@dataclass(frozen=True)
class BenchmarkTask:
    """One benchmark task, as data.

    Attributes:
        id: namespaced name, such as ``gue/tf_0``.
        title: what is predicted from what.
        files: what the source folder must hold.
        build: writes the tables: ``(task, sources, output, options) -> TaskData``. Call `build_task`, which checks
            files and options first.
        split_rule: where training, validation and test rows come from.
        kind: one label a ``sequence``, a base (``token``) or a ``bin`` of bases.
        problem: what a label is, as ``data.problem`` of ``longstrand finetune``; of the kind ``token`` it is ``token``.
        metric: the primary metric.
        window: bases of a sequence, or None if lengths differ.
        num_rows: published rows of train, valid (None: none is published) and test, or None if not known.
        published: {model: {value, metric, source, protocol}} (protocol: how it was measured, or empty).
        options: {name: choice} that ``build`` understands.
        notes: what a reader of the numbers must know.
        needs: for the list: what has to be at hand.
    """

    id: str
    title: str
    files: tuple[SourceFile, ...]
    build: Callable[[BenchmarkTask, Path, Path, Mapping[str, Any]], TaskData]
    split_rule: str
    kind: Kind = "sequence"
    problem: Problem = "single_label"
    metric: str = "mcc"
    window: int | None = None
    num_rows: tuple[int, int | None, int] | None = None
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    needs: str = ""

    def __post_init__(self) -> None:
        if self.kind == "token":
            object.__setattr__(self, "problem", "token")
        known = METRICS[self.problem]
        if self.metric not in known:
            raise UsageError(
                f"task '{self.id}': the metric '{self.metric}' is undefined for {self.problem} labels"
                f"{nearest(self.metric, known)}; defined are: {', '.join(known)}."
            )


@dataclass(frozen=True)
class TaskData:
    """A built task: tables on disk with everything that a result has to record about them.

    Attributes:
        id: of the task.
        folder: where everything is.
        tables: {"train", "valid", "test"} -> table of sequences and labels, as ``longstrand finetune`` reads it.
        class_names: classes, labels or targets, in the order of a model's outputs.
        fingerprint: ``sha256:...`` of the rows: the same for the same data, whatever file holds them.
        sanity: JSON report of leakage and balance.
        problem: as ``data.problem`` of ``longstrand finetune``: single_label, multi_label, regression or token.
        kind: sequence, token or bin.
        metric: the primary metric.
        facts: everything in ``task.json``: title, split rule, options, sources with checksums, published numbers.
        arrays: for bins: {"train", "valid", "test"} -> Zarr array (rows, bins, targets).
    """

    id: str
    folder: Path
    tables: Mapping[str, Path]
    class_names: tuple[str, ...]
    fingerprint: str
    sanity: Path
    problem: str
    kind: Kind
    metric: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Path] = field(default_factory=dict)

    def data_settings(self) -> dict[str, Any]:
        """Give the ``data`` section of ``longstrand finetune`` for this task."""
        settings: dict[str, Any] = {name: str(path) for name, path in self.tables.items()}
        settings["problem"] = self.problem
        if self.kind == "bin":
            settings |= {"bin_bases": self.facts["bins"]["bin_bases"], "bin_loss": self.facts["bins"]["loss"]}
        if self.facts.get("names_given"):
            settings["class_names"] = self.class_names
        settings["columns"] = {"labels": tuple(self.facts["label_columns"]), "pair": self.facts.get("pair_column")}
        return settings

    def load(self, *, alphabet: str = "ACGTN") -> dict[str, LabelledTable]:
        """Read the three tables with their targets; those of bins stay on the disk unless they are small.

        Raises:
            InputError: a table is missing or damaged.
        """
        if self.kind == "bin":
            return load_bins(self)
        settings = DataSettings.model_validate(self.data_settings())
        tables = dict(load_splits(settings, alphabet=alphabet).items())
        if self.facts.get("piece_column"):
            return {name: self._with_pieces(name, table) for name, table in tables.items()}
        return tables

    def _with_pieces(self, split: str, table: LabelledTable) -> LabelledTable:
        """Give the pieces of a sequence the same row number again, so that they count as one in tests and folds."""
        column = read_table(self.tables[split]).get_column(self.facts["piece_column"])
        return replace(table, raw=replace(table.raw, rows=[int(number) for number in column], is_cut=True))


def load_task_data(folder: Path, *, check: bool = True) -> TaskData:
    """Read a folder that ``longstrand benchmark build`` wrote.

    Args:
        folder: with ``task.json``.
        check: also compare the tables with their checksums.

    Raises:
        InputError: the folder is no built task, was written by a later version, or its tables changed since.
    """
    folder = Path(folder)
    path = folder / "task.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a built task (no task.json); make one with 'longstrand benchmark build'.")
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f"{path}: not the description of a built task; build it again.")
    if facts["version"] > VERSION:
        raise InputError(f"{path}: format version {facts['version']}, this program reads up to {VERSION}; update it.")
    missing = [name for name in FACTS if name not in facts]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; build the task again.")
    tables = {name: folder / file for name, file in facts["tables"].items()}
    for name, table in tables.items():
        if not table.is_file():
            raise InputError(f"{table}: the {name} table of task '{facts['id']}' is missing; build the task again.")
    if check and file_sums(folder, facts["tables"]) != facts["checksums"]:
        raise InputError(f"{folder}: the tables of task '{facts['id']}' changed since it was built; build it again.")
    return TaskData(
        id=facts["id"],
        folder=folder,
        tables=tables,
        class_names=tuple(facts["class_names"]),
        fingerprint=facts["fingerprint"],
        sanity=folder / "sanity.json",
        problem=facts["problem"],
        kind=facts["kind"],
        metric=facts["metric"],
        facts=facts,
        arrays={name: folder / file for name, file in facts.get("arrays", {}).items()},
    )


def find_built(folder: Path) -> list[TaskData]:
    """List the built tasks in a folder and below, by id.

    Raises:
        InputError: there is none, or two are the same task.
    """
    found = [load_task_data(path.parent) for path in sorted(Path(folder).rglob("task.json"))]
    if not found:
        raise InputError(f"{folder}: holds no built task; make one with 'longstrand benchmark build'.")
    places: dict[str, Path] = {}
    for data in found:
        if data.id in places:
            raise InputError(
                f"{folder}: the task '{data.id}' is there twice, in {places[data.id].relative_to(folder)} and "
                f"{data.folder.relative_to(folder)}; remove one, or give the folder of one."
            )
        places[data.id] = data.folder
    return sorted(found, key=lambda data: data.id)


def file_sums(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Give the checksum of each file by its name in the folder."""
    return {file: fingerprint_file(Path(folder) / file) for file in files.values()}


def save_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``task.json``, the last file of a built task: a folder without it is not complete."""
    write_json(Path(folder) / "task.json", {"format": FORMAT, "version": VERSION, **facts})


def load_bins(data: TaskData) -> dict[str, LabelledTable]:
    """Read the three tables of a built task of numbers per bin; targets stay on the disk unless they are small.

    Raises:
        InputError: a table or an array is missing or damaged.
    """
    tables = {}
    for name, path in data.tables.items():
        frame = read_table(path)
        columns = {key: frame[key].to_list() if key in frame.columns else None for key in ("name", "chrom")}
        rows = make_rows(frame["sequence"].to_list(), {}, source=path, names=columns["name"], chroms=columns["chrom"])
        tables[name] = label_bins(rows, data.arrays[name], data.class_names, data.facts["bins"])
    return tables


def label_bins(rows: RawTable, array: Path, names: Sequence[str], bins: Mapping[str, Any]) -> LabelledTable:
    """Join windows with their numbers per bin, which stay on the disk.

    Raises:
        InputError: a window is no whole number of bins.
    """
    size = bins["bin_bases"]
    where = (f"{rows.source}, row {row}" for row in rows.rows)
    number = [count_bins(len(text), size, where=place) for text, place in zip(rows.sequences, where)]
    why = f"declared: one number for each bin of {size:,} bases"
    task = Task("regression", tuple(names), tuple(names), "columns", tuple(names), why, size)
    return LabelledTable(rows, task, BinTargets(array, number, context=bins["context"]))


def task_facts(task: BenchmarkTask) -> dict[str, Any]:
    """Give the facts of a task as plain values."""
    return {name: value for name, value in asdict(task).items() if name != "build"}


def table_lines(tasks: Sequence[BenchmarkTask]) -> list[str]:
    """Write a table with one line a task."""
    rows = [("id", "train / valid / test", "bases", "kind", "metric", "needs")]
    for task in tasks:
        counts = "-" if task.num_rows is None else " / ".join("-" if n is None else f"{n:,}" for n in task.num_rows)
        window = "-" if task.window is None else f"{task.window:,}"
        rows.append((task.id, counts, window, f"{task.kind}, {task.problem}", task.metric, task.needs))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
    return [*lines, "", "'longstrand benchmark list ID' shows one task in full."]


def full_text(task: BenchmarkTask) -> str:
    """Write everything about one task."""
    lines = [f"{task.id}: {task.title}", f"kind: {task.kind}, {task.problem}; metric {task.metric}"]
    if task.num_rows:
        lines.append("rows: " + " / ".join("-" if n is None else f"{n:,}" for n in task.num_rows))
    lines += [f"split: {task.split_rule}", "files:"]
    for item in task.files:
        checked = ", checksum known" if item.sha256 else ""
        lines.append(f"  {item.name}  ({item.published}{checked})")
    lines += [f"option {name}={_show(item.default)}: {item.help}" for name, item in task.options.items()]
    sources: dict[tuple[str, str, str], list[str]] = {}
    for model, fact in task.published.items():
        sources.setdefault((fact["metric"], fact["source"], fact["protocol"]), []).append(f"{model} {fact['value']:g}")
    for (metric, source, protocol), numbers in sources.items():
        lines.append(f"published {metric}, {source}{'; ' + protocol if protocol else ''}:")
        lines += [f"  {number}" for number in numbers]
    return "\n".join([*lines, *(f"note: {note}" for note in task.notes)])


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
