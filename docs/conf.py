"""How Sphinx builds the site: ``nox -s docs:build``, offline, every warning an error."""
# ruff: noqa: INP001 -- Sphinx reads this file; it is not part of a package

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

project = "mlflow-bucketfs"
author = "The mlflow-bucketfs authors"
project_copyright = author
# The packages have versions of their own; most readers have installed this one.
version = release = installed_version("mlflow-bucketfs-plugin")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_click",
    "_ext.repository_links",
]

root_doc = "index"
smartquotes = False  # they make a dash of the two hyphens of an option
exclude_patterns = ["_build", "_ext", "_generated"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Pages of the site that show a file of the repository: links to the file lead to the page.
repository_url = "https://github.com/mlflow-bucketfs/mlflow-bucketfs"
repository_pages = {
    "CONTRIBUTING.md": "develop/contributing",
    "SECURITY.md": "security",
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Names for the sake of the code's brevity: the reference shows what they stand for.
autodoc_type_aliases = {"PathArgument": "str | os.PathLike[str]"}
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Single backticks in docstrings are names of this project's API.
default_role = "py:obj"

nitpicky = True
# Names of others, to which there is no link: the site is built without a network, so there are no
# inventories of their documentation.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|importlib|os|pathlib|subprocess|types|typing|typing_extensions)\..*"),
    ("py:.*", r"(click|exasol|mlflow|pd|pytest|requests|urllib3)\..*"),
    # the same, where the code imports the name itself
    ("py:.*", r"BucketPath|MlflowException|Path|Self|Unpack"),
    # type aliases: Sphinx 8.1, the newest for Python 3.10, finds no data in place of a class
    ("py:class", "FileInTheWay|Framing|Scope|StallPoint"),
    # a type variable: what goes in comes out
    ("py:class", "_Model"),
    # no part of the API, but what a reader of the plugin's code looks for next
    ("py:meth", r"MountedArtifact\.provide"),
    ("py:class", "ScoringSpec"),
]

html_theme = "furo"
html_title = "mlflow-bucketfs"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_theme_options = {
    "source_repository": f"{repository_url}/",
    "source_branch": "main",
    "source_directory": "docs/",
}
# The prompt of a console block is not part of what one types, and neither is the output below.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
