"""The front door: what "sequences" may be, arrays in the order of the input, the reading record obeyed or not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import longstrand as ls
from longstrand.errors import InputError, LongstrandError, UsageError
from longstrand.inference.loaded import fingerprint_network, open_model
from longstrand.inference.options import FileOptions
from longstrand.inference.predict import predict as run_model
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import MODELS
from longstrand.models.reading import Reading
from longstrand.questions.scores import scorer
from longstrand.tokenization.kmer import make_kmer
from longstrand.tracks.jobs import predict_tracks

K3 = make_kmer(3)
TEXTS = ["ACGTACGTTA", "GGGATTACA", "TTTTT", "ACG"]
CONTIG = "ACGGATTACAGATTACCCATAGACCATGACAGTTTACGACA"


def save(folder: Path, kind: str = "sequence", reading: Reading | None = None, **head: Any) -> Path:
    torch.manual_seed(0)
    settings = {"kind": kind, "problem": "single_label", "num_outputs": 2, "class_names": ["no", "yes"], **head}
    config = preset("tiny", vocab_size=K3.vocab_size, heads={kind: settings}, positions="learned",
                    max_position_embeddings=40)  # fmt: skip
    model = MODELS[kind](config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_checkpoint(model, K3, folder, reading=reading)
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "classes")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "bases", "token")


def expected(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    found = run_model(load_model(folder), texts, **{"output": "probabilities", **options})
    return np.stack([item.values for item in found])


def test_every_public_name_exists_and_is_documented() -> None:
    assert set(ls.__all__) - {"__version__"} == {name for names in ls._VERBS.values() for name in names}
    for name in ls.__all__:
        assert name == "__version__" or getattr(ls, name).__doc__
    assert len(set(ls.__all__)) == len(ls.__all__)


EVERYDAY = {
    "load": "model = ls.load_model(folder)\nassert model.tokenizer.vocab_size",
    "embed": "vectors = ls.embed(folder, texts)\nassert vectors.shape == (4, 128)",
    "predict": "found = ls.predict(folder, texts, strand='both')\nassert found.shape == (4, 2)",
    "stream": "names = [item.name for item in ls.iter_predict(folder, texts)]\nassert names == ['0', '1', '2', '3']",
    "file": "done = ls.predict_file(folder, 'rows.csv', 'out.csv')\nassert done.num_rows == 4",
    "vectors to a file": "done = ls.embed_file(folder, 'rows.csv', 'out.parquet')\nassert done.num_rows == 4",
    "windows": "found = ls.predict(folder, 'peaks.bed', genome='g.fa', window=12)\nassert found.shape == (2, 2)",
}


@pytest.mark.parametrize("job", EVERYDAY)
def test_everyday_jobs_take_three_lines(
    job: str, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("sequence\n" + "\n".join(TEXTS) + "\n")
    Path("g.fa").write_text(f">chr1\n{CONTIG}\n")
    Path("peaks.bed").write_text("chr1\t5\t14\nchr1\t20\t30\n")
    assert EVERYDAY[job].count("\n") < 3
    exec(EVERYDAY[job], {"ls": ls, "folder": str(classes), "texts": TEXTS})


def test_all_kinds_of_sequences_give_the_same_numbers(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "in.fa").write_text("".join(f">{i}\n{text}\n" for i, text in enumerate(TEXTS)))
    (tmp_path / "in.csv").write_text("sequence\n" + "\n".join(TEXTS) + "\n")
    right, model = expected(classes, TEXTS), ls.load_model(classes)
    frame = {"name": list("abcd"), "sequence": TEXTS}
    for sequences in (
        TEXTS, tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=[4, 3, 2, 1]), pl.Series(TEXTS), iter(TEXTS),
        pd.DataFrame(frame), pl.DataFrame(frame), pl.DataFrame({"seq": TEXTS}), tmp_path / "in.fa",
        str(tmp_path / "in.csv"),
    ):  # fmt: skip
        found = ls.predict(model, sequences)
        assert found.dtype == np.float32 and found.shape == (4, 2)
        np.testing.assert_allclose(found, right, atol=1e-6)
    np.testing.assert_allclose(ls.predict(model, TEXTS[0]), right[:1], atol=1e-6)
    np.testing.assert_allclose(ls.predict(model, TEXTS[1].lower()), right[1:2], atol=1e-6)
    long = 70 * "ACGT"  # longer than a file's name may be
    np.testing.assert_allclose(ls.predict(model, long, truncate=True), ls.predict(model, [long], truncate=True))
    (one,) = run_model(model, TEXTS[0], output="probabilities")
    np.testing.assert_allclose(one.values, right[0], atol=1e-6)
    named = pd.DataFrame({"dna": TEXTS, "other": TEXTS})
    np.testing.assert_allclose(ls.predict(model, named, sequence_column="dna"), right, atol=1e-6)


@pytest.mark.parametrize("column", [pd.Series, pl.Series, list])
def test_a_missing_sequence_has_missing_values(column: Any, classes: Path) -> None:
    found = ls.predict(classes, column(["ACGTACGTTA", None, "", "ACG", "nan", "NA"]))
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, False, True, True]
    assert np.isnan(ls.embed(classes, ["ACGTACGTTA", float("nan")])[1]).all()
    assert np.isnan(ls.predict(classes, "")).all()


def test_what_is_no_sequence(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("sequence\nACG\n")
    cases: list[tuple[Any, str]] = [
        ("rows.csv", "rows.csv: no such file, and no sequence of nucleotide letters"),
        ("ACGT ACGT", "ACGT ACGT: no such file"),
        ("MKVLA" * 100, r"MKVLAMKVLA.*\.\.\.: no such file, and no sequence of nucleotide letters"),
        (Path("ACGT"), r"ACGT: no such file\."),
        ("mine.cvs", r"no such file, and no sequence of nucleotide letters \(did you mean 'mine.csv'\?\)\."),
        (["ACG", 3], "sequence 2: a sequence is a text, found 3 .int."),
        (["ACG", "ACX"], "sequence 2: 'X' at position 3"),
        (pd.DataFrame({"sequnce": TEXTS}), r"no column 'sequence' \(did you mean 'sequnce'\?\); columns are: sequnce"),
        (pl.DataFrame({"dna": TEXTS}), "no column 'sequence'; columns are: dna; sequence_column= names another"),
        (7, "sequences are a text, a list or column of texts, or a path; got int"),
        ({"a": "ACG"}, "got dict"),
        (set(TEXTS), "got set"),
        ([], "there is no sequence"),
    ]
    for sequences, message in cases:
        with pytest.raises(LongstrandError, match=message):
            ls.predict(classes, sequences)
    Path("ACGT").write_text("sequence\nACG\n")
    with pytest.raises(UsageError, match=r"'ACGT' is a sequence and a file; write Path\('ACGT'\) or \['ACGT'\]"):
        ls.predict(classes, "ACGT")
    assert len(ls.predict(classes, ["ACGT"])) == len(ls.predict(classes, Path("ACGT"))) == 1
    twice = pd.DataFrame([["ACG", "ACT"]], columns=["sequence", "sequence"])
    unused: list[tuple[Any, dict[str, Any], str]] = [
        (TEXTS, {"name_column": "x"}, "name_column: only tables have columns"),
        (twice, {}, "the frame has 2 columns 'sequence'"),
        (pd.DataFrame({"sequence": TEXTS}), {"name_column": "x"}, "the frame has no column 'x'"),
        (TEXTS, {"output": "embeddings", "temperature": 2.0}, "temperature: for predictions, not for embeddings"),
    ]
    for sequences, options, message in unused:
        with pytest.raises(LongstrandError, match=message):
            list(ls.iter_predict(classes, sequences, **options))
    frame = pd.DataFrame({"sequence": TEXTS, "id": range(len(TEXTS))})
    assert [found.name for found in ls.iter_predict(classes, frame)] == list(map(str, range(len(TEXTS))))
    with pytest.raises(UsageError, match="a genome and a window are for files of intervals"):
        ls.predict(classes, TEXTS, window=5)
    with pytest.raises(UsageError, match="a model is a folder, a name or a loaded model; got int"):
        ls.predict(3, TEXTS)  # type: ignore[arg-type]


def test_intervals_need_their_genome_and_keep_their_order(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(f">chr1\n{CONTIG}\n")
    (tmp_path / "p.bed").write_text("chr1\t20\t30\nchr1\t5\t14\n")
    found = ls.predict(classes, tmp_path / "p.bed", genome=tmp_path / "g.fa")
    np.testing.assert_allclose(found, expected(classes, [CONTIG[20:30], CONTIG[5:14]]), atol=1e-6)
    with pytest.raises(UsageError, match="intervals need the genome they lie on"):
        ls.predict(classes, tmp_path / "p.bed")
    folder, places = save(tmp_path / "w", reading=Reading(window=8)), {"genome": tmp_path / "g.fa"}
    assert {len(one.values) for one in ls.attribute(folder, tmp_path / "p.bed", method="gradient", **places)} == {8}
    designs = ls.design(folder, tmp_path / "p.bed", max_edits=1, rounds=1, **places)
    assert {len(one.sequence) for one in designs} == {8}


def test_bases_and_vectors(bases: Path, classes: Path) -> None:
    found = ls.predict_bases(bases, TEXTS)
    assert [values.shape for values in found] == [(len(text), 2) for text in TEXTS]
    np.testing.assert_allclose(found[0].sum(axis=1), 1, atol=1e-6)
    with pytest.raises(UsageError, match="this model has a sequence head; use predict"):
        ls.predict_bases(classes, TEXTS)
    with pytest.raises(UsageError, match="this model has a token head; use predict_bases"):
        ls.predict(bases, TEXTS)
    with pytest.raises(UsageError, match="pooling 'tokens' gives many vectors a sequence"):
        ls.embed(bases, TEXTS, pooling="tokens")


def test_mean_leaves_special_tokens_out_and_mean_all_counts_them(classes: Path) -> None:
    """Against the states of the encoder; two texts of different lengths, so that padding would show."""
    model = ls.load_model(classes, "encoder")
    found = {pooling: ls.embed(model, TEXTS[:2] + TEXTS[3:], pooling=pooling) for pooling in ("mean", "mean_all")}
    for row, text in enumerate(TEXTS[:2] + TEXTS[3:]):
        ids = torch.tensor(K3.encode(text).input_ids.astype(np.int64))[None]
        with torch.inference_mode():
            states = model(input_ids=ids).last_hidden_state[0].numpy()
        np.testing.assert_allclose(found["mean_all"][row], states.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(found["mean"][row], states[1:-1].mean(axis=0), atol=1e-5)


def test_input_is_read_as_in_training_or_a_warning_says_otherwise(tmp_path: Path) -> None:
    long = "ACG" * 12
    folder = save(tmp_path / "m", reading=Reading(max_tokens=6, truncate=True, strand="both", longest_bases=40))
    with pytest.warns(UserWarning, match="1 sequences were cut to what the model can read"):
        found = ls.predict(folder, [long])
    right = expected(folder, [long], max_tokens=6, truncate=True, strand="both")
    np.testing.assert_allclose(found, right, atol=1e-6)
    with pytest.warns(UserWarning, match=r"read otherwise .* max_tokens 7 \(the model was measured with 6\)") as seen:
        found = ls.predict(folder, [long], max_tokens=7)
    assert seen[0].filename == __file__  # the line of the caller is shown, not one of ours
    assert not np.allclose(found, right)
    with pytest.warns(UserWarning, match="up to 96 bases, but the model was trained on at most 40"):
        ls.predict(folder, ["ACG", "ACG" * 32, "ACG" * 30])
    with pytest.raises(InputError, match=r"the longest input is 6 .*, a higher --max-tokens, or pass --truncate"):
        ls.predict(folder, [long], truncate=False)
    (tmp_path / "in.csv").write_text(f"sequence\n{long}\n")
    done = ls.predict_file(folder, tmp_path / "in.csv", tmp_path / "o.csv")
    assert "note: read as in training: strand both, max_tokens 6, truncate True." in done.notes
    np.testing.assert_allclose(pl.read_csv(tmp_path / "o.csv")["probability_no"].to_numpy(), right[:, 0], atol=1e-6)
    plain = save(tmp_path / "p", reading=Reading(longest_bases=40))
    (tmp_path / "long.csv").write_text(f"sequence\nACG\n{'ACG' * 32}\nACG\n")
    for finished in (False, True):
        done = ls.predict_file(plain, tmp_path / "long.csv", tmp_path / "long_out.csv", part_rows=1)
        assert done.already_finished is finished and done.counts["longest_bases"] == 96
        assert any("up to 96 bases, but the model was trained on at most 40" in note for note in done.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ls.predict(plain, TEXTS)
        assert ls.embed(folder, TEXTS, strand="both", max_tokens=6, truncate=True).shape == (4, 128)


def test_directed_labels_and_pairs_are_refused_as_in_training(tmp_path: Path) -> None:
    directed = save(tmp_path / "d", "token", Reading(directed=True))
    for options in ({"strand": "both"}, {"strand": "-"}, {"tta": True}):
        with pytest.raises(UsageError, match="labels of this model have a direction"):
            ls.predict_bases(directed, TEXTS, **options)
    pairs, single = save(tmp_path / "2", reading=Reading(pair=True)), save(tmp_path / "1", reading=Reading())
    with pytest.raises(UsageError, match="this model reads pairs of sequences"):
        ls.predict(pairs, TEXTS)
    with pytest.raises(UsageError, match="this model reads single sequences"):
        ls.predict(single, [("ACG", "ACG")])
    with pytest.raises(UsageError, match="labels of this model have a direction"):
        scorer(ls.load_model(directed), strand="both")
    with pytest.raises(UsageError, match="this model reads pairs of sequences"):
        scorer(ls.load_model(pairs))
    frame = pl.DataFrame({"a": TEXTS, "b": TEXTS[::-1]})
    found = ls.predict(pairs, frame, sequence_column="a", pair_column="b")
    np.testing.assert_array_equal(found, ls.predict(pairs, list(zip(TEXTS, TEXTS[::-1]))))
    (tmp_path / "in.csv").write_text("sequence,other\nACG,TTT\n")
    with pytest.raises(UsageError, match="name the column of the second ones with --pair-column"):
        ls.predict_file(pairs, tmp_path / "in.csv", tmp_path / "o.csv")
    with pytest.raises(UsageError, match="so --pair-column has no meaning"):
        ls.predict_file(single, tmp_path / "in.csv", tmp_path / "o.csv", pair_column="other")
    with pytest.warns(UserWarning, match=r"otherwise than in training: pair False \(the model was measured with True"):
        ls.embed(pairs, TEXTS)
    with pytest.warns(UserWarning, match="pair True"):
        ls.embed(single, [("ACG", "ACG")])
    (tmp_path / "g.fa").write_text(">c\nACGTACGTACGT\n")
    with pytest.raises(UsageError, match="this model reads pairs of sequences"):
        predict_tracks(pairs, tmp_path / "g.fa", tmp_path / "o.bedgraph", window=6)


def test_a_file_job_gives_what_the_verb_gives(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("sequence\n" + "\n".join(TEXTS) + "\n")
    done: list[int] = []
    result = ls.predict_file(classes, tmp_path / "in.csv", tmp_path / "o.parquet", advance=done.append, part_rows=2)
    assert (result.num_rows, result.computed, sum(done), result.already_finished) == (4, 4, 4, False)
    table = pl.read_parquet(tmp_path / "o.parquet")
    np.testing.assert_allclose(
        table[["probability_no", "probability_yes"]].to_numpy(), ls.predict(classes, TEXTS), atol=1e-6
    )
    again = ls.predict_file(classes, tmp_path / "in.csv", tmp_path / "o.parquet", part_rows=2, batch_tokens=64)
    assert again.already_finished and again.computed == 0
    loaded = ls.predict_file(ls.load_model(classes), tmp_path / "in.csv", tmp_path / "l.csv")
    assert loaded.num_rows == 4
    with pytest.raises(UsageError, match=r"unknown key 'bin_size'"):
        ls.predict_file(classes, tmp_path / "in.csv", tmp_path / "x.csv", bin_size=5)


@pytest.mark.parametrize("name", ["in.csv", "link.csv", "./in.csv"])
def test_an_output_never_replaces_an_input(name: str, classes: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("sequence\nACG\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    with pytest.raises(UsageError, match="an output must not replace the input"):
        ls.predict_file(classes, tmp_path / "in.csv", tmp_path / name, overwrite=True)
    assert (tmp_path / "in.csv").read_text() == "sequence\nACG\n"


def test_the_identity_of_a_loaded_model_is_its_weights(classes: Path) -> None:
    model = ls.load_model(classes)
    before = fingerprint_network(model)
    assert before == open_model(model).fingerprint() == fingerprint_network(ls.load_model(classes))
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert fingerprint_network(model) != before


def test_the_identity_of_an_output_is_all_options_but_those_of_speed() -> None:
    left_out = {"batch_tokens", "pack", "device", "threads", "part_rows"}
    assert set(FileOptions.model_fields) - set(FileOptions().identity()) == left_out


def test_too_long_names_the_row_and_the_option(classes: Path) -> None:
    with pytest.raises(InputError, match=r"sequence 2: .* 200 bases has .* tokens.*ends at 40.*--truncate"):
        ls.predict(classes, ["ACG", "ACGTA" * 40])
