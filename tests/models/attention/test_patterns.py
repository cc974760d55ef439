"""Every path of attention equals a softmax under the pattern's dense mask, forward and backward."""

from __future__ import annotations

import pytest
import torch

from longstrand.errors import InputError, UsageError
from longstrand.models.attention.block_sparse import GatherCall, block_lists
from longstrand.models.attention.inputs import AttentionInputs, document_runs
from longstrand.models.attention.layer import compute_attention
from longstrand.models.attention.layouts import make_layout, pattern_for
from longstrand.models.attention.mask import prepare
from longstrand.models.attention.patterns import BlockSparse, Full, SlidingWindow
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandModel
from tests.models.attention.calls import attend

B, H, K, S = 2, 3, 8, 4


def random_layout(length: int, heads: int) -> BlockSparse:
    n = -(-length // S)
    counts = (torch.rand(heads, n, n) < 0.25).to(torch.uint8) + (torch.rand(heads, n, n) < 0.1).to(torch.uint8)
    counts |= torch.eye(n, dtype=torch.uint8)
    counts[:, 0] = 1
    return BlockSparse(counts, S)


def dense_weights(pattern, length):
    return pattern.dense_counts(length) if isinstance(pattern, BlockSparse) else pattern.dense_mask(length)


def by_hand(states, pattern, mask, documents):
    """Attend with the dense mask, by the definition; in packed batches, blocks count from the start of a document."""
    query, key, value = states
    length = query.shape[2]
    weight = dense_weights(pattern, length)
    if documents is not None and isinstance(pattern, BlockSparse):
        weight = torch.zeros_like(weight)
        for number in documents[0].unique():
            places = (documents[0] == number).nonzero().flatten()
            square = dense_weights(pattern, places.numel())
            weight[:, places[:, None], places] = square
    weight = weight[None] * mask[:, None, None, :]
    if documents is not None:
        weight = weight * (documents[:, :, None] == documents[:, None, :])[:, None]
    scores = (query @ key.transpose(2, 3) * K**-0.5).exp() * weight
    return scores / scores.sum(-1, keepdim=True).clamp(min=1e-30) @ value


PATTERNS = {
    "layout": lambda length: random_layout(length, 1),
    "layout_per_head": lambda length: random_layout(length, H),
    "window_7": lambda length: SlidingWindow(7),
    "window_40": lambda length: SlidingWindow(40),
    "window_2": lambda length: SlidingWindow(2),
}


@pytest.mark.parametrize("path", ["dense", "gather"])
@pytest.mark.parametrize("batch", ["plain", "padded", "documents"])
@pytest.mark.parametrize("length", [5, 37, 40])
@pytest.mark.parametrize("name", PATTERNS)
def test_paths_equal_the_dense_mask(name, length, batch, path):
    torch.manual_seed(length)
    pattern = PATTERNS[name](length)
    states = [torch.randn(B, H, length, K, requires_grad=True) for _ in range(3)]
    mask = torch.ones(B, length, dtype=torch.bool)
    if batch == "padded":
        mask[1, length - 3 :] = False
    documents = (torch.arange(length) // 11).repeat(B, 1) if batch == "documents" else None
    expected = by_hand(states, pattern, mask, documents)
    found, _ = attend(*states, pattern=pattern, attention_mask=mask, documents=documents, path=path)
    real = mask[:, None, :, None]
    assert found.isfinite().all()
    torch.testing.assert_close(found * real, expected * real, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected) * real
    theirs = torch.autograd.grad((expected * weight).sum(), states)
    ours = torch.autograd.grad((found * weight).sum(), states)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_alibi_in_blocks_equals_a_dense_bias():
    torch.manual_seed(0)
    states, pattern = [torch.randn(B, H, 37, K) for _ in range(3)], random_layout(37, H)
    slopes, places = torch.tensor([0.1, 0.2, 0.5]), torch.arange(40)[None]
    call = GatherCall(block_lists(pattern, 37), places < 37, None, slopes, places)
    distance = -slopes[None, :, None, None] * (torch.arange(37)[:, None] - torch.arange(37)).abs()
    expected, _ = attend(*states, pattern=pattern, bias=distance)
    torch.testing.assert_close(call.attend(*states), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", ["plain", "padded", "documents"])
@pytest.mark.parametrize("length", [5, 256, 301])
def test_alibi_under_full_attention_needs_no_table(length, batch):
    torch.manual_seed(0)
    states = [torch.randn(B, H, length, K, requires_grad=True) for _ in range(3)]
    places = torch.arange(length)[None]
    real = torch.ones(B, length, dtype=torch.bool)
    documents = (places // 97).repeat(B, 1) if batch == "documents" else None
    if batch == "padded":
        real[0, length // 2 :] = False
        real[1, :3] = False
    padding = None if batch == "plain" or documents is not None else real[:, None, None, :]
    about = (length, torch.device("cpu"), torch.float32, padding, documents, H, places)
    masks = [prepare(Full(), AttentionInputs(*about, counted)) for counted in (True, False)]
    assert masks[0].bias is None and masks[1].bias.shape[-2:] == (length, length)
    found, expected = (compute_attention(*states, mask)[0] * real[:, None, :, None] for mask in masks)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((one * weight).sum(), states) for one in (found, expected))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_documents_under_full_attention():
    torch.manual_seed(0)
    states = [torch.randn(B, H, 9, K) for _ in range(3)]
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [5, 5, 5, 5, 5, 5, 5, -1, -1]])
    assert document_runs(documents) == ((0, 0, 3), (0, 3, 5), (0, 5, 9), (1, 0, 7), (1, 7, 9))
    assert document_runs(torch.tensor([[0, 1, 0]])) is None
    expected = by_hand(states, Full(), torch.ones(B, 9), documents)
    real = (documents >= 0)[:, None, :, None]
    for path in ("auto", "documents", "dense"):
        found, _ = attend(*states, documents=documents, path=path)
        torch.testing.assert_close(found * real, expected * real, atol=1e-5, rtol=1e-5)
    assert (attend(*states, documents=documents)[0][1, :, 7:] == 0).all()


def test_flex_attention_computes_no_gradients_on_a_cpu():
    states = [torch.zeros(1, 1, 8, 16, requires_grad=True) for _ in range(3)]
    with pytest.raises(UsageError, match="no gradients on a CPU"):
        attend(*states, pattern=SlidingWindow(4), path="flex")


def needs_a_compiler():
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("FlexAttention on a CPU needs a C++ compiler, and there is none")


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["plain", "padded", "documents", "alibi"])
@pytest.mark.parametrize("name", ["full", "window", "layout"])
def test_flex_attention_on_a_cpu_on_request(name, batch):
    needs_a_compiler()
    torch.manual_seed(0)
    length, block = 301, 32
    counts = (torch.rand(H, 10, 10) < 0.3).to(torch.uint8) + torch.eye(10, dtype=torch.uint8)
    pattern = {"full": Full(), "window": SlidingWindow(70), "layout": BlockSparse(counts, block)}[name]
    states, places = [torch.randn(B, H, length, 16) for _ in range(3)], torch.arange(length)[None]
    real = places < torch.tensor([[length], [length - 70 * (batch == "padded")]])
    documents = (places // 160).repeat(B, 1) if batch == "documents" else None
    about = (length, torch.device("cpu"), torch.float32, real[:, None, None, :] if batch == "padded" else None)
    inputs = AttentionInputs(*about, documents, H if batch == "alibi" else 0, places)
    with torch.no_grad():
        found, expected = (
            compute_attention(*states, prepare(pattern, inputs, path=path))[0] for path in ("flex", "dense")
        )
    torch.testing.assert_close(found * real[:, None, :, None], expected * real[:, None, :, None], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_model_takes_flex_attention_on_request(tmp_path):
    needs_a_compiler()
    torch.manual_seed(0)
    LongstrandModel(preset("tiny", vocab_size=41, **KINDS["sliding"])).save_pretrained(tmp_path)
    ids, found = torch.randint(5, 41, (1, 301)), []
    for name in ("sdpa", "flex_attention"):
        model = LongstrandModel.from_pretrained(tmp_path, attn_implementation=name).eval()
        with torch.no_grad():
            found.append(model(ids).last_hidden_state)
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", ["dense", "gather"])
@pytest.mark.parametrize("name", ["layout_per_head", "window_7"])
def test_bf16_paths_agree(name, path):
    torch.manual_seed(0)
    pattern = PATTERNS[name](37)
    states = [torch.randn(B, H, 37, K, requires_grad=True) for _ in range(3)]
    mask = torch.arange(37)[None] < torch.tensor([[37], [30]])
    expected = by_hand(states, pattern, mask, None)
    short = [state.detach().bfloat16().requires_grad_() for state in states]
    found, _ = attend(*short, pattern=pattern, attention_mask=mask, path=path)
    real = mask[:, None, :, None]
    torch.testing.assert_close(found.float() * real, expected * real, atol=3e-2, rtol=3e-2)
    weight = torch.randn_like(expected) * real
    theirs = torch.autograd.grad((expected * weight).sum(), states)
    ours = torch.autograd.grad((found * weight).sum(), short)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one.float(), other, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("batch", ["plain", "padded", "documents"])
@pytest.mark.parametrize("name", ["layout", "layout_per_head", "window_7", "window_40"])
def test_alibi_on_sparse_paths(name, batch):
    torch.manual_seed(0)
    pattern, places = PATTERNS[name](37), torch.arange(37)[None]
    states = [torch.randn(B, H, 37, K, requires_grad=True) for _ in range(3)]
    real = places < torch.tensor([[37], [30 if batch == "padded" else 37]])
    documents = (places // 11).repeat(B, 1) if batch == "documents" else None
    about = (37, torch.device("cpu"), torch.float32, real[:, None, None, :] if batch == "padded" else None)
    inputs = AttentionInputs(*about, documents, H, places, True)
    found, expected = (
        compute_attention(*states, prepare(pattern, inputs, path=path))[0] * real[:, None, :, None]
        for path in ("gather", "dense")
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((one * weight).sum(), states) for one in (found, expected))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_block_sparse_documents_in_pieces_are_refused():
    states = [torch.zeros(1, 1, 8, 16) for _ in range(3)]
    with pytest.raises(ValueError, match="must be in one piece"):
        attend(*states, pattern=random_layout(8, 1), documents=torch.tensor([[0, 0, 1, 1, 0, 0, 1, 1]]))


def test_masks_by_hand():
    assert Full().dense_mask(2).tolist() == [[[True, True], [True, True]]]
    assert SlidingWindow(2).dense_mask(3).int().tolist() == [[[1, 1, 0], [1, 1, 1], [0, 1, 1]]]
    counts = torch.tensor([[[1, 0], [2, 1]]], dtype=torch.uint8)
    assert BlockSparse(counts, 2).dense_counts(3).tolist() == [[[1, 1, 0], [1, 1, 0], [2, 2, 1]]]


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        SlidingWindow(1)
    with pytest.raises(ValueError, match=r"\(heads, n, n\) uint8, got \(2, 2\) float32"):
        BlockSparse(torch.ones(2, 2), 4)
    with pytest.raises(ValueError, match="9 tokens are 3 blocks, but the layout has 2"):
        random_layout(8, 1).dense_mask(9)
    with pytest.raises(UsageError, match="did you mean 'gather'"):
        attend(*[torch.zeros(1, 1, 2, 2)] * 3, path="gathr")


SPARSE = {"pattern": "block_sparse", "block_size": 8, "num_global_blocks": 1, "num_random_blocks": 1}
KINDS = {
    "block_sparse": {"attention": SPARSE},
    "shared_with_global": {"attention": {**SPARSE, "shared_layout": True, "global_every": 2}},
    "sliding": {"attention": {"pattern": "sliding", "window": 16, "global_every": 2}, "rotary": {"local_theta": 100.0}},
    "alibi": {"attention": {"pattern": "sliding", "window": 16}, "positions": "alibi"},
}


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    config = preset("tiny", vocab_size=41, max_position_embeddings=128, **KINDS[request.param])
    return LongstrandForMaskedLM(config).eval()


def test_an_encoder_ignores_padding_and_agrees_with_its_slow_path(model):
    ids = torch.randint(5, 41, (1, 101))
    with torch.no_grad():
        alone = model(ids).logits
        mask = torch.arange(117)[None] < 101
        padded = model(torch.nn.functional.pad(ids, (0, 16), value=3), mask.long()).logits[:, :101]
        slow = model(ids, output_attentions=True).logits
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(slow, alone, atol=1e-5, rtol=1e-4)


def test_the_layout_survives_a_file(model, tmp_path):
    ids = torch.randint(5, 41, (1, 101))
    with torch.no_grad():
        for layer in model.encoder.layers:
            if layer.attention.layout is not None:
                layer.attention.layout[:, 5, 9] ^= 1
        expected = model(ids).logits
        model.save_pretrained(tmp_path)
        assert torch.equal(LongstrandForMaskedLM.from_pretrained(tmp_path)(ids).logits, expected)


PACKED = {
    "full": {},
    "sliding": {"attention": {"pattern": "sliding", "window": 16, "global_every": 2}},
    "block_sparse": {"attention": SPARSE, "max_position_embeddings": 128},
    "alibi": {"positions": "alibi"},
    "alibi_sliding": {"positions": "alibi", "attention": {"pattern": "sliding", "window": 16}},
    "learned": {"positions": "learned"},
    "token_dropout": {
        "positions": "learned", "quirks": ["token_dropout", "positions_after_padding"], "mask_token_id": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKED)
def test_packed_documents_equal_padded_rows(kind):
    torch.manual_seed(0)
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=41, **PACKED[kind]))
    lengths = (67, 9, 100, 24)
    texts = [torch.randint(4, 41, (length,)) for length in lengths]
    chosen = [torch.where(torch.rand(length) < 0.3, text, -100) for text, length in zip(texts, lengths)]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=3)
    mask = (torch.arange(100) < torch.tensor(lengths)[:, None]).long()
    labels = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=-100)
    numbers = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)])[None]
    together = {"input_ids": torch.cat(texts)[None], "document_ids": numbers, "labels": torch.cat(chosen)[None]}
    results, gradients = [], []
    for inputs in ({"input_ids": ids, "attention_mask": mask, "labels": labels}, together):
        model.zero_grad()
        results.append(model(**inputs, output_hidden_states=True))
        results[-1].loss.backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    padded, packed = results
    torch.testing.assert_close(packed.loss, padded.loss, atol=1e-6, rtol=1e-5)
    for one, other in zip(packed.hidden_states, padded.hidden_states):
        torch.testing.assert_close(one[0], other[mask.bool()], atol=1e-5, rtol=1e-4)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    slow = model.eval()(**together, output_attentions=True)
    torch.testing.assert_close(slow.loss, packed.loss, atol=1e-6, rtol=1e-5)


