"""`--contigs`, `--shifts` and `--tta` on the command line: from a genome to tracks, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from longstrand.cli.main import main
from longstrand.inference.predict import predict
from longstrand.inference.strands import PUBLISHED_VIEWS
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import MODELS
from longstrand.tokenization.kmer import make_kmer

K3 = make_kmer(3)
CONTIG = "ACGGATTACAGATTACCCATAGACCATGACAGTTTACGACA" * 3


def save(folder: Path, kind: str, memory: bool) -> Path:
    torch.manual_seed(0)
    head = {"kind": kind, "problem": "single_label", "num_outputs": 2, "class_names": ["out", "in"]}
    specials = {"cls_token_id": K3.cls_token_id, "sep_token_id": K3.sep_token_id}
    config = preset(
        "tiny", vocab_size=K3.vocab_size, heads={kind: head}, pad_token_id=K3.pad_token_id,
        memory={"num_tokens": 2, "segment_length": 16, **specials} if memory else None,
    )  # fmt: skip
    model = MODELS[kind](config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_checkpoint(model, K3, folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "g.fa").write_text(f">a\n{CONTIG}\n>b\nNNNNNN\n")
    return {
        "genome": folder / "g.fa",
        "bases": save(folder / "bases", "token", True),
        "promoters": save(folder / "promoters", "sequence", False),
    }


def run(*words: Any, code: int = 0) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == code


def test_predict_writes_a_track(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", files["bases"], files["genome"], "--output", tmp_path / "x.bedgraph", "--column"]
    run(*words, "probability_in", "--gap", 5)
    found = capsys.readouterr().out
    assert "wrote 2 contigs, 123 bases" in found and "6 bases in long runs of N were not read" in found
    lines = [line.split("\t") for line in (tmp_path / "x.bedgraph").read_text().splitlines()]
    values = np.concatenate([np.full(int(end) - int(start), float(value)) for _, start, end, value in lines])
    (wanted,) = predict(load_model(files["bases"]), [CONTIG], tokenizer=K3, output="probabilities")
    np.testing.assert_allclose(values, wanted.values[:, 1], rtol=1e-4)
    run(*words, "probability_in", "--gap", 5)
    assert "is already complete" in capsys.readouterr().out
    run(*words, "probability_out", "--gap", 5, code=1)
    assert "columns: ['probability_in'] -> ['probability_out']" in capsys.readouterr().err


def test_windows_of_a_sequence_model_and_embeddings(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        "predict", files["promoters"], files["genome"], "--contigs", "a", "--window", 60, "--step", 41,
        "--values", "logits", "--output", tmp_path / "x.zarr", "--json",
    )  # fmt: skip
    summary = json.loads(capsys.readouterr().out)
    assert (summary["contigs"], summary["bases"], summary["already_finished"]) == (1, 123, False)
    values = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")["a"]
    (wanted,) = predict(load_model(files["promoters"]), [CONTIG[32:92]], tokenizer=K3)
    np.testing.assert_allclose(values[50], wanted.values, rtol=1e-4)
    run("embed", files["bases"], files["genome"], "--contigs", "all", "--bin-size", 100, "-o", tmp_path / "e.zarr")
    group = zarr.open_group(str(tmp_path / "e.zarr"), mode="r")
    assert group["a"].shape == (2, load_model(files["bases"]).config.hidden_size)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--output", "x.csv", "--bin-size", "5"], "--bin-size is not for sequences and intervals; add --contigs all"),
        (["--output", "x.bw", "--fasta", "g.fa"], "leave --genome away"),
        (["--output", "x.bw", "--exact-text"], "contigs are read in upper case"),
        (["--output", "x.csv", "--contigs", "all"], "no track format"),
        (["--output", "x.csv", "--shifts", "a"], "'shifts.0': Input should be a valid integer"),
        (["--output", "x.csv", "--tta", "--strand", "both"], "tta names strands and shifts itself"),
        (["--output", "x.bw", "--contigs", "c"], "no record 'c'"),
    ],
)
def test_what_is_refused(
    words: list[str],
    problem: str,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--contigs" in words and "x.bw" in words:
        words = [*words, "--column", "probability_in"]
    with pytest.raises(SystemExit) as end:
        main(["predict", str(files["bases"]), str(files["genome"]), *words])
    assert end.value.code in (1, 2) and problem in capsys.readouterr().err


def test_shifts_and_tta_reach_the_sequences(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(files["promoters"])
    for option, views in ((["--shifts", "0,2"], (("+", 0), ("+", 2))), (["--tta"], PUBLISHED_VIEWS)):
        (tmp_path / "r.bed").write_text("a\t10\t70\n")
        run(
            "predict", files["promoters"], tmp_path / "r.bed", "--fasta", files["genome"], "--values", "logits",
            "--output", tmp_path / "x.zarr", "--overwrite", *option,
        )  # fmt: skip
        singles = []
        for strand, shift in views:
            text = CONTIG[10 + shift : 70 + shift]
            singles.append(next(predict(model, [text], tokenizer=K3, strand=strand)).values)
        found = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")["values"][:]
        np.testing.assert_allclose(found[0], np.mean(singles, axis=0), rtol=1e-4, atol=1e-6)


def test_regions_are_a_file_or_written_out_and_go_by_the_names_of_the_genome(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """From 1, both ends included: bases 10 to 29 and 59 to 60 of both."""
    (tmp_path / "g.fa").write_text(f">1\n{CONTIG}\n>2\n{CONTIG}\n")
    (tmp_path / "r.bed").write_text("1\t10\t30\n2\t59\t61\n")
    (tmp_path / "chr.bed").write_text("chr1\t10\t30\nchr2\t59\t61\n")
    words = ["predict", files["bases"], tmp_path / "g.fa", "--column", "probability_in"]
    given = (tmp_path / "r.bed", tmp_path / "chr.bed", "1:11-30,2:60-61", "chr1:11-30,chr2:60-61")
    for number, places in enumerate(given):
        run(*words, "--regions", places, "-o", tmp_path / f"{number}.bedgraph")
        assert caplog.text.count("('chr1' is '1'); 2 contigs were matched") == number % 2
        caplog.clear()
    texts = {(tmp_path / f"{number}.bedgraph").read_text() for number in range(4)}
    assert len(texts) == 1 and texts.pop().startswith("1\t10\t")
    run(*words, "--regions", "1:11-30", "-o", tmp_path / "2.bedgraph", code=1)
    assert "regions: 1:11-30,2:60-61 -> 1:11-30" in capsys.readouterr().err.replace("'", "")
    run(*words, "--regions", "1:11", "-o", tmp_path / "x.bedgraph", code=1)
    assert "'1:11' is no region; write chrom:start-end, such as chr1:1,001-2,000" in capsys.readouterr().err
    run(*words, "--regions", "1:11-500", "-o", tmp_path / "x.bedgraph", code=1)
    assert "row 1: 1:11-500 is out of range, 1 has 123 bases in g.fa" in capsys.readouterr().err
