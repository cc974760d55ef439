"""Recurrent memory inside the encoder: by hand on a toy cell, against the plain encoder, and its invariants."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModel

import longstrand.auto
from longstrand import load_model
from longstrand.errors import CheckpointError, InputError
from longstrand.models.checkpoint import load_network, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.memory.losses import counted_batch
from longstrand.models.memory.recurrence import average_passes, counted_mask, read_segments
from longstrand.models.pretrained import MODELS, LongstrandModel
from tests.toys import tiny_checkpoint

assert longstrand.auto
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 41}
SPECIAL = {"cls_token_id": 1, "sep_token_id": 2}
MEMORY = {"num_tokens": 3, "segment_length": 16, **SPECIAL}
LENGTHS = [35, 1, 0, 12, 60]


def make(kind: str = "encoder", head: dict | None = None, *, memory: dict | None = None, **changes):
    torch.manual_seed(0)
    heads = {} if kind == "encoder" else {kind: {"kind": kind, **(head or {})}}
    model = MODELS[kind](preset("tiny", **SIZE, heads=heads, memory=memory, **changes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter.data, std=0.2)
    return model


def rows(*lengths: int) -> dict[str, torch.Tensor]:
    """Make rows of [CLS] x [SEP] with so many content tokens, padded with 3 at the end."""
    torch.manual_seed(1)
    made = [torch.cat((torch.tensor([1]), torch.randint(5, 41, (n,)), torch.tensor([2]))) for n in lengths]
    ids = nn.utils.rnn.pad_sequence(made, batch_first=True, padding_value=3)
    return {"input_ids": ids, "attention_mask": (ids != 3).long()}


# --- by hand ------------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """An 'encoder' of width 1: a token's state is its vector; every written memory is ``a`` x (sum of all vectors)."""

    def __init__(self, factor: float = 1.0, **memory) -> None:
        super().__init__()
        settings = {"num_tokens": 1, "segment_length": 5, "form": "mem_x_mem", "split": "left", **memory}
        self.config = preset("tiny", vocab_size=9, memory=settings, hidden_size=2, num_attention_heads=1)
        self.config.hidden_size = 1
        self.factor, self.gradient_checkpointing = factor, False
        table = nn.Embedding(9, 1)
        table.weight.data = torch.arange(9.0)[:, None]
        self.embeddings = SimpleNamespace(word_embeddings=table)
        self.initial = nn.Parameter(torch.tensor([[100.0]]))

    def memory(self, backward: bool) -> torch.Tensor:
        return self.initial

    def encode(self, ids, mask, types, *, inputs_embeds, keep, recompute=False):
        real = torch.ones(inputs_embeds.shape[:2]) if mask is None else mask
        total = self.factor * (inputs_embeds * real[..., None])[:, 1:].sum(1, keepdim=True)
        return [inputs_embeds[:, :1] * 0 + total.expand_as(inputs_embeds)], []


def test_the_recurrence_by_hand():
    """memory' = memory (written block) + tokens: 100 -> + 1 + 2 + 3 -> + 4 + 5."""
    toy = Toy()
    ids = torch.tensor([[1, 2, 3, 4, 5], [7, 0, 0, 0, 0]])
    output = read_segments(toy, ids, torch.tensor([[1] * 5, [1] + [0] * 4]), None)
    assert output.last_hidden_state[..., 0].tolist() == [[106.0, 106.0, 106.0, 115.0, 115.0], [107.0, 0, 0, 0, 0]]
    assert output.memory[..., 0].tolist() == [[115.0], [107.0]]
    assert output.segment_ids.tolist() == [[0, 0, 0, 1, 1], [0, -1, -1, -1, -1]]


@pytest.mark.parametrize(("depth", "slope"), [(None, 2.0**4), (3, 2.0**4), (2, 2.0**3), (1, 2.0**2), (0, 2.0)])
def test_truncated_gradients_by_hand(depth, slope):
    """Four segments, memory' = 2 (memory + tokens): a window of n = depth + 1 segments passes on 2^n."""
    toy = Toy(2.0, bptt_depth=depth, segment_length=4)
    last = read_segments(toy, torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1]]), None, None).memory
    last.sum().backward()
    assert last.item() == 16 * 100 + 2 * 2 + 4 * 2 + 8 * 2 + 16 * 2
    assert toy.initial.grad.item() == slope


