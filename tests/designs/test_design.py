"""Designs by hand: a score that counts letters or motifs, rules that hold whatever the strategy, and continuing."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import longstrand as ls
from longstrand.cli.main import main
from longstrand.designs import jobs
from longstrand.designs.checks import nearest
from longstrand.designs.rules import Rules
from longstrand.errors import ConfigError, InputError, ResumeError, SequenceError, UsageError
from longstrand.evaluation.leakage import sketch
from longstrand.genome.sequence import gc_fraction, reverse_complement
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForSequenceClassification
from longstrand.models.reading import Reading
from longstrand.tokenization.kmer import make_kmer

START = "ACGTTGCAACGTACCGTTAGCATTGACCAGTACGGATCACGTTGCA"
STRATEGIES = ("greedy", "beam", "evolve")


def near_gata(texts):
    """Score 1 when GATA is there; else a quarter for each letter of the best match."""
    best = [max(sum(a == b for a, b in zip(text[i:], "GATA")) for i in range(len(text) - 3)) for text in texts]
    return np.array(best, dtype=np.float32)[:, None] / 4


def letters(texts):
    """Three outputs: the number of A, C and G."""
    return np.array([[text.count(base) for base in "ACG"] for text in texts], dtype=np.float32)


def test_greedy_finds_a_motif_with_the_fewest_edits():
    """GTTA and GATC are there: one edit makes GATA, of equals the first, and nothing is better."""
    (found,) = ls.design(near_gata, START)
    assert found.edits == ("17T>A",) and found.sequence[15:19] == "GATA"
    assert (found.values["score_start"], found.score) == (0.75, 1.0)
    assert found.trace["best"].to_list() == [0.75, 1.0, 1.0]
    assert found.trace["forwards"].to_list() == [1, 1 + 3 * 46, 1 + 6 * 46 - 3]  # the edited base is left alone
    assert found.row()["changes"] == "17T>A"


def test_beam_leaves_a_trap():
    """A C at base 1 is worth 1 at once; G at both of the first two bases 5, but one G alone less than nothing."""

    def trap(texts):
        return np.array([[5.0 if t[:2] == "GG" else (t[0] == "C") - 0.5 * (t[:2].count("G"))] for t in texts])

    greedy, beam = (ls.design(trap, "ATTTTTTT", strategy=name, **more)[0] for name, more in
                    [("greedy", {}), ("beam", {"width": 30, "patience": 3})])  # fmt: skip
    assert (greedy.score, beam.score) == (1.0, 5.0)
    assert beam.edits == ("1A>G", "2T>G")


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({"target": 1}, 24), ({"target": 0, "lower": True}, 0), ({"target": 1, "reach": 15.0}, 15),
        ({"target": 1, "against": (0, 2)}, 24), ({"target": 1, "against": "0", "max_edits": 2}, 0),
        ({"target": 1, "hold": "0"}, 16),
    ],
)  # fmt: skip
def test_what_is_wanted(options, score):
    """8 A, 4 C, 6 G, 6 T. All C; no A; 15 C; C and nothing else; two A become C; G and T become C, and A stays."""
    assert ls.design(letters, "AAAAAAAACCCCGGGGGGTTTTTT", **options)[0].score == score


def test_outputs_that_do_not_go_together():
    for options, message in [
        ({"target": 3}, "no output 3"), ({"target": "promoter"}, "numbers from 0"),
        ({"target": 1, "hold": (1,)}, "cannot be held"), ({"strategy": "gradient"}, "beam"),
        ({"strategy": "lm"}, "--prior"), ({"strand": "both"}, "for models"),
        ({"width": 4}, "width is for the strategy beam or evolve"), ({"fixed": "3-99"}, "end after"),
        ({"forbidden": "GAXTC"}, "IUPAC"), ({"motifs": "GATW"}, "A, C, G and T"), ({"gc": "0.6-0.4"}, "no range"),
        ({"keep": 4}, "greedy has one"), ({"reach": np.inf}, "finite"), ({"fixed": [(3, 1)]}, "are none"),
        ({"target": 1, "hold": 1}, "cannot be held"),
    ]:  # fmt: skip
        with pytest.raises((UsageError, ConfigError), match=message):
            ls.design(letters, START, **options)
    with pytest.raises(ConfigError, match="max_edits"):
        ls.design(letters, START, max_edit=3)
    with pytest.raises(InputError, match="shape"):
        ls.design(lambda texts: np.zeros((2, 3, 4)), START)
    with pytest.raises(InputError, match="no number"):
        ls.design(lambda texts: np.full((len(texts), 1), np.nan), START)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ({"fixed": "1-46"}, ["all 46 bases"]),
        ({"fixed": "35-38", "forbidden": "GATC"}, ["fixed (4 bases)", "forbidden (GATC)"]),
        ({"max_edits": 2, "gc": "0.9-1"}, ["max_edits (2)", "gc (0.9-1)"]),
        ({"fixed": "1-40", "gc": "0.9-1"}, ["fixed (40 bases)", "gc (0.9-1)"]),
        ({"motifs": "GGGGTTTT", "max_edits": 1}, ["max_edits (1)", "motifs (GGGGTTTT)"]),
        ({"motifs": "CCGAATTCCC", "forbidden": "EcoRI", "gc": "0.3-0.7"}, ["forbidden (GAATTC)", "motifs"]),
        ({"motifs": "ACGT" * 12}, ["motifs", "alone"]),
        ({"forbidden": "S", "gc": "0.2-1"}, ["gc", "forbidden (S)"]),
    ],
)
def test_impossible_rules_name_the_two_and_score_nothing(rules, names):
    def score(texts):
        raise AssertionError("scored")

    with pytest.raises(UsageError) as error:
        ls.design(score, START, **rules)
    assert all(name in str(error.value) for name in names)


def obeys(start, text, options):
    """Check the rules without the code that is tested."""
    edits = sum(a != b for a, b in zip(start, text))
    both = (text, reverse_complement(text))
    low, high = options["gc"]
    fixed = all(start[i] == text[i] for a, b in options["fixed"] for i in range(a, b))
    return (
        len(text) == len(start) and edits <= options["max_edits"] and fixed and low <= gc_fraction(text) <= high
        and not any(word in one for word in options["forbidden"] for one in both)
        and all(any(word in one for one in both) for word in options["motifs"])
    )  # fmt: skip


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    start=some.text("ACGT", min_size=12, max_size=30), strategy=some.sampled_from(STRATEGIES),
    max_edits=some.integers(1, 12), gc=some.sampled_from([(0.0, 1.0), (0.3, 0.6), (0.5, 0.5)]),
    fixed=some.lists(some.integers(0, 8).map(lambda i: (i, i + 3)), max_size=2),
    forbidden=some.lists(some.text("ACGT", min_size=2, max_size=4), max_size=2),
    motifs=some.lists(some.text("ACGT", min_size=1, max_size=5), max_size=2), seed=some.integers(0, 9),
)  # fmt: skip
def test_every_design_obeys(start, strategy, max_edits, gc, fixed, forbidden, motifs, seed):
    rules = {"max_edits": max_edits, "gc": gc, "fixed": tuple(fixed), "forbidden": tuple(forbidden)}
    rules["motifs"] = tuple(motifs)
    try:
        found = ls.design(near_gata, [start], strategy=strategy, rounds=3, seed=seed, target=0, **rules,
                          **({} if strategy == "greedy" else {"width": 6}))  # fmt: skip
    except UsageError as error:
        assert "can obey" in str(error) or "all" in str(error)
        return
    assert found and all(obeys(start, one.sequence, rules) for one in found)
    assert len({one.sequence for one in found}) == len(found)


def test_repair_and_iupac():
    """GAATTC falls with one edit; RYRY means eight words on either strand."""
    rules = Rules("ACGAATTCGT", np.zeros(10, bool), forbidden=("GAATTC",))
    text, _ = rules.prepare()
    assert rules.broken("ACGAATTCGT") == {"forbidden": 1} and not rules.broken(text) and len(rules.edits(text)) == 1
    wide = Rules("ACGTCCCC", np.zeros(8, bool), forbidden=("RYRY",))
    assert wide.broken("ACGTCCCC") == {"forbidden": 1} and wide.broken("ACGTGTCC") == {"forbidden": 2}


def test_a_repair_goes_on_where_the_score_wants_the_start():
    """Every edit costs; GC of one half and no GAATTC are reached all the same, with three edits of ten bases."""
    start = "AAGAATTCAA"

    def same(texts):
        return np.array([[sum(a == b for a, b in zip(text, start))] for text in texts], dtype=np.float32)

    (found,) = ls.design(same, start, gc=(0.5, 0.5), forbidden="EcoRI")
    assert len(found.edits) == 3 and gc_fraction(found.sequence) == 0.5 and "GAATTC" not in found.sequence


def model_of(folder, seed=0, k=1):
    """Save a tiny classifier of three outputs with random weights."""
    import torch

    torch.manual_seed(seed)
    tokenizer = make_kmer(k, overlapping=False)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    head = {"kind": "sequence", "problem": "multi_label", "num_outputs": 3, "special_token_ids": [0, 1, 2, 3, 4]}
    config = preset("tiny", **size, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_token_id,
                    initializer_range=0.6, heads={"main": head})  # fmt: skip
    model = LongstrandForSequenceClassification(config)
    return save_checkpoint(model, tokenizer, folder, reading=Reading(class_names=("low", "mid", "high")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Give two seeds of a classifier, a masked LM with the same letters, and starts."""
    from tests.toys import tiny_checkpoint

    root = tmp_path_factory.mktemp("design")
    for seed in (0, 1):
        model_of(root / f"seed{seed}", seed)
    tiny_checkpoint(root / "lm", k=1)
    (root / "starts.fa").write_text(f">one\n{START}\n>two\n{START[::-1]}\n")
    return root


