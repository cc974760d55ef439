# %% [markdown]
# # Fine-tune on my table
#
# A table with the columns `sequence` and `label` is enough. Here three tables are given, because the rows were split by
# chromosome. With one table, Longstrand splits the rows itself, and keeps identical sequences together.

# %%
import longstrand as ls

# %% [markdown]
# ## Train
#
# LoRA trains few weights and keeps the others. The best checkpoint on the validation rows is measured once on the test
# rows. Without `epochs` and `learning_rate`, a short search on the validation rows chooses them.

# %%
given = {"valid": "data/coding/valid.csv", "test": "data/coding/test.csv"}
run = ls.finetune(
    "mixed_6mer_1m",
    train="data/coding/train.csv",
    data=given,
    output="run",
    method="lora",
    epochs=3,
    learning_rate=3e-3,
)

# %% [markdown]
# ## Is it good?
#
# A k-mer regression was trained on the same rows. With 32 test rows the 95 % intervals are wide: do not believe a
# difference that is much smaller. If the k-mer regression is as good, use it. `run/report.html` shows more.

# %%
from longstrand.report.sections import metric_rows

found = {"LoRA": run.report, **run.report["baselines"]}
rows = {name: metric_rows(name, [entry["test"]])[0] for name, entry in found.items()}
for name, row in rows.items():
    print(f"{name:10} {row.metric} {row.value:.2f} ({row.low:.2f} to {row.high:.2f})")

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(5, 3), layout="constrained")
axes = figure.add_subplot(xlabel="training step", ylabel="loss")
for name, key in (("training_loss", "loss"), ("curve", "eval_loss")):
    points = [row for row in run.report[name] if key in row]
    axes.plot([row["step"] for row in points], [row[key] for row in points], marker="o", label=key)
axes.legend()
figure

# %% [markdown]
# ## Predict
#
# One row for each sequence, one column for each class.

# %%
ls.predict("run", "data/coding/test.csv")[:3]
