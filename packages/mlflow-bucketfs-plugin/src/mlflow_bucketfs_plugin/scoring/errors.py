"""The error that everything in this package raises for bad input."""

from __future__ import annotations


class ScriptError(ValueError):
    """A model, an option or a row cannot be used; the message names the cause and the remedy."""
