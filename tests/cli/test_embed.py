"""`longstrand embed` from files to files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longstrand.cli.main import main
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM
from longstrand.tokenization.kmer import make_kmer

K2 = make_kmer(2)
SEQUENCES = ["ACGTACGTT", "", "TTTTT", "ACG"]
WIDTH = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = LongstrandForMaskedLM(preset("tiny", vocab_size=K2.vocab_size))
    return save_checkpoint(network, K2, tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fa"
    path.write_text("".join(f">s{number}\n{text}\n" for number, text in enumerate(SEQUENCES)))
    return path


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["embed", *map(str, words)])
    return int(stop.value.code or 0)


def expected(folder: Path, **options: Any) -> list[np.ndarray]:
    model = load_model(folder, "encoder")
    return [item.values for item in predict(model, SEQUENCES, tokenizer=K2, output="embeddings", **options)]


@pytest.mark.parametrize(("pooling", "layer"), [("mean", -1), ("max", 0), ("cls", 1)])
def test_one_vector_a_sequence(model: Path, fasta: Path, tmp_path: Path, pooling: str, layer: int) -> None:
    assert command(model, fasta, "-o", tmp_path / "o.csv", "--pooling", pooling, "--layer", layer) == 0
    with (tmp_path / "o.csv").open() as file:
        header, *lines = list(csv.reader(file))
    assert header == ["index", "name", *(f"e{number}" for number in range(WIDTH))]
    assert [line[1] for line in lines] == ["s0", "s1", "s2", "s3"]
    assert set(lines[1][2:]) == {""}
    right = expected(model, pooling=pooling, layer=layer)
    for number in (0, 2, 3):
        np.testing.assert_allclose(np.array(lines[number][2:], dtype=float), right[number], atol=1e-5)


def test_parquet(model: Path, fasta: Path, tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    assert command(model, fasta, "-o", tmp_path / "o.parquet", "--strand", "both") == 0
    table = pl.read_parquet(tmp_path / "o.parquet")
    right = np.stack(expected(model, strand="both"))
    np.testing.assert_allclose(table.select(pl.col("^e.*$")).to_numpy(), right, atol=1e-5)


@pytest.mark.parametrize("strand", ["+", "both"])
def test_one_vector_a_base(model: Path, fasta: Path, tmp_path: Path, strand: str) -> None:
    zarr = pytest.importorskip("zarr")
    words = ["--pooling", "bases", "--strand", strand, "--part-rows", "1"]
    assert command(model, fasta, "-o", tmp_path / "o.zarr", *words) == 0
    group = zarr.open_group(str(tmp_path / "o.zarr"), mode="r")
    offsets = group["offsets"][:]
    assert offsets.tolist() == [0, 9, 9, 14, 17]
    for number, right in enumerate(expected(model, pooling="bases", strand=strand)):
        np.testing.assert_allclose(group["values"][offsets[number] : offsets[number + 1]], right, atol=1e-5)
    assert group["position"][9:].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_one_vector_a_token(model: Path, fasta: Path, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    assert command(model, fasta, "-o", tmp_path / "o.zarr", "--pooling", "tokens") == 0
    group = zarr.open_group(str(tmp_path / "o.zarr"), mode="r")
    assert group["offsets"][:].tolist() == [0, 5, 5, 8, 10]
    assert group["token_end"][:5].tolist() == [2, 4, 6, 8, 9]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pooling", "bases"), "--pooling bases gives many vectors a row; write them to a name that ends in .zarr."),
        (("--pooling", "average"), "unknown --pooling 'average'; known: mean, mean_all, max, cls, bases, tokens."),
        (("--layer", "3"), "no layer 3: the model has 2; use 0 (embedding output) to 2, or -1 (last) to -3."),
    ],
)
def test_bad_words(
    model: Path, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert command(model, fasta, "-o", tmp_path / "o.csv", *words) == 2
    assert message in capsys.readouterr().err
