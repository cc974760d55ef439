from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import torch

import longstrand.models
from longstrand.errors import ConfigError, InputError
from longstrand.models.attention.mask import join_bias, padding_bias
from longstrand.models.config import QUIRKS, LongstrandConfig, preset
from longstrand.models.positions import alibi_bias, alibi_slopes, rotary_angles, take_rows
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandModel
from tests.models.attention.calls import attend


def test_input_longer_than_the_position_table_names_the_limit():
    model = LongstrandModel(preset("tiny", vocab_size=9, positions="learned", max_position_embeddings=6)).eval()
    assert model(torch.full((1, 6), 5)).last_hidden_state.shape == (1, 6, 128)
    with pytest.raises(InputError, match="the input has 7 tokens, but the position table of this model ends at 6"):
        model(torch.full((1, 7), 5))
    with pytest.raises(InputError, match="the input has 10 tokens"):
        model(torch.full((1, 2), 5), position_ids=torch.tensor([[0, 9]]))


def test_rotary_models_have_no_such_limit():
    model = LongstrandModel(preset("tiny", vocab_size=9, max_position_embeddings=6)).eval()
    assert model(torch.full((1, 20), 5)).last_hidden_state.shape == (1, 20, 128)


def test_either_ids_or_embeddings():
    model = LongstrandModel(preset("tiny", vocab_size=9)).eval()
    with pytest.raises(ValueError, match=r"give (either )?input_ids or inputs_embeds"):
        model()
    ids = torch.full((1, 2), 5)  # beside vectors, ids only say what is special
    vectors = model.get_input_embeddings()(ids)
    beside = model(input_ids=ids, inputs_embeds=vectors).last_hidden_state
    assert torch.equal(beside, model(inputs_embeds=vectors).last_hidden_state)


def test_unknown_arguments_are_refused():
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=9))
    with pytest.raises(ConfigError, match="unknown argument 'atention_mask'"):
        model(torch.zeros(1, 2).long(), atention_mask=None)


ALL_KINDS = pytest.mark.parametrize(
    "settings",
    [
        {}, {"positions": "learned"}, {"positions": "alibi", "norm": "post"},
        {"attention": {"pattern": "sliding", "window": 8}},
        {"attention": {"pattern": "block_sparse", "block_size": 4}, "max_position_embeddings": 32},
    ],
)  # fmt: skip


@ALL_KINDS
def test_states_of_some_rows_are_those_of_all(settings):
    torch.manual_seed(0)
    model = LongstrandModel(preset("tiny", vocab_size=9, **settings)).eval()
    ids, mask, rows = torch.randint(4, 9, (2, 30)), torch.ones(2, 30).long(), torch.tensor([[3, 0], [7, 19]])
    mask[1, 20:] = 0
    with torch.inference_mode():
        for given in (None, mask):
            wanted = take_rows(model(ids, given).last_hidden_state, rows)
            assert torch.allclose(model.states_at(rows, ids, given), wanted, atol=1e-5)


@ALL_KINDS
@pytest.mark.parametrize("packed", [False, True])
def test_training_works_out_the_last_layer_for_labelled_tokens_alone(settings, packed, monkeypatch):
    torch.manual_seed(0)
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=9, **settings))
    ids, labels = torch.randint(4, 9, (2, 30)), torch.full((2, 30), -100)
    labels[0, [0, 3, 4]], labels[1, 7] = torch.tensor([5, 6, 4]), 8
    more = {"document_ids": (torch.arange(30) >= 12).long().expand(2, -1)} if packed else {}

    def losses_and_gradients():
        model.zero_grad()
        output = model(ids, labels=labels, **more)
        output.loss.backward()
        return output.loss.detach(), output.label_logits.detach(), [x.grad.clone() for x in model.parameters()]

    assert model.few_tokens(labels, {})[0].tolist() == [[0, 3, 4], [7, 0, 0]]
    few = losses_and_gradients()
    monkeypatch.setattr(type(model), "few_tokens", lambda *_: None)
    torch.testing.assert_close(few, losses_and_gradients(), atol=1e-5, rtol=1e-4)


def test_rotation_by_hand():
    config = preset("tiny", vocab_size=9, rotary={"dims": 2, "theta": 100.0})
    angles = rotary_angles(config, torch.tensor([[0, 1]]))
    states = torch.zeros(1, 1, 2, 64)
    states[..., 0], states[..., 5] = 1.0, 4.0
    turned = angles.rotate(states)
    assert turned[0, 0, 0, :3].tolist() == [1.0, 0.0, 0.0]
    assert turned[0, 0, 1, :3].tolist() == pytest.approx([0.5403, 0.8415, 0.0], abs=1e-4)
    assert (turned[..., 5] == 4.0).all()