def test_gradient_by_hand(folders):
    """A sum of letter weights: the gradient goes to the best letter at once; a fixed base and an N stay."""
    from tests.explain.test_attribution import Additive

    model = Additive(make_kmer(1, overlapping=False), A=1.0, C=2.0, G=4.0, T=0.5)
    found = ls.design(model, "ACTNACGA", strategy="gradient", fixed="1-1", rounds=4)
    assert (found[0].sequence, found[0].score) == ("AGGNGGGG", 25.0)
    assert found[0].trace["forwards"].to_list() == [1 + 480 * i for i in range(5)]
    minus = ls.design(model, "ACTNACGA", strategy="gradient", rounds=4, strand="-")
    assert minus[0].sequence == "CCCNCCCC"
    for wrong, message in [(Additive(make_kmer(2)), "single bases"), (load_model(folders / "lm"), "masked LMs")]:
        with pytest.raises(UsageError, match=message):
            ls.design(wrong, "ACGTACGT", strategy="gradient")


@pytest.mark.parametrize("k", [1, 2])
def test_the_language_model_refills(folders, tmp_path, k):
    """Only free bases change, the score rises, and where the LM knows nothing but A, everything becomes A."""
    import torch

    from tests.toys import tiny_checkpoint

    prior = load_model(tiny_checkpoint(tmp_path / "lm", k=k), head="masked_lm")
    found = ls.design(letters, START, target=2, strategy="lm", prior=prior, rounds=6, width=6, fixed="1-20")
    assert found[0].score > found[0].values["score_start"] and found[0].sequence[:20] == START[:20]
    assert {"likelihood_start", "likelihood"} <= set(found[0].values)
    with torch.no_grad():
        prior.lm_head.decoder.bias[prior.tokenizer.vocab["A" * k]] = 1e3
    found = ls.design(lambda texts: np.zeros((len(texts), 1)), "ACGATAAC", strategy="lm", prior=prior, rounds=40,
                      width=2, patience=40, keep=60)  # fmt: skip
    assert "A" * 8 in [one.sequence for one in found]


