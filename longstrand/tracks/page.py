"""The page of a folder of tracks: pictures of the highest places, what each track holds, seams, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longstrand.genome.coverage import open_signal
from longstrand.genome.intervals import Interval
from longstrand.inference.contigs import ContigJob
from longstrand.report.locus import Component, Locus, Logo, Ruler, Track
from longstrand.report.page import write_report
from longstrand.report.sections import Report, Section, Table, histogram, provenance_table, text

PICTURES, DRAWN, LISTED = 3, 8, 200
"""Pictures, tracks in each of them, and tracks in the table; the rest is in ``tracks.json``, and the page says so."""
SHOWN_BINS, SHOWN_LETTERS = 400, 100


def write_page(
    folder: Path, facts: Mapping[str, Any], job: ContigJob, samples: Mapping[str, npt.NDArray[np.float32]]
) -> Path:
    """Write ``report.html`` and ``report.json`` into a folder of tracks.

    Args:
        folder: with the tracks.
        facts: those of ``tracks.json``.
        job: that made them.
        samples: values of some bins of each track.
    """
    tracks: Sequence[Mapping[str, Any]] = facts["tracks"]
    shown, bases = tracks[:LISTED], sum(job.genome.contigs[name] for name in facts["contigs"])
    columns = ["track", "file", "unit", "bins", "mean", "spread", "lowest", "highest", "seam"]
    keys = ("name", "file", "unit", "bins", "mean", "deviation", "low", "high", "seam")
    rows = [[track[key] for key in keys] for track in shown]
    more = f" The first {LISTED} of {len(tracks):,} tracks; tracks.json has all." * (len(tracks) > LISTED)
    calls = [[track["name"], track["num_calls"], track["calls"]] for track in shown if "calls" in track]
    drawn = dict(islice(samples.items(), DRAWN))
    sections: list[Section] = [
        *_pictures(folder, tracks, facts["bin_size"], job),
        histogram("How the bins spread", text("track_histogram"), drawn, tracks[0]["unit"]),
        Table("Tracks", text("tracks") + more, columns, rows),
        *([Table("Calls", f"Stretches at or above {facts['threshold']:g}.", ["track", "calls", "file"], calls)] if calls
          else []),
        Section("How to open them", text("track_files")),
        provenance_table(facts["provenance"], model=facts["model"], genome=facts["genome"]["fingerprint"]),
    ]  # fmt: skip
    windows = facts["windows"]
    how = "read from end to end with memory"
    if windows is not None:
        how = (
            f"windows of {windows['window']:,} bases, one every {windows['step']:,}, put together by {windows['blend']}"
        )
    where = f"{len(facts['contigs']):,} contig(s), {bases:,} bases"
    where += f", limited to {Path(facts['regions']).name}" if facts["regions"] else ""
    size = f"{len(tracks):,} tracks in bins of {facts['bin_size']:,} base{'s' * (facts['bin_size'] > 1)}"
    report = Report(f"Tracks of {job.genome.name}", sections, size, [f"{where}; {how}."])
    return write_report(folder, report)[0]


def _pictures(folder: Path, tracks: Sequence[Mapping[str, Any]], bin_size: int, job: ContigJob) -> list[Section]:
    """Draw the tracks around the highest bin of the first ones."""
    pictures: list[Section] = []
    taken: list[Interval] = []
    letters = job.unit == "bits"
    drawn: list[Component]
    signals = [open_signal(folder / track["file"]) for track in tracks[:DRAWN]]
    for track in tracks[:DRAWN]:
        place, length = track["best"], job.genome.contigs[track["best"]["chrom"]]
        half = (SHOWN_LETTERS if letters else SHOWN_BINS) // 2 * bin_size
        start = max(0, place["start"] - half)
        end = max(start, min(length, place["start"] + half) // bin_size * bin_size)
        region = Interval(place["chrom"], start, end)
        if len(pictures) == PICTURES or not region.length or any(region.overlaps(other) for other in taken):
            continue
        taken.append(region)
        values = [signal.bins(region, bin_size) for signal in signals]
        drawn = [Track(each, str(one["name"]), "fill", bin_size=bin_size) for one, each in zip(tracks, values)]
        drawn = [Logo(np.nan_to_num(np.stack(values, axis=1)), "bits", "height")] if letters else drawn
        title, explain = f"Around the highest bin of {track['name']}", text("track_picture")
        pictures.append(Locus(title, explain, [Ruler(), *drawn], region))
    return pictures
