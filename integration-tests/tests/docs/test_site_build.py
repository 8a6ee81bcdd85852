"""The site, built as by ``nox -s docs:build``, is complete and has no dead links."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow_bucketfs_core
import mlflow_bucketfs_testing
import pytest
from mlflow_bucketfs_plugin.cli import main as _plugin_command
from mlflow_bucketfs_testing import plugin
from mlflow_bucketfs_testing.cli import main as _testing_command

_ROOT = Path(__file__).parents[3]
_DOCS = _ROOT / "docs"
_NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_click", "sphinx_copybutton")

if not all(map(importlib.util.find_spec, _NEEDED)):
    pytest.skip("needs Sphinx: uv run --group docs pytest …", allow_module_level=True)


class _Page(HTMLParser):
    """A page of the site: its links, its loaded files, and the ids of its targets."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if found.get("id"):
            self.ids.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in {"stylesheet", "preload", "icon"}:
            self.loaded.append(found["href"])


def _build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    strict = ["-n", "-W", "--keep-going", "-q", "-d", str(site.parent / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *strict, str(docs), str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[str, _Page]:
    """Return the pages of the site by name, built with warnings as errors."""
    html = tmp_path_factory.mktemp("site") / "html"
    built = _build(_DOCS, html)
    assert built.returncode == 0, built.stderr
    return {str(file.relative_to(html)): _Page(file) for file in html.rglob("*.html")}


def test_every_page_is_on_the_site(site):
    """Each Markdown file below docs/ is a page of the site, unless it is a part of pages."""
    pages = {path.relative_to(_DOCS).with_suffix(".html") for path in _DOCS.rglob("*.md")}
    parts = {"_build", "_generated", "_static"}
    assert {str(page) for page in pages if page.parts[0] not in parts} - site.keys() == set()


def test_every_link_has_a_target(site):
    """Each link within the site leads to an existing page and anchor."""
    dead = []
    for name, page in site.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or name == "genindex.html" or link == "#":
                continue
            target = str(Path(name).parent / unquote(url.path)) if url.path else name
            target = str(Path("/", target).resolve().relative_to("/"))
            if target.startswith("_"):  # sources, downloads
                continue
            if target not in site or (
                url.fragment and unquote(url.fragment) not in site[target].ids
            ):
                dead.append(f"{name}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site):
    """The pages load no fonts, scripts or images of other sites."""
    loaded = {link for page in site.values() for link in page.loaded}
    assert loaded
    assert [link for link in loaded if urlsplit(link).netloc] == []


@pytest.mark.parametrize("package", [mlflow_bucketfs_core, mlflow_bucketfs_testing])
def test_the_reference_has_every_public_name(site, package):
    """Each public name of the packages is documented."""
    ids = {target for name, page in site.items() if name.startswith("api/") for target in page.ids}
    documented = {
        target.rpartition(".")[2] for target in ids if target.startswith(package.__name__)
    }
    assert set(package.__all__) - documented == set()


def test_the_reference_has_every_fixture_and_command(site):
    """Each fixture of the pytest plugin and each subcommand is documented."""
    fixture = type(plugin.bucketfs_uri)
    fixtures = {name for name, value in vars(plugin).items() if isinstance(value, fixture)}
    wanted = {f"mlflow_bucketfs_testing.plugin.{name}" for name in fixtures}
    wanted |= {f"mlflow-bucketfs-{name}" for name in _plugin_command.commands}
    wanted |= {f"mlflow-bucketfs-testing-{name}" for name in _testing_command.commands}
    assert wanted - site["api/plugin.html"].ids - site["api/testing.html"].ids == set()


_CONF = f"""
import sys
sys.path.insert(0, {str(_DOCS)!r})
project = "x"
extensions = ["myst_parser", "_ext.repository_links"]
myst_heading_anchors = 3
repository_url = "https://example.com/x"
repository_pages = {{"SECURITY.md": "security"}}
"""


@pytest.fixture
def repository(tmp_path):
    """A small repository with documentation that links in all directions."""
    docs = tmp_path / "docs"
    (docs / "guide").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "run.py").write_text("pass\n")
    (tmp_path / "README.md").write_text("# Read me\n")
    (tmp_path / "SECURITY.md").write_text(
        "# Security\n\n[a](docs/guide/page.md#part) [b](src/run.py) [c](docs/guide/)\n"
    )
    (docs / "conf.py").write_text(_CONF)
    (docs / "security.md").write_text("```{include} ../SECURITY.md\n```\n")
    (docs / "guide" / "index.md").write_text("# Guide\n\n```{toctree}\npage\n```\n")
    (docs / "guide" / "page.md").write_text("# Page\n\n## Part\n\n[up](../../SECURITY.md)\n")
    (docs / "index.md").write_text(
        "# Start\n\n```{toctree}\nguide/index\nsecurity\n```\n\n"
        "[r](../README.md#read-me) [s](../src) [f](../src/run.py) [g](guide/page.md)\n"
    )
    return docs


def test_links_lead_to_the_site_or_to_github(repository, tmp_path):
    """Links to pages and included files lead to the site; other files and folders to GitHub."""
    built = _build(repository, tmp_path / "html")
    assert built.returncode == 0, built.stderr
    start, security, page = (
        set(_Page(tmp_path / "html" / f"{name}.html").links)
        for name in ("index", "security", "guide/page")
    )
    github = "https://example.com/x"
    assert start >= {
        f"{github}/blob/main/README.md#read-me",
        f"{github}/tree/main/src",
        f"{github}/blob/main/src/run.py",
        "guide/page.html",
    }
    assert security >= {
        "guide/page.html#part",
        f"{github}/blob/main/src/run.py",
        "guide/index.html",
    }
    assert "../security.html" in page


@pytest.mark.parametrize("link", ["../NOTHING.md", "../../outside.md", "guide/page.md#nothing"])
def test_a_dead_link_is_an_error(repository, tmp_path, link):
    """A link to a missing file or heading is an error, not a link to GitHub."""
    (tmp_path.parent / "outside.md").write_text("# Not in the repository\n")
    with (repository / "index.md").open("a") as page:
        page.write(f"\n[dead]({link})\n")
    built = _build(repository, tmp_path / "html")
    assert built.returncode != 0
    assert "[myst.xref_missing]" in built.stderr
