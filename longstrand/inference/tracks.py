"""Tracks along whole contigs: bedGraph, BigWig and chunked Zarr arrays, from numbers per bin that come in order.

A track has one number for each bin of ``bin_size`` bases (the last one of a contig may be shorter) and column; NaN is
missing and has no line in bedGraph and BigWig, which hold one column. Nothing here grows with the length of a contig.
"""

from __future__ import annotations

import gzip
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.errors import InputError, UsageError
from longstrand.inference.resumable import remove
from longstrand.inference.writers import append_chunks

ZARR_CHUNK_BYTES = 1 << 20
Bins = tuple[str, int, np.ndarray]
"""Consecutive bins of a contig: its name, the number of the first, and float32 (bins, columns)."""


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
    """Pass bins on, if they are finite (NaN is missing), in order and inside their contigs.

    Raises:
        InputError: naming contig and base.
    """
    due = dict.fromkeys(layout.contigs, 0)
    for contig, first, values in chunks:
        end = first + len(values)
        if due.get(contig) != first or end > layout.num_bins(contig):
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
        first = next(found, None)
        if first is not None:
            pybigtools.open(str(target), "w").write(layout.contigs, chain([first], found))
        if failed:
            raise failed[0]
        if first is None:
            raise InputError("there is no value to write, and a BigWig cannot be empty; write a .bedgraph or .zarr.")
        try:
            summary = pybigtools.open(str(target)).info()["summary"]
        except (OSError, ValueError, KeyError, pybigtools.BBIReadError) as error:
            raise InputError(f"the BigWig that was written cannot be read ({error}); is the disk full?") from None
        if summary["basesCovered"] != sent[0] or not np.isclose(summary["sum"], sent[1], rtol=1e-6, atol=1e-6):
            raise InputError(
                f"the BigWig that was written holds {summary['basesCovered']:,} bases of {sent[0]:,}; is the disk full?"
            )


class ZarrTrack(TrackFile):
    """A Zarr group with one array (bins, columns) float32 a contig, chunked along the contig."""

    columns_at_most = None

    def _write(self, chunks: Iterator[Bins], layout: TrackLayout, target: Path) -> None:
        """Write whole chunks as they fill."""
        import zarr

        group = zarr.open_group(str(target), mode="w")
        group.attrs.update(
            {"format": "longstrand-track", "version": 1, "bin_size": layout.bin_size, "columns": list(layout.names)}
            | {"contigs": layout.contigs}
            | layout.attributes
        )
        width = len(layout.names)
        chunk = max(1, ZARR_CHUNK_BYTES // (4 * width))
        arrays = {}
        for contig in layout.contigs:
            bins = layout.num_bins(contig)
            arrays[contig] = group.create_array(
                contig, shape=(bins, width), chunks=(min(chunk, bins), width), dtype="f4", fill_value=float("nan")
            )
        for contig, found in groupby(chunks, key=lambda item: item[0]):
            append_chunks(arrays[contig], (values for _, _, values in found), chunk)


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
