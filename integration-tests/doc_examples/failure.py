"""How an example fails."""

from __future__ import annotations


class ExampleFailedError(Exception):
    """An example did not do what the page says.

    Args:
        reason: one sentence without the full stop.
        printed: what it printed.
    """

    def __init__(self, reason: str, printed: str = "") -> None:
        super().__init__(f"{reason}\n{printed}".rstrip())
