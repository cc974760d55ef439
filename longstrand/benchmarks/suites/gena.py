"""The tasks of GENA-LM (Fishman et al. 2025) and of the recurrent-memory papers, from their published sources."""

from __future__ import annotations

from longstrand.benchmarks.suites.assays import DEEPSTARR_TARGETS, build_aparent, build_deepstarr
from longstrand.benchmarks.suites.deepsea import build_deepsea
from longstrand.benchmarks.suites.promoters import build_epd_promoters
from longstrand.benchmarks.suites.splice import build_spliceai
from longstrand.benchmarks.tasks.bins import build_bins
from longstrand.benchmarks.tasks.released import SEED
from longstrand.benchmarks.tasks.task import Option, Published, SourceFile, Task

GENA = "GENA-LM (Fishman et al. 2025)"
MEMORY = "GENA-LM with recurrent memory (Kuratov et al. 2024)"
EPD = "EPDnew, human (hg38): FASTA export of the promoters with this window, or BED of the transcription starts"
MAX_ROWS = Option(0, "at most this many rows of each split; 0: all")
AS_PUBLISHED = Option(False, "do as the published script does, flaws included")

F1_PROTOCOL = (
    "F1 over five folds in which negatives and the promoters they were made from lie in different folds, early "
    "stopping on F1"
)
PROMOTER_SCORES = {
    300: {"GENA base t2t": 0.7456, "GENA large t2t": 0.7644, "DNABERT": 0.785},
    2000: {"GENA base t2t": 0.9118, "GENA large t2t": 0.9370, "DNABERT": 0.858},
    16000: {"GENA bigbird t2t": 0.9464},
}
MEMORY_PROMOTER_SCORES = {"RMT base": 0.9370, "RMT base pre-trained": 0.9461, "RMT large": 0.9558}


def _promoters(num_bases: int) -> Task:
    published = {
        model: Published(score, "f1", GENA, F1_PROTOCOL) for model, score in PROMOTER_SCORES[num_bases].items()
    }
    if num_bases == 16000:
        published |= {
            model: Published(score, "f1", MEMORY, F1_PROTOCOL) for model, score in MEMORY_PROMOTER_SCORES.items()
        }
    return Task(
        id=f"gena/promoters_{num_bases}",
        title=f"human promoters of {num_bases:,} bases against negatives made from them",
        files=(SourceFile("{promoters}", EPD),),
        build=build_epd_promoters,
        split_rule="five folds: three for training, one for validation, one for the test",
        window=num_bases,
        published=published,
        options={
            "promoters": Option(f"hg38_promoters_len_{num_bases}.fa", "FASTA of promoters, or BED of starts"),
            "fasta": Option("", "genome of a BED file"),
            "fold": Option(1, "which of the five splits, 1 to 5"),
            "negatives": Option(
                "blocks",
                "blocks: all 20 blocks of a promoter permuted, as the paper says; blocks12: 12 of 20, as its code; "
                "genome: windows of the genome with the same GC content",
            ),
            "published": Option(False, "rows and folds of the published script: 12 of 20 blocks, folds not grouped"),
            "seed": SEED,
        },
        notes=(
            "Published folds leak: most negatives lie in another fold than the promoter they are made of.",
            "29,598 promoters; a negative made of its own blocks is told apart by where k-mers break.",
        ),
        needs="promoters of EPDnew as FASTA, or BED and the genome",
    )


def _deepsea(num_bases: int) -> Task:
    short = num_bases == 1000
    names = tuple(
        SourceFile(
            f"{split}.mat" if short else f"{split}.csv", "DeepSEA training data bundle (train, valid, test)", also=also
        )
        for split in ("train", "valid", "test")
        for also in [(f"{split}.csv",) if short else (f"{split}.{num_bases}.csv", f"{split}.mat")]
    )
    scores = {"TF": 0.9681, "DHS": 0.928, "HM": 0.8664} if short else {"HM": 0.8971}
    return Task(
        id=f"gena/deepsea_{num_bases}",
        title=f"919 chromatin features of the middle of {num_bases:,} bases, human",
        files=names,
        build=build_deepsea,
        split_rule="as published (by chromosome)",
        problem="multi_label",
        metric="mean_roc_auc",
        window=num_bases,
        published={
            f"GENA ({group})": Published(score, "median roc_auc of the group", GENA, "positives weighted 8")
            for group, score in scores.items()
        },
        options={
            "max_rows": MAX_ROWS,
            "seed": SEED,
            "fasta": Option("", "hg19, for longer windows"),
            "published": AS_PUBLISHED,
        },
        notes=(
            "Columns 0-124 are DNase sites, 125-814 transcription factors, 815-918 histone marks.",
            "All training rows together need tens of GB of memory; max_rows keeps a random part.",
        ),
        needs="DeepSEA's train, valid and test files (.mat, or headerless CSV)" + ("" if short else ", hg19"),
    )


