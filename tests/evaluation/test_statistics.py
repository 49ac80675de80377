import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rpat_cli.evaluation.statistics import (
    Accuracy,
    confusion,
    mean_acc,
    nrr,
    per_class_accuracy,
    sign_test,
    t_quantile_95,
    welch_interval,
    wilson_interval,
    worst_class,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_matches_published_values(k: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_fraction_and_is_symmetric(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_that_of_scipy(case: tuple[int, int]) -> None:
    expected = stats.binomtest(*case).proportion_ci(method="wilson")
    assert wilson_interval(*case) == pytest.approx(tuple(expected), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 101])
def test_the_t_quantile_is_that_of_scipy(df: int) -> None:
    assert t_quantile_95(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-10)


@pytest.mark.parametrize("pair", [(0, 0), (0, 4), (4, 0), (7, 2), (40, 300), (10_000, 9_500)])
def test_the_sign_test_is_the_exact_binomial_test(pair: tuple[int, int]) -> None:
    more, less = pair
    n = more + less
    ways = sum(math.comb(n, k) for k in range(more, n + 1)) if n < 1000 else None
    expected = (
        ways / 2**n if ways is not None else stats.binomtest(more, n, alternative="greater").pvalue
    )
    assert sign_test(more, less) == pytest.approx(expected, rel=1e-9)


def test_the_two_accuracies_in_one_number() -> None:
    assert mean_acc(0.8, 0.4) == pytest.approx(0.6)
    assert nrr(0.8, 0.4) == pytest.approx(2 * 0.32 / 1.2)
    assert nrr(0.0, 0.0) == 0.0


def test_no_samples_means_nothing_known() -> None:
    assert wilson_interval(0, 0) == (0, 1)
    assert math.isnan(Accuracy(0, 0).value)
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson_interval(3, 2)


def test_confusion_counts_every_image_once_by_its_true_and_its_predicted_class() -> None:
    y, predicted = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0, 2, 2, 2, 1])
    counts = confusion(y, predicted, classes=3)
    assert counts.tolist() == [[1, 0, 2], [0, 0, 0], [0, 1, 1]]
    accuracies = per_class_accuracy(y == predicted, y, classes=3)
    assert counts.diag().tolist() == [each.correct for each in accuracies]
    assert counts.sum(dim=1).tolist() == [each.n for each in accuracies]


def test_per_class_accuracy_counts_each_class_alone() -> None:
    y = torch.tensor([0, 0, 1, 1, 1, 3])
    flags = torch.tensor([True, False, True, True, True, False])
    accuracies = per_class_accuracy(flags, y, classes=4)
    assert accuracies == [Accuracy(1, 2), Accuracy(3, 3), Accuracy(0, 0), Accuracy(0, 1)]
    assert worst_class(accuracies) == 3
    assert sum(a.correct for a in accuracies) == Accuracy.of(flags).correct


def test_welch_interval_is_scipys_with_its_degrees_of_freedom_rounded_down() -> None:
    a, b = torch.linspace(0, 3, 9) ** 2, torch.linspace(1, 2, 30)
    low, high = welch_interval(a, b) or (0, 0)
    exact = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).confidence_interval(0.95)
    assert (low + high) / 2 == pytest.approx(float(a.mean() - b.mean()))
    assert 1 <= (high - low) / (exact.high - exact.low) < 1.02
    equal = torch.tensor(
        [1.0, 2.0, 3.0]
    )  # two samples of three, of equal variance 1: four degrees of freedom
    assert welch_interval(equal + 1, equal) == pytest.approx(
        (1 - 2.776445 * (2 / 3) ** 0.5, 1 + 2.776445 * (2 / 3) ** 0.5)
    )


def test_welch_interval_of_next_to_nothing() -> None:
    assert welch_interval(torch.ones(1), torch.ones(5)) is None
    assert welch_interval(torch.full((3,), 2.0), torch.ones(5)) == (1.0, 1.0)
