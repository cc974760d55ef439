# %% [markdown]
# # Fine-tune on my table
#
# A table with the columns `sequence` and `label` is enough. Here a column `split` says which rows are for training,
# validation and test; without it, Longstrand splits the rows itself, and keeps identical sequences together.

# %%
import longstrand as ls

# %% [markdown]
# ## Try a probe first
#
# A probe is a linear model on the vectors of the language model. It needs seconds.

# %%
probe = ls.probe("mixed_6mer_1m", train="data/promoters.csv", output="probed", trials=4)
print(probe.summary())

# %% [markdown]
# ## Fine-tune
#
# LoRA trains few weights and keeps the others. The best checkpoint on the validation rows is measured once on the test rows.

# %%
run = ls.finetune("mixed_6mer_1m", train="data/promoters.csv", output="tuned", method="lora", epochs=2)
{name: round(entry["value"], 3) for name, entry in run.report["test"]["metrics"].items()}

# %% [markdown]
# The report (`tuned/report.html`) has 95 % intervals and a k-mer regression on the same rows. With 14 test rows the
# interval is wide: do not believe a difference that is inside it.

# %%
import json

for name, found in {"LoRA": run.report, **run.report["baselines"]}.items():
    print(name, json.dumps(found["test"]["metrics"][run.report["metric"]]))

# %% [markdown]
# ## Predict

# %%
probabilities = ls.predict("tuned", "data/promoters.csv", output="probabilities")
probabilities[:3]
