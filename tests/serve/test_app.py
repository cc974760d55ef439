"""The addresses: answers as the library gives them, and refusals in one form."""

from __future__ import annotations

import base64
import gc
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import longstrand as ls
from longstrand.serve.app import create_app
from longstrand.serve.call import LOOK, Call
from longstrand.serve.numbers import decode, encode
from longstrand.serve.refusals import Refusal
from longstrand.serve.runs import Run
from longstrand.serve.schemas import ServeOptions
from tests.serve.conftest import LETTERS, Served
from tests.serve.toys import wait_until_ready

SEQUENCES = [LETTERS[:40], LETTERS[100:300], "acgtn" * 9, LETTERS[7:27]]


def inputs(texts: list[str]) -> list[dict[str, str]]:
    return [{"sequence": text} for text in texts]


def answered(found: Any) -> Any:
    assert found.status_code == 200, found.text
    return found.json()


def test_predictions_are_those_of_the_library(served: Served) -> None:
    found = served.post("/v1/predict", {"model": "promoters", "inputs": inputs(SEQUENCES)})
    answer = answered(found)
    values = np.array([one["values"] for one in answer["answers"]])
    np.testing.assert_allclose(values, ls.predict(str(served.folders["promoters"]), SEQUENCES), atol=1e-5)
    assert (answer["unit"], answer["columns"], answer["per"]) == ("probability", ["no", "yes"], "sequence")
    assert answer["answers"][2]["counts"] == {"bases": 45, "tokens": 29, "lower_case": 45, "unknown": 9}
    assert answer["answers"][0]["prediction"] == ["no", "yes"][values[0].argmax()]
    assert answer["request_id"] == found.headers["x-request-id"]
    assert set(answer["timing_ms"]) == {"tokenize", "queue", "forward", "encode"}


def test_a_finished_request_leaves_nothing_to_the_garbage_collector(served: Served) -> None:
    """Cycles of thousands of requests would stop the server for each collection, and fill its memory until then."""
    paths = {"/v1/predict": 200, "/v1/tracks": 422, "/v1/nothing": 404}
    bodies = [{"model": "promoters", "inputs": inputs(SEQUENCES[:1])}, {"model": "promoters"}, {}]

    def ask() -> list[int]:
        return [served.post(path, body).status_code for path, body in zip(paths, bodies)]

    assert ask() == list(paths.values())
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            ask()
        time.sleep(2 * LOOK)
        left = Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, Call | Refusal))
    finally:
        gc.enable()
    assert not left


def test_neighbours_in_the_queue_change_nothing(served: Served) -> None:
    def ask(text: str) -> np.ndarray:
        body = {"model": "bases", "inputs": inputs([text]), "strand": "both", "encoding": "f32"}
        return decode(answered(served.post("/v1/predict", body))["answers"][0]["values"])

    texts = [LETTERS[start : start + 30 + 7 * start % 50] for start in range(0, 300, 13)]
    alone = ls.predict_bases(str(served.folders["bases"]), texts, strand="both")
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(ask, texts), alone):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_regions_are_read_on_their_strand(served: Served) -> None:
    body = {"model": "bases", "inputs": [{"genome": "g", "region": "chr1:1,001-1,040", "strand": "-"}]}
    (one,) = answered(served.post("/v1/predict", body))["answers"]
    from longstrand.genome.sequence import reverse_complement

    (expected,) = ls.predict_bases(str(served.folders["bases"]), [reverse_complement(LETTERS[1000:1040])])
    np.testing.assert_allclose(one["values"], expected, atol=1e-5)
    assert one["interval"] == {"chrom": "chr1", "start": 1000, "end": 1040}
    assert (one["region"], one["strand"]) == ("chr1:1,001-1,040", "-")


def test_embeddings_and_tokens(served: Served) -> None:
    answer = answered(served.post("/v1/embed", {"model": "bases", "inputs": inputs(SEQUENCES)}))
    found = np.stack([decode(one["values"]) for one in answer["answers"]])
    np.testing.assert_allclose(found, ls.embed(str(served.folders["bases"]), SEQUENCES), atol=1e-5)
    (tokens,) = answered(served.post("/v1/tokenize", {"model": "bases", "inputs": inputs(["acgtNA"])}))["answers"]
    assert tokens["tokens"] == ["[CLS]", "AC", "GT", "N", "A", "[SEP]"]
    assert tokens["offsets"] == [[0, 0], [0, 2], [2, 4], [4, 5], [5, 6], [0, 0]]


