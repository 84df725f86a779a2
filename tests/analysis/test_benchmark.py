from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.compare import compare
from analysis.load import load_grid
from analysis.runs import Reading
from benchmarks.scale import GRID, QUERY, N, commands, measure, measure_plain_loop, prepare
from jobs.aggregate import run
from jobs.files.store import Store
from jobs.specs.units import AggregateUnit, Resources
from smoothing.certificate import certificate_from_counts


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    prepare(store, num_models=6, num_images=30)
    return store


def test_the_made_up_grid_is_one_that_analysis_opens(store: Store) -> None:
    grid = load_grid(store, GRID, reading=Reading(more=("counts",)))
    assert len(grid.models) == 6
    assert compare(grid).baseline is not None
    one = grid.models[5]
    for image, counts in enumerate(one.column("counts")):
        assert counts.sum() == N
        radius = certificate_from_counts(counts, counts, sigma=one.parameters.sigma_cert, alpha=0.001).radius
        is_top = counts.max() == one.column("count_top")[image]
        assert one.column("radius")[image] == (radius if is_top else 0.0)


def test_what_is_measured_runs(store: Store) -> None:
    run(AggregateUnit(grid=GRID), store, Resources(device="cpu"))
    assert pq.read_metadata(store.records_path(GRID)).num_rows == 180
    cpu_s, peak_mb = measure(commands(store, None)["envelope of 4 models"])
    assert cpu_s > 0
    assert peak_mb > 0


def test_another_tool_finds_the_same_cells_in_the_records(store: Store) -> None:
    duckdb = pytest.importorskip("duckdb")
    run(AggregateUnit(grid=GRID), store, Resources(device="cpu"))
    cells = duckdb.sql(QUERY.replace("records,", f"'{store.records_path(GRID)}',")).fetchall()
    curves = [model.curve for model in load_grid(store, GRID).models]
    assert len(cells) == 17
    for radius, images, _ in cells:
        assert images == max(int(curve.num_certified(float(radius))) for curve in curves)


def test_the_plain_loop_is_timed_on_it(store: Store) -> None:
    anew_s, once_s = measure_plain_loop(store, num_models=4, num_radii=5)
    assert anew_s > 0
    assert once_s > 0
