"""The server of `longstrand serve`, on several machines or processes with Ray Serve, which spreads the requests.

    pip install 'longstrand[serve]' 'ray[serve]'
    python recipes/serve_ray.py NAME=MODEL [NAME=MODEL ...] [--genome NAME=g.fa] [--replicas 2] [--gpus 0] [--port 8000]

Every replica loads all models, so their folders must be at the same place on all machines of the cluster (``ray start``
makes one; without it Ray uses this machine). Pages, questions and limits are those of one server; the queue, its limits
and ``/metrics`` are each replica's own, and there are no jobs, whose folders would be those of one replica. The address
is that of this machine alone; put nginx (docs/guide/serve.md) in front of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any


def application(models: dict[str, str], genomes: dict[str, str], replicas: int, cpus: float, gpus: float) -> Any:
    """Give the Ray Serve application."""
    from ray import serve

    def build() -> Any:  # called in each replica
        from longstrand.serve.app import create_app
        from longstrand.serve.schemas import ServeOptions

        return create_app(
            {name: Path(path) for name, path in models.items()},
            ServeOptions(max_jobs=0, threads=max(1, int(cpus))),
            genomes={name: Path(path) for name, path in genomes.items()},
        )

    options = {"num_cpus": cpus, "num_gpus": gpus}
    deployment = serve.deployment(serve.ingress(build)(), name="longstrand")
    return deployment.options(num_replicas=replicas, ray_actor_options=options, max_ongoing_requests=256).bind()


def main() -> None:
    """Start, say where, and serve until Ctrl+C."""
    from longstrand.serve.runs import named

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--genome", action="append", default=[])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="of each replica")
    parser.add_argument("--cpus", type=float, default=1, help="of each replica")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray import serve

    models, genomes = (
        {name: os.path.abspath(path) if os.path.exists(path) else path for name, path in named(words).items()}
        for words in (given.models, given.genome)
    )
    serve.start(http_options={"host": "127.0.0.1", "port": given.port})
    built = application(models, genomes, given.replicas, given.cpus, given.gpus)
    with contextlib.suppress(KeyboardInterrupt):
        serve.run(built, name="longstrand", route_prefix="/", blocking=True)


if __name__ == "__main__":
    main()
