"""Does the shipped checkpoint tell species apart, by length, layer and divergence, beside 6-mers? (GENA-LM, figure 4)

    python recipes/species_pairs.py --output runs/species

Pairs of growing divergence (million years as TimeTree gives them, rounded), rows of the validation and test splits of
``species16_1kb``, which lie in other 20-kb blocks than its training rows. Gradient boosting over five folds, macro F1;
3-mers and 6-mers of the same bases are the trivial explanation (boosting needs 20 rows a leaf, so rare words are lost).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import polars as pl

import longstrand as ls
from longstrand.explain.embeddings import kmer_frequencies, pairs
from longstrand.runtime import provenance, write_json

DATA = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data" / "labelled" / "species" / "species16_1kb"
PAIRS = {
    ("A.thaliana", "O.sativa"): 160, ("C.elegans", "D.melanogaster"): 700, ("human", "S.cerevisiae"): 1300,
    ("M.tuberculosis", "C.crescentus"): 3000,
}  # fmt: skip


def main() -> None:
    """Measure every pair, length and layer, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/species"))
    parser.add_argument("--model", default="mixed_6mer_1m")
    parser.add_argument("--rows", type=int, default=100, help="of each species")
    parser.add_argument("--lengths", default="120,600")
    parser.add_argument("--pairs", default="0,1,2,3", help="which of the pairs, counted from 0")
    options = parser.parse_args()
    model = ls.load_model(options.model)
    every = pl.concat([pl.read_csv(DATA / f"{split}.csv.gz") for split in ("dev", "test")])
    found = []
    chosen = [list(PAIRS.items())[int(number)] for number in options.pairs.split(",")]
    for (first, second), age in chosen:
        own = pl.concat([every.filter(pl.col("name") == name).head(options.rows) for name in (first, second)])
        for length in map(int, options.lengths.split(",")):
            texts = [text[:length] for text in own["sequence"]]
            features = {
                f"layer {layer}": np.asarray(ls.embed(model, texts, pooling="mean", layer=layer)) for layer in (0, 2, 4)
            }
            features["3-mers"] = kmer_frequencies(texts, 3, both_strands=False)
            common = kmer_frequencies(texts, both_strands=False)
            features["6-mers"] = common[:, (common > 0).sum(0) >= 5]  # rarer ones cannot make a leaf of boosting
            table = pairs(features, own["name"].to_list())
            table = table.with_columns(length=pl.lit(length), million_years=pl.lit(age))
            found.append(table)
            print(table.select("a", "b", "million_years", "length", "features", "f1_macro", "fold_sd"), flush=True)
    frame = pl.concat(found)
    options.output.mkdir(parents=True, exist_ok=True)
    frame.write_csv(options.output / "pairs.tsv", separator="\t")
    write_json(options.output / "provenance.json", provenance())
    print(frame.pivot(on="features", index=["a", "b", "million_years", "length"], values="f1_macro"))


if __name__ == "__main__":
    main()
