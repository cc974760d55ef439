"""Byte pairs against the ``tokenizers`` library: the same ids and offsets for any text."""

from __future__ import annotations

import json
import logging
import pickle
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer

from longstrand.errors import TokenizerError, UsageError
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.train import train_bpe
from tests.tokenization.texts import texts

SLOPPY = settings(max_examples=60, deadline=None)


def random_dna(seed: int, size: int, letters: str = "ACGT") -> str:
    return "".join(random.Random(seed).choices(letters, k=size))


def definition(merges: list[str], letters: str = "ACGTN", **changes) -> str:
    """Write a small tokenizer.json by hand; merges as ``"A C"``."""
    tokens = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "-",
        *letters,
        *(merge.replace(" ", "") for merge in merges),
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags} for i in range(6)],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(dict.fromkeys(tokens))},
            "merges": merges,
        },
    }
    model = changes.pop("model", {})
    content |= changes
    content["model"] |= model
    return json.dumps(content)


def check_same(ours: BpeTokenizer, library: LibraryTokenizer, text: str) -> None:
    expected = library.encode(text)
    encoding = ours.encode(text)
    assert encoding.input_ids.tolist() == expected.ids
    inner = encoding.offsets[1:-1].tolist()
    for mine, theirs, index in zip(inner, expected.offsets[1:-1], expected.ids[1:-1], strict=True):
        is_gap = ours.token_strings[index] == "-" and text[mine[0] : mine[1]] != "-"
        assert mine == list(theirs) or (is_gap and mine[1] == theirs[1] and set(text[mine[0] : mine[1]]) == {"N"})
    assert all(a[1] <= b[0] for a, b in pairwise(inner))
    covered = np.zeros(len(text), dtype=bool)
    for start, end in inner:
        assert start < end
        covered[start:end] = True
    assert all(text[i].isspace() for i in np.flatnonzero(~covered))
    assert encoding.num_bases == len(text) and encoding.special_tokens_mask[[0, -1]].all()


@pytest.fixture(scope="module")
def own() -> BpeTokenizer:
    return train_bpe([random_dna(i, 600) + "ACG" * 40 + "A" * 50 for i in range(40)], vocab_size=700)


@pytest.fixture(scope="module")
def library(own) -> LibraryTokenizer:
    return LibraryTokenizer.from_str(own.definition)


@SLOPPY
@given(text=texts)
def test_own_vocabulary_on_any_text(own, library, text):
    assert own.uses_engine
    check_same(own, library, text)


PUBLISHED = [
    "data/tokenizers/gena_t2t_1000h_multi_32k",
    "data/tokenizers/gena_human_bpe_32k",
    "golden/dnabert2/tokenizer_files",
]


@pytest.mark.parametrize("folder", PUBLISHED)
def test_published_vocabulary_on_any_text(shared, folder):
    path = shared / folder / "tokenizer.json"
    if not path.exists():
        pytest.skip(f"{folder} is not in the data folder")
    ours = BpeTokenizer(path.read_text())
    theirs = LibraryTokenizer.from_file(str(path))
    assert ours.uses_engine

    @SLOPPY
    @given(text=texts)
    def check(text):
        check_same(ours, theirs, text)

    check()
    for size in range(61):
        check_same(ours, theirs, "ACGTTGCA" + "N" * size + "GGATTACA")
    check_same(ours, theirs, random_dna(1, 30_000, "ACGTACGTACGTN"))
    check_same(ours, theirs, "A" * 3000 + "AT" * 1500 + random_dna(2, 3000) + "GATTACA" * 300 + "N" * 5)


def test_a_megabase(own, library):
    text = random_dna(3, 500_000) + "A" * 20_000 + "N" * 5000 + random_dna(4, 475_000, "ACGTACGTACGTACGTN")
    expected = library.encode(text)
    ours = own.encode(text)
    assert np.array_equal(ours.input_ids, expected.ids)
    assert (ours.offsets[1:-1, 1] - ours.offsets[1:-1, 0]).sum() == len(text)


