"""Where predictions go: tables and arrays of rows, and tracks along whole contigs.

Rows: CSV, TSV, Parquet or chunked Zarr arrays, from blocks of rows. A `Sink` knows one format: how to write the block
of one part, and how to join parts in order without holding them in memory. What is finished, resumed or shared among
ranks is the business of `longstrand.inference.resumable`.

Tracks: bedGraph, BigWig or chunked Zarr arrays, from numbers per bin that come in order. A track has one number for
each bin of ``bin_size`` bases (the last one of a contig may be shorter) and column; NaN is missing and has no line in
bedGraph and BigWig, which hold one column. Nothing here grows with the length of a contig.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import shutil
import struct
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from longstrand.errors import InputError, UsageError
from longstrand.inference.resumable import remove

CHUNK_BYTES = 1 << 20
Bins = tuple[str, int, np.ndarray]
"""Consecutive bins of a contig: its name, the number of the first, and float32 (bins, columns)."""
WHOLE_NUMBERS = frozenset({"index", "start", "end", "pos", "position", "token_start", "token_end"})
"""Columns of integers, also where a part has only missing cells; all others are text."""


@dataclass(frozen=True)
class ColumnChunk:
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

    def flat(self) -> ColumnChunk:
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
        return ColumnChunk({**rows, **value_rows}, values, self.value_names)


class Sink(ABC):
    """One file format.

    Attributes:
        suffix: ending of the part files.
    """

    suffix: str

    @abstractmethod
    def write(self, block: ColumnChunk, path: Path) -> None:
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

    def write(self, block: ColumnChunk, path: Path) -> None:
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

    def write(self, block: ColumnChunk, path: Path) -> None:
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

    def write(self, block: ColumnChunk, path: Path) -> None:
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
    if len(column) and all(isinstance(value, float) for value in column):
        return np.asarray(column, dtype=np.float64)
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


@dataclass(frozen=True)
class TrackLayout:
    """What a track holds.

    Attributes:
        contigs: number of bases of each contig, in order.
        bin_size: bases of a bin.
        names: names of the columns.
        attributes: plain values that a Zarr group keeps.
    """

    contigs: dict[str, int]
    bin_size: int
    names: tuple[str, ...]
    attributes: dict[str, Any]

    def num_bins(self, contig: str) -> int:
        """Count the bins of a contig."""
        return -(-self.contigs[contig] // self.bin_size)


class TrackFile(ABC):
    """One format of tracks.

    Attributes:
        columns_at_most: how many columns a file holds; None: any number.
        ending: what the name of a file must end in for its writer.
    """

    columns_at_most: int | None = 1
    ending = ""

    def write(self, chunks: Iterable[Bins], layout: TrackLayout, target: Path) -> None:
        """Write all bins, which come contig by contig and in order; the target appears when it is complete.

        Raises:
            InputError: a value is infinite, bins are out of order, or the file does not hold what was written.
        """
        temporary = target.with_name(f".tmp-track-{target.name}{self.ending}")
        remove(temporary)
        try:
            self._write(checked(chunks, layout), layout, temporary)
            if target.is_dir():
                remove(target)
            os.replace(temporary, target)
        finally:
            remove(temporary)

    @abstractmethod
    def _write(self, chunks: Iterator[Bins], layout: TrackLayout, target: Path) -> None: ...


def checked(chunks: Iterable[Bins], layout: TrackLayout) -> Iterator[Bins]:
    """Pass bins on, if they are finite (NaN is missing), in order and inside their contigs; bins may be left out.

    Raises:
        InputError: naming contig and base.
    """
    due = dict.fromkeys(layout.contigs, 0)
    current = None
    for contig, first, values in chunks:
        end = first + len(values)
        again = contig != current and due.get(contig, 0) > 0
        current = contig
        if again or first < due.get(contig, first + 1) or end > layout.num_bins(contig):
            raise InputError(f"{contig}: bins from {first:,} on are out of order or beyond the end of the contig.")
        due[contig] = end
        infinite = np.flatnonzero(np.isinf(values).any(axis=1))
        if len(infinite):
            base = (first + int(infinite[0])) * layout.bin_size
            raise InputError(f"{contig}, base {base + 1:,}: the value is infinite; it is not written.")
        if len(values):
            yield contig, first, values


def spans(chunks: Iterable[Bins], layout: TrackLayout) -> Iterator[tuple[str, int, int, float]]:
    """Give (contig, start, end, value) of one column, 0-based half-open; equal neighbours joined, missing left out."""
    waiting: tuple[str, int, int, float] | None = None
    for contig, number, values in chunks:
        column = values[:, 0]
        same = (column[1:] == column[:-1]) | (np.isnan(column[1:]) & np.isnan(column[:-1]))
        begins = np.flatnonzero(np.concatenate(([True], ~same)))
        ends = np.append(begins[1:], len(column))
        size, length = layout.bin_size, layout.contigs[contig]
        for begin, end, value in zip(begins.tolist(), ends.tolist(), column[begins].tolist()):
            start, stop = (number + begin) * size, min((number + end) * size, length)
            if waiting and waiting[0] == contig and waiting[2] == start and waiting[3] == value:
                waiting = (contig, waiting[1], stop, value)
                continue
            if waiting:
                yield waiting
            waiting = (contig, start, stop, value) if value == value else None
    if waiting:
        yield waiting


class BedGraph(TrackFile):
    """Text, one line a run of equal values: contig, start, end, value (7 digits); ``.gz`` compresses."""

    def __init__(self, *, compressed: bool = False) -> None:
        self.compressed = compressed

    def _write(self, chunks: Iterator[Bins], layout: TrackLayout, target: Path) -> None:
        opened = gzip.open(target, "wt", 6) if self.compressed else open(target, "w", encoding="ascii")  # noqa: SIM115
        with opened as file:
            for contig, start, end, value in spans(chunks, layout):
                file.write(f"{contig}\t{start}\t{end}\t{value:.7g}\n")


class BigWig(TrackFile):
    """The binary form of bedGraph that genome browsers read at any zoom; needs the package pybigtools."""

    ending = ".bw"

    def __init__(self) -> None:
        try:
            import pybigtools  # noqa: F401
        except ImportError:
            raise UsageError(
                "BigWig needs the package pybigtools: pip install 'longstrand[tracks]'; or write a .bedgraph."
            ) from None

    def _write(self, chunks: Iterator[Bins], layout: TrackLayout, target: Path) -> None:
        """Write spans as they come, and compare what the file says about them with what was sent.

        The writer swallows an error of the spans that it reads; it is kept and raised here.
        """
        import pybigtools

        failed: list[BaseException] = []
        sent = [0, 0.0]

        def lines() -> Iterator[tuple[str, int, int, float]]:
            try:
                for contig, start, end, value in spans(chunks, layout):
                    sent[0] += end - start
                    sent[1] += (end - start) * value
                    yield contig, start, end, value
            except BaseException as error:
                failed.append(error)

        found = lines()
        first, said = next(found, None), ""
        if first is not None:
            with _captured_output() as output:
                pybigtools.open(str(target), "w").write(layout.contigs, chain([first], found))
            said = output[0]
        if failed:
            raise failed[0]
        if first is None:
            raise InputError("there is no value to write, and a BigWig cannot be empty; write a .bedgraph or .zarr.")
        try:
            list_contigs(target, layout.contigs)
            summary = pybigtools.open(str(target)).info()["summary"]
        except (OSError, ValueError, KeyError, struct.error, pybigtools.BBIReadError) as error:
            raise InputError(
                f"the BigWig that was written cannot be read ({said or error}); is the disk full?"
            ) from None
        if summary["basesCovered"] != sent[0] or not np.isclose(summary["sum"], sent[1], rtol=1e-6, atol=1e-6):
            raise InputError(
                f"the BigWig that was written holds {summary['basesCovered']:,} bases of {sent[0]:,}; is the disk full?"
            )


def list_contigs(path: Path, contigs: Mapping[str, int]) -> None:
    """Make a BigWig name all contigs of a genome; pybigtools names those with a value, and at most 65,535.

    A new tree of names takes the place of the end mark, and the header points to it: one leaf, or a root above leaves
    of equal size (a node counts its items in 16 bits). Format: Kent et al. 2010, doi:10.1093/bioinformatics/btq351.

    Args:
        path: complete file, little-endian, whose tree is one leaf.
        contigs: names and lengths; all that the file names.

    Raises:
        OSError: the file cannot be read or written.
        ValueError: it is no such file.
    """
    with open(path, "r+b") as file:
        start = struct.unpack("<8xQ", file.read(16))[0]
        file.seek(start)
        width, number = struct.unpack("<8xI4xQ12x", file.read(36))  # the count in the leaf itself has 16 bits
        kind = np.dtype([("name", f"S{width}"), ("number", "<u4"), ("length", "<u4")])
        old = np.frombuffer(file.read(number * kind.itemsize), kind)
        numbers = {name.decode(): place for name, place, _ in old.tolist()}
        for name in contigs:
            numbers.setdefault(name, len(numbers))
        names = sorted(name.encode() for name in contigs)
        width, size = max(map(len, names)), max(256, math.ceil(len(names) ** 0.5))
        leaves = [
            struct.pack("<BxH", 1, len(some))
            + b"".join(struct.pack(f"<{width}sII", n, numbers[n.decode()], contigs[n.decode()]) for n in some)
            for some in (names[first : first + size] for first in range(0, len(names), size))
        ]
        end = file.seek(-4, os.SEEK_END)
        mark = file.read(4)
        tree = struct.pack("<IIIIQQ", 0x78CA8C91, size, width, 8, len(names), 0)
        if len(leaves) > 1:
            first = end + len(tree) + 4 + len(leaves) * (width + 8)
            places = (first + place * len(leaves[0]) for place in range(len(leaves)))
            tree += struct.pack("<BxH", 0, len(leaves))
            tree += b"".join(struct.pack(f"<{width}sQ", *item) for item in zip(names[::size], places))
        file.seek(end)
        file.write(tree + b"".join(leaves) + mark)
        file.seek(8)
        file.write(struct.pack("<Q", end))


@contextmanager
def _captured_output() -> Iterator[list[str]]:
    """Keep what a library prints to the standard output; it is the one item of the list after the block."""
    sys.stdout.flush()
    kept, said = os.dup(1), [""]
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield said
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            said[0] = " ".join(file.read().decode(errors="replace").split())


class ZarrTrack(TrackFile):
    """A Zarr group with one array (bins, columns) float32 a contig, chunked along the contig."""

    columns_at_most = None

    def _write(self, chunks: Iterator[Bins], layout: TrackLayout, target: Path) -> None:
        """Write the bins where they belong; what is left out is NaN."""
        import zarr

        group = zarr.open_group(str(target), mode="w")
        facts: dict[str, Any] = {"format": "longstrand-track", "version": 1, "bin_size": layout.bin_size}
        facts |= {"columns": list(layout.names), "contigs": layout.contigs, **layout.attributes}
        group.attrs.update(facts)
        width = len(layout.names)
        chunk = max(1, CHUNK_BYTES // (4 * width))
        arrays = {}
        for contig in layout.contigs:
            bins = layout.num_bins(contig)
            arrays[contig] = group.create_array(
                contig, shape=(bins, width), chunks=(min(chunk, bins), width), dtype="f4", fill_value=float("nan")
            )
        for contig, first, values in chunks:
            arrays[contig][first : first + len(values)] = values


TRACK_FILES: dict[str, Any] = {
    ".bedgraph": BedGraph,
    ".bdg": BedGraph,
    ".bedgraph.gz": lambda: BedGraph(compressed=True),
    ".bw": BigWig,
    ".bigwig": BigWig,
    ".zarr": ZarrTrack,
}


def track_ending(output: Path) -> str | None:
    """Give the ending of a name that is a track's, in small letters, or None."""
    name = Path(output).name.lower()
    return next((ending for ending in TRACK_FILES if name.endswith(ending)), None)


def track_file(output: Path) -> TrackFile:
    """Choose the format by the ending of the output.

    Raises:
        UsageError: the ending is unknown, or a package is missing.
    """
    ending = track_ending(output)
    if ending is None:
        raise UsageError(f"output '{output}': no track format; end the name with {', '.join(TRACK_FILES)}.")
    chosen: TrackFile = TRACK_FILES[ending]()
    return chosen
