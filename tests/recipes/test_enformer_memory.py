"""The data of the recipe say what it claims: a local track, and one that needs the last marker."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from longstrand.genome.coverage import open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "enformer_memory.py"


def test_the_second_track_depends_on_the_marker_of_the_window(tmp_path: Path) -> None:
    recipe = runpy.run_path(str(RECIPE))
    bin_bases, length, window, motif = (recipe[name] for name in ("BIN", "LENGTH", "WINDOW", "MOTIF"))
    recipe["make_data"](tmp_path)
    text = Genome(tmp_path / "g.fa").fetch("c0", 0, length)
    local, remembered = (
        open_signal(tmp_path / f"{name}.bedgraph").bins(Interval("c0", 0, length), bin_bases)
        for name in recipe["TRACKS"]
    )
    with_motif = np.array([motif in text[at : at + bin_bases] for at in range(0, length, bin_bases)])
    assert local[with_motif].mean() > 5 and local[~with_motif].mean() < 0.5
    starts = range(0, length, window)
    kinds = np.repeat([text[at:].startswith(recipe["MARKERS"][0]) for at in starts], window // bin_bases)
    assert 0 < kinds.mean() < 1
    assert remembered[with_motif & kinds].mean() > 5 and remembered[with_motif & ~kinds].mean() < 0.5
    for segments in recipe["STAGES"]:
        rows = (tmp_path / f"windows{segments}.bed").read_text().splitlines()
        assert len(rows) == recipe["CONTIGS"] * len(starts) and rows[1] == f"c0\t{window}\t{window + 512 * segments}"
