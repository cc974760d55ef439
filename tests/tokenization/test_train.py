"""Training a vocabulary: against counting by hand, and what is saved."""

from __future__ import annotations

import json
import logging
import random
from itertools import pairwise

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from longstrand.errors import InputError
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.train import (
    SPECIAL_TOKENS,
    describe_training,
    sample_pieces,
    train_bpe,
    write_training_record,
)
from tests.tokenization.test_bpe import random_dna


class Toy:
    """A genome in memory."""

    def __init__(self, **contigs: str) -> None:
        self._letters = contigs
        self.contigs = {name: len(letters) for name, letters in contigs.items()}

    def fetch(self, chrom: str, start: int, end: int) -> str:
        assert 0 <= start < end <= self.contigs[chrom]
        return self._letters[chrom][start:end]


def test_special_tokens_letters_and_first_merges():
    tokenizer = train_bpe(["ACACAC" * 30, "GNG" + "ACAC" * 10], vocab_size=13)
    assert tokenizer.token_strings[:11] == ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "-", *"ACGNT"]
    assert tokenizer.token_strings[11:] == ["AC", "ACAC"]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.alphabet) == (3, 4, "ACGNT")
    names = [tokenizer.token_strings[i] for i in tokenizer.encode(" ACACACGNN" + "N" * 9 + "AC").input_ids]
    assert names == ["[CLS]", "ACAC", "AC", "G", "-", "AC", "[SEP]"]
    assert tokenizer.uses_engine


def test_the_same_as_merging_by_hand():
    """The definition: count neighbours, merge the most frequent pair everywhere, again."""
    texts = ["".join(random.Random(i).choices("ACGT", [5, 2, 2, 4], k=90)) for i in range(30)]
    tokenizer = train_bpe(texts, vocab_size=31)
    words = [list(text) for text in texts]
    for merge in json.loads(tokenizer.definition)["model"]["merges"]:
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts.values())
        pair = tuple(merge)
        assert (
            counts[pair] >= best - 3
        )  # the library counts AAA as two pairs of A, as here, and updates slightly otherwise
        for word in words:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == pair:
                    word[at : at + 2] = ["".join(pair)]
                at += 1
    final = [tokenizer.token_strings[i] for i in tokenizer.encode(texts[0], add_special_tokens=False).input_ids]
    assert final == words[0]


