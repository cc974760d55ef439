"""The addresses: answers as the library gives them, and refusals in one form."""

from __future__ import annotations

import numpy as np

import longstrand as ls
from tests.serve.conftest import LETTERS, Served

SEQUENCES = [LETTERS[:40], LETTERS[100:300], "acgtn" * 9, LETTERS[7:27]]


def inputs(texts: list[str]) -> list[dict[str, str]]:
    return [{"sequence": text} for text in texts]


def test_predictions_are_those_of_the_library(served: Served) -> None:
    found = served.post("/v1/predict", {"model": "promoters", "inputs": inputs(SEQUENCES)})
    assert found.status_code == 200, found.text
    answer = found.json()
    expected = ls.predict(str(served.folders["promoters"]), SEQUENCES)
    values = np.array([one["values"] for one in answer["answers"]])
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert (answer["unit"], answer["columns"], answer["per"]) == ("probability", ["no", "yes"], "sequence")
    assert answer["answers"][2]["counts"] == {"bases": 45, "tokens": 29, "lower_case": 45, "unknown": 9}
    assert answer["request_id"] == found.headers["x-request-id"]
    assert set(answer["timing_ms"]) == {"tokenize", "queue", "forward", "encode"}