def test_rotary_scores_depend_on_distance_only():
    torch.manual_seed(0)
    config = preset("tiny", vocab_size=9)
    query, key = torch.randn(2, 1, 1, 1, 64).unbind()

    def score(i: int, j: int) -> float:
        return float(
            (
                rotary_angles(config, torch.tensor([[i]])).rotate(query)
                * rotary_angles(config, torch.tensor([[j]])).rotate(key)
            ).sum()
        )

    assert score(3, 10) == pytest.approx(score(103, 110), abs=1e-4)


def test_alibi_slopes_of_the_published_code(shared):
    path = shared / "golden" / "dnabert2" / "alibi_slopes.json"
    if not path.is_file():
        pytest.skip("no published slopes")
    for number, slopes in json.loads(path.read_text()).items():
        assert alibi_slopes(int(number)) == pytest.approx(slopes), number


def test_alibi_slopes_and_bias_by_hand():
    assert alibi_slopes(2) == [2.0**-4, 2.0**-8]
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]
    bias = alibi_bias(2, torch.tensor([[0, 1, 3]]))
    assert bias[0, 0].tolist() == [[0, -1 / 16, -3 / 16], [-1 / 16, 0, -2 / 16], [-3 / 16, -2 / 16, 0]]


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_fast_and_slow_attention_agree(kind):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 8).unbind()
    bias = {"none": None, "bool": torch.rand(2, 1, 1, 5) > 0.3, "float": torch.randn(2, 3, 5, 5)}[kind]
    if kind == "bool":
        bias[..., 0] = True
    fast, nothing = attend(query, key, value, bias=bias)
    slow, weights = attend(query, key, value, bias=bias, need_weights=True)
    assert nothing is None
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))


def test_padding_bias_of_full_empty_and_mixed_rows():
    config = LongstrandConfig()
    assert padding_bias(None, config) is None and padding_bias(torch.ones(2, 3), config) is None
    bias = padding_bias(torch.tensor([[1, 0, 1], [0, 0, 0]]), config)
    assert bias[:, 0, 0].tolist() == [[True, False, True], [True, True, True]]


def test_join_bias_masks_distances():
    joined = join_bias(torch.tensor([[[[True, False]]]]), torch.tensor([[[[-1.0, -2.0]]]]), torch.float32)
    assert joined.flatten().tolist() == [-1.0, torch.finfo(torch.float32).min]
    both = join_bias(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[-1.0, -2.0]]]]), torch.float32)
    assert both.flatten().tolist() == [0.0, -2.0]


def test_gated_mlp_by_hand():
    from longstrand.models.encoder import MLP

    config = preset(
        "tiny",
        vocab_size=9,
        hidden_size=2,
        num_attention_heads=1,
        intermediate_size=1,
        gated_mlp=True,
        activation="relu",
    )
    mlp = MLP(config)
    for linear, weights, bias in (
        (mlp.gate, [[1.0, 0.0]], [0.5]),
        (mlp.up, [[0.0, 2.0]], [0.0]),
        (mlp.down, [[1.0], [10.0]], [0.0, 1.0]),
    ):
        linear.weight.data, linear.bias.data = torch.tensor(weights), torch.tensor(bias)
    assert mlp(torch.tensor([[3.0, 4.0], [-9.0, 4.0]])).tolist() == [[28.0, 281.0], [0.0, 1.0]]


def test_biases_can_be_left_out():
    biases = {"attention": False, "mlp_up": False, "mlp_down": False, "norm": False}
    model = LongstrandModel(preset("tiny", vocab_size=9, biases=biases))
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def test_no_buffers_at_all():
    for positions in ("learned", "rotary", "alibi", "none"):
        model = LongstrandForMaskedLM(preset("tiny", vocab_size=9, positions=positions))
        assert not dict(model.named_buffers())


def test_each_quirk_is_read_once_and_the_encoder_never_reads_the_family():
    folder = Path(inspect.getfile(longstrand.models)).parent
    sources = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}
    code = "\n".join(
        text for name, text in sources.items() if name == "published/to_ours.py" or not name.startswith("published/")
    )
    for quirk in QUIRKS:
        reading = f'"{quirk}" (?:not )?in (?:[a-z.]*config.)?quirks'
        assert len(re.findall(reading, code.replace("self.quirks", ""))) == 1, quirk
    for name in ("encoder.py", "attention/layer.py", "positions.py", "heads.py", "networks.py"):
        assert "config.family" not in sources[name]


def test_resizing_the_vocabulary_keeps_the_tie_and_the_bias():
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=9))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.resize_token_embeddings(12, mean_resizing=False)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.lm_head.decoder.bias.shape == (12,) and model.config.vocab_size == 12
    assert model(torch.tensor([[11, 5]])).logits.shape == (1, 2, 12)


def test_untied_decoder():
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=9, tie_word_embeddings=False))
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
