"""Collect the pages with pytest, through sybil; start the servers that a page only uses."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from sybil import Region, Sybil
from sybil.example import SybilFailure

from doc_examples.blocks import blocks_of
from doc_examples.page import Page
from doc_examples.shell import ExampleFailedError
from doc_examples.substitutes import Services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sybil import Document, Example


def collect_page(root: Path, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the examples of a page, for pytest's hook ``pytest_collect_file``.

    Args:
        root: a directory above all pages.
        path: the page.
        parent: the collector of its directory.
    """
    plugins, this_module = parent.config.pluginmanager, sys.modules[__name__]
    if not plugins.is_registered(this_module):  # for the fixture
        plugins.register(this_module)
    sybil = Sybil([_regions], pattern="*.md", path=str(root), fixtures=["example_page"])
    collector: pytest.Collector | None = sybil.pytest()(path, parent)
    return collector


def _regions(document: Document) -> Iterator[Region]:
    for block in blocks_of(document.text):
        if block.is_test or block.problem:
            yield Region(block.start, block.end, block, _evaluate)


def _evaluate(example: Example) -> None:
    block, page = example.parsed, example.namespace["example_page"]
    if block.problem:
        raise SybilFailure(example, block.problem)
    if block.skip:
        pytest.skip(block.skip)
    if page.failed_line is not None:
        pytest.skip(f"the block in line {page.failed_line} of this page failed")
    try:
        page.run(block)
    except ExampleFailedError as error:
        page.failed_line = block.line
        raise SybilFailure(example, str(error)) from None


@pytest.fixture(scope="module")
def example_page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The page whose blocks are the tests of this module."""
    name = str(request.path.relative_to(request.config.rootpath))
    with ExitStack() as cleanup:
        directory = tmp_path_factory.mktemp("page")
        with closing(Page(request.path, name, Services(cleanup), directory)) as page:
            yield page
