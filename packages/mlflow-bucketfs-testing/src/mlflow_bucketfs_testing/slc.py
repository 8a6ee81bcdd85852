"""Script-language containers: `SlcBuilder` exports one, `SlcContainer` runs commands in it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_testing import slc_reach
from mlflow_bucketfs_testing.errors import SlcCommandError, SlcError, SlcUnavailableError
from mlflow_bucketfs_testing.slc_namespace import isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_REPOSITORY = "localhost/slc-under-test"
_LABEL = "mlflow-bucketfs-testing.slc"
_BLOCK = 1024**2
_TAIL = 4000
_IMPORT_TIMEOUT_S = 600

# As in Exasol's UDF client: no `site`, a fixed path, a writable home.
_PYTHON_PATH = ("/usr/local/lib/python{}/dist-packages", "/usr/lib/python3/dist-packages")
_ENVIRONMENT = {"HOME": "/tmp", "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8"}  # noqa: S108
_AS_EXASOL = (
    *("--network", "none", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108
    *("--user", "500:500", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
# Variables that would affect the docker command itself
_READ_BY_DOCKER = re.compile(r"HOME|PATH|(DOCKER|LD|XDG|SSH)_.*")

_UNPACK = "without Docker, root can run a container that is unpacked to a directory"

# By default, exaslct looks for images under Exasol's name. Its clean command removes all images
# with the target's name, so the base image must not have that name.
_SOURCE_REPOSITORY = "localhost/slc-source"
_TARGET_REPOSITORY = "localhost/slc"


class SlcBuilder:
    """A builder that exports a flavor, as a value of pytest-exasol-slc's fixture ``slc_builder``.

    Nothing is imported or built before `export` is called. It needs
    ``exasol-script-languages-container-tool`` and a Docker engine, at ``DOCKER_HOST`` or at the
    default socket.

    Args:
        flavor_path: folder of the flavor, which contains ``flavor_base``.
        prepare: called before each export, for example to copy wheels into the flavor.
        export_path: folder for a copy of the container's file, with a readable name; None: the
            file is only in exaslct's cache.
        output_directory: folder for exaslct's cache and logs; if it is kept, the next export of
            an unchanged flavor takes seconds. None: ``.build_output`` in the working directory,
            as exaslct does.
        build_name: part of the name of the file in ``export_path``.
        force_rebuild: whether to rebuild existing images.
        compressed: whether to write a ``.tar.gz``; a ``.tar`` is quicker to write and 3 times
            as large.
    """

    def __init__(
        self,
        flavor_path: str | os.PathLike[str],
        *,
        prepare: Callable[[], object] | None = None,
        export_path: str | os.PathLike[str] | None = None,
        output_directory: str | os.PathLike[str] | None = None,
        build_name: str | None = None,
        force_rebuild: bool = False,
        compressed: bool = True,
    ) -> None:
        self._flavor_path = Path(flavor_path).absolute()
        self._prepare = prepare
        self._export_path = export_path
        self._output_directory = Path(output_directory or ".build_output")
        self._build_name = build_name
        self._force_rebuild = force_rebuild
        self._compressed = compressed

    @property
    def flavor_path(self) -> Path:
        """Absolute path of the flavor's folder; as a string, a key in the result of `export`."""
        return self._flavor_path

    def export(self) -> Any:
        """Build the changed images of the flavor, and export the release.

        Returns:
            exaslct's ``ExportContainerResult``: the file is
            ``export_infos[str(flavor_path)]["release"].cache_file``.

        Raises:
            SlcUnavailableError: exaslct is not installed.
            FileNotFoundError: ``flavor_path`` is not a flavor.
        """
        try:
            from exasol.slc.api import export  # noqa: PLC0415 -- slow, and optional
            from exasol.slc.models.compression_strategy import (  # noqa: PLC0415
                CompressionStrategy,
            )
        except ModuleNotFoundError as error:
            raise SlcUnavailableError(
                "exaslct is not installed: pip install exasol-script-languages-container-tool"
            ) from error
        if self._prepare:
            self._prepare()
        if not (self._flavor_path / "flavor_base" / "build_steps.py").is_file():
            raise FileNotFoundError(
                f"{self._flavor_path} is not a flavor: it has no flavor_base/build_steps.py"
            )
        self._output_directory.mkdir(parents=True, exist_ok=True)
        strategy = CompressionStrategy.GZIP if self._compressed else CompressionStrategy.NONE
        # Beside the cache, not in /tmp: it takes 3 GB
        with tempfile.TemporaryDirectory(dir=self._output_directory, prefix="tmp-") as temporary:
            return export(
                flavor_path=(str(self._flavor_path),),
                export_path=None if self._export_path is None else str(self._export_path),
                build_name=self._build_name,
                force_rebuild=self._force_rebuild,
                output_directory=str(self._output_directory),
                temporary_base_directory=temporary,
                source_docker_repository_name=_SOURCE_REPOSITORY,
                target_docker_repository_name=_TARGET_REPOSITORY,
                compression_strategy=strategy,
            )


