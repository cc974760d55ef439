"""Prediction and strands: by hand on a toy network, then invariants on small real ones."""

from __future__ import annotations

import random
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from longstrand.data.rows import Record
from longstrand.data.windows import Window
from longstrand.errors import InputError, UsageError
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import layer_number, predict, probabilities
from longstrand.inference.sequences import as_records
from longstrand.inference.strands import average, flip_offsets, read_on, strands_of
from longstrand.models.config import preset
from longstrand.models.networks import NETWORKS
from longstrand.tokenization.kmer import make_kmer
from longstrand.tokenization.train import train_bpe

K1 = make_kmer(1)


class ToyNetwork(nn.Module):
    """Hidden state of a token = (id, position, 1) times (layer + 1); position counts from 0, [CLS] included."""

    def __init__(self, kind: str = "sequence", problem: str = "single_label", limit: int = 50) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.config = SimpleNamespace(
            hidden_size=3, num_hidden_layers=2, positions="learned", max_position_embeddings=limit
        )
        self.head_settings = SimpleNamespace(kind=kind, problem=problem, num_outputs=2)
        self.shapes: list[tuple[int, ...]] = []
        self.encoder = self._encode

    def _encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        assert not self.training
        position = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        hidden = torch.stack([input_ids, position, torch.ones_like(input_ids)], -1).float()
        return SimpleNamespace(last_hidden_state=3 * hidden, hidden_states=[hidden, 2 * hidden, 3 * hidden])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.dropout(self._encode(input_ids, attention_mask).last_hidden_state)
        if self.head_settings.kind == "token":
            return SimpleNamespace(logits=hidden[..., :2])
        real = attention_mask.float()
        return SimpleNamespace(logits=torch.stack([(hidden[..., 0] * real).sum(1), real.sum(1)], -1))


def ids(text: str) -> np.ndarray:
    return K1.encode(text, add_special_tokens=False).input_ids


def values(model: Any, sequences: list[Any], tokenizer: Any = K1, **options: Any) -> list[np.ndarray]:
    return [item.values for item in predict(model, sequences, tokenizer=tokenizer, **options)]


def test_one_result_a_row_in_order_whatever_the_length() -> None:
    letters = random.Random(0)
    sequences = ["".join(letters.choices("ACGT", k=letters.randint(0, 30))) for _ in range(200)]
    found = list(predict(ToyNetwork(), sequences, tokenizer=K1, batch_tokens=64))
    assert [item.index for item in found] == list(range(200))
    assert [item.num_bases for item in found] == [len(text) for text in sequences]
    assert all(item.values.shape == (2,) and item.values.dtype == np.float32 for item in found)
    specials = 3 * (K1.cls_token_id + K1.sep_token_id)
    for text, item in zip(sequences, found):
        if text:
            assert item.values.tolist() == [3 * ids(text).sum() + specials, len(text) + 2]


def test_batches_hold_what_they_may_and_similar_lengths() -> None:
    model = ToyNetwork()
    values(model, ["A" * 5, "A" * 30, "A" * 6, "A" * 29], batch_tokens=64)
    assert model.shapes == [(2, 32), (2, 8)]
    model = ToyNetwork()
    values(model, ["A" * 30, "A" * 30], batch_tokens=1)
    assert model.shapes == [(1, 32), (1, 32)]


def test_empty_rows_have_missing_values_and_are_not_shown_to_the_model() -> None:
    model = ToyNetwork()
    found = list(predict(model, ["", "AC", ""], tokenizer=K1))
    assert [item.empty for item in found] == [True, False, True]
    assert np.isnan(found[0].values).all() and found[0].values.shape == (2,)
    assert model.shapes == [(1, 4)]
    token = list(predict(ToyNetwork("token"), ["", "AC"], tokenizer=K1, pooling="tokens"))
    assert token[0].values.shape == (0, 2) and token[0].offsets.shape == (0, 2)
    assert values(ToyNetwork("token"), ["", "AC"])[0].shape == (0, 2)
    assert list(predict(model, [], tokenizer=K1)) == []


def test_letters_are_normalised_and_counted() -> None:
    (found,) = predict(ToyNetwork(), ["acRuNG"], tokenizer=K1)
    (plain,) = predict(ToyNetwork(), ["ACNTNG"], tokenizer=K1)
    assert found.num_unknown == plain.num_unknown == 2
    np.testing.assert_array_equal(found.values, plain.values)


