from __future__ import annotations

from pathlib import Path

from analysis.compare import compare
from analysis.load import load_grid
from benchmarks.envelope import GRID, N, measure_plain_loop, prepare
from jobs.files.store import Store
from smoothing.certificate import certificate_from_counts


def test_the_made_up_grid_is_one_that_analysis_opens(tmp_path: Path) -> None:
    store = Store(tmp_path)
    prepare(store, num_models=6, num_images=30)
    grid = load_grid(store, GRID, more=("counts0",))
    assert len(grid.models) == 6
    assert compare(grid).baseline is not None
    one = grid.models[5]
    for image, votes in enumerate(one.column("count_top").tolist()):
        counts = one.rows["counts0"][image].values.to_numpy()
        assert counts.tolist() == [votes, N - votes]
        radius = certificate_from_counts(counts, counts, sigma=one.parameters.sigma_cert, alpha=0.001).radius
        assert one.column("radius")[image] == (radius if votes > N - votes else 0.0)


def test_the_plain_loop_is_timed_on_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    prepare(store, num_models=4, num_images=20)
    anew_s, once_s = measure_plain_loop(store, num_models=4, num_radii=5)
    assert anew_s > 0
    assert once_s > 0
