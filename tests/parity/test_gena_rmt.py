"""GENA-LM's and the RMT repository's recurrent memory: published outputs of tiny random models.

Covered: segments, memory after each step, states, logits, losses, gradient norms of the three encoder classes, and of
the per-bin head. The decoder's folder (``rmt_repo_decoder_gpt2``) has a causal backbone, which is none of ours: its
cutting is compared here, and its recurrence, with another cell, in ``tests/models/test_recurrence.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from longstrand.models.memory.segments import segment_lengths
from longstrand.models.pretrained import MODELS
from longstrand.models.published.families import FAMILIES
from longstrand.models.published.to_ours import import_published, published_name
from longstrand.models.strict_load import check_weights

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
CONTENT = {"cls_token_id": 1, "sep_token_id": 2}


class Golden:
    """A golden folder: its arrays, and models made of its weights."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            pytest.skip(f"no golden outputs in {folder.name}")
        self.folder = folder
        self.expected = {name: torch.from_numpy(np.asarray(value)) for name, value in
                         np.load(folder / "expected.npz").items()}  # fmt: skip

    def model(self, kind: str, quirks: tuple[str, ...] = (), head: dict | None = None, **memory):
        imported = import_published(self.folder, quirks=quirks)
        config = imported.config.replace(memory={**dict(imported.config.memory), **memory})
        if head is not None:
            config = config.replace(heads={kind: {**dict(next(iter(config.heads.values()))), **head}})
        fitted = check_weights(config, imported.tensors, kind, where=self.folder.name, problems=imported.problems)
        return MODELS[kind].from_checked(fitted).eval()

    def batch(self, most: int | None = None) -> dict[str, torch.Tensor]:
        """Give ids and mask; ``most`` content tokens are kept from the left, as the published codes silently do."""
        rows = [row[~torch.isin(row, torch.tensor([1, 2, 3]))] for row in self.expected["input_ids"]]
        rows = [torch.cat((torch.tensor([1]), row[:most], torch.tensor([2]))) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=3)
        return {"input_ids": ids, "attention_mask": (ids != 3).long()}

    def check_gradients(self, model, prefix: str) -> None:
        """Compare the norm of every gradient; the published word embedding holds the memory in its last rows."""
        norms = {name.removeprefix(prefix + "model."): float(value) for name, value in self.expected.items()
                 if name.startswith(prefix)}  # fmt: skip
        squares = dict.fromkeys(norms, 0.0)
        family = FAMILIES[model.config.family]
        grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        memory = grads.pop("encoder.memory.initial", None)
        words = grads["encoder.embeddings.word_embeddings.weight"]
        if memory is not None and model.config.vocab_size > 64:
            words[64:] += memory
        elif memory is not None:
            squares["bert.embeddings.word_embeddings.weight"] = memory.double().square().sum().item()
        for name, gradient in grads.items():
            squares[published_name(family, name)] += gradient.double().square().sum().item()
        for name, norm in norms.items():
            if not name.endswith("self.key.bias"):
                assert squares[name] ** 0.5 == pytest.approx(norm, rel=1e-3, abs=1e-6), name


def steps(golden: Golden, model, segments: torch.Tensor, prefix: str = "") -> None:
    """Stream the published segments of each row and compare memory, states at the content tokens and logits."""
    number = len(segments)
    for row in range(segments.shape[1]):
        first = next(step for step in range(number) if segments[step, row, 0] >= 0)
        pieces = [piece[(piece > 4) & (piece < 64) | (piece == 4)][None] for piece in segments[first:, row]]
        for step, output in zip(range(first, number), model.stream(pieces)):
            place = int((segments[step, :row, 0] >= 0).sum())
            written = golden.expected[f"{prefix}step{step}/memory_written"][place]
            torch.testing.assert_close(output.memory[0], written, **CLOSE)
            if f"{prefix}step{step}/last_hidden" in golden.expected:
                theirs = golden.expected[f"{prefix}step{step}/last_hidden"][place]
                torch.testing.assert_close(output.cls_state[0], theirs[0], **CLOSE)
                content = theirs[5 : 5 + pieces[step - first].shape[1]]
                torch.testing.assert_close(output.last_hidden_state[0], content, **CLOSE)
            logits = golden.expected[f"{prefix}step{step}/logits"][place]
            if model.kind == "sequence":
                torch.testing.assert_close(output.logits[0], logits, **CLOSE)
            elif model.kind == "masked_lm":
                ours = output.logits[0, :, :64]
                torch.testing.assert_close(ours, logits[5 : 5 + ours.shape[0], :64], **CLOSE)


