"""The tasks of GENA-LM (Fishman et al. 2025) and of the recurrent-memory papers, from their published sources."""

from __future__ import annotations

from longstrand.benchmarks.assays import DEEPSTARR_TARGETS, build_aparent, build_deepstarr
from longstrand.benchmarks.bins import build_bins
from longstrand.benchmarks.deepsea import build_deepsea
from longstrand.benchmarks.promoters import build_annotated_promoters, build_epd_promoters
from longstrand.benchmarks.released import SEED
from longstrand.benchmarks.species import build_species
from longstrand.benchmarks.splice import build_splice_tokens, build_splice_windows, build_spliceai
from longstrand.benchmarks.task import Option, Published, SourceFile, Task

GENA = "GENA-LM (Fishman et al. 2025)"
MEMORY = "GENA-LM with recurrent memory (Kuratov et al. 2024)"
EPD = "EPDnew, human (hg38): FASTA export of the promoters with this window, or BED of the transcription starts"
FASTA = Option("", "genome in FASTA")
MAX_ROWS = Option(0, "at most this many rows of each split; 0: all")
AS_PUBLISHED = Option(False, "do as the published script does, flaws included")
CHROMS = {
    "valid_chroms": Option((), "chromosomes for validation"),
    "test_chroms": Option((), "chromosomes for the test"),
}

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


def _assays() -> tuple[Task, ...]:
    data = "Stark laboratory, DeepSTARR data (Sequences_Train.fa, Sequences_activity_Train.txt, ...)"
    deepstarr_files = tuple(
        SourceFile(name, data)
        for split in ("Train", "Val", "Test")
        for name in (f"Sequences_{split}.fa", f"Sequences_activity_{split}.txt")
    )
    deepstarr = Task(
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
    aparent = Task(
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
    return deepstarr, aparent


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
    return (*promoters, _spliceai(), *_assays(), _deepsea(1000), _deepsea(8000), _enformer())


def longstrand_tasks() -> tuple[Task, ...]:
    """Give the tasks that any annotated genome, or a folder of genomes, makes."""
    annotated = (
        SourceFile("{annotation}", "any GFF3 or GTF annotation"),
        SourceFile("{fasta}", "its genome"),
    )
    names = {
        "annotation": Option("annotation.gff3", "GFF3 or GTF, a path inside the source folder"),
        "fasta": Option("genome.fa", "genome, a path inside the source folder"),
    }
    rule = "whole contigs where there are enough, else blocks; windows across a border are left out"
    promoters = Task(
        id="longstrand/promoters",
        title="windows around transcription starts against windows elsewhere",
        files=annotated,
        build=build_annotated_promoters,
        split_rule=rule,
        options={
            **names,
            "window": Option(300, "bases of a window"),
            "before": Option(-1, "bases before the transcription start; -1: as EPD (249 of 300, else half)"),
            "negatives": Option("genome", "genome: GC-matched windows elsewhere; blocks, blocks12: permuted promoters"),
            "seed": SEED,
            **CHROMS,
        },
        needs="GFF/GTF and FASTA",
    )
    splice_sites = Task(
        id="longstrand/splice_sites",
        title="donor (2), acceptor (1) or neither (0) in the middle of a window",
        files=annotated,
        build=build_splice_windows,
        split_rule=rule,
        options={**names, "window": Option(400, "bases of a window"), "seed": SEED, **CHROMS},
        notes=("'Neither' are GT and AG places of transcripts without an annotated site.",),
        needs="GFF/GTF and FASTA",
    )
    splice_tokens = Task(
        id="longstrand/splice_tokens",
        title="donor (2), acceptor (1) or neither (0) for every base of genes, with context",
        files=annotated,
        build=build_splice_tokens,
        split_rule=rule,
        kind="token",
        metric="average_precision",
        options={
            **names,
            "target": Option(5000, "labelled bases of a row"),
            "context": Option(5000, "bases on both sides"),
            **CHROMS,
        },
        needs="GFF/GTF and FASTA",
    )
    species = Task(
        id="longstrand/species",
        title="which genome of a folder a window is from",
        files=(SourceFile("{genomes}", "any folder of FASTA files, one a species"),),
        build=build_species,
        split_rule="whole contigs where a genome has enough, else blocks",
        options={
            "genomes": Option(".", "folder of FASTA files inside the source folder"),
            "window": Option(1000, "bases of a window"),
            "per_species": Option(500, "windows of each genome, over all splits"),
            "seed": SEED,
        },
        published={
            f"RMT base, {size}": Published(score, "accuracy", MEMORY, "five mammals, code not released")
            for size, score in {"1 kb": 0.6145, "32 kb": 0.9924, "50 kb": 0.9967}.items()
        },
        notes=("Published numbers are of five mammals; yours depend on your genomes.",),
        needs="a folder of FASTA files",
    )
    return promoters, splice_sites, splice_tokens, species