def test_attributions_say_what_they_cost_first(served: Served) -> None:
    body = {"model": "promoters", "input": {"sequence": SEQUENCES[0]}, "method": "ism"}
    assert answered(served.post("/v1/attribute", {**body, "dry_run": True}))["cost"]["forwards"] == 121
    answer = answered(served.post("/v1/attribute", body))
    (expected,) = ls.attribute(str(served.folders["promoters"]), [SEQUENCES[0]], method="ism")
    np.testing.assert_allclose(answer["values"], expected.values, atol=1e-5)
    assert answer["target"] == "logit of yes minus no"
    dear = served.post("/v1/attribute", {**body, "input": {"sequence": LETTERS[:200]}})
    assert (dear.status_code, dear.json()["error"]["code"]) == (422, "too_expensive")


def test_variants_and_both_alleles(served: Served) -> None:
    ref = LETTERS[499]
    alt = "A" if ref != "A" else "C"
    texts = [f"chr1-500-{ref}-{alt}", f"chr1:500 {ref}>{ref}TT"]
    body = {"model": "bases", "genome": "g", "variants": texts, "window": 100, "tracks": {"flank": 3}}
    answer = answered(served.post("/v1/variants", body))
    table = ls.score_variants(str(served.folders["bases"]), texts, genome=served.genome, window=100)
    for row, expected in zip(answer["rows"], table.iter_rows(named=True)):
        assert (row["pos"], row["ref"], row["alt"], row["status"]) == (500, ref, expected["alt"], "ok")
        for name, value in row["scores"].items():
            assert value == pytest.approx(expected[name], abs=1e-4)
    snv, insertion = answer["tracks"]
    assert insertion["alt_positions"] == [496, 497, 498, 499, None, None, 500, 501, 502]
    one = snv["outputs"][0]
    np.testing.assert_allclose(np.subtract(one["alt"], one["ref"]), one["difference"], atol=1e-5)


def test_places(served: Served) -> None:
    client = served.client
    assert client.get("/v1/genomes/g/sequence?region=chr2:5-8").text == ">chr2:5-8\nNNac\n"
    fasta = client.get("/v1/genomes/g/g.fa", headers={"Range": "bytes=6-9"})
    assert (fasta.status_code, fasta.text) == (206, LETTERS[:4])
    assert client.get("/v1/genomes/g/g.fa.fai").text == "chr1\t1200\t6\t60\t61\nchr2\t14\t1232\t14\t15\n"
    hits = {text: answered(client.get("/v1/genomes/g/search", params={"q": text}))["hits"] for text in
            ("abc1", "ABC", "G2", "chr1:11-20", f"chr1-1-{LETTERS[0]}-N", "chr2:1 A>T", "zzz")}  # fmt: skip
    assert [(hit["name"], hit["region"], hit["strand"]) for hit in hits["abc1"]] == [("ABC1", "chr1:101-300", "+")]
    assert [hit["name"] for hit in hits["ABC"]] == ["ABC1", "ABCD"]
    assert [len(hits[text]) for text in ("G2", "chr1:11-20", "chr2:1 A>T", "zzz")] == [1, 1, 1, 0]
    (gene,) = answered(client.get("/v1/genomes/g/genes?region=chr1:290-310"))["genes"]
    assert (gene["gene"], gene["exons"]) == ("ABC1", [[100, 150], [200, 300]])


