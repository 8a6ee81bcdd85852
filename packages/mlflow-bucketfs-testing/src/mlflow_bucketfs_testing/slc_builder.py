"""`SlcBuilder`: a script-language container from a flavor, by exaslct."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_bucketfs_testing.slc_errors import SlcUnavailableError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

# exaslct's own default looks for images under Exasol's name, and its cleaning, if somebody calls
# it, removes what has the target's name: the base image must not have it.
_SOURCE_REPOSITORY = "localhost/slc-source"
_TARGET_REPOSITORY = "localhost/slc"


class SlcBuilder:
    """Builds and exports a flavor; what pytest-exasol-slc's fixture ``slc_builder`` returns.

    Nothing is imported or built before `export` is called. It needs
    ``exasol-script-languages-container-tool`` and a Docker engine, found by ``DOCKER_HOST`` or
    at its usual place.

    Args:
        flavor_path: Folder of the flavor: the one that holds ``flavor_base``.
        prepare: Called before each export, to put wheels and the like into the flavor.
        export_path: Folder to put the container's file into, with a readable name; None: only
            exaslct's cache holds it.
        output_directory: Folder for exaslct's cache and logs; kept, it makes the next export of
            an unchanged flavor a matter of seconds. None: ``.build_output`` in the working
            directory, as exaslct does.
        build_name: Part of the name of the file in ``export_path``.
        force_rebuild: Whether to build the images although they exist.
        compressed: Whether to write a ``.tar.gz``; a ``.tar`` is quicker to write and 3 times
            as large.
        log_level: exaslct's, such as ``INFO``; None leaves it to exaslct.
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
        log_level: str | None = None,
    ) -> None:
        self._flavor_path = Path(flavor_path).absolute()
        self._prepare = prepare
        self._export_path = export_path
        self._output_directory = Path(output_directory or ".build_output")
        self._build_name = build_name
        self._force_rebuild = force_rebuild
        self._compressed = compressed
        self._log_level = log_level

    @property
    def flavor_path(self) -> Path:
        """Absolute path of the flavor's folder; as a string, a key of what `export` returns."""
        return self._flavor_path

    def export(self) -> Any:
        """Build the flavor's images, as far as they have changed, and export the release.

        Returns:
            exaslct's ``ExportContainerResult``: the file is
            ``export_infos[str(flavor_path)]["release"].cache_file``.

        Raises:
            SlcUnavailableError: exaslct is not installed.
            FileNotFoundError: ``flavor_path`` is not a flavor.
        """
        try:
            from exasol.slc.api import export  # noqa: PLC0415 -- slow, and not everybody's
            from exasol.slc.models.compression_strategy import (  # noqa: PLC0415
                CompressionStrategy,
            )
        except ModuleNotFoundError as exc:
            raise SlcUnavailableError(
                "exaslct is not installed: pip install exasol-script-languages-container-tool"
            ) from exc
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
                log_level=self._log_level,
            )
