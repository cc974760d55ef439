"""K-mers: by hand, and against the published implementations for any text."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longstrand.errors import TokenizerError, UsageError
from longstrand.tokenization.basic_words import split_words
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import KmerTokenizer, kmer_from_vocab, make_kmer
from tests.tokenization.texts import texts

SLOPPY = settings(max_examples=80, deadline=None)


def names(tokenizer, text: str, **options) -> list[str]:
    return [tokenizer.token_strings[i] for i in tokenizer.encode(text, **options).input_ids]


def test_non_overlapping_by_hand():
    tokenizer = make_kmer(3)
    assert [tokenizer.vocab[name] for name in ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "AAA")] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    assert tokenizer.vocab_size == 5 + 64 + 5 and tokenizer.alphabet == "ACGNT" and not tokenizer.overlapping
    encoding = tokenizer.encode("ACGTANNACGaaT[MASK]", add_special_tokens=False)
    assert [tokenizer.token_strings[i] for i in encoding.input_ids] == [
        "ACG",
        "T",
        "A",
        "N",
        "N",
        "ACG",
        "[UNK]",
        "T",
        "[MASK]",
    ]
    assert encoding.offsets.tolist() == [[0, 3], [3, 4], [4, 5], [5, 6], [6, 7], [7, 10], [10, 12], [12, 13], [13, 19]]
    assert encoding.special_tokens_mask.tolist() == [False] * 6 + [True, False, True]
    assert names(tokenizer, "ACGT") == ["[CLS]", "ACG", "T", "[SEP]"]
    assert names(tokenizer, "") == ["[CLS]", "[SEP]"]
    assert len(tokenizer.dna_token_ids) == 68 and tokenizer.bases_per_id[5] == 3 and tokenizer.bases_per_id[4] == 0


def test_single_bases():
    tokenizer = make_kmer(1)
    assert names(tokenizer, "ACN GT", add_special_tokens=False) == list("ACNGT")
    assert tokenizer.vocab_size == 10 and not make_kmer(1, overlapping=True).overlapping


def test_overlapping_by_hand():
    tokenizer = make_kmer(3, overlapping=True)
    assert tokenizer.overlapping and tokenizer.vocab_size == 69 and tokenizer.alphabet == "ACGT"
    encoding = tokenizer.encode("ACGTNA")
    assert [tokenizer.token_strings[i] for i in encoding.input_ids] == [
        "[CLS]",
        "ACG",
        "CGT",
        "[UNK]",
        "[UNK]",
        "[SEP]",
    ]
    assert encoding.offsets.tolist() == [[0, 0], [0, 3], [1, 4], [2, 5], [3, 6], [0, 0]]
    assert names(tokenizer, "AC") == ["[CLS]", "[SEP]"]
    assert tokenizer.decode(tokenizer.encode("ACGTTG").input_ids, skip_special_tokens=True) == "ACGTTG"
    assert tokenizer.decode(tokenizer.encode("ACGT").input_ids) == "[CLS]ACGT[SEP]"


@pytest.mark.parametrize("tokenizer", [make_kmer(4), make_kmer(2, layout="nt_v2"), make_kmer(5, overlapping=True)])
def test_decode_gives_the_text_back(tokenizer):
    text = "ACGTTGACCATGGATTTACGCA"
    assert tokenizer.decode(tokenizer.encode(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("layout", ["nt_v1", "nt_v2"])
def test_nucleotide_transformer_on_any_text(layout, tmp_path):
    from transformers import EsmTokenizer

    ours = make_kmer(6, layout=layout)
    (tmp_path / "vocab.txt").write_text("\n".join(ours.token_strings))
    theirs = EsmTokenizer(str(tmp_path / "vocab.txt"), eos_token=None)

    @SLOPPY
    @given(text=texts)
    def check(text):
        assert ours.encode(text).input_ids.tolist() == theirs(text)["input_ids"]

    check()


@pytest.mark.parametrize("k", [3, 6])
def test_dnabert_on_any_text(k):
    from transformers import BertTokenizer

    ours = make_kmer(k, overlapping=True, layout="dnabert")
    theirs = BertTokenizer(vocab=dict(ours.vocab), do_lower_case=False)

    @SLOPPY
    @given(text=texts.filter(lambda text: "[" not in text))
    def check(text):
        kmers = " ".join(text[i : i + k] for i in range(len(text) - k + 1))
        assert ours.encode(text).input_ids.tolist() == theirs(kmers)["input_ids"]

    check()


@SLOPPY
@given(text=texts, k=st.integers(1, 7))
def test_non_overlapping_offsets_tile_the_text(text, k):
    encoding = make_kmer(k).encode(text, add_special_tokens=False)
    covered = np.zeros(len(text), dtype=bool)
    for start, end in encoding.offsets:
        assert start < end and not covered[start:end].any()
        covered[start:end] = True
    assert all(a[1] <= b[0] for a, b in pairwise(encoding.offsets.tolist()))
    assert all(text[i].isspace() for i in np.flatnonzero(~covered))


def test_words_of_bert():
    assert split_words("AC.G\tT\x00A 中") == [(0, 2), (2, 3), (3, 4), (5, 8), (9, 10)]


def test_end_token():
    plain, ended = make_kmer(6, layout="nt_v2"), make_kmer(6, layout="nt_v2", append_eos=True)
    assert plain.encode("ACGTAC").input_ids.tolist() == [3, plain.vocab["ACGTAC"]]
    assert ended.encode("ACGTAC").input_ids.tolist() == [3, plain.vocab["ACGTAC"], 4]
    assert ended.encode_pair("ACGTAC", "T").input_ids.tolist() == [3, plain.vocab["ACGTAC"], 4, plain.vocab["T"], 4]
    assert plain.fingerprint != ended.fingerprint
    with pytest.raises(TokenizerError, match="no form for pairs"):
        plain.encode_pair("A", "C")
    with pytest.raises(ValueError, match="needs a vocabulary with <eos>"):
        make_kmer(6, layout="nt_v1", append_eos=True)


def test_refuses_unknown_letters_on_request():
    tokenizer = make_kmer(6, layout="nt_v1_jax", unknown="error")
    with pytest.raises(TokenizerError, match="letter 'R' at position 5 is not in the k-mer vocabulary"):
        tokenizer.encode("ACGTRA")
    with pytest.raises(TokenizerError, match="'<mask>' at letter 2 does not stand on the 6-mer grid"):
        tokenizer.encode("A<mask>")
    with pytest.raises(UsageError, match="unknown treatment of unknown letters 'drop'"):
        make_kmer(6, unknown="drop")


def test_wrong_requests():
    with pytest.raises(ValueError, match="k is 1 to 10"):
        make_kmer(0)
    with pytest.raises(UsageError, match=r"unknown k-mer layout 'nt_v3' \(did you mean 'nt_v2'"):
        make_kmer(6, layout="nt_v3")


def test_not_a_kmer_vocabulary():
    vocab = dict(make_kmer(2).vocab)
    del vocab["CG"]
    with pytest.raises(TokenizerError, match="of 16 words of 2 bases it has 15"):
        kmer_from_vocab(vocab)
    for name in ("[CLS]", "[UNK]"):
        vocab = dict(make_kmer(2).vocab)
        vocab["gone"] = vocab.pop(name)
        with pytest.raises(TokenizerError, match="neither"):
            kmer_from_vocab(vocab)


@pytest.mark.parametrize(
    "tokenizer",
    [make_kmer(6), make_kmer(1), make_kmer(4, overlapping=True), make_kmer(6, layout="nt_v1", unknown="error")],
)
def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.max_tokens = 1000
    (tmp_path / "longstrand.json").write_text('{"format": 1}')
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer) and loaded.max_tokens == 1000
    assert loaded.fingerprint == tokenizer.fingerprint and loaded.vocab == tokenizer.vocab
    assert json.loads((tmp_path / "longstrand.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    "tokenizer", [make_kmer(6), make_kmer(1), make_kmer(6, layout="nt_v2"), make_kmer(3, overlapping=True)]
)
def test_auto_tokenizer_gives_the_same_ids(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.mask_token_id, theirs.pad_token_id) == (tokenizer.mask_token_id, tokenizer.pad_token_id)
    assert theirs.unk_token_id == tokenizer.unk_token_id and theirs.cls_token_id == tokenizer.cls_token_id
    for text in ("ACGTTGACCATGGATTTACGCA", "ACGNNNTTACGGGTTTTAACA", "AACGTATacgtNNACGTAA", "ACGTAAACGTAA", ""):
        if isinstance(tokenizer, KmerTokenizer):
            shown = text
        else:
            shown = " ".join(text[i : i + 3] for i in range(len(text) - 2))
        assert theirs(shown)["input_ids"] == tokenizer.encode(text.upper()).input_ids.tolist()
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    tokenizer.save(tmp_path / "exact", exact_text=True)
    exact = AutoTokenizer.from_pretrained(tmp_path / "exact")
    assert set(exact("acg")["input_ids"]) - set(exact("ACG")["input_ids"]) == {tokenizer.unk_token_id}
