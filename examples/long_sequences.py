# %% [markdown]
# # Long sequences
#
# Our small model was trained on windows of 756 bases. Two lines of settings turn it into a model with recurrent memory:
# it reads a sequence segment by segment, and passes a few memory tokens on.

# %%
import longstrand as ls

memory = {"num_tokens": 4, "segment_length": 128}
model = ls.load_model("mixed_6mer_1m", changes={"memory": memory})

# %% [markdown]
# ## Read a whole chromosome
#
# 30,000 bases in one piece. Memory use does not grow with the length.

# %%
from longstrand.genome.fasta import Genome

genome = Genome("data/peaks/genome.fa")
chromosome = genome.fetch("chr4", 0, genome.contigs["chr4"])
ls.embed(model, [chromosome]).shape

# %% [markdown]
# ## Train with memory
#
# The question: does a gene cover the middle of a window of 1,200 bases? That is two segments. The training is short.

# %%
import polars as pl
from longstrand.genome.annotation import read_annotation

annotation = read_annotation("data/genes.gff3")
genes = [(item.chrom, item.start, item.end) for item in annotation if item.kind == "gene"]
rows = []
for chrom, length in genome.contigs.items():
    for start in range(0, length - 1200, 900):
        inside = any(where == chrom and left <= start + 600 < right for where, left, right in genes)
        rows.append((chrom, start, start + 1200, "gene" if inside else "other"))
pl.DataFrame(rows, schema=["chrom", "start", "end", "label"], orient="row").write_csv("rows.csv")

where = {"fasta": "data/peaks/genome.fa", "window": 1200, "valid_chroms": ["chr3"], "test_chroms": ["chr4"]}
run = ls.finetune(
    "mixed_6mer_1m",
    train="rows.csv",
    data=where,
    output="run",
    memory=memory,
    epochs=2,
    learning_rate=2e-3,
    evaluation={"baselines": False, "resamples": 200},
)
run.report["test"]["metrics"]["roc_auc"]

# %% [markdown]
# ## Look along the chromosome
#
# No part of this chromosome was used in training. The upper row is the answer for a window every 300 bases.

# %%
starts = range(0, len(chromosome) - 1200, 300)
answers = ls.predict("run", [chromosome[start : start + 1200] for start in starts])[:, 0]
track = ls.Track(answers, "probability\nof a gene", kind="fill", start=450, bin_size=300, limits=(0, 1))
ls.plot([track, ls.Genes(annotation)], f"chr4:1-{len(chromosome)}")