OPTIONS = {"max_edits": 6, "target": "high", "against": "low", "rounds": 4, "forbidden": "GATC"}


@pytest.mark.parametrize(
    "strategy",
    ["greedy", "beam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("evolve", "gradient", "lm"))],
)
def test_a_killed_design_goes_on_with_the_same_bytes(folders, tmp_path, monkeypatch, strategy):
    more = OPTIONS | {"strategy": strategy} | ({} if strategy == "greedy" else {"width": 4})
    paths = folders / "seed0", folders / "starts.fa"
    more |= {"prior": folders / "lm"} if strategy == "lm" else {}
    ls.design_file(*paths, tmp_path / "whole", **more)
    calls, step = [], jobs.Search.step

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(jobs.Search, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        ls.design_file(*paths, tmp_path / "parts", **more)
    done = ls.design_file(*paths, tmp_path / "parts", **more)
    whole = [path for path in sorted((tmp_path / "whole").iterdir()) if path.suffix in (".tsv", ".fasta")]
    assert len(whole) == 3 and done.num_rows == 2
    assert all(path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes() for path in whole)
    assert ls.design_file(*paths, tmp_path / "parts", **more).already_finished
    if strategy == "greedy":
        with pytest.raises(ResumeError, match="max_edits"):
            ls.design_file(*paths, tmp_path / "parts", **more | {"max_edits": 5})


def test_the_command_and_its_checks(folders, tmp_path, capsys):
    """Fixed bases of a BED, a second seed, the language model and the training rows; the page says what fails."""
    (tmp_path / "fixed.bed").write_text("one\t0\t30\n")
    words = ["design", str(folders / "seed0"), str(folders / "starts.fa"), "--output", str(tmp_path / "out"),
             "--target", "high", "--max-edits", "3", "--forbidden", "EcoRI,GATC", "--fixed-bed",
             str(tmp_path / "fixed.bed"), "--check-model", str(folders / "seed1"), "--prior", str(folders / "lm"),
             "--train", str(folders / "starts.fa")]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith("cost: at most 610 forwards (2 starts of up to 46 bases")
    assert "wrote the designs of 2" in said
    table = pl.read_csv(tmp_path / "out" / "designs.tsv", separator="\t")
    assert table["sequence"][0][:30] == START[:30] and (table["edits"] <= 3).all()
    assert not table["sequence"].str.contains("GATC|GAATTC").any()
    assert (table["known_start"] == 1.0).all() and (table["known"] < 1).all()
    model = load_model(folders / "seed1")
    right = ls.predict(model, table["sequence"], output="logits")[:, 2]
    np.testing.assert_allclose(table["model2_score"], right, atol=1e-5)
    page = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["title"] for one in page["sections"]][:3] == [
        f"Start and design: {page['sections'][0]['region']['chrom']}", "The search",
        "The designs, and what speaks for and against them",
    ]  # fmt: skip
    assert (tmp_path / "out" / "designs.fasta").read_text().count(">") == 2
    with pytest.raises(SystemExit) as end:
        main([*words[:4], str(tmp_path / "other"), "--target", "hihg"])
    assert end.value.code and "did you mean 'high'" in capsys.readouterr().err
    (tmp_path / "starts.csv").write_text(f"id,sequence\na,{START}\n")
    (tmp_path / "train.csv").write_text(f"sequence,label\n{START},1\n")
    named = {"name_column": "id", "target": "high", "rounds": 1, "max_edits": 1}
    (one,) = ls.design(model, tmp_path / "starts.csv", train=tmp_path / "train.csv", **named)
    assert one.record.name == "a" and one.values["known_start"] == 1.0
    with pytest.raises(InputError, match="no interval of --fixed-bed"):
        ls.design(model, tmp_path / "starts.csv", fixed_bed=tmp_path / "fixed.bed", **named)
    (tmp_path / "wrong.csv").write_text("sequence\nACGL\n")
    with pytest.raises(InputError, match=r"wrong\.csv.*row 1.*'L'"):
        ls.design(model, tmp_path / "wrong.csv", target="high")


def test_models_beside_the_first_are_looked_at_before_the_search(folders):
    """One that reads less names the start, without advice that a question does not take; the model itself is none."""
    from longstrand.questions.scores import scorer

    model, short, said = load_model(folders / "seed0"), load_model(folders / "seed1"), []
    short.reading = short.reading.model_copy(update={"max_tokens": 10})
    options = {"target": "high", "max_edits": 1, "notice": said.append}
    with pytest.raises(InputError, match=r"^sequence 1: 46 bases are 48 tokens.*10 at most; use shorter .* windows\.$"):
        ls.design(model, [START], check_models=[short], **options)
    with pytest.raises(UsageError, match="this model itself"):
        ls.design(model, [START], check_models=[folders / "seed1", model], **options)
    assert not said
    with pytest.raises(SequenceError, match=r"^sequence 2: 46 bases are 48 tokens") as error:
        scorer(short)(["ACGT", START])
    assert (error.value.row, "--truncate" in str(error.value)) == (1, False)


def bpe_model(seed, max_tokens):
    from longstrand.models.networks import SequenceClassification
    from tests.questions.test_questions import bpe, random_model

    head = {"kind": "sequence", "problem": "multi_label", "num_outputs": 3}
    model = random_model(SequenceClassification, bpe(), heads={"main": head}, max_position_embeddings=64)
    model.reading = Reading(max_tokens=max_tokens, strand="both")
    for parameter in model.parameters():
        parameter.data += 0.1 * seed
    return model


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("beside", [False, True])
def test_edits_that_make_too_many_tokens_are_left_out(strategy, beside):
    """The start has 8 + 2 tokens on either strand, so few edits fit; of two models the one that reads less decides."""
    from longstrand.questions.tokens import read_text

    model, other = (bpe_model(seed, 11 if (seed == 1) == beside else 40) for seed in (0, 1))
    options = {"target": 1, "strategy": strategy, "rounds": 6, "check_models": [other]}
    found = ls.design(model, "ACGTGTACACGTACGT", **options)
    assert found and all(np.isfinite(value) for one in found for value in one.values.values())
    for one in found:
        sizes = [len(read_text(model, text)) for text in (one.sequence, reverse_complement(one.sequence))]
        assert max(sizes) <= 11
    assert found[0].trace["left_out"].is_sorted() and found[0].trace["left_out"][-1] > 0
    free = ls.design(bpe_model(0, 40), "ACGTGTACACGTACGT", **options | {"check_models": [bpe_model(1, 40)]})
    assert free[0].trace["left_out"].to_list() == [0] * len(free[0].trace)


def test_a_start_whose_edits_are_all_too_long_stays():
    """TT is one token; with its second base free it becomes TA, TC or TG, which are two."""
    model = bpe_model(0, 3)
    model.reading = Reading(max_tokens=3, strand="+")
    (found,) = ls.design(model, "TT", target=1, fixed="1-1")
    assert (found.edits, found.trace["left_out"].to_list()) == ((), [0, 3])
    with pytest.raises(InputError, match="more tokens than a model reads"):
        ls.design(model, "TT", target=1, gc=(0.5, 0.5), fixed="1-1")


def test_nearest_by_hand():
    """A copy, its other strand, too short; half a copy: 8 words of START, and 23 - 8 others, of which T x 16 is one."""
    rows = sketch([START, "ACGT" * 12])
    assert nearest(START, rows) == nearest(reverse_complement(START), rows) == 1.0
    assert nearest(START[:23] + "T" * 23, rows) == pytest.approx(9 / 23)
    assert np.isnan(nearest("ACGT", rows))
