"""Tasks with measured numbers a sequence: DeepSTARR enhancer activity and APARENT polyadenylation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longstrand.benchmarks.tasks.build import source_paths, split_off_valid, write_task
from longstrand.benchmarks.tasks.task import BenchmarkTask, TaskData
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.rows import read_entries, read_table, take_column
from longstrand.data.splits import choose_rows
from longstrand.errors import InputError

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