def library_definition(texts: list[str], max_token_length: int, **sizes: int) -> str:
    """Train as the library does, with the settings of `train_bpe`."""
    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex("N{10,}"), "-")])
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[-N]"), "isolated")
    made.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        special_tokens=list(SPECIAL_TOKENS), initial_alphabet=list("ACGTN"), limit_alphabet=5, show_progress=False,
        max_token_length=max_token_length, **sizes,
    )  # fmt: skip
    pieces = [text[start : start + 1000] for text in texts for start in range(0, len(text), 1000)]
    made.train_from_iterator(pieces, trainer=trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return made.to_str()


@pytest.mark.parametrize(
    ("seed", "vocab_size", "min_frequency", "max_token_length"),
    [(1, 700, 2, 64), (2, 400, 1, 5), (3, 90, 7, 3), pytest.param(4, 66_000, 2, 16, marks=pytest.mark.slow)],
)
def test_the_same_as_the_library(seed, vocab_size, min_frequency, max_token_length):
    """Repeats (AAA, ACAC), tokens that two pairs form, words met twice, gaps, odd letters, ends of pieces."""
    draw = random.Random(seed)
    texts = ["".join(draw.choices("ACGTN", [6, 2, 3, 5, 0.05], k=draw.randint(1, 3000))) for _ in range(12)]
    texts += ["A" * 1203, "AC" * 77, "AC" * 77, texts[0], f"{texts[1]}{'N' * 30}acgtRY-{texts[2]}", "", "NN", "G"]
    sizes = {"vocab_size": vocab_size, "min_frequency": min_frequency}
    ours = train_bpe(texts, **sizes, max_token_length=max_token_length)
    assert ours.definition == library_definition(texts, max_token_length, **sizes)


def test_no_token_holds_n_or_is_too_long():
    tokenizer = train_bpe(["A" * 500 + "NNNANNA" * 50 + random_dna(1, 900)], vocab_size=200, max_token_length=7)
    words = [text for text, i in tokenizer.vocab.items() if i not in tokenizer.special_ids]
    assert max(map(len, words)) <= 7 and all("N" not in word or word == "N" for word in words)


def test_long_sequences_train_like_their_pieces():
    text = random_dna(2, 5000)
    pieces = [text[i : i + 1000] for i in range(0, 5000, 1000)]
    assert train_bpe([text], vocab_size=60).fingerprint == train_bpe(pieces, vocab_size=60).fingerprint


def test_too_little_text(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_bpe(["ACGT"], vocab_size=100)
    assert tokenizer.vocab_size == 11 and "gives only 11 of 100 tokens" in caplog.text
    with pytest.raises(InputError, match="nothing to train"):
        train_bpe(["", ""], vocab_size=100)
    with pytest.raises(ValueError, match="vocab_size is more than 11"):
        train_bpe(["ACGT"], vocab_size=11)


def test_pieces_cover_everything_once():
    genome = Toy(one=random_dna(1, 2500), two=random_dna(2, 999), empty="", three="acgtRYn" * 10)
    pieces = list(sample_pieces([genome], num_bases=10**6, piece_length=100, seed=3))
    assert sum(map(len, pieces)) == 2500 + 999 + 70
    whole = "".join(sorted("".join(pieces)))
    assert whole == "".join(sorted(genome._letters["one"] + genome._letters["two"] + "ACGTNNN" * 10))
    assert sum(piece in genome._letters["two"] for piece in pieces) >= 10


def test_pieces_are_seeded_and_limited():
    genome = Toy(one="A" * 5000, two="C" * 5000)
    pieces = list(sample_pieces([genome], num_bases=4000, piece_length=100, seed=1))
    assert len(pieces) == 40 and {piece[0] for piece in pieces} == set("AC")
    assert pieces == list(sample_pieces([genome], num_bases=4000, piece_length=100, seed=1))
    assert pieces != list(sample_pieces([genome], num_bases=4000, piece_length=100, seed=2))
    assert next(iter(sample_pieces([Toy(x="ACNT")], num_bases=4, seed=0))) == "ACNT"


def test_nothing_to_sample():
    with pytest.raises(ValueError, match="at least 1"):
        list(sample_pieces([Toy(x="A")], num_bases=0))
    for left in ([], [Toy(x="")]):
        with pytest.raises(InputError, match="no bases to sample"):
            list(sample_pieces(left, num_bases=5))


def test_saved_folder_loads_here_and_with_transformers(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = train_bpe([random_dna(i, 900) for i in range(20)], vocab_size=300)
    tokenizer.max_tokens = 512
    tokenizer.save(tmp_path)
    write_training_record(tmp_path, describe_training(tokenizer, seed=1))
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint and loaded.max_tokens == 512
    record = json.loads((tmp_path / "longstrand.json").read_text())
    assert record["tokenizer"] == {"kind": "bpe"} and record["tokenizer_training"]["seed"] == 1
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 512
    roles = ("unk", "cls", "sep", "pad", "mask")
    assert [getattr(theirs, f"{role}_token_id") for role in roles] == [0, 1, 2, 3, 4]
    for text in ("ACGTTGACCATG" * 5, "ACGNNNNTTACG", "AC" + "N" * 30 + "GT[MASK]A", ""):
        ids = tokenizer.encode(text).input_ids.tolist()
        assert theirs(text)["input_ids"] == ids == loaded.encode(text).input_ids.tolist()
        assert np.array_equal(loaded.encode(text).offsets, tokenizer.encode(text).offsets)
    assert theirs("acgttg")["input_ids"] == tokenizer.encode("ACGTTG").input_ids.tolist()  # the files upper-case
    tokenizer.save(tmp_path / "exact", exact_text=True)
    exact = AutoTokenizer.from_pretrained(tmp_path / "exact")
    assert exact("ACGTTG")["input_ids"] == theirs("acgttg")["input_ids"]
    assert set(exact("acgttg")["input_ids"]) == {0, 1, 2}  # [UNK] between [CLS] and [SEP]
