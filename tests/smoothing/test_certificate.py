"""Certificates and predictions from votes: rules, ties and the promised error rates."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smoothing.bounds import clopper_pearson_lower
from smoothing.certificate import certificate_from_counts, prediction_from_counts
from smoothing.radius import ABSTAIN, certified_radius

quick = settings(deadline=None, derandomize=True, max_examples=200)
votes = st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any)
NUM_TRIALS = 2000


def counts_of(*counts: int) -> npt.NDArray[np.int64]:
    return np.array(counts, dtype=np.int64)


def most_errors_by_chance(alpha: float) -> int:
    """Errors that a rate of alpha exceeds once in a million seeds."""
    return int(stats.binom.ppf(1 - 1e-6, NUM_TRIALS, alpha))


def test_certificate_of_known_votes() -> None:
    counts0, counts = counts_of(1, 97, 2), counts_of(10, 980, 10)
    certificate = certificate_from_counts(counts0, counts, sigma=0.5, alpha=0.001)
    assert certificate.prediction == 1
    assert certificate.count_top == 980
    assert certificate.p_lower == clopper_pearson_lower(980, 1000, 0.001)
    assert certificate.radius == certified_radius(certificate.p_lower, 0.5) > 0
    assert np.array_equal(certificate.counts0, counts0)
    assert np.array_equal(certificate.counts, counts)


def test_unanimous_votes_have_the_closed_form() -> None:
    certificate = certificate_from_counts(counts_of(0, 10), counts_of(0, 1000), sigma=0.25, alpha=0.01)
    # 1e-9: the bound's slack of 1e-12, over the normal density there, which is 0.01.
    assert certificate.radius == pytest.approx(0.25 * stats.norm.ppf(0.01 ** (1 / 1000)), rel=1e-9)


@quick
@given(counts0=votes, counts=votes, alpha=st.floats(1e-6, 0.5))
def test_abstains_exactly_where_the_bound_is_below_one_half(
    counts0: list[int], counts: list[int], alpha: float
) -> None:
    certificate = certificate_from_counts(counts_of(*counts0), counts_of(*counts), sigma=1.0, alpha=alpha)
    assert (certificate.prediction == ABSTAIN) == (certificate.p_lower < 0.5)
    assert (certificate.radius == 0.0) or certificate.prediction == int(np.argmax(counts0))
    assert certificate.prediction != ABSTAIN or certificate.radius == 0.0


def test_abstention_begins_one_vote_below_the_least_proof() -> None:
    enough = int(np.argmax(clopper_pearson_lower(np.arange(101), 100, 0.001) >= 0.5))
    votes_for = [counts_of(count, 100 - count) for count in (enough - 1, enough)]
    predictions = [
        certificate_from_counts(counts_of(10, 0), counts, sigma=1.0, alpha=0.001).prediction for counts in votes_for
    ]
    assert predictions == [ABSTAIN, 0]


def test_selection_alone_chooses_the_class() -> None:
    certificate = certificate_from_counts(counts_of(6, 4), counts_of(10, 990), sigma=1.0, alpha=0.001)
    assert certificate.prediction == ABSTAIN
    assert certificate.count_top == 10


def test_lowest_class_wins_a_tied_selection() -> None:
    certificate = certificate_from_counts(counts_of(0, 50, 50), counts_of(0, 990, 10), sigma=1.0, alpha=0.001)
    assert certificate.prediction == 1


def test_votes_of_no_class_are_bounded_by_zero() -> None:
    certificate = certificate_from_counts(counts_of(1, 0), counts_of(0, 100), sigma=1.0, alpha=0.001)
    assert (certificate.prediction, certificate.p_lower, certificate.count_top) == (ABSTAIN, 0.0, 0)


@quick
@given(counts=votes, alpha=st.floats(1e-6, 0.9))
def test_prediction_follows_scipys_binomial_test(counts: list[int], alpha: float) -> None:
    second, top = sorted(counts)[-2:]
    p_value = stats.binomtest(top, top + second, 0.5).pvalue
    expected = counts.index(top) if p_value <= alpha else ABSTAIN
    assert prediction_from_counts(counts_of(*counts), alpha=alpha) == expected


def test_prediction_at_the_edge_of_the_test() -> None:
    # 2 * 2**-10 = 0.00195...: ten votes to none.
    assert prediction_from_counts(counts_of(0, 10), alpha=2.0**-9) == 1
    assert prediction_from_counts(counts_of(0, 10), alpha=2.0**-9 * 0.999) == ABSTAIN


@pytest.mark.parametrize("counts", [(50, 50), (50, 0, 50), (40, 40, 20), (0, 0)])
def test_prediction_abstains_on_a_tie(counts: tuple[int, ...]) -> None:
    assert prediction_from_counts(counts_of(*counts), alpha=0.999) == ABSTAIN


def test_prediction_ignores_the_other_classes() -> None:
    assert prediction_from_counts(counts_of(30, 5, 5, 5, 5), alpha=0.001) == 0
    assert prediction_from_counts(counts_of(30, 5, 0, 0, 0), alpha=0.001) == 0


@pytest.mark.parametrize("p_top", [0.45, 0.52, 0.6, 0.9])
def test_certificates_are_wrong_at_most_at_rate_alpha(p_top: float) -> None:
    alpha, rng = 0.05, np.random.default_rng(1)
    probabilities = np.array([0.6 * (1 - p_top), p_top, 0.4 * (1 - p_top)])
    draws0 = rng.multinomial(50, probabilities, size=NUM_TRIALS)
    draws = rng.multinomial(1000, probabilities, size=NUM_TRIALS)
    certificates = [
        certificate_from_counts(counts0, counts, sigma=1.0, alpha=alpha)
        for counts0, counts in zip(draws0, draws, strict=True)
    ]
    # A class without a majority has no radius at all: certifying it is an error.
    true_radii = certified_radius(probabilities, 1.0)
    claims = [certificate for certificate in certificates if certificate.prediction != ABSTAIN]
    num_wrong = sum(
        probabilities[claim.prediction] < 0.5 or claim.radius > true_radii[claim.prediction] for claim in claims
    )
    assert num_wrong <= most_errors_by_chance(alpha)
    if p_top >= 0.6:
        assert len(claims) > 0.8 * NUM_TRIALS
        assert np.mean([claim.radius for claim in claims]) > 0.5 * true_radii[1]


@pytest.mark.parametrize("probabilities", [(0.41, 0.39, 0.2), (0.5, 0.499, 0.001), (0.34, 0.33, 0.33), (0.6, 0.3, 0.1)])
def test_predictions_are_wrong_at_most_at_rate_alpha(probabilities: tuple[float, ...]) -> None:
    alpha, rng = 0.05, np.random.default_rng(2)
    draws = rng.multinomial(200, probabilities, size=NUM_TRIALS)
    predictions = np.array([prediction_from_counts(counts, alpha=alpha) for counts in draws])
    assert np.sum((predictions != 0) & (predictions != ABSTAIN)) <= most_errors_by_chance(alpha)
    if probabilities[0] == 0.6:
        assert np.mean(predictions == 0) > 0.9
