"""The web application: every address, what it takes and what it gives; the work is in `longstrand.serve.answers`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from longstrand import __version__
from longstrand.config import StrictModel
from longstrand.errors import LongstrandError
from longstrand.runtime import prepare_to_serve
from longstrand.serve.call import Call, Metrics
from longstrand.serve.docs import docs_page
from longstrand.serve.gate import Gate, Question
from longstrand.serve.jobs import Jobs, add_job_routes
from longstrand.serve.refusals import Refusal, refusal_from
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
QUESTIONS: dict[str, tuple[type[StrictModel], str]] = {
    "/v1/tokenize": (TokenizeRequest, "Cut sequences into tokens."),
    "/v1/predict": (PredictRequest, "Predict sequences: one answer an input."),
    "/v1/embed": (EmbedRequest, "Turn sequences into vectors."),
    "/v1/tracks": (
        TracksRequest,
        "Predict along a sequence or a region; Accept chooses JSON, bedGraph, BED or BigWig.",
    ),
    "/v1/attribute": (AttributeRequest, "Say which bases matter for an answer."),
    "/v1/variants": (VariantsRequest, "Score variants."),
}
SHORT = ("predict", "embed")
"""Questions for the queue of short answers; when it is full, they are refused before they are parsed."""


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
    prepare_to_serve()
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
    _add_errors(app)
    _add_state(app, server, metrics)
    _add_places(app, server)
    questions = {path: _add_question(app, server, path, *about) for path, about in QUESTIONS.items()}
    _add_runs(app, known)
    add_job_routes(app, jobs)
    _add_pages(app)
    return Gate(app, settings, metrics, server, questions)


def _add_errors(app: FastAPI) -> None:
    """Give all errors one form."""

    async def refuse(request: Request, error: Exception) -> Response:
        refusal = refusal_from(error)
        return Response(refusal.body(request.scope["longstrand"].request_id), refusal.status, refusal.headers())

    for kind in (Refusal, RequestValidationError, LongstrandError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)


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


def _add_question(app: FastAPI, server: Server, path: str, schema: type[StrictModel], about: str) -> Question:
    """Describe a question in OpenAPI, and give what answers it; `Gate` calls that without the way through FastAPI."""

    def described(body: Any) -> None:
        raise HTTPException(404)

    described.__annotations__["body"] = schema
    name = path.removeprefix("/v1/")
    app.post(path, name=name, description=about, response_model=None)(described)

    async def answer(call: Call, body: bytes) -> bytes:
        server.check_ready()
        if name in SHORT:
            server.check_room()
        from longstrand.serve import answers

        content: bytes = await answers.ANSWERS[name](server, call, schema.model_validate_json(body))
        return content

    return answer


def _add_runs(app: FastAPI, runs: Mapping[str, Run]) -> None:
    @app.get("/v1/runs")
    async def listed() -> dict[str, Any]:
        """List run folders and their reports."""
        return {"runs": [run.card(name) for name, run in runs.items()]}

    @app.get("/v1/runs/{name}/{file:path}")
    async def file(name: str, file: str) -> Response:
        """Show the report of a run (report.html), or give a file of its folder that the report names."""
        run = runs.get(name)
        if run is None or run.report is None:
            raise HTTPException(404)
        folder = run.report.parent.resolve()
        path = (folder / file.replace("\0", "")).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path)


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