def test_exact_text_goes_to_the_tokenizer_as_it_is() -> None:
    """Lower case is unknown to k-mers: the sum of ids differs from that of the upper case by hand."""
    (plain,) = predict(ToyNetwork(), ["acGT"], tokenizer=K1)
    (exact,) = predict(ToyNetwork(), ["acGT"], tokenizer=K1, exact_text=True)
    specials = K1.cls_token_id + K1.sep_token_id
    assert plain.values[0] == 3 * (specials + ids("ACGT").sum())
    assert exact.values[0] == 3 * (specials + ids("acGT").sum()) != plain.values[0]
    assert (plain.num_lower_case, exact.num_lower_case) == (2, 2)
    assert (plain.num_unknown, exact.num_unknown) == (0, 0)
    (odd,) = predict(ToyNetwork(), ["aé-R"], tokenizer=K1, exact_text=True)
    assert (odd.num_bases, odd.num_lower_case, odd.num_unknown) == (4, 2, 3)
    both = next(predict(ToyNetwork(), [Record(0, "pair", "ac", second="GT")], tokenizer=K1, exact_text=True))
    assert both.num_lower_case == 2
    reverse = next(predict(ToyNetwork(), ["aC"], tokenizer=K1, exact_text=True, strand="-"))
    assert reverse.values[0] == 3 * (specials + ids("Gt").sum())


def test_no_nucleotide_names_the_row() -> None:
    with pytest.raises(InputError, match=r"^sequence 2: 'E' at position 3 is no nucleotide letter"):
        values(ToyNetwork(), ["ACGT", "ACE"])
    with pytest.raises(InputError, match=r"^x.csv, row 7: "):
        values(ToyNetwork(), [Record(6, "seven", "A-", where="x.csv, row 7")])


def test_too_long_is_refused_with_the_limit_or_cut() -> None:
    model = ToyNetwork("token", limit=6)
    with pytest.raises(InputError, match=r"sequence 1: the sequence of 7 bases has 9 tokens.*ends at 6 .*--truncate"):
        values(model, ["ACGTACG"])
    (cut,) = predict(model, ["ACGTACG"], tokenizer=K1, truncate=True)
    assert cut.truncated and cut.num_tokens == 6
    assert cut.values[:4, 1].tolist() == [3, 6, 9, 12]
    assert np.isnan(cut.values[4:]).all() and cut.values.shape == (7, 2)
    (whole,) = predict(model, ["ACGT"], tokenizer=K1, truncate=True)
    assert not whole.truncated
    (cut,) = predict(model, ["ACGTACG"], tokenizer=K1, truncate=True, max_tokens=5)
    assert cut.num_tokens == 5


