"""``longstrand serve``: models behind an address, for a browser, for programs and for colleagues."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import QuietOption, given, new_app, options_of
from longstrand.errors import UsageError
from longstrand.serve.schemas import ServeOptions

app = new_app()


@app.command()
@options_of(ServeOptions)
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", show_default=False,
            help="Folder of a model or run, name of a shipped model, or hub id; NAME=FOLDER names it. Reports of "
            "run folders are listed.",
        ),
    ],
    genome: Annotated[list[str] | None, typer.Option("--genome", help="FASTA, or NAME=FASTA; repeatable.")] = None,
    annotation: Annotated[
        list[str] | None, typer.Option("--annotation", help="GFF3 or GTF; GENOME=FILE if there are several genomes.")
    ] = None,
    quiet: QuietOption = False,
    **options: Any,
) -> None:  # fmt: skip
    """Answer questions to models over HTTP, with a page to work in; ends with Ctrl+C.

    Only this machine can call, unless --host says otherwise; then callers need the token, which is printed once.
    """
    from longstrand.config import build
    from longstrand.runtime import prepare_to_serve

    prepare_to_serve()  # before anything imports PyTorch
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(f"serving needs the package {error.name}: pip install 'longstrand[serve]'.") from None
    from longstrand.serve.app import create_app
    from longstrand.serve.gate import LOCAL
    from longstrand.serve.runs import annotations_of, models_and_runs, named

    texts = given(options)
    for name in ("allow_host", "cors"):
        if name in texts:
            texts[name] = tuple(texts[name].split(","))
    settings = build(ServeOptions, texts, "options")
    if settings.host not in LOCAL and settings.token is None:
        settings = build(ServeOptions, {**texts, "token": secrets.token_urlsafe(24)}, "options")
    chosen, runs = models_and_runs(named(models))
    genomes = {name: Path(path).expanduser() for name, path in named(genome or []).items()}
    annotations = annotations_of(annotation or [], genomes)
    listening = _listen(settings.host, settings.port)
    logging.getLogger("longstrand.serve").setLevel(logging.INFO)
    _log_lines(logging.ERROR if quiet else logging.INFO)
    server: Any = None

    def fail() -> None:
        server.should_exit = True

    application = create_app(chosen, settings, genomes=genomes, annotations=annotations, runs=runs, on_failure=fail)
    config = uvicorn.Config(application, log_config=None, access_log=False, server_header=False,
                            timeout_graceful_shutdown=int(settings.timeout))  # fmt: skip
    server = uvicorn.Server(config)
    end = server.handle_exit

    def stop(number: int, frame: Any) -> None:
        application.server.state = "stopping"  # streams of events end, so that the others can be answered
        end(number, frame)

    server.handle_exit = stop
    _say(settings, listening.getsockname()[1], list(chosen))
    server.run(sockets=[listening])
    if application.server.problem is not None:
        raise UsageError(application.server.problem)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port, before anything is loaded.

    Raises:
        UsageError: another program has it, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle's delay on
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
        taken.listen(1024)
    except OSError as error:
        taken.close()
        raise UsageError(
            f"{host}:{port} cannot be used ({error.strerror}); is another server running there? Choose another --port, "
            "or 0 for a free one."
        ) from None
    return taken


def _say(settings: ServeOptions, port: int, models: list[str]) -> None:
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(
        f"serving {', '.join(models) or 'reports'} at http://{shown}:{port}/ (addresses: /docs; end with Ctrl+C)"
    )
    if settings.token is not None:
        typer.echo(f"token: {settings.token}\npage:  http://{shown}:{port}/#token={settings.token}")


def _log_lines(level: int) -> None:
    """Write one line of JSON for each request to the error output."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    log = logging.getLogger("longstrand.serve")
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(level)


class _Plain(logging.Formatter):
    """Lines of requests as they are; others as JSON with their level and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage()
        if record.name.endswith(".requests"):
            return text
        trace = self.formatException(record.exc_info) if record.exc_info else None
        return json.dumps({"level": record.levelname.lower(), "message": text, "traceback": trace})
