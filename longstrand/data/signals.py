"""Signal tracks as targets: what each looks like, how its numbers are transformed, and windows with their bins.

`TrackTransform` is stored in the model that learns from it and undone in prediction. It knows Borzoi's transform as
published (``published``: baskerville's ``--transform_old``) and as its later code has it (``current``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from longstrand.config import StrictModel, build
from longstrand.data.tables import read_table
from longstrand.errors import InputError, UsageError, one_of
from longstrand.genome.coverage import Signal, Uncovered, open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.text import parse_whole

Statistic = Literal["mean", "sum", "max", "mean_sqrt", "sum_sqrt", "sum_exp75"]
QUANTILE = 0.999
"""Share of the training bins that the standard transform leaves below its clip."""
_STRANDS = (("plus", "minus"), ("fwd", "rev"), ("forward", "reverse"), ("pos", "neg"), ("watson", "crick"))


class TrackTransform(StrictModel):
    """How the numbers of a track become targets: pooled over a bin, squashed, clipped, scaled."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal["published", "current"] = Field("published", description="order and form of the steps")
    statistic: Statistic = Field("mean", description="over the bases of a bin; _sqrt and _exp75 squash it")
    clip_soft: float | None = Field(None, description="above it only the square root of the rest counts")
    clip: float | None = Field(None, description="no target is larger")
    scale: float = Field(1.0, gt=0, description="factor: last in published, first in current")

    @property
    def pooling(self) -> Any:
        """Return mean, sum or max."""
        return self.statistic.split("_")[0]

    @property
    def power(self) -> float:
        """Exponent of the squashing; 1: none."""
        word = self.statistic.partition("_")[2]
        return {"": 1.0, "exp75": 0.75, "sqrt": 0.75 if self.version == "published" else 0.5}[word]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Turn pooled numbers into targets; NaN stays."""
        found = values.astype(np.float64)
        if self.version == "current":
            found = found * self.scale
            found = (1 + found) ** self.power - 1 if self.power != 1 else found
        elif self.power != 1:
            found = found**self.power
        if self.clip_soft is not None:
            shift = self.clip_soft if self.version == "published" else self.clip_soft - 1
            found = np.where(found > self.clip_soft, shift + np.sqrt(np.maximum(found - shift, 0)), found)
        if self.clip is not None:
            found = np.clip(found, -self.clip, self.clip)
        return (found * self.scale if self.version == "published" else found).astype(np.float32)

    def undo(self, targets: np.ndarray) -> np.ndarray:
        """Turn targets back into pooled numbers; what was above ``clip`` stays clipped."""
        found = targets.astype(np.float64)
        found = found / self.scale if self.version == "published" else found
        if self.clip_soft is not None:
            shift = self.clip_soft if self.version == "published" else self.clip_soft - 1
            found = np.where(found > self.clip_soft, shift + (found - shift) ** 2, found)
        if self.version == "current":
            found = np.maximum(found + 1, 0) ** (1 / self.power) - 1 if self.power != 1 else found
            return (found / self.scale).astype(np.float32)
        return (np.maximum(found, 0) ** (1 / self.power) if self.power != 1 else found).astype(np.float32)


def undo_all(transforms: Sequence[TrackTransform], targets: np.ndarray) -> np.ndarray:
    """Undo the transform of each column of targets (..., columns)."""
    return np.stack([one.undo(targets[..., place]) for place, one in enumerate(transforms)], axis=-1)


@dataclass(frozen=True)
class TrackFile:
    """One signal track.

    Attributes:
        name: how outputs are called.
        path: BigWig or bedGraph.
        transform: None: the standard one is fitted.
        partner: place of the track of the other strand; its own if it has none.
    """

    name: str
    path: Path
    transform: TrackTransform | None
    partner: int


def find_tracks(paths: Sequence[Path], version: str) -> list[TrackFile]:
    """List the tracks that files name: BigWigs and bedGraphs, or one table of targets as baskerville reads it.

    Files whose names differ in plus and minus (fwd and rev, pos and neg) alone are the two strands of one signal.

    Args:
        paths: of the tracks, or of ``targets.txt``.
        version: ``standard`` or ``none``; for a table ``published`` or ``current``.

    Raises:
        InputError: the table lacks a column or names a file of another kind.
        UsageError: two tracks have one name, or a version that does not fit.
    """
    if len(paths) == 1 and paths[0].suffix.lower() in (".txt", ".tsv", ".csv"):
        return read_targets(paths[0], "current" if version == "standard" else version)
    one_of(version, ("standard", "none"), "transform")
    names = [re.sub(r"\.(bw|bigwig|bedgraph|bdg)(\.gz)?$", "", path.name, flags=re.IGNORECASE) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError(f"two signal tracks have the same name before the ending: {', '.join(names)}; rename one.")
    plain = TrackTransform() if version == "none" else None
    return [
        TrackFile(name, path, plain, _partner(names, place)) for place, (name, path) in enumerate(zip(names, paths))
    ]


def _partner(names: Sequence[str], place: int) -> int:
    for pair in _STRANDS:
        for one, other in (pair, pair[::-1]):
            twin = re.sub(rf"(?<![a-z]){one}(?![a-z])", other, names[place], flags=re.IGNORECASE)
            if twin != names[place] and twin.lower() in [name.lower() for name in names]:
                return [name.lower() for name in names].index(twin.lower())
    return place


def read_targets(path: Path, version: str) -> list[TrackFile]:
    """Read a table of targets of baskerville: identifier, file, clip, clip_soft, scale, sum_stat, strand_pair.

    Raises:
        InputError: a column is missing or a cell is wrong.
    """
    one_of(version, ("published", "current"), "transform")
    table = read_table(path)
    missing = [name for name in ("identifier", "file") if name not in table.columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; is it a targets.txt of baskerville?")
    columns = {name: table[name].to_list() if name in table.columns else [None] * table.height for name in (
        "identifier", "file", "clip", "clip_soft", "scale", "sum_stat", "strand_pair")}  # fmt: skip
    found = []
    for row in range(table.height):
        where = f"{path}, row {row + 1}"
        cells = {name: values[row] for name, values in columns.items()}
        cells = {name: None if (value or "").lower() in ("", "na", "nan") else value for name, value in cells.items()}
        if empty := [name for name in ("identifier", "file") if cells[name] is None]:
            raise InputError(f"{where}: {empty[0]} is empty.")
        if cells["file"].endswith((".w5", ".h5")):
            raise InputError(f"{where}: {cells['file']} is HDF5 coverage; give the BigWig it was made of.")
        given = {name: cells[name] for name in ("clip", "clip_soft", "scale") if cells[name]}
        statistic = (cells["sum_stat"] or "mean").replace("avg", "mean")
        made = build(TrackTransform, {"version": version, "statistic": statistic, **given}, where)
        pair = parse_whole(cells["strand_pair"]) if cells["strand_pair"] else row
        if pair is None or not 0 <= pair < table.height:
            raise InputError(f"{where}: strand_pair '{cells['strand_pair']}' is no row of the table.")
        place = Path(cells["file"])
        found.append(TrackFile(cells["identifier"], place if place.is_absolute() else path.parent / place, made, pair))
    if twice := [name for name, times in Counter(file.name for file in found).items() if times > 1]:
        raise InputError(f"{path}: two tracks are called '{twice[0]}'; rename one.")
    return found


@dataclass(frozen=True)
class Look:
    """What a track is like in some windows, before any transform.

    Attributes:
        name: of the track.
        covered: share of bins with a number.
        zero: share of those that are 0.
        negative: share below 0.
        low, high, mean, median: of the bins.
        top: the 99.9 % quantile of their sizes.
        nonzero_mean: mean size of the bins that are not 0.
        whole: whether all are whole numbers.
        kind: ``counts``, ``coverage``, ``fold change``, ``-log10 p`` or ``signed``; a guess, except ``signed``.
        histogram: edges (41,) and shares (40,) of the bins from 0 to ``top`` (signed: from the lowest).
    """

    name: str
    covered: float
    zero: float
    negative: float
    low: float
    high: float
    mean: float
    median: float
    top: float
    nonzero_mean: float
    whole: bool
    kind: str
    histogram: tuple[list[float], list[float]]

    def sentence(self) -> str:
        """Say what a person should know."""
        shown = (
            f"{self.name}: {self.kind}, {self.low:.3g} to {self.high:.3g}, mean {self.mean:.3g}, {self.zero:.0%} zero"
        )
        return shown + (f", {1 - self.covered:.0%} of the bins have no value" if self.covered < 0.995 else "")


def look(name: str, values: np.ndarray) -> Look:
    """Describe the bins of a track.

    Raises:
        InputError: a value is infinite, or there is none.
    """
    if np.isinf(values).any():
        raise InputError(f"{name}: the track holds infinite values; replace them before training.")
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        raise InputError(f"{name}: the track has no value in any window; does it lie on this genome?")
    top = float(np.quantile(np.abs(known), QUANTILE))
    shares, edges = np.histogram(known, np.linspace(min(0.0, float(known.min())), max(top, 1e-9), 41))
    sizes = np.abs(known[known != 0])
    facts = {
        "covered": len(known) / values.size, "zero": float((known == 0).mean()), "negative": float((known < 0).mean()),
        "low": float(known.min()), "high": float(known.max()), "mean": float(known.mean()),
        "median": float(np.median(known)), "top": top, "nonzero_mean": float(sizes.mean()) if len(sizes) else 0.0,
        "whole": bool((known == np.round(known)).all()),
    }  # fmt: skip
    histogram = edges.tolist(), (shares / len(known)).tolist()
    return Look(name=name, kind=_kind(name, facts), histogram=histogram, **facts)


def _kind(name: str, facts: Mapping[str, Any]) -> str:
    """Guess what the numbers are, by their signs, their middle and the name of the file."""
    if facts["negative"]:
        return "signed"
    words = re.split(r"[^a-z0-9]+", name.lower())
    if {"pval", "ppois", "qval", "log10p", "qpois"} & set(words) or "p-value" in name.lower():
        return "-log10 p"
    around_one = 0.8 <= facts["median"] <= 1.25 and facts["zero"] < 0.01 and not facts["whole"]
    if {"fc", "fe", "foldchange", "fold"} & set(words) or around_one:
        return "fold change"
    return "counts" if facts["whole"] else "coverage"


def standard_transform(found: Look, statistic: Statistic) -> TrackTransform:
    """Clip at the 99.9 % quantile of the training bins and divide by the mean of those that are not 0."""
    clip = found.top if found.top > 0 else max(abs(found.low), abs(found.high), 1.0)
    mean = min(found.nonzero_mean, clip)
    return TrackTransform(version="published", statistic=statistic, clip=clip, scale=1 / mean if mean > 0 else 1.0)


@dataclass(frozen=True)
class Signals:
    """Tracks over a genome: windows in, sequence and targets out.

    Attributes:
        genome: the FASTA file.
        files: the tracks, whose transforms are all there.
        opened: their open signals.
        bin_bases: bases of a bin.
        uncovered: what bases without a value are.
        loss: ``counts``, ``multinomial`` or ``squared``.
        jitter: most bases by which a training window is moved.
        window: bases of a window; 0: those of the intervals.
        looks: what each track is like on the training windows.
    """

    genome: Genome
    files: Sequence[TrackFile]
    opened: Sequence[Signal]
    bin_bases: int
    uncovered: Uncovered = "missing"
    loss: str = "counts"
    jitter: int = 0
    window: int = 0
    looks: Sequence[Look] = ()

    @property
    def partners(self) -> list[int] | None:
        """Place of the track of the other strand for each, or None if none has one."""
        found = [file.partner for file in self.files]
        return None if found == list(range(len(found))) else found

    def transforms(self) -> list[TrackTransform]:
        """List the transforms of the tracks."""
        return [file.transform or TrackTransform() for file in self.files]

    def raw(self, window: Interval) -> np.ndarray:
        """Read the bins of a window before any transform, float32 (bins, tracks), in the order of its strand."""
        pooled = [
            signal.bins(
                window, self.bin_bases, reduce=(file.transform or TrackTransform()).pooling, uncovered=self.uncovered
            )
            for signal, file in zip(self.opened, self.files)
        ]
        return np.stack(pooled, axis=1)

    def targets(self, window: Interval, values: np.ndarray | None = None) -> np.ndarray:
        """Transform the bins of a window, (bins, tracks); on the strand ``-`` partners change places."""
        values = self.raw(window) if values is None else values
        found = np.stack([one.apply(values[:, place]) for place, one in enumerate(self.transforms())], axis=1)
        return found if window.strand == "+" or self.partners is None else found[:, self.partners]

    def read(self, window: Interval, shift: int = 0) -> tuple[str, np.ndarray]:
        """Read letters and targets of a window, moved by some bases as far as its contig reaches."""
        length = self.genome.contigs[window.chrom]
        start = min(max(0, window.start + shift), length - window.length)
        moved = Interval(window.chrom, start, start + window.length, window.strand)
        return self.genome.fetch_interval(moved), self.targets(moved)

    def facts(self) -> dict[str, Any]:
        """Describe tracks, transforms and settings as plain values."""
        tracks = [
            {"name": file.name, "path": str(file.path), "partner": self.files[file.partner].name,
             "transform": (file.transform or TrackTransform()).model_dump(), "look": asdict(seen)}
            for file, seen in zip(self.files, self.looks)
        ]  # fmt: skip
        return {"tracks": tracks, "loss": self.loss, "jitter": self.jitter, "bin_bases": self.bin_bases,
                "uncovered": self.uncovered}  # fmt: skip


def open_tracks(files: Sequence[TrackFile], genome: Genome) -> list[Signal]:
    """Open tracks and check that they lie on the genome.

    Raises:
        InputError: a file is no track, or belongs to another assembly.
    """
    opened = [open_signal(file.path) for file in files]
    for signal in opened:
        signal.check_genome(genome.contigs)
    return opened