def test_packed_equals_padded():
    torch.manual_seed(0)
    bigbird = {**SPARSE, "layout": "bigbird", "num_global_blocks": 2}
    for changes in ({}, KINDS["sliding"], {"attention": bigbird, "max_position_embeddings": 128}):
        model = LongstrandModel(preset("tiny", vocab_size=41, **changes)).eval()
        first, second = torch.randint(5, 41, (1, 90)), torch.randint(5, 41, (1, 63))
        with torch.no_grad():
            packed = model(
                torch.cat((first, second), 1), document_ids=torch.tensor([[0] * 90 + [1] * 63])
            ).last_hidden_state
            torch.testing.assert_close(packed[:, :90], model(first).last_hidden_state, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(packed[:, 90:], model(second).last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [9, 56, 57, 63, 90])
def test_a_padded_bigbird_row_is_read_as_it_is_alone(length):
    """Also at 56 and 57 tokens, where attention turns from full to sparse, and with batch mates of either kind."""
    torch.manual_seed(0)
    settings = {**SPARSE, "layout": "bigbird", "num_global_blocks": 2}
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=41, max_position_embeddings=128, attention=settings)).eval()
    ids, mates = torch.randint(5, 41, (1, length)), torch.randint(5, 41, (3, 104))
    with torch.no_grad():
        alone = model(ids).logits
        for room in (length + 1, 57, 104):
            if room < length:
                continue
            rows = torch.cat((torch.nn.functional.pad(ids, (0, room - length), value=3), mates[:, :room]))
            mask = torch.ones(4, room, dtype=torch.long)
            mask[0, length:], mask[2, 20:] = 0, 0
            torch.testing.assert_close(model(rows, mask).logits[:1, :length], alone, atol=1e-5, rtol=1e-4)


