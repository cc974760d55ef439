"""Loading published files: what they are is read from them alone, no code runs, every problem is named."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from longstrand import load_model, load_tokenizer
from longstrand.errors import CheckpointError, ConfigError, InputError, LongstrandError, TokenizerError, UsageError
from longstrand.inference.loaded import stored_folder
from longstrand.models.attention.layouts import longest_input
from longstrand.models.checkpoint import load_network, save_checkpoint
from longstrand.models.config import LongstrandConfig, preset
from longstrand.models.pretrained import MODELS, LongstrandForMaskedLM
from longstrand.models.published.adapters import load_adapter
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import export_published, import_published
from longstrand.models.quirks import count_positions, drop_masked_tokens
from longstrand.models.reading import Reading
from longstrand.models.tensors import read_tensors
from tests.published_toys import FAMILIES as TOYS
from tests.published_toys import make_folder
from tests.toys import tiny_checkpoint

IDS = torch.arange(6, 40)[None]


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Lay every family out once; tests that change files take a copy."""
    root = tmp_path_factory.mktemp("published")
    return {name: make_folder(name, root / name) for name in TOYS}


@pytest.fixture
def changed(toys, tmp_path):
    """Copy a toy with other settings and tensors (None removes one)."""

    def change(name, settings=None, tensors=None):
        for path in toys[name].iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        content = json.loads((tmp_path / "config.json").read_text()) | (settings or {})
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        if tensors:
            stored = load_file(tmp_path / "model.safetensors") | tensors
            save_file({k: v for k, v in stored.items() if v is not None}, tmp_path / "model.safetensors")
        return tmp_path

    return change


@pytest.mark.parametrize("name", TOYS)
def test_the_family_is_recognised_from_the_files_alone(toys, changed, name):
    assert load_model(toys[name]).config.family == TOYS[name]["family"]
    assert load_model(toys[name], family=TOYS[name]["family"]).config.family == TOYS[name]["family"]
    folder = changed(name, {"architectures": None, "_name_or_path": "some/thing", "auto_map": {"AutoModel": "x.Y"}})
    assert load_model(folder).config.family == TOYS[name]["family"]


@pytest.mark.parametrize("name", TOYS)
def test_from_pretrained_reads_published_files_as_strictly(toys, changed, name):
    expected = load_model(toys[name])
    with torch.no_grad():
        ids = IDS % expected.config.vocab_size
        found = LongstrandForMaskedLM.from_pretrained(toys[name]).eval()
        assert torch.equal(found(ids).logits, expected(ids).logits)
        assert torch.equal(load_network(toys[name])(ids).logits, expected(ids).logits)
    config, unused = LongstrandConfig.from_pretrained(toys[name], return_unused_kwargs=True, other=1)
    assert config.settings() == expected.config.settings() and unused == {"other": 1}
    with pytest.raises(CheckpointError, match="unexpected: more"):
        LongstrandForMaskedLM.from_pretrained(changed(name, tensors={"more": torch.ones(1)}))


@pytest.mark.parametrize("name", TOYS)
def test_code_beside_the_weights_is_never_imported(changed, name):
    folder = changed(name, {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForMaskedLM": "evil.Model"}})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    assert load_model(folder).kind == "masked_lm" and not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "tensors", "words"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, {},
         r"unknown architecture \(model_type 'llama', architectures \['LlamaForCausalLM'\]\); known: longstrand, "
         "dnabert, bert, gena_bert, dnabert2, nt_v1, nt_v2, moderngena, bigbird"),
        ({"model_type": None}, {}, r"unknown architecture \(model_type 'None'"),
    ],
)  # fmt: skip
def test_unknown_architecture(changed, settings, tensors, words):
    with pytest.raises(CheckpointError, match=words):
        load_model(changed("gena-bert", settings, tensors))


