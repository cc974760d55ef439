"""Builders for suites that are published as finished tables: one reader per released layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longstrand.benchmarks.tasks.build import join_rows, source_paths, split_off_valid, write_task
from longstrand.benchmarks.tasks.task import BenchmarkTask, Option, TaskData
from longstrand.data.labelled_files import RawTable, make_rows, read_labelled
from longstrand.data.rows import detect_file, read_entries, take_column
from longstrand.data.splits import choose_rows
from longstrand.data.tables import read_table
from longstrand.errors import InputError

ANY_VERSION = Option(False, "accept files whose content is not that of the published ones")
SEED = Option(0, "seed of the split, where the published files leave one to us")
TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq")


def build_tables(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build a task published as ``train``, perhaps ``dev``, and ``test``: tables or FASTA, see `read_rows`."""
    paths = source_paths(task, sources, options)
    names = ("train", "valid", "test") if len(paths) == 3 else ("train", "test")
    tables = {name: read_rows(path) for name, path in zip(names, paths)}
    if "valid" not in tables:
        tables |= split_off_valid(tables["train"], seed=options["seed"])
    return write_task(task, output, tables, options, sources=paths)


def build_class_folders(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build a Genomic Benchmarks task from any of its releases.

    Full sequences: ``train/CLASS/*.txt``, one file a sequence; tables ``train*.parquet`` of ``seq,label``. Coordinates:
    ``train/CLASS.csv.gz`` of ``id,region,start,end,strand`` with the genome, given as ``fasta`` (or ``CLASS.fa`` beside
    ``train`` where every class has its own genome).

    Raises:
        InputError: none of these is there, or a class has no file.
    """
    (folder,) = source_paths(task, sources, options)
    tables = {name: _read_split(task, folder, name, options) for name in ("train", "test")}
    tables |= split_off_valid(tables["train"], seed=options["seed"])
    return write_task(task, output, tables, options)


def read_rows(path: Path) -> RawTable:
    """Read rows of ``sequence,label`` from a table, or from FASTA whose titles end in ``|label``.

    Raises:
        InputError: a column is missing, or a title has no label.
    """
    if detect_file(path) == "fasta":
        return _read_titled(path)
    return read_labelled(path)


def _read_titled(path: Path) -> RawTable:
    """Read FASTA with titles such as ``>chr1_100_400|1``."""
    sequences, labels, names = [], [], []
    for title, sequence in read_entries(path):
        name, mark, label = title.rpartition("|")
        if not mark or not label:
            raise InputError(f"{path}: the title '{title}' has no label; it should end in '|0', '|1', ...")
        sequences.append(sequence)
        labels.append(label)
        names.append(name)
    return make_rows(sequences, {"label": labels}, source=path, names=names)


def _read_split(task: BenchmarkTask, folder: Path, split: str, options: Mapping[str, Any]) -> RawTable:
    tables = sorted(
        path for path in [*folder.glob(f"{split}*"), *folder.glob(f"data/{split}*")] if path.suffix in TABLE_ENDINGS
    )
    if tables:
        return join_rows([read_rows(path) for path in tables], folder / split)
    classes: Sequence[str] = options["classes"]
    parts = []
    for number, name in enumerate(classes):
        part = _read_class(folder, split, name, options)
        if part is None:
            raise InputError(
                f"{folder}: task '{task.id}' lacks {split}/{name} (a folder of texts, or {name}.csv.gz); "
                f"published as {task.files[0].published}."
            )
        sequences, names = part
        parts.append(
            make_rows(sequences, {"label": [str(number)] * len(sequences)}, source=folder / split / name, names=names)
        )
    return join_rows(parts, folder / split)


def _read_class(folder: Path, split: str, name: str, options: Mapping[str, Any]) -> tuple[list[str], list[str]] | None:
    """Read the sequences of one class with their names, or None if there is no file of it."""
    texts = folder / split / name
    if texts.is_dir():
        files = sorted(texts.glob("*.txt"), key=lambda path: (len(path.stem), path.stem))
        return [path.read_text().strip() for path in files], [path.stem for path in files]
    for ending in (".csv.gz", ".csv"):
        path = folder / split / f"{name}{ending}"
        if path.is_file():
            return _cut_regions(path, _class_genome(folder, name, options))
    return None


def _class_genome(folder: Path, name: str, options: Mapping[str, Any]) -> Path:
    own = [folder / f"{name}{ending}" for ending in (".fa", ".fa.gz", ".fasta", ".fasta.gz")]
    given = [Path(options["fasta"])] if options["fasta"] else []
    for path in [*own, *given]:
        if path.is_file():
            return path
    raise InputError(
        f"{folder}: the sequences are given as coordinates, which need their genome: set fasta=GENOME.fa, "
        f"or put {name}.fa beside 'train'."
    )


def _cut_regions(path: Path, fasta: Path) -> tuple[list[str], list[str]]:
    """Cut the regions of ``id,region,start,end,strand`` (0-based, half-open) out of a genome."""
    from longstrand.genome.fasta import Genome
    from longstrand.genome.intervals import Interval

    frame = read_table(path)
    columns = [take_column(frame, name, path, "coordinate") for name in ("id", "region", "start", "end", "strand")]
    genome = Genome(fasta)
    sequences, names = [], []
    for number, (identifier, region, start, end, strand) in enumerate(zip(*columns), 1):
        try:
            place = Interval(region or "", int(start or ""), int(end or ""), strand or "+")
        except ValueError as error:
            raise InputError(f"{path}, row {number}: no interval ({error}).") from None
        if place.chrom not in genome.contigs and f"chr{place.chrom}" in genome.contigs:
            place = Interval(f"chr{place.chrom}", place.start, place.end, place.strand)
        sequences.append(genome.fetch_interval(place))
        names.append(identifier or str(number))
    return sequences, names


DEEPSTARR_TARGETS = ("Dev_log2_enrichment", "Hk_log2_enrichment")


def build_deepstarr(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build DeepSTARR from its FASTA files and activity tables, which belong together row by row.

    The published split is by chromosome; every sequence is there on both strands, as published.
    """
    paths = source_paths(task, sources, options)
    tables = {}
    for number, name in enumerate(("train", "valid", "test")):
        table = read_deepstarr(paths[2 * number], paths[2 * number + 1])
        if options["max_rows"]:
            table = choose_rows(table, options["max_rows"], seed=options["seed"])
        tables[name] = table
    return write_task(task, output, tables, options, sources=paths)


def read_deepstarr(fasta: Path, activity: Path) -> RawTable:
    """Join sequences and activities by their order.

    Raises:
        InputError: the two files have different numbers of rows, or a column is missing.
    """
    entries = list(read_entries(fasta))
    frame = read_table(activity)
    if frame.height != len(entries):
        raise InputError(
            f"{activity}: {frame.height:,} rows, but {fasta.name} has {len(entries):,} sequences; the two belong "
            "together row by row, so one of them is not the published file."
        )
    labels = {name: take_column(frame, name, activity, "activity") for name in DEEPSTARR_TARGETS}
    titles, sequences = zip(*entries)
    return make_rows(sequences, labels, source=fasta, names=titles)


def build_aparent(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build APARENT: the share of proximal polyadenylation from a sequence and its longer context.

    By default a tenth of the training rows is for validation. With ``published=yes`` the test rows are also the
    validation rows, as in the published script, so that the best checkpoint is chosen on the test.

    Raises:
        InputError: a column is missing, or a target is no share between 0 and 1.
    """
    train, test = source_paths(task, sources, options)
    tables = {"train": read_aparent(train), "test": read_aparent(test)}
    origin = ""
    if options["published"]:
        tables["valid"] = tables["test"]
        origin = "as published: the test rows are also the validation rows"
    else:
        tables |= split_off_valid(tables["train"], seed=options["seed"])
    return write_task(task, output, tables, options, sources=[train, test], origin=origin)


def read_aparent(path: Path) -> RawTable:
    """Read ``seq``, ``seq_ext`` and ``target`` of a published table."""
    frame = read_table(path)
    sequences, longer, targets = (take_column(frame, name, path, "APARENT") for name in ("seq", "seq_ext", "target"))
    for row, value in enumerate(targets, 1):
        if not _is_share(value):
            raise InputError(f"{path}, row {row}: the target '{value}' is no share between 0 and 1.")
    return make_rows(
        [text or "" for text in sequences], {"target": targets}, source=path, pairs=[text or "" for text in longer]
    )


def _is_share(value: str | None) -> bool:
    try:
        return value is not None and 0.0 <= float(value) <= 1.0
    except ValueError:
        return False
