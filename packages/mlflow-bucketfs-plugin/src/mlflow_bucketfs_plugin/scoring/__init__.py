"""From a registered model to a script in the database that scores rows.

The artifact store imports nothing of this package. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_bucketfs_plugin.scoring.copying import Copied, copy_model
    from mlflow_bucketfs_plugin.scoring.script import (
        ScoringScript,
        ScriptColumn,
        ScriptOptions,
        scoring_script,
    )

__all__ = [
    "Copied",
    "ScoringScript",
    "ScriptColumn",
    "ScriptError",
    "ScriptOptions",
    "copy_model",
    "scoring_script",
]

_MODULES = {
    "Copied": "copying",
    "ScoringScript": "script",
    "ScriptColumn": "script",
    "ScriptOptions": "script",
    "copy_model": "copying",
    "scoring_script": "script",
}


class ScriptError(ValueError):
    """A model, an option or a row cannot be used; the message names the cause and the remedy."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
