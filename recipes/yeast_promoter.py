"""One yeast promoter from start to end, as a picture: tokens, what the language model expects, why a head calls it.

    python recipes/yeast_promoter.py --output runs/promoter --picture docs/figures/yeast_promoter.png

The shipped checkpoint is fine-tuned on ``upstream_300`` (300 bases before a start codon, or elsewhere); the promoter
lies on chromosome IV, which neither training has seen. Sites are hits of JASPAR's fungal motifs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import polars as pl

import longstrand as ls
from longstrand.explain.motifs import read_motifs
from longstrand.explain.scan import background_of, scan
from longstrand.explain.tables import hits_table
from longstrand.genome.annotation import read_annotation, transcripts
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.inference.loaded import open_model
from longstrand.inference.sequences import as_records
from longstrand.questions.bases import base_probabilities
from longstrand.report.locus import Genes, Logo, Marks, Ruler, Tokens, Track, plot

DATA = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data"


SHOWN, SITES = 220, 6
"""Bases of the picture, around the best site; sites at most."""


def best_sites(table: pl.DataFrame) -> pl.DataFrame:
    """Keep the best sites that do not overlap."""
    kept: list[dict[str, object]] = []
    for row in table.sort("p").rows(named=True):
        if all(row["end"] <= one["start"] or row["start"] >= one["end"] for one in kept) and len(kept) < SITES:  # type: ignore[operator]
            kept.append(row)
    return pl.DataFrame(kept, schema=table.schema)


def main() -> None:
    """Train, explain and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/promoter"))
    parser.add_argument("--model", default="mixed_6mer_1m")
    parser.add_argument("--gene", default="YDR012W", help="on chromosome IV or XV (RPL4B)")
    parser.add_argument("--bases", type=int, default=300)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--picture", type=Path, default=Path("docs/figures/yeast_promoter.png"))
    options = parser.parse_args()
    tables = DATA / "labelled" / "yeast" / "upstream_300"
    files = {"valid": tables / "dev.csv.gz", "test": tables / "test.csv.gz"}
    report = ls.finetune(
        options.model, train=tables / "train.csv.gz", output=options.output, max_train_rows=options.rows, threads=1,
        epochs=options.epochs, learning_rate=5e-4, patience=0, pooling="mean", metric="mcc", pack=True,
        training={"strand": "both"}, evaluation={"strand": "both", "baselines": False, "page": False}, **files,
    ).report  # fmt: skip
    genome = Genome(DATA / "genomes" / "scer_R64-1-1.fa.gz")
    genes = read_annotation(DATA / "genomes" / "scer_R64-1-1.gtf.gz")
    gene = next(item for item in transcripts(genes) if options.gene in (item.gene, item.name))
    coding = [item for item in genes if item.kind == "CDS" and item.parent == gene.name]
    plus = gene.strand == "+"
    first = min(item.start for item in coding) - options.bases if plus else max(item.end for item in coding)
    region = Interval(gene.chrom, first, first + options.bases, gene.strand)
    bed = options.output / "promoter.bed"
    bed.write_text(f"{region.chrom}\t{region.start}\t{region.end}\t{options.gene}\t0\t{region.strand}\n")
    (record,) = as_records(bed, genome=genome)
    network = open_model(options.output).network
    (found,) = ls.attribute(network, [record.sequence], strand="both", baseline="mask", threads=1)
    expected = base_probabilities(open_model(options.model).network, record.sequence, strand="both")
    motifs = read_motifs(DATA / "motifs" / "JASPAR2022_CORE_fungi_non-redundant.meme")
    hits = scan(motifs, [record.sequence], threshold=1e-4, background=background_of("input", [record.sequence]))
    sites = best_sites(hits_table(hits, motifs, [record]))
    values, tokens = found.values, found.tokens
    if not plus:
        values, expected = values[::-1], expected[::-1, ::-1]
        tokens = (options.bases - tokens[:, ::-1])[::-1]
    marks = [Interval(region.chrom, a, b) for a, b in zip(sites["start"], sites["end"])]
    middle = int((sites["start"][0] + sites["end"][0]) / 2) if len(sites) else region.start + options.bases // 2
    left = min(max(region.start, middle - SHOWN // 2), region.end - SHOWN)
    shown = Interval(region.chrom, left, left + SHOWN)
    figure = plot(
        [Ruler(), Genes(genes), Tokens(tokens, start=region.start),
         Logo(np.asarray(expected), "expected\n(bits)", start=region.start),
         Track(values, "attribution", kind="fill", start=region.start),
         Marks(marks, sites["name"].to_list(), "JASPAR")],
        shown, title=f"{options.gene}: {shown}, output {found.output:.2f} (baseline {found.baseline:.2f})", width=12,
    )  # fmt: skip
    figure.savefig(options.picture, dpi=110)
    inside = np.zeros(options.bases, dtype=bool)
    for mark in marks:
        inside[mark.start - region.start : mark.end - region.start] = True
    print("test mcc", report["test"]["metrics"]["mcc"], "gap", found.relative_gap, "steps", found.steps)
    print(sites)
    if inside.any():
        print("mean attribution in sites", values[inside].mean(), "outside", values[~inside].mean())


if __name__ == "__main__":
    main()
