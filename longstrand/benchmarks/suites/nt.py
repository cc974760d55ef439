"""The Nucleotide Transformer tasks: the original 18 (``nt``) and the revised 18 (``nt_revised``).

The same short names mean different data: ``nt/H3K4me3`` is a mark in yeast, ``nt_revised/H3K4me3`` one in human K562
cells.
"""

from __future__ import annotations

from longstrand.benchmarks.tasks.released import ANY_VERSION, SEED, build_named_fasta
from longstrand.benchmarks.tasks.task import Published, SourceFile, Task

ORIGINAL = "InstaDeepAI nucleotide_transformer_downstream_tasks on the Hugging Face hub (TASK/train.fna, TASK/test.fna)"
REVISED = (
    "InstaDeepAI nucleotide_transformer_downstream_tasks_revised on the Hugging Face hub "
    "(TASK/train.fna, TASK/test.fna, or a table sequence,name,label)"
)
SOURCE = "Nucleotide Transformer (Dalla-Torre et al. 2023), Tables 4 and 5"
MODELS = (
    "NT-500M-human",
    "NT-500M-1000g",
    "NT-2500M-1000g",
    "NT-2500M-multi",
    "NT-2500M-multi probed",
    "published baseline",
)

# Task, rows of train and test, bases, published metric, and the scores of MODELS.
TABLE = """
H3                      13468  1497  500  mcc      .737 .756 .776 .814 .797 .730
H3K14ac                 29743  3305  500  mcc      .377 .399 .471 .550 .506 .510
H3K36me3                31392  3488  500  mcc      .467 .461 .533 .632 .583 .540
H3K4me1                 28509  3168  500  mcc      .358 .379 .445 .559 .497 .440
H3K4me2                 27614  3069  500  mcc      .281 .288 .300 .326 .322 .390
H3K4me3                 33119  3680  500  mcc      .263 .288 .281 .421 .357 .460
H3K79me3                25953  2884  500  mcc      .577 .579 .592 .642 .616 .650
H3K9ac                  25003  2779  500  mcc      .462 .488 .508 .575 .527 .540
H4                      13140  1461  500  mcc      .762 .752 .789 .822 .812 .760
H4ac                    30685  3410  500  mcc      .344 .342 .423 .501 .448 .500
enhancers               14968   400  200  mcc      .535 .580 .593 .580 .507 .505
enhancers_types         14968   400  200  mcc      .485 .469 .500 .474 .435 .395
promoter_all            53276  5920  300  f1       .954 .953 .966 .974 .966 .956
promoter_no_tata        47767  5299  300  f1       .956 .955 .969 .977 .967 .960
promoter_tata            5509   621  300  f1       .948 .941 .958 .964 .959 .940
splice_sites_all        27000  3000  400  accuracy .972 .971 .978 .983 .762 .965
splice_sites_acceptors  19961  2218  600  f1       .965 .972 .985 .990 .901 .944
splice_sites_donors     19775  2198  600  f1       .972 .975 .982 .984 .950 .953
"""

# Task, bases, rows of train and test where they are known.
REVISED_TABLE = """
promoter_all            300  30000 1584
promoter_tata           300  5062  212
promoter_no_tata        300  30000 1372
enhancers               400
enhancers_types         400
splice_sites_all        600
splice_sites_acceptors  600
splice_sites_donors     600
H2AFZ                   1000
H3K27ac                 1000
H3K27me3                1000
H3K36me3                1000
H3K4me1                 1000
H3K4me2                 1000
H3K4me3                 1000
H3K9ac                  1000 23274 1004
H3K9me3                 1000 27438 850
H4K20me1                1000
"""

SPLIT_RULE = "train and test as published; validation: a tenth of train, stratified, identical sequences together"


def _files(name: str, suite: str, published: str) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(
            f"{name}/{split}.fna",
            published,
            also=tuple(
                f"{folder}{name}/{split}.{ending}"
                for folder in ("", f"{suite}/")
                for ending in ("fna", "parquet", "csv")
            ),
        )
        for split in ("train", "test")
    )


def _title(name: str, where: str) -> str:
    if name.startswith("H"):
        return f"histone mark or variant {name} in {where}"
    return f"{name.replace('_', ' ')}, human"


def _original(line: str) -> Task:
    name, train, test, window, metric, *scores = line.split()
    return Task(
        id=f"nt/{name}",
        title=_title(name, "yeast"),
        files=_files(name, "nucleotide_transformer_downstream_tasks", ORIGINAL),
        build=build_named_fasta,
        split_rule=SPLIT_RULE,
        window=int(window),
        num_rows=(int(train), None, int(test)),
        published={
            model: Published(
                float(score), metric, SOURCE, "probed, ten-fold" if "probed" in model else "fine-tuned (IA3), ten-fold"
            )
            for model, score in zip(MODELS, scores, strict=True)
        },
        options={"seed": SEED, "any_version": ANY_VERSION},
        notes=() if metric == "mcc" else (f"Published numbers are {metric}; ours is MCC.",),
        needs="the folder of the task from the hub",
    )


def _revised(line: str) -> Task:
    name, window, *rows = line.split()
    return Task(
        id=f"nt_revised/{name}",
        title=_title(name, "human K562 cells"),
        files=_files(name, "nucleotide_transformer_downstream_tasks_revised", REVISED),
        build=build_named_fasta,
        split_rule=SPLIT_RULE,
        window=int(window),
        num_rows=(int(rows[0]), None, int(rows[1])) if rows else None,
        options={"seed": SEED, "any_version": ANY_VERSION},
        notes=("Numbers for single tasks are published only as a figure, so none is listed here.",),
        needs="the folder of the task from the hub",
    )


def nt_tasks() -> tuple[Task, ...]:
    """Give the original 18 tasks."""
    return tuple(_original(line) for line in TABLE.strip().splitlines())


def nt_revised_tasks() -> tuple[Task, ...]:
    """Give the revised 18 tasks."""
    return tuple(_revised(line) for line in REVISED_TABLE.strip().splitlines())
