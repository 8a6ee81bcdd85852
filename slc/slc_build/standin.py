"""A stand-in for Exasol's base image, for machines that cannot pull it.

Debian's (or Ubuntu's) own packages of the host's release, a CPython 3.12 that is installed on
the host, and the user and folders that Exasol's image has. It takes the official image's name,
so that the flavor's files need not change; a label and the missing digest tell the two apart.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from slc_build import docker
from slc_build.commands import missing, output_of
from slc_build.paths import PYTHON, base_image
from slc_build.progress import SlcBuildError, say
from slc_build.pythons import SharedLibrary, libraries_of, python_to_copy

LABEL = "mlflow-bucketfs.slc.stand-in"
_TOOLS = ("debootstrap", "chroot", "tar")
_LEFT_OUT = ("site-packages", "dist-packages", "test", "idlelib", "turtledemo", "tkinter")


def ensure() -> None:
    """Make the stand-in, unless the engine has an image of this name.

    Raises:
        SlcBuildError: something that it is made of is missing.
    """
    docker.choose_engine()
    if not docker.engine_answers():
        raise SlcBuildError(docker.NO_ENGINE)
    name = base_image()
    if found := docker.image(name):
        say(f"Base image {name} is there ({'pulled' if found.pulled else 'local stand-in'})")
        return
    if absent := missing(*_TOOLS):
        raise SlcBuildError(
            f"{', '.join(absent)} not found: apt-get install -y --no-install-recommends "
            "debootstrap (Debian or Ubuntu)"
        )
    if os.geteuid() != 0:
        raise SlcBuildError("debootstrap needs root: run this with sudo")
    prefix = python_to_copy(PYTHON)
    # debootstrap refuses file systems mounted with nodev or noexec, as /tmp often is
    with tempfile.TemporaryDirectory(prefix="slc-base-", dir="/var/tmp") as directory:
        root = Path(directory, "root")
        _bootstrap(root)
        say(f"Copying CPython {PYTHON} from {prefix}")
        _copy_python(prefix, root)
        _arrange_as_exasol_does(root)
        say(f"Importing it as {name}")
        _import(root, name)
    say("The stand-in is there. A release must be built on the official image.")


def _bootstrap(root: Path) -> None:
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    say(f"Installing a minimal {release} (debootstrap, about a minute)")
    # The host's release: the copied Python needs a C library that is as new as the host's
    output_of("debootstrap", "--variant=minbase", "--include=locales", release, str(root))
    say("Generating the locale en_US.UTF-8")
    output_of("chroot", str(root), "localedef", "-i", "en_US", "-f", "UTF-8", "en_US.UTF-8")
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/i18n", "usr/share/locale"):
        shutil.rmtree(root / waste)
    shutil.rmtree(root / "usr/share/doc")


def _copy_python(prefix: Path, root: Path) -> None:
    library = f"lib/python{PYTHON}"
    local = root / "usr/local"
    shutil.copytree(
        prefix / library,
        local / library,
        symlinks=True,
        ignore=shutil.ignore_patterns(*_LEFT_OUT, "config-*", "_tkinter*"),
    )
    shutil.copy2(prefix / "bin" / f"python{PYTHON}", local / "bin")
    (local / "bin/python3").symlink_to(f"python{PYTHON}")
    for shared in libraries_of(prefix, PYTHON):
        _copy_library(shared, root)
    # Debian's name for the folder that pip installs to, as in Exasol's image
    (local / library / "dist-packages").mkdir()
    (local / library / "site-packages").symlink_to("dist-packages")
    output_of("chroot", str(root), "ldconfig")
    output_of("chroot", str(root), f"/usr/local/bin/python{PYTHON}", "-m", "ensurepip")


def _copy_library(shared: SharedLibrary, root: Path) -> None:
    system = [root / folder / shared.name for folder in ("lib", "usr/lib")]
    multiarch = [root / "usr/lib" / f"{platform.machine()}-linux-gnu" / shared.name]
    if not any(path.exists() for path in (*system, *multiarch)):
        shutil.copy2(shared.path, root / "usr/local/lib" / shared.name)


def _arrange_as_exasol_does(root: Path) -> None:
    output_of("chroot", str(root), "groupadd", "--gid", "500", "exadefusr")
    user = ("--uid", "500", "--gid", "500", "--no-create-home", "exadefusr")
    output_of("chroot", str(root), "useradd", *user)
    for folder in ("conf", "buckets", "usr/lib/python3/dist-packages"):
        (root / folder).mkdir(parents=True, exist_ok=True)


def _import(root: Path, name: str) -> None:
    changes = [
        *("--change", 'CMD ["/bin/bash"]'),  # exaslct's export needs a command
        *("--change", "ENV LANG=en_US.UTF-8 LC_ALL=en_US.UTF-8"),
        *("--change", f"LABEL {LABEL}={json.dumps(platform.freedesktop_os_release()['ID'])}"),
    ]
    tar = ("tar", "--create", "--numeric-owner", "--sort=name", "--directory", str(root), ".")
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as packing:  # noqa: S603 -- our own command
        subprocess.run(  # noqa: S603 -- our own command
            ["docker", "import", *changes, "-", name],  # noqa: S607 -- the user's docker
            stdin=packing.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    if packing.returncode:
        raise SlcBuildError(f"tar ended with {packing.returncode}")
