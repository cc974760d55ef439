"""A user's own folder as tasks: sub-folders of tables, single tables, BED files with a genome, signal tracks."""

from __future__ import annotations

import logging
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.bins import save_bins, write_targets
from longstrand.benchmarks.tasks.build import source_paths, split_off_valid, write_task
from longstrand.benchmarks.tasks.released import SEED
from longstrand.benchmarks.tasks.task import SPLITS, BenchmarkTask, Kind, SourceFile, TaskData, read_options
from longstrand.data.bins import bin_targets
from longstrand.data.labelled_files import GenomeWindows, LabelColumns, RawTable, cut_rows, read_labelled, refuse_pieces
from longstrand.data.places import bin_windows, choose_contigs, split_windows, take_splits, window_rows
from longstrand.data.rows import Columns, has_intervals, read_intervals
from longstrand.data.splits import NAMES, split_at_random, split_by_chrom, split_by_column
from longstrand.data.tables import column_names
from longstrand.data.targets import infer_task, read_class_names
from longstrand.errors import InputError, UsageError, one_of
from longstrand.evaluation.metrics import PRIMARY
from longstrand.genome.coverage import Signal, is_signal, open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval, IntervalTable
from longstrand.genome.text import name_kind

TABLE_KINDS = ("table", "parquet", "xlsx", "json", "bed")
logger = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv", ".parquet", ".pq", ".xlsx", ".json", ".jsonl", ".bed", ".narrowPeak", ".broadPeak")
CLASS_NAMES = "labels.txt"
OWN = "your own file"
HELD_OUT = {"test": 0.2, "valid": 0.1}

BIN_BASES = 128
TABLE = tomllib.loads(Path(__file__).with_name("own.toml").read_text(encoding="utf-8"))
OPTIONS = {"seed": SEED, **read_options(TABLE["options"])}
TRACK_OPTIONS = read_options(TABLE["tracks"])


