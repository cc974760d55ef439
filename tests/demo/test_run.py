"""The demo: what its paired test says; settings and folders that are refused (its whole path: tests/test_readme.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longstrand.cli.main import main
from longstrand.config import build
from longstrand.data.targets import Task
from longstrand.demo import materials
from longstrand.demo.materials import DemoConfig, LabelSet, own_materials, yeast_materials
from longstrand.demo.report import Comparison, sentences
from longstrand.demo.run import claim
from longstrand.errors import ConfigError, InputError, ResumeError
from longstrand.evaluation.metrics import Scores


def comparison(pretrained: np.ndarray, other: np.ndarray, truth: np.ndarray) -> Comparison:
    task = Task("single_label", ("decoy", "enhancer"), ("label",), "one", ("decoy", "enhancer"))

    def scores(called: np.ndarray) -> Scores:
        return Scores(task, truth, np.stack([1 - called, called], axis=1).astype(float))

    labels = LabelSet("enhancers", {}, {})
    return Comparison.of(labels, {"pre-trained": scores(pretrained), "random start": scores(other)}, {})


def test_better_is_said_only_where_the_paired_test_confirms_it() -> None:
    truth = np.arange(200) % 2
    half_wrong = np.where(np.arange(200) % 4 < 2, 1 - truth, truth)
    lines = sentences(comparison(truth, half_wrong, truth))
    assert lines[0].startswith("Enhancers: Matthews correlation on the test sequences (1: every answer is right, 0: g")
    assert "pre-trained 1.000, random start 0.000" in lines[0]
    assert "is better than random start (+1.000" in lines[1]
    assert "is worse than random start (-1.000" in sentences(comparison(half_wrong, truth, truth))[1]
    one_wrong = truth.copy()
    one_wrong[0] = 1 - one_wrong[0]
    lines = sentences(comparison(truth, one_wrong, truth))
    assert "does not clearly differ from random start" in lines[1] and len(lines) == 2


def test_a_changed_setting_is_refused(tmp_path: Path) -> None:
    claim(DemoConfig(output=tmp_path / "out", seed=1))
    claim(DemoConfig(output=tmp_path / "out", seed=1))
    with pytest.raises(ResumeError, match="holds a demo with another seed; choose another --output"):
        claim(DemoConfig(output=tmp_path / "out", seed=2))


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ResumeError, match="is not empty and holds no demo"):
        claim(DemoConfig(output=tmp_path))
    with pytest.raises(InputError, match="the folder cannot be made"):
        claim(DemoConfig(output=tmp_path / "thesis.txt" / "out"))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.fa: no such FASTA file"):
        own_materials(DemoConfig(genome=(tmp_path / "absent.fa",)))
    genome = tmp_path / "g.fa"
    genome.write_text(">a\nACGT\n")
    (tmp_path / "train.csv").write_text("sequence,label\nA,1\n")
    with pytest.raises(InputError, match=r"holds no dev\.csv"):
        own_materials(DemoConfig(genome=(genome,), labels=tmp_path))
    (tmp_path / "valid.csv").write_text("sequence,label\nA,1\n")
    (tmp_path / "test.tsv").write_text("sequence\tlabel\nA\t1\n")
    (found,) = own_materials(DemoConfig(genome=(genome,), labels=tmp_path)).label_sets
    assert {split: path.name for split, path in found.tables.items()} == {
        "train": "train.csv", "valid": "valid.csv", "test": "test.tsv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"labels": "x"}, "labels belong to real genomes"),
        ({"annotation": "x.gtf"}, "annotation and download belong to yeast"),
        ({"download": True}, "annotation and download belong to yeast"),
        ({"yeast": True, "quick": True}, "leave out labels and quick"),
        ({"yeast": True, "genome": ["x.fa"]}, "both genome and annotation"),
        ({"yeast": True, "genome": ["x.fa"], "annotation": "x.gtf", "download": True}, "give download, or genome"),
    ],
)
def test_options_that_contradict_each_other(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(DemoConfig, values, "demo")


def test_yeast_tables_have_so_many_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    lengths = {"I": 60_000, "XVI": 20_000, "IV": 20_000, "XV": 20_000}
    texts = {name: "".join(random.choice(list("ACGT"), size=size)) for name, size in lengths.items()}
    (tmp_path / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    lines = [
        f'{name}\tx\texon\t{start}\t{start + 500}\t.\t+\t.\tgene_id "{name}{start}"; transcript_id "{name}{start}";\n'
        for name, size in lengths.items() for start in range(1001, size - 1000, 1000)
    ]  # fmt: skip
    (tmp_path / "g.gtf").write_text("".join(lines))
    monkeypatch.setattr(materials, "YEAST_LABELS", (20, 40))
    config = DemoConfig(output=tmp_path / "out", yeast=True, genome=(tmp_path / "g.fa",), annotation=tmp_path / "g.gtf")
    made = yeast_materials(config, lambda line: None)
    counts = [
        [len(labels.tables[split].read_text().splitlines()) - 1 for split in ("train", "valid")]
        for labels in made.label_sets
    ]
    assert counts == [[16, 4], [32, 8]]
    test = made.label_sets[0].tables["test"].read_text()
    assert {line.split(",")[1] for line in test.splitlines()[1:]} == {"IV", "XV"}
    assert f",{texts['IV'][700:1000]},promoter" in test


def test_the_command_says_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["demo", "--genome", str(tmp_path / "absent.fa"), "--output", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "no such FASTA file" in capsys.readouterr().err