TEXT = {"sequence": "ACGT"}
REFUSED: list[tuple[str, Any, int, str, str | None]] = [
    ("predict", {"model": "promoter", "inputs": [{"sequence": "AC"}]}, 404, "unknown_model", "model"),
    ("predict", {"model": "promoters", "inputs": [{"sequence": "AC!T"}]}, 422, "letter", "inputs[0].sequence"),
    ("predict", {"model": "promoters", "inputs": [{"sequence": "AC"}] * 65}, 413, "too_many_inputs", None),
    ("predict", {"model": "promoters", "inputs": [{"sequence": "A" * 20_001}]}, 413, "too_many_bases", None),
    ("predict", {"model": "promoters", "inputs": [{"genome": "g", "region": "chr1:1-1201"}]}, 422, "outside_contig",
     "inputs[0].region"),
    ("predict", {"model": "promoters", "inputs": [{"genome": "g", "region": "1:1-12"}]}, 422, "unknown_contig",
     "inputs[0].region"),
    ("predict", {"model": "promoters", "inputs": [{}]}, 422, "input", "inputs[0]"),
    ("predict", {"model": "promoters", "input": []}, 422, "unknown_field", "body"),
    ("predict", {"model": "promoters", "inputs": []}, 422, "field", "inputs"),
    ("predict", {"model": "promoters", "inputs": [{"sequence": "AC"}], "output": "x"}, 422, "field", "output"),
    ("embed", {"model": "promoters", "inputs": [{"sequence": "AC"}], "layer": 9}, 422, "option", None),
    ("tracks", {"model": "promoters", "input": TEXT, "outputs": ["ye"]}, 404, "unknown_output", "outputs[0]"),
    ("attribute", {"model": "promoters", "input": TEXT, "target": "yess"}, 404, "unknown_output", "target"),
    ("variants", {"model": "bases", "genome": "g", "variants": ["chr2-1-C-G"]}, 422, "ref_mismatch", "variants[0]"),
    ("variants", {"model": "bases", "genome": "g", "variants": ["rs12"]}, 422, "variant", "variants[0]"),
    ("nothing", {}, 404, "not_found", None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code", "where"), REFUSED, ids=[case[3] for case in REFUSED])
def test_refusals(served: Served, path: str, body: Any, status: int, code: str, where: str | None) -> None:
    found = served.post(f"/v1/{path}", body)
    error = found.json()["error"]
    assert (found.status_code, error["code"], error["where"]) == (status, code, where), error
    assert set(error) == {"code", "message", "where", "position", "hint", "retry_after", "request_id"}
    assert error["message"].endswith((".", "?"))


def test_a_refusal_never_repeats_the_input(served: Served) -> None:
    secret = "ACGTTGCAGGCATCAATTGC" * 3
    for body in (
        {"model": secret, "inputs": [{"sequence": "A"}]},
        {"model": "promoters", "inputs": [{"sequence": f"{secret}!{secret}"}]},
        {"model": "promoters", "inputs": [{secret: 1}]},
        {"model": "promoters", "inputs": secret},
        {"model": "promoters", "inputs": [{"genome": "g", "region": secret}]},
    ):
        found = served.post("/v1/predict", body)
        assert found.status_code in (404, 422)
        assert secret[:12] not in found.text
    text = served.client.post("/v1/predict", content=f"{{{secret}", headers={"content-type": "application/json"})
    assert (text.status_code, text.json()["error"]["code"]) == (422, "json")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 403), ({"Origin": "http://evil.example"}, 403), ({"Origin": "http://localhost"}, 200),
     ({"Host": "127.0.0.1:9"}, 200), ({"Content-Type": "text/plain"}, 422)],
)  # fmt: skip
def test_who_may_call(served: Served, headers: dict[str, str], status: int) -> None:
    body = b'{"model": "promoters", "inputs": [{"sequence": "ACGT"}]}'
    found = served.client.post("/v1/predict", content=body, headers={"Content-Type": "application/json", **headers})
    assert found.status_code == status, found.text


def test_state_pages_and_metrics(served: Served) -> None:
    client = served.client
    status = answered(client.get("/v1/status"))
    assert (status["state"], status["limits"]["bases"], status["token_required"]) == ("ready", 20_000, False)
    cards = {card["name"]: card for card in answered(client.get("/v1/models"))["models"]}
    assert (cards["bases"]["kind"], cards["promoters"]["kind"]) == ("base", "sequence")
    assert [one["name"] for one in cards["bases"]["outputs"]] == ["exon", "intron", "else"]
    page = client.get("/docs")
    assert "/v1/predict" in page.text and "http://" not in page.text and "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    served.post("/v1/predict", {"model": "promoters", "inputs": inputs(["ACGT"])})
    text = client.get("/metrics").text
    assert 'longstrand_requests_total{route="/v1/predict",status="200"}' in text
    assert 'longstrand_queue_items{queue="predict"} 0.0' in text
    assert client.get("/v1/runs").json() == {"runs": []}


def test_files_of_a_run_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "run" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "run" / "report.html").write_text("<h1>report")
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    app = create_app({}, ServeOptions(max_jobs=0), runs={"run": Run("finetuning", tmp_path / "run" / "report.html")})
    statuses = {"report.html": 200, "model/config.json": 200, "model": 404, "..%2fsecret.txt": 404, "link.txt": 404,
                "x%00": 404}  # fmt: skip
    with TestClient(app, base_url="http://localhost") as client:
        found = {file: client.get(f"/v1/runs/run/{file}").status_code for file in statuses}
        assert "<h1>report" in client.get("/v1/runs/run/report.html").text
    assert found == statuses


