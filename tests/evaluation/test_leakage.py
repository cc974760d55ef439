import numpy as np

from longstrand.evaluation.leakage import canonical_words
from longstrand.genome.sequence import reverse_complement
from tests.data.window_toys import random_dna


def code(word):
    return min(
        sum("ACGT".index(base) << 2 * (31 - place) for place, base in enumerate(text))
        for text in (word, reverse_complement(word))
    )


def test_kmers_against_plain_python():
    text = random_dna(100, seed=1) + "N" + random_dna(40, seed=2).lower() + "R" + random_dna(31, seed=3)
    words = [text[start : start + 32].upper() for start in range(len(text) - 31)]
    expected = [code(word) for word in words if not set(word) - set("ACGT")]
    letters = np.frombuffer(text.encode(), dtype=np.uint8)
    assert canonical_words(letters, 32)[0].tolist() == expected and len(expected) == 69 + 9
    assert canonical_words(letters[:4], 32)[0].tolist() == []
