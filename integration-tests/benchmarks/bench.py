"""What all cases share: the two clients, the sizes, a place for files, and fair repetition."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.results import MIB, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.contenders import Contender
    from benchmarks.results import Sample
    from benchmarks.server import Server


@dataclass(frozen=True)
class Sizes:
    """How much is moved.

    Attributes:
        folders: of small files.
        files_per_folder: 10 kB each.
        slow_files: files uploaded to a server that takes a second for each.
        large_mib: size of the large file.
        crowd: keys of others in the bucket that is listed.
        model_mb: size of the model, in megabytes.
        repeats: runs of each client.
    """

    folders: int = 10
    files_per_folder: int = 30
    slow_files: int = 64
    large_mib: int = 1024
    crowd: int = 200_000
    model_mb: int = 600
    repeats: int = 5


QUICK = Sizes(
    folders=4,
    files_per_folder=10,
    slow_files=16,
    large_mib=64,
    crowd=20_000,
    model_mb=60,
    repeats=3,
)


@dataclass(frozen=True)
class Bench:
    """The surroundings of a case.

    Attributes:
        ours: our client.
        peer: the client it is compared with.
        udf: our client where there is nothing but what a UDF needs.
        sizes: how much to move.
        directory: for the case's files; removed afterwards.
    """

    ours: Contender
    peer: Contender
    udf: Contender
    sizes: Sizes
    directory: Path

    def env(self, server: Server | None = None, **variables: str) -> dict[str, str]:
        """The environment of a process: nothing but what is named here.

        Args:
            server: whose password to set.
            variables: further ones.
        """
        inherited = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        password = {"EXA_BUCKETFS_PASSWORD": server.password} if server else {}
        return {
            **inherited,
            "TMPDIR": str(temporary),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            **password,
            **variables,
        }

    def alternate(
        self,
        ours: Callable[[], Sample],
        *theirs: Callable[[], Sample],
        repeats: int | None = None,
        their_repeats: int | None = None,
    ) -> tuple[Measurement, ...]:
        """Run the clients in turn, so that whatever else the machine does hits all of them.

        Args:
            ours: runs our client once.
            theirs: each runs a counterpart once.
            repeats: how often; the bench's own number if ``None``.
            their_repeats: how often at most a counterpart runs.

        Returns:
            Our measurement, then one for each counterpart.
        """
        repeats = self.sizes.repeats if repeats is None else repeats
        most = repeats if their_repeats is None else their_repeats
        samples: list[list[Sample]] = [[] for _ in range(1 + len(theirs))]
        for index in range(repeats):
            for number, run in enumerate((ours, *theirs)):
                if number == 0 or index < most:
                    samples[number].append(run())
        return tuple(Measurement(tuple(each)) for each in samples)

    def observed(
        self, server: Server, contender: Contender, operation: str, *arguments: object
    ) -> Sample:
        """Measure one operation on the server, and count what the server sees of the process.

        Args:
            server: where.
            contender: whose client.
            operation: see ``client.py``.
            arguments: the operation's own.
        """
        server.forget_requests()
        sample = contender.measure(self.env(server), operation, server.artifact_uri, *arguments)
        return replace(sample, traffic=server.traffic())


def write_random_file(path: Path, size_bytes: int) -> None:
    """Write a file that no file system or network can compress away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            file.write(os.urandom(min(MIB, size_bytes - start)))
