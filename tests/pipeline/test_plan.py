from collections.abc import Mapping

from jobs.specs.indices import IndexRange
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit
from pipeline.local.order import Schedule
from pipeline.plan import Plan, plan
from pipeline.state.files import Observation
from tests.grids import as_range, tiny_manifest

MANIFEST = tiny_manifest()
RUNS = MANIFEST.of("certify")
KEYS = [run.train.key for run in RUNS]
EVERYTHING = (as_range(MANIFEST.of("certify")[0].indices),)


def _observed(
    trained: int = 0, certified: Mapping[int, tuple[IndexRange, ...]] | None = None, *, aggregated: bool = False
) -> Observation:
    return Observation(
        trained=frozenset(KEYS[:trained]),
        shards={run.place: (certified or {}).get(number, ()) for number, run in enumerate(RUNS)},
        aggregated=aggregated,
    )


def _plan(observed: Observation, num_shards: int = 3) -> Plan:
    return plan(MANIFEST, observed, num_shards=num_shards)


def test_nothing_done_means_everything_to_do() -> None:
    todo = _plan(_observed())
    assert [unit.train.key for unit in todo.train] == KEYS
    assert len(todo.shards["certify"]) == 9
    assert todo.aggregate == AggregateUnit(grid="tiny")


def test_a_complete_grid_needs_nothing() -> None:
    assert _plan(_observed(3, dict.fromkeys(range(3), EVERYTHING), aggregated=True)).units == ()


def test_a_stale_records_file_is_made_anew() -> None:
    todo = _plan(_observed(3, dict.fromkeys(range(3), EVERYTHING)))
    assert todo.units == (AggregateUnit(grid="tiny"),)


def test_only_missing_images_are_certified() -> None:
    done = {0: EVERYTHING, 1: (IndexRange(start=0, stop=14),), 2: EVERYTHING}
    (unit,) = _plan(_observed(3, done)).shards["certify"]
    assert unit.run is MANIFEST.of("certify")[1]
    assert list(unit.indices) == list(range(14, 21))


def test_another_number_of_shards_uses_what_is_there() -> None:
    done = dict.fromkeys(range(3), (IndexRange(start=0, stop=7), IndexRange(start=14, stop=21)))
    assert {tuple(unit.indices) for unit in _plan(_observed(3, done), num_shards=1).shards["certify"]} == {
        tuple(range(7, 14))
    }


def test_one_model_in_two_runs_is_trained_once() -> None:
    manifest = tiny_manifest("grid.blocks=[{method: gaussian, sigma: 0.25, sigma_cert: [0.25, 0.5]}]")
    observed = Observation(trained=frozenset(), shards={run.place: () for run in manifest.runs}, aggregated=False)
    todo = plan(manifest, observed, num_shards=1)
    assert (len(todo.train), len(todo.shards["certify"])) == (1, 2)


def test_certification_waits_for_its_own_training_only() -> None:
    schedule = Schedule(_plan(_observed(trained=2), num_shards=1))
    train = schedule.next_ready(running=())
    assert isinstance(train, TrainUnit)
    first, second = schedule.next_ready(running=[train]), schedule.next_ready(running=[train])
    assert isinstance(first, ShardUnit)
    assert isinstance(second, ShardUnit)
    assert {first.run.train.key, second.run.train.key} == {KEYS[0], KEYS[1]}
    assert schedule.next_ready(running=[train]) is None
    schedule.finish(train, succeeded=True)
    third = schedule.next_ready(running=())
    assert isinstance(third, ShardUnit)
    assert third.run.train.key == KEYS[2]


def test_a_failed_training_holds_back_its_own_certification_and_the_aggregate() -> None:
    schedule = Schedule(_plan(_observed(), num_shards=1))
    taken = []
    while (unit := schedule.next_ready(running=())) is not None:
        schedule.finish(unit, succeeded=unit.name != f"train/{KEYS[1]}")
        taken.append(unit)
    assert len(taken) == 3 + 2
    assert [unit.stage for unit in schedule.left] == ["certify", "aggregate"]


def test_aggregation_waits_for_everything() -> None:
    schedule = Schedule(_plan(_observed(3, {0: EVERYTHING, 1: EVERYTHING}), num_shards=1))
    certify = schedule.next_ready(running=())
    assert isinstance(certify, ShardUnit)
    assert schedule.next_ready(running=[certify]) is None
    schedule.finish(certify, succeeded=True)
    assert schedule.next_ready(running=()) == AggregateUnit(grid="tiny")
