"""A folder of tracks: a BigWig for each output and strand, and what genome browsers and people need beside them.

``tracks.json`` says what each file holds. ``trackDb.txt``, ``genomes.txt`` and ``hub.txt`` are a hub for the UCSC
browser, ``igv_session.xml`` opens in IGV, ``igv.json`` is the same for igv.js. ``chrom.sizes`` lists all contigs.
``NAME.calls.bed`` holds stretches at or above a threshold, ``classes.gff3`` the classes of a model that labels bases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from longstrand.data.labelled_tokens import is_bio
from longstrand.inference.contigs import ContigJob, Written, layout_of_tracks
from longstrand.inference.loaded import LoadedModel
from longstrand.inference.writers import Bins, TrackLayout, spans, track_file
from longstrand.runtime import provenance, write_json

BIGWIG, FACTS = ".bw", "tracks.json"
SUFFIX: dict[str | None, str] = {"+": ".plus", "-": ".minus", None: ""}
SAMPLE = 20_000
"""Bins of a track that its histogram is made of, about."""
BACKGROUND = frozenset({"o", "none", "background", "other", "intergenic", "no", "-", "0"})
"""Classes of bases that are no feature."""


@dataclass
class Summary:
    """What the values of one track are like, summed up as they pass by.

    Attributes:
        count: bins with a value.
        total, squares: sums over them.
        low, high: ends of their range.
        best: bin with the highest value: contig and number.
        every, sample: one of so many bins is kept, for a histogram.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    best: tuple[str, int] = ("", 0)
    every: int = 1
    sample: list[np.ndarray] = field(default_factory=list)

    def watch(self, chunks: Iterable[Bins]) -> Iterator[Bins]:
        """Pass bins of one column on."""
        for contig, first, values in chunks:
            known = np.flatnonzero(~np.isnan(values[:, 0]))
            if len(known):
                found = values[known, 0].astype(np.float64)
                top = int(found.argmax())
                if found[top] > self.high:
                    self.high, self.best = float(found[top]), (contig, first + int(known[top]))
                self.count += len(found)
                self.total += float(found.sum())
                self.squares += float((found**2).sum())
                self.low = min(self.low, float(found.min()))
                self.sample.append(values[known[:: self.every], 0])
            yield contig, first, values

    @property
    def mean(self) -> float:
        """Mean of the bins."""
        return self.total / max(1, self.count)

    @property
    def deviation(self) -> float:
        """Spread of the bins, of the population."""
        return max(0.0, self.squares / max(1, self.count) - self.mean**2) ** 0.5


