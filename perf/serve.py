"""A server under load on the loopback, beside the usual ways to put a model behind an address.

    python perf/serve.py [MODEL] [--parts cpu,overload,hangups,job,memory,start,track,mutate,kill] [--litserve FOLDER]
                         [--scale 1.0] [--track-model MODEL]

Servers are processes of their own; their cost is their processor time (``/proc/PID/stat``), beside the wall time, which
depends on what else the machine does. Peers answer the same requests with the same model: ``naive`` is a FastAPI server
whose ``def`` endpoint calls `longstrand.predict`; ``litserve`` batches by number (8 a batch, 5 ms; its package lies in
FOLDER). The client is ours: asyncio over raw sockets, kept alive; closed loop (N clients that ask one after the other)
and open loop (planned arrivals, latency counted from the planned time). Every part ends by itself; only the loopback is
used. Targets S1 to S13 are those of issue 15. Results: perf/results/serve.json.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.runtime import machine, provenance, read_json, write_json

try:
    import litserve
except ImportError:
    litserve = None
_Api: Any = object if litserve is None else litserve.LitAPI

RESULTS = Path(__file__).parent / "results" / "serve.json"
CLIENTS = 32
BATCH_TOKENS = 8192
BEFORE = 3
"""Requests of 64 sequences that keep the server busy while clients hang up."""
LENGTHS = {"200": (200, 200), "1000": (1000, 1000), "mixed": (100, 1600)}


def sequences(kind: str, number: int, seed: int = 0) -> list[str]:
    """Draw sequences of one kind of length."""
    draw, (low, high) = random.Random(seed), LENGTHS[kind]
    return ["".join(draw.choices("ACGT", k=draw.randint(low, high))) for _ in range(number)]


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its threads so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """List a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(inner for child in children for inner in tree(int(child)))]


def resident(pid: int) -> int:
    """Return the bytes that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


class Running:
    """A server in a process of its own.

    Attributes:
        port: where it listens.
        path: what is asked.
        live, ready: seconds until it answered at all, and with a prediction.
    """

    def __init__(self, name: str, command: list[str], port: int, path: str, env: dict[str, str] | None = None) -> None:
        self.name, self.port, self.path = name, port, path
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.live = self.ready = 0.0
        body = json.dumps(body_of(name, "ACGT" * 50)).encode()
        while not self.ready:
            if self.process.poll() is not None or time.perf_counter() - started > 120:
                raise RuntimeError(f"{name} did not start")
            status = self._post(body)
            now = time.perf_counter() - started
            self.live = self.live or (now if status else 0.0)
            self.ready = now if status == 200 else 0.0
            time.sleep(0.02)

    def _post(self, body: bytes) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.path}", body, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0

    def cpu(self) -> float:
        """Return the processor time of the server and its workers."""
        return sum(cpu_seconds(pid) for pid in tree(self.process.pid))

    def stop(self) -> None:
        """End it."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def body_of(name: str, text: str) -> dict[str, Any]:
    """Make a request for one sequence."""
    return {"model": "m", "inputs": [{"sequence": text}]} if name == "ours" else {"sequence": text}


@contextmanager
def serving(name: str, model: str, *, litserve: str | None = None, more: tuple[str, ...] = ()) -> Iterator[Running]:
    """Run a server of one kind."""
    port = 18_000 + random.randrange(2000)
    if name == "ours":
        command = [sys.executable, "-m", "longstrand", "serve", f"m={model}", "--port", str(port), "--quiet", *more]
        server = Running(name, command, port, "/v1/predict")
    else:
        env = {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{litserve}"} if name == "litserve" else {}
        server = Running(
            name, [sys.executable, __file__, "--peer", name, model, "--port", str(port)], port, "/predict", env
        )
    try:
        yield server
    finally:
        server.stop()


class LitApi(_Api):
    """LitServe's way: it collects requests and calls `predict` with a batch."""

    folder = ""

    def setup(self, device: str) -> None:
        from longstrand.models.checkpoint import load_network

        self.network = load_network(self.folder)
        self.network.tokenizer  # noqa: B018 - opened once

    def decode_request(self, request: dict[str, str]) -> str:
        return request["sequence"]

    def predict(self, texts: list[str]) -> Any:
        import longstrand as ls

        return list(ls.predict(self.network, list(texts)))

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"values": output.tolist()}


