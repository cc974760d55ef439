"""Does the shipped checkpoint know elements? Attention, embeddings and reconstruction on yeast and worm annotation.

    python recipes/elements.py --output runs/elements

Windows of 756 bases (what the checkpoint was trained on) at random places: yeast's chromosomes IV and XV, which it
never saw, and the worm's pieces, of which it saw most. The three commands below are run on each, as a user would.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import polars as pl

from longstrand.cli.main import main as longstrand
from longstrand.genome.fasta import Genome
from longstrand.runtime import generator

DATA = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data" / "genomes"
GENOMES = {
    "yeast": ("scer_R64-1-1.fa.gz", "scer_R64-1-1.gtf.gz", ("IV", "XV"), "CDS,start_codon"),
    "worm": ("celegans_1pct.fa.gz", "celegans_1pct.gff3.gz", ("I", "II", "III", "IV", "V", "X"), "CDS,intron"),
}
BASES = 756


def windows(genome: Path, contigs: tuple[str, ...], number: int, target: Path) -> None:
    """Draw windows on both strands."""
    sizes, random = Genome(genome).contigs, generator(0, number, "windows of elements")
    with open(target, "w", encoding="utf-8") as file:
        for row in range(number):
            contig = contigs[int(random.integers(len(contigs)))]
            start = int(random.integers(sizes[contig] - BASES))
            file.write(f"{contig}\t{start}\t{start + BASES}\tw{row}\t0\t{'+-'[int(random.integers(2))]}\n")


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
    for name, (genome, annotation, contigs, kinds) in GENOMES.items():
        if options.only not in (None, name):
            continue
        folder = options.output / name
        folder.mkdir(parents=True, exist_ok=True)
        windows(DATA / genome, contigs, options.windows, folder / "windows.bed")
        rows = (options.model, folder / "windows.bed", "--genome", DATA / genome, "--elements", DATA / annotation)
        for verb in ("attention", "elements", "reconstruction"):
            run("explain", verb, *rows, "--kind", kinds, "--output", folder / verb)
        heads = pl.read_csv(folder / "attention" / "heads.tsv", separator="\t").filter("enough")
        tests = [(heads[column] < 0.05).sum() for column in ("p_shift_all", "p_z_all")]
        print(name, f"{len(heads)} heads x elements; p_shift {tests[0]}, published z {tests[1]} below 0.05")
        print(heads.sort("effect", descending=True).head(4).select("element", "layer", "head", "effect", "p_shift_all"))
        print(pl.read_csv(folder / "elements" / "separation.tsv", separator="\t"))
        print(pl.read_csv(folder / "reconstruction" / "elements.tsv", separator="\t"))


if __name__ == "__main__":
    main()
