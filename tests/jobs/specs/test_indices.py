import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.specs.indices import IndexList, IndexRange, as_indices, missing_from, partition


@given(st.sets(st.integers(0, 200)), st.integers(1, 50))
def test_a_partition_holds_each_index_once(missing: set[int], max_size: int) -> None:
    shards = partition(missing, max_size)
    assert sorted(index for shard in shards for index in shard) == sorted(missing)
    assert all(1 <= len(shard) <= max_size for shard in shards)


def test_the_images_between_every_20th_become_full_shards() -> None:
    missing = set(range(10_000)) - set(range(0, 10_000, 20))
    shards = partition(missing, 500)
    assert [len(shard) for shard in shards] == [500] * 19


@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_consecutive_images_are_cut_evenly(num_shards: int) -> None:
    shards = partition(range(500), -(-500 // num_shards))
    assert len(shards) == num_shards
    assert [shard.step for shard in shards] == [1] * num_shards


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 7), st.integers(1, 20))
def test_what_is_missing_is_what_no_shard_holds(start: int, length: int, step: int, max_size: int) -> None:
    wanted = IndexRange(start=start, stop=start + length, step=step)
    shards = partition(wanted, max_size)
    assert missing_from(wanted, shards) == []
    assert missing_from(wanted, shards[1:]) == list(shards[0])
    assert missing_from(wanted, []) == list(wanted)


@given(st.lists(st.integers(0, 60), min_size=1, unique=True), st.integers(1, 20))
def test_any_set_is_one_range_or_one_list(indices: list[int], max_size: int) -> None:
    wanted = as_indices(indices)
    assert wanted == as_indices(sorted(indices))
    assert list(wanted) == sorted(indices)
    assert isinstance(wanted, IndexRange) == (len(partition(indices, 61)) == 1)
    shards = partition(wanted, max_size)
    assert missing_from(wanted, shards) == []
    assert missing_from(wanted, shards[1:]) == list(shards[0])


@pytest.mark.parametrize("indices", [(0, 2, 1), (0, 0, 1), (0, 5), (0, 5, 10), (7,), (-1, 0, 5)])
def test_a_list_that_has_another_way_to_be_written_is_refused(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        IndexList(indices=indices)


def test_finished_images_beyond_the_wanted_do_not_matter() -> None:
    wanted = IndexRange(start=0, stop=10, step=5)
    assert missing_from(wanted, [IndexRange(start=0, stop=1000, step=5)]) == []


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="empty"):
        IndexRange(start=5, stop=5)
