"""The first five minutes: from a genome to a measured model and a report, with one call.

A simulated genome (or real FASTA files) gives a tokenizer and a pre-trained encoder; labelled sequences give a
classifier from that encoder, one from a random start, and a k-mer regression, all measured on the same test sequences.
Every step is the library function that its own command calls, and every step resumes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from longstrand.config import StrictModel, build, dump_config, read_yaml
from longstrand.errors import InputError, ResumeError
from longstrand.runtime import read_json, write_atomically

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
SPLITS = ("train", "dev", "test")
SUFFIXES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")


class DemoConfig(StrictModel):
    """What the demo does and where."""

    output: Path = Field(Path("demo_output"), description="folder for everything that is made")
    seed: int = Field(0, ge=0, description="seed of the simulated genome and of pre-training")
    genome: tuple[Path, ...] = Field((), description="real FASTA files instead of the simulated genome")
    labels: Path | None = Field(None, description="folder with train, dev and test tables (sequence,label)")
    quick: bool = Field(False, description="a tiny run that only shows that everything works")
    minutes: float = Field(3.0, gt=0, le=600, description="rough amount of training, in minutes of two CPU cores")

    @model_validator(mode="after")
    def _check(self) -> DemoConfig:
        if self.labels is not None and not self.genome:
            raise ValueError("labels belong to real genomes; give genome too")
        return self


SMALL_MODEL = {"initializer_range": 0.08, "rotary": {"theta": 100.0}}
"""What helped a narrow model that trains for two minutes (docs/LOG.md): weights near 1/sqrt(width), short waves."""


@dataclass(frozen=True)
class Plan:
    """Sizes of a demo.

    Attributes:
        num_bases: of the simulated genome (first species).
        vocab_size: tokens of the tokenizer.
        preset: size of the model.
        steps: optimizer steps of pre-training.
        epochs: of fine-tuning, at most.
        seeds: of fine-tuning, for each start.
        max_train_rows: labelled sequences used for training, at most.
        max_tokens: tokens in a window of pre-training.
        batch_size: windows in a step of pre-training.
        eval_windows: windows of unseen DNA that it is measured on.
        learning_rate: of pre-training.
        finetune_learning_rate: of fine-tuning.
    """

    num_bases: int = 3_000_000
    vocab_size: int = 512
    preset: str = "tiny"
    steps: int = 700
    epochs: int = 6
    seeds: tuple[int, ...] = (0, 1)
    max_train_rows: int = 1000
    max_tokens: int = 128
    batch_size: int = 32
    eval_windows: int = 256
    learning_rate: float = 2e-3
    finetune_learning_rate: float = 5e-4


@dataclass(frozen=True)
class Materials:
    """What the models are made from.

    Attributes:
        genomes: FASTA files.
        tables: train, dev and test table, or empty.
        hold_out: contigs that pre-training never sees.
        facts: what a reader should know about the data.
        class_names: names of the classes 0, 1, ... if the tables have only numbers.
    """

    genomes: tuple[Path, ...]
    tables: dict[str, Path]
    hold_out: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        folder: everything.
        page: the report for people.
        data: the report for programs.
        verdict: what came out, in sentences.
        seconds: how long this call took.
    """

    folder: Path
    page: Path
    data: Path
    verdict: tuple[str, ...]
    seconds: float


def run_demo(config: DemoConfig, *, say: Say = logger.info) -> DemoResult:
    """Run the demo, or go on where it was interrupted.

    Args:
        config: what and where.
        say: called with one line for each step.

    Raises:
        ResumeError: the folder holds a demo with other settings.
        LongstrandError: a genome or a table is wrong.
    """
    from longstrand.demo import report as demo_report

    start = time.monotonic()
    plan = make_plan(config)
    claim(config)
    materials = gather(config, plan, say)
    pretrained = run_pretraining(config, plan, materials, say)
    arms = run_finetuning(config, plan, materials, say) if materials.tables else {}
    say("writing the report")
    seconds = time.monotonic() - start
    made = demo_report.write(config, materials, pretrained, arms, seconds=seconds)
    return DemoResult(config.output, made.page, made.data, made.verdict, time.monotonic() - start)


