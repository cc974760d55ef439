"""Curricula over the number of segments, by hand; pre-training with memory, resumed, from a plain checkpoint."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longstrand import load_model, load_tokenizer
from longstrand.config import build
from longstrand.errors import ConfigError, ResumeError
from longstrand.models.config import RecurrentMemory
from longstrand.models.memory.losses import counted_batch
from longstrand.runtime import read_json
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.curriculum import (
    Curriculum,
    CurriculumConfig,
    MemoryTraining,
    make_curriculum,
    row_tokens,
    stage_of,
)
from longstrand.training.pretrain import pretrain
from longstrand.training.settings import PretrainConfig
from longstrand.training.trainer import LongstrandTrainer
from tests.toys import tiny_checkpoint

# --- by hand ------------------------------------------------------------------------------------------------------


def test_stages_by_steps():
    config = CurriculumConfig(stages=(2, 4, 8), steps=(3, 2))
    assert [stage_of(config, step) for step in range(8)] == [2, 2, 2, 4, 4, 8, 8, 8]
    assert stage_of(CurriculumConfig(stages=(5,)), 100) == 5


def test_stages_by_plateau_depend_on_the_evaluations_before():
    config = CurriculumConfig(stages=(1, 2, 3), plateau={"patience": 2, "min_gain": 0.1})
    losses = [5.0, 4.0, 3.95, 3.9, 3.0, 2.95, 2.94, 2.93, 1.0]
    rows = [{"step": 10 * (number + 1), "eval_loss": loss} for number, loss in enumerate(losses)]
    rows.insert(1, {"step": 15, "loss": 9.9})
    stages = [stage_of(config, step, rows) for step in range(0, 100, 10)]
    assert stages == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def curriculum(**config) -> Curriculum:
    settings = {"stages": (2,), **config}
    return Curriculum(CurriculumConfig(**settings), 3, 2, 1, 0, count_bases=lambda ids: 10 * len(ids))


def test_a_batch_is_cut_and_keeps_its_ends():
    ids = torch.tensor([[1, 10, 11, 12, 13, 14, 15, 16, 2], [1, 20, 21, 2, 3, 3, 3, 3, 3]])
    labels = torch.where(ids > 14, ids, -100)
    batch = {
        "input_ids": ids,
        "attention_mask": (ids != 3).long(),
        "labels": labels,
        "num_bases": torch.tensor([70, 20]),
    }
    cut = curriculum().cut(batch, [8, 8])
    assert cut["input_ids"].tolist() == [[1, 10, 11, 12, 13, 14, 15, 2], [1, 20, 21, 2, 3, 3, 3, 3]]
    assert cut["attention_mask"].sum(1).tolist() == [8, 4]
    assert cut["labels"].tolist() == [[-100] * 6 + [15, -100], [-100, 20, 21] + [-100] * 5]
    assert cut["num_bases"].tolist() == [80, 20]
    shorter = curriculum().cut(batch, [5, 3])
    assert shorter["input_ids"][0].tolist() == [1, 10, 11, 12, 2]
    assert shorter["input_ids"][1, :3].tolist() == [1, 20, 2] and shorter["attention_mask"][1].tolist() == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert curriculum().cut(batch, [9, 4]) is batch


@pytest.mark.parametrize("per_token", [False, True], ids=["rows", "tokens"])
def test_bases_of_cut_rows_are_counted_from_their_ids_not_from_labels_of_classes(per_token):
    tokenizer = make_kmer(2, overlapping=False)
    memory = MemoryTraining(num_tokens=1, segment_length=7, segments=1)
    settings = RecurrentMemory(
        **memory.model_settings(), cls_token_id=tokenizer.cls_token_id, sep_token_id=tokenizer.sep_token_id
    )
    made = make_curriculum(memory, settings, tokenizer, seed=0, per_token=per_token)
    ids = torch.tensor(tokenizer.encode("ACGTTGCATT").input_ids)[None].long()
    labels = torch.ones_like(ids) if per_token else torch.tensor([1])
    batch = {"input_ids": ids, "labels": labels, "num_bases": torch.tensor([10])}
    (cut,) = made.cut_all(iter([batch]), 0, 1)
    assert cut["input_ids"].shape == (1, 3 + 2) and cut["num_bases"].tolist() == [6]


def test_mixed_lengths_depend_on_the_step_alone():
    ids = torch.arange(10, 42)[None].repeat(64, 1)
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    mixer = curriculum(stages=(8,), mixed=0.5)
    first, again, other = (next(mixer.cut_all(iter([batch]), step, 1))["attention_mask"].sum(1) for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert set(first.tolist()) <= {3 * n + 2 for n in range(1, 9)}
    assert 0.4 < (first == 26).float().mean() < 0.75


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stages": [4, 2], "steps": [3]}, "should grow from at least 1 segment"),
        ({"stages": [0]}, "should grow from at least 1 segment"),
        ({"stages": [2, 4]}, "need steps or plateau"),
        ({"stages": [2, 4], "steps": [3, 3]}, r"steps \[3, 3\] should be 1 numbers"),
        ({"stages": [2, 4], "steps": [0]}, "numbers from 1 on"),
        ({"stages": [2, 4], "plateau": {}, "steps": [1]}, "one of the two"),
    ],
)
def test_wrong_curricula(values, words):
    with pytest.raises(ConfigError, match=words):
        build(CurriculumConfig, values, "curriculum")


def test_wrong_memory_blocks():
    both = {"segments": 2, "curriculum": {"stages": [2]}}
    with pytest.raises(ConfigError, match="give segments or a curriculum"):
        build(MemoryTraining, both, "memory")
    bins = {"bins_per_segment": 2, "sep_token_id": 2, "split": "left", "segments": 2}
    with pytest.raises(ConfigError, match="rows of bins are not cut"):
        build(MemoryTraining, bins, "memory")
    with pytest.raises(ConfigError, match=r"'num_token'.*num_tokens"):
        build(MemoryTraining, {"num_token": 2}, "memory")


def test_labels_that_do_not_count_leave_the_batch(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    ids = torch.tensor([[1, *range(6, 20), 2]])
    settings = {"num_tokens": 1, "segment_length": 9, "loss": "last", "cls_token_id": 1, "sep_token_id": 2}
    config = load_model(folder, changes={"memory": settings}).config
    batch = {"input_ids": ids, "labels": ids.clone()}
    assert (counted_batch(batch, config)["labels"] != -100).sum() == 4
    assert counted_batch({"labels": ids}, config)["labels"] is ids


# --- runs ---------------------------------------------------------------------------------------------------------

MEMORY = {"num_tokens": 2, "segment_length": 16, "curriculum": {"stages": [1, 2, 3], "steps": [2, 4], "mixed": 0.3}}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = random.Random(0)
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    texts = {name: "".join(letters.choice("ACGT") for _ in range(size)) for name, size in (("a", 9000), ("b", 3000))}
    path.write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    return path


def settings(genome: Path, output: Path, memory: dict, **changes) -> PretrainConfig:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    values = {
        "output": str(output),
        "data": {"genomes": [str(genome)], "hold_out": {"contigs": ["b"]}},
        **({"model": changes.pop("model")} if "model" in changes else {
            "tokenizer": {"kind": "kmer", "k": 3},
            "model": {"preset": "tiny", "settings": {**shape, "hidden_dropout": 0.1}},
        }),
        "memory": memory,
        "training": {"steps": 8, "batch_size": 4, "warmup_steps": 2, "log_every": 1, "eval_every": 2, "num_workers": 0,
                     "eval_windows": 4, "save_every": 3, "tensorboard": False, "device": "cpu", "threads": 1,
                     "references": False, "micro_batch_size": 2, **changes},
    }  # fmt: skip
    return build(PretrainConfig, values)


@pytest.fixture(scope="module")
def straight(genome, tmp_path_factory):
    return pretrain(settings(genome, tmp_path_factory.mktemp("straight") / "run", MEMORY))


def rows_of(folder: Path) -> list[dict]:
    clock = ("_per_second", "utilisation")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith(clock)} for row in rows]


def test_pretraining_follows_the_curriculum(straight):
    rows = [row for row in rows_of(straight.folder) if "loss" in row]
    assert [row["segments"] for row in rows] == [1, 1, 2, 2, 2, 2, 3, 3]
    stored = read_json(straight.model / "config.json")["memory"]
    assert (stored["num_tokens"], stored["segment_length"], stored["loss"]) == (2, 16, None)
    tokenizer = load_tokenizer(straight.model)
    room = 16 - 2 - (tokenizer.cls_token_id is not None) - 2 * (tokenizer.sep_token_id is not None)
    model = load_model(straight.model)
    assert row_tokens(model.config.memory and MemoryTraining(**stored), tokenizer, 3) == 3 * room + 2
    tokens = [row["tokens_seen"] for row in rows]
    assert tokens[1] == 8 * (room + 2) and tokens[-1] <= tokens[1] + 16 * (2 * room + 2) + 8 * (3 * room + 2)
    assert rows[1]["bases_seen"] == 8 * 3 * room


class Killed(Exception):
    """Stands for SIGKILL in the middle of a step."""


@pytest.mark.parametrize("moment", [5, 7], ids=["in_the_second_stage", "after_it"])
def test_resume_in_the_middle_of_a_stage_is_bit_identical(straight, genome, tmp_path, monkeypatch, moment):
    stock = LongstrandTrainer.training_step

    def fragile(self, *arguments, **options):
        if self.state.global_step == moment:
            raise Killed
        return stock(self, *arguments, **options)

    run = settings(genome, tmp_path / "run", MEMORY)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LongstrandTrainer, "training_step", fragile)
        pretrain(run)
    resumed = pretrain(run)
    assert resumed.resumed_from == 3 * (moment // 3)
    before, after = (load_file(result.model / "model.safetensors") for result in (straight, resumed))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert rows_of(resumed.folder) == rows_of(straight.folder)
    changed = {**MEMORY, "curriculum": {**MEMORY["curriculum"], "steps": [2, 5]}}
    with pytest.raises(ResumeError, match=r"memory.curriculum.steps: \[2, 4\] -> \[2, 5\]"):
        pretrain(settings(genome, tmp_path / "run", changed))


@pytest.mark.slow
def test_a_plateau_moves_on_and_resumes_exactly(genome, tmp_path, monkeypatch):
    plateau = {"stages": [1, 2, 3], "plateau": {"patience": 1, "min_gain": 10.0}}
    memory = {"num_tokens": 2, "segment_length": 16, "curriculum": plateau}
    whole = pretrain(settings(genome, tmp_path / "whole", memory))
    stages = [row["segments"] for row in rows_of(whole.folder) if "loss" in row]
    assert stages == [1, 1, 1, 1, 2, 2, 3, 3]  # the first evaluation, at step 2, has nothing to be compared with
    stock = LongstrandTrainer.training_step

    def fragile(self, *arguments, **options):
        if self.state.global_step == 5:
            raise Killed
        return stock(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LongstrandTrainer, "training_step", fragile)
        pretrain(settings(genome, tmp_path / "killed", memory))
    resumed = pretrain(settings(genome, tmp_path / "killed", memory))
    assert rows_of(resumed.folder) == rows_of(whole.folder)
    before, after = (load_file(result.model / "model.safetensors") for result in (whole, resumed))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_plain_checkpoint_goes_on_with_a_fresh_memory(straight, genome, tmp_path):
    plain = tiny_checkpoint(tmp_path / "plain", k=3)
    memory = {"num_tokens": 2, "segment_length": 12, "segments": 2}
    result = pretrain(settings(genome, tmp_path / "run", memory, model={"start_from": str(plain)}, steps=2))
    model = load_model(result.model)
    assert model.config.memory.num_tokens == 2 and model.encoder.memory.initial.shape == (2, 16)
    more = pretrain(
        settings(genome, tmp_path / "more", {"segments": 3}, model={"start_from": str(result.model)}, steps=2)
    )
    assert load_model(more.model).config.memory.segment_length == 12


def test_window_lengths_are_said_once(genome, tmp_path):
    with pytest.raises(ConfigError, match="the length of windows is given twice"):
        settings(genome, tmp_path / "run", MEMORY, max_tokens=64)
    with pytest.raises(ConfigError, match="memory needs segments or a curriculum"):
        settings(genome, tmp_path / "run", {"num_tokens": 2})
