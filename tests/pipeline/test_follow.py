"""How often wait=true and watch=true ask."""

from pipeline.follow import next_wait_s


def test_queries_become_fewer_while_nothing_changes() -> None:
    waits = [next_wait_s(10.0, minutes * 60) for minutes in (0, 1, 3, 30, 59, 61, 600)]
    assert waits == [10.0, 10.0, 18.0, 60.0, 60.0, 300.0, 300.0]
