"""Settings of training runs: the whole text of ``longstrand finetune`` or ``pretrain --config run.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from longstrand.config import StrictModel
from longstrand.data.corpus import GenomeEntry
from longstrand.data.genomes import ContigRules, Sampling
from longstrand.data.labelled_files import LabelColumns, Words
from longstrand.data.masking import MaskingConfig
from longstrand.genome.haplotypes import CallOptions
from longstrand.training.curriculum import MemoryTraining
from longstrand.training.methods import FinetuneMethod


class VariantsConfig(CallOptions):
    """People whose haplotypes are read in place of the reference."""

    path: Path = Field(description="phased VCF or BCF of the genome, with genotypes")
    weighting: Literal["individuals", "distinct"] = Field(
        "individuals", description="every haplotype is as likely, or every different sequence of a window"
    )
    min_frequency: float = Field(0.0, ge=0, lt=1, description="rarer alleles among these people are left out")


def _vcf_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | Path) else value


PeopleField = Annotated[VariantsConfig | None, BeforeValidator(_vcf_alone)]
"""Settings of people, or the path of their VCF alone."""


SIGNALS = ["transform", "statistic", "uncovered", "jitter", "fold"]


class DataSettings(StrictModel):
    """Which labelled sequences are read, and how they are split."""

    train: Path = Field(
        description="CSV, TSV or Parquet table (sequence,label), or intervals (BED, or chrom,start,end,label)"
    )
    valid: Path | None = Field(None, description="validation rows, in the same form; else they are split off")
    test: Path | None = Field(None, description="test rows, in the same form; else they are split off")
    columns: LabelColumns = Field(default_factory=LabelColumns)
    problem: Literal["single_label", "multi_label", "regression", "token"] | None = Field(
        None, description="kind of problem; inferred from the training table if absent"
    )
    class_names: Words | None = Field(None, description="names of the classes or outputs, in order")
    class_names_file: Path | None = Field(None, description="file with them: one a line, or a table label,label_name")
    fasta: Path | None = Field(None, description="genome of the intervals")
    window: int | None = Field(
        None, ge=1, description="bases around the centre of each interval; default: the interval"
    )
    exact_text: bool = Field(
        False, description="give sequences to the tokenizer as they are; default: upper case, unknown letters as N"
    )
    negative_ratio: int = Field(0, ge=0, description="GC- and length-matched random negatives for each interval")
    valid_chroms: Words = Field((), description="chromosomes for validation")
    test_chroms: Words = Field((), description="chromosomes for the test")
    valid_fraction: float = Field(0.1, gt=0, lt=1, description="share split off for validation, if nothing else says")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="share split off for the test, if nothing else says")
    split_seed: int = Field(0, ge=0, description="seed of the split, apart from the training seed")
    max_train_rows: int | None = Field(
        None, ge=2, description="use at most this many training rows, chosen by split_seed"
    )
    piece_bases: int | None = Field(
        None, ge=2, description="token problems: cut longer sequences into pieces of this size"
    )

    bin_bases: int | None = Field(
        None, ge=1, description="labels are numbers for bins of this many bases, joined by ';' in a column a target"
    )
    variants: PeopleField = Field(
        None, description="VCF of people whose haplotypes the training intervals are read from; labels are carried over"
    )
    bin_loss: Literal["counts", "multinomial", "squared"] = Field(
        "counts", description="bins: Poisson, Poisson of the sum and multinomial along the bins, or squared error"
    )
    tracks: tuple[Path, ...] = Field(
        (), description="signal tracks (BigWig, bedGraph) that are learned bin by bin in the intervals, or targets.txt"
    )
    transform: Literal["standard", "none", "published", "current"] = Field(
        "standard",
        description="tracks: clip at 99.9 % and divide by the mean that is not 0; targets.txt: Borzoi's forms",
    )
    statistic: Literal["mean", "sum"] = Field("mean", description="tracks: over the bases of a bin")
    uncovered: Literal["zero", "missing"] = Field("zero", description="tracks: what bases without a value are")
    jitter: int | None = Field(
        None, ge=0, description="tracks: training windows move by up to so many bases; default: a bin"
    )
    fold: int | None = Field(
        None,
        ge=0,
        le=4,
        description="tracks: the fifth of the chromosomes for the test; the next one is for validation",
    )

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if self.window is not None and self.fasta is None:
            raise ValueError("window needs fasta, the genome that the intervals lie on")
        if self.variants is not None and self.fasta is None:
            raise ValueError("variants need fasta, the genome, and rows that are intervals on it")
        if self.fasta is None:
            self.refuse_given(["negative_ratio"], "random negatives need fasta, the genome")
        if not self.tracks:
            self.refuse_given(SIGNALS, "these are for signal tracks (data.tracks)")
        elif self.fasta is None:
            raise ValueError("tracks need fasta, the genome that tracks and intervals lie on")
        if self.fold is not None and (self.valid_chroms or self.test_chroms):
            raise ValueError("the split is given twice: by fold and by chromosomes; choose one")
        if self.bin_bases is None and not self.tracks:
            self.refuse_given(["bin_loss"], "there are no bins without bin_bases")
        if self.class_names is not None and self.class_names_file is not None:
            raise ValueError("give class_names or class_names_file, not both")
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction leave nothing to train on")
        return self


class ModelSettings(StrictModel):
    """The model that is fine-tuned."""

    path: Path = Field(description="model folder (or hub id) with its tokenizer")
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: same architecture without the learned weights, as the control"
    )
    pooling: Literal["cls", "mean", "max", "mean_all"] = Field(
        "mean", description="vector of a sequence; mean and max leave special tokens out, mean_all does not"
    )
    form: Literal["linear", "pooler"] = Field("linear", description="pooler: dense + tanh before the output")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout during fine-tuning; default: the model's own")


class Optimisation(StrictModel):
    """What all kinds of training have in common."""

    batch_size: int = Field(32, gt=0, description="sequences per optimizer step, over all devices")
    micro_batch_size: int | None = Field(
        None, gt=0, description="sequences per forward pass and device; default: batch_size / devices"
    )
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0, description="gradient clipping; 0: off")
    precision: Literal["fp32", "bf16"] = "fp32"
    pack: bool = Field(False, description="rows one after the other, not padded: same results; for CPUs")
    seed: int = Field(0, ge=0, description="of new weights, order, masks and dropout")
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    threads: int | None = Field(None, gt=0, description="CPU threads; results are bit-identical only for equal numbers")
    num_workers: int = Field(0, ge=0, description="processes that make batches")
    log_every: int = Field(20, gt=0)
    tensorboard: bool = Field(False, description="also write events for TensorBoard (an extra)")

    @model_validator(mode="after")
    def _check_sizes(self) -> Optimisation:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}")
        return self


class TrainSettings(Optimisation):
    """Optimisation, evaluation during training, and saving."""

    epochs: int | None = Field(
        None, gt=0, description="passes over the training rows, at most; default: 30 for up to 1,000 rows, down to 3"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="default: three are tried for a third of the epochs, validation rows choose"
    )
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of all steps")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes count as much")
    strand: Literal["+", "both"] | None = Field(
        None, description="both: each sequence is read from a random strand; default: both, + for labels along it"
    )
    max_tokens: int | None = Field(None, ge=4, description="longest input in tokens; default: what the model can read")
    on_long: Literal["truncate", "refuse"] = Field("truncate", description="what happens to longer sequences")
    metric: str | None = Field(None, description="chooses the best checkpoint; default by problem, 'loss' is allowed")
    evaluations_per_epoch: int = Field(1, gt=0)
    patience: int | None = Field(
        None, ge=0, description="stop after so many evaluations without improvement; 0: never; default: epochs / 3"
    )


class EvaluationSettings(StrictModel):
    """How the best model is measured, once, at the end."""

    strand: Literal["+", "both"] | None = Field(
        None, description="both: predictions of the two strands are averaged; default: as in training"
    )
    resamples: int = Field(1000, ge=0, description="bootstrap resamples of the 95 % intervals; 0: none")
    baselines: bool = Field(True, description="also fit k-mer regression and the majority on the same rows")
    kmer: int = Field(6, ge=1, le=8, description="k of the k-mer regression")
    cnn: bool = Field(False, description="tracks: also train a small convolutional network as a baseline")
    annotation: Path | None = Field(None, description="tracks: GTF or GFF3 for the sums over exons of genes")
    page: bool = Field(True, description="write report.html")
    predictions: Literal["csv", "parquet"] = Field("csv", description="format of the predictions of the test rows")
    batch_tokens: int = Field(16_384, gt=0, description="most tokens in a batch of the evaluation")

    @model_validator(mode="after")
    def _check(self) -> EvaluationSettings:
        if not self.baselines:
            self.refuse_given(["kmer"], "the baselines are off")
        return self


class FinetuneConfig(StrictModel):
    """A complete fine-tuning run."""

    output: Path = Field(description="run folder; the same command resumes it")
    model: ModelSettings
    data: DataSettings
    method: FinetuneMethod = Field(
        default_factory=FinetuneMethod, description="full, frozen, lora, ia3, or {peft: NAME, ...}"
    )
    memory: MemoryTraining | None = Field(
        None, description="recurrent memory: rows of any length are read in segments; see the model's own settings"
    )
    training: TrainSettings = Field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @field_validator("model", mode="before")
    @classmethod
    def _accept_model_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @field_validator("data", mode="before")
    @classmethod
    def _accept_table_path(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _check(self) -> FinetuneConfig:
        if self.method.is_adapter and self.model.init == "random":
            raise ValueError("an adapter on random weights could not be loaded again; use method full or frozen")
        if self.memory is not None and self.training.pack:
            raise ValueError("memory reads rows in segments, which cannot be packed; set training.pack=false")
        return self


class HoldOutConfig(StrictModel):
    """What the model never sees, and is measured on."""

    contigs: tuple[str, ...] = Field((), description="whole contigs")
    intervals: Path | None = Field(None, description="BED file of intervals")
    fraction: float = Field(
        0.05, ge=0, lt=0.5, description="share of each genome, if neither contigs nor intervals are given"
    )

    @model_validator(mode="after")
    def _check(self) -> HoldOutConfig:
        if self.contigs or self.intervals is not None:
            self.refuse_given(["fraction"], "contigs or intervals say what is held out")
        return self


class DataConfig(StrictModel):
    """Which DNA is read, and how windows are cut from it."""

    genomes: tuple[GenomeEntry, ...] = Field((), description="FASTA files, or a corpus file that lists them")
    sequences: tuple[Path, ...] = Field((), description="training tables instead of genomes; labels are not read")
    sequence_column: str = Field("sequence", description="column of data.sequences")
    sampling: Sampling = Field(default_factory=Sampling, description="order random: how often each genome is read")
    contigs: ContigRules = Field(default_factory=ContigRules, description="which contigs are read")
    one_per_genus: bool = Field(False, description="of each genus (first word of the species) one species, drawn")
    hold_out: HoldOutConfig = Field(default_factory=HoldOutConfig)
    strand: Literal["+", "-", "both"] = Field("both", description="both: each window is read from a random strand")
    order: Literal["random", "epoch"] = Field(
        "epoch",
        description="epoch: windows cover every base in turn; with BPE neighbours overlap, the report says by how much",
    )
    sentences: tuple[int, int] | None = Field(
        None, description="GENA-LM: pieces of this many bases are tokenized apart"
    )
    num_bases: int | None = Field(
        None, ge=16, description="bases read per window; by default enough to fill max_tokens"
    )
    start: int = Field(
        0, ge=0, description="epoch: a window leaves out 0 to this many bases at the beginning of its chunk, drawn anew"
    )
    overlap: int | None = Field(
        None, ge=0, description="epoch: bases that neighbouring chunks share; a chunk has num_bases + start bases"
    )

    variants: PeopleField = Field(None, description="VCF of people whose haplotypes are read in place of the reference")

    @model_validator(mode="after")
    def _check_order(self) -> DataConfig:
        if bool(self.genomes) == bool(self.sequences):
            raise ValueError("give genomes (--genome) or sequences (--sequences), one of the two")
        if not self.sequences:
            self.refuse_given(["sequence_column"], "there are no sequences")
        else:
            self.refuse_given(["sampling", "contigs", "one_per_genus", "variants"], "it is for genomes")
        if self.variants is not None and len(self.genomes) > 1:
            raise ValueError("data.variants belongs to one genome; give that genome alone")
        if self.order == "epoch" and self.sampling != Sampling():
            raise ValueError("order epoch reads every base equally often; with data.sampling set data.order=random")
        if self.order == "random" and (self.start or self.overlap is not None):
            raise ValueError("data.start and data.overlap lay out the chunks of data.order=epoch; leave them out")
        return self

    @field_validator("sequences", mode="before")
    @classmethod
    def _accept_one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @field_validator("genomes", mode="before")
    @classmethod
    def _accept_plain_paths(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            value = [value]
        if isinstance(value, list | tuple):
            return [{"fasta": entry} if isinstance(entry, str | Path) else entry for entry in value]
        return value


class TokenizerConfig(StrictModel):
    """A tokenizer folder, or how to make one."""

    path: Path | None = Field(None, description="folder with tokenizer.json; otherwise one is made from the genomes")
    kind: Literal["bpe", "kmer"] = Field("bpe", description="kind of the tokenizer that is made")
    vocab_size: int = Field(4096, gt=8, description="BPE: tokens incl. special ones")
    k: int = Field(6, ge=1, le=8, description="k-mers: bases per token")
    overlapping: bool = Field(False, description="k-mers: one token a base (DNABERT) instead of one every k bases")
    training_bases: int = Field(
        20_000_000, gt=0, description="BPE: bases sampled for training it, at most those there are"
    )
    evenly: bool = Field(False, description="BPE: as many bases of each genome; default: as often as in training")

    @model_validator(mode="after")
    def _check(self) -> TokenizerConfig:
        if self.path is None:
            of_others = {"bpe": ["k", "overlapping"], "kmer": ["vocab_size", "training_bases", "evenly"]}[self.kind]
            self.refuse_given(of_others, f"the tokenizer that is made is of the kind {self.kind}")
        return self


class ModelConfig(StrictModel):
    """The encoder: a preset with changes, or a checkpoint to go on from."""

    preset: str = Field("mini", description="size of a new model; see 'longstrand pretrain --list-presets'")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="fields of the model config that differ from the preset"
    )
    start_from: Path | None = Field(None, description="checkpoint folder whose weights are the start")

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.start_from is not None and {"preset", "settings"} & self.model_fields_set:
            raise ValueError("a checkpoint to start from has its own size; leave out preset and settings")
        return self


class TrainingConfig(Optimisation):
    """Optimisation, precision, evaluation and saving."""

    max_tokens: int = Field(512, ge=8, description="tokens in a window, incl. special ones")
    steps: int = Field(10_000, gt=0, description="optimizer steps")
    learning_rate: float = Field(5e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0, description="default: a tenth of the steps, 500 at most")
    adam_beta2: float = Field(0.98, gt=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="several GPUs: the whole model in each, or its weights shared out over all (FSDP2)"
    )
    compile: bool = Field(False, description="torch.compile; needs a C++ compiler on CPU")
    gradient_checkpointing: bool = Field(False, description="less memory for about a third more time")
    num_workers: int = Field(1, ge=0, description="processes that read, tokenize and mask")
    eval_every: int = Field(500, gt=0)
    eval_windows: int = Field(256, gt=0, description="hold-out windows in each evaluation, at most")
    save_every: int = Field(500, gt=0)
    keep_checkpoints: int = Field(2, gt=0)
    snapshots: tuple[int, ...] = Field((), description="steps after which the model is also kept, for learning curves")
    references: bool = Field(True, description="count tables of the same tokens, as the yardstick of the hold-out loss")


class PretrainConfig(StrictModel):
    """A complete pre-training run."""

    output: Path = Field(description="run folder; the same command resumes it")
    data: DataConfig
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    masking: MaskingConfig = Field(default_factory=MaskingConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    memory: MemoryTraining | None = Field(None, description="recurrent memory; windows are its segments or curriculum")
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @model_validator(mode="after")
    def _check(self) -> PretrainConfig:
        training, memory = self.training, self.memory
        if self.model.start_from is not None and self.tokenizer.path is None and self.tokenizer.model_fields_set:
            raise ValueError("a checkpoint to start from has its own tokenizer; leave out what makes one")
        if memory is not None and memory.most_segments is None:
            raise ValueError("memory needs segments or a curriculum, to say how long the windows are")
        if memory is not None and training.parallel == "fsdp":
            raise ValueError(
                "with memory, processes read different numbers of segments, and shared weights would wait for ever; "
                "use training.parallel=ddp"
            )
        if training.compile and training.pack:
            raise ValueError("packed rows differ in length, and compiled code would be made anew for each; choose one")
        if memory is not None and training.pack:
            raise ValueError("memory reads rows in segments, which cannot be packed; set training.pack=false")
        if memory is not None and "max_tokens" in training.model_fields_set:
            raise ValueError("the length of windows is given twice: by memory and by training.max_tokens; choose one")
        if training.warmup_steps is not None and training.warmup_steps > training.steps:
            raise ValueError(f"training.warmup_steps {training.warmup_steps} exceeds training.steps {training.steps}")
        return self