@pytest.mark.parametrize(("depth", "slope"), [(3, 0.0), (4, 2.0**4)])
def test_the_published_truncation_by_hand(depth, slope):
    toy = Toy(2.0, bptt_depth=depth, segment_length=4)
    toy.config.quirks = ["published_bptt"]
    read_segments(toy, torch.tensor([[1] * 8]), None, None).memory.sum().backward()
    assert toy.initial.grad.item() == slope


# --- against the plain encoder ------------------------------------------------------------------------------------


def test_no_memory_and_one_segment_is_the_plain_encoder_bit_for_bit():
    plain, ours = make(), make(memory={"num_tokens": 0, "segment_length": 40, **SPECIAL})
    assert set(plain.state_dict()) == set(ours.state_dict())
    batch = rows(9, 30)
    with torch.no_grad():
        assert torch.equal(plain(**batch).last_hidden_state, ours(**batch).last_hidden_state)
        alone = {"input_ids": batch["input_ids"][1:]}
        through = read_segments(ours, alone["input_ids"], None, None, keep=True)
        expected = plain(**alone, output_hidden_states=True)
    for own, other in zip(through.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(own, other)


def test_segments_without_memory_are_the_plain_encoder_on_each():
    plain, ours = make(), make(memory={"num_tokens": 0, "segment_length": 12, "split": "left", **SPECIAL})
    ids = rows(20)["input_ids"]
    with torch.no_grad():
        whole = ours(ids).last_hidden_state[0]
        first, second = (torch.cat((ids[:, :1], part, ids[:, -1:]), 1) for part in (ids[:, 1:11], ids[:, 11:21]))
        pieces = [plain(part).last_hidden_state[0] for part in (first, second)]
    torch.testing.assert_close(whole[1:21], torch.cat((pieces[0][1:11], pieces[1][1:11])), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[[0, 21]], pieces[1][[0, 11]], atol=1e-5, rtol=1e-5)


# --- invariants ---------------------------------------------------------------------------------------------------

SETTINGS = {
    "equal": {},
    "left": {"split": "left"},
    "right": {"split": "right"},
    "centre": {"split": "centre"},
    "mem_x_mem": {"form": "mem_x_mem"},
    "both_directions": {"direction": "bidirectional"},
    "context": {"context": {"left": 1, "right": 2}, "direction": "bidirectional"},
    "no_specials": {"cls_token_id": None, "sep_token_id": None},
    "no_memory": {"num_tokens": 0},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_batch_mates_change_nothing_and_rows_keep_their_order(name, positions):
    model = make(memory={**MEMORY, **SETTINGS[name]}, positions=positions, max_position_embeddings=16)
    batch = rows(*LENGTHS)
    with torch.no_grad():
        together = model(**batch, output_hidden_states=True)
        for row, length in enumerate(LENGTHS):
            alone = model(batch["input_ids"][row : row + 1, : length + 2], output_hidden_states=True)
            for ours, theirs in zip(together.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(ours[row, : length + 2], theirs[0], atol=1e-5, rtol=1e-5)
            if alone.get("memory") is not None:
                torch.testing.assert_close(together.memory[row], alone.memory[0], atol=1e-5, rtol=1e-5)
            assert (together.last_hidden_state[row, length + 2 :] == 0).all()
    assert together.num_segments.tolist()[1:3] == [1, 1]


def test_the_first_segment_reaches_the_last_only_through_memory():
    for number, reaches in ((3, True), (0, False)):
        model = make(memory={**MEMORY, "num_tokens": number, "split": "left"})
        batch = rows(60)
        changed = batch["input_ids"].clone()
        changed[0, 1] = 5 + (changed[0, 1] - 4) % 36
        with torch.no_grad():
            states = [model(ids).last_hidden_state[0, -3] for ids in (batch["input_ids"], changed)]
        assert bool((states[0] - states[1]).abs().max() > 1e-6) == reaches


def test_vectors_in_place_of_ids():
    model = make(memory=MEMORY)
    batch = rows(*LENGTHS)
    words = model.get_input_embeddings()(batch["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, model(**batch, inputs_embeds=words).last_hidden_state)
        bare = make(memory={**MEMORY, "form": "mem_x_mem"})
        alone = bare(None, batch["attention_mask"], inputs_embeds=words).last_hidden_state
        assert torch.equal(alone, bare(**batch).last_hidden_state)
    with pytest.raises(InputError, match="does not say which tokens are special, and memory needs to know"):
        model(inputs_embeds=words)
    with pytest.raises(ValueError, match=r"give (either )?input_ids or inputs_embeds"):
        model()


def test_token_types_go_with_their_tokens():
    model = make(memory={**MEMORY, "num_tokens": 0, "segment_length": 12, "split": "left"}, type_vocab_size=2)
    ids = rows(20)["input_ids"]
    types = (torch.arange(22) > 5).long()[None]
    with torch.no_grad():
        ours = model(ids, token_type_ids=types).last_hidden_state[0, 1:11]
        segment = torch.cat((ids[:, :11], ids[:, -1:]), 1)
        plain, _ = model.encode(segment, None, torch.cat((types[:, :11], torch.zeros(1, 1).long()), 1))
    torch.testing.assert_close(ours, plain[-1][0, 1:11], atol=1e-5, rtol=1e-5)


def test_what_segments_do_not_have_is_refused():
    model = make(memory=MEMORY)
    ids = rows(40)["input_ids"]
    with pytest.raises(InputError, match="position_ids: not available where memory reads rows in segments"):
        model(ids, position_ids=torch.arange(42)[None])
    with pytest.raises(InputError, match="output_attentions: not available"):
        model(ids, output_attentions=True)


def test_a_pair_is_read_through():
    model = make(memory={**MEMORY, "segment_length": 40})
    first, second = torch.randint(5, 41, (2, 7))
    one, two = torch.tensor([1]), torch.tensor([2])
    pair, joined = torch.cat((one, first, two, second, two)), torch.cat((one, first, second, two))
    with torch.no_grad():
        states, plain = (model(ids[None]).last_hidden_state[0] for ids in (pair, joined))
    torch.testing.assert_close(states[8], states[16], atol=0, rtol=0)
    torch.testing.assert_close(states[[*range(8), *range(9, 17)]], plain, atol=1e-5, rtol=1e-5)


# --- directions, streams ------------------------------------------------------------------------------------------


def pieces_of(ids: torch.Tensor, room: int) -> list[torch.Tensor]:
    return list(ids[:, 1:-1].split(room, dim=1))


@pytest.mark.parametrize("name", ["left", "mem_x_mem", "no_specials"])
def test_a_stream_gives_what_the_whole_row_gives(name):
    model = make(memory={**MEMORY, "split": "left", **SETTINGS[name]})
    batch = rows(47, 47)
    ids = batch["input_ids"] if name == "left" else batch["input_ids"][:, 1:-1]
    room = model.config.memory.segment_length - {"left": 6, "mem_x_mem": 6, "no_specials": 3}[name]
    pieces = pieces_of(batch["input_ids"], room)
    with torch.no_grad():
        whole = model(ids)
    outputs = list(model.stream(iter(pieces)))
    states = torch.cat([output.last_hidden_state for output in outputs], dim=1)
    expected = whole.last_hidden_state[:, 1:-1] if name == "left" else whole.last_hidden_state
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs[-1].memory, whole.memory, atol=1e-5, rtol=1e-5)
    resumed = list(model.stream(pieces[2:], memory=outputs[1].memory))
    torch.testing.assert_close(resumed[-1].memory, outputs[-1].memory, atol=0, rtol=0)
    assert not outputs[-1].memory.requires_grad


def test_two_directions_are_the_average_of_two_streams():
    model = make(memory={**MEMORY, "split": "left", "direction": "bidirectional"})
    ids = rows(45)["input_ids"]
    pieces = pieces_of(ids, 10)
    forward = list(model.stream(pieces))
    backward = list(model.stream(reversed(pieces), backward=True))
    states = [torch.cat([o.last_hidden_state for o in part], 1) for part in (forward, backward[::-1])]
    with torch.no_grad():
        whole = model(ids)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(whole.last_hidden_state[:, 1:-1], average_passes(states), **close)
    ends = (forward[-1].cls_state + backward[-1].cls_state) / 2
    torch.testing.assert_close(whole.last_hidden_state[:, 0], ends, **close)
    torch.testing.assert_close(whole.backward_memory, backward[-1].memory, **close)
    assert (whole.memory - whole.backward_memory).abs().max() > 1e-2
    each = torch.stack([(f.cls_state + b.cls_state) / 2 for f, b in zip(forward, backward[::-1])], 1)
    torch.testing.assert_close(whole.segment_states, each, **close)


def test_rows_of_a_stream_may_end_early():
    model = make(memory=MEMORY)
    ids = rows(18)["input_ids"][:, 1:-1].repeat(2, 1)
    mask = torch.ones(2, 9).long()
    ended = torch.stack((torch.ones(9), torch.zeros(9))).long()
    outputs = list(model.stream([{"input_ids": ids[:, :9], "attention_mask": mask},
                                 {"input_ids": ids[:, 9:], "attention_mask": ended}]))  # fmt: skip
    alone = list(model.stream([ids[:1, :9], ids[:1, 9:]]))
    torch.testing.assert_close(outputs[1].memory[1], outputs[0].memory[1], atol=0, rtol=0)
    torch.testing.assert_close(outputs[1].memory[0], alone[1].memory[0], atol=1e-5, rtol=1e-5)
    assert (outputs[1].last_hidden_state[1] == 0).all()
    nothing = next(model.stream([{"input_ids": ids[:, :9], "attention_mask": torch.zeros(2, 9).long()}]))
    assert torch.equal(nothing.memory[0], model.memory.initial)


def test_streams_refuse_what_does_not_fit():
    model = make(memory=MEMORY)
    ids = torch.full((2, 11), 7)
    with pytest.raises(InputError, match="segment 1 has 11 tokens, but a segment has room for 10"):
        next(model.stream([ids]))
    with pytest.raises(InputError, match="segment 2 has 1 rows, but the memory has 2"):
        list(model.stream([ids[:, :5], ids[:1, :5]]))
    with pytest.raises(InputError, match="the model has no memory settings"):
        next(make().stream([ids]))
    head = {"problem": "regression", "num_outputs": 1}
    for more in ({"direction": "bidirectional"}, {"context": {"left": 1}}, {"context": {"right": 1}}):
        for kind in ("sequence", "token"):
            with pytest.raises(InputError, match="depends on later ones"):
                make(kind, head, memory={**MEMORY, "split": "left", **more}).stream([ids[:, :5]])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_streamed_logits_of_all_segments_so_far_end_with_those_of_the_row(pooling):
    head = {"problem": "regression", "num_outputs": 2, "pooling": pooling}
    model = make("sequence", head, memory={**MEMORY, "split": "left"})
    batch = rows(44, 44)
    with torch.no_grad():
        expected = model(batch["input_ids"]).logits
    outputs = list(model.stream(pieces_of(batch["input_ids"], 10)))
    torch.testing.assert_close(outputs[-1].logits, expected, atol=1e-5, rtol=1e-5)


def test_streamed_logits_of_tokens():
    for kind, head in (("token", {"problem": "single_label", "num_outputs": 3}), ("masked_lm", {})):
        model = make(kind, head, memory={**MEMORY, "split": "left"})
        ids = rows(33)["input_ids"]
        streamed = torch.cat([output.logits for output in model.stream(pieces_of(ids, 10))], 1)
        with torch.no_grad():
            torch.testing.assert_close(streamed, model(ids).logits[:, 1:-1], atol=1e-5, rtol=1e-5)


# --- losses -------------------------------------------------------------------------------------------------------


def test_loss_on_all_segments_is_a_mean_over_rows_of_means_over_segments():
    head = {"problem": "single_label", "num_outputs": 3, "pooling": "cls"}
    model = make("sequence", head, memory={**MEMORY, "split": "left", "loss": "all"})
    batch, labels = rows(25, 5), torch.tensor([2, 0])
    loss = model(**batch, labels=labels).loss
    expected = []
    for row, length in enumerate((25, 5)):
        ids = batch["input_ids"][row : row + 1, : length + 2]
        logits = torch.stack([model.classifier(o.cls_state[0]) for o in model.encoder.stream(pieces_of(ids, 10))])
        expected.append(nn.functional.cross_entropy(logits, labels[row].expand(len(logits))))
    torch.testing.assert_close(loss, torch.stack(expected).mean(), atol=1e-5, rtol=1e-5)
    halves = model(**batch, labels=labels, num_items_in_batch=4).loss
    torch.testing.assert_close(halves, loss / 2)


@pytest.mark.parametrize("problem", ["regression", "multi_label"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_loss_on_all_segments_of_other_heads_is_that_of_one_segment_where_there_is_one(problem, pooling):
    head = {"problem": problem, "num_outputs": 2, "pooling": pooling}
    model = make("sequence", head, memory={**MEMORY, "cls_token_id": None, "sep_token_id": None, "loss": "all"})
    ids = rows(7, 7)["input_ids"][:, 1:-1]
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    loss = model(ids, labels=labels).loss
    model.config.memory = model.config.memory.model_copy(update={"loss": "last"})
    torch.testing.assert_close(loss, model(ids, labels=labels).loss)


def test_labels_of_tokens_count_everywhere_in_the_last_segment_or_outside_context():
    labels = torch.full((2, 37), -100)
    labels[0, 3], labels[0, 33], labels[1, 2] = 7, 8, 9
    batch = rows(35, 5)
    counted = {}
    for name, settings in (("all", {}), ("last", {"loss": "last"}), ("context", {"context": {"left": 1, "right": 0}})):
        model = make("masked_lm", memory={**MEMORY, "split": "left", **settings})
        output = model(**batch, labels=labels)
        counted[name] = output.num_labels.item()
        mask = counted_mask(model.config, batch["input_ids"], batch["attention_mask"])
        assert (mask is None) == (name == "all")
        assert mask is None or (mask & (labels != -100)).sum() == counted[name]
    assert counted == {"all": 3, "last": 2, "context": 2}


def test_labels_at_cls_and_sep_do_not_count():
    """Ten tokens in two segments between the row's own [CLS] (1) and [SEP] (2), which have labels as well."""
    batch = rows(10, 10)
    everywhere, content = torch.full((2, 12), 7), torch.full((2, 12), 7)
    content[:, [0, -1]] = -100
    for memory in (MEMORY, {**MEMORY, "num_tokens": 0, "segment_length": 64}):
        model = make("masked_lm", memory=memory)
        output = model(**batch, labels=everywhere)
        assert output.num_labels == 20
        torch.testing.assert_close(output.loss, model(**batch, labels=content).loss)
        assert torch.equal(counted_batch({**batch, "labels": everywhere}, model.config)["labels"], content)
        tokens = make("token", {"problem": "single_label", "num_outputs": 9}, memory=memory)
        torch.testing.assert_close(tokens(**batch, labels=everywhere).loss, tokens(**batch, labels=content).loss)


def test_context_is_left_out_of_pooling():
    head = {"problem": "regression", "num_outputs": 1, "pooling": "mean"}
    memory = {**MEMORY, "split": "left", "cls_token_id": None, "sep_token_id": None, "context": {"left": 1, "right": 0}}
    model = make("sequence", head, memory=memory)
    ids = rows(26)["input_ids"][:, 1:-1]
    with torch.no_grad():
        states = model.encoder(ids).last_hidden_state[:, 13:].mean(1)
        torch.testing.assert_close(model(ids).logits, model.classifier(states))


def test_bins_are_predicted_where_they_end():
    head = {"problem": "counts", "num_outputs": 2, "bin_token_id": 2}
    memory = {**MEMORY, "bins_per_segment": 2, "split": "left", "context": {"left": 1, "right": 0}}
    model = make("bin", head, memory=memory)
    ids = torch.tensor([[1, 9, 2, 8, 7, 2, 6, 2, 5, 2], [1, 9, 9, 2, 3, 3, 3, 3, 3, 3]])
    labels = torch.ones(2, 4, 2)
    output = model(ids, (ids != 3).long(), labels=labels)
    assert output.logits.isnan().any(-1).tolist() == [[False] * 4, [False, True, True, True]]
    known = output.logits.clone()
    known[0, :2] = torch.nan  # the first segment is context
    rates = nn.functional.softplus(known[~known.isnan()])
    torch.testing.assert_close(output.loss, (rates - torch.log(rates + 1e-8)).mean())
    with pytest.raises(ValueError, match=r"labels are for \(2, 3\) rows and bins, the input has \(2, 4\)"):
        model(ids, (ids != 3).long(), labels=labels[:, :3])
    with pytest.raises(ValueError, match="needs input_ids or bins_mask"):
        make("bin", head)(inputs_embeds=torch.zeros(1, 4, 32))


# --- training -----------------------------------------------------------------------------------------------------


def gradients(model, batch, labels):
    model.zero_grad()
    loss = model(**batch, labels=labels).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "options", [{"checkpointing": True}, {"offload": True}, "trainer"], ids=["own", "offload", "hf"]
)
def test_recomputed_and_offloaded_segments_give_the_same_gradients(options):
    labels = torch.where(torch.rand(2, 42) < 0.3, 7, -100)
    plain = make("masked_lm", memory=MEMORY).train()
    other = make("masked_lm", memory={**MEMORY, **(options if isinstance(options, dict) else {})}).train()
    if options == "trainer":
        other.gradient_checkpointing_enable()
    (loss, grads), (again, others) = (gradients(model, rows(40, 20), labels) for model in (plain, other))
    assert torch.equal(loss, again)
    assert grads.keys() == others.keys() and "encoder.memory.initial" in grads
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, others[name], atol=1e-6, rtol=1e-5)


def test_recomputed_segments_keep_less_than_a_quarter_for_the_backward_pass():
    sizes = {}
    for checkpointing in (False, True):
        model = make("masked_lm", memory={**MEMORY, "segment_length": 38, "checkpointing": checkpointing}).train()
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            batch = rows(16 * 32)
            labels = torch.full_like(batch["input_ids"], -100)
            labels[:, 9] = 7
            loss = model(**batch, labels=labels).loss
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        sizes[checkpointing] = sum(size for place, size in kept.items() if place not in weights)
        assert loss.requires_grad
    assert sizes[True] < sizes[False] / 4


# --- checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("plain") / "model")


CHANGES = {"memory": {"num_tokens": 4, "segment_length": 20}}


def test_a_plain_checkpoint_gets_a_fresh_memory(folder, tmp_path):
    torch.manual_seed(3)
    model = load_model(folder, "encoder", changes=CHANGES)
    words = model.embeddings.word_embeddings.weight
    assert model.memory.initial.shape == (4, 16)
    assert 0.5 < model.memory.initial.std() / words.std() < 2
    assert model.config.memory.cls_token_id is not None
    ids = torch.randint(6, 20, (1, 50))
    save_checkpoint(model, None, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    network, automatic = load_network(tmp_path / "saved"), AutoModel.from_pretrained(tmp_path / "saved")
    assert type(automatic) is LongstrandModel
    with torch.no_grad():
        for other in (again, network, automatic):
            assert torch.equal(model(ids).last_hidden_state, other.eval()(ids).last_hidden_state)
    wider = load_model(tmp_path / "saved", changes={"memory": {"direction": "bidirectional", "segment_length": 30}})
    assert torch.equal(wider.memory.initial, model.memory.initial) and wider.memory.initial_backward.shape == (4, 16)
    without = load_model(tmp_path / "saved", changes={"memory": None})
    assert without.memory is None and without.config.memory is None


def test_memory_of_another_size_or_missing_is_refused(folder, tmp_path):
    model = load_model(folder, "encoder", changes=CHANGES)
    save_checkpoint(model, None, tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"mis-shaped: encoder.memory.initial is \(4, 16\), .* implies \(5, 16\)"):
        load_model(tmp_path / "saved", changes={"memory": {"num_tokens": 5}})
    config = model.config.replace(memory={**dict(model.config.memory), "direction": "bidirectional"})
    config.save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"missing: encoder\.memory\.initial_backward"):
        load_model(tmp_path / "saved")


def test_adapters_train_the_memory_whole():
    peft = pytest.importorskip("peft")
    head = {"problem": "single_label", "num_outputs": 2, "pooling": "cls"}
    model = make("sequence", head, memory=MEMORY)
    settings = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["classifier", "memory"])
    adapted = peft.get_peft_model(model, settings)
    adapted(**rows(40, 3), labels=torch.tensor([0, 1])).loss.backward()
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad and p.grad is not None}
    assert any("memory.modules_to_save" in name for name in trained) and any("lora_A" in name for name in trained)
