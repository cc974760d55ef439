"""Reading labelled sequences: formats, columns, intervals, pieces, and every kind of bad input."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import polars as pl
import pytest

from longstrand.data.labelled import label
from longstrand.data.labelled_files import GenomeWindows, LabelColumns, read_labelled
from longstrand.data.rows import show_rows
from longstrand.data.tables import column_names, read_table
from longstrand.data.targets import infer_task, read_class_names
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome

TABLE = "id,sequence,label\nx,acgtN,1\ny,RRAC,0\nz,ggg,1\n"


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    letters = random.Random(0)
    path = tmp_path / "toy.fa"
    contigs = {"one": 200, "two": 150}
    path.write_text("".join(f">{name}\n{''.join(letters.choices('ACGT', k=n))}\n" for name, n in contigs.items()))
    return Genome(path)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.txt.gz", "t.parquet", "semicolon.csv"])
def test_formats_give_the_same_rows(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pl.DataFrame({"sequence": ["acgtN", "RRAC", "ggg"], "label": [1, 0, 1]}).write_parquet(tmp_path / name)
        path = tmp_path / name
    else:
        mark = "\t" if name.startswith(("t.tsv", "t.txt")) else ";" if name.startswith("semi") else ","
        path = write(tmp_path, name, TABLE.replace(",", mark))
    table = read_labelled(path)
    assert table.sequences == ["ACGTN", "NNAC", "GGG"]
    assert table.labels == {"label": ["1", "0", "1"]}
    assert table.rows == [1, 2, 3]
    counts = label(table, infer_task(table)).counts()
    assert (counts["num_bases"], counts["num_unknown_letters"], counts["num_sequences_with_unknown_letters"]) == (
        12,
        3,
        2,
    )
    assert counts["num_lower_case_letters"] == table.num_lower_case == 7


def test_other_column_names_pairs_and_names(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "who,enhancer,promoter,y\na,ACG,TT,0.5\nb,GGA,C,NA\n")
    columns = LabelColumns(sequence="enhancer", pair="promoter", labels="y", name="who")
    table = read_labelled(path, columns)
    assert table.pairs == ["TT", "C"]
    assert table.names == ["a", "b"]
    assert table.labels == {"y": ["0.5", "NA"]}


def test_several_label_columns_as_text_or_list() -> None:
    assert LabelColumns(labels="a, b").labels == ("a", "b")
    assert LabelColumns(labels=["a", "b"]).labels == ("a", "b")


def test_parquet_with_lists_floats_and_booleans(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame(
        {"sequence": ["ACG", "TT"], "labels": [[0, 1, 1], [1, 0]], "f": [1.5, None], "b": [True, False]}
    )
    frame.write_parquet(path)
    read = read_table(path)
    assert read["labels"].to_list() == ["0;1;1", "1;0"]
    assert read["f"].to_list() == ["1.5", None]
    assert read["b"].to_list() == ["1", "0"]
    assert column_names(path) == ["sequence", "labels", "f", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("sequence,label\n", "a header and no rows"),
        ("sequence,labal\nACG,1\n", "no label column 'label' (did you mean 'labal'?); columns are: sequence, labal"),
        ("dna,label\nACG,1\n", "no sequence column 'sequence'"),
        ("sequence,label\nACG,1\nAC-G,0\n", "row 2: '-' at position 3 is no nucleotide letter"),
        ("sequence,label\nACG,1\n,0\n", "row 2: the sequence is missing"),
        ("sequence,label\nACG,1\nACG,1,2,3\n", ", row 2: 4 cells where the header names 2 columns"),
        ("sequence,label,label\nACG,1,0\n", "two columns are called 'label'; rename or remove one"),
        ("sequence,label,sequence\nACG,1,AC\n", "two columns are called 'sequence'"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "bad.csv", text)
    with pytest.raises(InputError) as error:
        read_labelled(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_truncated_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_labelled(tmp_path / "absent.csv")
    whole = gzip.compress((TABLE * 500).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="the gzip file ends too early"):
        read_labelled(tmp_path / "cut.csv.gz")
    (tmp_path / "latin.csv").write_bytes("sequence,label\nACG,a\nACG,é\n".encode("latin-1"))
    with pytest.raises(InputError, match="line 3 holds a letter that is not UTF-8"):
        read_labelled(tmp_path / "latin.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not readable as Parquet"):
        read_labelled(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="no label column 'y'"):
        path = write(tmp_path, "t.csv", TABLE)
        read_labelled(path, LabelColumns(labels="y"))


def test_row_lists() -> None:
    assert show_rows([3]) == "row 3"
    assert show_rows(list(range(1, 9))) == "rows 1, 2, 3, 4, 5 and 3 more"


def test_pieces_of_a_group_become_one_sequence_with_labels_per_base(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "gene,sequence,labels\ng1,AC,O\ng1,GTA,B-CDS\ng1,T,I-CDS\ng2,CC,B-CDS\n")
    table = read_labelled(path, LabelColumns(group="gene"))
    assert table.sequences == ["ACGTAT", "CC"]
    assert table.labels == {"labels": ["O O B-CDS I-CDS I-CDS I-CDS", "B-CDS I-CDS"]}
    assert table.names == ["g1", "g2"]
    assert table.rows == [1, 4]


def test_pieces_with_numbers_and_class_names(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "gene,sequence,labels\ng1,AC,0\ng1,GTA,1\ng1,T,\n")
    table = read_labelled(path, LabelColumns(group="gene"), class_names=("O", "B-x", "I-x"))
    assert table.labels == {"labels": ["0 0 1 2 2 ?"]}


def test_interrupted_group_and_two_label_columns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "gene,sequence,a,b\ng1,AC,0,1\ng2,A,1,1\ng1,T,0,0\n")
    with pytest.raises(InputError, match="row 3: group 'g1' comes back"):
        read_labelled(path, LabelColumns(group="gene", labels="a"))
    with pytest.raises(UsageError, match="one label column, not 2"):
        read_labelled(path, LabelColumns(group="gene", labels="a,b"))


def test_intervals_as_they_are(tmp_path: Path, genome: Genome) -> None:
    path = write(tmp_path, "t.csv", "chrom,start,end,strand,label,split\none,10,14,+,a,train\ntwo,3,9,-,b,test\n")
    table = read_labelled(path, LabelColumns(split="split"), windows=GenomeWindows(genome))
    forward = genome.fetch("one", 10, 14)
    backward = genome.fetch("two", 3, 9)[::-1].translate(str.maketrans("ACGT", "TGCA"))
    assert table.sequences == [forward, backward]
    assert table.labels == {"label": ["a", "b"]}
    assert table.chroms == ["one", "two"]
    assert table.splits == ["train", "test"]
    assert table.names == ["one:11-14", "two:4-9(-)"]


def test_bed_names_are_labels_and_windows_are_cut(tmp_path: Path, genome: Genome) -> None:
    path = write(tmp_path, "t.bed.gz", "one\t100\t110\ta\t0\t+\none\t0\t4\tb\t0\t+\ntwo\t50\t51\tb\t0\t-\n")
    table = read_labelled(path, windows=GenomeWindows(genome, num_bases=20))
    assert [len(sequence) for sequence in table.sequences] == [20, 20]
    assert table.labels == {"name": ["a", "b"]}
    assert table.num_dropped == 1


def test_random_negatives(tmp_path: Path, genome: Genome) -> None:
    path = write(tmp_path, "t.csv", "chrom,start,end,split\none,100,110,train\ntwo,50,60,test\n")
    windows = GenomeWindows(genome, num_bases=12, negative_ratio=2)
    table = read_labelled(path, LabelColumns(split="split"), windows=windows)
    assert table.labels == {"label": ["1", "1", "0", "0", "0", "0"]}
    assert table.splits == ["train", "test", "train", "train", "test", "test"]
    assert {len(sequence) for sequence in table.sequences} == {12}
    assert table.chroms == ["one", "two", "one", "one", "two", "two"]


def test_bad_intervals(tmp_path: Path, genome: Genome) -> None:
    path = write(tmp_path, "t.csv", "chrom,start,end,score\none,100,110,1\n")
    with pytest.raises(UsageError, match="name their genome with --genome"):
        read_labelled(path)
    with pytest.raises(InputError, match="the intervals have no label"):
        read_labelled(path, windows=GenomeWindows(genome))
    with pytest.raises(InputError, match=r"no label column 'scor' \(did you mean 'score'"):
        read_labelled(path, LabelColumns(labels="scor"), windows=GenomeWindows(genome))
    with pytest.raises(UsageError, match="leave out the label columns"):
        read_labelled(path, LabelColumns(labels="score"), windows=GenomeWindows(genome, negative_ratio=1))
    with pytest.raises(InputError, match="no split column 'part'"):
        read_labelled(path, LabelColumns(labels="score", split="part"), windows=GenomeWindows(genome))
    away = write(tmp_path, "u.csv", "chrom,start,end,label\none,190,210,1\n")
    with pytest.raises(InputError, match="out of range"):
        read_labelled(away, windows=GenomeWindows(genome))


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "t.csv", TABLE)

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"t\.csv: cannot be read \(Permission denied\)"):
        read_labelled(path)


@pytest.mark.data
def test_real_genes_with_labels_per_piece(shared: Path) -> None:
    folder = shared / "data" / "labelled" / "plant" / "gene_structure_tokens"
    names = read_class_names(folder / "labels.txt")
    table = read_labelled(folder / "dev.csv.gz", LabelColumns(group="gene"), class_names=names)
    task = infer_task(table, class_names=names)
    labelled = label(table, task)
    assert task.names == ("O", "B-UTR", "I-UTR", "B-CDS", "I-CDS", "B-INT", "I-INT")
    assert len(labelled) == 100
    counts = labelled.counts()["labels"]
    assert 0 < counts["B-CDS"] < counts["I-CDS"] / 50
    assert sum(counts.values()) == labelled.counts()["num_bases"]