@SLOPPY
@given(seed=st.integers(0, 10**6), size=st.integers(1, 60), data=st.data())
def test_random_merge_lists(seed, size, data):
    """Merges in arbitrary order of frequency, with overlapping and unreachable tokens."""
    rng = random.Random(seed)
    tokens, merges = list("ACGT"), []
    for _ in range(size):
        pair = rng.choice(tokens), rng.choice(tokens[-12:])
        if rng.random() < 0.5:
            pair = pair[::-1]
        if "".join(pair) not in tokens and len("".join(pair)) < 60:
            tokens.append("".join(pair))
            merges.append(" ".join(pair))
    text = definition(merges)
    ours, theirs = BpeTokenizer(text), LibraryTokenizer.from_str(text)
    assert ours.uses_engine
    for _ in range(4):
        sample = data.draw(st.one_of(st.text("AC", max_size=60), st.text("ACGTN", max_size=900)))
        assert ours.encode(sample).input_ids.tolist() == theirs.encode(sample).ids


def test_by_hand():
    tokenizer = BpeTokenizer(definition(["A A", "C G", "AA CG", "AA A"]))
    names = tokenizer.token_strings
    encoding = tokenizer.encode("AAACGTNAA", add_special_tokens=False)
    assert [names[i] for i in encoding.input_ids] == ["AAA", "CG", "T", "N", "AA"]
    assert encoding.offsets.tolist() == [[0, 3], [3, 5], [5, 6], [6, 7], [7, 9]]
    assert [names[i] for i in tokenizer.encode("AACGAAA").input_ids] == ["[CLS]", "AACG", "AAA", "[SEP]"]


def test_batches_and_threads_agree(own):
    batch = [random_dna(i, 80 * i) for i in range(60)]
    alone = [own.encode(text) for text in batch]
    for threads in (1, 3):
        together = own.encode_batch(batch, num_threads=threads)
        assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(alone, together, strict=True))


def test_decode_gives_the_text_back(own):
    text = random_dna(5, 400) + "NNAC"
    assert own.decode(own.encode(text).input_ids, skip_special_tokens=True) == text
    assert own.decode([1, 2]) == "[CLS][SEP]"


def test_pickles(own):
    copy = pickle.loads(pickle.dumps(own))
    assert copy.fingerprint == own.fingerprint
    assert copy.encode("ACGGTNA").input_ids.tolist() == own.encode("ACGGTNA").input_ids.tolist()


def test_pair_template_of_the_library():
    from tokenizers.processors import TemplateProcessing

    library = LibraryTokenizer.from_str(definition(["A A"]))
    library.post_processor = TemplateProcessing(
        single="[CLS] $A",
        pair="[CLS] $A [SEP] $B:1 [MASK]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2), ("[MASK]", 4)],
    )
    ours = BpeTokenizer(library.to_str())
    assert ours.encode("AAC").input_ids.tolist() == library.encode("AAC").ids
    pair, expected = ours.encode_pair("AAC", "G"), library.encode("AAC", "G")
    assert pair.input_ids.tolist() == expected.ids and pair.token_type_ids.tolist() == expected.type_ids
    assert ours.num_special_tokens() == 1 and ours.num_special_tokens(pair=True) == 3


REPLACE = {"type": "Replace", "pattern": {"Regex": "N{3,}"}, "content": ""}
UNSUPPORTED = [
    (["A A"], {"model": {"dropout": 0.0001}}, "dropout"),
    (["A A"], {"model": {"fuse_unk": True}}, "fuse_unk"),
    (["A A"], {"model": {"ignore_merges": True}}, "ignore_merges"),
    (["A A"], {"model": {"unk_token": None}}, "no unknown token"),
    (["A A", "AA C", "C A", "A AC"], {}, "before any merge has made it"),
    (["A A", "AA A", "A AA"], {}, "two merges"),
    (["A A"], {"normalizer": {"type": "Lowercase"}}, "normaliser Lowercase"),
    (["A A"], {"normalizer": REPLACE}, "normaliser Replace"),
    (
        ["A A"],
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": True}},
        "Metaspace",
    ),
    (
        ["A A"],
        {"pre_tokenizer": {"type": "Split", "pattern": {"String": "A"}, "behavior": "Isolated", "invert": False}},
        "splitting",
    ),
    (["A É"], {}, "beyond ASCII"),
]


