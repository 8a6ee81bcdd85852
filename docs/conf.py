"""Configuration of Sphinx, for ``nox -s docs:build``: offline, every warning is an error."""
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
# The packages have separate versions; most readers have installed this one.
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
smartquotes = False  # they convert the two hyphens of an option to a dash
exclude_patterns = ["_build", "_ext", "_generated"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Pages of the site that include a file of the repository: links to the file become links to them.
repository_url = "https://github.com/mlflow-bucketfs/mlflow-bucketfs"
repository_pages = {
    "CONTRIBUTING.md": "develop/contributing",
    "SECURITY.md": "security",
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Aliases that shorten the code: the reference shows their definition.
autodoc_type_aliases = {"PathArgument": "str | os.PathLike[str]"}
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Single backticks in docstrings are names of this project's API.
default_role = "py:obj"

nitpicky = True
# Names of other packages have no link: the site is built without a network, so the inventories of
# their documentation are not available.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|importlib|os|pathlib|subprocess|types|typing|typing_extensions)\..*"),
    ("py:.*", r"(click|exasol|mlflow|pd|pytest|requests|urllib3)\..*"),
    # the same, where the code imports the name itself
    ("py:.*", r"BucketPath|MlflowException|Path|Self|Unpack"),
    # type aliases: Sphinx 8.1, the newest for Python 3.10, expects a class and finds data
    ("py:class", "FileInTheWay|Framing|Scope|StallPoint"),
    # a type variable
    ("py:class", "_Model"),
    # not in the API reference, but useful for readers of the plugin's code
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
# Copy the commands of a console block without prompt and output.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
