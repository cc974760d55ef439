"""What every encoder promises, whatever its configuration."""

from __future__ import annotations

import pytest
import torch

from longstrand.models import precision
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandModel

VOCABULARY = 41
VARIANTS = {
    "ours": {},
    "post_learned": {"norm": "post", "positions": "learned", "max_position_embeddings": 32},
    "pre_partial_rotary": {"norm": "pre", "rotary": {"dims": 16}},
    "alibi_gated": {"positions": "alibi", "gated_mlp": True, "norm": "post"},
    "swiglu_bare": {
        "positions": "none", "gated_mlp": True, "activation": "silu", "embedding_norm": False, "type_vocab_size": 0,
        "biases": {"attention": False, "mlp_up": False, "mlp_down": False, "norm": False},
    },
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def model(request):
    torch.manual_seed(0)
    model = LongstrandModel(preset("tiny", vocab_size=VOCABULARY, **VARIANTS[request.param])).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.2)
    return model


@pytest.fixture(autouse=True)
def real_bf16(monkeypatch):
    """Compute in bf16 when asked to, also on a processor that must emulate it."""
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)


@pytest.fixture
def ids():
    torch.manual_seed(1)
    return torch.randint(5, VOCABULARY, (3, 13))


TOLERANCES = [pytest.param(torch.float32, 1e-5, id="fp32"), pytest.param(torch.bfloat16, 2e-2, id="bf16")]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_padding_changes_nothing(model, ids, dtype, tolerance):
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        alone = model(ids).last_hidden_state
        longer = torch.cat((ids, torch.randint(0, 5, (3, 6))), dim=1)
        mask = torch.arange(19).expand(3, 19) < 13
        padded = model(longer, mask.long()).last_hidden_state[:, :13]
    scale = alone.abs().max()
    assert (alone - padded).abs().max() <= tolerance * scale


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_batch_mates_change_nothing(model, ids, dtype, tolerance):
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        together = model(ids, mask).last_hidden_state[1, :7]
        alone = model(ids[1:2, :7]).last_hidden_state[0]
    assert (together - alone).abs().max() <= tolerance * alone.abs().max()


def test_embeddings_in_place_of_ids(model, ids):
    mask = torch.ones_like(ids)
    mask[2, 5:] = 0
    with torch.no_grad():
        words = model.get_input_embeddings()(ids)
        assert torch.equal(model(ids, mask).last_hidden_state, model(None, mask, inputs_embeds=words).last_hidden_state)


def test_hidden_states_are_counted_and_end_with_the_result(model, ids):
    output = model(ids, output_hidden_states=True)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert model(ids).hidden_states is None


def test_attentions_come_from_a_slow_path_with_the_same_result(model, ids):
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    with torch.no_grad():
        output = model(ids, mask, output_attentions=True)
        plain = model(ids, mask).last_hidden_state
    assert [tuple(a.shape) for a in output.attentions] == [(3, 2, 13, 13)] * 2
    assert all(a[0, :, :, 9:].abs().max() < 1e-6 for a in output.attentions)
    real = mask.bool()
    torch.testing.assert_close(output.last_hidden_state[real], plain[real], atol=1e-4, rtol=1e-4)


def test_eager_attention_by_config_is_the_same(model, ids):
    expected = model(ids).last_hidden_state
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(ids).last_hidden_state, expected, atol=1e-4, rtol=1e-4)


def test_given_positions_and_types_equal_the_default(model, ids):
    positions = torch.arange(13)[None]
    types = torch.zeros_like(ids) if model.config.type_vocab_size else None
    given = model(ids, None, types, positions.expand(3, 13)).last_hidden_state
    torch.testing.assert_close(given, model(ids).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_fully_padded_row_is_finite(model, ids):
    mask = torch.ones_like(ids)
    mask[1] = 0
    assert torch.isfinite(model(ids, mask).last_hidden_state).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(model, ids, reentrant):
    model.train()
    model(ids).last_hidden_state.square().mean().backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    model.layers[0].attention.register_forward_hook(lambda *_: calls.append(1))
    model(ids).last_hidden_state.square().mean().backward()
    assert len(calls) == 2, "the layer was not computed again in the backward pass"
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_save_and_load_keep_every_bit(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    assert torch.equal(LongstrandModel.from_pretrained(tmp_path)(ids).last_hidden_state, model(ids).last_hidden_state)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_is_the_same(variant, ids):
    torch.manual_seed(0)
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=VOCABULARY, **VARIANTS[variant])).eval()
    compiled = torch.compile(model)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    with torch.no_grad():
        found, expected = (one(ids, mask).logits[mask.bool()] for one in (compiled, model))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    loss = compiled(ids, mask, labels=ids).loss
    torch.testing.assert_close(loss, model(ids, mask, labels=ids).loss, atol=1e-4, rtol=1e-4)