@pytest.mark.parametrize(("merges", "changes", "reason"), UNSUPPORTED)
def test_what_the_engine_cannot_express_runs_on_the_library(merges, changes, reason, caplog):
    letters = "ACGTNÉ" if "É" in merges[0] else "ACGTN"
    tokens = {"AC"} if "A AC" in merges else set()
    text = definition(merges, letters, **dict(changes))
    if tokens:
        content = json.loads(text)
        content["model"]["vocab"] |= {token: 100 + i for i, token in enumerate(tokens)}
        text = json.dumps(content)
    ours, theirs = BpeTokenizer(text), LibraryTokenizer.from_str(text)
    with caplog.at_level(logging.WARNING):
        assert not ours.uses_engine
    assert reason in caplog.text and "slower" in caplog.text
    for sample in ("", "AACAAGTNNNNA", "AAAA [MASK]AC", "ACGÉ"):
        expected = theirs.encode(sample)
        encoding = ours.encode(sample)
        assert encoding.input_ids.tolist() == expected.ids
        assert encoding.offsets.tolist() == [list(pair) for pair in expected.offsets]


def test_added_tokens_that_the_engine_cannot_look_for(caplog):
    content = json.loads(definition(["A A"], normalizer={"type": "Strip", "strip_left": True, "strip_right": True}))
    for change, reason in (("lstrip", "white space"), ("normalized", "after normalisation")):
        changed = json.loads(json.dumps(content))
        changed["added_tokens"][4][change] = True
        assert not BpeTokenizer(json.dumps(changed)).uses_engine
        assert reason in caplog.text


def test_too_many_letters_ids_and_lengths(caplog):
    letters = "".join(chr(code) for code in range(48, 48 + 60))
    merges = [f"{a} {b}" for a, b in pairwise(letters)]
    assert not BpeTokenizer(definition(merges, letters)).uses_engine
    assert "letters, more than" in caplog.text
    content = json.loads(definition(["A A"]))
    content["model"]["vocab"]["AA"] = 2_000_000
    assert not BpeTokenizer(json.dumps(content)).uses_engine
    assert "ids above" in caplog.text
    doubling = ["A" * 2**i + " " + "A" * 2**i for i in range(12)]
    assert not BpeTokenizer(definition(doubling)).uses_engine
    assert "letters" in caplog.text
    content = json.loads(definition(["A A"]))
    del content["model"]["vocab"]["AA"]
    assert not BpeTokenizer(json.dumps(content)).uses_engine
    assert "not in the vocabulary" in caplog.text


def test_automaton_without_room(monkeypatch, caplog):
    from longstrand.tokenization import automaton

    monkeypatch.setattr(automaton, "MAX_STATES", 1000)
    assert not BpeTokenizer(definition(["A C", "C C", "AC CC"])).uses_engine
    assert "more than 1,000 states" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "it has no model"),
        ('{"model": {"type": "Unigram", "vocab": []}}', "the model is Unigram"),
        ('{"model": {"type": "BPE", "vocab": 3, "merges": []}}', "the vocabulary is missing"),
    ],
)
def test_damaged_definitions(text, message):
    with pytest.raises(TokenizerError, match=message):
        BpeTokenizer(text)


def test_library_refuses_damaged_merges():
    with pytest.raises(TokenizerError, match="cannot be read by the tokenizers library"):
        BpeTokenizer(definition(["A C G"])).encode("ACG")


def test_unknown_special_token():
    with pytest.raises(TokenizerError, match=r"mask token '<m>' of tokenizer_config\.json"):
        BpeTokenizer(definition([]), roles={"mask_token": "<m>"})


def test_threads_must_be_positive(own):
    with pytest.raises(ValueError, match="at least 1"):
        own.encode_batch(["A"], num_threads=0)


@SLOPPY
@given(text=texts)
def test_the_library_engine_gives_the_same(own, text):
    library = BpeTokenizer(own.definition, engine="library")
    copy = pickle.loads(pickle.dumps(library))
    assert not library.uses_engine and not copy.uses_engine
    for other in (library, copy):
        other.encode("ACGTN" * 2 + "N" * 8)
        assert "_engine" not in vars(other)
        np.testing.assert_array_equal(own.encode(text).input_ids, other.encode(text).input_ids)
        np.testing.assert_array_equal(own.encode(text).offsets, other.encode(text).offsets)


def test_unknown_engine(own):
    with pytest.raises(UsageError, match="unknown tokenizer engine 'libary' \\(did you mean 'library'"):
        BpeTokenizer(own.definition, engine="libary")