def find_tasks(folder: Path) -> list[BenchmarkTask]:
    """List the data sets of a folder as tasks ``own/NAME``, by name.

    A folder (at any depth) with a ``train`` table is one task, named after its path; ``valid`` (``dev``, ``val``) and
    ``test`` beside it are its splits. Any other table or BED file is a task of its own, named after the file, and is
    split by its column ``split``, else by chromosome if its rows have one (whole chromosomes until about a fifth of the
    rows is held out for the test and a tenth for validation), else at random, stratified by label, identical
    sequences (on either strand) together. Where only one of the two is missing, it is split off the training rows.

    Where signal tracks (BigWig, bedGraph) lie beside intervals, the intervals are the windows in which the tracks are
    predicted bin by bin; tracks and a genome without intervals are one task of windows side by side
    (`build_tracks`).

    Raises:
        InputError: the folder is missing or holds no table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, and a folder is needed" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {what}; give one with CSV, TSV, Parquet or BED files.")
    found: list[BenchmarkTask] = []
    for place in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        tables = [path for path in sorted(place.iterdir()) if path.is_file() and _is_table(path)]
        for path in sorted(place.glob("*.txt*")):
            if name_kind(path) in TABLE_KINDS and path.name != CLASS_NAMES:
                logger.warning("%s: left out; a table is read if its name ends in .csv or .tsv", path)
        name = "/".join(place.relative_to(folder).parts) or folder.resolve().name
        signals = sorted(path for path in place.iterdir() if path.is_file() and is_signal(path))
        splits = [(NAMES[_stem(path).lower()], path) for path in tables if _stem(path).lower() in NAMES]
        given = dict(splits)
        if "train" in given:
            _refuse_namesakes(splits)
            for path in sorted(set(tables) - {path for _, path in splits}):
                logger.warning("%s: left out, it is no split of the data set '%s'", path, name)
            found.append(_task(f"own/{name}", folder, given, signals))
            continue
        if signals and not tables:
            found.append(_task(f"own/{name}", folder, {}, signals))
        prefix = "" if place == folder else f"{name}/"
        found += [_task(f"own/{prefix}{_stem(path)}", folder, {"all": path}, signals) for path in tables]
    _refuse_namesakes([(task.id, folder / task.files[0].name) for task in found])
    if not found:
        raise InputError(
            f"{folder}: holds no data set; expected train/test tables in sub-folders, single tables, or BED files "
            f"({', '.join(ENDINGS)}, also .gz), or signal tracks (.bw, .bedgraph) with a genome."
        )
    return sorted(found, key=lambda task: task.id)


def _refuse_namesakes(named: Sequence[tuple[str, Path]]) -> None:
    first: dict[str, Path] = {}
    for name, path in named:
        if first.setdefault(name, path) != path:
            raise InputError(f"{path}: it and {first[name]} are both '{name}'; rename or remove one of them.")


def _is_table(path: Path) -> bool:
    return name_kind(path) in TABLE_KINDS and not path.name.lower().endswith(".txt")


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(path.suffix) if path.suffix in (".gz", ".bgz", ".zst") else path.name).stem


def _task(identifier: str, folder: Path, given: Mapping[str, Path], signals: Sequence[Path] = ()) -> BenchmarkTask:
    """Describe a data set; what kind of problem it poses is known once its rows are read (`build_own`)."""
    if signals and not all(map(has_intervals, given.values())):
        signals = ()
    files = tuple(SourceFile(str(path.relative_to(folder)), OWN) for path in (*given.values(), *signals))
    names = tuple(given)

    def build(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
        paths = source_paths(task, sources, options)
        tables, tracks = dict(zip(names, paths)), {_stem(path): path for path in paths[len(names) :]}
        if not tracks or options["tracks"] == ("none",):
            return build_own(task, tables, output, options)
        if len(tracks) < len(signals):
            raise InputError(f"{paths[-1].parent}: two signal tracks have the same name before the ending; rename one.")
        fasta = _genome(paths[0], options)
        return build_tracks(task, tables or {"all": None}, tracks, output, options, fasta=fasta)

    rule = f"given files for {', '.join(names)}" if "train" in given else "by column, chromosome or at random"
    choices = OPTIONS | (TRACK_OPTIONS if signals else {})
    title = f"your data set {identifier[4:]}"
    return BenchmarkTask(identifier, title, files, build, rule, options=choices, needs="your folder")


def build_own(task: BenchmarkTask, given: Mapping[str, Path], output: Path, options: Mapping[str, Any]) -> TaskData:
    """Read, split and write a data set of the user.

    Raises:
        InputError: a table is wrong, or rows cannot be split.
        UsageError: intervals without a genome, or pieces of fewer than two bases.
    """
    names = _class_names(given, options)
    read = _read(given, options, names)
    if not options["problem"]:
        where = " (in 'benchmark run' they are build_options.group and build_options.problem)"
        refuse_pieces(read.get("train") or read["all"], "group", "problem=single_label", where=where)
    one = read.get("train") or read["all"]
    by_chrom = one.chroms is not None and one.splits is None and "all" in read
    used = {"fasta": one.places, "window": one.places, "valid_chroms": by_chrom, "test_chroms": by_chrom}
    if unused := [name for name, use in used.items() if options[name] and not use]:
        logger.warning("%s: %s: not used, its rows have no place or their splits are given", task.id, ", ".join(unused))
    if "all" in read:
        tables, origin = _split(read["all"], options)
    else:
        tables, origin = _fill(read, options["seed"])
    if options["piece_bases"]:
        if options["piece_bases"] < 2:
            raise UsageError(f"piece_bases is the number of bases of a piece, 2 or more, got {options['piece_bases']}.")
        tables = {name: cut_rows(table, options["piece_bases"]) for name, table in tables.items()}
        origin += f"; then cut into pieces of {options['piece_bases']:,} bases, those of a sequence in one split"
    if options["bin_bases"]:
        return build_columns(task, tables, output, options, sources=list(given.values()), origin=origin)
    declared: Any = options["problem"] or None
    found = infer_task(tables["train"], problem=declared, class_names=names)
    kind: Kind = "token" if found.problem == "token" else "sequence"
    resolved = BenchmarkTask(
        **{name: getattr(task, name) for name in ("id", "title", "files", "build", "options", "needs")},
        split_rule=origin,
        kind=kind,
        problem=found.problem,
        metric=PRIMARY[found.problem],
    )
    return write_task(resolved, output, tables, options, sources=given.values(), origin=origin, class_names=names)


def _class_names(given: Mapping[str, Path], options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read the names of classes that tables hold as numbers, if there is a file of them."""
    asked = options["class_names_file"]
    if asked:
        return None if asked.lower() == "none" else read_class_names(Path(asked))
    beside = given["train"].parent / CLASS_NAMES if "train" in given else None
    return read_class_names(beside) if beside is not None and beside.is_file() else None