def test_limits_tokens_and_loading(folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ServeOptions(token="a secret", max_body=1024, timeout=5.0, max_jobs=0, jobs=tmp_path)
    app = create_app({"promoters": folders["promoters"]}, options)
    with TestClient(app, base_url="http://localhost", headers={"Authorization": "Bearer a secret"}) as client:
        loading = client.post("/v1/predict", json={"model": "promoters", "inputs": inputs(["ACGT"])})
        assert loading.status_code in (200, 503)
        wait_until_ready(client)
        with caplog.at_level("INFO", logger="longstrand.serve.requests"):
            body = {"model": "promoters", "inputs": inputs(["ACGTACGTACGT"])}
            assert client.post("/v1/predict", json=body).status_code == 200
        assert '"model": "promoters"' in caplog.text and "ACGT" not in caplog.text
        wrong = client.get("/v1/models", headers={"Authorization": "Bearer guess"})
        assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/health/live", headers={"Authorization": ""}).status_code == 200
        long = client.post("/v1/predict", content=b" " * 2000, headers={"content-type": "application/json"})
        chunked = client.post(
            "/v1/predict", content=iter([b" " * 700] * 2), headers={"content-type": "application/json"}
        )
        assert [one.json()["error"]["code"] for one in (long, chunked)] == ["body_too_long"] * 2
        server = app.server
        held, server.fast.run = server.fast.run, lambda queue, rows: time.sleep(0.4) or held(queue, rows)
        late = client.post("/v1/predict", json=body, headers={"X-Timeout": "0.1"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        server.fast.queue_tokens = 1
        while server.fast.num_tokens:
            time.sleep(0.02)
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: client.post("/v1/predict", json=body), range(3)))
        busy = [one for one in found if one.status_code == 429]
        assert len(busy) == 2 and busy[0].headers["retry-after"] == str(busy[0].json()["error"]["retry_after"])
        server.state = "stopping"
        assert client.get("/health/ready").json()["error"]["code"] == "stopping"
        server.state = "ready"


def test_numbers_survive_both_ways() -> None:
    values = np.array([[1.5, np.nan], [-2.25, 3e-9]], dtype=np.float32)
    for encoding in ("json", "f32"):
        np.testing.assert_allclose(decode(encode(values, encoding)), values, rtol=1e-5)
    assert encode(values, "json")[0] == [1.5, None]
    assert base64.b64decode(encode(values, "f32")["base64"]) == values.tobytes()


def test_tracks_are_those_of_the_whole_contig(served: Served, tmp_path: Path) -> None:
    shared = {"window": 100, "step": 60, "blend": "hann", "bin_size": 10, "strand": "separate"}
    ls.predict_tracks(str(served.folders["bases"]), served.genome, tmp_path / "all.zarr", **shared)
    import zarr

    expected = zarr.open_group(str(tmp_path / "all.zarr"))["chr1"][30:62]
    body = {"model": "bases", "input": {"genome": "g", "region": "chr1:305-615"}, **shared}
    answer = answered(served.post("/v1/tracks", body))
    assert (answer["interval"], answer["windows"]["length"]) == ({"chrom": "chr1", "start": 300, "end": 620}, 100)
    assert [(one["name"], one["strand"]) for one in answer["tracks"]][::3] == [("exon", "+"), ("exon", "-")]
    found = np.stack([decode(one["values"]) for one in answer["tracks"]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert answer["windows"]["seam"] > 0


def test_tracks_as_files(served: Served, tmp_path: Path) -> None:
    pybigtools = pytest.importorskip("pybigtools")
    body = {
        "model": "promoters",
        "input": {"genome": "g", "region": "chr1:101-500"},
        "outputs": ["yes"],
        "bin_size": 100,
    }
    values = decode(answered(served.post("/v1/tracks", body))["tracks"][0]["values"])
    found = {
        kind: served.post("/v1/tracks", body, accept=kind).content
        for kind in ("text/x-bedgraph", "application/x-bigwig")
    }
    lines = [line.split("\t") for line in found["text/x-bedgraph"].decode().splitlines()]
    assert [line[:3] for line in lines] == [["chr1", str(start), str(start + 100)] for start in range(100, 500, 100)]
    np.testing.assert_allclose([float(line[3]) for line in lines], values, rtol=1e-5)
    (tmp_path / "x.bw").write_bytes(found["application/x-bigwig"])
    file = pybigtools.open(str(tmp_path / "x.bw"))
    assert file.chroms()["chr1"] == 1200
    np.testing.assert_allclose(file.values("chr1", 100, 500)[::100], values, rtol=1e-5)
    calls = served.post("/v1/tracks", {**body, "threshold": float(values.min())}, accept="text/x-bed").text
    assert calls.startswith("chr1\t100\t500\tyes_1\t")
    several = served.post("/v1/tracks", {**body, "outputs": []}, accept="text/x-bedgraph")
    assert several.json()["error"]["where"] == "outputs"
