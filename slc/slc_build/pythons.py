"""Finding a CPython on the host that can be copied into an image."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slc_build.progress import SlcBuildError

_PROBE = (
    "import ensurepip, json, sys; "
    "print(json.dumps(['%d.%d' % sys.version_info[:2], sys.base_prefix]))"
)


@dataclass(frozen=True, kw_only=True)
class SharedLibrary:
    """A shared library that the loader found on the host.

    Attributes:
        name: the name it is loaded by, such as ``libssl.so.3``.
        path: the file.
    """

    name: str
    path: Path


def python_to_copy(version: str) -> Path:
    """Return the prefix of a CPython of this version, such as ``3.12``.

    Asks uv first, then pyenv, whose interpreters uv does not see through its shims. One without
    ensurepip is passed over: it is the system's own, spread over ``/usr``.

    Raises:
        SlcBuildError: there is none.
    """
    for candidate in (_uv_finds(version), *_pyenv_has(version)):
        probe = [candidate, "-I", "-c", _PROBE]
        try:
            answer = subprocess.run(  # noqa: S603 -- interpreters that uv or pyenv named
                probe, capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        found, prefix = json.loads(answer)
        if found == version and Path(prefix) != Path("/usr"):
            return Path(prefix)
    raise SlcBuildError(
        f"no CPython {version} to copy: uv python install {version} (or pyenv install {version})"
    )


def libraries_of(prefix: Path, version: str) -> list[SharedLibrary]:
    """Return the shared libraries that the interpreter and its modules load.

    Those of Tk are left out, and so is the C library, which every image has.
    """
    modules = sorted((prefix / f"lib/python{version}/lib-dynload").glob("*.so"))
    wanted = [prefix / f"bin/python{version}", *(m for m in modules if "_tkinter" not in m.name)]
    found: dict[str, SharedLibrary] = {}
    for file in wanted:
        answer = subprocess.run(  # noqa: S603 -- files of the interpreter that was found
            ["ldd", str(file)],  # noqa: S607 -- the system's
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", answer, re.MULTILINE):
            found[name] = SharedLibrary(name=name, path=Path(path).resolve())
    return list(found.values())


def _uv_finds(version: str) -> str:
    return subprocess.run(  # noqa: S603 -- our own command
        ["uv", "python", "find", "--no-project", version],  # noqa: S607 -- the user's uv
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()


def _pyenv_has(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [str(path) for path in sorted(root.glob(f"versions/{version}.*/bin/python{version}"))]
