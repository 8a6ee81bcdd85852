"""A UDF in Exasol's client protocol, without a database: ids keep all of their digits."""

from __future__ import annotations

from decimal import Decimal

import pytest
from mlflow_bucketfs_testing import UdfError


@pytest.fixture(scope="module")
def double_it(udf_runner):
    """A script as it is created in the database."""
    return udf_runner.create("""
        CREATE OR REPLACE PYTHON3 SET SCRIPT double_it(id DECIMAL(36,0), x DOUBLE)
        EMITS (id DECIMAL(36,0), y DOUBLE) AS
        def run(ctx):
            while True:
                ctx.emit(ctx.id, ctx.x * 2)
                if not ctx.next(): break
        /""")


def test_scores(double_it):
    """Decimals are returned unchanged."""
    assert double_it.run([(9007199254740993, 1.5)]).rows == [(Decimal(9007199254740993), 3.0)]


def test_a_missing_value(double_it):
    """NULL is None, which the script does not expect."""
    with pytest.raises(UdfError, match="TypeError: unsupported operand"):
        double_it.run([(1, None)])
