"""Seeds as one model: the mean of logits, their spread, attributions, and what is no ensemble."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import longstrand as ls
from longstrand.errors import CheckpointError, UsageError
from longstrand.models.ensemble import Ensemble
from longstrand.models.reading import Reading
from longstrand.questions.scores import scorer
from longstrand.tokenization.kmer import make_kmer
from tests.designs.test_design import model_of
from tests.explain.test_attribution import Additive
from tests.explain.test_attribution import model_of as random_of

TEXTS = ["ACGTTGCAACGTACCG", "TTGACCA", "GG"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensemble")
    return [model_of(root / f"seed{seed}", seed) for seed in range(3)]


def test_mean_and_spread_are_those_of_the_members(folders, tmp_path):
    """Whatever the batch and the strands; a file has a column for each."""
    each = np.stack([ls.predict(folder, TEXTS, output="logits", strand="both") for folder in folders])
    ensemble = ls.load_model(folders)
    assert isinstance(ensemble, Ensemble) and ensemble.reading.class_names == ("low", "mid", "high")
    np.testing.assert_allclose(ls.predict(ensemble, TEXTS, output="logits", strand="both"), each.mean(0), atol=1e-5)
    np.testing.assert_allclose(scorer(ensemble, strand="both", output="mid")(TEXTS), each.mean(0)[:, 1:2], atol=1e-5)
    found = list(ls.iter_predict(folders, TEXTS, strand="both", temperature=2.0))
    shares = 1 / (1 + np.exp(-each / 2))
    np.testing.assert_allclose([one.values for one in found], 1 / (1 + np.exp(-each.mean(0) / 2)), atol=1e-5)
    np.testing.assert_allclose([one.spread for one in found], shares.std(0, ddof=1), atol=1e-5)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    ls.predict_file(",".join(map(str, folders)), tmp_path / "texts.txt", tmp_path / "out.csv", strand="both")
    table = pl.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(table["probability_2"], 1 / (1 + np.exp(-each.mean(0)[:, 2])), atol=1e-5)
    np.testing.assert_allclose(
        table["spread_probability_2"], (1 / (1 + np.exp(-each[..., 2]))).std(0, ddof=1), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["token", "bin"])
def test_values_of_bases_and_bins(kind):
    members = []
    for scale in (1.0, 2.0):
        model = random_of(kind)
        for parameter in model.classifier.parameters():
            parameter.data *= scale
        members.append(model)
    alone = [ls.predict_bases(one, TEXTS[:1], output="logits", strand="both")[0] for one in members]
    (found,) = ls.iter_predict(Ensemble(members), TEXTS[:1], output="logits", strand="both")
    np.testing.assert_allclose(found.values, np.mean(alone, 0), atol=1e-5)
    np.testing.assert_allclose(found.spread, np.std(alone, 0, ddof=1), atol=1e-5)


@pytest.mark.parametrize("method", ["ig", "gradient", "occlusion", "ism"])
def test_attributions_are_the_mean_of_the_members(folders, method):
    """Of different sizes too: by hand on sums of token weights."""
    tokenizer = make_kmer(1)
    ensemble = Ensemble([Additive(tokenizer, A=4.0, C=1.0), Additive(tokenizer, A=2.0, T=3.0)])
    (found,) = ls.attribute(ensemble, "ACT", method=method, baseline="pad") if method in ("ig", "gradient") else (
        ls.attribute(ensemble, "ACT", method=method))  # fmt: skip
    if method != "ism":
        np.testing.assert_allclose(found.values, [3.0, 0.5, 1.5], atol=1e-5)
    model = ls.load_model(folders)
    options = {"target": "high", "method": method}
    (found,) = ls.attribute(model, TEXTS[0], **options)
    each = [ls.attribute(folder, TEXTS[0], **options)[0].values for folder in folders]
    np.testing.assert_allclose(found.values, np.mean(each, 0), atol=2e-3 if method == "ig" else 1e-5)


def test_temperatures_of_single_models_are_spoken_of_where_none_replaces_them(folders, caplog, recwarn):
    """Not where one is given, nor where probabilities are not asked for."""
    members = [ls.load_model(folder) for folder in folders[:2]]
    members[0].reading = members[0].reading.model_copy(update={"temperature": 2.0})
    ensemble = Ensemble(members)
    first = ls.predict(ensemble, TEXTS, temperature=3.0)
    ls.predict(ensemble, TEXTS, output="logits")
    ls.attribute(ensemble, TEXTS[0], target=0, method="gradient")
    assert not recwarn.list and not caplog.records
    with pytest.warns(UserWarning, match="temperatures of single models are not that of their ensemble"):
        ls.predict(ensemble, TEXTS)
    ensemble.reading = ensemble.reading.model_copy(update={"temperature": 3.0})
    np.testing.assert_array_equal(ls.predict(ensemble, TEXTS), first)
    assert len(recwarn.list) == 0


def test_what_is_no_ensemble(folders):
    with pytest.raises(UsageError, match="at least two"):
        ls.load_model(folders[:1])
    with pytest.raises(UsageError, match="one model is named twice"):
        ls.load_model([*folders, folders[0]])
    with pytest.raises(CheckpointError, match="other tokenizer"):
        Ensemble([Additive(make_kmer(1)), Additive(make_kmer(2))])
    other = Additive(make_kmer(1))
    other.reading = Reading(strand="both")
    with pytest.raises(CheckpointError, match="other strand"):
        Ensemble([Additive(make_kmer(1)), other])
    with pytest.raises(UsageError, match="of the kind masked_lm"):
        Ensemble([random_of("masked_lm"), random_of("masked_lm")])
    with pytest.raises(UsageError, match="no states"):
        ls.embed(folders, TEXTS)
    with pytest.raises(UsageError, match="temperature is for"):
        ls.predict(Ensemble([Additive(make_kmer(1)), Additive(make_kmer(1))]), TEXTS, temperature=2.0)
    with pytest.raises(UsageError, match="no transforms of signal tracks"):
        ls.predict(Ensemble([Additive(make_kmer(1)), Additive(make_kmer(1))]), TEXTS, scale="trained")
