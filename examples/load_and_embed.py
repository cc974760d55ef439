# %% [markdown]
# # Load a model, get vectors, look inside
#
# This notebook uses the small model that comes with Longstrand, and a made-up genome. Put your own files in
# their place.

# %%
import longstrand as ls

model = ls.load_model("mixed_6mer_1m")
print(f"{model.num_parameters():,} parameters; {len(model.tokenizer.vocab):,} tokens")

# %% [markdown]
# ## Vectors
#
# One vector for each sequence, in the order of the table. `pooling="mean"` averages over the tokens of a sequence.

# %%
import polars as pl

table = pl.read_csv("data/coding/train.csv")
vectors = ls.embed(model, table["sequence"], pooling="mean")
vectors.shape

# %% [markdown]
# A map of the vectors in two dimensions. If the classes separate here, a simple classifier on the vectors will work.

# %%
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

figure = Figure(figsize=(5, 4), layout="constrained")
axes = figure.add_subplot(xlabel="first component", ylabel="second component")
points = PCA(2).fit_transform(vectors)
for label in ("coding", "other"):
    rows = (table["label"] == label).to_numpy()
    axes.scatter(points[rows, 0], points[rows, 1], s=12, label=label)
axes.legend()
figure

# %% [markdown]
# ## What the model expects at each base
#
# Each base is hidden in turn, and the model gives a probability to each letter. The first row is the sequence. In
# the second row a letter is as tall as its probability. The third row is the probability of the true letter: the model
# reads six bases as one token, and is sure about few of them.

# %%
import numpy as np
from longstrand.genome.fasta import Genome

sequence = Genome("data/peaks/genome.fa").fetch("chr1", 2200, 2320)
expected = ls.base_probabilities(model, sequence)
true = expected[np.arange(len(sequence)), ["ACGT".index(base) for base in sequence]]
rows = [
    ls.Ruler(sequence),
    ls.Logo(expected, "probability", kind="height"),
    ls.Track(true, "of the true base", kind="fill"),
]
ls.plot([*rows, ls.Tokens(model.tokenizer.encode(sequence).offsets)], "chr1:2,201-2,320")