def test_another_family_is_insisted_on(toys, tmp_path):
    for family in ("bert", "dnabert", "gena_bert"):
        with pytest.raises(CheckpointError, match=rf"these are files of dnabert2, not of {family}: DNABERT-2 and"):
            load_model(toys["dnabert2"], family=family)
    with pytest.raises(CheckpointError, match=r"these are files of nt_v2, not of nt_v1: .*rotary"):
        load_model(toys["nt-v2"], family="nt_v1")
    with pytest.raises(UsageError, match=r"unknown family 'dnabert3' \(did you mean 'dnabert'\?\); known: dnabert"):
        load_model(toys["dnabert2"], family="dnabert3")
    load_model(toys["dnabert2"]).save_pretrained(tmp_path)
    assert load_model(tmp_path, family="dnabert2").config.family == "dnabert2"
    with pytest.raises(CheckpointError, match="these are our own files, of weights of dnabert2, not of bert"):
        load_model(tmp_path, family="bert")


@pytest.mark.parametrize(
    ("name", "settings", "tensors", "words"),
    [
        ("dnabert2", {}, {"bert.encoder.layer.0.attention.self.Wqkv.weight": torch.zeros(95, 36)},
         [r"mis-shaped: bert.encoder.layer.0.attention.self.Wqkv.weight is \(95, 36\), which is not 3 equal parts"]),
        ("dnabert2", {}, {"bert.encoder.layer.0.attention.self.Wqkv.weight": torch.zeros(90, 36),
                          "bert.encoder.layer.1.mlp.gated_layers.weight": None},
         [r"attention.query.weight\) is \(30, 36\), config.json implies \(36, 36\)",
          "missing: bert.encoder.layer.1.mlp.gated_layers.weight"]),
        ("moderngena", {}, {"model.layers.1.mlp.Wi.weight": torch.zeros(7, 32)},
         [r"mis-shaped: model.layers.1.mlp.Wi.weight is \(7, 32\), which is not 2 equal parts"]),
        ("moderngena", {"num_hidden_layers": 2, "layer_types": None}, {}, ["unexpected: model.layers.2.attn.Wo"]),
        ("nt-v2", {"intermediate_size": 96}, {}, [r"is \(48, 32\), config.json implies \(96, 32\)"]),
        ("nt-v2", {"num_attention_heads": 4}, {},
         [r"2 problems .*contradicting: esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq is not what "
          r"config.json implies \(heads, rotary size or base\); it is \(8,\), config.json implies \(4,\)"]),
        ("gena-sparse", {"rotary_base": 500.0}, {},
         ["contradicting: bert.encoder.layer.1.attention.self.rotary_emb.inv_freq is not what config.json implies"]),
        ("nt-v1", {"vocab_size": 4107}, {}, [r"word_embeddings.weight\) is \(4105, 32\), config.json implies \(4107"]),
        ("gena-bert", {"last_layer_norm": True}, {}, ["missing: bert.encoder.last_layer_ln.bias"]),
        ("gena-sparse", {}, {"bert.encoder.layer.1.attention.self.sparse_self_attention.master_layout": None},
         ["missing: bert.encoder.layer.1.attention.self.sparse_self_attention.master_layout"]),
        ("gena-bigbird", {"hidden_size": 64}, {}, [r"config.json implies \(64,\)"]),
        ("dnabert6", {}, {"bert.encoder.layer.0.output.dense.bias": None, "bert.more": torch.zeros(1)},
         ["2 problems with the tensors", "missing: bert.encoder.layer.0.output.dense.bias", "unexpected: bert.more"]),
    ],
)  # fmt: skip
def test_config_and_weights_that_contradict_each_other(changed, name, settings, tensors, words):
    for text in words:
        with pytest.raises(CheckpointError, match=text):
            load_model(changed(name, settings, tensors))


