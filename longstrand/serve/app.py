"""The web application: every address, what it takes and what it gives; the work is in `longstrand.serve.answers`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from longstrand import __version__
from longstrand.errors import LongstrandError
from longstrand.runtime import wait_passively
from longstrand.serve.call import Call, Metrics
from longstrand.serve.docs import docs_page
from longstrand.serve.gate import Gate
from longstrand.serve.jobs import Jobs, add_job_routes
from longstrand.serve.refusals import Refusal, refusal_of, refusal_of_fields
from longstrand.serve.runs import Run
from longstrand.serve.schemas import (
    AttributeRequest,
    EmbedRequest,
    PredictRequest,
    ServeOptions,
    TokenizeRequest,
    TracksRequest,
    VariantsRequest,
)
from longstrand.serve.server import Server

STATIC = Path(__file__).with_name("static")
SWITCH = 0.0005
"""Seconds after which the thread of the event loop gives way to the model's, which lets go at every operation. Python's
own are ten times as many, and a forward pass of a hundred small operations may wait that long at each."""
FORMATS = {"text/x-bedgraph": "bedgraph", "text/x-bed": "bed", "application/x-bigwig": "bw"}
"""Media types of tracks beside JSON, and the ending of the file."""


def create_app(
    models: Mapping[str, str | Path], options: ServeOptions | None = None, *, genomes: Mapping[str, Path] | None = None,
    annotations: Mapping[str, Path] | None = None, runs: Mapping[str, Run] | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> Gate:  # fmt: skip
    """Make the application; models are loaded when it starts.

    Args:
        models: what clients call each model, and its folder (of a model or a run), shipped name or hub id.
        options: limits, hosts, token.
        genomes: name of each genome to its FASTA file.
        annotations: name of a genome to its GFF3 or GTF file.
        runs: run folders whose reports are listed.
        on_failure: called if the models cannot be loaded (``app.server.problem`` says why).

    Returns:
        An ASGI application; its attribute ``server`` is the `Server`.
    """
    wait_passively()
    sys.setswitchinterval(SWITCH)
    settings, metrics = options or ServeOptions(), Metrics()
    server = Server(models, settings, genomes=genomes or {}, annotations=annotations or {}, metrics=metrics)
    known = dict(runs or {})
    server.reports = {name: f"/v1/runs/{name}/report.html" for name, run in known.items() if run.report}
    jobs = Jobs(server)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await server.start(on_failure)
        await jobs.start()
        yield
        await jobs.stop()
        await server.stop()

    app = FastAPI(title="Longstrand", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
                  openapi_url="/openapi.json")  # fmt: skip
    if settings.cors:
        app.add_middleware(CORSMiddleware, allow_origins=list(settings.cors), allow_methods=["*"], allow_headers=["*"])
    _add_errors(app)
    _add_state(app, server, metrics)
    _add_places(app, server)
    _add_questions(app, server)
    _add_runs(app, known)
    add_job_routes(app, jobs)
    _add_pages(app)
    return Gate(app, settings, metrics, server)


def call_of(request: Request) -> Call:
    """Return what `Gate` knows about a request."""
    found: Call = request.scope["longstrand"]
    return found


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    """Give all errors one form."""

    def respond(request: Request, refusal: Refusal) -> Response:
        body = refusal.body(call_of(request).request_id)
        return Response(body, status_code=refusal.status, headers=refusal.headers())

    async def refused(request: Request, error: Any) -> Response:
        return respond(request, error)

    async def fields(request: Request, error: Any) -> Response:
        return respond(request, refusal_of_fields(error.errors()))

    async def library(request: Request, error: Any) -> Response:
        return respond(request, refusal_of(error))

    async def http(request: Request, error: Any) -> Response:
        if isinstance(error.__cause__, Refusal):
            return respond(request, error.__cause__)
        words = {404: "There is nothing at this address; see /docs.",
                 405: "This address takes another method; see /docs.",
                 400: "The request could not be read."}  # fmt: skip
        return respond(request, Refusal(error.status_code, words.get(error.status_code, "The request was refused.")))

    async def mistake(request: Request, error: Any) -> Response:
        return respond(request, Refusal(500, "The server has made a mistake; its log has the request id."))

    handlers: list[tuple[Any, Any]] = [(Refusal, refused), (RequestValidationError, fields), (LongstrandError, library),
                                       (HTTPException, http), (Exception, mistake)]  # fmt: skip
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)


def _add_state(app: FastAPI, server: Server, metrics: Metrics) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Say that the process runs."""
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        """Say whether requests are answered."""
        server.check_ready()
        return {"status": "ready"}

    @app.get("/metrics")
    async def measured() -> Response:
        """Give counters in the format of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/status")
    async def status() -> dict[str, Any]:
        """Say how busy the server is, and what it takes."""
        options, queue = server.options, server.fast
        limits = {"bases": server.max_bases, "inputs": options.max_inputs, "variants": options.max_variants,
                  "body_bytes": options.max_body, "upload_bytes": options.max_upload, "max_wait": options.max_wait,
                  "max_forwards": options.max_forwards, "timeout": options.timeout,
                  "jobs": options.max_jobs}  # fmt: skip
        waits = {"items": queue.num_items, "tokens": queue.num_tokens, "seconds": round(queue.seconds, 2),
                 "tokens_per_second": round(queue.tokens_a_second)}  # fmt: skip
        return {"state": server.state, "version": __version__, "device": server.device, "threads": server.threads,
                "queue": waits, "limits": limits, "token_required": options.token is not None}  # fmt: skip

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the models and what each can do."""
        server.check_ready()
        return {"models": [model.card for model in server.models.values()]}


