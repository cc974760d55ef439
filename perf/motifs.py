"""Time the motif scan: 500 kb of human DNA, 800 motifs of JASPAR, both strands; memelite beside it where installed."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import numpy as np

from longstrand.explain.motifs import read_motifs, write_meme
from longstrand.explain.scan import background_of, scan
from longstrand.genome.fasta import Genome
from longstrand.genome.features import write_fasta
from longstrand.runtime import data_root, machine


def main(num_bases: int = 500_000, num_motifs: int = 800, rounds: int = 3) -> None:
    data = data_root() / "data"
    motifs = read_motifs(data / "motifs" / "JASPAR2022_CORE_vertebrates_non-redundant.meme")[:num_motifs]
    genome = Genome(data / "genomes" / "human_b37_chr20_1000000-2000000.fa.gz")
    chrom = next(iter(genome.contigs))
    text = genome.fetch(chrom, 0, num_bases)
    uniform = background_of("uniform")
    scan(motifs[:1], [text[:1000]])
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        hits = scan(motifs, [text], background=uniform)
        seconds.append(time.perf_counter() - begin)
    result = {"bases": num_bases, "motifs": len(motifs), "hits": len(hits), "seconds": float(np.median(seconds))}
    if importlib.util.find_spec("memelite"):
        import tempfile

        from memelite import fimo

        with tempfile.TemporaryDirectory() as folder:
            meme, fasta = Path(folder) / "m.meme", Path(folder) / "s.fa"
            write_meme(meme, motifs)
            write_fasta(fasta, {"s": text})
            fimo(str(meme), str(fasta))
            begin = time.perf_counter()
            fimo(str(meme), str(fasta))
            result["memelite_seconds"] = time.perf_counter() - begin
    print(json.dumps(result | {"machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
