"""Figures against scikit-learn, scipy and arithmetic done by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn import metrics as reference

from wellfit.errors import UserError
from wellfit.inference import metrics


def drawn(n=400, classes=5, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * sharpness
    targets = np.array([rng.choice(classes, p=special.softmax(row / 2)) for row in logits])
    return logits, special.softmax(logits, axis=1), targets


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (1, 1), (87, 153), (9150, 10000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_interval_agrees_with_scipy(correct, n, confidence):
    expected = stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert metrics.wilson_interval(correct, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_in_the_unit_interval(pair):
    correct, n = pair
    low, high = metrics.wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_interval_of_nothing_is_everything():
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "n", "confidence"), [(3, 2, 0.95), (-1, 5, 0.95), (1, 2, 1.0), (1, 2, 95)])
def test_wilson_interval_refuses_impossible_counts(correct, n, confidence):
    with pytest.raises(UserError):
        metrics.wilson_interval(correct, n, confidence)


def test_confusion_matrix_by_hand():
    #  rows true, columns predicted: one 0 called 2, one 2 called 0, class 3 absent
    matrix = metrics.confusion_matrix([0, 0, 1, 2, 2], [0, 2, 1, 0, 2], 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_averages_agree_with_scikit_learn(seed):
    _, probabilities, targets = drawn(seed=seed)
    said = probabilities.argmax(1)
    assert np.array_equal(
        metrics.confusion_matrix(targets, said, 5), reference.confusion_matrix(targets, said, labels=range(5))
    )
    assert metrics.balanced_accuracy(targets, said, 5) == pytest.approx(
        reference.balanced_accuracy_score(targets, said)
    )
    assert metrics.macro_f1(targets, said, 5) == pytest.approx(reference.f1_score(targets, said, average="macro"))
    precision, recall, f1, images = reference.precision_recall_fscore_support(targets, said, labels=range(5))
    rows = metrics.per_class(targets, said, list("abcde"))
    assert [row["class"] for row in rows] == list("abcde")
    assert [row["images"] for row in rows] == images.tolist()
    for key, values in {"precision": precision, "recall": recall, "f1": f1}.items():
        assert [row[key] for row in rows] == pytest.approx(values.tolist())


def test_a_class_without_images_or_predictions_has_no_figures():
    rows = metrics.per_class([0, 0, 1], [0, 0, 0], ["seen", "missed", "absent"])
    assert rows[1] == {"class": "missed", "images": 1, "precision": None, "recall": 0.0, "f1": 0.0}
    assert rows[2] == {"class": "absent", "images": 0, "precision": None, "recall": None, "f1": None}
    # an absent class takes no part in the averages: recalls 1 and 0, F1 0.8 and 0
    assert metrics.balanced_accuracy([0, 0, 1], [0, 0, 0], 3) == pytest.approx(0.5)
    assert metrics.macro_f1([0, 0, 1], [0, 0, 0], 3) == pytest.approx(0.4)


def test_balanced_accuracy_of_the_majority_answer_is_chance():
    targets = np.repeat([0, 1, 2, 3], [97, 1, 1, 1])
    assert metrics.balanced_accuracy(targets, np.zeros(100, int), 4) == pytest.approx(0.25)


def test_reliability_and_calibration_error_by_hand():
    # two bins: (0, 0.5] holds 0.4 (wrong); (0.5, 1] holds 0.8 (right), 0.9 (wrong), 1.0 (right)
    probabilities = [[0.4, 0.3, 0.3], [0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.0, 0.0, 1.0]]
    rows = metrics.reliability(probabilities, [1, 0, 0, 2], bins=2)
    assert rows == [
        {"confidence": pytest.approx(0.4), "accuracy": 0.0, "images": 1},
        {"confidence": pytest.approx(0.9), "accuracy": pytest.approx(2 / 3), "images": 3},
    ]
    expected = 0.25 * 0.4 + 0.75 * (0.9 - 2 / 3)
    assert metrics.expected_calibration_error(probabilities, [1, 0, 0, 2], bins=2) == pytest.approx(expected)


def test_a_bin_is_closed_at_its_upper_end():
    rows = metrics.reliability([[0.5, 0.5], [0.50001, 0.49999]], [0, 0], bins=2)
    assert [row["images"] for row in rows] == [1, 1]


def test_calibration_error_sees_overconfidence_but_not_honesty():
    rng = np.random.default_rng(3)
    honest = rng.dirichlet(np.ones(4), size=20000)
    targets = (honest.cumsum(1) > rng.random((20000, 1))).argmax(1)
    bold = honest**3 / (honest**3).sum(1, keepdims=True)
    assert metrics.expected_calibration_error(honest, targets) < 0.02
    assert metrics.expected_calibration_error(bold, targets) > 0.1


@pytest.mark.parametrize(("seed", "sharpness"), [(0, 2.0), (1, 0.3), (2, 8.0)])
def test_temperature_agrees_with_a_scalar_minimiser(seed, sharpness):
    logits, _, targets = drawn(seed=seed, sharpness=sharpness)

    def loss(log_t):
        scaled = special.log_softmax(logits / math.exp(log_t), axis=1)
        return -scaled[np.arange(len(targets)), targets].mean()

    expected = math.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x)
    assert metrics.fit_temperature(logits, targets) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_temperature_is_the_same_however_many_rows_are_worked_at_together(block, monkeypatch):
    logits, _, targets = drawn(seed=4, sharpness=2.0)
    whole = metrics.fit_temperature(logits, targets, 0.3)
    monkeypatch.setattr(metrics, "BLOCK", block)
    assert metrics.fit_temperature(logits, targets, 0.3) == pytest.approx(whole, rel=1e-12)


def test_temperature_undoes_a_known_scale_and_takes_log_probabilities():
    logits, probabilities, targets = drawn(n=2000)
    once = metrics.fit_temperature(logits, targets)
    assert metrics.fit_temperature(3 * logits, targets) == pytest.approx(3 * once, rel=1e-6)
    assert metrics.fit_temperature(np.log(probabilities), targets) == pytest.approx(once, rel=1e-6)


def test_temperature_without_an_error_or_without_information_stays_in_bounds():
    low, high = metrics.TEMPERATURE_BOUNDS
    assert metrics.fit_temperature(np.eye(4) * 5, [0, 1, 2, 3]) == pytest.approx(low, rel=1e-6)
    assert metrics.fit_temperature(np.eye(4) * 5, [1, 2, 3, 0]) == pytest.approx(high, rel=1e-6)
    assert metrics.fit_temperature(np.ones((4, 3)), [0, 1, 2, 0]) == 1.0
    with pytest.raises(UserError, match="finite"):
        metrics.fit_temperature([[0.0, -np.inf]], [0])


def test_abstention_threshold_by_hand():
    # most confident first: right 0.95, right 0.9, wrong 0.8, right 0.7, wrong 0.6
    first = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    probabilities = np.stack([first, 1 - first], 1)
    targets = [0, 0, 1, 0, 1]
    assert metrics.abstention_threshold(probabilities, targets, 0.0) == 0.9
    assert metrics.abstention_threshold(probabilities, targets, 0.25) == 0.7
    assert metrics.abstention_threshold(probabilities, targets, 0.4) == 0.0
    assert metrics.abstention_threshold(probabilities, [1, 0, 0, 0, 0], 0.0) == math.inf


@given(st.integers(0, 10_000), st.floats(0, 0.6))
def test_the_abstention_promise_holds_and_a_lower_threshold_would_break_it(seed, rate):
    rng = np.random.default_rng(seed)
    first = rng.choice(np.linspace(0.5, 1, 7), size=30)  # many ties
    probabilities, targets = np.stack([first, 1 - first], 1), rng.integers(0, 2, 30)
    wrong = probabilities.argmax(1) != targets

    def kept_error(threshold):
        return wrong[first >= threshold].mean()

    chosen = metrics.abstention_threshold(probabilities, targets, rate)
    if chosen < math.inf:
        assert kept_error(chosen) <= rate + 1e-12
    for lower in np.unique(first[first < chosen]):
        assert kept_error(lower) > rate


def test_summary_agrees_with_its_parts_and_with_scikit_learn():
    _, probabilities, targets = drawn()
    names = ["ant", "bee", "cat", "dog", "eel"]
    line = metrics.summarise(probabilities, targets, names)
    said = probabilities.argmax(1)
    assert line["images"] == 400
    assert line["accuracy"] == pytest.approx(reference.accuracy_score(targets, said))
    assert line["interval"] == list(metrics.wilson_interval((said == targets).sum(), 400))
    assert line["loss"] == pytest.approx(reference.log_loss(targets, probabilities))
    assert line["confusion"] == metrics.confusion_matrix(targets, said, 5).tolist()
    assert line["calibration_error"] == metrics.expected_calibration_error(probabilities, targets)
    assert sum(row["images"] for row in line["reliability"]) == 400
    assert line["temperature"] == pytest.approx(2.0, abs=0.4)  # targets were drawn at temperature 2


def test_summary_of_a_certain_and_wrong_answer_stays_finite():
    line = metrics.summarise([[1.0, 0.0], [0.0, 1.0]], [1, 1], ["a", "b"])
    assert math.isfinite(line["loss"])
    assert math.isfinite(line["temperature"])
    assert line["accuracy"] == 0.5


def test_a_large_confusion_matrix_is_left_to_the_arrays():
    probabilities = np.eye(101)
    line = metrics.summarise(probabilities, np.arange(101), [str(i) for i in range(101)])
    assert line["confusion"] is None
    assert line["balanced_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("probabilities", "targets", "names"),
    [
        ([[0.5, 0.5]], [2], ["a", "b"]),
        ([[0.5, 0.5]], [-1], ["a", "b"]),
        ([[0.5, 0.5]], [0.5], ["a", "b"]),
        ([[0.5, 0.5]], [0, 1], ["a", "b"]),
        ([[0.5, 0.5]], [[0]], ["a", "b"]),
        ([[0.5, 0.5]], [0], ["a", "b", "c"]),
        ([0.5, 0.5], [0], ["a", "b"]),
        (np.zeros((0, 2)), [], ["a", "b"]),
    ],
)
def test_bad_input_is_one_clear_sentence(probabilities, targets, names):
    with pytest.raises(UserError) as error:
        metrics.summarise(probabilities, targets, names)
    assert "; " in str(error.value)
    assert "\n" not in str(error.value)
