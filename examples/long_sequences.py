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
# 30,000 bases in one piece, one vector for each base.

# %%
from longstrand.genome.fasta import Genome

genome = Genome("data/peaks/genome.fa")
chromosome = genome.fetch("chr4", 0, genome.contigs["chr4"])
(answer,) = ls.iter_predict(model, [chromosome], output="embeddings", pooling="bases")
answer.values.shape

# %% [markdown]
# The first two principal components of the vectors, averaged over 100 bases, beside the genes. Nothing was trained for
# this picture.

# %%
from longstrand.genome.annotation import read_annotation
from sklearn.decomposition import PCA

binned = answer.values.reshape(-1, 100, answer.values.shape[1]).mean(axis=1)
track = ls.Track(PCA(2).fit_transform(binned), "component", bin_size=100, labels=("first", "second"))
ls.plot([track, ls.Genes(read_annotation("data/genes.gff3"))], f"chr4:1-{len(chromosome)}")

# %% [markdown]
# ## Train with memory
#
# The question here: does a gene cover the middle of a window of 1,200 bases? That is two segments. Later the model
# reads rows of any length. This run is too short to learn much; it shows how it is done.

# %%
import polars as pl

genes = [(item.chrom, item.start, item.end) for item in read_annotation("data/genes.gff3") if item.kind == "gene"]
rows = []
for chrom, length in genome.contigs.items():
    for start in range(0, length - 1200, 1200):
        inside = any(where == chrom and left <= start + 600 < right for where, left, right in genes)
        rows.append((chrom, start, start + 1200, "gene" if inside else "other"))
pl.DataFrame(rows, schema=["chrom", "start", "end", "label"], orient="row").write_csv("rows.csv")

where = {"fasta": "data/peaks/genome.fa", "window": 1200, "valid_chroms": ["chr3"], "test_chroms": ["chr4"]}
short = {"baselines": False, "resamples": 0, "page": False}
given = {"data": where | {"max_train_rows": 32}, "memory": memory, "evaluation": short}
run = ls.finetune("mixed_6mer_1m", train="rows.csv", output="run", epochs=1, learning_rate=1e-3, **given)
ls.predict("run", [chromosome]).shape
