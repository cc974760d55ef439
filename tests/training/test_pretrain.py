"""Pre-training end to end on a toy genome: resume, signals, references, bad settings."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from longstrand.cli.main import main
from longstrand.cli.pretrain import PAPERS
from longstrand.config import build, from_command_line
from longstrand.data.genomes import GenomeSource, open_genomes
from longstrand.data.regions import HoldOut
from longstrand.data.windows import TrainingWindows
from longstrand.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    LongstrandError,
    ResumeError,
    TrainingError,
    UsageError,
)
from longstrand.models.config import preset
from longstrand.report.runs import KNOWN
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.pretrain import make_data, pretrain
from longstrand.training.run_folder import TrainingResult
from longstrand.training.settings import PretrainConfig
from tests.genome.test_haplotypes import write as write_vcf
from tests.part_toys import in_child
from tests.toys import tiny_checkpoint

STEPS = 8
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def straight(genome: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Run without interruption."""
    return run(genome, tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a genome of two contigs in which every third base is predictable."""
    letters = random.Random(0)
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    contigs = {"one": 20_000, "two": 6_000}
    with open(path, "w") as file:
        for name, length in contigs.items():
            text = "".join(letters.choice("ACGT") + letters.choice("ACGT") + "T" for _ in range(length // 3))
            file.write(f">{name}\n{text}\n")
    return path


def settings(genome: Path, output: Path, **training: object) -> dict[str, object]:
    """Give the settings of a run of a second or two."""
    return {
        "output": str(output),
        "data": {"genomes": [str(genome)], "hold_out": {"contigs": ["two"]}},
        "tokenizer": {"kind": "kmer", "k": 3},
        "model": {"preset": "tiny", "settings": {**SMALL, "hidden_dropout": 0.1}},
        "training": {"max_tokens": 32, "steps": STEPS, "batch_size": 4, "warmup_steps": 2, "log_every": 3,
                     "eval_every": 3, "eval_windows": 5, "save_every": 2, "num_workers": 0, "tensorboard": False,
                     "device": "cpu", "threads": 1, "learning_rate": 1e-2, "references": False} | training,
    }  # fmt: skip


def run(genome: Path, output: Path, **training: object) -> TrainingResult:
    return pretrain(build(PretrainConfig, settings(genome, output, **training)))


def weights(result: TrainingResult) -> bytes:
    assert result.model is not None
    return (result.model / "model.safetensors").read_bytes()


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def keys(folder: Path) -> list[tuple[float, bool]]:
    return [(row["step"], "eval_loss" in row) for row in rows(folder)]


def test_a_run_writes_what_it_says(genome: Path, tmp_path: Path) -> None:
    from longstrand import load_model, load_tokenizer

    result = run(genome, tmp_path / "run", tensorboard=True, references=True)
    assert keys(result.folder) == [(3, False), (3, True), (6, False), (6, True), (8, False), (8, True)]
    assert {"tokens_per_second", "bases_per_second", "model_flops_utilisation", "learning_rate"} <= set(
        rows(result.folder)[0]
    )
    assert 0.95 * STEPS * 4 * 32 < rows(result.folder)[-1]["tokens_seen"] <= STEPS * 4 * 32
    assert (result.folder / "metrics.csv").read_text().count("\n") == 7
    assert list((result.folder / "tensorboard").glob("events*"))
    report = json.loads((result.folder / "report.json").read_text())
    assert report["hold_out"]["loss"] == rows(result.folder)[-1]["eval_loss"]
    references = report["references"]
    assert 0 < references["two_neighbour"]["loss"] < 20 and references["unigram"]["bits_per_base"] > 0
    table = (result.folder / "report.html").read_text()
    assert all(words in table for words in KNOWN.values()) and "inputs: tokenizer" in table
    assert set(KNOWN) == {name for name, value in references.items() if isinstance(value, dict)}
    assert not list(result.folder.glob("checkpoint-*"))
    model, tokenizer = load_model(result.folder / "model", head="masked_lm"), load_tokenizer(result.folder / "model")
    special = tokenizer.num_special_tokens()
    spelled = report["bases_per_token"] * (report["settings"]["training"]["max_tokens"] - special)
    assert model.reading is not None and model.reading.longest_bases == round(spelled)
    ids = torch.tensor(tokenizer.encode("ACGTTTGCA").input_ids)[None].long()
    assert model(input_ids=ids).logits.shape == (1, 5, tokenizer.vocab_size)
    again = run(genome, tmp_path / "run", tensorboard=True, references=True)
    assert again.report == report


def test_accumulation_equals_one_big_batch(genome: Path, tmp_path: Path) -> None:
    from safetensors.torch import load

    results = []
    for name, micro in (("whole", 4), ("parts", 1)):
        values = settings(genome, tmp_path / name, micro_batch_size=micro, learning_rate=1e-3)
        values["model"]["settings"] |= {"hidden_dropout": 0.0}  # type: ignore[index]
        results.append(load(weights(pretrain(build(PretrainConfig, values)))))
    whole, parts = results
    assert whole.keys() == parts.keys()
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-6


class Killed(Exception):
    """Stands for a kill at a chosen moment."""


@pytest.mark.parametrize("moment", ["step-5", "save-staged", "save-manifest", "save-rename", "final-model"])
def test_resume_is_bit_identical(
    genome: Path, straight: TrainingResult, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longstrand.training import pretrain as module
    from longstrand.training import trainer as trainer_module

    with monkeypatch.context() as patch:
        _kill_at(moment, patch, trainer_module, module)
        with pytest.raises(Killed):
            run(genome, tmp_path / "killed")
    resumed = run(genome, tmp_path / "killed")
    assert resumed.resumed_from > 0
    assert weights(resumed) == weights(straight)
    assert keys(resumed.folder) == keys(straight.folder)
    timed = {"tokens_per_second", "bases_per_second", "model_flops_utilisation"}
    for one, other in zip(rows(resumed.folder), rows(straight.folder), strict=True):
        assert {key: value for key, value in one.items() if key not in timed} == {
            key: value for key, value in other.items() if key not in timed
        }


def test_packed_training_equals_padded_training(genome: Path, tmp_path: Path) -> None:
    found = []
    for pack in (False, True):
        values: Any = settings(genome, tmp_path / str(pack), pack=pack, learning_rate=1e-3)
        values["model"]["settings"]["hidden_dropout"] = 0.0
        pretrain(build(PretrainConfig, values))
        found.append(
            [
                (row.get("loss", 0.0), row.get("eval_loss", 0.0), row["tokens_seen"])
                for row in rows(tmp_path / str(pack))
            ]
        )
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def _kill_at(moment: str, patch: pytest.MonkeyPatch, trainer: object, module: object) -> None:
    from longstrand.training.trainer import LongstrandTrainer

    def die(*_: object, **__: object) -> None:
        raise Killed

    if moment == "step-5":
        step = LongstrandTrainer.training_step

        def counted(self: LongstrandTrainer, *args: object, **kwargs: object) -> torch.Tensor:
            if self.state.global_step == 5:
                raise Killed
            return step(self, *args, **kwargs)

        patch.setattr(LongstrandTrainer, "training_step", counted)
    elif moment == "save-staged":
        save = LongstrandTrainer._save_optimizer_and_scheduler

        def half(self: LongstrandTrainer, folder: str) -> None:
            if self.state.global_step == 6:
                raise Killed
            save(self, folder)

        patch.setattr(LongstrandTrainer, "_save_optimizer_and_scheduler", half)
    elif moment in {"save-manifest", "save-rename"}:
        complete = LongstrandTrainer._complete

        def late(self: LongstrandTrainer, *values: Any) -> None:
            if self.state.global_step == 6:
                if moment == "save-rename":
                    patch.setattr(os, "replace", die)
                else:
                    patch.setattr(trainer, "write_manifest", die)
            complete(self, *values)

        patch.setattr(LongstrandTrainer, "_complete", late)
    else:
        patch.setattr(module, "save_checkpoint", die)


@pytest.mark.slow
def test_kill_nine_at_twenty_moments(genome: Path, tmp_path: Path) -> None:
    """Kill the real process at random moments, at least five of them while it saves, and compare the final weights."""
    straight = run(genome, tmp_path / "straight", steps=60, save_every=2, log_every=5, eval_every=10)
    values = settings(genome, tmp_path / "killed", steps=60, save_every=2, log_every=5, eval_every=10)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "longstrand", "pretrain", "--config", str(tmp_path / "run.yaml")]
    moments, kills, while_saving = random.Random(1), 0, 0
    folder = tmp_path / "killed"
    for attempt in range(60):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_save = attempt % 2 == 0
        deadline = time.monotonic() + 120
        begun, extra = None, moments.uniform(0.0, 0.5)
        while process.poll() is None and time.monotonic() < deadline:
            saving = bool(list(folder.glob("tmp-save-*")))
            if begun is None and (folder / "metrics.jsonl").exists() and list(folder.glob("checkpoint-*")):
                begun = time.monotonic()
            if (wait_for_save and saving and moments.random() < 0.4) or (
                not wait_for_save and begun and time.monotonic() - begun > extra
            ):
                process.send_signal(signal.SIGKILL)
                kills += 1
                while_saving += bool(list(folder.glob("tmp-save-*")))
                break
            time.sleep(0.001)
        process.wait()
        if kills >= 20 and while_saving >= 5:
            break
    code = subprocess.run(command, capture_output=True, text=True, check=False)
    assert code.returncode == 0, code.stderr
    assert (folder / "model" / "model.safetensors").read_bytes() == weights(straight)
    assert keys(folder) == keys(straight.folder)
    print(f"{kills} kills, {while_saving} of them while saving")


def test_sigterm_saves_and_exits_cleanly(genome: Path, straight: TrainingResult, tmp_path: Path) -> None:
    from longstrand.training.trainer import LongstrandTrainer

    step = LongstrandTrainer.training_step

    def terminated(self: LongstrandTrainer, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LongstrandTrainer, "training_step", terminated)
        stopped = run(genome, tmp_path / "stopped")
    assert stopped.stopped_by == "SIGTERM" and stopped.model is None
    resumed = run(genome, tmp_path / "stopped")
    assert resumed.resumed_from == 5
    assert weights(resumed) == weights(straight) and keys(resumed.folder) == keys(straight.folder)


@pytest.mark.slow
def test_sigterm_to_the_whole_process_group(genome: Path, straight: TrainingResult, tmp_path: Path) -> None:
    """Workers get the signal too (as from Slurm or Ctrl-C) and must not take the run down."""
    values = settings(genome, tmp_path / "run", num_workers=1, steps=400, save_every=400)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))

    def work() -> None:
        os.setsid()
        torch.set_num_threads(1)
        sys.stdout = open(tmp_path / "out", "w")  # noqa: SIM115
        main(["pretrain", "--config", str(tmp_path / "run.yaml")])

    process = in_child(work)
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.is_alive():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(timeout=120)
    assert process.exitcode == 143
    assert "stopped by SIGTERM" in (tmp_path / "out").read_text()
    assert list((tmp_path / "run").glob("checkpoint-*"))


def test_a_full_disk_while_saving_leaves_the_old_state(
    genome: Path, straight: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longstrand.training.trainer import LongstrandTrainer

    save = LongstrandTrainer._save_optimizer_and_scheduler

    def full(self: LongstrandTrainer, folder: str) -> None:
        if self.state.global_step == 4:
            raise OSError(28, "No space left on device")
        save(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(LongstrandTrainer, "_save_optimizer_and_scheduler", full)
        with pytest.raises(
            CheckpointError, match=r"checkpoint-4 cannot be written \(No space left.*checkpoint-2 is intact"
        ):
            run(genome, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").glob("*-*")) == ["checkpoint-2"]
    assert weights(run(genome, tmp_path / "run")) == weights(straight)


def test_divergence_stops_the_run(genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longstrand.training.trainer import LongstrandTrainer

    monkeypatch.setattr(LongstrandTrainer, "training_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match=r"training diverged before step 3 \(the loss is nan\)"):
        run(genome, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_changed_config_refuses_to_resume(genome: Path, tmp_path: Path) -> None:
    run(genome, tmp_path / "run")
    with pytest.raises(ResumeError, match=r"training.seed: 0 -> 1"):
        run(genome, tmp_path / "run", seed=1)


def test_a_changed_corpus_refuses_to_resume(genome: Path, tmp_path: Path) -> None:
    """The corpus file stays, a weight in it does not: the run says which genome changed."""
    (tmp_path / "other.fa").write_text(genome.read_text().replace("TA", "TC"))
    lines = ["fasta,species,weight", f"{genome},toy,1", f"{tmp_path / 'other.fa'},other,1"]
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("\n".join(lines))
    values = settings(genome, tmp_path / "run", steps=2)
    values["data"] |= {"genomes": str(corpus), "order": "random"}  # type: ignore[operator]
    report = pretrain(build(PretrainConfig, values)).report
    assert sum(report["genome_shares"].values()) == pytest.approx(1) and set(report["genome_shares"]) == {
        "toy",
        "other",
    }
    corpus.write_text("\n".join([*lines[:2], lines[2].replace(",1", ",2")]))
    with pytest.raises(ResumeError, match=r"sampling.other: 'row 2, weight 1, .*' -> 'row 2, weight 2, "):
        pretrain(build(PretrainConfig, values))
    corpus.write_text("\n".join([lines[0] + ",hold_out", f"{lines[1]},one", f"{lines[2]},two"]))
    with pytest.raises(ResumeError, match=r"sampling.toy: '.*hold-out (\w+)' -> '.*hold-out (?!\1)"):
        pretrain(build(PretrainConfig, values))
    corpus.write_text("\n".join([lines[0], lines[2], lines[1]]))
    with pytest.raises(ResumeError, match=r"sampling.toy: 'row 1.*' -> 'row 2"):
        pretrain(build(PretrainConfig, values))


def test_a_changed_genome_refuses_to_resume(genome: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.fa"
    copy.write_text(genome.read_text())
    run(copy, tmp_path / "run")
    copy.write_text(genome.read_text().replace("A", "C", 1))
    with pytest.raises(ResumeError, match=r"genomes.copy"):
        run(copy, tmp_path / "run")


def test_wrong_settings(genome: Path, tmp_path: Path) -> None:
    values = settings(genome, tmp_path / "run")
    values["training"] |= {"lerning_rate": 1}  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"unknown key 'training.lerning_rate' \(did you mean 'learning_rate'\?\)"):
        build(PretrainConfig, values)
    with pytest.raises(ConfigError, match="batch_size 4 is no multiple of micro_batch_size 3"):
        build(PretrainConfig, settings(genome, tmp_path, micro_batch_size=3))
    with pytest.raises(ConfigError, match=r"warmup_steps 9 exceeds training.steps 8"):
        build(PretrainConfig, settings(genome, tmp_path, warmup_steps=9))
    values = settings(genome, tmp_path)
    again = {"fasta": str(genome), "weight": 2.0, "species": "again"}
    values["data"]["genomes"] = [again, str(genome)]  # type: ignore[index]
    with pytest.raises(UsageError, match=r"set data.order=random"):
        pretrain(build(PretrainConfig, values))
    values["data"]["genomes"][0]["weight"] = 1.0  # type: ignore[index]
    with pytest.raises(InputError, match=r"files hold the same genome"):
        pretrain(build(PretrainConfig, values))
    values = settings(genome, tmp_path)
    values["data"]["sampling"] = {"temperature": 2.0}  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"set data.order=random"):
        build(PretrainConfig, values)
    values = settings(genome, tmp_path)
    values["data"] |= {"order": "random", "overlap": 5}  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"chunks of data.order=epoch"):
        build(PretrainConfig, values)


def test_chunks_as_of_nucleotide_transformer(genome: Path, tmp_path: Path) -> None:
    """Chunks of 90 + 10 bases that share 5: 95 bases from one to the next; windows start at 0 to 10 in them."""
    values = settings(genome, tmp_path / "run")
    values["data"] |= {"num_bases": 90, "start": 10, "overlap": 5}  # type: ignore[operator]
    values["training"]["eval_windows"] = 2
    config = build(PretrainConfig, values)
    sources = open_genomes([GenomeSource(genome, 1.0, "toy")])
    held = {"toy": HoldOut(contigs=("two",))}
    made = make_data(config, sources, held, make_kmer(3, overlapping=False))
    windows = made.train.windows
    expected = TrainingWindows(
        sources, num_bases=90, start=10, stride=95, num_samples=len(windows), seed=config.training.seed, strand="both",
        order="epoch", holdout=made.holdout, alphabet="ACGTN",
    )  # fmt: skip
    assert [window.interval for window in windows] == [window.interval for window in expected]
    values["data"]["overlap"] = 99
    with pytest.raises(UsageError, match="overlap 99 leaves nothing of chunks of 100 bases"):
        make_data(build(PretrainConfig, values), sources, held, make_kmer(3, overlapping=False))


def test_hold_outs_that_do_not_exist(genome: Path, tmp_path: Path) -> None:
    values = settings(genome, tmp_path / "run")
    values["data"]["hold_out"] = {"contigs": ["too"]}  # type: ignore[index]
    with pytest.raises(UsageError, match=r"contig 'too' is in none of the FASTA files \(did you mean 'two'\?\)"):
        pretrain(build(PretrainConfig, values))
    values["data"]["hold_out"] = {"contigs": ["chrtwo"]}  # type: ignore[index]
    with pytest.raises(UsageError, match=r"contig 'chrtwo' is in none of the FASTA files \(did you mean 'two'\?\)"):
        pretrain(build(PretrainConfig, values))
    values = settings(genome, tmp_path / "other")
    values["data"]["hold_out"] = {"fraction": 0.0}  # type: ignore[index]
    with pytest.raises(InputError, match="hold_out is empty"):
        pretrain(build(PretrainConfig, values))


def test_more_tokens_than_positions(genome: Path, tmp_path: Path) -> None:
    values = settings(genome, tmp_path / "run")
    values["model"]["settings"] |= {"positions": "learned", "max_position_embeddings": 16}  # type: ignore[index]
    with pytest.raises(LongstrandError, match=r"32.*16 positions"):
        pretrain(build(PretrainConfig, values))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "inverse_sqrt"])
def test_schedules_warm_up_and_end_as_named(genome: Path, tmp_path: Path, schedule: str) -> None:
    result = run(genome, tmp_path / "run", schedule=schedule, log_every=1)
    rates = [row["learning_rate"] for row in rows(result.folder) if "loss" in row]
    assert rates[0] == pytest.approx(0.0 if rates[0] == 0 else rates[0]) and max(rates) == pytest.approx(1e-2)
    assert (rates[-1] == pytest.approx(1e-2)) == (schedule == "constant")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=() if path.stem in ("gena_1000g", "gena_rmt_large") else pytest.mark.slow)
     for path in sorted(PAPERS.glob("*.yaml"))],
)  # fmt: skip
def test_settings_of_papers(genome: Path, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty steps of a tiny model on a toy genome; the full run is planned, not made."""
    name, small = path.stem, [f"model.settings.{key}={value}" for key, value in SMALL.items()]
    from_tables, people = name == "dnabert2_task", "1000g" in name
    words = ["training.steps=20", "training.batch_size=2", "training.warmup_steps=1", "training.eval_windows=2",
             "training.references=false", "training.threads=1", "training.num_workers=0", "training.device=cpu",
             "--output", str(tmp_path / "run")]  # fmt: skip
    if from_tables:
        text = genome.read_text().split("\n")[1]
        rows = [f"{text[p : p + 200]},{p % 2}" for p in range(0, 15_000, 300)]
        (tmp_path / "train.csv").write_text("sequence,label\n" + "\n".join(rows))
        words += ["--sequences", str(tmp_path / "train.csv")]
    else:
        words += ["--genome", str(genome), "data.hold_out.contigs=[two]"]
        words += ["data.contigs.min_length=1000"] * name.startswith("gena")
    given = ["output=o", "data.sequences=t.csv" if from_tables else "data.genomes=g.fa"]
    full = from_command_line(PretrainConfig, path, [*given, *["data.variants.path=v.vcf"] * people], {})
    if "rmt" in name or from_tables:
        tiny = tiny_checkpoint(tmp_path / "tiny", max_position_embeddings=64, positions="rotary")
        words += ["--model", str(tiny)]
        curriculum = full.memory.curriculum if full.memory else None
        words += ["memory.segment_length=24", "memory.num_tokens=2"] * ("rmt" in name)
        words += ["memory.curriculum.steps=[5, 5]"] * (curriculum is not None)
        words += ["training.max_tokens=48"] * from_tables
    else:
        chosen = preset(full.model.preset, vocab_size=100, **full.model.settings)
        assert chosen.hidden_size in (768, 1280, 2560)
        words += ["--preset", "tiny", *small, "training.max_tokens=64"]
    if full.tokenizer.kind == "bpe" and full.model.start_from is None and not from_tables:
        words += ["tokenizer.vocab_size=70", "tokenizer.training_bases=5000"]
    elif "--model" not in words:
        words += ["tokenizer.k=3"]
    command = ["pretrain", "--config", name, *words]
    if people:
        with pytest.raises(SystemExit):
            main(command)
        assert "data.variants.path" in capsys.readouterr().err
        text = genome.read_text().split("\n")[1]
        calls = [("one", p + 1, ".", text[p], f"{text[p]}A", ".", ".", ".", "GT", "0|1") for p in range(9, 20_000, 90)]
        command += [f"data.variants.path={write_vcf(tmp_path / 'in.vcf', calls, ['S'])}"]
        assert full.masking.random == (0.0 if name == "nt_1000g" else 0.1) and full.masking.mask == 0.8
    with pytest.raises(SystemExit) as ended:
        main([*command, "--json"])
    assert not ended.value.code
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 20 and report["hold_out"]["loss"] > 0
    assert report["settings"]["training"]["learning_rate"] == full.training.learning_rate
