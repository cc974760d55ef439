# %% [markdown]
# # A published checkpoint in Hugging Face code
#
# `import longstrand.auto` registers our classes. After that, the code that you know from `transformers` and `peft`
# works: `Auto` classes, `pipeline`, `Trainer`, adapters. No code of the checkpoint is executed.

# %%
import longstrand as ls
import longstrand.auto
from longstrand.models.published.convert import convert_folder

# %% [markdown]
# The next line writes a folder in the format of Nucleotide Transformer v1. It takes the place of a download. Then we
# convert it, as you would convert a published model. Every tensor is accounted for, or the conversion is refused.

# %%
convert_folder("mixed_6mer_1m", "published", target="published", family="nt_v1")
convert_folder("published", "model", target="longstrand").family

# %% [markdown]
# ## Guess a hidden token

# %%
from transformers import pipeline

fill = pipeline("fill-mask", model="model", device="cpu")
[(found["token_str"], round(found["score"], 3)) for found in fill("ACGTAC[MASK]TTTGCA", top_k=3)]

# %% [markdown]
# ## Train a classifier with `Trainer` and LoRA
#
# `target_modules` names the layers of the encoder that get an adapter.

# %%
import polars as pl
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

tokenizer = AutoTokenizer.from_pretrained("model")
network = AutoModelForSequenceClassification.from_pretrained(
    "model", new_head={"problem": "single_label", "num_outputs": 2, "pooling": "mean"}
)
network = get_peft_model(network, LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=["classifier"]))
network.print_trainable_parameters()

# %%
table = pl.read_csv("data/coding/train.csv")
rows = [{**tokenizer(text), "labels": int(label == "coding")} for text, label in zip(table["sequence"], table["label"])]
arguments = TrainingArguments(
    "trained",
    num_train_epochs=1,
    learning_rate=3e-3,
    logging_steps=4,
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(network, arguments, train_dataset=rows, processing_class=tokenizer)
trainer.remove_callback(PrinterCallback)
trainer.train().training_loss

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(5, 3), layout="constrained")
axes = figure.add_subplot(xlabel="training step", ylabel="loss")
logged = [row for row in trainer.state.log_history if "loss" in row]
network.save_pretrained("adapter")
axes.plot([row["step"] for row in logged], [row["loss"] for row in logged])
figure
