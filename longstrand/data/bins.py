"""Sequences as bins of equal size: ``[CLS] bin [SEP] bin [SEP] ...``, bins tokenized apart (GENA-LM's Enformer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from longstrand.data.tables import is_missing
from longstrand.errors import InputError, UsageError
from longstrand.tokenization.base import Encoding

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer


def count_bins(num_bases: int, bin_bases: int, *, where: str) -> int:
    """Give the number of bins of a sequence.

    Raises:
        InputError: it is not a whole number; a shorter last bin would lie elsewhere on the other strand.
    """
    if num_bases % bin_bases:
        raise InputError(
            f"{where}: the sequence of {num_bases:,} bases is no whole number of bins of {bin_bases} bases; cut it to "
            f"{num_bases // bin_bases * bin_bases:,} bases."
        )
    return num_bases // bin_bases


def encode_bins(tokenizer: Tokenizer, text: str, bin_bases: int) -> Encoding:
    """Tokenize a sequence bin by bin.

    Args:
        tokenizer: its special tokens at the end of a sequence end each bin.
        text: bases.
        bin_bases: bases of a bin; the last one may be shorter.

    Returns:
        The ids with special tokens; offsets are those of the whole sequence.

    Raises:
        UsageError: the tokenizer ends a sequence with no special token, so that there is nowhere to read a bin.
    """
    before, after = (np.array(ids, dtype=np.int32) for ids in (tokenizer.template.prefix, tokenizer.template.suffix))
    if not len(after):
        raise UsageError("the tokenizer has no special token at the end of a sequence ([SEP]), which bins need.")
    ids, offsets = [before], [np.zeros((len(before), 2), dtype=np.int32)]
    special = [np.ones(len(before), dtype=np.bool_)]
    for start in range(0, len(text), bin_bases):
        own, places = tokenizer.encode_ids(text[start : start + bin_bases])
        ids += [own, after]
        offsets += [places + np.int32(start), np.zeros((len(after), 2), dtype=np.int32)]
        special += [np.zeros(len(own), dtype=np.bool_), np.ones(len(after), dtype=np.bool_)]
    return Encoding(np.concatenate(ids), np.concatenate(offsets), len(text), np.concatenate(special))


def bin_targets(
    labels: dict[str, list[str | None]],
    sequences: Sequence[str],
    bin_bases: int,
    *,
    source: str,
    rows: Sequence[int],
) -> list[np.ndarray]:
    """Read one number for each bin: a column for each target, numbers joined by ``;`` in a cell.

    Args:
        labels: text labels by column.
        sequences: n sequences.
        bin_bases: bases of a bin.
        source: the file, for errors.
        rows: n row numbers, for errors.

    Returns:
        n arrays float32 (bins of the sequence, columns); empty or missing numbers are NaN.

    Raises:
        InputError: a sequence is no whole number of bins, a cell has another number of values, or one is no number.
    """
    targets = []
    for place, (text, row) in enumerate(zip(sequences, rows)):
        where = f"{source}, row {row}"
        number = count_bins(len(text), bin_bases, where=where)
        matrix = np.full((number, len(labels)), np.nan, dtype=np.float32)
        for column, (name, values) in enumerate(labels.items()):
            cell = values[place]
            if cell is None or is_missing(cell):
                continue
            parts = cell.split(";")
            if len(parts) != number:
                raise InputError(f"{where}: column '{name}' has {len(parts)} values for {number} bins of {bin_bases}.")
            matrix[:, column] = [_number(part, where, name) for part in parts]
        targets.append(matrix)
    return targets


def _number(text: str, where: str, column: str) -> float:
    if is_missing(text):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: '{text}' in column '{column}' is no number.") from None