def _read(given: Mapping[str, Path], options: Mapping[str, Any], names: tuple[str, ...] | None) -> dict[str, RawTable]:
    """Read the tables; intervals of one class only get matched random negatives, off the intervals of every split."""
    sequence = options["sequence"] or "sequence"
    with_places = [path for path in given.values() if has_intervals(path, Columns(sequence))]
    windows = None
    if with_places:
        genome, window = Genome(_genome(with_places[0], options)), options["window"] or None
        tables = {path: read_intervals(path) for path in with_places}
        is_labelled = options["label"] or any(map(_class_column, tables.values()))
        windows = GenomeWindows(genome, window, 0 if is_labelled else options["negatives"], options["seed"])
        if windows.negative_ratio:
            windows.reserve(*with_places)
    read = {}
    for name, path in given.items():
        header = list(tables[path].labels) if path in with_places else column_names(path)
        split = next((column for column in header if column.lower() == "split"), None) if name == "all" else None
        labels = options["label"] or (_class_column(tables[path]) if path in with_places else ()) or None
        columns = LabelColumns(sequence=sequence, labels=labels, group=options["group"] or None, split=split)
        read[name] = read_labelled(path, columns, windows=windows, class_names=names)
    return read


def _class_column(table: IntervalTable) -> tuple[str, ...]:
    """Find the column that holds labels; none if all rows are alike or the names are names of single rows."""
    for name in ("label", "labels", "name"):
        distinct = len(set(table.labels.get(name, ())))
        if name in table.labels and distinct > 1 and (name != "name" or distinct <= min(50, len(table) // 2)):
            return (name,)
    return ()


def _genome(path: Path, options: Mapping[str, Any]) -> Path:
    if options["fasta"]:
        return Path(options["fasta"])
    found = [other for other in sorted(path.parent.iterdir()) if name_kind(other) == "fasta"]
    if len(found) != 1:
        what = "no FASTA file lies" if not found else f"{len(found)} FASTA files lie"
        raise InputError(f"{path}: intervals need their genome, but {what} beside it; set fasta=GENOME.fa.")
    return found[0]


def _fill(read: dict[str, RawTable], seed: int) -> tuple[dict[str, RawTable], str]:
    """Split off what is not given."""
    missing = {name: share for name, share in HELD_OUT.items() if name not in read}
    origin = f"given files for {', '.join(read)}"
    if missing:
        read |= split_at_random(read["train"], missing, seed=seed)
        origin += f"; {', '.join(missing)} split off train at random (seed {seed}), identical sequences together"
    return read, origin


def _split(table: RawTable, options: Mapping[str, Any]) -> tuple[dict[str, RawTable], str]:
    """Split one table by its column, by chromosome, or at random."""
    seed = options["seed"]
    if table.splits is not None:
        tables = split_by_column(table, "split")
        tables, rest = _fill(tables, seed)
        return tables, rest.replace("given files", "the column 'split'", 1)
    valid, test = options["valid_chroms"], options["test_chroms"]
    if table.chroms is not None and (test or len(set(table.chroms)) >= 3):
        if not test:
            valid, test = choose_contigs(Counter(table.chroms))
        tables = split_by_chrom(table, valid, test)
        rule = f"by chromosome (validation {', '.join(valid) or 'split off train'}, test {', '.join(test)})"
        return (tables if "valid" in tables else tables | split_off_valid(tables["train"], seed=seed)), rule
    tables = split_at_random(table, HELD_OUT, seed=seed)
    return tables, f"at random (seed {seed}), stratified by label, identical sequences together"


def build_tracks(
    task: BenchmarkTask,
    given: Mapping[str, Path | None],
    signals: Mapping[str, Path],
    output: Path,
    options: Mapping[str, Any],
    *,
    fasta: Path,
) -> TaskData:
    """Build a task of signal tracks over the intervals of a user, or over tiles of the genome.

    Windows in which no track has a number are left out. Splits are the files given, a column ``split``, or as
    `longstrand.data.places.split_windows` says; a sequence stands in one split only.

    Args:
        task: to be described.
        given: {"all": intervals or None for tiles} or {"train", "valid", "test"}.
        signals: tracks by name.
        output: folder of the built task.
        options: as chosen.
        fasta: the genome.

    Raises:
        InputError: files are wrong, do not belong together, or leave a split empty.
        UsageError: an option that does not fit.
    """
    one_of(options["reduce"], ("mean", "sum", "max"), "reduce")
    one_of(options["uncovered"], ("missing", "zero"), "uncovered")
    names = [one_of(name, signals, "track") for name in options["tracks"]] or list(signals)
    genome, size = Genome(fasta), options["bin_bases"] or BIN_BASES
    opened = [open_signal(signals[name]) for name in names]
    for signal in opened:
        signal.check_genome(genome.contigs)
    windows, words, rule = _place(given, genome, (size, options))
    rows, num_empty = _rows(windows, words, opened, genome, (size, options))
    tables, note = take_splits(*rows)
    if num_empty:
        note += f"; {num_empty:,} window(s) left out in which no track has a number"
    for name, table in tables.items():
        chosen = [windows[row] for row in table.rows]
        values = (_values(opened, window, size, options) for window in chosen)
        most = max((window.length // size for window in chosen), default=1)
        write_targets(output / f"{name}.zarr", values, len(chosen), most, len(names))
    tables = {name: replace(table, rows=list(range(1, len(table) + 1))) for name, table in tables.items()}
    title = f"{len(names)} track(s) in bins of {size} bases: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    sources = [path for path in (*given.values(), *(signals[name] for name in names), fasta) if path is not None]
    return _save(task, output, tables, names, options, title=title, sources=sources, origin=rule + note)


def _values(signals: Sequence[Signal], window: Interval, size: int, options: Mapping[str, Any]) -> np.ndarray:
    """Read one number a bin and track: float32 (bins, tracks)."""
    how = {"reduce": options["reduce"], "uncovered": options["uncovered"]}
    return np.stack([signal.bins(window, size, **how) for signal in signals], axis=1)


def _rows(
    windows: Sequence[Interval],
    words: Sequence[str],
    signals: Sequence[Signal],
    genome: Genome,
    how: tuple[int, Mapping[str, Any]],
) -> tuple[tuple[RawTable, list[str]], int]:
    """Read the sequences of windows in which a track has a number; ``rows`` are the numbers of the windows, from 0."""
    kept = [
        place
        for place, (window, word) in enumerate(zip(windows, words))
        if word and not np.isnan(_values(signals, window, *how)).all()
    ]
    num_empty = sum(map(bool, words)) - len(kept)
    if not kept:
        raise InputError(f"no track has a number in any of {len(windows):,} windows; do they lie on the same genome?")
    table = window_rows([windows[place] for place in kept], genome, source=genome.path)
    return (replace(table, rows=kept), [words[place] for place in kept]), num_empty


def _place(
    given: Mapping[str, Path | None], genome: Genome, how: tuple[int, Mapping[str, Any]]
) -> tuple[list[Interval], list[str], str]:
    """Give all windows, the split of each (empty: none), and the rule; what is not given is split off train."""
    size, options = how
    read = {split: bin_windows(path, genome, options["window"], size) for split, path in given.items()}
    chroms = {"valid_chroms": options["valid_chroms"], "test_chroms": options["test_chroms"]}
    if "all" in read:
        windows, table = read["all"]
        column = next((name for name in table.labels if name.lower() == "split"), None)
        if column is not None:
            return windows, _words_of(table, column), "the column 'split'"
        return windows, *split_windows(windows, genome.contigs, **chroms)
    windows, words = [], []
    rule = f"given files for {', '.join(read)}"
    missing = [name for name in ("valid", "test") if name not in read]
    for split, (placed, _) in read.items():
        windows += placed
        if split == "train" and missing:
            found, where = split_windows(placed, genome.contigs, **chroms)
            words += [word if word in ("", *missing) else "train" for word in found]
            rule += f"; {', '.join(missing)} split off train: {where}"
        else:
            words += [split] * len(placed)
    return windows, words, rule


def _words_of(table: IntervalTable, column: str) -> list[str]:
    words = [(word or "").strip().lower() for word in table.labels[column]]
    for row, word in enumerate(words):
        if word not in NAMES:
            raise InputError(f"{table.where(row)}: the column '{column}' says '{word}'; write train, valid or test.")
    return [NAMES[word] for word in words]


def build_columns(
    task: BenchmarkTask,
    tables: Mapping[str, RawTable],
    output: Path,
    options: Mapping[str, Any],
    *,
    sources: Sequence[Path],
    origin: str,
) -> TaskData:
    """Build a task from tables whose label columns hold one number for each bin, joined by ``;``.

    Raises:
        InputError: a sequence is no whole number of bins, or a cell has another number of values.
    """
    size, names = options["bin_bases"], list(tables["train"].labels)
    for name in SPLITS:
        table = tables[name]
        values = bin_targets(table, size)
        most = max(map(len, values), default=1)
        write_targets(output / f"{name}.zarr", values, len(values), most, len(names))
    bare = {name: replace(table, labels={}, splits=None) for name, table in tables.items()}
    title = f"{task.title}: {len(names)} number(s) a bin of {size} bases"
    return _save(task, output, bare, names, options, title=title, sources=sources, origin=origin)


def _save(
    task: BenchmarkTask,
    output: Path,
    tables: Mapping[str, RawTable],
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    title: str,
    sources: Sequence[Path],
    origin: str,
) -> TaskData:
    loss = one_of(options["bin_loss"], ("auto", "counts", "squared"), "bin_loss")
    described = replace(task, title=title, kind="bin", problem="regression", metric="pearson")
    size = options["bin_bases"] or BIN_BASES
    bins = {"bin_bases": size, "num_bins": None, "context": 0, "loss": None if loss == "auto" else loss}
    return save_bins(described, output, tables, (names, bins), options, sources=sources, origin=origin)
