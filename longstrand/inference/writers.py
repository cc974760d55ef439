"""Where predictions go: CSV, TSV or Parquet tables and chunked Zarr arrays, from blocks of rows.

A sink knows one file format: how to write the block of one part, and how to join parts in order without holding them in
memory. What is finished, resumed or shared among ranks is the business of `longstrand.inference.resumable`.
"""

from __future__ import annotations

import csv
import gzip
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from longstrand.errors import UsageError

CHUNK_BYTES = 1 << 20
WHOLE_NUMBERS = frozenset({"index", "start", "end", "position", "token_start", "token_end"})
"""Columns of integers, also where a part has only missing cells; all others are text."""


@dataclass(frozen=True)
class Block:
    """Some consecutive input rows, ready to be written.

    Attributes:
        rows: column name -> n values, one an input row (``index``, ``name``, ``chrom`` ...).
        values: (m, d) float32; NaN is missing.
        value_names: d column names.
        lengths: (n,) number of value rows of each input row, summing to m; None: one each (m = n).
        value_rows: column name -> m values, one a value row (``position``, ``prediction`` ...).
    """

    rows: dict[str, list[Any]]
    values: np.ndarray
    value_names: tuple[str, ...]
    lengths: np.ndarray | None = None
    value_rows: dict[str, Any] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of input rows."""
        return len(next(iter(self.rows.values())))

    def flat(self) -> Block:
        """Give the same block with one line a value row.

        The columns of an input row are repeated; an input row without value rows keeps one line of missing values, so
        that no row vanishes from a table.
        """
        if self.lengths is None:
            return self
        shown = np.maximum(self.lengths, 1)
        source = np.full(int(shown.sum()), -1, dtype=np.int64)
        real = np.repeat(self.lengths > 0, shown)
        source[real] = np.arange(len(self.values))
        values = np.full((len(source), len(self.value_names)), np.nan, dtype=np.float32)
        values[real] = self.values
        owner = np.repeat(np.arange(len(shown)), shown).tolist()
        rows = {name: [column[row] for row in owner] for name, column in self.rows.items()}
        value_rows = {
            name: [column[place] if place >= 0 else None for place in source.tolist()]
            for name, column in ((name, _as_list(column)) for name, column in self.value_rows.items())
        }
        return Block({**rows, **value_rows}, values, self.value_names)


class Sink(ABC):
    """One file format.

    Attributes:
        suffix: ending of the part files.
    """

    suffix: str

    @abstractmethod
    def write(self, block: Block, path: Path) -> None:
        """Write one part."""

    @abstractmethod
    def join(self, parts: Sequence[Path], target: Path) -> None:
        """Make the output of all parts, in their order; memory use does not grow with their number."""


class CsvSink(Sink):
    """A text table with a header; ``.gz`` compresses. Numbers have 7 significant digits; missing ones are empty."""

    def __init__(self, *, delimiter: str = ",", compressed: bool = False) -> None:
        self.delimiter = delimiter
        self.compressed = compressed
        self.suffix = (".tsv" if delimiter == "\t" else ".csv") + (".gz" if compressed else "")

    def write(self, block: Block, path: Path) -> None:
        """Write a part with its header."""
        flat = block.flat()
        columns = [*flat.rows.values(), *(_as_list(column) for column in flat.value_rows.values())]
        with self._open(path, "wt") as file:
            writer = csv.writer(file, delimiter=self.delimiter, lineterminator="\n")
            writer.writerow([*flat.rows, *flat.value_rows, *flat.value_names])
            for *cells, numbers in zip(*columns, flat.values.tolist()):
                texts = ["" if number != number else f"{number:.7g}" for number in numbers]
                writer.writerow(["" if cell is None else cell for cell in cells] + texts)

    def join(self, parts: Sequence[Path], target: Path) -> None:
        """Copy the parts one after the other, the header once."""
        with self._open(target, "wb") as out:
            for number, part in enumerate(parts):
                with self._open(part, "rb") as file:
                    header = file.readline()
                    if number == 0:
                        out.write(header)
                    shutil.copyfileobj(file, out, CHUNK_BYTES)

    @contextmanager
    def _open(self, path: Path, mode: str) -> Iterator[IO[Any]]:
        text: Any = {"encoding": "utf-8", "newline": ""} if "t" in mode else {}
        file: Any = gzip.open(path, mode, 6, **text) if self.compressed else open(path, mode, **text)  # noqa: SIM115
        with file:
            yield file


class ParquetSink(Sink):
    """A Parquet table, one float32 column a number; missing numbers are null."""

    suffix = ".parquet"

    def write(self, block: Block, path: Path) -> None:
        """Write a part."""
        import polars as pl

        flat = block.flat()
        numbers = {
            name: pl.Series(name, flat.values[:, place], dtype=pl.Float32).fill_nan(None)
            for place, name in enumerate(flat.value_names)
        }
        labels = {name: _series(name, column) for name, column in {**flat.rows, **flat.value_rows}.items()}
        pl.DataFrame({**labels, **numbers}).write_parquet(path)

    def join(self, parts: Sequence[Path], target: Path) -> None:
        """Stream the parts into one file, in their order."""
        import polars as pl

        if len(parts) == 1:
            shutil.copyfile(parts[0], target)
        else:
            pl.scan_parquet(list(parts), glob=False).sink_parquet(target, maintain_order=True)


class ZarrSink(Sink):
    """A Zarr group: ``values`` (m, d) float32 in chunks, the columns of the rows, and where each row lies.

    ``offsets`` (n + 1,) int64: value rows ``offsets[i]`` to ``offsets[i + 1] - 1`` belong to input row ``i`` (written
    only if rows have several). Columns of input rows and of value rows are arrays of their own.
    """

    suffix = ".npz"

    def write(self, block: Block, path: Path) -> None:
        """Write a part as plain arrays."""
        arrays = {"values": np.ascontiguousarray(block.values, dtype=np.float32)}
        if block.lengths is not None:
            arrays["lengths"] = np.asarray(block.lengths, dtype=np.int64)
        arrays["value_names"] = np.array(block.value_names, dtype=np.str_)
        arrays |= {f"row/{name}": _plain_array(name, column) for name, column in block.rows.items()}
        arrays |= {f"value/{name}": _plain_array(name, column) for name, column in block.value_rows.items()}
        with open(path, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def join(self, parts: Sequence[Path], target: Path) -> None:
        """Append the parts to chunked arrays, whole chunks at a time."""
        import zarr

        with np.load(parts[0]) as first:
            names = [name for name in first.files if name.startswith(("row/", "value/"))]
            ragged = "lengths" in first.files
            value_names = first["value_names"].tolist()
        group = zarr.open_group(str(target), mode="w")
        group.attrs["format"] = "longstrand-arrays"
        group.attrs["version"] = 1
        group.attrs["value_names"] = value_names
        for name in ["values", *names]:
            _append(group, name.split("/")[-1], lambda name=name: _load_each(parts, name))
        if ragged:
            lengths = list(_load_each(parts, "lengths"))
            offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
            group.create_array("offsets", data=offsets, chunks=(max(1, min(len(offsets), CHUNK_BYTES // 8)),))


def sink_for(output: Path) -> Sink:
    """Choose the format by the ending of the output.

    Raises:
        UsageError: the ending is unknown.
    """
    name = Path(output).name.lower()
    for ending, sink in (
        (".csv", CsvSink()),
        (".tsv", CsvSink(delimiter="\t")),
        (".csv.gz", CsvSink(compressed=True)),
        (".tsv.gz", CsvSink(delimiter="\t", compressed=True)),
        (".parquet", ParquetSink()),
        (".zarr", ZarrSink()),
    ):
        if name.endswith(ending):
            return sink
    raise UsageError(
        f"output '{output}': unknown format; end the name with .csv, .tsv, .csv.gz, .tsv.gz, .parquet or .zarr."
    )


def _as_list(column: Any) -> list[Any]:
    return column.tolist() if hasattr(column, "tolist") else list(column)


def _series(name: str, column: Any) -> Any:
    import polars as pl

    return pl.Series(name, _as_list(column), dtype=pl.Int64 if name in WHOLE_NUMBERS else pl.String)


def _plain_array(name: str, column: Any) -> np.ndarray:
    if name in WHOLE_NUMBERS:
        return np.asarray(column, dtype=np.int64)
    return np.array(["" if value is None else str(value) for value in column], dtype=np.str_)


def _load_each(parts: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    for part in parts:
        with np.load(part) as file:
            yield file[name]


def _append(group: Any, name: str, arrays: Any) -> None:
    """Write arrays one below the other into a new Zarr array, buffering to whole chunks."""
    total = sum(len(array) for array in arrays())
    shape_of_one, dtype = next((array.shape[1:], array.dtype) for array in arrays())
    is_text = dtype.kind == "U"
    width = int(np.prod(shape_of_one, dtype=np.int64)) * (32 if is_text else dtype.itemsize)
    chunk = max(1, min(max(total, 1), CHUNK_BYTES // max(1, width)))
    target = group.create_array(
        name, shape=(total, *shape_of_one), chunks=(chunk, *shape_of_one), dtype="str" if is_text else dtype
    )
    append_chunks(target, arrays(), chunk)


def append_chunks(target: Any, arrays: Iterable[np.ndarray], chunk: int) -> None:
    """Write arrays one below the other into a chunked array from its first row on, whole chunks at a time."""
    start = 0
    for piece in _whole_chunks(arrays, chunk):
        target[start : start + len(piece)] = piece
        start += len(piece)


def _whole_chunks(arrays: Iterable[np.ndarray], chunk: int) -> Iterator[np.ndarray]:
    waiting: list[np.ndarray] = []
    num_waiting = 0
    for array in arrays:
        waiting.append(array)
        num_waiting += len(array)
        if num_waiting >= chunk:
            joined = np.concatenate(waiting)
            whole = len(joined) // chunk * chunk
            yield joined[:whole]
            waiting, num_waiting = [joined[whole:].copy()], len(joined) - whole
    if num_waiting:
        yield np.concatenate(waiting)
