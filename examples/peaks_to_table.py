# %% [markdown]
# # From peaks.bed to an honest table
#
# Does a language model know something about my peaks that simple models do not? The folder `data/peaks` holds a genome
# and `peaks.bed`. The sequences of the peaks are compared with random pieces of the same length and GC content. Whole
# chromosomes are kept for validation and test.

# %%
import longstrand as ls

# %% [markdown]
# One call trains everything: the model, the same network from a random start, and baselines without a language model.
# The protocol is short here, so that the example runs in seconds. Leave the last line out for a real run, and give more
# seeds.

# %%
short = {"epochs": 1, "cnn_epochs": 1, "resamples": 200, "probe": {"folds": 2, "trials": 2}}
table = ls.benchmark(
    "data/peaks", ["mixed_6mer_1m"], output="table", methods=["probe"], baselines=["majority", "kmer", "onehot"],
    build_options={"window": 200, "valid_chroms": "chr3", "test_chroms": "chr4"},
    protocol=short,
)  # fmt: skip
table = table.sort("value", descending=True)
table.select("method", "group", "value", "low", "high")

# %% [markdown]
# Each line has its 95 % interval. The report (`table/report.html`) also has paired tests, costs, and what GC content
# alone says about the labels.

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(6, 2.5), layout="constrained")
axes = figure.add_subplot(xlabel=table["metric"][0])
for place, row in enumerate(table.reverse().iter_rows(named=True)):
    axes.plot([row["low"], row["high"]], [place, place], color="#9aa3ab", lw=3)
    axes.plot([row["value"]], [place], "o", color="#0b6e75" if row["group"] == "model" else "#d9822b")
axes.set_yticks(range(len(table)), table["method"].reverse())
figure
