"""Splits of windows on a genome: whole contigs where there are enough, else blocks with nothing across borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.errors import InputError
from longstrand.genome.annotation import Transcript, read_annotation, transcripts
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement

BLOCKS = ("train", "train", "valid", "train", "test", "train", "train", "test", "train", "train")
"""What ten neighbouring blocks are for: a tenth for validation, a fifth for the test."""


def open_annotated(annotation: Path, fasta: Path) -> tuple[Genome, list[Transcript]]:
    """Open a genome and read the transcripts of its annotation (GTF or GFF3).

    Raises:
        InputError: the files do not fit together.
    """
    genome, found = Genome(fasta), transcripts(read_annotation(annotation))
    genome.check_chroms({item.chrom for item in found}, where=str(annotation))
    return genome, found


def split_rows(
    windows: Sequence[Interval],
    sequences: Sequence[str],
    labels: Sequence[str],
    contigs: Mapping[str, int],
    options: Mapping[str, Any],
    *,
    source: Path,
    names: Sequence[str] | None = None,
) -> tuple[dict[str, RawTable], str]:
    """Put windows with a label each into splits, as `split_windows` and `take_splits` say.

    Args:
        windows: n places.
        sequences: n texts.
        labels: n labels.
        contigs: lengths of the contigs.
        options: ``valid_chroms`` and ``test_chroms``.
        source: where the rows come from.
        names: n names; None: the places.

    Returns:
        ``train``, ``valid`` and ``test``, and the split rule as a sentence.
    """
    words, rule = split_windows(
        windows, contigs, valid_chroms=options["valid_chroms"], test_chroms=options["test_chroms"]
    )
    rows = make_rows(
        sequences,
        {"label": labels},
        source=source,
        names=names or list(map(str, windows)),
        chroms=[window.chrom for window in windows],
    )
    tables, copies = take_splits(rows, words)
    return tables, rule + copies


def split_windows(
    windows: Sequence[Interval],
    contigs: Mapping[str, int],
    *,
    valid_chroms: Sequence[str] = (),
    test_chroms: Sequence[str] = (),
) -> tuple[list[str], str]:
    """Say for each window which split it is in, and by which rule.

    Named chromosomes go where they are asked for. Otherwise, if at least five contigs hold windows and none holds more
    than half of them, whole contigs are held out, the smallest first; else every contig is cut into blocks of a
    thirtieth (at least ten windows long), of each ten of which one is for validation and two for the test.

    Returns:
        One word a window: ``train``, ``valid``, ``test``, or empty for a window that lies across a border of blocks.
        And the rule as a sentence.

    Raises:
        InputError: a chromosome that is asked for holds no window.
    """
    counts: dict[str, int] = {}
    for window in windows:
        counts[window.chrom] = counts.get(window.chrom, 0) + 1
    for chrom in [*valid_chroms, *test_chroms]:
        if chrom not in counts:
            raise InputError(
                f"no window lies on chromosome '{chrom}'; chromosomes are: {', '.join(list(counts)[:12])}."
            )
    if not test_chroms and len(counts) >= 5 and max(counts.values()) <= len(windows) / 2:
        valid_chroms, test_chroms = choose_contigs(counts)
    if test_chroms:
        where = {**dict.fromkeys(valid_chroms, "valid"), **dict.fromkeys(test_chroms, "test")}
        words = [where.get(window.chrom, "train") for window in windows]
        shown = [
            ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "") for names in (valid_chroms, test_chroms)
        ]
        return words, f"whole contigs (validation {shown[0]}; test {shown[1]})"
    words = [_block_word(window, contigs[window.chrom]) for window in windows]
    return words, (
        "blocks of each contig, a thirtieth of it: of every ten, one for validation and two for the test; windows "
        "across a border are left out"
    )


def take_splits(rows: RawTable, words: Sequence[str]) -> tuple[dict[str, RawTable], str]:
    """Take the rows of each split, without copies: a sequence (on either strand) is in one split only.

    The test keeps its rows, then validation; genomes hold repeats and recent copies of genes.

    Returns:
        ``train``, ``valid`` and ``test``, and what was left out as an ending of the split rule.
    """
    seen: set[str] = set()
    tables, num_left_out = {}, 0
    for name in ("test", "valid", "train"):
        chosen = [row for row, word in enumerate(words) if word == name]
        keys = {row: min(rows.sequences[row], reverse_complement(rows.sequences[row])) for row in chosen}
        kept = [row for row in chosen if keys[row] not in seen]
        num_left_out += len(chosen) - len(kept)
        seen |= set(keys.values())
        tables[name] = rows.take(kept)
    note = f"; {num_left_out:,} row(s) left out whose sequence stands in a later split" if num_left_out else ""
    return {name: tables[name] for name in ("train", "valid", "test")}, note


def choose_contigs(counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Choose contigs for validation (about a tenth of the windows) and test (a fifth), the smallest first.

    Example:
        >>> choose_contigs({"a": 50, "b": 10, "c": 20, "d": 15, "e": 5})
        (['b'], ['e', 'd'])
    """
    total = sum(counts.values())
    valid: list[str] = []
    test: list[str] = []
    held = {"valid": 0, "test": 0}
    for count, name in sorted((count, name) for name, count in counts.items()):
        if held["test"] + held["valid"] + count > 0.35 * total and valid and test:
            break
        if held["test"] <= 2 * held["valid"]:
            test.append(name)
            held["test"] += count
        else:
            valid.append(name)
            held["valid"] += count
    return valid, test


def _block_word(window: Interval, length: int) -> str:
    size = max(length // 30, 10 * window.length, 1)
    first, last = window.start // size, (window.end - 1) // size
    return BLOCKS[first % len(BLOCKS)] if first == last else ""
