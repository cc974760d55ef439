"""Genomic Benchmarks (Grešová et al. 2023): classes as folders of texts, as coordinates on a genome, or as tables."""

from __future__ import annotations

from longstrand.benchmarks.tasks.released import SEED, build_class_folders
from longstrand.benchmarks.tasks.task import Option, Published, SourceFile, Task

PUBLISHED_AS = (
    "the Genomic Benchmarks package (datasets/NAME/train/CLASS.csv.gz), its download of full sequences "
    "(NAME/train/CLASS/*.txt), or the Hugging Face hub (Genomic_Benchmarks_NAME)"
)
SOURCE = "Feng et al. 2025, Nature Communications, Table 1"
PROTOCOL = "frozen, mean-pooled embeddings and a classifier of their own, on their splits"
MODELS = ("DNABERT-2", "NT-v2", "HyenaDNA", "Caduceus-Ph", "GROVER")

PAIR = ("negative", "positive")
SETS = {
    "demo_coding_vs_intergenomic_seqs": ("coding or intergenic", ("coding_seqs", "intergenomic_seqs")),
    "demo_human_or_worm": ("human or worm", ("human", "worm")),
    "dummy_mouse_enhancers_ensembl": ("mouse enhancer or not", PAIR),
    "drosophila_enhancers_stark": ("fruit fly enhancer or not", PAIR),
    "human_enhancers_cohn": ("human enhancer or not (Cohn)", PAIR),
    "human_enhancers_ensembl": ("human enhancer or not (Ensembl)", PAIR),
    "human_ensembl_regulatory": ("enhancer, open chromatin or promoter", ("enhancer", "ocr", "promoter")),
    "human_nontata_promoters": ("human promoter without TATA box or not", PAIR),
    "human_ocr_ensembl": ("human open chromatin or not", PAIR),
}

# AUC of MODELS.
AREAS = {
    "human_enhancers_cohn": (0.8223, 0.7894, 0.7754, 0.8210, 0.8161),
    "human_enhancers_ensembl": (0.9369, 0.9389, 0.9356, 0.9431, 0.9382),
    "human_ocr_ensembl": (0.7253, 0.7183, 0.7191, 0.7650, 0.7455),
    "human_nontata_promoters": (0.9297, 0.8905, 0.9280, 0.9426, 0.9395),
}
ROWS = {"human_nontata_promoters": (27097, None, 9034)}
NOTES = {"human_nontata_promoters": ("Windows of train and test overlap on the genome, as published.",)}


def genomic_tasks() -> tuple[Task, ...]:
    """Give the nine data sets of Genomic Benchmarks."""
    return tuple(
        Task(
            id=f"genomic_benchmarks/{name}",
            title=title,
            files=(SourceFile(name, PUBLISHED_AS, also=(f"datasets/{name}", f"Genomic_Benchmarks_{name}")),),
            build=build_class_folders,
            split_rule="train and test as published; validation: a tenth of train, stratified",
            metric="accuracy",
            num_rows=ROWS.get(name),
            published={
                model: Published(area, "roc_auc", SOURCE, PROTOCOL) for model, area in zip(MODELS, AREAS.get(name, ()))
            },
            options={
                "seed": SEED,
                "fasta": Option("", "genome of the coordinates, if the sequences are not given"),
                "classes": Option(classes, "class folders, in the order of the labels 0, 1, ..."),
            },
            notes=NOTES.get(name, ()),
            needs="the data set's folder; for coordinates also its genome",
        )
        for name, (title, classes) in SETS.items()
    )