def test_an_input_beyond_the_layout():
    model = LongstrandModel(preset("tiny", vocab_size=41, max_position_embeddings=64, attention=SPARSE))
    with pytest.raises(InputError, match="65 tokens, but the block layout of this model ends at 64"):
        model(torch.zeros(1, 65, dtype=torch.long))
    settings = {**SPARSE, "layout": "bigbird", "num_global_blocks": 2}
    config = preset("tiny", vocab_size=41, max_position_embeddings=80, attention=settings)
    with pytest.raises(InputError, match="81 tokens, but the block tables of this model end at 80"):
        pattern_for(config, 0, make_layout(config, 0), 81)


def test_bigbird_is_full_for_a_short_input_only_that_once():
    settings = {**SPARSE, "layout": "bigbird", "num_global_blocks": 2}
    config = preset("tiny", vocab_size=41, max_position_embeddings=96, attention=settings)
    tables = make_layout(config, 0)
    assert isinstance(pattern_for(config, 0, tables, 56), Full)
    pattern = pattern_for(config, 0, tables, 57)
    assert pattern.counts.shape == (2, 8, 8) and (pattern.counts[:, 1:-1].sum(-1) >= 5).all()
    zero = config.replace(quirks=["zero_random_blocks"])
    assert (pattern_for(zero, 0, tables, 57).counts[:, 1:-1, 0] == 2).all()