class SlcContainer:
    """An exported container that runs commands: no network, read-only, user 500, no capabilities.

    The first command imports a file into the Docker engine, unless the engine has it already; an
    older import of the same path is removed. The engine is at ``DOCKER_HOST`` or at the default
    socket; it must have access to this machine's files.

    A directory needs no Docker: root runs the commands in new Linux namespaces.

    Args:
        archive: the exported ``.tar.gz``, or a directory that it is unpacked to.
        buckets: directory that is ``/buckets`` in the container, read-only: the ``mount_root``
            of an embedded BucketFS, or a copy of a real one. None: the folder is empty.
        python: version of the container's Python.
        timeout_s: default of how long a command may take, in seconds.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        *,
        buckets: str | os.PathLike[str] | None = None,
        python: str = "3.12",
        timeout_s: float = 120.0,
    ) -> None:
        self.archive = Path(archive).absolute()
        self.buckets = Path(buckets).absolute() if buckets else None
        self._python = python
        self._timeout_s = timeout_s
        self._image: str | None = None

    def check(self) -> None:
        """Check that the container exists, and that a Docker engine or root can run it.

        Raises:
            SlcUnavailableError: it does not exist or cannot run.
        """
        if self.archive.is_dir():
            self._check_namespaces()
            return
        if not self.archive.is_file():
            raise SlcUnavailableError(f"there is no exported container {self.archive}")
        if shutil.which("docker") is None:
            raise SlcUnavailableError(f"the command docker is not on the path; {_UNPACK}")
        info = self._docker("info", "--format", "{{.ServerVersion}}")
        if info.returncode or not info.stdout.strip():
            address = os.environ.get("DOCKER_HOST") or "its default socket"
            raise SlcUnavailableError(f"no Docker engine answers at {address}; {_UNPACK}")

    @property
    def image(self) -> str:
        """Name of the imported image; a directory has none.

        Raises:
            SlcUnavailableError: there is no file or no Docker engine.
            SlcError: the engine cannot import the file, or it is a directory.
        """
        if self._image is None:
            if self.archive.is_dir():
                raise SlcError(f"{self.archive} is a directory, which runs without an image")
            self.check()
            self._image = self._imported()
        return self._image

    @contextmanager
    def launcher(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str | os.PathLike[str]] | None = None,
        reach: Sequence[str] = (),
    ) -> Iterator[list[str]]:
        """Yield a command line that runs a command in a new container, once.

        Its standard streams and exit status are those of the command in the container. The
        container is removed at the end of the block.

        Args:
            command: program and arguments.
            env: see `run`.
            mounts: see `run`.
            reach: see `run`.

        Raises:
            SlcError: see `run`.
            ValueError: see `run`.
        """
        seen = {"/buckets": self.buckets} if self.buckets else {}
        line = list(command)
        with ExitStack() as stack:
            if reach:
                seen[slc_reach.FOLDER] = stack.enter_context(slc_reach.reachable(reach))
                python = f"python{self._python}"
                line = slc_reach.command_that_reaches(reach, command, python=python)
            start = self._in_namespaces if self.archive.is_dir() else self._in_docker
            variables = {**_ENVIRONMENT, **(env or {})}
            yield stack.enter_context(start(line, {**seen, **(mounts or {})}, variables))

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str | os.PathLike[str]] | None = None,
        reach: Sequence[str] = (),
        stdin: str = "",
        check: bool = True,
        timeout_s: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container.

        Args:
            command: program and arguments.
            env: variables, in addition to ``HOME`` and the locale.
            mounts: further read-only directories: path in the container → path on this machine.
            reach: loopback addresses of this machine, such as ``127.0.0.1:5000``, that the
                command reaches under the same address although there is no network.
            stdin: text for its standard input.
            check: whether to raise if it fails.
            timeout_s: how long it may take, in seconds.

        Raises:
            SlcCommandError: it failed or timed out.
            SlcUnavailableError: the container does not exist or cannot run.
            SlcError: a container cannot be created, for example because a mount does not exist.
            ValueError: ``reach`` has an address that is not loopback.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        with self.launcher(command, env=env, mounts=mounts, reach=reach) as line:
            try:
                done = subprocess.run(  # noqa: S603 -- our own command
                    line, input=stdin, capture_output=True, text=True, check=False, timeout=limit
                )
            except subprocess.TimeoutExpired as error:
                raise SlcCommandError(f"{_short(command)} took more than {limit:g} s") from error
        if check and done.returncode:
            raise SlcCommandError(
                f"{_short(command)} ended with {done.returncode}:\n"
                f"{(done.stderr or done.stdout)[-_TAIL:]}",
                exit_code=done.returncode,
                stdout=done.stdout,
                stderr=done.stderr,
            )
        return done

    def run_python(
        self,
        source: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str | os.PathLike[str]] | None = None,
        path: Sequence[str] = (),
        reach: Sequence[str] = (),
        check: bool = True,
        timeout_s: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python source as a UDF's interpreter does: without ``site``, with its fixed path.

        Args:
            source: the program.
            arguments: its ``sys.argv[1:]``.
            env: see `run`.
            mounts: see `run`.
            path: folders in the container to import from, after the fixed ones.
            reach: see `run`.
            check: see `run`.
            timeout_s: see `run`.

        Raises:
            SlcError: see `run`.
            ValueError: see `run`.
        """
        return self.run(
            self.python_command("-", *arguments),
            env={**(env or {}), "PYTHONPATH": self.python_path(path)},
            mounts=mounts,
            reach=reach,
            stdin=source,
            check=check,
            timeout_s=timeout_s,
        )

    def python_command(self, *arguments: str) -> list[str]:
        """Return the command of the container's Python, started as a UDF's: without ``site``.

        Args:
            arguments: arguments after the interpreter's options.
        """
        return [f"python{self._python}", "-S", *arguments]

    def python_path(self, path: Sequence[str] = ()) -> str:
        """Return the ``PYTHONPATH`` of a UDF.

        Args:
            path: folders in the container to import from, after the fixed ones.
        """
        folders = [folder.format(self._python) for folder in _PYTHON_PATH]
        return ":".join([*folders, *path])

    @contextmanager
    def _in_docker(
        self,
        command: Sequence[str],
        mounts: Mapping[str, str | os.PathLike[str]],
        env: Mapping[str, str],
    ) -> Iterator[list[str]]:
        name = f"slc-{uuid.uuid4().hex}"
        # In docker's environment, because every user can read its command line
        passed = {k: v for k, v in env.items() if not _READ_BY_DOCKER.fullmatch(k)}
        variables = [f"--env={k}" if k in passed else f"--env={k}={v}" for k, v in env.items()]
        # --rm, in case this process is killed before it removes the container
        create = ("create", "--rm", "--interactive", "--name", name, *_AS_EXASOL)
        options = [*_mount_options(mounts), *variables]
        created = self._docker(*create, *options, self.image, *command, env=passed)
        if created.returncode:
            raise SlcError(f"cannot create a container of {self.archive}: {created.stderr.strip()}")
        try:
            yield ["docker", "start", "--attach", "--interactive", name]
        finally:
            # Also ends the container: after a timeout, only Docker's client has ended
            self._docker("rm", "--force", name)

    @contextmanager
    def _in_namespaces(
        self,
        command: Sequence[str],
        mounts: Mapping[str, str | os.PathLike[str]],
        env: Mapping[str, str],
    ) -> Iterator[list[str]]:
        self._check_namespaces()
        for here in mounts.values():
            if not Path(here).is_dir():
                raise SlcError(f"cannot create a container of {self.archive}: no directory {here}")
        with isolated(self.archive, command, mounts=mounts, environment=env) as line:
            yield line

    def _check_namespaces(self) -> None:
        if os.geteuid() != 0:
            raise SlcUnavailableError(
                f"only root can run the container in the directory {self.archive}: use the "
                "exported .tar.gz, which runs in Docker"
            )
        if shutil.which("unshare") is None:
            raise SlcUnavailableError(
                f"the command unshare (util-linux), which runs the container {self.archive}, is "
                "not on the path"
            )

    def _imported(self) -> str:
        digest = hashlib.sha256()
        with self.archive.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        image = f"{_REPOSITORY}:{digest.hexdigest()[:20]}"
        if self._docker("image", "inspect", image).returncode == 0:
            return image
        label = f"{_LABEL}={self.archive}"
        older = self._docker("image", "ls", "--quiet", "--filter", f"label={label}").stdout.split()
        change = ("--change", f'LABEL {_LABEL}="{self.archive}"')
        done = self._docker(
            "import", *change, str(self.archive), image, timeout_s=_IMPORT_TIMEOUT_S
        )
        if done.returncode:
            raise SlcError(f"cannot import {self.archive}: {done.stderr.strip()}")
        if older:
            self._docker("image", "rm", "--force", *older)
        return image

    def _docker(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 -- our own command
            ["docker", *arguments],  # noqa: S607 -- the user's docker
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


def _mount_options(seen: Mapping[str, str | os.PathLike[str]]) -> list[str]:
    return [
        f"--mount=type=bind,source={Path(here).absolute()},target={inside},readonly"
        for inside, here in seen.items()
    ]


def _short(command: Sequence[str]) -> str:
    return f"{shlex.join(command)[:200]} in the container"