def make_plan(config: DemoConfig) -> Plan:
    """Choose the sizes; ``minutes`` scales pre-training, so that a resumed demo has the same plan."""
    if config.quick:
        sizes = {"num_bases": 400_000, "vocab_size": 128, "steps": 20, "batch_size": 16, "eval_windows": 64}
        return Plan(**sizes, epochs=2, seeds=(0,), max_train_rows=200)
    return Plan(steps=max(50, round(Plan.steps * config.minutes / 3.0)))


def claim(config: DemoConfig) -> None:
    """Write the settings into the folder, or check that they are those of before.

    Raises:
        ResumeError: the folder holds a demo with other settings, or something else.
    """
    file = config.output / "demo.yaml"
    if file.exists():
        before, now = read_yaml(file), yaml.safe_load(dump_config(config))
        changed = [name for name in now if name != "output" and before.get(name) != now[name]]
        if changed:
            raise ResumeError(
                f"{config.output}: holds a demo with another {' and '.join(changed)}; choose another --output, "
                "or delete the folder."
            )
        return
    if config.output.is_dir() and any(config.output.iterdir()):
        raise ResumeError(f"{config.output}: is not empty and holds no demo; choose another --output.")
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{config.output}: the folder cannot be made ({error.strerror}).") from None
    write_atomically(file, dump_config(config))


def gather(config: DemoConfig, plan: Plan, say: Say) -> Materials:
    """Simulate genome and labels, or find the real ones."""
    if config.genome:
        return real_materials(config)
    from longstrand.demo.simulate import write_simulation

    folder = config.output / "data"
    if not (folder / "README.txt").exists():
        say(f"simulating two related genomes of {plan.num_bases / 1e6:g} million bases")
        write_simulation(folder, seed=config.seed, num_bases=plan.num_bases)
    record = read_json(folder / "simulation.json")
    tables = {name: folder / "labels" / "promoters" / f"{name}.csv" for name in SPLITS}
    genomes = tuple(sorted(folder.glob("species_*.fa")))
    hold_out = tuple(record["valid_chroms"]) + tuple(record["test_chroms"])
    return Materials(genomes, tables, hold_out, {"simulated": True, **record}, ("background", "promoter"))


def real_materials(config: DemoConfig) -> Materials:
    """Check the real files.

    Raises:
        InputError: a genome or a table is missing.
    """
    for path in config.genome:
        if not path.is_file():
            raise InputError(f"{path}: no such FASTA file.")
    tables = {}
    if config.labels is not None:
        for name in SPLITS:
            found = [config.labels / f"{name}{suffix}" for suffix in SUFFIXES]
            existing = next((path for path in found if path.exists()), None)
            if existing is None:
                raise InputError(
                    f"{config.labels}: holds no {name}.csv; the demo needs train.csv, dev.csv and test.csv with the "
                    "columns sequence,label ('longstrand finetune' splits a single table by itself)."
                )
            tables[name] = existing
    return Materials(config.genome, tables, (), {"simulated": False})


