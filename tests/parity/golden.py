"""Every golden file and the test that compares it; a file or array that nobody claims fails `test_golden_coverage`."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

FILES = "config.json *.safetensors *grad_norms.json expected.npz:*"
CLAIMS: list[tuple[str, str, str]] = [
    # (folder, files and arrays of them, test module)
    ("dnabert1", "tokenizer.json", "tokenization/test_golden.py"),
    ("dnabert1", "span_mask.json", "data/test_masking.py"),
    ("dnabert1/tiny_k6", FILES, "parity/test_dnabert.py"),
    ("dnabert2", "tokenizer_*.json", "tokenization/test_golden.py"),
    ("dnabert2/tokenizer_files", "*", "tokenization/test_golden.py"),
    ("dnabert2", "alibi_slopes.json", "parity/test_dnabert2.py"),
    ("dnabert2/tiny*", FILES, "parity/test_dnabert2.py"),
    ("nt", "tokenizer_*.json", "tokenization/test_golden.py"),
    ("nt/hf_tokenizer_*", "*", "tokenization/test_golden.py"),
    ("nt/v?_tiny", FILES, "parity/test_nucleotide_transformer.py"),
    ("nt/v?_tiny/peft_*", "*", "parity/test_published_adapters.py"),
    ("gena/bert_postln/*", FILES, "parity/test_gena.py"),
    ("gena/bert_preln/*", FILES, "parity/test_gena.py"),
    ("gena/bert_preln_lastln/*", FILES, "parity/test_gena.py"),
    ("gena/bert_preln_rotary8/*", FILES, "parity/test_gena.py"),
    ("gena/enformer_head", "*", "parity/test_gena_rmt.py"),
    ("gena/bert_preln_rotary8_dssparse_emulated", "*", "parity/test_gena_sparse.py"),
    ("gena/hf_bigbird*", "*", "parity/test_gena_sparse.py"),
    ("gena/state_dict_keys", "bert_*", "parity/test_gena.py"),
    ("gena/state_dict_keys", "dssparse_* bigbird_*", "parity/test_gena_sparse.py"),
    ("gena", "tokenizer_t2t_cases.json enformer_bins_notebook_ids.json", "tokenization/test_golden.py"),
    ("variants", "scores.json.gz heads.json.gz scores_600.*", "parity/test_questions.py"),
    ("variants/char_bert", "*", "parity/test_questions.py"),
    ("variants/gena_bpe64", "*", "parity/test_questions.py"),
    ("explain", "mini_bpe.json cases.json", "parity/test_attribution.py"),
    ("explain/models/*", "*", "parity/test_questions.py"),
    ("explain/attribution", "*", "parity/test_attribution.py"),
    ("explain/reconstruction", "*", "parity/test_questions.py"),
    ("explain/dependency", "*:sequence *:probabilities *:masked_probabilities", "parity/test_questions.py"),
]
ELSEWHERE = {
    "gena/rmt_*": "recurrent memory: parity/test_gena_rmt.py, where arrays have names made of parts",
    "gena/state_dict_keys/rmt_*": "recurrent memory: parity/test_gena_rmt.py",
    "gena/data_*": "corpora and benchmarks",
    "gena/real_checkpoint_anchor_*": "needs the real weights of gena-lm-bert-base-t2t, which are not here",
    "explain/design/*": "design: not built yet",
    "explain/discovery/*": "motifs: not built yet",
    "explain/motifs/*": "motifs: not built yet",
    "explain/species/*": "maps of species: not built yet",
    "explain/statistics/*": "motifs: not built yet",
    "explain/attention/*": "attention: not built yet",
    "explain/dependency/*:[!mps]*": "maps of dependencies: not built yet",
    "explain/dependency/*:pseudo*": "maps of dependencies: not built yet",
    "variants/*nasty*": "awkward variants: not built yet",
    "variants/haplotypes*": "haplotypes: not built yet",
    "*/make/*": "the programs that made the goldens",
    "*/README.md": "words",
}
NOT_OURS = {
    "loss_is_none_when_only_mlm_labels": "a habit of GENA's pre-training class; here masked LM has a loss of its own",
    "inputs_embeds_logits_maxabsdiff_vs_ids": "a number about the reference; ours is tested to be exactly 0",
}


def golden_items(root: Path) -> list[str]:
    """List files (``folder/file``) and, for npz, their arrays (``folder/expected.npz:name``)."""
    items = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".npz":
            items += [f"{name}:{array}" for array in np.load(path).files]
        else:
            items.append(name)
    return items


def claim(item: str) -> str | None:
    """Name the test module that compares an item, or say why none does; None if it was forgotten."""
    for pattern, reason in ELSEWHERE.items():
        if fnmatch(item, pattern):
            return reason
    if item.partition(":")[2] in NOT_OURS:
        return NOT_OURS[item.partition(":")[2]]
    folder, _, rest = item.partition(":")[0].rpartition("/")
    entry = rest + item[len(f"{folder}/{rest}") :]
    for pattern, names, module in CLAIMS:
        if fnmatch(folder, pattern) and any(fnmatch(entry, name) for name in names.split()):
            return module
    return None


def words_of(item: str) -> list[str]:
    """Give the parts of an array's name that a test must mention: without numbers and names of parameters."""
    name = item.partition(":")[2]
    name = name.partition("gradnorm/")[0] + "gradnorm" if "gradnorm/" in name else name
    parts = re.split(r"\d+|/|single|regression|multilabel|^repohead_", name)
    return [part.strip("_") for part in parts if len(part.strip("_")) > 2]
