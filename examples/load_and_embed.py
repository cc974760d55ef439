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

table = pl.read_csv("data/coding.csv")
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
# Each base is hidden in turn, and the model says which letter it expects. Tall letters are places where it is sure.

# %%
from longstrand.genome.fasta import Genome

region = "chr1:2,201-2,320"
sequence = Genome("data/peaks/genome.fa").fetch("chr1", 2200, 2320)
expected = ls.base_probabilities(model, sequence)
tokens = model.tokenizer.encode(sequence).offsets
ls.plot([ls.Ruler(sequence), ls.Logo(expected, "expected (bits)"), ls.Tokens(tokens)], region)
