"""The four questions on models whose logits are known by hand, and against naive loops on random ones."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from longstrand import runtime
from longstrand.errors import InputError, UsageError
from longstrand.models.config import preset
from longstrand.models.network import Network
from longstrand.models.networks import MaskedLM, SequenceClassification, TokenClassification
from longstrand.models.positions import take_rows
from longstrand.models.reading import Reading
from longstrand.questions.bases import base_distribution, base_probabilities
from longstrand.questions.scores import scorer
from longstrand.questions.tokens import (
    MaskedText,
    gradients,
    iter_log_probabilities,
    masked_log_probabilities,
    read_text,
    states,
)
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.kmer import make_kmer

TEXTS = ["ACGTTGCAAC", "TTGACCAGTACGGAT", "ACN"]


def bpe() -> BpeTokenizer:
    """Tokens A, C, G, T, N, AC, CA, GT, TT; ``[CLS]`` text ``[SEP]``."""
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", *"ACGTN", "AC", "CA", "GT", "TT"]
    model = {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "unk_token": "[UNK]"}
    model["merges"] = [["A", "C"], ["C", "A"], ["G", "T"], ["T", "T"]]
    ends = {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]}
    return BpeTokenizer(json.dumps({"version": "1.0", "model": model, "post_processor": ends}))


class Toy(Network):
    """A masked LM whose logits are a table by (number of masked tokens of the text, id)."""

    kind = "masked_lm"

    def __init__(self, tokenizer, table):
        super().__init__()
        self.config = SimpleNamespace(memory=None, positions="none", num_hidden_layers=1)
        self.tokenizer = tokenizer
        self.table = torch.nn.Parameter(torch.as_tensor(table, dtype=torch.float32))
        self.lm_head = torch.nn.Identity()
        self.seen = []

    def forward(self, input_ids, attention_mask=None, **_):
        self.seen += [
            [self.tokenizer.token_strings[i] for i in row if i != self.tokenizer.pad_token_id] for row in input_ids
        ]
        masked = (input_ids == self.tokenizer.mask_token_id).sum(1)
        return BaseModelOutput(last_hidden_state=self.table[masked][:, None].expand(-1, input_ids.shape[1], -1))

    def states_at(self, rows, input_ids, attention_mask=None):
        return take_rows(self(input_ids, attention_mask).last_hidden_state, rows)


def log_table(tokenizer, **probabilities):
    """Make logits (8, V) whose softmax is given for some tokens, tiny for the rest."""
    logits = np.full((8, tokenizer.vocab_size), -30.0)
    for text, probability in probabilities.items():
        logits[:, tokenizer.vocab[text]] = np.log(probability)
    return logits


def test_single_bases_by_hand():
    tokenizer = make_kmer(1)
    model = Toy(tokenizer, log_table(tokenizer, A=0.1, C=0.2, G=0.2, T=0.3, N=0.2))
    found = base_distribution(model, "acN")
    np.testing.assert_allclose(found.probabilities, [[0.125, 0.25, 0.25, 0.375]] * 3, atol=1e-6)
    np.testing.assert_allclose(found.left_out, [0.2] * 3, atol=1e-6)
    assert model.seen == [
        ["[CLS]", "[MASK]", "C", "N", "[SEP]"],
        ["[CLS]", "A", "[MASK]", "N", "[SEP]"],
        ["[CLS]", "A", "C", "[MASK]", "[SEP]"],
    ]
    minus = base_distribution(model, "acN", strand="-")
    np.testing.assert_allclose(minus.probabilities, [[0.375, 0.25, 0.25, 0.125]] * 3, atol=1e-6)
    both = np.sqrt([0.125 * 0.375, 0.25**2, 0.25**2, 0.125 * 0.375])
    np.testing.assert_allclose(base_probabilities(model, "acN", strand="both"), [both / both.sum()] * 3, atol=1e-6)


def test_words_of_two_bases_by_hand():
    tokenizer = make_kmer(2)
    shares = {"AA": 0.1, "AC": 0.2, "CA": 0.3, "GC": 0.1, "TC": 0.1, "G": 0.15, "N": 0.05}
    model = Toy(tokenizer, log_table(tokenizer, **shares))
    summed = base_distribution(model, "ACG", inside="summed")
    expected = [[0.3, 0.3, 0.1, 0.1], [0.4, 0.4, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_allclose(summed.probabilities, np.array(expected) / [[0.8], [0.8], [1]], atol=1e-6)
    np.testing.assert_allclose(summed.left_out, [0.2, 0.2, 0.85], atol=1e-6)
    given = base_probabilities(model, "ACG")
    np.testing.assert_allclose(given, [[0.5, 0, 0.25, 0.25], [1 / 3, 2 / 3, 0, 0], [0, 0, 1, 0]], atol=1e-6)


def test_overlapping_words_by_hand():
    tokenizer = make_kmer(2, overlapping=True)
    shares = {"AC": 0.4, "AG": 0.1, "CT": 0.2, "GT": 0.3}
    model = Toy(tokenizer, log_table(tokenizer, **shares))
    found = base_distribution(model, "ACTN")
    assert model.seen[1] == ["[CLS]", "[MASK]", "[MASK]", "[UNK]", "[SEP]"]
    middle = np.sqrt([0.4 * 0.2, 0.1 * 0.3])
    np.testing.assert_allclose(found.probabilities[1], [0, *(middle / middle.sum()), 0], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[0], [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[2], [0, 0, 0, 1], atol=1e-6)
    assert np.isfinite(found.probabilities[3]).all()
    np.testing.assert_allclose(found.left_out, 0, atol=1e-6)
    assert np.isnan(base_probabilities(model, "A")).all()


def test_bpe_by_hand():
    model = Toy(bpe(), log_table(bpe(), AC=0.2, CA=0.3, GT=0.1, A=0.1, C=0.05, TT=0.15, G=0.1))
    found = base_distribution(model, "ACG")
    np.testing.assert_allclose(found.probabilities[0] * 0.75, [0.2, 0.3, 0.1, 0.15], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[1] * 0.75, [0.3, 0.2, 0, 0.25], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[2] * 0.25, [0.1, 0.05, 0.1, 0], atol=1e-6)
    np.testing.assert_allclose(found.left_out, [0.25, 0.25, 0.75], atol=1e-6)
    with pytest.raises(UsageError, match="words of BPE that differ in one base"):
        base_probabilities(model, "ACG", inside="given")


KINDS = {
    "single": lambda: make_kmer(1),
    "words": lambda: make_kmer(2),
    "overlapping": lambda: make_kmer(3, overlapping=True),
    "bpe": bpe,
}


def random_model(cls=MaskedLM, tokenizer=None, **changes):
    torch.manual_seed(0)
    tokenizer = tokenizer or make_kmer(2)
    fixed = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_token_id, "hidden_size": 16}
    model = cls(preset("tiny", **{**fixed, "num_attention_heads": 2, "intermediate_size": 24, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.4)
    model.tokenizer = tokenizer
    return model


MEMORY = {"memory": {"num_tokens": 2, "segment_length": 8, "cls_token_id": 1, "sep_token_id": 2}}


@pytest.mark.parametrize("kind", KINDS)
def test_masked_rows_equal_a_naive_loop(kind):
    model = random_model(tokenizer=KINDS[kind]())
    for text in TEXTS:
        ids = read_text(model, text).input_ids
        masks = [[row] for row in range(1, len(ids) - 1)] + [[1, len(ids) - 2]]
        found = masked_log_probabilities(model, text, masks, batch_tokens=40)
        for rows, logs in zip(masks, found):
            changed = torch.from_numpy(ids.astype(np.int64))[None].clone()
            changed[0, rows] = model.tokenizer.mask_token_id
            with torch.no_grad():
                right = model(changed).logits[0, rows].log_softmax(-1)
            np.testing.assert_allclose(logs, right, atol=2e-5)
        (plain,) = masked_log_probabilities(model, text)
        with torch.no_grad():
            right = model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0].log_softmax(-1)
        np.testing.assert_allclose(plain, right, atol=2e-5)


@pytest.mark.parametrize("changes", [{}, MEMORY, {"positions": "alibi"}], ids=["plain", "memory", "alibi"])
def test_batches_change_nothing(changes, monkeypatch):
    """Nor do parts of a batch, on a thread each."""
    monkeypatch.setattr("longstrand.inference.parts.LEAST_TOKENS", 1)
    with runtime.torch_threads(2):
        model = random_model(**changes)
        alone = [next(iter(states(model, [text]))) for text in TEXTS]
        for text, one, other in zip(TEXTS, alone, states(model, TEXTS, batch_tokens=1000)):
            assert one.shape == (len(read_text(model, text)), 16)
            np.testing.assert_allclose(one, other, atol=1e-5)
        asked = [MaskedText(read_text(model, text), np.array([1]), np.array([0, 1])) for text in TEXTS]
        for one, other in zip(
            iter_log_probabilities(model, asked, batch_tokens=1), iter_log_probabilities(model, asked)
        ):
            np.testing.assert_allclose(one, other, atol=2e-5)
        classes = {"heads": {"sequence": {"kind": "sequence", "problem": "regression", "num_outputs": 3}}}
        model = random_model(SequenceClassification, **changes, **classes)
        for text, other in zip(TEXTS, list(gradients(model, TEXTS, 2, batch_tokens=1000))):
            (one,) = gradients(model, [text], 2)
            np.testing.assert_allclose(one.values, other.values, atol=1e-5 * np.abs(one.values).max() + 1e-7)
            assert one.target == pytest.approx(scorer(model)([text])[0, 2], abs=1e-5)
            assert one.values.dtype == np.float32 and np.abs(one.values).max() > 0
        assert not any(module.training for module in model.modules())


def test_gradients_are_differences():
    """Central differences of one coordinate, of an output number, a function, and a masked token's log-probability."""
    heads = {"heads": {"token": {"kind": "token", "problem": "single_label", "num_outputs": 3}}}
    model, text = random_model(TokenClassification, **heads), TEXTS[0]
    language = random_model()
    masks = [[2]]
    cases = [
        (model, 1, None),
        (model, lambda logits: logits[2, 0] - logits[3, 1], None),
        (language, lambda logits: logits.log_softmax(-1)[0, 7], masks),
    ]
    for asked, target, masked in cases:
        (here,) = gradients(asked, [text], target, masks=masked)
        row, column = np.unravel_index(np.abs(here.values).argmax(), here.values.shape)
        ends = []
        for step in (-1e-2, 1e-2):
            moved = here.vectors.copy()
            moved[row, column] += step
            (end,) = gradients(asked, [text], target, vectors=[moved], masks=masked)
            ends.append(end.target)
        if row != 2 or masked is None:
            assert (ends[1] - ends[0]) / 2e-2 == pytest.approx(here.values[row, column], rel=2e-2)
    with pytest.raises(UsageError, match="the target is a function"):
        list(gradients(language, [text], 0))
    with pytest.raises(ValueError, match="vectors of text 1 have shape"):
        list(gradients(model, [text], 1, vectors=[np.zeros((2, 16), np.float32)]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [True, False])
def test_long_sequences_are_read_in_windows_around_each_base(kind, masked):
    """A window that holds the whole sequence changes nothing; a smaller one is the model on that part alone."""
    model = random_model(tokenizer=KINDS[kind]())
    text = "ACGTTGCAACTTGACCAGTACGGATNNACGTCCGTTAACG"
    whole = base_probabilities(model, text, masked=masked)
    assert whole.shape == (len(text), 4) and whole.dtype == np.float32
    known = ~np.isnan(whole).any(1)
    assert known.mean() > 0.8
    np.testing.assert_allclose(whole[known].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(base_probabilities(model, text, masked=masked, max_tokens=60), whole, atol=1e-5)
    model.reading = Reading(max_tokens=14)
    windowed = base_probabilities(model, text, masked=masked, batch_tokens=50)
    assert (np.isnan(windowed) == np.isnan(whole)).all() and np.abs(windowed - whole)[known].max() > 1e-4
    if kind == "single" and masked:
        np.testing.assert_allclose(windowed[20], base_probabilities(model, text[14:26], max_tokens=14)[6], atol=1e-5)
    with pytest.raises(UsageError, match="leaves no room"):
        base_probabilities(model, text, max_tokens=2)


def test_scores_of_every_head():
    classes = {"sequence": {"kind": "sequence", "problem": "single_label", "num_outputs": 3}}
    model = random_model(SequenceClassification, heads=classes)
    model.reading = Reading(class_names=("exon", "intron", "other"))
    score = scorer(model, output=["intron", 0])
    every = scorer(model)(TEXTS)
    assert every.shape == (3, 3) and every.dtype == np.float32
    np.testing.assert_allclose(score(TEXTS), every[:, [1, 0]])
    assert score([]).shape == (0, 2)
    np.testing.assert_allclose(scorer(model, window=6)([TEXTS[1]]), scorer(model)([TEXTS[1][4:10]]))
    both = scorer(model, strand="both")(["ACCGT"])
    np.testing.assert_allclose(both, scorer(model)(["ACCGT", "ACGGT"]).mean(0, keepdims=True), atol=1e-6)
    with pytest.raises(UsageError, match=r"no output 'introm' \(did you mean 'intron'"):
        scorer(model, output="introm")
    with pytest.raises(UsageError, match="no output 3: the model has 3, numbered from 0"):
        scorer(model, output=3)
    with pytest.raises(UsageError, match="a region is for heads per token"):
        scorer(model, region=(0, 2))
    with pytest.raises(InputError, match="sequence 3: 3 bases are fewer than the window of 6"):
        scorer(model, window=6)(TEXTS)
    tokens = {"token": {"kind": "token", "problem": "regression", "num_outputs": 2}}
    model = random_model(TokenClassification, heads=tokens)
    with torch.no_grad():
        ids = torch.from_numpy(read_text(model, "ACGTT").input_ids.astype(np.int64))[None]
        per_token = model(ids).logits[0, 1:-1].numpy()  # AC GT T
    np.testing.assert_allclose(
        scorer(model)(["ACGTT"])[0], (2 * per_token[0] + 2 * per_token[1] + per_token[2]) / 5, atol=1e-6
    )
    np.testing.assert_allclose(scorer(model, region=(1, 3))(["ACGTT"])[0], per_token[:2].mean(0), atol=1e-6)
    with pytest.raises(InputError, match="region 1-9 does not lie within the sequence of 5 bases"):
        scorer(model, region=(1, 9))(["ACGTT"])


def test_score_of_a_masked_lm_is_its_pseudo_log_likelihood():
    model = random_model()
    for strand, readings in {"+": ["ACGTT"], "both": ["ACGTT", "AACGT"]}.items():
        sums = []
        for text in readings:
            ids = read_text(model, text).input_ids
            logs = masked_log_probabilities(model, text, [[1], [2], [3]])
            sums.append(sum(float(one[0, ids[row]]) for row, one in enumerate(logs, 1)))
        found = scorer(model, strand=strand)(["ACGTT", "ACGTTA"])
        assert found.shape == (2, 1) and found[0, 0] == pytest.approx(np.mean(sums), abs=1e-4)


def test_what_cannot_be_asked_is_refused():
    model = random_model()
    with pytest.raises(InputError, match="there is no row 99"):
        masked_log_probabilities(model, "ACGT", [[99]])
    with pytest.raises(UsageError, match="this question is for a masked LM"):
        head = {"heads": {"sequence": {"kind": "sequence", "problem": "regression", "num_outputs": 1}}}
        masked_log_probabilities(random_model(SequenceClassification, **head), "ACGT", [[1]])
    with pytest.raises(UsageError, match="no layer 9"):
        list(states(model, ["ACGT"], 9))
    short = random_model(positions="learned", max_position_embeddings=5)
    with pytest.raises(InputError, match=r"the text of 12 bases has 8 tokens, but the position table .* ends at 5"):
        read_text(short, "ACGTACGTACGT")
    assert base_probabilities(short, "ACGTACGTACGT").shape == (12, 4)
    assert base_probabilities(short, "").shape == (0, 4)