@pytest.mark.parametrize("name", [name for name in TOYS if TOYS[name].get("tie_word_embeddings", True)])
def test_tied_copies_that_differ(toys, changed, name):
    copy, original = next(
        pair for pair in FAMILIES[TOYS[name]["family"]].copies.items() if pair[0].endswith("decoder.weight")
    )
    stored = load_file(toys[name] / "model.safetensors")
    assert torch.equal(stored[copy], stored[original])
    with pytest.raises(CheckpointError, match=rf"contradicting: {copy} should be a copy of {original}, but differs"):
        load_model(changed(name, tensors={copy: stored[copy] + 1}))


@pytest.mark.parametrize("name", TOYS)
def test_truncated_weights(toys, changed, name):
    path = changed(name) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"model.safetensors: truncated or damaged, not readable as safetensors"):
        load_model(path.parent)


class Evil:
    """What a malicious file may hold: reading it as a pickle runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_code_hidden_in_a_pickle_is_refused_and_does_not_run(toys, changed, tmp_path, form):
    folder, mark = changed("gena-bert"), tmp_path / "it-ran"
    state = load_file(folder / "model.safetensors") | {"extra": Evil(mark)}
    (folder / "model.safetensors").unlink()
    if form == "bare pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(state["extra"]))
    else:
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        CheckpointError, match=r"not readable as plain tensors .*files that carry code are never loaded"
    ):
        load_model(folder)
    assert not mark.exists()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (adapter / "adapter_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())
    pytest.importorskip("peft")
    with pytest.raises(CheckpointError, match="files that carry code are never loaded"):
        load_adapter(toys["gena-bert"], adapter)
    assert not mark.exists()
    with pytest.raises(BaseException):  # noqa: B017 - the trap works where code is allowed to run
        torch.load(folder / "pytorch_model.bin", weights_only=False).pop("extra").missing()
    assert mark.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "sharded", "training"])
def test_legacy_weights_of_plain_tensors(toys, changed, form):
    folder = changed("nt-v1")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if form == "sharded":
        names = sorted(state)
        parts = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
        for file, part in parts.items():
            torch.save({name: state[name] for name in part}, folder / file)
        index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        content = {"model_state_dict": state} if form == "training" else state
        torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form != "legacy")
    assert torch.equal(load_model(folder)(IDS).logits, load_model(toys["nt-v1"])(IDS).logits)
    if form == "sharded":
        (folder / "pytorch_model-2.bin").unlink()
        with pytest.raises(
            CheckpointError, match=r"parts named by pytorch_model.bin.index.json are absent: pytorch_mod"
        ):
            load_model(folder)


def test_an_index_cannot_lead_out_of_the_folder(changed):
    folder = changed("nt-v1")
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="are absent"):
        load_model(folder)


def test_a_truncated_legacy_file_and_one_without_names(changed):
    folder = changed("gena-bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="not readable as plain tensors"):
        load_model(folder)
    torch.save(torch.ones(2), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds other things than tensors"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "length", "words"),
    [
        ("gena-bert", 513, "the input has 513 tokens, but the position table of this model ends at 512"),
        ("dnabert6", 513, "the input has 513 tokens, but the position table of this model ends at 512"),
        ("nt-v1", 1001, "the input has 1001 tokens, but the position table of this model ends at 1000"),
        ("gena-sparse", 8193, "the input has 8193 tokens, but the block layout of this model ends at 8192"),
        ("gena-bigbird", 8193, "the input has 8193 tokens, but the position table of this model ends at 8192"),
    ],
)
def test_lengths_beyond_the_positions(toys, name, length, words):
    model = load_model(toys[name], "encoder")
    assert longest_input(model.config) == length - 1
    with pytest.raises(InputError, match=words):
        model(torch.full((1, length), 7))


@pytest.mark.parametrize("name", ["gena-sparse", "gena-bigbird"])
def test_lengths_that_a_block_does_not_divide(toys, name):
    model = load_model(toys[name])
    ids = torch.randint(5, 90, (1, 1024))
    mask = torch.ones_like(ids)
    mask[:, 1000:] = 0
    with torch.no_grad():
        cut, padded = model(ids[:, :1000]).logits, model(ids, mask).logits[:, :1000]
    assert torch.isfinite(cut).all() and cut.shape[1] == 1000
    if name == "gena-sparse":
        torch.testing.assert_close(cut, padded, atol=1e-4, rtol=1e-4)


def test_published_behaviour_is_an_option(toys):
    model = load_model(toys["gena-bigbird"])
    modern = load_model(toys["gena-bigbird"], changes={"quirks": ["zero_random_blocks"]})
    ids = torch.randint(5, 90, (1, 900))
    with torch.no_grad():
        assert (model(ids).logits - modern(ids).logits).abs().max() > 1e-3
        assert torch.equal(model(ids[:, :700]).logits, modern(ids[:, :700]).logits), "a short input is attended fully"


@pytest.mark.parametrize("name", ["gena-bert", "dnabert2", "dnabert6", "nt-v2"])
@pytest.mark.parametrize("pattern", ["sliding", "block_sparse"])
def test_any_family_takes_another_attention(toys, name, pattern):
    attention = {"pattern": pattern, "window": 16, "block_size": 8, "global_every": None, "num_random_blocks": 1}
    model, full = load_model(toys[name], changes={"attention": attention}), load_model(toys[name])
    assert (model.encoder.layers[0].attention.layout is None) == (pattern == "sliding")
    ids = torch.randint(6, 90, (1, 200))
    with torch.no_grad():
        assert (model(ids).logits - full(ids).logits).abs().max() > 1e-4
        torch.testing.assert_close(model(ids[:, :5]).logits, full(ids[:, :5]).logits, atol=1e-5, rtol=1e-5)


def test_changes_that_are_refused(toys):
    with pytest.raises(ConfigError, match=r"hiden_dropout.*did you mean 'hidden_dropout'"):
        load_model(toys["nt-v1"], changes={"hiden_dropout": 0.1})
    with pytest.raises(ConfigError, match=r"unknown quirk 'zero_paddin' .did you mean 'zero_padding'"):
        load_model(toys["nt-v1"], changes={"quirks": ["zero_paddin"]})
    with pytest.raises(CheckpointError, match="mis-shaped"):
        load_model(toys["nt-v1"], changes={"intermediate_size": 99})


BINS = {"kind": "bin", "problem": "counts", "num_outputs": 2, "bin_token_id": 2}


@pytest.mark.parametrize("name", [name for name in TOYS if not name.startswith("gena-") or name == "gena-bigbird"])
@pytest.mark.parametrize("head", [BINS, {**BINS, "kind": "sequence", "problem": "regression", "bin_token_id": None}])
def test_heads_that_a_published_format_lacks_are_refused_on_export(name, head, tmp_path):
    if name == "dnabert6" and head is BINS:
        pytest.skip("BERT's format is GENA's, which has bins")
    vocab_size = 4101 if name == "dnabert6" else 64
    config = LongstrandConfig(**TOYS[name], vocab_size=vocab_size, heads={"one": head})
    with pytest.raises(CheckpointError, match="cannot express"):
        export_published(MODELS[head["kind"]](config), tmp_path)
    assert not list(tmp_path.iterdir())


def test_quirks_are_added_once(toys):
    model = load_model(toys["nt-v1"], changes={"quirks": ["token_dropout", "zero_padding"]})
    assert model.config.quirks == ["positions_after_padding", "token_dropout", "zero_padding"]
    assert import_published(toys["nt-v1"], quirks=("zero_padding",)).config.quirks == model.config.quirks


def test_a_hub_id_is_fetched_without_code(toys, monkeypatch):
    asked = []

    def download(name, allow_patterns, **_):
        asked.append((name, allow_patterns))
        return str(toys["nt-v1"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_model("InstaDeepAI/nt").config.family == "nt_v1"
    assert asked == [("InstaDeepAI/nt", ["*.json", "*.safetensors", "vocab.txt"])]


def test_legacy_weights_are_fetched_only_where_there_are_no_others(toys, changed, monkeypatch):
    folder, asked = changed("nt-v1"), []
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda _, allow_patterns: asked.append(allow_patterns) or str(folder)
    )
    assert load_model("zhihan1996/DNA_bert_6").config.family == "nt_v1"
    assert asked[1] == ["pytorch_model*.bin"]


def test_a_hub_id_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    words = r"some/model: no such folder, and it could not be fetched from the hub \(.*\); go online, or download"
    with pytest.raises(CheckpointError, match=words):
        load_model("some/model")


@pytest.mark.parametrize("name", ["no-such-folder", "a/b/c", "./some/model", "/some/model"])
def test_what_is_no_hub_id_asks_nobody(name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(name)


def test_damaged_settings(changed):
    folder = changed("nt-v1")
    (folder / "config.json").write_text("{")
    with pytest.raises(LongstrandError, match=r"config.json"):
        load_model(folder)


def test_buffers_of_half_precision_are_no_contradiction(toys, changed):
    name = "esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq"
    stored = load_file(toys["nt-v2"] / "model.safetensors")[name]
    for dtype in (torch.float16, torch.bfloat16):
        assert load_model(changed("nt-v2", tensors={name: stored.to(dtype)})).kind == "masked_lm"


def test_token_dropout_and_positions_by_hand(toys):
    config = load_model(toys["nt-v1"]).config
    ids, mask = torch.tensor([[7, 2, 9, 1], [7, 8, 9, 9]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    words = drop_masked_tokens(torch.ones(2, 4, 3), ids, mask, config=config, mask_row=torch.zeros(3))
    expected = [[0.88 * 3 / 2, 0.0, 0.88 * 3 / 2, 0.88 * 3 / 2], [0.88] * 4]
    torch.testing.assert_close(words[..., 0], torch.tensor(expected))
    assert count_positions(ids, mask, words, config).tolist() == [[2, 3, 4, 1], [2, 3, 4, 5]]


def test_numbers_that_are_not_finite(changed):
    folder = changed("nt-v1", tensors={"lm_head.bias": torch.full((4105,), torch.nan)})
    with pytest.raises(CheckpointError, match=r"not finite \(NaN or infinity\): lm_head.bias"):
        read_tensors(folder)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"positions": "learned", "max_position_embeddings": 40}, 40),
        ({"positions": "rotary"}, None),
        ({"positions": "alibi", "attention": {"pattern": "sliding"}}, None),
        ({"max_position_embeddings": 100, "attention": {"pattern": "block_sparse", "block_size": 16}}, 112),
        ({"attention": {"pattern": "block_sparse", "global_every": 1}}, None),
        ({"positions": "learned", "max_position_embeddings": 42, "pad_token_id": 1,
          "quirks": ["positions_after_padding"]}, 40),
    ],
)  # fmt: skip
def test_longest_input(changes, limit):
    assert longest_input(preset("tiny", vocab_size=9, **changes)) == limit


def test_what_a_user_calls_a_model(tmp_path, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "run" / "model")
    (tmp_path / "hub" / "models--acme--dna" / "refs").mkdir(parents=True)
    (tmp_path / "hub" / "models--acme--dna" / "refs" / "main").write_text("abc")
    shutil.copytree(folder, tmp_path / "hub" / "models--acme--dna" / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = load_tokenizer(folder).fingerprint
    for name in (folder, tmp_path / "run", "~/run", "acme/dna"):
        for model in (load_model(name), load_network(name)):
            assert model.tokenizer.fingerprint == load_tokenizer(name).fingerprint == expected
            assert model.reading is None
    assert load_model("mixed_6mer_1m", "encoder").tokenizer.vocab_size > 4096
    with pytest.raises(
        CheckpointError, match=r"mixed_6mer_2m: no such folder; .* a shipped checkpoint \(mixed_6mer_1m"
    ):
        load_model("mixed_6mer_2m")


def test_a_model_without_a_tokenizer_says_so(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "longstrand.json"):
        (folder / name).unlink()
    assert load_network(folder).tokenizer is None
    with pytest.raises(TokenizerError, match="model: this model has no tokenizer beside its weights; pass one"):
        load_network(folder).require_tokenizer()


def test_the_reading_record_comes_with_the_model(tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path / "model")
    model = load_model(folder)
    save_checkpoint(model, model.tokenizer, tmp_path / "read", reading=Reading(max_tokens=12, strand="both"))
    assert load_network(tmp_path / "read").reading == Reading(max_tokens=12, strand="both")
    head = {"problem": "regression", "num_outputs": 1}
    trained = load_model(tmp_path / "read", "sequence", new_head=head)
    assert trained.reading is None and not caplog.messages
    trained.save_pretrained(tmp_path / "weights alone")
    assert load_network(tmp_path / "weights alone").reading is None
    assert ["longstrand.json is missing, which says how training" in text for text in caplog.messages] == [True]


def test_weights_that_changed_since_loading_are_not_read_from_the_folder(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    head = {"problem": "regression", "num_outputs": 1}
    for model in (load_model(folder), load_model(folder, "sequence", new_head=head), load_network(folder, "encoder")):
        assert stored_folder(model) == stored_folder(folder) == folder
        next(model.parameters()).data += 1
        with pytest.raises(UsageError, match=r"the loaded model has other weights than this folder .*; save it first"):
            stored_folder(model)


def test_class_names_go_both_ways(tmp_path):
    head = {"kind": "sequence", "problem": "single_label", "num_outputs": 2, "class_names": ["TATA", "other"]}
    heads = {"sequence": {**head, "pooling": "cls", "form": "pooler"}}
    size = {"norm": "post", "positions": "learned", "type_vocab_size": 2, "heads": heads}
    model = MODELS["sequence"](preset("tiny", vocab_size=23, **size))
    export_published(model, tmp_path, "bert")
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["id2label"] == {"0": "TATA", "1": "other"} and stored["label2id"] == {"TATA": 0, "other": 1}
    assert load_model(tmp_path).config.head("sequence").class_names == ["TATA", "other"]
    assert load_model(tmp_path).config.id2label == {0: "TATA", 1: "other"}


def test_a_new_head_knows_special_tokens_and_automatic_types(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    model = load_model(folder, "sequence", new_head={"problem": "regression", "num_outputs": 1})
    assert model.config.head("sequence").special_token_ids == sorted(model.tokenizer.special_ids)
    load_model(folder, dtype="bfloat16").save_pretrained(tmp_path / "short")
    for dtype, expected in (("auto", torch.bfloat16), (torch.float32, torch.float32)):
        for name in ("dtype", "torch_dtype"):
            assert LongstrandForMaskedLM.from_pretrained(tmp_path / "short", **{name: dtype}).dtype == expected
    assert load_model(tmp_path / "short", dtype="auto").dtype == torch.bfloat16
    with pytest.raises(UsageError, match="unknown type of weights 'float23'"):
        load_model(folder, dtype="float23")


def test_the_encoder_of_a_model_can_be_saved(tmp_path):
    model = load_model(tiny_checkpoint(tmp_path / "model"))
    model.base_model.save_pretrained(tmp_path / "encoder")
    again = load_model(tmp_path / "encoder")
    assert again.kind == "encoder" and model.config.head("masked_lm") is not None
    with torch.no_grad():
        assert torch.equal(again(IDS % 20).last_hidden_state, model.encoder(IDS % 20).last_hidden_state)


def test_shards_are_those_of_their_index(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    (folder / "longstrand.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, folder / file)
    index = {name: file for file, some in parts.items() for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read_tensors(folder).items())
    save_file({"more": torch.zeros(1)}, folder / "model-00003-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"does not name: model-00003-of-00003.safetensors; remove them"):
        read_tensors(folder)
    (folder / "model-00003-of-00003.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": index | {"gone": next(iter(parts))}})
    )
    with pytest.raises(CheckpointError, match=r"in no part: gone"):
        read_tensors(folder)
