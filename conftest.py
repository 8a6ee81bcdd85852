"""What holds for all tests of the workspace, and the pages of the documentation as tests."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# A shell that starts a job in the background lets it ignore SIGINT, and so do all its children:
# the tests that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a page below docs/, and any other page that the command line or testpaths name.

    So the tests of the packages alone, which also run where only a wheel is, do without the pages.
    """
    if file_path.suffix != ".md":
        return None
    root = Path(__file__).parent
    named = {Path(arg.partition("::")[0]).resolve() for arg in parent.config.args}
    if file_path not in named and not file_path.is_relative_to(root / "docs"):
        return None
    from doc_examples.collection import collect_page  # noqa: PLC0415 -- only if there is a page

    return collect_page(root, file_path, parent)
