"""Maps on the disk: arrays, seqlets, tracks along a genome; and the job that makes them.

``attributions.zarr`` holds the values of all bases and where each row begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from longstrand.data.rows import Record, read_intervals
from longstrand.explain.attribution import Attribution, Explainer
from longstrand.explain.elements import Place, by_chrom, marks_of
from longstrand.explain.options import PATHS, AttributeOptions, ReadOptions
from longstrand.genome.regions import window_around, with_names_of
from longstrand.inference.loaded import LoadedModel, Model, fingerprint_input, open_model, window_of
from longstrand.inference.sequences import open_genome, read_file
from longstrand.inference.writers import Bins, ColumnChunk, TrackLayout, track_file
from longstrand.runtime import write_json

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

PART_BASES = 1 << 20
PERCENTILE = 95
SAMPLE = 10_000_000
"""Most values from which the threshold of seqlets is read; of more, every k-th."""
SHORTEST, JOINED = 4, 1
"""Bases of a seqlet at least, and weak bases inside at most one after the other."""
SMALL_INPUT = 1 << 20
Inside = Callable[[Record], npt.NDArray[np.bool_]]
NUMBERS = ("output", "baseline", "gap", "relative_gap", "special", "steps", "resegmented")
ARRAYS, TABLE, SEQLETS = "attributions.zarr", "sequences.tsv", "seqlets.bed"


def identity_of(loaded: LoadedModel, source: Path, genome: Genome | None, options: ReadOptions) -> dict[str, Any]:
    """Collect what decides an output: model, input and options."""
    named = {"model": loaded.fingerprint(), "tokenizer": loaded.tokenizer.fingerprint}
    named |= {"input": fingerprint_input(source), "genome": None if genome is None else genome.fingerprint}
    return named | options.identity()


class Maps:
    """Finished maps on the disk.

    Attributes:
        intervals: rows are intervals of a genome.
        names: of the columns of the values; the first one is the map.
        offsets: values ``offsets[i]`` to ``offsets[i + 1] - 1`` belong to row i.
    """

    def __init__(self, folder: Path, *, intervals: bool) -> None:
        import zarr

        self._group: Any = zarr.open_group(str(folder / ARRAYS), mode="r")
        self.folder, self.intervals = folder, intervals
        self.names: list[str] = list(self._group.attrs["value_names"])
        self.offsets: np.ndarray = self._group["offsets"][:]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def column(self, name: str) -> np.ndarray:
        """Read one column of the rows."""
        found: np.ndarray = self._group[name][:]
        return found

    def row(self, number: int) -> np.ndarray:
        """Read the map of a row, ``(num_bases,)``."""
        return self.columns(number)[:, 0]

    def columns(self, number: int) -> np.ndarray:
        """Read all values of a row, ``(num_bases, len(names))``."""
        found: np.ndarray = self._group["values"][self.offsets[number] : self.offsets[number + 1]]
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all maps, some bases at a time."""
        for start in range(0, int(self.offsets[-1]), PART_BASES):
            yield self._group["values"][start : start + PART_BASES, 0]

    def threshold(self) -> float:
        """Read the size that 5 % of all values exceed."""
        step = max(1, int(self.offsets[-1]) // SAMPLE)
        values = np.concatenate([np.abs(block[::step]) for block in self.blocks()] or [np.empty(0)])
        values = values[~np.isnan(values)]
        return float(np.percentile(values, PERCENTILE)) if len(values) else float("nan")

    def places(self) -> list[Place] | None:
        """List where the rows lie: on a genome, or on sequences of their names; None where names repeat."""
        if self.intervals:
            return [Place(*row) for row in zip(*(self.column(name).tolist() for name in Place._fields))]
        names = self.column("name").tolist()
        if len(set(names)) < len(names):
            return None
        return [Place(name, 0, int(size), "+") for name, size in zip(names, np.diff(self.offsets))]


def place_of(record: Record, window: int | None) -> Place | None:
    """Say where the letters of a row lie, whose window may be wider or narrower than its interval."""
    if record.interval is None:
        return None
    start, end = record.interval.start, record.interval.end
    if window is not None:
        start, end = window_around(record.interval, window)
    return Place(record.interval.chrom, start, end, record.interval.strand)


def inside_of(path: Path, window: int | None, genome: Genome | None = None) -> Inside:
    """Make a function that says which bases of a row lie in the intervals of a BED, by genome or by name of the row."""
    table = read_intervals(path)
    sites = by_chrom((table if genome is None else with_names_of(table, genome.contigs)).intervals)

    def inside(record: Record) -> npt.NDArray[np.bool_]:
        return marks_of(sites, place_of(record, window) or Place(record.name, 0, record.num_bases, "+"))

    return inside


def seqlets(values: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Find stretches of strong values of one sign.

    Args:
        values: ``(num_bases,)``; NaN is weak.
        threshold: sizes above it are strong.

    Returns:
        Start, end (0-based, half-open) and sum of each; weak bases up to `JOINED` one after the other are inside.
    """
    found = []
    for sign in (1, -1):
        strong = np.flatnonzero(sign * np.nan_to_num(values) > threshold)
        groups = np.split(strong, np.flatnonzero(np.diff(strong) > JOINED + 1) + 1) if len(strong) else []
        spans = [(int(each[0]), int(each[-1]) + 1) for each in groups]
        found += [(start, end, float(np.nansum(values[start:end]))) for start, end in spans if end - start >= SHORTEST]
    return sorted(found)


def write_seqlets(maps: Maps, target: Path) -> int:
    """Write seqlets as BED (name of the row, score of 0 to 1000, strand, sum of the values); give their number."""
    threshold, places, number = maps.threshold(), maps.places(), 0
    names = maps.column("name").tolist()
    with open(target, "w", encoding="utf-8") as file:
        for i, values in enumerate(map(maps.row, range(len(maps)))):
            place = Place(names[i], 0, len(values), "+") if places is None else places[i]
            for start, end, total in seqlets(values, threshold):
                first = place.start + (start if place.strand == "+" else len(values) - end)
                score = min(1000, round(500 * abs(total) / (threshold * (end - start))))
                cells = [place.chrom, first, first + end - start, names[i], score, place.strand, f"{total:.6g}"]
                file.write("\t".join(map(str, cells)) + "\n")
                number += 1
    return number


def bins_of(maps: Maps, places: Sequence[Place], contigs: Mapping[str, int]) -> Iterator[Bins]:
    """Give the map along contigs, base by base; where rows overlap, their mean; NaN where there is none."""
    starts, ends = (np.array([getattr(place, name) for place in places], dtype=np.int64) for name in ("start", "end"))
    chroms = np.array([place.chrom for place in places], dtype=object)
    for contig, size in contigs.items():
        for first in range(0, size, PART_BASES):
            last = min(first + PART_BASES, size)
            here = np.flatnonzero((chroms == contig) & (starts < last) & (ends > first)).tolist()
            if not here:
                continue
            sums = np.zeros((2, last - first))  # total and number of values
            for i in here:
                values = maps.row(i) if places[i].strand == "+" else maps.row(i)[::-1]
                left, right = max(starts[i], first), min(ends[i], last)
                part = values[left - starts[i] : right - starts[i]]
                sums[:, left - first : right - first] += np.nan_to_num(part), ~np.isnan(part)
            means = np.divide(sums[0], sums[1], out=np.full(last - first, np.nan), where=sums[1] > 0)
            yield contig, first, means.astype(np.float32)[:, None]


def write_track(maps: Maps, folder: Path, contigs: Mapping[str, int] | None, kind: str | None) -> Path | None:
    """Write the map as BigWig or bedGraph, and how igv.js draws it as letters; None where names of rows repeat.

    Args:
        maps: the values.
        folder: where the files go.
        contigs: length of each contig of the genome; None: the rows are sequences.
        kind: ``bigwig`` or ``bedgraph``; None: what is installed.
    """
    places = maps.places()
    if places is None:
        return None
    if kind is None:
        kind = "bigwig" if find_spec("pybigtools") is not None and not np.isnan(maps.threshold()) else "bedgraph"
    target = folder / ("attribution.bw" if kind == "bigwig" else "attribution.bedgraph")
    sizes = dict(contigs) if contigs is not None else {place.chrom: place.end for place in places if place.end}
    layout = TrackLayout(sizes, 1, ("attribution",), {})
    track_file(target).write(bins_of(maps, places, sizes), layout, target)
    if kind == "bigwig":
        igv = {"name": "attribution", "type": "wig", "format": "bigwig", "graphType": "dynseq", "url": target.name}
        write_json(folder / "igv_track.json", igv)
    return target


@dataclass
class AttributionJob:
    """Input, model and options that belong together."""

    source: Path
    genome: Genome | None
    loaded: LoadedModel
    options: AttributeOptions
    explainer: Explainer

    @property
    def intervals(self) -> bool:
        """Say whether the rows are intervals of a genome."""
        return self.genome is not None

    @classmethod
    def open(
        cls, model: Model, source: Path, genome: Genome | str | Path | None, options: AttributeOptions,
        tick: Callable[[float], None] = lambda work: None,
    ) -> Self:  # fmt: skip
        """Open everything and check that it belongs together; ``tick`` is told what is computed.

        Raises:
            LongstrandError: a file is missing or damaged, the model has no such output.
        """
        opened = open_genome(genome)
        small = opened is None and source.is_file() and source.stat().st_size < SMALL_INPUT
        loaded = open_model(model, device=options.device, is_small=small)
        options = options.changed(window=window_of(options.window, loaded.reading, intervals=opened is not None))
        return cls(source, opened, loaded, options, Explainer(loaded.network, options, tick))

    def records(self) -> Iterator[Record]:
        """Read the rows of the input."""
        return read_file(self.source, self.options.reading(), self.genome)

    def place(self, record: Record) -> Place | None:
        """Say where the letters of a row lie."""
        return place_of(record, self.options.window)

    def restored(self, maps: Maps, row: int, record: Record) -> Attribution:
        """Make the map of a row again from what is on the disk."""
        values = dict(zip(maps.names, maps.columns(row).T))
        strands, text = self.explainer.strands, self.explainer.text(record)
        numbers = {name: float(maps.column(name)[row]) for name in ("output", "baseline", "special", "resegmented")}
        steps, letters = maps.column("steps")[row], [values[letter] for letter in "ACGT" if letter in values]
        return Attribution(
            record, text, values["attribution"], {one: values.get(one, values["attribution"]) for one in strands},
            self.explainer.tokens(text), **numbers, steps=None if np.isnan(steps) else int(steps),
            hypothetical=np.stack(letters, axis=1) if letters else None, status=str(maps.column("status")[row]),
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Collect what decides the content of the output."""
        more = {"strands": list(self.explainer.strands), "part_rows": self.options.part_rows}
        more["baselines"] = list(self.explainer.baselines) if self.options.method in PATHS else []
        return identity_of(self.loaded, self.source, self.genome, self.options) | more

    def block(self, found: Sequence[Attribution]) -> ColumnChunk:
        """Put consecutive maps into columns."""
        rows: dict[str, list[Any]] = {
            "index": [one.record.index for one in found], "name": [one.name for one in found],
            "status": [one.status for one in found],
        }  # fmt: skip
        if self.intervals:
            rows |= dict(zip(Place._fields, map(list, zip(*(self.place(one.record) or () for one in found)))))
        for name in NUMBERS:
            rows[name] = [float("nan" if getattr(one, name) is None else getattr(one, name)) for one in found]
        both = len(self.explainer.strands) > 1
        names = ("attribution", *(("+", "-") if both else ()), *("ACGT" if self.explainer.has_letters else ""))
        values = [_columns(one, names) for one in found]
        lengths = np.array([len(one.values) for one in found], dtype=np.int64)
        return ColumnChunk(rows, np.concatenate(values), names, lengths)


def _columns(one: Attribution, names: Sequence[str]) -> np.ndarray:
    empty = np.full(len(one.values), np.nan, dtype=np.float32)
    letters = np.full((len(one.values), 4), np.nan, np.float32) if one.hypothetical is None else one.hypothetical
    known = {"attribution": one.values, **one.strands, **dict(zip("ACGT", letters.T))}
    return np.stack([known.get(name, empty) for name in names], axis=1)
