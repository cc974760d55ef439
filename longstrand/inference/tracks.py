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
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from longstrand.errors import InputError, UsageError

ZARR_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TrackLayout:
    """What a track holds.

    Attributes:
        contigs: number of bases of each contig, in order.
        bin_size: bases of a bin.
        names: names of the columns.
        about: plain values that a Zarr group keeps as attributes.
    """

    contigs: dict[str, int]
    bin_size: int
    names: tuple[str, ...]
    about: dict[str, Any]

    def num_bins(self, contig: str) -> int:
        """Count the bins of a contig."""
        return -(-self.contigs[contig] // self.bin_size)


@dataclass(frozen=True)
class Stripe:
    """Consecutive bins of a contig: the first one's number, and float32 (bins, columns)."""

    contig: str
    first: int
    values: np.ndarray


class TrackFile(ABC):
    """One format of tracks."""

    columns_at_most: int | None = 1

    @abstractmethod
    def write(self, stripes: Iterable[Stripe], layout: TrackLayout, target: Path) -> None:
        """Write all stripes, which come contig by contig and in order."""


def spans(stripes: Iterable[Stripe], layout: TrackLayout) -> Iterator[tuple[str, int, int, float]]:
    """Give (contig, start, end, value) of one column, 0-based half-open; equal neighbours joined, missing left out."""
    waiting: tuple[str, int, int, float] | None = None
    for stripe in stripes:
        column = stripe.values[:, 0]
        same = (column[1:] == column[:-1]) | (np.isnan(column[1:]) & np.isnan(column[:-1]))
        begins = np.flatnonzero(np.concatenate(([True], ~same)))
        ends = np.append(begins[1:], len(column))
        size, length = layout.bin_size, layout.contigs[stripe.contig]
        for begin, end, value in zip(begins.tolist(), ends.tolist(), column[begins].tolist()):
            start, stop = (stripe.first + begin) * size, min((stripe.first + end) * size, length)
            if waiting and waiting[0] == stripe.contig and waiting[2] == start and waiting[3] == value:
                waiting = (stripe.contig, waiting[1], stop, value)
                continue
            if waiting:
                yield waiting
            waiting = (stripe.contig, start, stop, value) if value == value else None
    if waiting:
        yield waiting


class BedGraph(TrackFile):
    """Text, one line a run of equal values: contig, start, end, value (7 digits); ``.gz`` compresses."""

    def __init__(self, *, compressed: bool = False) -> None:
        self.compressed = compressed

    def write(self, stripes: Iterable[Stripe], layout: TrackLayout, target: Path) -> None:
        """Write lines as they come."""
        with self._open(target) as file:
            for contig, start, end, value in spans(stripes, layout):
                file.write(f"{contig}\t{start}\t{end}\t{value:.7g}\n")

    def _open(self, path: Path) -> IO[str]:
        return gzip.open(path, "wt", 6) if self.compressed else open(path, "w", encoding="ascii")


class BigWig(TrackFile):
    """The binary form of bedGraph that genome browsers read at any zoom; needs the package pybigtools."""

    def __init__(self) -> None:
        try:
            import pybigtools  # noqa: F401
        except ImportError:
            raise UsageError(
                "BigWig needs the package pybigtools: pip install 'longstrand[tracks]'; or write a .bedgraph."
            ) from None

    def write(self, stripes: Iterable[Stripe], layout: TrackLayout, target: Path) -> None:
        """Write spans as they come."""
        import pybigtools

        lines = spans(stripes, layout)
        first = next(lines, None)
        if first is None:
            raise InputError("there is no value to write, and a BigWig cannot be empty; write a .bedgraph or .zarr.")
        named = target.with_name(target.name + ".bw")  # the writer goes by the ending
        writer = pybigtools.open(str(named), "w")
        writer.write(layout.contigs, chain([first], lines))
        os.replace(named, target)


class ZarrTrack(TrackFile):
    """A Zarr group with one array (bins, columns) float32 a contig, chunked along the contig."""

    columns_at_most = None

    def write(self, stripes: Iterable[Stripe], layout: TrackLayout, target: Path) -> None:
        """Write whole chunks as they fill."""
        import zarr

        group = zarr.open_group(str(target), mode="w")
        group.attrs.update(
            {"format": "longstrand-track", "version": 1, "bin_size": layout.bin_size, "columns": list(layout.names)}
            | {"contigs": layout.contigs}
            | layout.about
        )
        width = len(layout.names)
        chunk = max(1, ZARR_CHUNK_BYTES // (4 * width))
        arrays = {}
        for contig in layout.contigs:
            bins = layout.num_bins(contig)
            arrays[contig] = group.create_array(
                contig, shape=(bins, width), chunks=(min(chunk, bins), width), dtype="f4", fill_value=float("nan")
            )
        for stripe in _whole_chunks(stripes, chunk):
            arrays[stripe.contig][stripe.first : stripe.first + len(stripe.values)] = stripe.values


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


def _whole_chunks(stripes: Iterable[Stripe], chunk: int) -> Iterator[Stripe]:
    """Cut stripes at multiples of ``chunk`` bins, joining what belongs to one chunk."""
    contig, first, waiting, held = "", 0, list[np.ndarray](), 0
    for stripe in stripes:
        if stripe.contig != contig:
            if held:
                yield Stripe(contig, first, np.concatenate(waiting))
            contig, first, waiting, held = stripe.contig, stripe.first, [], 0
        waiting.append(stripe.values)
        held += len(stripe.values)
        if held >= chunk:
            joined = np.concatenate(waiting)
            whole = held // chunk * chunk
            yield Stripe(contig, first, joined[:whole])
            first, waiting, held = first + whole, [joined[whole:].copy()], held - whole
    if held:
        yield Stripe(contig, first, np.concatenate(waiting))
