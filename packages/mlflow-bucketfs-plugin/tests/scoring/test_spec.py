"""The description of a model: a JSON literal in the Python code of a SQL script."""

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
    """With any names, the code is valid Python and contains the same description."""
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
    """No line is a lone slash, which ends a script in SQL clients, or begins with ``%``."""
    inputs = [Input(column=column, feature=feature, type="double")]
    lines = udf_source(make_spec(inputs, [])).splitlines()
    assert not [line for line in lines if line.startswith("%") or line.strip() == "/"]


def test_the_description_has_a_line_for_each_column(make_spec):
    """The description has one line for each column, so that it can be reviewed."""
    inputs = [Input(column=c, feature=c, type="double") for c in "ABC"]
    text = make_spec(inputs, [Output(column="Ä", type="long")]).to_json()
    assert sum(line.startswith('  {"column": "') for line in text.splitlines()) == 4
    assert '{"column": "Ä", "type": "long", "scale": 0, "field": null}' in text