def _spliceai() -> Task:
    scores = {"GENA base t2t": 0.9263, "GENA large t2t": 0.9360, "GENA bigbird t2t": 0.9478, "SpliceAI": 0.960}
    return Task(
        id="gena/spliceai_15000",
        title="donor, acceptor or neither for each of 5,000 bases with 5,000 bases of context on both sides, human",
        files=tuple(
            SourceFile("{%s}" % split, "GENA-LM's SpliceAI data (headerless CSV: 15,000 bases, 5,000 labels)")  # noqa: UP031
            for split in ("train", "test")
        ),
        build=build_spliceai,
        split_rule="train and test as published (chromosomes); validation: a tenth of train at random",
        kind="token",
        metric="average_precision",
        window=15000,
        num_rows=(162706, None, 16505),
        published={
            model: Published(
                score,
                "mean average precision of donors and acceptors over tokens",
                GENA,
                "models of 512 tokens see, and are scored on, only about 65 % of each target",
            )
            for model, score in scores.items()
        },
        options={
            "train": Option("train.csv", "training rows"),
            "test": Option("test.csv", "test rows"),
            "seed": SEED,
            "max_rows": MAX_ROWS,
        },
        notes=("Published numbers are per token, ours per base.",),
        needs="the train and test rows of GENA-LM",
    )


def _deepstarr() -> Task:
    data = "Stark laboratory, DeepSTARR data (Sequences_Train.fa, Sequences_activity_Train.txt, ...)"
    deepstarr_files = tuple(
        SourceFile(name, data)
        for split in ("Train", "Val", "Test")
        for name in (f"Sequences_{split}.fa", f"Sequences_activity_{split}.txt")
    )
    return Task(
        id="gena/deepstarr",
        title="activity of enhancers on two promoters (developmental, housekeeping) in fruit fly cells",
        files=deepstarr_files,
        build=build_deepstarr,
        split_rule="as published (chromosome arms)",
        problem="regression",
        metric="pearson",
        window=249,
        num_rows=(402296, 40570, 41186),
        published={
            f"{model} ({target})": Published(score, "pearson", GENA)
            for model, pair in {"GENA": (0.657, 0.768), "DeepSTARR": (0.68, 0.74), "NT": (0.64, 0.75)}.items()
            for target, score in zip(DEEPSTARR_TARGETS, pair)
        },
        options={"max_rows": MAX_ROWS, "seed": SEED},
        notes=("The primary metric is the mean of the two correlations.",),
        needs="six files of the Stark laboratory",
    )


def _aparent() -> Task:
    return Task(
        id="gena/aparent",
        title="share of proximal polyadenylation from a sequence and its longer context",
        files=(
            SourceFile("{train}", "GENA-LM's APARENT tables (seq, seq_ext, target, library, iso_pred)"),
            SourceFile("{test}", "GENA-LM's APARENT tables (seq, seq_ext, target, library, iso_pred)"),
        ),
        build=build_aparent,
        split_rule="train and test as published; validation: a tenth of train at random",
        problem="regression",
        metric="pearson",
        window=186,
        published={
            model: Published(
                score, "squared pearson", GENA, "the test rows also chose the checkpoint" if model == "GENA" else ""
            )
            for model, score in {"GENA": 0.91, "APARENT": 0.85, "DNABERT": 0.87}.items()
        },
        options={
            "train": Option("train.csv", "training table"),
            "test": Option("test.csv", "test table"),
            "published": AS_PUBLISHED,
            "seed": SEED,
        },
        notes=("Rows are pairs: 186 bases and the 256 around them.", "Published numbers are squared correlations."),
        needs="the train and test tables of GENA-LM",
    )


def _enformer() -> Task:
    basenji = "Basenji2/Enformer training data (statistics.json, sequences.bed, tfrecords/)"
    return Task(
        id="gena/enformer_bins",
        title="5,313 tracks in 896 bins of 128 bases, human",
        files=(
            SourceFile("statistics.json", basenji),
            SourceFile("sequences.bed", basenji),
            SourceFile("tfrecords", basenji),
            SourceFile("{fasta}", "hg38"),
        ),
        build=build_bins,
        split_rule="as published (sequences.bed)",
        kind="bin",
        problem="regression",
        metric="pearson",
        window=196608,
        published={
            "GENA large, 512 tokens": Published(0.5899, "pearson", GENA),
            "GENA bigbird, 4096 tokens": Published(0.6146, "pearson", GENA),
            "RMT large": Published(0.6151, "pearson", MEMORY, "trained on 24 segments, tested on 48"),
        },
        options={
            "fasta": Option("hg38.fa", "genome, a path inside the source folder"),
            "window": Option(196608, "bases around the middle of each region"),
            "targets": Option((), "numbers of the targets that are kept; default: all"),
            "max_rows": MAX_ROWS,
        },
        notes=("All targets of all rows take hundreds of GB on disk; targets and max_rows keep a part.",),
        needs="the Basenji folder and hg38",
    )


def gena_tasks() -> tuple[Task, ...]:
    """Give the tasks of GENA-LM."""
    promoters = tuple(_promoters(num_bases) for num_bases in (300, 2000, 16000))
    return (*promoters, _spliceai(), _deepstarr(), _aparent(), _deepsea(1000), _deepsea(8000), _enformer())
