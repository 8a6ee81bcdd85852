"""The fixture of the examples; registered with pytest when the first page is collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doc_examples.page import Page
from doc_examples.services import PageServices

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def example_page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The page whose blocks are the tests of this module."""
    name = str(request.path.relative_to(request.config.rootpath))
    with PageServices() as services:
        page = Page(request.path, name, services, tmp_path_factory.mktemp("page"))
        try:
            yield page
        finally:
            page.close()
