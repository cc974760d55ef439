"""Split labelled rows into training, validation and test sets."""

from __future__ import annotations

from collections.abc import Sequence

from longstrand.data.labelled_files import RawTable
from longstrand.errors import InputError
from longstrand.genome.fasta import match_contigs
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
}
MAX_STRATA = 100


def split_by_column(table: RawTable, column: str) -> dict[str, RawTable]:
    """Split by the words of a column: train, valid (validation, val, dev), test.

    Raises:
        InputError: a row has another word, or no row is for training.
    """
    words = [NAMES.get((word or "").strip().lower(), "") for word in table.splits or []]
    if "" in words:
        row = table.rows[words.index("")]
        found = (table.splits or [])[words.index("")]
        raise InputError(f"{table.source}, row {row}: '{found}' in '{column}' is no split; write train, valid or test.")
    parts = {name: [index for index, word in enumerate(words) if word == name] for name in ("train", "valid", "test")}
    if not parts["train"]:
        raise InputError(f"{table.source}: no row of column '{column}' says train.")
    return {name: table.take(indices) for name, indices in parts.items() if indices}


def split_by_chrom(table: RawTable, valid_chroms: Sequence[str], test_chroms: Sequence[str]) -> dict[str, RawTable]:
    """Put the rows of some chromosomes into validation and test, all others into training.

    Raises:
        InputError: the rows have no chromosome, a chromosome is asked for twice or has no row, or no row is left.
    """
    if table.chroms is None:
        raise InputError(f"{table.source}: a split by chromosome needs a column 'chrom', which is not there.")
    both = sorted(set(valid_chroms) & set(test_chroms))
    if both:
        raise InputError(f"chromosome {both[0]} is asked for in validation and in test; choose one.")
    present = set(table.chroms)
    names = match_contigs([*valid_chroms, *test_chroms], present, table.source)
    valid_chroms, test_chroms = ([names.get(chrom, chrom) for chrom in asked] for asked in (valid_chroms, test_chroms))
    for chrom in [*valid_chroms, *test_chroms]:
        if chrom not in present:
            shown = ", ".join(sorted(present)[:12])
            raise InputError(f"{table.source}: no row lies on chromosome '{chrom}'; chromosomes are: {shown}.")
    where = {**dict.fromkeys(valid_chroms, "valid"), **dict.fromkeys(test_chroms, "test")}
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for index, chrom in enumerate(table.chroms):
        parts[where.get(chrom, "train")].append(index)
    if not parts["train"]:
        raise InputError(f"{table.source}: all chromosomes are in validation or test; none is left to train on.")
    return {name: table.take(indices) for name, indices in parts.items() if indices}


def split_at_random(table: RawTable, fractions: dict[str, float], *, seed: int) -> dict[str, RawTable]:
    """Split by a seed, stratified by label; identical sequences (also on the other strand) stay together.

    Args:
        table: n rows.
        fractions: share of the rows for each split other than ``train``, for example ``{"valid": 0.1, "test": 0.1}``.
        seed: same seed and rows, same split.

    Returns:
        The splits with a fraction above zero, and ``train`` with what is left; rows keep their order.

    Raises:
        InputError: there are too few rows for every split to get one.
    """
    units = _identical(table)
    strata = _strata(table, units)
    assigned: dict[str, list[int]] = {name: [] for name in ("train", *fractions)}
    for number, stratum in enumerate(sorted(strata)):
        members = strata[stratum]
        order = generator(seed, number, "split").permutation(len(members))
        position = 0.0
        bounds = []
        for name, fraction in fractions.items():
            bounds.append((name, round(position), round(position + fraction * len(members))))
            position += fraction * len(members)
        for name, start, end in [*bounds, ("train", round(position), len(members))]:
            for place in order[start:end]:
                assigned[name] += units[members[place]]
    empty = [name for name, indices in assigned.items() if not indices and (name == "train" or fractions[name] > 0)]
    if empty:
        raise InputError(
            f"{table.source}: {len(table)} rows ({len(units)} different sequences) are too few "
            f"to set some apart for {empty[0]}; give a file for it."
        )
    return {name: table.take(sorted(indices)) for name, indices in assigned.items() if indices}


def choose_rows(table: RawTable, num_rows: int, *, seed: int) -> RawTable:
    """Take at most ``num_rows`` rows at random, in their order."""
    if len(table) <= num_rows:
        return table
    chosen = generator(seed, 0, "subset").permutation(len(table))[:num_rows]
    return table.take(sorted(int(index) for index in chosen))


def _canonical(piece: tuple[str, str]) -> tuple[str, str]:
    return min(piece, (reverse_complement(piece[0]), reverse_complement(piece[1])))


def _identical(table: RawTable) -> list[list[int]]:
    """Group row indices by sequence, in order of first appearance."""
    groups: dict[tuple[str, str], list[int]] = {}
    rows = zip(table.sequences, table.pairs or [""] * len(table))
    for index, piece in enumerate(rows):
        groups.setdefault(_canonical(piece), []).append(index)
    return list(groups.values())


def _strata(table: RawTable, units: list[list[int]]) -> dict[str, list[int]]:
    """Group units by the label of their first row; all in one stratum if labels are too many to stratify."""
    columns = list(table.labels.values())
    keys = ["\t".join(str(values[unit[0]]) for values in columns) for unit in units]
    if len(set(keys)) > min(MAX_STRATA, max(1, len(units) // 5)):
        keys = [""] * len(units)
    strata: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        strata.setdefault(key, []).append(number)
    return strata
