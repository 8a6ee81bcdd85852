"""The two images that exaslct builds for this flavor, one on top of the other."""

from __future__ import annotations

from exasol.slc.internal.tasks.build.docker_flavor_image_task import (
    DockerFlavorAnalyzeImageTask,
)


class AnalyzeDependencies(DockerFlavorAnalyzeImageTask):
    """Exasol's base image with the third-party packages of ``uv.lock``."""

    def get_build_step(self) -> str:
        """Return the name of the step, which is its folder and its goal."""
        return "dependencies"

    def get_path_in_flavor(self) -> str:
        """Return the folder that contains the steps."""
        return "flavor_base"


class AnalyzeRelease(DockerFlavorAnalyzeImageTask):
    """The packages of this workspace on top, because they change most often."""

    def get_build_step(self) -> str:
        """Return the name of the step, which is its folder and its goal."""
        return "release"

    def requires_tasks(self) -> dict[str, type[DockerFlavorAnalyzeImageTask]]:
        """Return the image to build on; the key is the variable in the Dockerfile."""
        return {"dependencies": AnalyzeDependencies}

    def get_path_in_flavor(self) -> str:
        """Return the folder that contains the steps."""
        return "flavor_base"