def run_peer(name: str, model: str, port: int) -> None:
    """Be a server of another kind."""
    import longstrand as ls

    if name == "naive":
        import uvicorn
        from fastapi import FastAPI
        from pydantic import BaseModel

        from longstrand.inference.loaded import open_model

        network = open_model(model).network

        class Body(BaseModel):
            sequence: str

        app = FastAPI()

        def predict(body: Body) -> dict[str, Any]:
            return {"values": ls.predict(network, [body.sequence])[0].tolist()}

        predict.__annotations__["body"] = Body
        app.post("/predict")(predict)
        uvicorn.run(app, port=port, log_level="error")
        return
    api = LitApi(max_batch_size=8, batch_timeout=0.005)
    api.folder = model
    litserve.LitServer(api, accelerator="cpu").run(port=port, log_level="error", generate_client_file=False)


class Connection:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.used = 0.0

    async def ask(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request and read the answer."""
        if time.perf_counter() - self.used > 4:  # servers close after 5 seconds what is not used
            self.hang_up()
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        kind = "content-type: application/json"
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        content = await self.reader.readexactly(int(headers["content-length"]))
        self.used = time.perf_counter()
        return int(lines[0].split()[1]), headers, content

    def hang_up(self) -> None:
        """Close it at once."""
        if self.reader is not None:
            self.writer.transport.abort()
            self.reader = None


async def closed_loop(server: Running, texts: list[str], clients: int) -> tuple[list[float], Counter[int]]:
    """Let clients ask for all texts, each one after the other: seconds of every answer, and statuses."""
    waiting, seconds, statuses = iter(texts), list[float](), Counter[int]()

    async def client() -> None:
        connection = Connection(server.port)
        for text in waiting:
            started = time.perf_counter()
            status, _, _ = await connection.ask(server.path, json.dumps(body_of(server.name, text)).encode())
            seconds.append(time.perf_counter() - started)
            statuses[status] += 1
        connection.hang_up()

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, statuses


def cost(model: str, litserve: str | None, scale: float) -> dict[str, Any]:
    """S1 to S4: processor time a request, throughput and tails of all kinds of servers, in turns; the best round."""
    names = ["ours", "naive", *(["litserve"] if litserve else [])]
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(name, model, litserve=litserve)) for name in names]
        return {kind: _compare(servers, model, kind, scale) for kind in LENGTHS}


def _compare(servers: list[Running], model: str, kind: str, scale: float) -> dict[str, Any]:
    import longstrand as ls
    from longstrand.inference.loaded import open_model

    texts = sequences(kind, int({"200": 3000, "1000": 600, "mixed": 900}[kind] * scale))
    rows: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    for _ in range(2):
        for server in servers:
            asyncio.run(closed_loop(server, texts[:64], CLIENTS))
            before, began = server.cpu(), time.perf_counter()
            seconds, statuses = asyncio.run(closed_loop(server, texts, CLIENTS))
            wall = time.perf_counter() - began
            assert statuses == {200: len(texts)}, statuses
            p50, p99 = (1e3 * float(np.quantile(seconds, share)) for share in (0.5, 0.99))
            one = {"cpu_ms": 1e3 * (server.cpu() - before) / len(texts), "per_second": len(texts) / wall}
            rows[server.name].append({**one, "p50_ms": p50, "p99_ms": p99})
    best = {name: min(runs, key=lambda run: run["cpu_ms"]) for name, runs in rows.items()}
    network, list_ms = open_model(model).network, []
    ls.predict(network, texts[:50])
    for _ in range(2):
        before = time.process_time()
        ls.predict(network, texts)
        list_ms.append(1e3 * (time.process_time() - before) / len(texts))
    ours, naive, least = best["ours"], best["naive"], min(list_ms)
    found = {
        **best, "predict_on_the_list_cpu_ms": least, "S1_over_the_list_ms": ours["cpu_ms"] - least,
        "S2_naive_by_ours": naive["cpu_ms"] / ours["cpu_ms"],
        "S3_throughput_by_naive": ours["per_second"] / naive["per_second"],
        "S4_p99_by_naive": ours["p99_ms"] / naive["p99_ms"],
    }  # fmt: skip
    print(kind, json.dumps(found, indent=1), flush=True)
    return found


async def _open_loop(server: Running, texts: list[str], rate: float, seconds: float) -> list[tuple[float, int, float]]:
    """Ask at planned times: (latency from the planned time, status, seconds of Retry-After)."""
    found: list[tuple[float, int, float]] = []
    free: list[Connection] = []

    async def one(planned: float, text: str) -> None:
        connection = free.pop() if free else Connection(server.port)
        status, headers, _ = await connection.ask(server.path, json.dumps(body_of(server.name, text)).encode())
        found.append((time.perf_counter() - planned, status, float(headers.get("retry-after", 0))))
        free.append(connection)

    gc.collect()
    gc.freeze()  # or the client itself stops for its collections, which would count as the server's time
    draw, tasks, planned = random.Random(1), [], time.perf_counter()
    end = planned + seconds
    while planned < end:
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        tasks.append(asyncio.create_task(one(planned, texts[len(tasks) % len(texts)])))
        planned += draw.expovariate(rate)
    await asyncio.gather(*tasks)
    return found


def overload(model: str, scale: float) -> dict[str, Any]:
    """S5: ten times what the server can do."""
    texts = sequences("1000", 500)
    with serving("ours", model, more=("--max-wait", "3")) as server:
        _, _ = asyncio.run(closed_loop(server, texts[:100], CLIENTS))
        began = time.perf_counter()
        asyncio.run(closed_loop(server, texts[:200], CLIENTS))
        capacity = 200 / (time.perf_counter() - began)
        before = resident(server.process.pid)
        found = asyncio.run(_open_loop(server, texts, min(10 * capacity, 1500), 30 * scale))
        time.sleep(2)
        after = resident(server.process.pid)
        calm, _ = asyncio.run(closed_loop(server, texts[:20], 1))
    latency = {status: [one for one, other, _ in found if other == status] for status in {s for _, s, _ in found}}
    return {
        "capacity_per_second": capacity, "statuses": {str(status): len(some) for status, some in latency.items()},
        "refused_p50_ms": 1e3 * float(np.quantile(latency.get(429, [0]), 0.5)),
        "refused_p99_ms": 1e3 * float(np.quantile(latency.get(429, [0]), 0.99)),
        "accepted_p99_s": float(np.quantile(latency.get(200, [0]), 0.99)), "max_wait_s": 3,
        "retry_after_s": sorted({wait for _, status, wait in found if status == 429}),
        "p50_two_seconds_later_ms": 1e3 * float(np.median(calm)), "resident_growth": after / before - 1,
    }  # fmt: skip


def hangups(model: str, scale: float) -> dict[str, Any]:
    """S6: nine of ten clients hang up while they wait behind large requests."""
    texts, large = sequences("1000", int(400 * scale)), sequences("mixed", 64)
    work = json.dumps({"model": "m", "inputs": [{"sequence": text} for text in large]}).encode()

    async def storm(server: Running) -> None:
        async def one(number: int, text: str) -> None:
            connection = Connection(server.port)
            asked = asyncio.create_task(connection.ask(server.path, json.dumps(body_of("ours", text)).encode()))
            if number % 10:
                await asyncio.sleep(0.2)
                asked.cancel()
                connection.hang_up()
            await asyncio.gather(asked, return_exceptions=True)

        before = [asyncio.create_task(Connection(server.port).ask(server.path, work)) for _ in range(BEFORE)]
        await asyncio.sleep(0.1)
        await asyncio.gather(*before, *(one(number, text) for number, text in enumerate(texts)))

    with serving("ours", model, more=("--max-wait", "120")) as server:
        asyncio.run(closed_loop(server, texts[:50], 8))
        computed = _metric(server, "longstrand_batch_items_sum")
        asyncio.run(storm(server))
        time.sleep(1)
        computed = _metric(server, "longstrand_batch_items_sum") - computed - BEFORE * len(large)
        dropped = _metric(server, 'longstrand_dropped_total{why="cancelled"}')
    survivors = -(-len(texts) // 10)
    return {"requests": len(texts), "survivors": survivors, "computed": computed, "dropped": dropped,
            "S6_computed_by_survivors": computed / survivors}  # fmt: skip


def _metric(server: Running, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))


def beside_a_job(model: str, scale: float) -> dict[str, Any]:
    """S7: interactive requests while a job runs."""
    texts = sequences("200", int(300 * scale))
    fasta = "".join(f">{number}\n{text}\n" for number, text in enumerate(sequences("1000", 30_000))).encode()
    with serving("ours", model) as server:
        alone, _ = asyncio.run(closed_loop(server, texts, 2))
        url = f"http://127.0.0.1:{server.port}/v1/jobs"
        request = urllib.request.Request(f"{url}?verb=predict&model=m&format=fasta", fasta)
        with urllib.request.urlopen(request) as answer:
            job = json.load(answer)["id"]
        while json.load(urllib.request.urlopen(f"{url}/{job}"))["done"] == 0:
            time.sleep(0.2)
        beside, _ = asyncio.run(closed_loop(server, texts, 2))
        state = json.load(urllib.request.urlopen(f"{url}/{job}"))["state"]
        urllib.request.urlopen(urllib.request.Request(f"{url}/{job}", method="DELETE"))
    p95 = [1e3 * float(np.quantile(seconds, 0.95)) for seconds in (alone, beside)]
    return {"p95_alone_ms": p95[0], "p95_beside_a_job_ms": p95[1], "job_then": state}


def memory(model: str, scale: float) -> dict[str, Any]:
    """S8: many mixed requests: memory, and values equal to `predict`."""
    import longstrand as ls

    texts = sequences("mixed", int(20_000 * scale))
    with serving("ours", model) as server:
        asyncio.run(closed_loop(server, texts[: len(texts) // 4], CLIENTS))
        sizes = [resident(server.process.pid)]
        for quarter in range(4):
            asyncio.run(closed_loop(server, texts[quarter::4], CLIENTS))
            sizes.append(resident(server.process.pid))
        client = ls.connect(f"http://127.0.0.1:{server.port}")
        found = client.predict("m", texts[:300])
        batches = [sequences("mixed", 32, seed) for seed in range(1, 11)]  # each one batch, here and there
        alone = [client.predict("m", batch) for batch in batches]
        same = [ls.predict(model, batch, batch_tokens=BATCH_TOKENS) for batch in batches]
    difference = float(np.abs(found - ls.predict(model, texts[:300])).max())
    slope = (sizes[-1] - sizes[1]) / (0.75 * len(texts)) * 1000
    return {"requests": len(texts), "resident_mb": [size / 1e6 for size in sizes], "S8_mb_a_thousand": slope / 1e6,
            "S8_largest_difference": difference,
            "S8_bit_equal_batches": [bool(np.array_equal(*pair)) for pair in zip(alone, same)]}  # fmt: skip


def start(model: str) -> dict[str, Any]:
    """S10: how long until the server lives, and answers."""
    with serving("ours", model) as server:
        return {"S10_live_s": server.live, "S10_ready_s": server.ready}


def track(model: str) -> dict[str, Any]:
    """S11: overhead of a track of one output over 200,000 bases; best with a model that labels bases."""
    text = sequences("200", 1)[0] * 1000
    with serving("ours", model, more=("--timeout", "300")) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/models") as answer:
            card = json.load(answer)["models"][0]
        asked = {"model": "m", "input": {"sequence": text}, "encoding": "f32", "outputs": [card["outputs"][0]["name"]]}
        body = json.dumps(asked | ({"step": 200, "window": 200} if card["kind"] == "sequence" else {})).encode()

        async def ask() -> tuple[float, Any]:
            started = time.perf_counter()
            status, _, content = await Connection(server.port).ask("/v1/tracks", body)
            assert status == 200, content[:300]
            return 1e3 * (time.perf_counter() - started), json.loads(content)["timing_ms"]

        (total, timing) = min((asyncio.run(ask()) for _ in range(3)), key=lambda one: one[0])
    return {"kind": card["kind"], "total_ms": total, "timing_ms": timing,
            "S11_encode_by_forward": timing["encode"] / timing["forward"],
            "overhead_by_forward": total / timing["forward"] - 1}  # fmt: skip


def by_test(test: str, variable: str, number: int) -> dict[str, Any]:
    """S9, S13: a slow test with its full number of tries."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "-p", "no:cacheprovider", test]
    found = subprocess.run(command, env={**os.environ, variable: str(number)}, capture_output=True, text=True)
    return {"test": test, "tries": number, "passed": found.returncode == 0, "seconds": time.perf_counter() - started,
            "last_line": found.stdout.strip().rsplit("\n", 1)[-1]}  # fmt: skip


def main() -> None:
    """Run the parts that are asked for, and keep their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--peer")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parts", default="cpu,overload,hangups,job,memory,start,track")
    parser.add_argument("--litserve")
    parser.add_argument("--track-model")
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    if given.peer:
        run_peer(given.peer, given.model, given.port)
        return
    parts = {"cpu": lambda: cost(given.model, given.litserve, given.scale), "start": lambda: start(given.model),
             "track": lambda: track(given.track_model or given.model),
             "mutate": lambda: by_test("tests/serve/test_mutations.py", "LONGSTRAND_MUTATIONS",
                                       int(10_000 * given.scale)),
             "kill": lambda: by_test(
                 "tests/serve/test_jobs.py::test_a_job_that_is_killed_again_and_again_gives_the_same_bytes",
                 "LONGSTRAND_KILLS", int(20 * given.scale))}  # fmt: skip
    for name, part in (("overload", overload), ("hangups", hangups), ("job", beside_a_job), ("memory", memory)):
        parts[name] = lambda part=part: part(given.model, given.scale)
    found = read_json(RESULTS) if RESULTS.exists() else {}
    for name in given.parts.split(","):
        load = os.getloadavg()[0]
        found[name] = {**parts[name](), "scale": given.scale, "load_of_the_machine_before": load}
        found |= {"machine": machine(), "provenance": provenance()}
        write_json(RESULTS, found)
        print(name, json.dumps(found[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
