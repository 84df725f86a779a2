from dataclasses import replace

import pytest

from jobs.specs.indices import partition
from jobs.specs.units import ShardUnit, TrainUnit
from pipeline.plan import Plan
from pipeline.slurm.arrays import Block, blocks
from tests.grids import tiny_manifest

MANIFEST = tiny_manifest("attack=digits", "attack.epsilon=0.5")
RUNS, ATTACKS = MANIFEST.of("certify"), MANIFEST.of("attack")


def _plan(num_shards: list[int], *, trained: int = 0) -> Plan:
    """The three models, with the given number of shards each; the last ``trained`` of them need no training."""
    certify = [
        ShardUnit(run=run, indices=indices)
        for run, number in zip(RUNS, num_shards, strict=True)
        for indices in partition(range(number), 1)
    ]
    train = tuple(TrainUnit(train=run.train) for run in RUNS[: len(RUNS) - trained])
    return Plan(train=train, shards={"certify": tuple(certify), "attack": ()}, aggregate=None)


def _models(block: Block) -> list[list[list[str]]]:
    """Train keys of each task of each array."""
    arrays = (block.train, *block.sharded.get("certify", ()))
    return [[[unit.name.split("/")[1] for unit in task] for task in array] for array in arrays]


@pytest.mark.parametrize("units_per_job", [1, 2, 3, 5])
@pytest.mark.parametrize("max_array_size", [1, 2, 3, 1001])
@pytest.mark.parametrize("num_shards", [[1, 1, 1], [1, 3, 2], [0, 2, 2], [0, 0, 0], [7, 0, 1]])
def test_every_unit_is_in_one_task_behind_its_own_training(
    num_shards: list[int], max_array_size: int, units_per_job: int
) -> None:
    plan = _plan(num_shards)
    made = blocks(plan, units_per_job=units_per_job, max_array_size=max_array_size, in_training=frozenset())
    assert sorted(unit.name for block in made for unit in block.units) == sorted(unit.name for unit in plan.units)
    for block in made:
        assert block.width <= max_array_size
        train, *certify = _models(block)
        for array in certify:
            assert all(array)  # no task without a unit
            for index, models in enumerate(array):
                assert set(models) <= set(train[index])
        assert all(len(task) <= units_per_job for array in block.arrays for task in array)


def test_trained_models_do_not_wait_and_those_in_training_wait_for_that() -> None:
    plan = replace(_plan([1, 1, 1], trained=2))
    in_training = frozenset({RUNS[2].train.key})
    first, later, free = blocks(plan, units_per_job=1, max_array_size=9, in_training=in_training)
    assert _models(first) == [[[RUNS[0].train.key]], [[RUNS[0].train.key]]]
    assert (later.after_earlier_training, _models(later)[1]) == (True, [[RUNS[2].train.key]])
    assert (free.after_earlier_training, _models(free)[1]) == (False, [[RUNS[1].train.key]])


def test_the_parts_of_a_block_keep_certification_beside_its_training() -> None:
    (block,) = blocks(_plan([1, 3, 2]), units_per_job=1, max_array_size=9, in_training=frozenset())
    first, rest = block.split(1)
    assert sum(len(array) for part in (first, rest) for array in part.arrays) == sum(map(len, block.arrays))
    for part in (first, rest):
        train, *certify = _models(part)
        assert all(array == train[: len(array)] for array in certify)


@pytest.mark.parametrize("max_array_size", [1, 2, 1001])
@pytest.mark.parametrize("num_attack_shards", [[2, 2, 2], [1, 3, 0], [3, 0, 1], [0, 0, 0]])
@pytest.mark.parametrize("trained", [0, 1])
def test_attacks_are_arrays_of_their_own_behind_the_same_training(
    num_attack_shards: list[int], max_array_size: int, trained: int
) -> None:
    attack = [
        ShardUnit(run=run, indices=indices)
        for run, number in zip(ATTACKS, num_attack_shards, strict=True)
        for indices in partition(range(number), 1)
    ]
    certified = _plan([2, 1, 2], trained=trained)
    plan = replace(certified, shards={**certified.shards, "attack": tuple(attack)})
    made = blocks(plan, units_per_job=1, max_array_size=max_array_size, in_training=frozenset())
    assert sorted(unit.name for block in made for unit in block.units) == sorted(unit.name for unit in plan.units)
    for block in made:
        assert block.width <= max_array_size
        for stage, arrays in block.sharded.items():
            assert {unit.stage for array in arrays for task in array for unit in task} <= {stage}
            for array in arrays if block.train else ():
                assert all(
                    unit.name.split("/")[1] == train.name.split("/")[1]
                    for (train,), (unit,) in zip(block.train[: len(array)], array, strict=True)
                )