def run_pretraining(config: DemoConfig, plan: Plan, materials: Materials, say: Say) -> Any:
    """Train tokenizer and encoder on the genomes; the result of `longstrand.training.pretrain.pretrain`."""
    from longstrand.training.pretrain import pretrain
    from longstrand.training.settings import PretrainConfig

    say(f"training a tokenizer and pre-training an encoder on {len(materials.genomes)} genome(s), {plan.steps:,} steps")
    hold_out = {"contigs": list(materials.hold_out)} if materials.hold_out else {}
    values = {
        "output": config.output / "pretrained",
        "data": {"genomes": [str(path) for path in materials.genomes], "hold_out": hold_out},
        "tokenizer": {"vocab_size": plan.vocab_size},
        "masking": {"probability": 0.3, "mask": 1.0, "random": 0.0},
        "model": {"preset": plan.preset, "settings": SMALL_MODEL},
        "training": {
            "steps": plan.steps,
            "max_tokens": plan.max_tokens,
            "batch_size": plan.batch_size,
            "learning_rate": plan.learning_rate,
            "warmup_steps": plan.steps // 10,
            "eval_every": max(1, plan.steps // 10),
            "save_every": max(1, plan.steps // 4),
            "log_every": max(1, plan.steps // 100),
            "eval_windows": plan.eval_windows,
            "seed": config.seed,
            "num_workers": 0,
            "tensorboard": False,
        },
    }
    result = pretrain(build(PretrainConfig, values, "demo"))
    if result.model is None:
        raise KeyboardInterrupt
    return result


def run_finetuning(config: DemoConfig, plan: Plan, materials: Materials, say: Say) -> dict[str, list[Any]]:
    """Fine-tune from the pre-trained encoder and from a random start; results by start, one for each seed."""
    from longstrand.training.finetune import finetune
    from longstrand.training.settings import FinetuneConfig

    results: dict[str, list[Any]] = {"pretrained": [], "random": []}
    for seed in plan.seeds:
        for init, done in results.items():
            say(f"fine-tuning from the {init if init == 'pretrained' else 'random'} start, seed {seed}")
            values = {
                "output": config.output / "finetuned" / f"{init}_seed{seed}",
                "model": {"path": config.output / "pretrained" / "model", "init": init},
                "data": {
                    "train": materials.tables["train"],
                    "valid": materials.tables["dev"],
                    "test": materials.tables["test"],
                    "max_train_rows": plan.max_train_rows,
                    "class_names": materials.class_names,
                },
                "training": {
                    "epochs": plan.epochs,
                    "learning_rate": plan.finetune_learning_rate,
                    "seed": seed,
                    "tensorboard": False,
                },
                "evaluation": {"baselines": init == "pretrained" and seed == plan.seeds[0]},
            }
            result = finetune(build(FinetuneConfig, values, "demo"))
            if result.model is None:
                raise KeyboardInterrupt
            done.append(result)
    return results


def describe(plan: Plan) -> dict[str, Any]:
    """Give the sizes as a dictionary."""
    return asdict(plan)


def next_commands(config: DemoConfig, materials: Materials) -> Sequence[tuple[str, str]]:
    """List what to try next, as commands that work as they stand (the last ones after putting in your files)."""
    folder = config.output
    pretrained = folder / "pretrained" / "model"
    commands = [("See what the pre-trained model is:", f"longstrand info {pretrained}")]
    if materials.tables:
        model = folder / "finetuned" / "pretrained_seed0" / "model"
        test = materials.tables["test"]
        commands += [
            ("Apply the fine-tuned classifier:", f"longstrand predict {model} {test} --output {folder / 'calls.csv'}"),
            (
                "Turn sequences into vectors for your own analysis:",
                f"longstrand embed {pretrained} {test} --output {folder / 'vectors.parquet'}",
            ),
        ]
    if materials.facts.get("simulated"):
        donors = folder / "data" / "labels" / "splice_donors"
        commands.append(
            (
                "Find splice donors instead of promoters, in the same genome:",
                f"longstrand finetune --model {pretrained} --train {donors}/train.csv --valid {donors}/dev.csv "
                f"--test {donors}/test.csv --output {folder}/splice_donors",
            )
        )
    commands += [
        (
            "Do the same with your genome and labels (folder with train.csv, dev.csv, test.csv; sequence,label):",
            "longstrand demo --genome GENOME.fa --labels FOLDER --output my_demo",
        ),
        (
            "Pre-train longer on your genomes, on a GPU if there is one:",
            "longstrand pretrain --genome GENOME.fa --preset small --steps 20000 --output my_model",
        ),
    ]
    return commands
