"""Fewer votes, the same guarantee: exact error of the looks, and early stops that change no cell."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal, stats

from smoothing.bounds import clopper_pearson_lower, min_count_for
from smoothing.certificate import Certificate, certificate_from_counts
from smoothing.radius import ABSTAIN, certified_radius
from smoothing.sequential import EARLY_WEIGHT, DecisionRules, Look, Procedure, Sampling

ALPHA = 0.001
SIGMA = 0.5
PAPER = Procedure(n0=100, n=10_000, alpha=ALPHA)
GRID = replace(PAPER, mode="adaptive", stop_rule="grid", radius_step=0.25)
CURVE = replace(GRID, stop_rule="curve", radius_step=0.01)
ADAPTIVE = pytest.mark.parametrize("procedure", [GRID, CURVE], ids=["grid", "curve"])

Counts = npt.NDArray[np.int64]


def exact_error(probability: float, chosen: Sequence[Look]) -> float:
    """P(some look's bound exceeds ``probability``) by propagating the distribution of the count from look to look."""
    distribution, drawn, error = np.ones(1), 0, 0.0
    for look in chosen:
        more = look.num_samples - drawn
        step = stats.binom.pmf(np.arange(more + 1), more, probability)
        distribution = np.maximum(signal.fftconvolve(distribution, step), 0.0)
        drawn = look.num_samples
        bounds = clopper_pearson_lower(np.arange(drawn + 1), drawn, look.alpha)
        error += float(distribution[bounds > probability].sum())
        distribution[bounds > probability] = 0.0  # counted once
    return error


def _looks(n: int) -> tuple[Look, ...]:
    return Procedure(n0=100, n=n, alpha=ALPHA, mode="adaptive").looks


PROBABILITIES = [0.02, 0.3, 0.5, 0.501, 0.6, 0.84, 0.95, 0.99, 0.999, 0.9999, 0.99999]


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_the_looks_err_at_most_at_alpha_exactly(probability: float) -> None:
    error = exact_error(probability, _looks(100_000))
    assert error <= ALPHA
    if 0.3 <= probability <= 0.99:
        assert error > 0.8 * ALPHA, "far from alpha, the test would not notice a look too many"


@pytest.mark.parametrize("probability", [0.5, 0.6, 0.84, 0.95, 0.99])
def test_the_same_bound_at_every_look_errs_more_often(probability: float) -> None:
    naive = [Look(look.num_samples, ALPHA) for look in _looks(100_000)]
    assert exact_error(probability, naive) > 2 * ALPHA


@pytest.mark.parametrize("n", [100, 1000, 1001, 2000, 10_000, 100_000, 2**31 - 1])
def test_shares_of_alpha_sum_to_alpha(n: int) -> None:
    chosen = _looks(n)
    assert sum(look.alpha for look in chosen) == pytest.approx(ALPHA, rel=1e-12)
    assert [look.num_samples for look in chosen] == sorted({look.num_samples for look in chosen})
    assert chosen[-1].num_samples == n


def test_looks_are_those_of_the_method() -> None:
    chosen = _looks(100_000)
    assert [look.num_samples for look in chosen] == [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 100_000]
    assert [look.alpha / ALPHA for look in chosen] == pytest.approx([EARLY_WEIGHT] * 7 + [0.9125])
    assert Procedure(n0=100, n=100_000, alpha=ALPHA).looks == (Look(100_000, ALPHA),)


@pytest.mark.parametrize(("n", "mode", "possible"), [(10, "paper", True), (9, "paper", False), (10, "adaptive", True)])
def test_what_can_never_certify_is_known_beforehand(n: int, mode: str, possible: bool) -> None:
    assert Procedure(n0=100, n=n, alpha=ALPHA, mode=mode).can_ever_certify() is possible  # type: ignore[arg-type]


def driven(procedure: Procedure, votes0: Counts, votes: Counts, label: int) -> Certificate:
    """The certificate from recorded votes, class by class, in the order they were drawn."""
    sampling = Sampling(DecisionRules(procedure, SIGMA), label)
    while sampling.certificate is None:
        stream = votes0 if sampling.stage == "selection" else votes
        sampling.take(np.bincount(stream[: sampling.num_wanted], minlength=3).astype(np.int64))
    return sampling.certificate


def recorded(seed: int, p_top: float, n: int) -> tuple[Counts, Counts]:
    """Votes for selection and estimation: class 1 with probability ``p_top``, else 0 or 2."""
    rng = np.random.default_rng(seed)
    probabilities = [0.7 * (1 - p_top), p_top, 0.3 * (1 - p_top)]
    return rng.choice(3, size=100, p=probabilities), rng.choice(3, size=n, p=probabilities)


STREAMS = [(seed, p) for seed in range(3) for p in (0.05, 0.4, 0.49, 0.5, 0.51, 0.53, 0.6, 0.7, 0.9, 0.99, 1.0)]


@pytest.mark.parametrize("n", [1000, 2537, 10_000])
@pytest.mark.parametrize("procedure", [PAPER, GRID, CURVE], ids=["paper", "grid", "curve"])
@pytest.mark.parametrize(("stop_wrong", "curtail"), [(True, False), (False, True), (True, True)])
def test_early_stops_change_no_cell_path_by_path(procedure: Procedure, n: int, stop_wrong: bool, curtail: bool) -> None:
    plain = replace(procedure, n=n)
    stopping = replace(plain, stop_wrong=stop_wrong, curtail=curtail)
    num_fewer = 0
    for seed, p_top in STREAMS:
        votes0, votes = recorded(seed, p_top, n)
        for label in (0, 1):
            expected, found = (driven(way, votes0, votes, label) for way in (plain, stopping))
            assert (found.prediction == label) == (expected.prediction == label)
            if expected.prediction == label:
                assert (found.radius, found.p_lower) == (expected.radius, expected.p_lower)
            assert found.counts.sum() <= expected.counts.sum()
            num_fewer += bool(found.counts.sum() < expected.counts.sum())
            if curtail and not stop_wrong:
                assert found.prediction == expected.prediction
                assert found.radius == expected.radius
    assert num_fewer > 0


def test_paper_mode_is_certify_on_all_votes() -> None:
    for seed, p_top in STREAMS:
        votes0, votes = recorded(seed, p_top, PAPER.n)
        found = driven(PAPER, votes0, votes, 1)
        counts0, counts = (np.bincount(stream, minlength=3).astype(np.int64) for stream in (votes0, votes))
        expected = certificate_from_counts(counts0, counts, sigma=SIGMA, alpha=ALPHA)
        assert found.stop == "full"
        assert np.array_equal(found.counts, counts)
        assert (found.prediction, found.radius, found.p_lower) == (
            expected.prediction,
            expected.radius,
            expected.p_lower,
        )


@ADAPTIVE
def test_certificates_are_wrong_at_most_at_rate_alpha_whenever_it_stops(procedure: Procedure) -> None:
    """From counts at the looks, drawn as such: 1000 images at each probability."""
    alpha, num_images, rng = 0.05, 1000, np.random.default_rng(3)
    procedure = replace(procedure, n=8000, alpha=alpha, curtail=True)
    for probability in (0.5, 0.52, 0.7, 0.95):
        true_radius = float(certified_radius(probability, SIGMA))
        num_wrong = 0
        for _ in range(num_images):
            certificate = drawn(procedure, probability, rng)
            num_wrong += certificate.prediction != ABSTAIN and certificate.radius > true_radius
        assert num_wrong <= stats.binom.ppf(1 - 1e-6, num_images, alpha)


def drawn(procedure: Procedure, probability: float, rng: np.random.Generator, sigma: float = SIGMA) -> Certificate:
    sampling, counts = Sampling(DecisionRules(procedure, sigma)), np.array([0, 100, 0])
    sampling.take(counts)
    counts = np.zeros(3, dtype=np.int64)
    while sampling.certificate is None:
        more = sampling.num_wanted - int(counts.sum())
        successes = rng.binomial(more, probability)
        counts = counts + np.array([more - successes, successes, 0])
        sampling.take(counts)
    return sampling.certificate


@ADAPTIVE
def test_a_clear_image_needs_few_votes(procedure: Procedure) -> None:
    certificate = drawn(replace(procedure, n=100_000), 1.0, np.random.default_rng(0), sigma=0.12)
    if procedure.stop_rule == "grid":  # 0.25 = 2.1 sigma is the last multiple below 3.81 sigma
        assert (certificate.stop, certificate.counts.sum()) == ("decided", 1000)
    assert certificate.radius >= 0.25


def test_curve_stops_when_the_radius_can_hardly_grow() -> None:
    rng = np.random.default_rng(0)
    coarse, fine = (drawn(replace(CURVE, n=100_000, radius_step=step), 0.9, rng).counts.sum() for step in (0.05, 0.001))
    assert coarse < fine == 100_000


def test_the_bound_is_the_best_of_all_looks() -> None:
    sampling = Sampling(DecisionRules(replace(CURVE, radius_step=1e-9), SIGMA))
    sampling.take(np.array([0, 100, 0]))
    sampling.take(np.array([0, 1000, 0]))
    sampling.take(np.array([800, 1200, 0]))  # so much worse that nothing better can follow
    assert sampling.certificate is not None
    assert sampling.certificate.stop == "decided"
    first = GRID.looks[0]
    assert sampling.certificate.p_lower == clopper_pearson_lower(1000, 1000, first.alpha)


def test_wrong_selection_draws_nothing() -> None:
    votes0, votes = recorded(0, 0.9, PAPER.n)
    certificate = driven(replace(PAPER, stop_wrong=True), votes0, votes, label=2)
    assert (certificate.stop, certificate.counts.sum(), certificate.prediction) == ("wrong_class", 0, ABSTAIN)
    assert (certificate.radius, certificate.p_lower) == (0.0, 0.0)


def test_curtailment_stops_at_the_first_check_after_hope_is_gone() -> None:
    procedure = replace(PAPER, curtail=True)
    needed = min_count_for(0.5, PAPER.n, ALPHA)
    assert needed is not None
    votes = np.zeros(PAPER.n, dtype=np.int64)  # not one vote for class 1
    certificate = driven(procedure, np.ones(100, dtype=np.int64), votes, label=1)
    allowed = PAPER.n - needed
    assert certificate.stop == "abstain"
    assert allowed < certificate.counts.sum() <= allowed + PAPER.n // 32


@pytest.mark.parametrize("procedure", [PAPER, GRID])
def test_hope_is_gone_with_the_first_vote_too_many(procedure: Procedure) -> None:
    """With exactly as many votes lost as the look at n allows, unanimous further votes still certify."""
    rules, last = DecisionRules(procedure, SIGMA), procedure.looks[-1]
    needed = min_count_for(0.5, last.num_samples, last.alpha)
    assert needed is not None
    allowed = last.num_samples - needed
    num_samples = last.num_samples - 1
    assert clopper_pearson_lower(last.num_samples - allowed, last.num_samples, last.alpha) >= 0.5
    assert not rules.is_hopeless(num_samples - allowed, num_samples)
    assert rules.is_hopeless(num_samples - allowed - 1, num_samples)


def test_labels_are_needed_where_wrong_classes_stop() -> None:
    with pytest.raises(ValueError, match="needs to know the label"):
        Sampling(DecisionRules(replace(PAPER, stop_wrong=True), SIGMA))


def test_total_variation_comes_off_every_bound() -> None:
    ideal, apart = DecisionRules(GRID, SIGMA), DecisionRules(GRID, SIGMA, total_variation=1e-3)
    for look in GRID.looks:
        plain = ideal.lower_bound(look.num_samples, look)
        assert apart.lower_bound(look.num_samples, look) == plain - 1e-3
