"""The description of a script: a JSON literal in Python code in SQL, all three of them intact."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_plugin.scoring.spec import Input, Key, Output, udf_source

names = st.text(min_size=1) | st.sampled_from(
    ['"""', "\\", '\\"""\\', "%", "\n/\n", "\u2028%", "'''"]
)


@given(names, names, names)
def test_any_name_survives_inlining(make_spec, column, feature, model):
    """Whatever the names are, the code parses and reads the description that was written."""
    keys = (Key(column=column),)
    inputs = [Input(column=column, feature=feature, type="double")]
    spec = make_spec(inputs, [Output(column=column, type="json")], keys=keys, model=model)
    tree = ast.parse(udf_source(spec))
    (literal,) = (
        node.value.args[0].value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and node.target.id == "SPEC"
    )
    wanted = json.loads(json.dumps({"format": 1} | asdict(spec)))
    assert json.loads(literal) == wanted
    assert list(json.loads(literal)) == list(wanted)


@given(names, names)
def test_no_line_ends_the_script(make_spec, column, feature):
    """SQL clients end a script at a lone slash, and Exasol's takes a line with % as an option."""
    inputs = [Input(column=column, feature=feature, type="double")]
    lines = udf_source(make_spec(inputs, [])).splitlines()
    assert not [line for line in lines if line.startswith("%") or line.strip() == "/"]


def test_the_description_has_a_line_for_each_column(make_spec):
    """A reviewer reads it in the database."""
    inputs = [Input(column=c, feature=c, type="double") for c in "ABC"]
    text = make_spec(inputs, [Output(column="Ä", type="long")]).to_json()
    assert sum(line.startswith('  {"column": "') for line in text.splitlines()) == 4
    assert '{"column": "Ä", "type": "long", "scale": 0, "field": null}' in text
