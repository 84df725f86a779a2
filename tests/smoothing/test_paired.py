import numpy as np
import pytest
from scipy import stats

from smoothing.paired import PairedComparison, compare_paired


def _with(only_first: int, only_second: int) -> PairedComparison:
    return PairedComparison(both=10, only_first=only_first, only_second=only_second, neither=5)


def test_counts() -> None:
    counts = compare_paired([True, True, False, False, True], [True, False, True, False, False])
    assert (counts.both, counts.only_first, counts.only_second, counts.neither) == (1, 2, 1, 1)
    assert counts.difference == pytest.approx(0.2)
    assert counts.num_images == 5


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 5), (12, 3), (3, 12), (93, 16), (400, 1)])
def test_against_the_binomial_test_of_scipy(only_first: int, only_second: int) -> None:
    total = only_first + only_second
    expected = stats.binomtest(only_first, total).pvalue if total else 1.0
    assert _with(only_first, only_second).p_value == pytest.approx(expected, rel=1e-9)


def test_closed_form_and_symmetry() -> None:
    assert _with(6, 0).p_value == pytest.approx(2 * 0.5**6)
    assert _with(7, 2).p_value == _with(2, 7).p_value


def test_agreements_do_not_matter() -> None:
    few = PairedComparison(both=0, only_first=9, only_second=2, neither=0)
    many = PairedComparison(both=9000, only_first=9, only_second=2, neither=4000)
    assert few.p_value == many.p_value


def test_equal_models_are_rarely_told_apart_and_unequal_ones_often() -> None:
    rng = np.random.default_rng(3)
    base = rng.random((2000, 200))
    first, same = base + rng.normal(0, 0.1, base.shape) > 0.5, base + rng.normal(0, 0.1, base.shape) > 0.5
    better = base + rng.normal(0, 0.1, base.shape) > 0.42
    equal = [compare_paired(a, b).p_value <= 0.05 for a, b in zip(first, same, strict=True)]
    unequal = [compare_paired(a, b).p_value <= 0.05 for a, b in zip(first, better, strict=True)]
    assert np.mean(equal) <= 0.05  # the exact test errs to the safe side
    assert np.mean(unequal) > 0.5


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_bad_shapes(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(ValueError, match="need the same N >= 1 images"):
        compare_paired(first, second)
