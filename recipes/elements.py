"""Does the shipped checkpoint know elements? Attention, embeddings and reconstruction on yeast and worm annotation.

    python recipes/elements.py --output runs/elements

Windows of 756 bases (what the checkpoint was trained on) at random places: yeast's chromosomes IV and XV, which it
never saw, and the worm's pieces, of which it saw most. Elements: CDS, and the 200 bases before each start codon that
lie in no CDS. The three commands are run on each, as a user would.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import polars as pl

from longstrand.cli.main import main as longstrand
from longstrand.genome.annotation import read_annotation
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.report.locus import marked
from longstrand.runtime import generator

DATA = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data" / "genomes"
GENOMES = {
    "yeast": ("scer_R64-1-1.fa.gz", "scer_R64-1-1.gtf.gz", ("IV", "XV")),
    "worm": ("celegans_1pct.fa.gz", "celegans_1pct.gff3.gz", ("I", "II", "III", "IV", "V", "X")),
}
BASES, UPSTREAM = 756, 200


def windows(genome: Path, contigs: tuple[str, ...], number: int, target: Path) -> None:
    """Draw windows on both strands."""
    sizes, random = Genome(genome).contigs, generator(0, number, "windows of elements")
    with open(target, "w", encoding="utf-8") as file:
        for row in range(number):
            contig = contigs[int(random.integers(len(contigs)))]
            start = int(random.integers(sizes[contig] - BASES))
            file.write(f"{contig}\t{start}\t{start + BASES}\tw{row}\t0\t{'+-'[int(random.integers(2))]}\n")


def elements(annotation: Path, genome: Path, target: Path) -> None:
    """Write CDS and what lies before start codons as BED."""
    sizes, coding, first = Genome(genome).contigs, [], {}
    for item in read_annotation(annotation):
        if item.kind == "CDS":
            coding.append(Interval(item.chrom, item.start, item.end))
            plus, place = item.strand == "+", item.start if item.strand == "+" else item.end
            known = first.get(item.parent, (item.chrom, plus, place))
            first[item.parent] = (item.chrom, plus, min(known[2], place) if plus else max(known[2], place))
    inside = {chrom: np.zeros(size, dtype=bool) for chrom, size in sizes.items()}
    for place in coding:
        inside[place.chrom][place.start : place.end] = True
    with open(target, "w", encoding="utf-8") as file:
        for place in coding:
            file.write(f"{place.chrom}\t{place.start}\t{place.end}\tCDS\n")
        for chrom, plus, place in first.values():
            start, end = (max(0, place - UPSTREAM), place) if plus else (place, min(sizes[chrom], place + UPSTREAM))
            free = Interval(chrom, start, end)
            for part in marked(~inside[chrom][start:end], free):
                file.write(f"{chrom}\t{part.start}\t{part.end}\tupstream\n")


def run(*words: object) -> None:
    """Run a command as a user does."""
    print("longstrand", *words, flush=True)
    try:
        longstrand(list(map(str, words)))
    except SystemExit as end:
        if end.code:
            raise


def main() -> None:
    """Run everything, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/elements"))
    parser.add_argument("--model", default="mixed_6mer_1m")
    parser.add_argument("--windows", type=int, default=120)
    parser.add_argument("--only", choices=tuple(GENOMES))
    options = parser.parse_args()
    for name, (genome, annotation, contigs) in GENOMES.items():
        if options.only not in (None, name):
            continue
        folder = options.output / name
        folder.mkdir(parents=True, exist_ok=True)
        windows(DATA / genome, contigs, options.windows, folder / "windows.bed")
        elements(DATA / annotation, DATA / genome, folder / "elements.bed")
        rows = (options.model, folder / "windows.bed", "--genome", DATA / genome, "--elements", folder / "elements.bed")
        for verb in ("attention", "elements", "reconstruction"):
            run("explain", verb, *rows, "--output", folder / verb)
        heads = pl.read_csv(folder / "attention" / "heads.tsv", separator="\t").filter("enough")
        tests = [(heads[column] < 0.05).sum() for column in ("p_shift_all", "p_z_all")]
        print(name, f"{len(heads)} heads x elements; p_shift {tests[0]}, published z {tests[1]} below 0.05")
        print(heads.sort("effect", descending=True).head(4).select("element", "layer", "head", "effect", "p_shift_all"))
        print(pl.read_csv(folder / "elements" / "separation.tsv", separator="\t"))
        print(pl.read_csv(folder / "reconstruction" / "elements.tsv", separator="\t"))


if __name__ == "__main__":
    main()
