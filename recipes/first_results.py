"""What are pre-training, adapters and tokens worth? The tables of docs/BENCHMARK.md, one command a stage.

    python recipes/first_results.py build                      # tasks from the shared data folder, with their checks
    python recipes/first_results.py stage1 [--only TASK]        # every task x baselines, random start, pre-trained
    python recipes/first_results.py stage2 [--only TASK]        # four tasks: ways, tokens, genomes, few rows
    python recipes/first_results.py curve                      # one task against tokens seen in pre-training
    python recipes/first_results.py strand                     # trained and read on one strand or both
    python recipes/first_results.py export                     # docs/results/*.csv from whatever has finished

Every step resumes; ``--only upstream_300`` reruns one row of the table in minutes. Models: the shipped checkpoint, and
two that recipes/pretrain_yeast_6mer.yaml and recipes/pretrain_mixed_bpe.yaml make (``--yeast``, ``--bpe``). Protocol:
at most 2,000 training rows, 5 epochs of 32, mean pooling; two learning rates a method, chosen on validation rows with
the first seed, for the random start and every way of using a model alike; seeds 0, 1, 2 (other rows and weights).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longstrand.benchmarks.protocol import BenchmarkConfig
from longstrand.benchmarks.results import Result
from longstrand.benchmarks.run import run_benchmark
from longstrand.benchmarks.suites.catalogue import build_named
from longstrand.benchmarks.tasks.task import find_built
from longstrand.config import build

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.benchmark_document.export import export_runs, write_table

DATA = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data"
BOTH, ONE = "both", "+"
TASKS = {
    # What a protein binds does not depend on the strand: random strands in training, the mean of both in prediction.
    "gue/tf_0": BOTH,
    "gue/tf_1": BOTH,
    "gue/tf_2": BOTH,
    "gue/mouse_0": BOTH,
    "gue/mouse_3": BOTH,
    "gue_lite/EMP_H3": BOTH,
    "gue_lite/EMP_H4": BOTH,
    "yeast/upstream_300": BOTH,
    "yeast/coding_vs_intergenic_300": BOTH,
    # Promoters, splice sites, polyadenylation and expression have a direction.
    "gue/prom_prom_core_notata": ONE,
    "gue/prom_prom_core_tata": ONE,
    "gue/prom_prom_300_tata": ONE,
    "splice_korf/celegans_acceptor": ONE,
    "splice_korf/celegans_donor": ONE,
    "polya/human_omni": ONE,
    "regression/yeast_random_promoter": ONE,
    "plant/gene_structure_tokens": ONE,
}
"""Tasks of stage 1 (folders below ``labelled``) and the strands they are read on."""

CLOSER = ("yeast/upstream_300", "gue_lite/EMP_H4", "gue/tf_0", "gue/prom_prom_core_notata")
"""The four tasks of stage 2, named before any of its results was seen."""

STRANDS: dict[str, dict[str, Any]] = {
    "one": {"strand": ONE},
    "both_in_training": {"strand": BOTH, "predict_strand": ONE},
    "both": {"strand": BOTH},
}
"""What a model is trained on, and read on if that differs."""

PER_BASE = "plant/gene_structure_tokens"
"""The task with a label for every base; it has other baselines, so it has a table of its own."""

BUILD_OPTIONS = {PER_BASE: ["group=gene", "piece_bases=744"]}
SEEDS = (0, 1, 2)
PROTOCOL = {"epochs": 5, "batch_size": 32, "max_train_rows": 2000, "rate_factors": (2.0, 10.0), "tune_on": "first_seed"}
BASELINES = ("majority", "kmer", "onehot", "boosting", "context", "cnn-deepstarr", "cnn-spliceai")
SPLICEAI_STYLE_IS_SLOW = frozenset(TASKS) - {PER_BASE}


def short(task: str) -> str:
    """Give the name of a task that the tables show."""
    return task.rsplit("/", 1)[1].removeprefix("prom_")


def chosen(names: Any, only: str | None) -> Iterator[str]:
    """Yield the tasks that are asked for."""
    found = [task for task in names if only in (None, task, short(task))]
    if not found:
        raise SystemExit(f"no task '{only}'; there are: {', '.join(short(task) for task in names)}")
    yield from found


def build_tasks(options: argparse.Namespace) -> None:
    """Build the tables of every task, with their sanity reports."""
    for task in chosen(TASKS, options.only):
        if not (options.output / "tasks" / "own" / task / "task.json").exists():
            words = [f"own/{task}", *BUILD_OPTIONS.get(task, [])]
            build_named(words, DATA / "labelled", options.output / "tasks", notice=print)


def run(options: argparse.Namespace, name: str, task: str, **settings: Any) -> None:
    """Compute the cells of one task that have no result yet, in ``OUTPUT/NAME/TASK``."""
    found = find_built(options.output / "tasks")
    if f"own/{task}" not in {data.id for data in found}:
        raise SystemExit(f"{task} is not built; run: python recipes/first_results.py build --only {short(task)}")
    values = {
        "output": options.output / name / short(task),
        "tasks": options.output / "tasks",
        "only": (f"own/{task}",),
        "seeds": SEEDS,
        "protocol": {**PROTOCOL, "strand": TASKS[task]},
        "device": options.device,
        "threads": options.threads,
        **settings,
    }
    summary = run_benchmark(build(BenchmarkConfig, values), notice=print)
    for cell, reason in summary.failed.items():
        print(f"failed: {cell}: {reason}")


def stage1(options: argparse.Namespace) -> None:
    """Compare the baselines, the random start and the pre-trained model on every task."""
    for task in chosen(TASKS, options.only):
        slow = () if task not in SPLICEAI_STYLE_IS_SLOW else ("cnn-spliceai",)
        rungs = tuple(name for name in BASELINES if name not in slow)
        run(options, "stage1", task, models=(options.model,), methods=("full",), baselines=rungs)
        if task != PER_BASE:
            every_row = {**PROTOCOL, "strand": TASKS[task], "max_train_rows": None}
            run(options, "every_row", task, baselines=("kmer",), protocol=every_row)


def stage2(options: argparse.Namespace) -> None:
    """Add to four tasks: the larger CNN, the other ways, the probe by layer, the other models, and fewer rows."""
    for task in chosen(CLOSER, options.only):
        ways = ("full", "lora", "ia3", "probe")
        if options.part in (None, "cnn"):
            run(options, "stage1", task, baselines=("cnn-spliceai",))
        if options.part in (None, "methods"):
            run(options, "stage1", task, models=(options.model,), ways=ways, baselines=("none",))
        if options.part in (None, "models"):
            for model in (options.bpe, options.yeast):
                run(options, "stage1", task, models=(model,), methods=("full",), baselines=("none",), random_init=False)
        if options.part in (None, "few"):
            few = (100, 300, 1000)
            run(options, "stage1", task, models=(options.model,), methods=("full",), baselines=("kmer",), fewshot=few)
            probes = {"methods": ("probe",), "baselines": ("none",), "random_init": False}
            run(options, "stage1", task, models=(options.model,), fewshot=few, **probes)


def strand(options: argparse.Namespace) -> None:
    """Train and read the pre-trained model on one strand or both, in the ways that stage 1 does not; its rate there."""
    for task in chosen(CLOSER, options.only):
        for name, way in STRANDS.items():
            if way != {"strand": TASKS[task]}:
                protocol = {**PROTOCOL, "rate_factors": (10.0,), **way}
                arms = {"models": (options.model,), "methods": ("full",), "baselines": ("none",), "random_init": False}
                run(options, f"strand_{name}", task, protocol=protocol, **arms)


def curve(options: argparse.Namespace) -> None:
    """Fine-tune what the two pre-training runs were at several moments, on one task."""
    for task in chosen(("yeast/upstream_300",), options.only):
        for model in (options.yeast, options.bpe):
            snapshots = sorted((model.parent / "snapshots").glob("*"))
            name = f"curve_{model.parent.name}"
            run(options, name, task, models=tuple(snapshots), methods=("full",), baselines=("none",), random_init=False)


NAMES = {"mixed_6mer_1m": "mixed 6-mers", "yeast_6mer/model": "yeast 6-mers", "mixed_bpe/model": "mixed BPE"}
TOKENS_A_STEP = 4096


def renamed(folder: Path, result: Result) -> Result:
    """Give tasks and methods the names of the tables."""
    method = result.method
    for model, name in NAMES.items():
        method = method.replace(f"{model}: ", f"{name}: ")
    return result.model_copy(update={"task": short(result.task), "method": method})


def by_strand(folder: Path, result: Result) -> Result | None:
    """Name the method after the strands it was trained and read on; only fully fine-tuned trials of all rows."""
    found = renamed(folder, result)
    if found.method != "mixed 6-mers: full" or found.num_train is not None:
        return None
    mine = {name: getattr(result.protocol, name) for name in ("strand", "predict_strand")}
    method = next(name for name, strands in STRANDS.items() if {"predict_strand": None, **strands} == mine)
    return found.model_copy(update={"method": method})


def by_tokens(folder: Path, result: Result) -> Result | None:
    """Name the method after the pre-training run, and add the tokens it had seen."""
    found = renamed(folder, result)
    words, _, training = found.method.rpartition(": ")
    if training != "full" or found.num_train is not None:
        return None
    if words.startswith("step-"):
        method = NAMES[f"{folder.parent.name.removeprefix('curve_')}/model"]
        steps = int(words.removeprefix("step-"))
    else:
        method, steps = words, 5550
    return found.model_copy(update={"method": method, "extra": {"tokens": steps * TOKENS_A_STEP}})


LOGGED = {1.0: 8.100, 2.0: 8.084, 4.1: 8.056, 6.1: 8.035, 8.2: 8.016, 10.2: 7.983, 12.3: 7.967, 14.3: 7.949,
          16.4: 7.928, 18.4: 7.915, 20.5: 7.900, 21.5: 7.894, 22.7: 7.889}  # fmt: skip
"""Hold-out loss of the shipped checkpoint by million tokens seen (docs/LOG.md): its run folder was not kept."""

MIXED_REFERENCES = {"unigram": 8.1879, "left": 8.1993, "right": 8.2185, "two_neighbour": 8.1404}
MIXED_BITS = 1.896982 / 7.888987


def pretraining(options: argparse.Namespace) -> None:
    """Write pretraining.csv: hold-out loss by tokens seen, and that of count tables."""
    from longstrand.runtime import read_json

    rows: list[dict[str, Any]] = []

    def add(method: str, seen: float, loss: float, bits: float) -> None:
        for metric, value in (("loss", loss), ("bits_per_base", bits)):
            rows.append(
                {"task": "hold-out", "method": method, "seed": 0, "metric": metric, "value": value, "tokens": seen}
            )

    for million, loss in LOGGED.items():
        add("mixed 6-mers", million * 1e6, loss, loss * MIXED_BITS)
    for name, loss in MIXED_REFERENCES.items():
        add(f"mixed 6-mers: {name}", 0, loss, loss * MIXED_BITS)
    for model, method in ((options.yeast, "yeast 6-mers"), (options.bpe, "mixed BPE")):
        measured = [json.loads(line) for line in (model.parent / "metrics.jsonl").read_text().splitlines()]
        for row in measured:
            if "eval_loss" in row:
                add(method, row["tokens_seen"], row["eval_loss"], row["eval_bits_per_base"])
        for name, entry in read_json(model.parent / "report.json")["references"].items():
            if isinstance(entry, dict):
                add(f"{method}: {name}", 0, entry["loss"], entry["bits_per_base"])
    write_table(options.results / "pretraining.csv", rows, list(rows[0]))


def export(options: argparse.Namespace) -> None:
    """Write the tables of results from whatever has finished."""

    def folders(name: str, tasks: Any = TASKS) -> list[Path]:
        wanted = [options.output / name / short(task) for task in tasks]
        return [folder for folder in wanted if any(folder.rglob("result.json"))]

    if (options.yeast.parent / "report.json").exists():
        pretraining(options)
    curves = [*folders("curve_yeast_6mer"), *folders("curve_mixed_bpe")]
    strands = [folder for name in STRANDS for folder in folders(f"strand_{name}")]
    for name, runs, change in (
        ("stage1", folders("stage1", [task for task in TASKS if task != PER_BASE]), renamed),
        ("per_base", folders("stage1", [PER_BASE]), renamed),
        ("every_row", folders("every_row"), renamed),
        ("strand", [*strands, *folders("stage1", CLOSER)] if strands else [], by_strand),
        ("curve", [*curves, *folders("stage1", ["yeast/upstream_300"])] if curves else [], by_tokens),
    ):
        if runs:
            export_runs(
                runs,
                options.results / f"{name}.csv",
                compare=options.paired and name in ("stage1", "per_base"),
                change=change,
            )
            print(f"{options.results / name}.csv: {len(runs)} runs")


STEPS = {"build": build_tasks, "stage1": stage1, "stage2": stage2, "strand": strand, "curve": curve, "export": export}


def main() -> None:
    """Parse the command line and run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--output", type=Path, default=Path("runs/first_results"))
    parser.add_argument("--model", type=Path, default=Path("longstrand/checkpoints/mixed_6mer_1m"))
    parser.add_argument("--yeast", type=Path, default=Path("runs/yeast_6mer/model"))
    parser.add_argument("--bpe", type=Path, default=Path("runs/mixed_bpe/model"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="export: where tables are written")
    parser.add_argument("--only", help="one task of the step")
    parser.add_argument("--part", choices=("cnn", "methods", "models", "few"), help="one part of stage 2")
    parser.add_argument(
        "--paired", action=argparse.BooleanOptionalAction, default=True, help="export: paired tests too"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    STEPS[options.step](options)


if __name__ == "__main__":
    main()