def write_folder(written: Written, folder: Path, *, loaded: LoadedModel) -> None:
    """Write all tracks and the files beside them; memory does not grow with contigs or the number of tracks.

    Raises:
        InputError: no base has a value, or the disk is full.
    """
    from longstrand.tracks.page import write_page

    job = written.job
    folder.mkdir()
    layout, tracks, threshold = layout_of_tracks(job), [], job.options.threshold
    every = max(1, sum(map(layout.num_bins, job.contigs())) // SAMPLE)
    samples: dict[str, np.ndarray] = {}
    for place, ((output, strand), seam) in enumerate(zip(job.tracks, written.seams().tolist())):
        name = f"{output}{SUFFIX[strand]}"
        file = _file_name(name, {track["file"] for track in tracks})
        summary, one = Summary(every=every), slice(place, place + 1)
        track_file(folder / file).write(summary.watch(written.bins(one)), layout, folder / file)
        samples[name] = np.concatenate([np.zeros(0, np.float32), *summary.sample])
        tracks.append(
            {
                "name": name, "file": file, "output": output, "strand": strand or ".", "unit": job.unit,
                "bins": summary.count, "mean": summary.mean, "deviation": summary.deviation,
                "low": summary.low, "high": summary.high,
                "best": {"chrom": summary.best[0], "start": summary.best[1] * layout.bin_size},
                "seam": seam / summary.deviation if seam == seam and summary.deviation else None,
            }
        )  # fmt: skip
        if threshold is not None:
            path, found = folder / f"{file.removesuffix(BIGWIG)}.calls.bed", spans(written.bins(one), layout)
            number = write_calls(found, threshold, path, name=name, strand=strand or ".")
            tracks[-1] |= {"calls": path.name, "num_calls": number}
    if (classes := classes_of(job)) is not None:
        write_gff(written.bins(), layout, classes, folder / "classes.gff3")
    facts = describe(job, tracks, loaded)
    write_json(folder / FACTS, facts)
    (folder / "chrom.sizes").write_text("".join(f"{name}\t{size}\n" for name, size in layout.contigs.items()))
    write_browser_files(folder, tracks, job.genome.path, job.genome.name)
    write_page(folder, facts, job, samples)


def _file_name(name: str, taken: set[str]) -> str:
    plain = re.sub(r"[^\w.+-]+", "_", name) or "track"
    number = next(n for n in range(1, len(taken) + 2) if f"{plain}{f'_{n}' * (n > 1)}{BIGWIG}" not in taken)
    return f"{plain}{f'_{number}' * (number > 1)}{BIGWIG}"


def describe(job: ContigJob, tracks: Sequence[Mapping[str, Any]], loaded: LoadedModel) -> dict[str, Any]:
    """Collect everything that a reader of the files must know."""
    grid, options = job.grid, job.options
    windows = None if job.streams else {"window": grid.window, "step": grid.step, "blend": grid.blend}
    return {
        "format": "longstrand-tracks", "version": 1, "bin_size": job.bin_size, "reduce": options.reduce,
        "strand": options.strand, "shifts": list(options.shifts), "windows": windows, "averaged": job.averaged,
        "contigs": job.contigs(), "regions": options.regions, "threshold": options.threshold,
        "missing": "no value (absent); 0 is a predicted 0",
        "genome": {"path": str(job.genome.path), "fingerprint": job.genome.fingerprint},
        "model": loaded.fingerprint(), "tracks": list(tracks), "provenance": provenance(),
    }  # fmt: skip


@dataclass
class Run:
    """Neighbouring stretches with one label: place, highest value, and sum of values over bases."""

    chrom: str
    start: int
    end: int
    label: str
    high: float
    total: float

    @property
    def mean(self) -> float:
        """Mean over bases."""
        return self.total / (self.end - self.start)


def join_runs(stretches: Iterable[tuple[str, int, int, str, float, bool]]) -> Iterator[Run]:
    """Join stretches (contig, start, end, label, value, is a new one in any case) that touch and have one label."""
    held: Run | None = None
    for chrom, start, end, label, value, fresh in stretches:
        if held and not fresh and (held.chrom, held.end, held.label) == (chrom, start, label):
            held.end, held.high = end, max(held.high, value)
            held.total += value * (end - start)
            continue
        if held:
            yield held
        held = Run(chrom, start, end, label, value, value * (end - start))
    if held:
        yield held


def write_calls(
    found: Iterable[tuple[str, int, int, float]], threshold: float, path: Path, *, name: str, strand: str
) -> int:
    """Write stretches at or above a threshold as BED6 and two columns: highest value, mean over bases.

    The score is 1,000 times the highest value, from 0 to 1,000.

    Args:
        found: spans of the track.
        threshold: lowest value of a call.
        path: the file.
        name: of the track; calls are numbered.
        strand: of the track.

    Returns:
        How many there are.
    """
    number, above = 0, ((*span[:3], name, span[3], False) for span in found if span[3] >= threshold)
    with open(path, "w", encoding="utf-8") as file:
        for run in join_runs(above):
            number += 1
            score = int(min(max(run.high, 0.0), 1.0) * 1000)
            cells = (run.chrom, run.start, run.end, f"{name}_{number}", score, strand)
            file.write("\t".join([*map(str, cells), f"{run.high:.7g}", f"{run.mean:.7g}"]) + "\n")
    return number


def classes_of(job: ContigJob) -> tuple[str, ...] | None:
    """Give the classes of a model that gives every base one of them, if all are written as probabilities; else None."""
    head = job.head
    if head is None or head.kind != "token" or head.problem != "single_label" or job.options.output != "probabilities":
        return None
    all_there = job.columns == job.names and job.strands == (None,)
    return tuple(head.class_names or map(str, range(len(job.names)))) if all_there else None


def write_gff(chunks: Iterable[Bins], layout: TrackLayout, classes: Sequence[str], path: Path) -> None:
    """Write runs of bins with one most probable class as GFF3 features; the score is its mean probability.

    Classes that mean "nothing here" (`BACKGROUND`) are no features. ``B-`` and ``I-`` are taken off; a ``B-`` begins a
    new feature.
    """
    bio = is_bio(classes)

    def stretches() -> Iterator[tuple[str, int, int, str, float, bool]]:
        for contig, first, values in chunks:
            known = ~np.isnan(values).any(axis=1)
            best = np.where(known, np.where(known[:, None], values, 0).argmax(axis=1), -1)
            edges = np.flatnonzero(np.diff(best, prepend=-2))
            for start, end in zip(edges.tolist(), [*edges[1:].tolist(), len(best)]):
                name = classes[best[start]] if best[start] >= 0 else ""
                kind = re.sub("^[BI]-", "", name) if bio else name
                if kind and kind.lower() not in BACKGROUND:
                    low, high = ((first + at) * layout.bin_size for at in (start, end))
                    value = float(values[start:end, best[start]].mean(dtype=np.float64))
                    yield contig, low, min(high, layout.contigs[contig]), kind, value, bio and name.startswith("B-")

    with open(path, "w", encoding="utf-8") as file:
        file.write("##gff-version 3\n")
        for number, run in enumerate(join_runs(stretches()), 1):
            cells = (run.chrom, "longstrand", run.label, run.start + 1, run.end, f"{run.mean:.4g}", ".", ".")
            file.write("\t".join(map(str, cells)) + f"\tID={run.label}_{number}\n")


def write_browser_files(folder: Path, tracks: Sequence[Mapping[str, Any]], fasta: Path, assembly: str) -> None:
    """Write a hub for the UCSC browser, and sessions for IGV and igv.js, of BigWigs in a folder.

    Args:
        folder: with the tracks.
        tracks: ``name``, ``file``, ``low``, ``high``, ``strand`` and ``best`` of each, as in ``tracks.json``.
        fasta: the genome, for IGV.
        assembly: what UCSC calls it; the name of the file is a guess.
    """
    words = {name: [] for name in ("trackDb", "igv")}  # type: dict[str, list[Any]]
    for track in tracks:
        settings = {
            "track": re.sub(r"\W", "_", str(track["name"])), "bigDataUrl": track["file"],
            "shortLabel": track["name"][:17], "longLabel": track["name"][:76],
            "type": f"bigWig {track['low']:.7g} {track['high']:.7g}", "visibility": "full", "autoScale": "on",
            "windowingFunction": "mean",
        } | ({"negateValues": "on"} if track["strand"] == "-" else {})  # fmt: skip
        words["trackDb"].append("".join(f"{key} {value}\n" for key, value in settings.items()))
        words["igv"].append({"name": track["name"], "type": "wig", "format": "bigwig", "url": track["file"]})
    write_hub(folder, "\n".join(words["trackDb"]), assembly)
    place = tracks[0]["best"]
    locus = f"{place['chrom']}:{max(1, place['start'] - 5000)}-{place['start'] + 5000}"
    path = fasta.resolve()
    reference = {"id": assembly, "fastaURL": str(path), "indexURL": f"{path}.fai"}
    write_json(folder / "igv.json", {"reference": reference, "locus": locus, "tracks": words["igv"]})
    files = "".join(f'        <Resource path={quoteattr(track["file"])} type="bw"/>\n' for track in tracks)
    (folder / "igv_session.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<Session genome={quoteattr(str(path))} '
        f'locus={quoteattr(locus)} version="8">\n    <Resources>\n{files}    </Resources>\n</Session>\n',
        encoding="utf-8",
    )


def write_hub(folder: Path, track_db: str, assembly: str) -> None:
    """Write the three files of a UCSC track hub."""
    (folder / "trackDb.txt").write_text(track_db, encoding="utf-8")
    (folder / "genomes.txt").write_text(f"genome {assembly}\ntrackDb trackDb.txt\n", encoding="utf-8")
    title = f"hub longstrand\nshortLabel Longstrand\nlongLabel Tracks predicted by Longstrand: {folder.name}\n"
    (folder / "hub.txt").write_text(f"{title}genomesFile genomes.txt\nemail none@example.org\n", encoding="utf-8")
