"""Where windows lie on a genome, and which split each is in: whole contigs where there are enough, else blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.rows import read_intervals
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome, match_contigs
from longstrand.genome.intervals import Interval, IntervalTable
from longstrand.genome.regions import on_genome, windows_around
from longstrand.genome.sequence import reverse_complement

BLOCKS = ("train", "train", "valid", "train", "test", "train", "train", "test", "train", "train")
"""What ten neighbouring blocks are for: a tenth for validation, a fifth for the test."""
TILE_BINS = 16
"""Bins of a window where no intervals are given: about what a model of 512 tokens reads."""
MOST_UNKNOWN = 0.5
"""Tiles with a larger share of N are left out."""


def bin_windows(path: Path | None, genome: Genome, window: int, bin_bases: int) -> tuple[list[Interval], IntervalTable]:
    """Give the intervals of a file as windows of whole bins, or tiles of the genome.

    Without ``window`` an interval loses what is no whole bin, equally at both ends; those shorter than a bin are left
    out. Tiles do not overlap, and those of mostly N are left out.

    Returns:
        Windows, and the rows of the table that they are of.

    Raises:
        InputError: the file is wrong, an interval lies off the genome, or no window is left.
        UsageError: a window is no whole number of bins.
    """
    if window % bin_bases:
        raise UsageError(f"window={window} is no whole number of bins of {bin_bases} bases; take a multiple.")
    if path is None:
        tiles = list(_tiles(genome, window or TILE_BINS * bin_bases))
        return tiles, IntervalTable(tiles)
    table = read_intervals(path)
    if window:
        return windows_around(table, genome, window)
    table = on_genome(table, genome)
    rows = [row for row, item in enumerate(table.intervals) if item.length >= bin_bases]
    if not rows:
        raise InputError(f"{path}: no interval has a whole bin of {bin_bases} bases; set window=... or bin_bases=...")
    return [_whole_bins(table.intervals[row], bin_bases) for row in rows], table.take(rows)


def _whole_bins(item: Interval, bin_bases: int) -> Interval:
    start = item.start + item.length % bin_bases // 2
    return Interval(item.chrom, start, start + item.length // bin_bases * bin_bases, item.strand)


def _tiles(genome: Genome, window: int) -> Iterator[Interval]:
    found = False
    for chrom, length in genome.contigs.items():
        for start in range(0, length - window + 1, window):
            if genome.fetch(chrom, start, start + window).upper().count("N") <= MOST_UNKNOWN * window:
                found = True
                yield Interval(chrom, start, start + window)
    if not found:
        raise InputError(f"{genome.path}: no contig has room for a window of {window:,} bases; set window=...")


def split_windows(
    windows: Sequence[Interval],
    contigs: Mapping[str, int],
    *,
    valid_chroms: Sequence[str] = (),
    test_chroms: Sequence[str] = (),
) -> tuple[list[str], str]:
    """Say for each window which split it is in, and by which rule.

    Named chromosomes go where they are asked for; if they are named for one of validation and test alone, a chromosome
    for the other is chosen. Otherwise, if at least five contigs hold windows and none holds more
    than half of them, whole contigs are held out, the smallest first; else every contig is cut into blocks of a
    thirtieth (at least ten windows long), of each ten of which one is for validation and two for the test.

    Returns:
        One word a window: ``train``, ``valid``, ``test``, or empty for a window that lies across a border of blocks.
        And the rule as a sentence.

    Raises:
        InputError: a chromosome that is asked for holds no window, or none is left to choose.
    """
    counts: dict[str, int] = {}
    for window in windows:
        counts[window.chrom] = counts.get(window.chrom, 0) + 1
    names = match_contigs([*valid_chroms, *test_chroms], counts, "valid_chroms and test_chroms")
    valid_chroms, test_chroms = ([names.get(chrom, chrom) for chrom in asked] for asked in (valid_chroms, test_chroms))
    for chrom in [*valid_chroms, *test_chroms]:
        if chrom not in counts:
            raise InputError(
                f"no window lies on chromosome '{chrom}'; chromosomes are: {', '.join(list(counts)[:12])}."
            )
    if bool(valid_chroms) != bool(test_chroms):
        valid_chroms, test_chroms = _named_and_chosen(counts, valid_chroms, test_chroms)
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


def _named_and_chosen(
    counts: Mapping[str, int], valid: Sequence[str], test: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Choose the chromosome for the split that was not named: of a tenth of the windows, or a fifth of them.

    Validation stays empty where one chromosome is left, which training needs.
    """
    share = 0.2 if valid else 0.1
    rest = [name for name in sorted(counts) if name not in (*valid, *test)]
    if len(rest) < 2 and valid:
        raise InputError(f"no chromosome is left for test and training beside validation on {', '.join(valid)}.")
    if len(rest) < 2:
        return valid, test
    chosen = [min(rest, key=lambda name: abs(counts[name] - share * sum(counts.values())))]
    return (valid, chosen) if valid else (chosen, test)


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


def window_rows(
    windows: Sequence[Interval], genome: Genome, *, source: object, alphabet: str | None = "ACGTN"
) -> RawTable:
    """Read windows of a genome as rows without labels, with their places.

    Args:
        windows: n places.
        genome: what they lie on.
        source: the file that errors name.
        alphabet: as `make_rows`.
    """
    return make_rows(
        [genome.fetch_interval(window) for window in windows],
        {},
        source=source,
        alphabet=alphabet,
        names=[str(window) for window in windows],
        chroms=[window.chrom for window in windows],
        places=list(windows),
    )
