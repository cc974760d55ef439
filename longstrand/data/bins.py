"""Sequences as bins of equal size: ``[CLS] bin [SEP] bin [SEP] ...``, bins tokenized apart (GENA-LM's Enformer)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from longstrand.data.rows import is_missing
from longstrand.errors import InputError, UsageError
from longstrand.genome.text import parse_number
from longstrand.tokenization.base import Encoding

if TYPE_CHECKING:
    from longstrand.data.labelled_files import RawTable
    from longstrand.tokenization.base import Tokenizer

HELD_BYTES = 256 * 1024**2
"""Arrays of targets up to this size (as float32) are held in memory; larger ones stay on the disk."""


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


def encode_row(tokenizer: Tokenizer, first: str, second: str | None, bin_bases: int | None = None) -> Encoding:
    """Encode a sequence (with ``bin_bases`` bin by bin) or a pair, special tokens included."""
    if bin_bases is not None:
        return encode_bins(tokenizer, first, bin_bases)
    return tokenizer.encode(first) if second is None else tokenizer.encode_pair(first, second)


def cut(encoding: Encoding, tokenizer: Tokenizer, limit: int) -> Encoding:
    """Keep the tokens of a sequence from the left that fit beside the special ones."""
    before, room = len(tokenizer.template.prefix), max(0, limit - tokenizer.num_special_tokens())
    kept = slice(before, before + room)
    return tokenizer.wrap(encoding.input_ids[kept], encoding.offsets[kept], encoding.num_bases)


def bin_targets(table: RawTable, bin_bases: int) -> list[np.ndarray]:
    """Read one number for each bin: a column for each target, numbers joined by ``;`` in a cell.

    Args:
        table: n rows with their labels as text.
        bin_bases: bases of a bin.

    Returns:
        n arrays float32 (bins of the sequence, columns); empty or missing numbers are NaN.

    Raises:
        InputError: a sequence is no whole number of bins, a cell has another number of values, or one is no number.
    """
    targets = []
    for place, (text, row) in enumerate(zip(table.sequences, table.rows)):
        where = f"{table.source}, row {row}"
        number = count_bins(len(text), bin_bases, where=where)
        matrix = np.full((number, len(table.labels)), np.nan, dtype=np.float32)
        for column, (name, values) in enumerate(table.labels.items()):
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
    value = parse_number(text)
    if value is None:
        raise InputError(f"{where}: '{text}' in column '{column}' is no number.")
    return value


class BinTargets(Sequence[np.ndarray]):
    """Targets of many rows in a Zarr array (rows, most bins, columns): small ones are held, large ones read row by row.

    An item is float32 (bins of the row, columns), NaN where missing.

    Args:
        path: of the array.
        num_bins: bins of each row, as many as its sequence has; what lies past them is filler.
        rows: rows of the array, in the order of this sequence; default: all.
        context: so many bins at either end of a sequence have no target (NaN) and are not in the array; if negative, so
            many at either end of the array lie outside the sequence.

    Raises:
        InputError: the array is missing, or has another number of rows, or fewer bins than a row.
    """

    def __init__(
        self,
        path: Path,
        num_bins: Sequence[int] | np.ndarray,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        context: int = 0,
    ) -> None:
        self.path, self._num_bins, self._context = Path(path), np.asarray(num_bins, dtype=np.int64), context
        self._rows = np.arange(len(self._num_bins)) if rows is None else np.asarray(rows, dtype=np.int64)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: the targets of the bins are missing; build the task again.")
        import zarr

        self._array: Any = zarr.open_array(str(self.path), mode="r")
        shape, most = self._array.shape, self._num_bins.max(initial=0) - 2 * context
        if len(shape) != 3 or shape[0] != len(self._num_bins) or shape[1] < most:
            raise InputError(
                f"{self.path}: targets of shape {tuple(shape)} for {len(self._num_bins):,} rows of up to {most:,} bins;"
                " build the task again."
            )
        self._held: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> BinTargets: ...
    def __getitem__(self, index: Any) -> Any:
        """Read one row, or (a slice) give some of the rows without reading them."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = int(self._rows[index])
        if self._held is None and 4 * int(np.prod(self._array.shape)) <= HELD_BYTES:
            self._held = np.asarray(self._array[:], dtype=np.float32)
        values = np.asarray(self._array[row] if self._held is None else self._held[row], dtype=np.float32)
        number = self._num_bins[row]
        if self._context <= 0:
            return values[-self._context : number - self._context]
        edge = np.full((self._context, values.shape[1]), np.nan, dtype=np.float32)
        return np.concatenate([edge, values[: number - 2 * self._context], edge])

    def take(self, rows: Sequence[int] | np.ndarray) -> BinTargets:
        """Give some rows, in the order of ``rows``, without reading them."""
        chosen = self._rows[np.asarray(rows, dtype=np.int64)]
        taken = BinTargets(self.path, self._num_bins, chosen, context=self._context)
        taken._held = self._held
        return taken

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "num_bins": self._num_bins, "rows": self._rows, "context": self._context}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@dataclass(frozen=True)
class Moments:
    """What the targets of many bins are like, column by column; NaN where a column has no value.

    Attributes:
        count: int64 (columns,) of values that are there.
        mean: float64 (columns,).
        deviation: float64 (columns,), of the population.
        low: float64 (columns,) smallest value.
        high: float64 (columns,) largest value.
        num_bins: of all rows, missing values included.
    """

    count: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num_bins: int


def moments(targets: Iterable[np.ndarray]) -> Moments:
    """Compute mean, deviation and range of each column, row by row, so that memory does not grow with the rows.

    Means and squares of the rows are merged as by Chan, Golub and LeVeque (1983).

    Args:
        targets: arrays (bins, columns), NaN where missing; at least one.
    """
    total: list[np.ndarray] | None = None
    num_bins = 0
    for row in targets:
        values = np.asarray(row, dtype=np.float64)
        known = ~np.isnan(values)
        number, filled = known.sum(axis=0), np.where(known, values, 0.0)
        mean = filled.sum(axis=0) / np.maximum(number, 1)
        squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
        low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
        num_bins += len(values)
        if total is None:
            total = [number, mean, squares, low, high]
            continue
        both = total[0] + number
        shift = mean - total[1]
        share = number / np.maximum(both, 1)
        merged = total[2] + squares + shift**2 * total[0] * share
        total = [both, total[1] + shift * share, merged, np.minimum(total[3], low), np.maximum(total[4], high)]
    assert total is not None
    count = total[0].astype(np.int64)
    spread = np.sqrt(total[2] / np.maximum(count, 1))
    mean, spread, low, high = (np.where(count > 0, part, np.nan) for part in (total[1], spread, total[3], total[4]))
    return Moments(count, mean, spread, low, high, num_bins)
