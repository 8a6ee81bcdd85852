"""Lets pytest collect the pages, through sybil."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sybil import Region, Sybil
from sybil.example import SybilFailure

from doc_examples import fixtures
from doc_examples.blocks import blocks_of
from doc_examples.failure import ExampleFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sybil import Document, Example


def collect_page(root: Path, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return the examples of a page below a directory, as pytest's hook wants them."""
    plugins = parent.config.pluginmanager
    if not plugins.is_registered(fixtures):
        plugins.register(fixtures)
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
    if block.marks.skip:
        pytest.skip(block.marks.skip)
    if page.failed_line is not None:
        pytest.skip(f"the block in line {page.failed_line} of this page failed")
    try:
        page.run(block)
    except ExampleFailedError as error:
        page.failed_line = block.line
        raise SybilFailure(example, str(error)) from None
