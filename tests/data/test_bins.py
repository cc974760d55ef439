"""Sequences as bins, by hand; predictions per bin, on both strands, with and without memory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from longstrand import load_model, load_tokenizer
from longstrand.data import bins as data_bins
from longstrand.data.bins import BinTargets, bin_targets, count_bins, encode_bins, moments
from longstrand.data.labelled_files import RawTable
from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError
from longstrand.genome.sequence import reverse_complement
from longstrand.inference.predict import predict
from longstrand.models.pretrained import MODELS
from longstrand.tokenization.kmer import make_kmer
from tests.toys import tiny_checkpoint


def test_bins_by_hand():
    tokenizer = make_kmer(2, overlapping=False)
    encoding = encode_bins(tokenizer, "ACGTAC" + "TT", 4)
    cls, sep = tokenizer.template.prefix[0], tokenizer.template.suffix[0]
    words = {text: tokenizer.vocab[text] for text in ("AC", "GT", "TT")}
    expected = [cls, words["AC"], words["GT"], sep, words["AC"], words["TT"], sep]
    assert encoding.input_ids.tolist() == expected
    assert encoding.offsets.tolist() == [[0, 0], [0, 2], [2, 4], [0, 0], [4, 6], [6, 8], [0, 0]]
    assert encoding.special_tokens_mask.tolist() == [True, False, False, True, False, False, True]
    assert encode_bins(tokenizer, "", 4).input_ids.tolist() == [cls]


def test_sequences_are_a_whole_number_of_bins():
    assert count_bins(12, 4, where="row 3") == 3
    with pytest.raises(InputError, match=r"row 3: the sequence of 13 bases is no whole number of bins of 4 .* to 12"):
        count_bins(13, 4, where="row 3")


def test_a_tokenizer_without_an_end_has_no_bins():
    class Endless:
        template = type("Template", (), {"prefix": (1,), "suffix": ()})

    with pytest.raises(UsageError, match="no special token at the end"):
        encode_bins(Endless(), "ACGT", 2)


@pytest.mark.parametrize(
    "memory", [None, {"num_tokens": 1, "segment_length": 12, "split": "left"}], ids=["plain", "rmt"]
)
def test_predictions_of_bins(tmp_path, memory):
    folder = tiny_checkpoint(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    head = {"problem": "counts", "num_outputs": 3, "bin_token_id": tokenizer.sep_token_id, "bin_bases": 4}
    if memory is not None:
        memory = {**memory, "bins_per_segment": 2}
    model = load_model(folder, "bin", new_head=head, changes={"memory": memory} if memory else {})
    assert type(model) is MODELS["bin"]
    texts = ["ACGTACGGTTAC" * 2, "", "ACGT", "NNNNACGT"]
    plus, minus, both, rates = (
        list(predict(model, texts, tokenizer=tokenizer, strand=strand, output=output))
        for strand, output in (("+", "logits"), ("-", "logits"), ("both", "logits"), ("+", "probabilities"))
    )
    assert [row.values.shape for row in plus] == [(6, 3), (0, 3), (1, 3), (2, 3)]
    ids = torch.from_numpy(encode_bins(tokenizer, texts[0], 4).input_ids.astype(np.int64))[None]
    with torch.no_grad():
        np.testing.assert_allclose(plus[0].values, model(ids).logits[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(rates[0].values, np.log1p(np.exp(plus[0].values)), atol=1e-5)
    turned = next(predict(model, [reverse_complement(texts[0])], tokenizer=tokenizer, output="logits"))
    np.testing.assert_allclose(minus[0].values, turned.values[::-1], atol=1e-5)
    np.testing.assert_allclose(both[0].values, (plus[0].values + minus[0].values) / 2, atol=1e-5)
    with pytest.raises(InputError, match="sequence 1: the sequence of 5 bases is no whole number of bins"):
        next(predict(model, ["ACGTA"], tokenizer=tokenizer))
    with pytest.raises(InputError, match="a model of bins reads single sequences"):
        next(predict(model, [Record(0, "pair", "ACGT", second="ACGT")], tokenizer=tokenizer))


def test_targets_of_bins():
    labels = {"a": ["1;2;", "0.5"], "b": ["3;nan;5", None]}
    first, second = bin_targets(RawTable("t.csv", [1, 2], ["ACGT" * 3, "AAAA"], labels), 4)
    np.testing.assert_equal(first, np.array([[1, 3], [2, np.nan], [np.nan, 5]], dtype=np.float32))
    np.testing.assert_equal(second, np.array([[0.5, np.nan]], dtype=np.float32))
    with pytest.raises(InputError, match=r"t\.csv, row 7: column 'a' has 2 values for 1 bins of 4"):
        bin_targets(RawTable("t.csv", [7], ["ACGT"], {"a": ["1;2"]}), 4)
    with pytest.raises(InputError, match="row 7: 'x' in column 'a' is no number"):
        bin_targets(RawTable("t.csv", [7], ["ACGT"], {"a": ["x"]}), 4)


def test_vectors_of_a_model_of_bins_come_from_bins(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    memory = {"num_tokens": 1, "segment_length": 12, "split": "left", "bins_per_segment": 1, "bin_bases": 4}
    model, tokenizer = load_model(folder, "encoder", changes={"memory": memory}), load_tokenizer(folder)
    text = "ACGTACGGTTAC"
    vectors = next(predict(model, [text], tokenizer=tokenizer, output="embeddings", pooling="tokens")).values
    encoding = encode_bins(tokenizer, text, 4)
    with torch.no_grad():
        states = model(torch.from_numpy(encoding.input_ids.astype(np.int64))[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(vectors, states[~encoding.special_tokens_mask], atol=1e-5)


def targets_on_disk(folder):
    import zarr

    values = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    values[1, 0, 1] = np.nan
    array = zarr.create_array(str(folder / "t.zarr"), shape=values.shape, chunks=(1, 4, 2), dtype="float16")
    array[:] = values
    return values, BinTargets(folder / "t.zarr", [4, 2, 3])


@pytest.mark.parametrize("most", [0, 1 << 20], ids=["on disk", "held"])
def test_targets_are_read_row_by_row(tmp_path, monkeypatch, most):
    monkeypatch.setattr(data_bins, "HELD_BYTES", most)
    values, targets = targets_on_disk(tmp_path)
    assert len(targets) == 3 and targets[1].dtype == np.float32
    for found, expected in zip(targets, (values[0], values[1, :2], values[2, :3])):
        np.testing.assert_equal(found, expected)
    assert (targets._held is None) == (most == 0)
    np.testing.assert_equal(targets.take([2, 1]).take([1])[0], values[1, :2])
    np.testing.assert_equal(targets[1:][1], values[2, :3])
    np.testing.assert_equal(pickle.loads(pickle.dumps(targets.take([2])))[0], values[2, :3])
    with pytest.raises(IndexError):
        targets[3]


def test_targets_that_do_not_fit(tmp_path):
    targets_on_disk(tmp_path)
    with pytest.raises(InputError, match=r"targets of shape \(3, 4, 2\) for 3 rows of up to 5 bins"):
        BinTargets(tmp_path / "t.zarr", [4, 5, 1])
    with pytest.raises(InputError, match="the targets of the bins are missing"):
        BinTargets(tmp_path / "gone.zarr", [1])


def test_moments_agree_with_numpy():
    random = np.random.default_rng(0)
    parts = [random.normal(3, 2, (number, 3)) for number in (5, 1, 9)]
    parts[0][:2, 1] = parts[1][0, 1] = np.nan
    for part in parts:
        part[:, 2] = np.nan
    found, whole = moments(parts), np.concatenate(parts)
    assert found.count.tolist() == [15, 12, 0] and found.num_bins == 15
    for ours, theirs in (
        (found.mean, np.nanmean), (found.deviation, np.nanstd), (found.low, np.nanmin), (found.high, np.nanmax)
    ):  # fmt: skip
        np.testing.assert_allclose(ours[:2], theirs(whole[:, :2], axis=0))
        assert np.isnan(ours[2])