def test_no_position_table_no_limit_but_that_of_full_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chromosome as one sequence would take days without a word; who wants that says so."""
    model = ToyNetwork(limit=6)
    model.config.positions = "rotary"
    assert len(values(model, ["A" * 100])) == 1
    monkeypatch.setattr("longstrand.inference.predict.MOST_FULL", 101)
    with pytest.raises(
        InputError, match=r"has 102 tokens, but the longest input is 101 .*a higher --max-tokens.*--contigs"
    ):
        values(model, ["A" * 100])
    assert len(values(model, ["A" * 100], max_tokens=102)) == 1
    model.config.attention = SimpleNamespace(pattern="sliding")
    assert len(values(model, ["A" * 100])) == 1


def test_strands_of_a_sequence_head() -> None:
    model = ToyNetwork()
    text = "AACGT" + "A" * 4
    (plus,), (minus,), (both,) = (values(model, [text], strand=strand) for strand in ("+", "-", "both"))
    np.testing.assert_array_equal(minus, values(model, [reverse_complement(text)])[0])
    np.testing.assert_allclose(both, (plus + minus) / 2)
    assert plus[0] != minus[0]


def test_probabilities_are_those_of_the_averaged_logits() -> None:
    model = ToyNetwork()
    (both,) = values(model, ["AACG"], strand="both")
    (chance,) = values(model, ["AACG"], strand="both", output="probabilities")
    np.testing.assert_allclose(chance, np.exp(both - both.max()) / np.exp(both - both.max()).sum(), rtol=1e-6)


def test_strands_of_bases_are_flipped_back() -> None:
    model, text = ToyNetwork("token"), "AACGT"
    (minus,) = values(model, [text], strand="-")
    expected = 3 * np.stack([ids(reverse_complement(text)), np.arange(1, 6)], -1)[::-1]
    np.testing.assert_array_equal(minus, expected)
    (both,) = values(model, [text], strand="both")
    np.testing.assert_array_equal(both[:, 1], [9.0] * 5)
    (vectors,) = values(model, [text], strand="-", output="embeddings", pooling="bases")
    np.testing.assert_array_equal(vectors[:, :2], expected)


def test_truncated_on_both_strands_says_what_either_saw() -> None:
    (both,) = values(ToyNetwork("token", limit=6), ["ACGTACG"], strand="both", truncate=True)
    assert both[:, 1].tolist() == [3, 6, 9, 12, 9, 6, 3]


def test_tokens_with_their_places() -> None:
    tokenizer = make_kmer(3)
    (found,) = predict(ToyNetwork("token"), ["AAACCCG"], tokenizer=tokenizer, pooling="tokens")
    assert found.offsets.tolist() == [[0, 3], [3, 6], [6, 7]]
    assert found.values[:, 1].tolist() == [3, 6, 9]
    (back,) = predict(ToyNetwork("token"), ["AAACCCG"], tokenizer=tokenizer, pooling="tokens", strand="-")
    assert back.offsets.tolist() == [[0, 1], [1, 4], [4, 7]]
    assert back.values[:, 1].tolist() == [9, 6, 3]


def test_overlapping_words_are_averaged_over_bases() -> None:
    tokenizer = make_kmer(3, overlapping=True)
    (found,) = values(ToyNetwork("token"), ["AAACC"], tokenizer)
    assert found[:, 1].tolist() == [3, 4.5, 6, 7.5, 9]


@pytest.mark.parametrize(("layer", "factor"), [(0, 1), (1, 2), (2, 3), (-1, 3), (-2, 2), (-3, 1)])
def test_layers(layer: int, factor: int) -> None:
    (found,) = values(ToyNetwork(), ["ACG"], output="embeddings", layer=layer)
    np.testing.assert_allclose(found, factor * np.array([ids("ACG").mean(), 2, 1]), rtol=1e-6)


def test_pooling_leaves_special_tokens_and_padding_out() -> None:
    sequences = ["ACG", "ACGTACGT"]
    for pooling, position in (("mean", 2), ("max", 3), ("cls", 0)):
        found = values(ToyNetwork(), sequences, output="embeddings", pooling=pooling, layer=0)
        assert found[0][1] == position
    assert values(ToyNetwork(), ["TTA"], output="embeddings", pooling="max", layer=0)[0][0] == ids("TTA").max()


def test_wrong_layers() -> None:
    assert [layer_number(layer, 2) for layer in (-3, -1, 0, 2)] == [0, 2, 0, 2]
    with pytest.raises(UsageError, match=r"no layer 3: the model has 2; use 0 \(embedding output\) to 2, or -1"):
        values(ToyNetwork(), ["A"], output="embeddings", layer=3)


def test_what_is_refused() -> None:
    wrong: dict[str, Any]
    for wrong, message in (
        ({"strand": "x"}, r"options: 'strand': Input should be '\+', '-' or 'both' \(got 'x'\)\."),
        ({"output": "logit"}, "'output': Input should be 'logits', 'probabilities' or 'embeddings'"),
        ({"pooling": "mena"}, "'pooling': Input should be 'mean', 'mean_all', 'max', 'cls', 'tokens' or 'bases'"),
        ({"poolings": ("bases",)}, "'poolings.0': Input should be"),
        ({"precision": "fp16"}, "'precision': Input should be 'fp32' or 'bf16'"),
        ({"batch_tokens": 0}, "'batch_tokens': Input should be greater than or equal to 1"),
        ({"strnad": "+"}, r"unknown key 'strnad' \(did you mean 'strand'\?\)"),
        ({"layer": 1}, "layer, layers and poolings are for embeddings"),
        ({"pooling": "max"}, "pooling 'max' is not for the outputs of a sequence head"),
        ({"max_tokens": 6000}, "max_tokens 6,000 is more than the position table of this model"),
    ):
        with pytest.raises(UsageError, match=message):
            values(ToyNetwork(), ["A"], **wrong)
    with pytest.raises(UsageError, match="with strand 'both' use pooling 'bases'"):
        PredictOptions(pooling="tokens", strand="both")
    with pytest.raises(UsageError, match="no head that predicts labels; fine-tune it first"):
        values(ToyNetwork("masked_lm"), ["A"])
    with pytest.raises(UsageError, match="a regression model has no probabilities"):
        values(ToyNetwork(problem="regression"), ["A"], output="probabilities")
    tokenizer = SimpleNamespace(cls_token_id=None)
    with pytest.raises(UsageError, match=r"no \[CLS\] token"):
        values(ToyNetwork(), ["A"], tokenizer, output="embeddings", pooling="cls")


def test_the_mode_of_every_module_comes_back() -> None:
    model = ToyNetwork()
    model.train()
    model.dropout.eval()
    results = predict(model, ["A", "C"], tokenizer=K1, batch_tokens=1)
    next(results)
    assert model.training and not model.dropout.training
    list(results)
    assert model.training and not model.dropout.training
    with pytest.raises(InputError):
        values(model, ["A", "!"])
    assert model.training


def test_reads_no_further_than_its_buffer() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield "ACGTACGT"

    results = predict(ToyNetwork(), endless(), tokenizer=K1, batch_tokens=40)
    for _ in range(500):
        next(results)
    assert taken <= 500 + 16 * 40 // 10


def test_memory_does_not_grow_with_the_input() -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        for _ in predict(ToyNetwork("token"), ("ACGT" * 10 for _ in range(number)), tokenizer=K1, batch_tokens=420):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(50)
    assert peak(1000) < 1.3 * peak(100)


def test_windows_and_records() -> None:
    place = Interval("chr1", 10, 14, "-")
    window = Window(place, "ACGT")
    first, second, third = as_records(["A", window, Record(9, "nine", "C")])
    assert (first.index, first.name, first.num_bases) == (0, "0", 1)
    assert (second.index, second.name, second.interval) == (1, "chr1:11-14(-)", place)
    assert third.index == 9


def test_pairs() -> None:
    model = ToyNetwork(limit=9)
    (found,) = values(model, [Record(0, "a", "ACG", second="TT")])
    expected = K1.encode_pair("ACG", "TT").input_ids
    assert found.tolist() == [3 * expected.sum(), len(expected)]
    with pytest.raises(InputError, match=r"pair: the sequence of 9 bases has 12 tokens.*pairs cannot be cut"):
        values(model, [Record(0, "pair", "A" * 8, second="G")], truncate=True)
    for half in (Record(0, "a", "ACG", second=""), Record(0, "a", "", second="ACG")):
        (found,) = predict(model, [half], tokenizer=K1)
        assert found.empty and np.isnan(found.values).all()
    with pytest.raises(InputError, match="sequence 2: rows are pairs or single sequences, not both"):
        values(model, [("ACG", "TT"), "ACG"])


def test_probabilities_by_hand() -> None:
    logits = np.array([[0.0, np.log(3)], [np.nan, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits, "single_label"), [[0.25, 0.75], [np.nan, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(probabilities(logits, "multi_label")[0], [0.5, 0.75], rtol=1e-6)
    assert probabilities(np.array([[-1000.0, 1000.0]]), "multi_label").tolist() == [[0, 1]]
    assert probabilities(np.empty((0, 2), dtype=np.float32), "single_label").shape == (0, 2)
    for classes in (1, 7, 8, 9):
        many = np.random.default_rng(classes).normal(size=(5, 3, classes)).astype(np.float32)
        powers = np.exp(many - many.max(-1, keepdims=True))
        np.testing.assert_array_equal(probabilities(many, "single_label"), powers / powers.sum(-1, keepdims=True))


def test_strand_pieces_by_hand() -> None:
    assert strands_of("both") == ("+", "-")
    assert read_on("-", "AACG") == "CGTT"
    offsets = np.array([[0, 3], [3, 4]])
    assert flip_offsets("-", offsets, 4).tolist() == [[0, 1], [1, 4]]
    assert flip_offsets("+", offsets, 4) is offsets
    pair = [np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])]
    np.testing.assert_array_equal(average(pair), [2.0, 5.0, np.nan])


@pytest.fixture(scope="module")
def bpe() -> Any:
    letters = random.Random(1)
    return train_bpe(["".join(letters.choices("ACGT", k=500)) for _ in range(20)], vocab_size=200)


def network(tokenizer: Any, kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    heads = {kind: {"kind": kind, "problem": "single_label", "num_outputs": 3}} if kind != "encoder" else {}
    config = preset("tiny", vocab_size=tokenizer.vocab_size, heads=heads, **changes)
    model = NETWORKS[kind](config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


CASES = [
    ("sequence", {}),
    ("token", {}),
    ("encoder", {"output": "embeddings", "pooling": "mean", "layer": 1}),
    ("encoder", {"output": "embeddings", "pooling": "bases"}),
    ("encoder", {"output": "embeddings", "pooling": "cls"}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("strand", ["+", "both"])
def test_results_do_not_depend_on_batch_mates(bpe: Any, kind: str, options: dict[str, Any], strand: str) -> None:
    letters = random.Random(2)
    sequences = ["".join(letters.choices("ACGT", k=letters.randint(1, 120))) for _ in range(23)]
    model = network(bpe, kind, positions="learned", max_position_embeddings=128)
    together = values(model, sequences, bpe, strand=strand, batch_tokens=4096, **options)
    alone = [values(model, [text], bpe, strand=strand, **options)[0] for text in sequences]
    for first, second in zip(together, alone):
        np.testing.assert_allclose(first, second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "options"), CASES[:4])
def test_both_strands_make_no_difference_between_a_sequence_and_its_reverse(
    bpe: Any, kind: str, options: dict[str, Any]
) -> None:
    model = network(bpe, kind)
    text = "ACGGATTTAACGACCAGT"
    (given,) = values(model, [text], bpe, strand="both", **options)
    (reverse,) = values(model, [reverse_complement(text)], bpe, strand="both", **options)
    expected = reverse[::-1] if given.ndim == 2 else reverse
    np.testing.assert_allclose(given, expected, atol=1e-6)


def test_bf16_is_close(bpe: Any) -> None:
    model = network(bpe, "sequence")
    (exact,), (fast,) = (values(model, ["ACGGATTTAACG"], bpe, precision=kind) for kind in ("fp32", "bf16"))
    assert fast.dtype == np.float32
    assert np.abs(exact - fast).max() < 0.05 * np.abs(exact).max()


@pytest.mark.gpu
def test_gpu_and_back(bpe: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = network(bpe, "sequence")
    (there,) = values(model, ["ACGGATTTAACG"], bpe, device="cuda")
    assert next(model.parameters()).device.type == "cpu"
    np.testing.assert_allclose(there, values(model, ["ACGGATTTAACG"], bpe)[0], atol=1e-4)


def test_layers_and_poolings_come_from_one_pass() -> None:
    torch.manual_seed(0)
    tokenizer = K1
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = NETWORKS["encoder"](preset("tiny", **sizes, vocab_size=K1.vocab_size, pad_token_id=K1.pad_token_id))
    texts = ["ACGTACGTAC", "GGCA", "A", "TTTTACGGCATT"]
    passes = []
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    settings = PredictOptions(output="embeddings", layers=(0, 1, -1), poolings=("cls", "mean", "max"), strand="both")
    together = [row.values for row in predict(model, texts, tokenizer=tokenizer, options=settings)]
    assert len(passes) == 1
    hook.remove()
    for row, values in enumerate(together):
        parts = iter(values.reshape(9, 16))
        for layer in (0, 1, 2):
            for pooling in ("cls", "mean", "max"):
                alone = PredictOptions(output="embeddings", layer=layer, pooling=pooling, strand="both")  # type: ignore[arg-type]
                (found,) = predict(model, [texts[row]], tokenizer=tokenizer, options=alone)
                assert np.allclose(next(parts), found.values, atol=1e-5, equal_nan=True)
    several = list(predict(model, texts, tokenizer=tokenizer, output="embeddings", layers=(0, -1), pooling="bases"))
    for place, layer in enumerate((0, -1)):
        alone = list(predict(model, texts, tokenizer=tokenizer, output="embeddings", layer=layer, pooling="bases"))
        for both, one in zip(several, alone):
            assert np.allclose(both.values[:, 16 * place : 16 * place + 16], one.values, atol=1e-5, equal_nan=True)
