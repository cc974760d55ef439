"""Losses by hand, and against the definitions in PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from longstrand.errors import InputError
from longstrand.models import precision
from longstrand.models.config import Head, preset
from longstrand.models.heads import content_mask, divisor, head_loss, labelled, pool
from longstrand.models.pretrained import (
    LongstrandForMaskedLM,
    LongstrandForSequenceClassification,
    LongstrandForTokenClassification,
)

NAN = math.nan


def head(problem, num_outputs, **more):
    return Head(kind="sequence", problem=problem, num_outputs=num_outputs, **more)


def test_single_label_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, -100])
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert head_loss(logits, labels, head("single_label", 2)).item() == pytest.approx(expected)
    assert head_loss(logits, labels, head("single_label", 2), 8).item() == pytest.approx(expected / 4)


def test_class_weights_scale_each_target():
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    weighted = head_loss(logits, labels, head("single_label", 2, class_weights=[3.0, 1.0]))
    assert weighted.item() == pytest.approx(2 * math.log(2))


def test_multi_label_by_hand_with_missing_cells_and_pos_weight():
    logits = torch.zeros(2, 3)
    labels = torch.tensor([[1.0, 0.0, NAN], [NAN, NAN, 1.0]])
    assert head_loss(logits, labels, head("multi_label", 3)).item() == pytest.approx(math.log(2))
    weighted = head_loss(logits, labels, head("multi_label", 3, pos_weight=[2.0, 9.0, 4.0]))
    assert weighted.item() == pytest.approx((2 + 1 + 4) * math.log(2) / 3)
    integers = torch.tensor([[1, 0, -100], [-100, -100, 1]])
    assert head_loss(logits, integers, head("multi_label", 3)).item() == pytest.approx(math.log(2))


def test_regression_by_hand_with_missing():
    logits = torch.tensor([[1.0], [2.0], [7.0]], requires_grad=True)
    loss = head_loss(logits, torch.tensor([0.0, NAN, 4.0]), head("regression", 1))
    assert loss.item() == pytest.approx((1 + 9) / 2)
    loss.backward()
    assert logits.grad.flatten().tolist() == [1.0, 0.0, 3.0]


@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_nothing_labelled_is_zero_with_zero_gradients(problem):
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.full((4,), -100) if problem == "single_label" else torch.full((4, 3), NAN)
    loss = head_loss(logits, labels, head(problem, 3))
    loss.backward()
    assert loss.item() == 0.0 and not logits.grad.any()


@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_accumulated_parts_sum_to_the_whole(problem):
    torch.manual_seed(1)
    logits = torch.randn(7, 3)
    labels = torch.randint(0, 3, (7,)) if problem == "single_label" else torch.rand(7, 3).round()
    if problem == "single_label":
        labels[2] = -100
    else:
        labels[2, 1] = NAN
    settings = head(problem, 3)
    count = labelled(labels).sum()
    parts = sum(head_loss(logits[a:b], labels[a:b], settings, count) for a, b in ((0, 2), (2, 3), (3, 7)))
    torch.testing.assert_close(parts, head_loss(logits, labels, settings))


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="class numbers, got floating-point"):
        head_loss(torch.zeros(2, 3), torch.zeros(2), head("single_label", 3))
    with pytest.raises(ValueError, match=r"shape \(3,\), but the head predicts \(2,\)"):
        head_loss(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), head("single_label", 3))
    with pytest.raises(ValueError, match=r"shape \(2,\), but the head predicts \(2, 3\)"):
        head_loss(torch.zeros(2, 3), torch.zeros(2), head("regression", 3))


def test_divisor_is_at_least_one():
    assert divisor(None, torch.tensor(0)).item() == 1 and divisor(5, torch.tensor(2)).item() == 5
    assert divisor(torch.tensor(6), torch.tensor(2)).item() == 6


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0, 8.0], [3.0, 2.0], [100.0, 100.0]], [[-5.0, -6.0], [-1.0, -2.0], [-3.0, -4.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert pool(hidden, mask, "cls").tolist() == [[1.0, 8.0], [-5.0, -6.0]]
    assert pool(hidden, mask, "mean").tolist() == [[2.0, 5.0], [-2.0, -3.0]]
    assert pool(hidden, mask, "max").tolist() == [[3.0, 8.0], [-1.0, -2.0]]
    assert pool(hidden, None, "max").tolist() == [[100.0, 100.0], [-1.0, -2.0]]
    nothing = torch.zeros(2, 3)
    assert torch.isfinite(pool(hidden, nothing, "max")).all() and torch.isfinite(pool(hidden, nothing, "mean")).all()


@pytest.fixture
def masked_lm():
    torch.manual_seed(0)
    return LongstrandForMaskedLM(preset("tiny", vocab_size=23)).eval()


def test_masked_lm_computes_only_labelled_positions_and_agrees_with_all(masked_lm):
    ids = torch.randint(5, 23, (3, 11))
    labels = torch.full_like(ids, -100)
    labels[0, 2], labels[0, 9], labels[2, 0] = 7, 8, 9
    result = masked_lm(ids, labels=labels)
    full = masked_lm(ids).logits
    assert result.logits is None and result.label_logits.shape == (3, 23) and result.num_labels.item() == 3
    torch.testing.assert_close(result.label_logits, full[labels != -100])
    torch.testing.assert_close(result.loss, F.cross_entropy(full.flatten(0, 1), labels.flatten()))
    torch.testing.assert_close(result.loss_sum, result.loss * 3)
    torch.testing.assert_close(masked_lm(ids, labels=labels, num_items_in_batch=12).loss, result.loss / 4)


def test_masked_lm_with_no_labels_is_zero_not_nan(masked_lm):
    ids = torch.randint(5, 23, (2, 5))
    loss = masked_lm(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in masked_lm.parameters())
    assert masked_lm.lm_head.dense.weight.grad is not None


def test_masked_lm_loss_is_float32_under_autocast(masked_lm, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    ids = torch.randint(5, 23, (2, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = masked_lm(ids, labels=ids)
    assert result.loss.dtype == torch.float32 and result.label_logits.dtype == torch.bfloat16
    assert result.loss.item() == pytest.approx(masked_lm(ids, labels=ids).loss.item(), rel=2e-2)


def test_bf16_is_not_emulated_where_the_processor_lacks_it(masked_lm, monkeypatch, caplog):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    precision._say_once.cache_clear()
    ids = torch.randint(5, 23, (2, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = masked_lm(ids).logits
    assert torch.equal(logits, masked_lm(ids).logits)
    assert caplog.text.count("no bf16 units: computing in float32") == 1


def test_tuple_output(masked_lm):
    ids = torch.randint(5, 23, (2, 5))
    assert torch.equal(masked_lm(ids, return_dict=False)[0], masked_lm(ids).logits)


@pytest.mark.parametrize("form", ["linear", "pooler"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_sequence_head_on_the_pooled_vector(form, pooling):
    heads = {"h": {"kind": "sequence", "problem": "multi_label", "num_outputs": 5, "form": form, "pooling": pooling}}
    model = LongstrandForSequenceClassification(preset("tiny", vocab_size=23, heads=heads)).eval()
    ids, mask = torch.randint(5, 23, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    result = model(ids, mask, labels=torch.ones(2, 5))
    vector = pool(model.encoder(ids, mask).last_hidden_state, mask, pooling)
    if form == "pooler":
        vector = torch.tanh(vector @ model.classifier.pooler.weight.T + model.classifier.pooler.bias)
    expected = vector @ model.classifier.output.weight.T + model.classifier.output.bias
    torch.testing.assert_close(result.logits, expected)
    torch.testing.assert_close(result.loss, F.binary_cross_entropy_with_logits(expected, torch.ones(2, 5)))


def test_token_head_ignores_missing_tokens():
    heads = {"h": {"kind": "token", "problem": "single_label", "num_outputs": 4}}
    model = LongstrandForTokenClassification(preset("tiny", vocab_size=23, heads=heads)).eval()
    ids, labels = torch.randint(5, 23, (2, 7)), torch.randint(0, 4, (2, 7))
    labels[:, 3:] = -100
    result = model(ids, labels=labels)
    assert result.logits.shape == (2, 7, 4)
    torch.testing.assert_close(result.loss, F.cross_entropy(result.logits.flatten(0, 1), labels.flatten()))


def test_mean_leaves_special_tokens_out_and_mean_all_does_not():
    ids, mask = torch.tensor([[1, 7, 8, 2, 3], [1, 2, 3, 3, 3]]), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    hidden = torch.tensor([[1.0, 2.0, 4.0, 9.0, 50.0], [3.0, 5.0, 50.0, 50.0, 50.0]])[..., None]
    for pooling, expected in (("mean", [3.0, 4.0]), ("mean_all", [4.0, 4.0]), ("max", [4.0, 5.0]), ("cls", [1.0, 3.0])):
        settings = head("regression", 1, pooling=pooling, special_token_ids=[1, 2, 3])
        assert pool(hidden, content_mask(mask, ids, settings), pooling).flatten().tolist() == expected
    assert content_mask(mask, ids, head("regression", 1)) is mask
    with pytest.raises(InputError, match="give input_ids beside inputs_embeds"):
        content_mask(mask, None, head("regression", 1, special_token_ids=[1]))


def test_a_packed_batch_pools_as_padded_rows():
    torch.manual_seed(0)
    heads = {
        "sequence": {"kind": "sequence", "problem": "regression", "num_outputs": 1, "special_token_ids": [1, 2, 6]}
    }
    model = LongstrandForSequenceClassification(preset("tiny", vocab_size=23, heads=heads)).eval()
    ids, mask = torch.tensor([[1, 7, 6, 8, 2], [1, 9, 2, 3, 3]]), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    packed, documents = torch.tensor([[1, 7, 6, 8, 2, 1, 9, 2]]), torch.tensor([[0] * 5 + [1] * 3])
    with torch.no_grad():
        expected = model(ids, mask).logits
        torch.testing.assert_close(model(packed, document_ids=documents).logits, expected)
        vectors = model.get_input_embeddings()(ids)
        torch.testing.assert_close(model(ids, mask, inputs_embeds=vectors).logits, expected)
