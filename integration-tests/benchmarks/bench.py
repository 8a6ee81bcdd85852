"""Shared by all cases: clients, server, sizes, files, and alternating runs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import MIB, Measurement, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_testing import BucketFSServer

    from benchmarks.contenders import Contender
    from benchmarks.results import Sample

FOLDER = "benchmark"  # of the measured clients' artifacts
_MAKE_MODELS = Path(__file__).with_name("make_models.py")


@dataclass(frozen=True)
class Sizes:
    """Numbers and sizes of the files to transfer.

    Attributes:
        folders: number of folders with small files.
        files_per_folder: number of files in each, of 10 kB.
        slow_files: number of files uploaded to a server that takes a second for each.
        large_mib: size of the large file, in MiB.
        crowd: number of other keys in the bucket that is listed.
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
    """The environment of a case.

    The server runs in this process, which only waits while a client runs in its own.

    Attributes:
        ours: our client.
        peer: the client that it is compared with.
        udf: our client in an environment with the requirements of a UDF only.
        sizes: numbers and sizes of the files.
        directory: directory for the case's files; removed afterwards.
        server: an empty embedded BucketFS.
    """

    ours: Contender
    peer: Contender
    udf: Contender
    sizes: Sizes
    directory: Path
    server: BucketFSServer

    @property
    def artifact_uri(self) -> str:
        """URI of the folder with the measured clients' artifacts."""
        return self.server.uri(path=FOLDER)

    def env(self, **variables: str) -> dict[str, str]:
        """Return the environment variables of a measured process.

        Args:
            variables: further ones.
        """
        inherited = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        return {
            **inherited,
            "TMPDIR": str(temporary),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "EXA_BUCKETFS_PASSWORD": self.server.buckets[0].write_password,
            **variables,
        }

    def make_models(self, python: str, kind: str, directory: Path, number: int) -> None:
        """Save models in a separate process, because this one would keep the memory.

        Args:
            python: the interpreter whose packages save them.
            kind: ``linear`` or ``scoring``; see ``make_models.py``.
            directory: directory for the models.
            number: number of coefficients or trees.
        """
        command = [python, "-I", str(_MAKE_MODELS), kind, str(directory), str(number)]
        subprocess.run(command, env=self.env(), check=True, capture_output=True)

    def alternate(
        self,
        ours: Callable[[], Sample],
        *theirs: Callable[[], Sample],
        repeats: int | None = None,
        their_repeats: int | None = None,
    ) -> tuple[Measurement, ...]:
        """Run the clients in turn, so that other load on the machine affects all of them.

        Args:
            ours: runs our client once.
            theirs: each runs a counterpart once.
            repeats: number of runs; ``sizes.repeats`` if ``None``.
            their_repeats: maximum number of runs of a counterpart; ``repeats`` if ``None``.

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

    def observed(self, contender: Contender, operation: str, *arguments: object) -> Sample:
        """Measure one operation on the artifact folder, and count its requests.

        Args:
            contender: the client to measure.
            operation: see ``client.py``.
            arguments: arguments of the operation.
        """
        self.server.requests.clear()
        sample = contender.measure(self.env(), operation, self.artifact_uri, *arguments)
        return replace(sample, traffic=self.traffic())

    def traffic(self) -> Traffic:
        """Return the requests since ``server.requests`` was cleared."""
        log = self.server.requests
        return Traffic(len(log), log.listings, log.connections)

    def store(self, directory: Path, folder: str = FOLDER) -> None:
        """Store a local directory's files on the server without HTTP."""
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        self.server.put_many(
            (f"{folder}/{path.relative_to(directory).as_posix()}", path.read_bytes())
            for path in files
        )


def write_random_file(path: Path, size_bytes: int) -> None:
    """Write a file of random bytes, which cannot be compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            file.write(os.urandom(min(MIB, size_bytes - start)))
