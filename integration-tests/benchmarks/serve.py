"""The embedded BucketFS in a process of its own, told what to do over its standard input.

A script: client and server must not share an interpreter. It ends when its input does, so it
cannot outlive the benchmark. One JSON list per line, command and arguments; one JSON value back.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_testing.server import BucketFSServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Commands:
    def __init__(self, server: BucketFSServer) -> None:
        self._server = server

    def address(self) -> dict[str, str]:
        config = self._server.buckets[0]
        return {
            "uri": self._server.uri(),
            "url": f"{self._server.url}/{config.name}",
            "password": config.write_password,
        }

    def reset(self) -> None:
        """Remove all objects and forget all requests."""
        self._server.reset()

    def forget_requests(self) -> None:
        self._server.requests.clear()

    def traffic(self) -> dict[str, int]:
        log = self._server.requests
        return {
            "requests": len(log),
            "listings": log.listings,
            "connections": log.connections,
        }

    def crowd(self, number: int) -> None:
        """Fill the bucket with other people's artifacts, under names such as MLflow's."""
        self._server.put_many((key, b"") for key in _keys_of_others(number))

    def store(self, directory: str, folder: str) -> None:
        """Put a local directory's files into a folder."""
        root = Path(directory)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        self._server.put_many(
            (f"{folder}/{path.relative_to(root).as_posix()}", path.read_bytes()) for path in files
        )

    def mount_root(self) -> str:
        return str(self._server.mount_root)


def _keys_of_others(number: int) -> Iterator[str]:
    for index in range(number):
        run, file = divmod(index, 20)
        run_id = hashlib.sha256(str(run).encode()).hexdigest()[:32]
        yield f"mlflow/{run % 7}/{run_id}/artifacts/model/data/part-{file:05}.parquet"


def main(profile: str) -> None:
    """Serve until the standard input ends."""
    with BucketFSServer(profile=profile) as server:
        commands = _Commands(server)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            answer: Any = getattr(commands, name)(*arguments)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