def _add_places(app: FastAPI, server: Server) -> None:
    def served(name: str) -> Any:
        from longstrand.serve.places import one_of

        server.check_ready()
        return one_of(server.genomes, name, "genome", "genome")

    @app.get("/v1/genomes")
    async def genomes() -> dict[str, Any]:
        """List the genomes."""
        server.check_ready()
        return {"genomes": [genome.card() for genome in server.genomes.values()]}

    @app.get("/v1/genomes/{name}/sequence")
    async def sequence(name: str, region: Annotated[str, Query(max_length=200)]) -> Response:
        """Give the sequence of a region as FASTA."""
        from longstrand.serve.places import too_many

        genome = served(name)
        place = genome.region(region, "region")
        too_many(place.length, server.max_bases)
        return Response(f">{place}\n{genome.genome.fetch_interval(place)}\n", media_type="text/x-fasta")

    @app.get("/v1/genomes/{name}/search")
    async def search(name: str, q: Annotated[str, Query(max_length=200)]) -> dict[str, Any]:
        """Find a gene, a region or a variant."""
        return {"hits": served(name).search(q)}

    @app.get("/v1/genomes/{name}/genes")
    async def genes(name: str, region: Annotated[str, Query(max_length=200)]) -> dict[str, Any]:
        """List the transcripts of a region."""
        genome = served(name)
        return {"genes": genome.genes(genome.region(region, "region"))}

    @app.get("/v1/genomes/{name}/{file}")
    async def fasta(name: str, file: str) -> Response:
        """Give NAME.fa (with ranges) or its index NAME.fa.fai, for a genome browser."""
        genome = served(name)
        if file == f"{name}.fa.fai":
            return Response(genome.genome.fai(), media_type="text/plain")
        if file == f"{name}.fa":
            return FileResponse(genome.genome.plain, media_type="text/x-fasta")
        raise HTTPException(404)


def _add_questions(app: FastAPI, server: Server) -> None:
    def answers() -> Any:
        server.check_ready()
        from longstrand.serve import answers

        return answers

    @app.post("/v1/tokenize")
    async def tokenize(request: Request, body: TokenizeRequest) -> Response:
        """Cut sequences into tokens."""
        return _json(await answers().tokenize(server, call_of(request), body))

    @app.post("/v1/predict")
    async def predict(request: Request, body: PredictRequest) -> Response:
        """Predict sequences: one answer an input."""
        return _json(await answers().predict(server, call_of(request), body))

    @app.post("/v1/embed")
    async def embed(request: Request, body: EmbedRequest) -> Response:
        """Turn sequences into vectors."""
        return _json(await answers().predict(server, call_of(request), body))

    @app.post("/v1/tracks")
    async def tracks(request: Request, body: TracksRequest) -> Response:
        """Predict along a sequence or a region; Accept chooses JSON, bedGraph, BED or BigWig."""
        accepted = request.headers.get("accept", "")
        media = next((media for media in FORMATS if media in accepted), None)
        if media is None:
            return _json(await answers().tracks_json(server, call_of(request), body))
        content = await answers().tracks_file(server, call_of(request), body, FORMATS[media])
        return Response(content, media_type=media)

    @app.post("/v1/attribute")
    async def attribute(request: Request, body: AttributeRequest) -> Response:
        """Say which bases matter for an answer."""
        return _json(await answers().attribute(server, call_of(request), body))

    @app.post("/v1/variants")
    async def variants(request: Request, body: VariantsRequest) -> Response:
        """Score variants."""
        return _json(await answers().variants(server, call_of(request), body))


def _add_runs(app: FastAPI, runs: Mapping[str, Run]) -> None:
    @app.get("/v1/runs")
    async def listed() -> dict[str, Any]:
        """List run folders and their reports."""
        return {"runs": [run.card(name) for name, run in runs.items()]}

    @app.get("/v1/runs/{name}/report.html")
    async def report(name: str) -> Response:
        """Show the report of a run."""
        run = runs.get(name)
        if run is None or run.report is None:
            raise HTTPException(404)
        return HTMLResponse(await asyncio.to_thread(run.report.read_bytes))


def _add_pages(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """Describe the addresses."""
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """Show the page."""
        index = STATIC / "index.html"
        if index.exists():
            return FileResponse(index)
        return HTMLResponse(
            "<!doctype html><title>Longstrand</title><p>This server answers at <a href=/docs>/docs</a>."
        )

    if STATIC.is_dir():
        app.mount("/static", StaticFiles(directory=STATIC))
