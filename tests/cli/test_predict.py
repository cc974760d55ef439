"""`longstrand predict` from files to files, in this process; one run in a process of its own."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from longstrand.cli.main import main
from longstrand.data.rows import Record
from longstrand.genome.sequence import reverse_complement
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import MODELS
from longstrand.tokenization.kmer import make_kmer

K3 = make_kmer(3)
SEQUENCES = ["ACGTACGTTA", "GGGATTACA", "TTTTT", "ACG"]
CONTIG = "ACGGATTACAGATTACCCATAGACCATGACAGTTTACGACA"


def save(folder: Path, kind: str, **head: Any) -> Path:
    """Write a tiny model with random weights and the tokenizer of single words of three."""
    torch.manual_seed(0)
    settings = {"kind": kind, "problem": "single_label", "num_outputs": 2, **head} if kind != "masked_lm" else {}
    heads = {kind: {"kind": kind, **settings}}
    config = preset("tiny", vocab_size=K3.vocab_size, heads=heads, positions="learned", max_position_embeddings=12)
    model = MODELS[kind](config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_checkpoint(model, K3, folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "classes": save(folder / "classes" / "model", "sequence", class_names=["no", "yes"]),
        "labels": save(folder / "labels", "sequence", problem="multi_label", num_outputs=3),
        "number": save(folder / "number", "sequence", problem="regression", num_outputs=1),
        "numbers": save(folder / "numbers", "sequence", problem="regression", class_names=["a", "b"]),
        "bases": save(folder / "bases", "token", class_names=["out", "in"]),
        "mlm": save(folder / "mlm", "masked_lm"),
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("name,sequence,label\n" + "".join(f"s{i},{text},0\n" for i, text in enumerate(SEQUENCES)))
    return path


def command(*words: object, verb: str = "predict") -> int:
    with pytest.raises(SystemExit) as stop:
        main([verb, *map(str, words)])
    return int(stop.value.code or 0)


def rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return list(csv.DictReader(text.splitlines(), delimiter=delimiter))


def expected(folder: Path, sequences: list[Any], **options: Any) -> list[list[float]]:
    model = load_model(folder)
    return [item.values.tolist() for item in predict(model, sequences, tokenizer=K3, **options)]


def numbers(line: dict[str, str], prefix: str) -> list[float]:
    return [float(value) for name, value in line.items() if name.startswith(prefix)]


def test_classes(models: dict[str, Path], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(models["classes"].parent, table, "-o", tmp_path / "o.csv") == 0
    found = rows(tmp_path / "o.csv")
    assert list(found[0]) == ["index", "name", "prediction", "probability_no", "probability_yes"]
    assert [line["name"] for line in found] == ["s0", "s1", "s2", "s3"]
    for line, right in zip(found, expected(models["classes"], SEQUENCES, output="probabilities")):
        assert numbers(line, "probability") == pytest.approx(right, abs=1e-5)
        assert line["prediction"] == ("yes" if right[1] > right[0] else "no")
    assert f"wrote 4 rows to {tmp_path / 'o.csv'}" in capsys.readouterr().out
    assert command(models["classes"], table, "-o", tmp_path / "o.csv") == 0
    assert "is already complete (4 rows)" in capsys.readouterr().out
    assert command(models["classes"], table, "-o", tmp_path / "o.csv", "--strand", "both") == 1
    assert "strand: '+' -> 'both'" in capsys.readouterr().err


def test_logits_of_both_strands(models: dict[str, Path], table: Path, tmp_path: Path) -> None:
    command(models["classes"], table, "-o", tmp_path / "o.tsv", "--values", "logits", "--strand", "both")
    found = rows(tmp_path / "o.tsv", "\t")
    for line, right in zip(found, expected(models["classes"], SEQUENCES, strand="both")):
        assert numbers(line, "logit_") == pytest.approx(right, abs=1e-5)


def test_labels_and_numbers(models: dict[str, Path], table: Path, tmp_path: Path) -> None:
    command(models["labels"], table, "-o", tmp_path / "l.csv")
    for line in rows(tmp_path / "l.csv"):
        chosen = [str(i) for i, chance in enumerate(numbers(line, "probability_")) if chance > 0.5]
        assert line["prediction"] == ";".join(chosen)
    command(models["number"], table, "-o", tmp_path / "n.csv")
    assert list(rows(tmp_path / "n.csv")[0]) == ["index", "name", "prediction"]
    command(models["numbers"], table, "-o", tmp_path / "m.csv.gz")
    assert list(rows(tmp_path / "m.csv.gz")[0]) == ["index", "name", "prediction_a", "prediction_b"]


def test_bases_and_tokens(models: dict[str, Path], table: Path, tmp_path: Path) -> None:
    command(models["bases"], table, "-o", tmp_path / "b.csv")
    found = rows(tmp_path / "b.csv")
    assert [(line["name"], line["position"]) for line in found[9:12]] == [("s0", "9"), ("s1", "0"), ("s1", "1")]
    assert len(found) == sum(map(len, SEQUENCES))
    assert {line["prediction"] for line in found} <= {"in", "out"}
    command(models["bases"], table, "-o", tmp_path / "t.csv", "--per", "token")
    tokens = rows(tmp_path / "t.csv")
    assert [(line["token_start"], line["token_end"]) for line in tokens[:4]] == [
        ("0", "3"), ("3", "6"), ("6", "9"), ("9", "10"),
    ]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_fasta(models: dict[str, Path], tmp_path: Path, packed: bool) -> None:
    text = ">one first\nACGTA\nCGTTA\n>two\nggg\nattaca\n>none\n>four\nACG"
    path = tmp_path / ("in.fa.gz" if packed else "in.fa")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert command(models["classes"], path, "-o", tmp_path / "o.csv") == 0
    found = rows(tmp_path / "o.csv")
    assert [line["name"] for line in found] == ["one", "two", "none", "four"]
    assert found[2]["prediction"] == found[2]["probability_no"] == ""
    right = expected(models["classes"], ["ACGTACGTTA", "GGGATTACA", "ACG"], output="probabilities")
    for line, values in zip([found[0], found[1], found[3]], right):
        assert numbers(line, "probability") == pytest.approx(values, abs=1e-5)


def test_parquet_in_and_out(models: dict[str, Path], tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    pl.DataFrame({"dna": [*SEQUENCES, None], "id": list("abcde")}).write_parquet(tmp_path / "in.parquet")
    words = [models["classes"], tmp_path / "in.parquet", "-o", tmp_path / "o.parquet", "--sequence-column", "dna"]
    assert command(*words) == 0
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found["name"].to_list() == list("abcde")
    assert found["probability_yes"].null_count() == 1
    assert found["prediction"].to_list()[4] is None


def test_intervals(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.fa").write_text(f">chr1\n{CONTIG}\n")
    (tmp_path / "p.bed").write_text("chr1\t5\t14\tpeak\t0\t+\nchr1\t5\t14\tback\t0\t-\nchr1\t0\t1\tedge\t0\t+\n")
    words = [models["classes"], tmp_path / "p.bed", "--fasta", tmp_path / "g.fa", "--values", "logits"]
    assert command(*words, "-o", tmp_path / "o.csv") == 0
    found = rows(tmp_path / "o.csv")
    assert [found[1][name] for name in ("chrom", "start", "end", "strand", "name")] == ["chr1", "5", "14", "-", "back"]
    right = expected(models["classes"], [CONTIG[5:14], reverse_complement(CONTIG[5:14]), CONTIG[:1]])
    for line, values in zip(found, right):
        assert numbers(line, "logit") == pytest.approx(values, abs=1e-5)
    assert command(*words, "--window", "7", "-o", tmp_path / "w.csv", "--json") == 0
    summary = json.loads(capsys.readouterr().out.split("sequences/s)\n")[-1])
    assert summary["rows"] == 3 and summary["unknown_letters"] == 3 and summary["with_unknown_letters"] == 1
    right = expected(models["classes"], [CONTIG[6:13], reverse_complement(CONTIG[6:13]), "NNN" + CONTIG[:4]])
    for line, values in zip(rows(tmp_path / "w.csv"), right):
        assert numbers(line, "logit") == pytest.approx(values, abs=1e-5)
    (tmp_path / "t.csv").write_text("chrom,start,end,label\nchr1,5,15,x\n")
    command(models["classes"], tmp_path / "t.csv", "--fasta", tmp_path / "g.fa", "-o", tmp_path / "i.csv")
    assert rows(tmp_path / "i.csv")[0]["name"] == "chr1:6-15"


def test_truncated_sequences_are_counted(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("sequence\n" + "ACG" * 11 + "\nACGN\n\n" + '""\n')
    assert command(models["classes"], tmp_path / "in.csv", "-o", tmp_path / "o.csv") == 1
    assert "in.csv, row 1: the sequence of 33 bases has 13 tokens, but the position table of this model ends at 12" in (
        capsys.readouterr().err
    )
    assert command(models["classes"], tmp_path / "in.csv", "-o", tmp_path / "o.csv", "--truncate", "--overwrite") == 0
    said = capsys.readouterr().out
    assert "note: 1 sequences were cut to what the model can read." in said
    assert "note: 1 unknown letters in 1 sequences were read as N." in said
    assert "note: 1 sequences are empty or too short for the tokenizer; their values are missing." in said
    assert len(rows(tmp_path / "o.csv")) == 3


def test_pairs(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("sequence,other\nACGACG,TTT\n")
    words = [models["classes"], tmp_path / "in.csv", "--pair-column", "other", "--values", "logits"]
    assert command(*words, "-o", tmp_path / "o.csv") == 0
    (right,) = expected(models["classes"], [Record(0, "", "ACGACG", second="TTT")])
    assert numbers(rows(tmp_path / "o.csv")[0], "logit") == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "words", "code", "message"),
    [
        ("in.csv", "sequence\nACGT\nACGX\n", (), 1, r"in.csv, row 2: 'X' at position 4 is no nucleotide letter"),
        (
            "in.csv",
            "site,label\nACGT,1\n",
            (),
            1,
            "columns are: site, label; call yours 'sequence', or name it with --sequence-column.",
        ),
        ("in.csv", "Sequence\nACGT\n", (), 1, "(did you mean 'Sequence'?)"),
        ("in.csv", f"{'ACGT' * 20},1\nACGT,1\n", (), 1, f"{'ACGT' * 9}A..., 1 (is the header line missing?)"),
        ("in.csv", "", (), 1, "in.csv: the file is empty."),
        ("in.csv", "sequence\n", (), 1, "in.csv: the table has a header and no rows."),
        ("in.csv", "sequence,label\nACG,1\nACG\n", (), 1, "in.csv, row 2: 1 cells where the header names 2 columns."),
        ("in.fa", "ACGT\n", (), 1, "in.fa: not FASTA, the first line does not start with '>'."),
        ("in.fa", "\n", (), 1, "in.fa: the file is empty."),
        ("in.fa", b"\xff\xfe\x00", (), 1, "in.fa: not FASTA, the first line does not start with '>'."),
        ("in.csv.gz", gzip.compress(b"sequence\n" + b"ACGT\n" * 9999, mtime=0)[:60], (), 1, "ends too early"),
        ("in.parquet", b"PAR1", (), 1, "in.parquet: not readable as Parquet"),
        ("in.bed", "chr1\t1\t5\n", (), 2, "intervals need the genome they lie on; add --genome"),
        (
            "in.csv",
            "sequence\nACGT\n",
            ("--window", "9"),
            2,
            "holds sequences, so --genome and --window have no meaning",
        ),
        ("in.csv", "sequence\nACGT\n", ("--values", "logit"), 2, "unknown --values 'logit' (did you mean 'logits'?)"),
        ("in.csv", "sequence\nACGT\n", ("--per", "word"), 2, "unknown --per 'word'; known: base, token."),
        ("in.csv", "sequence\nACGT\n", ("--strand", "x"), 2, "'strand': Input should be '+', '-' or 'both' (got 'x')"),
        ("in.csv", "sequence\nACGT\n", ("--device", "gpu0"), 2, "unknown device 'gpu0'"),
        ("in.csv", "sequence\nACGT\n", ("--name-column", "nam"), 1, "no name column 'nam'"),
    ],
)
def test_bad_input(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, content: str | bytes, words: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert command(models["classes"], path, "-o", tmp_path / "o.csv", *words) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_bad_intervals(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.fa").write_text(f">chr1\n{CONTIG}\n")
    (tmp_path / "p.bed").write_text("chr1\t5\t15\n1\t5\t15\n")
    words = [models["classes"], tmp_path / "p.bed", "-o", tmp_path / "o.csv", "--fasta", tmp_path / "g.fa"]
    assert command(*words) == 1
    assert "p.bed:2" in (said := capsys.readouterr().err) and "calls it 'chr1'" in said
    (tmp_path / "p.bed").write_text("chr1\t5\t1500\n")
    assert command(*words) == 1
    assert "out of range" in capsys.readouterr().err
    (tmp_path / "p.bed").write_text("chr1\t5\t15\n")
    assert command(*words, "--window", "0") == 2
    assert "equal to 1" in capsys.readouterr().err


def test_bad_models(models: dict[str, Path], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "none", table, "-o", tmp_path / "o.csv") == 1
    assert "none: no such folder; give the folder of a model or of a run" in capsys.readouterr().err
    assert command(tmp_path, table, "-o", tmp_path / "o.csv") == 1
    assert "no tokenizer here" in capsys.readouterr().err
    assert command(models["mlm"], table, "-o", tmp_path / "o.csv") == 2
    assert "the model has no head that predicts labels; fine-tune it first" in capsys.readouterr().err
    assert command(models["number"], table, "-o", tmp_path / "o.csv", "--values", "probabilities") == 2
    assert "a regression model has no probabilities" in capsys.readouterr().err
    assert command(models["classes"], tmp_path / "no.csv", "-o", tmp_path / "o.csv") == 1
    assert "no.csv: no such file." in capsys.readouterr().err
    assert command(models["classes"], table, "-o", tmp_path / "o.xls") == 2
    assert "unknown format" in capsys.readouterr().err


def test_in_its_own_process_without_heavy_imports(models: dict[str, Path], table: Path, tmp_path: Path) -> None:
    heavy = ["numba", "polars", "zarr", "sklearn", "scipy", "matplotlib", "sympy", "transformers.modeling_utils"]
    words = ["predict", str(models["classes"]), str(table), "-o", str(tmp_path / "o.csv"), "--json"]
    code = (
        "import sys\nfrom longstrand.cli.main import main\n"
        f"try: main({words})\n"
        f"except SystemExit as stop: print([name for name in {heavy} if name in sys.modules], stop.code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *summary, imported = result.stdout.splitlines()
    assert json.loads("\n".join(summary))["rows"] == 4
    assert imported == "[] 0"


def test_exact_text(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lower case is read as upper case and counted, or passed through; the two outputs are not mixed up."""
    (tmp_path / "in.csv").write_text("sequence\nacgTTA\nACGTTA\n")
    words = ["predict", str(models["classes"]), str(tmp_path / "in.csv"), "-o", str(tmp_path / "o.csv")]

    def run(*more: str) -> tuple[int, str, list[list[str]]]:
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        out, err = capsys.readouterr()
        rows = list(csv.reader((tmp_path / "o.csv").open()))[1:]
        return int(stop.value.code or 0), out + err, [row[2:] for row in rows]

    code, said, rows = run()
    assert code == 0 and rows[0] == rows[1]
    assert "note: 3 lower-case letters were read as upper case (--exact-text keeps them)." in said
    code, said, _ = run("--exact-text")
    assert code != 0 and "--overwrite" in said
    code, said, rows = run("--exact-text", "--overwrite")
    assert code == 0 and rows[0] != rows[1]
    assert "note: 3 lower-case letters and 0 characters other than A, C, G and T went to the tokenizer as they" in said
