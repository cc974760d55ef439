"""What the shipped checkpoint says about human variants: BRCA1 saturation editing and a panel of 300 people.

    LONGSTRAND_DATA=folder python recipes/variants.py OUTPUT [brca1] [perplexity] [percentiles]

The checkpoint has seen no vertebrate DNA: its AUROC is expected to be that of chance. What this shows is that scores of
shared windows agree with those of centred ones, how scores spread by kind of change, and what trivial baselines reach.
Everything resumes.
"""

from __future__ import annotations

import gzip
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

import longstrand as ls
from longstrand.genome.fasta import Genome
from longstrand.genome.variants import KINDS, Variant
from longstrand.genome.vcf import open_vcf
from longstrand.variants.calibrate import calibrate
from longstrand.variants.measure import evaluate_variants, snp_perplexity

MODEL = "mixed_6mer_1m"
BRCA1_START = 41_100_000
PANEL_START = 1_000_000


def brca1(data: Path, folder: Path) -> None:
    """Rank loss of function, in all and within each consequence, beside the baselines."""
    genome = Genome(data / "variants" / "brca1_hg19_200kb.fa.gz")
    (chrom,) = genome.contigs
    table = pl.read_csv(data / "variants" / "brca1_sge.csv.gz").filter(pl.col("class").is_in(["FUNC", "LOF"]))
    table = table.select(
        pl.lit(chrom).alias("chrom"),
        (pl.col("pos_hg19") - BRCA1_START).alias("pos"),
        "ref",
        "alt",
        "class",
        "consequence",
    )
    table.write_csv(folder / "brca1.tsv", separator="\t")
    calibrate(MODEL, folder / "background.parquet", genome=genome, num=1000, seed=0)
    found = {}
    for windows in ("centred", "grid"):
        output = folder / f"brca1_{windows}.tsv"
        options = {"background": folder / "background.parquet"} if windows == "centred" else {}
        ls.score_variants_file(MODEL, folder / "brca1.tsv", output, genome=genome, windows=windows, **options)
        found[windows] = pl.read_csv(output, separator="\t")
    one, other = (table["llr"].to_numpy() for table in found.values())
    print(f"BRCA1, {len(one)} SNVs: grid against centred windows: correlation {np.corrcoef(one, other)[0, 1]:.3f}, "
          f"mean difference {np.abs(one - other).mean():.3f} (standard deviation of llr {one.std():.3f})")  # fmt: skip
    shares = np.quantile(found["centred"]["llr_pct"].to_numpy(), [0.05, 0.25, 0.5, 0.75, 0.95]).round(3).tolist()
    print("percentiles of its scores among 800 random SNVs of the region (5, 25, 50, 75, 95 %):", shares)
    ranked = evaluate_variants(
        folder / "brca1_centred.tsv", label="class", positive="LOF", genome=genome, consequence="consequence"
    )
    ranked.write_csv(folder / "brca1_ranking.tsv", separator="\t", float_precision=3)
    with pl.Config(tbl_rows=99, tbl_cols=9):
        print(ranked.filter(pl.col("num_positive") >= 10).drop("auprc_low", "auprc_high"))


def panel(data: Path, folder: Path) -> tuple[Path, Path]:
    """Give the panel's VCF with the positions of its genome, and that genome."""
    with gzip.open(data / "variants" / "chr20_b37_1-2Mb_300samples_phased.vcf.gz", "rb") as source:
        cells = [line.split(b"\t", 2) if line.startswith(b"20\t") else line for line in source]
    lines = [one if isinstance(one, bytes) else b"z\t%d\t%s" % (int(one[1]) - PANEL_START, one[2]) for one in cells]
    (folder / "panel.vcf").write_bytes(b"".join(lines))
    return folder / "panel.vcf", data / "genomes" / "human_b37_chr20_1000000-2000000.fa.gz"


def perplexity(data: Path, folder: Path) -> None:
    """Compute the perplexity at SNVs of people by frequency."""
    vcf, genome = panel(data, folder)
    found = snp_perplexity(MODEL, vcf, genome=genome, num=1500)
    found.write_csv(folder / "panel_perplexity.tsv", separator="\t", float_precision=4)
    with pl.Config(tbl_rows=99, tbl_cols=9):
        print(found)


def percentiles(data: Path, folder: Path) -> None:
    """Say where variants of people lie in a background of random ones, by kind."""
    vcf, genome = panel(data, folder)
    kinds = {kind: [] for kind in KINDS}
    for one in open_vcf(vcf):
        for alt in one.alts:
            variant = Variant(one.chrom, one.start, one.ref, alt)
            kinds[variant.kind].append(str(variant))
    some = [text for texts in kinds.values() for text in texts[:: max(1, len(texts) // 150)]]
    background = folder / "panel_background.parquet"
    calibrate(MODEL, background, genome=genome, num=1000, seed=0)
    table = ls.score_variants(MODEL, some, genome=genome, background=background)
    places = table.select("chrom", "pos", "ref", "alt").iter_rows()
    table = table.with_columns(kind=pl.Series([Variant(*place).kind for place in places]))
    print("percentiles of people's variants among random ones of the same kind (5, 25, 50, 75, 95 %):")
    for kind, score in product(KINDS, ("llr", "flank")):
        values = table.filter(pl.col("kind") == kind)[f"{score}_pct"].drop_nulls()
        if len(values):
            shares = np.quantile(values.to_numpy(), [0.05, 0.25, 0.5, 0.75, 0.95]).round(3).tolist()
            print(f"  {kind}, {score}: {len(values)} variants: {shares}")


if __name__ == "__main__":
    root, target = Path(os.environ["LONGSTRAND_DATA"]) / "data", Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    parts = {part.__name__: part for part in (brca1, perplexity, percentiles)}
    for name in sys.argv[2:] or parts:
        parts[name](root, target)
