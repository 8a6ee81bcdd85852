"""The scripts of the user guide that score many rows at a time."""
# ruff: noqa: S608 -- the statements are the tests' own

from __future__ import annotations

import pytest

from . import page

# Ids that float64 cannot represent, up to the largest DECIMAL(18,0), and the ids of each batch
_FIRST, _LAST = 2**53 + 1, 10**18 - 1
_BATCHES = [[_FIRST], [None], [_FIRST, None], [-_FIRST, _LAST], [_FIRST, None, -_FIRST, _LAST]]
_FEATURES = "sepal_length, sepal_width, petal_length, petal_width"


@pytest.fixture
def large_ids(udfs, models) -> list[tuple[int | None, float]]:
    """Insert flowers with large ids, one batch per region; return their ids and species."""
    numbered = [(number, batch) for batch, ids in enumerate(_BATCHES) for number in ids]
    udfs.execute("DELETE FROM flowers")
    udfs.insert([(number, models.flowers[batch], f"batch {batch}") for number, batch in numbered])
    return [(number, models.species[batch]) for number, batch in numbered]


def test_many_rows_at_a_time(udfs, models, bucketfs_server):
    """Every flower of the table gets its species."""
    assert sorted(udfs.read("Many rows at a time")) == list(enumerate(models.species))
    assert bucketfs_server.requests.count() == 0


def test_started_faster(udfs, large_ids):
    """The result is the same without garbage collection and without the check of versions."""
    assert _in_order(udfs.read("Start faster")) == _in_order(large_ids)


def test_several_models(udfs, models, bucketfs_server):
    """Every flower is scored by the model of its region."""
    udfs.create("Many rows at a time")
    by_region = zip(models.species, models.other_species, strict=True)
    expected = [(number, both[number % 2]) for number, both in enumerate(by_region)]
    assert sorted(udfs.read("Several models, one per group")) == expected
    assert bucketfs_server.requests.count() == 0


def test_large_ids_stay_exact(udfs, models, large_ids):
    """Large ids stay exact in batches of several sizes, also if another id is NULL."""
    assert _in_order(udfs.read("Many rows at a time")) == _in_order(large_ids)
    scored = udfs.execute(_species_by_region(models))
    assert _in_order(scored) == _in_order(large_ids)


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
def test_more_rows_than_a_data_frame_has(udfs, models):
    """All rows of a group that needs more than one data frame are scored, with exact ids."""
    ids = [*range(_FIRST, _FIRST + 10_002), None]
    udfs.execute("DELETE FROM flowers")
    udfs.insert([(number, models.flowers[0], "north") for number in ids])
    scored = _in_order(udfs.read("Many rows at a time"))
    assert scored == [(number, models.species[0]) for number in ids]


@pytest.mark.parametrize("udfs", ["host"], indirect=True)
def test_a_script_that_changes_ids_is_noticed(udfs, models, large_ids):
    """Integers that share an array with floats become floats, as in Exasol's client."""
    del large_ids
    # as a float, this id has more digits than its column allows
    udfs.execute(f"DELETE FROM flowers WHERE id = {_LAST}")
    create, _ = page.statements("Many rows at a time", udfs.stand_ins)
    changing = create.replace("DECIMAL(36,0)", "DECIMAL(18,0)").replace(".astype(object)", "")
    udfs.execute(changing)
    ids = {number for number, _ in udfs.execute(_species_by_region(models))}
    assert ids == {None, _FIRST - 1, -_FIRST + 1}


def _species_by_region(models):
    call = f"species_in_batches('{models.location}', id, {_FEATURES})"
    return f"SELECT {call} FROM flowers GROUP BY region"


def _in_order(rows):
    return sorted(rows, key=lambda row: (row[0] is None, *row))