@pytest.fixture(scope="module")
def seqcls(shared: Path) -> Golden:
    return Golden(shared / "golden" / "gena" / "rmt_gena_seqcls")


def test_import_takes_the_wrapper_off(seqcls):
    model = seqcls.model("sequence")
    assert model.config.vocab_size == 64 and model.config.family == "gena_bert"
    assert model.config.memory.num_tokens == 3 and model.config.memory.segment_length == 16
    assert model.encoder.memory.initial.shape == (3, 64)
    assert not [name for name in model.state_dict() if name.startswith(("model.", "mem"))]


def test_gena_classifier_memory_states_and_logits_of_each_step(seqcls):
    model = seqcls.model("sequence", ("unk_segment_padding",))
    steps(seqcls, model, seqcls.expected["segments_input_ids"])


OPTIONS = {
    "lastloss": {"loss": "last"},
    "sumloss": {"loss": "all"},
    "lastloss_bptt0": {"loss": "last", "bptt_depth": 0},
    "lastloss_bptt1": {"loss": "last", "bptt_depth": 1},
    "sumloss_bptt1": {"loss": "all", "bptt_depth": 1},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_gena_classifier_losses_and_gradients(seqcls, option):
    quirks = ("unk_segment_padding", "published_bptt", "mean_of_step_losses")
    model = seqcls.model("sequence", quirks, **OPTIONS[option])
    output = model(**seqcls.batch(most=40), labels=seqcls.expected["labels"])
    torch.testing.assert_close(output.logits, seqcls.expected[f"{option}/logits"], **CLOSE)
    torch.testing.assert_close(output.loss, seqcls.expected[f"{option}/loss"], rtol=1e-5, atol=1e-6)
    output.loss.backward()
    seqcls.check_gradients(model, f"{option}/gradnorm/")
    gradient = model.encoder.memory.initial.grad
    ours = torch.zeros(3) if gradient is None else gradient.norm(dim=1)
    torch.testing.assert_close(ours, seqcls.expected[f"{option}/grad_mem_rows"], rtol=1e-3, atol=1e-6)


def test_without_the_quirk_the_initial_memory_trains_at_every_depth(seqcls):
    for option in (name for name in OPTIONS if "bptt" in name):
        model = seqcls.model("sequence", ("unk_segment_padding",), **OPTIONS[option])
        model(**seqcls.batch(most=40), labels=seqcls.expected["labels"]).loss.backward()
        assert (model.encoder.memory.initial.grad.norm(dim=1) > 1e-3).all(), option


def test_padding_is_right_by_default(seqcls):
    right, published = seqcls.model("sequence"), seqcls.model("sequence", ("unk_segment_padding",))
    batch = seqcls.batch(most=40)
    alone = right(input_ids=batch["input_ids"][1:2, :14]).logits[0]
    torch.testing.assert_close(right(**batch).logits[1], alone, atol=1e-5, rtol=1e-5)
    assert (right(**batch).logits[1] - published(**batch).logits[1]).abs().max() > 1e-2


@pytest.fixture(scope="module")
def repository(shared: Path) -> Golden:
    return Golden(shared / "golden" / "gena" / "rmt_repo_encoder_seqcls")


@pytest.mark.parametrize("loss", ["last", "sum"])
@pytest.mark.parametrize("split", ["right", "left", "center"])
def test_repository_classifier(repository, split, loss):
    ours = {"split": "centre" if split == "center" else split, "loss": "all" if loss == "sum" else "last"}
    model = repository.model("sequence", ("mean_of_step_losses",), **ours)
    name = f"{split}_{loss}"
    if loss == "last":
        steps(repository, model, repository.expected[f"{name}/segments_input_ids"], f"{name}/")
    output = model(**repository.batch(most=40), labels=repository.expected["labels"])
    torch.testing.assert_close(output.logits, repository.expected[f"{name}/logits"], **CLOSE)
    torch.testing.assert_close(output.loss, repository.expected[f"{name}/loss"], rtol=1e-5, atol=1e-6)
    output.loss.backward()
    repository.check_gradients(model, f"{name}/gradnorm/")


@pytest.fixture(scope="module")
def masked(shared: Path) -> Golden:
    return Golden(shared / "golden" / "gena" / "rmt_repo_encoder_mlm")


def test_repository_masked_lm(masked):
    quirks = ("mean_of_step_losses", "memory_in_vocabulary")
    model = masked.model("masked_lm", quirks, split="right")
    assert model.config.vocab_size == 67
    steps(masked, model, masked.expected["segments_input_ids"])
    output = model(**_real(masked), labels=masked.expected["labels"])
    torch.testing.assert_close(output.loss, masked.expected["loss"], rtol=1e-5, atol=1e-6)
    output.loss.backward()
    masked.check_gradients(model, "gradnorm/")


def test_masked_lm_logits_at_the_tokens_own_places(masked):
    model = masked.model("masked_lm", split="right")
    with torch.no_grad():
        logits = model(**_real(masked)).logits
    assert logits.shape == (2, 40, 64)
    for row, length in ((0, 37), (1, 14)):
        theirs = []
        for step in range(4):
            ids = masked.expected["segments_input_ids"][step, row]
            if ids[0] < 0:
                continue
            place = int((masked.expected["segments_input_ids"][step, :row, 0] >= 0).sum())
            own = (ids[5:] != 3) & (ids[5:] != 2)
            theirs.append(masked.expected[f"step{step}/logits"][place, 5:][own, :64])
        torch.testing.assert_close(logits[row, 1 : length - 1], torch.cat(theirs), **CLOSE)


def _real(golden: Golden) -> dict[str, torch.Tensor]:
    ids = golden.expected["input_ids"]
    return {"input_ids": ids, "attention_mask": (ids != 3).long()}


def test_bins_of_the_enformer_head(shared):
    golden = Golden(shared / "golden" / "gena" / "enformer_head")
    expected = golden.expected
    imported = import_published(golden.folder)
    assert imported.config.heads["bin"].problem == "counts"
    model = MODELS["bin"].from_checked(check_weights(imported.config, imported.tensors, "bin", where="golden")).eval()
    labels = torch.where(expected["labels_mask"][..., None], expected["labels"], torch.nan)
    batch = {name: expected[name] for name in ("input_ids", "attention_mask", "bins_mask")}
    output = model(**batch, labels=labels)
    present = ~output.logits.isnan().any(-1)
    torch.testing.assert_close(output.logits[present], expected["logits_before_softplus"], **CLOSE)
    torch.testing.assert_close(torch.nn.functional.softplus(output.logits[present]), expected["pred"], **CLOSE)
    torch.testing.assert_close(output.loss, expected["loss"], rtol=1e-5, atol=1e-6)
    output.loss.backward()
    for name, parameter in model.named_parameters():
        theirs = f"gradnorm/{published_name(FAMILIES['gena_bert'], name)}"
        if not theirs.endswith("self.key.bias"):
            assert parameter.grad.double().norm().item() == pytest.approx(float(expected[theirs]), rel=1e-3), name


def test_bins_with_memory(shared):
    golden = Golden(shared / "golden" / "gena" / "rmt_gena_enformer")
    expected = golden.expected
    model = golden.model("bin", ("mean_of_step_losses",))
    assert model.config.memory.bins_per_segment == 3 and model.config.memory.split == "left"
    labels = torch.where(expected["labels_mask"][..., None], expected["labels"], torch.nan)
    output = model(**_real(golden), bins_mask=expected["bins_mask"], labels=labels)
    theirs = [[], []]
    for step in range(3):
        logits = expected[f"step{step}/logits"]
        counts = (expected["segments_bins_mask"][step] == 1).sum(1).tolist()
        for row, count in enumerate(counts):
            begin = sum(counts[:row])
            theirs[row].append(logits[begin : begin + count])
    for row, pieces in enumerate(theirs):
        whole = torch.cat(pieces)
        torch.testing.assert_close(output.logits[row, : len(whole)], whole, **CLOSE)
        assert output.logits[row, len(whole) :].isnan().all()
    memory = model.encoder(**_real(golden)).memory
    torch.testing.assert_close(memory, expected["step2/memory_written"], **CLOSE)
    torch.testing.assert_close(output.loss, expected["loss"], rtol=1e-5, atol=1e-6)
    output.loss.backward()
    golden.check_gradients(model, "gradnorm/")


def test_segments_of_the_decoder(shared):
    golden = Golden(shared / "golden" / "gena" / "rmt_repo_decoder_gpt2")
    room = json.loads((golden.folder / "config.json").read_text())["rmt"]["segment_size"]
    length = golden.expected["input_ids"].shape[1]
    for name, ours in (("left", "left"), ("right", "right"), ("center", "centre")):
        assert segment_lengths(length, room, ours) == golden.expected[f"{name}/segment_lengths"].tolist()
