"""What trials say together: a Gaussian process over log settings, held against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from wellfit.randomness import generator
from wellfit.search.smoothing import LEAST_SPREAD, REACH, SEED_NOISE, _levels, expectations, smoothed
from wellfit.search.trial import Trial

EPOCHS = {"coarse": 1.0, "fine": 4.0, "as long": 1.01}  # by stage


def trial(lr: float, score: float | None, stage: str = "coarse", error: float = 0.02, **more: object) -> Trial:
    state, epochs = "finished" if score is not None else "pruned", EPOCHS[stage]
    return Trial(stage, 0, {"lr": lr, **more}, state, score, error, epochs=epochs)


def test_one_stage_is_the_textbook_posterior() -> None:
    scores = np.array([0.61, 0.63, 0.66, 0.64, 0.62])
    rates = np.logspace(-4, -2, 5)
    found = np.array([mean for mean, _ in smoothed([trial(r, s) for r, s in zip(rates, scores, strict=True)])])
    expected, _ = textbook(rates, scores)
    assert np.diff(found) == pytest.approx(np.diff(expected), abs=1e-9)


def textbook(rates: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by scikit-learn, of scores that lie close enough together to count as they are."""
    spread = max(LEAST_SPREAD, scores.std())
    # The offset of the stage is a constant kernel; only differences between trials are comparable then.
    kernel = ConstantKernel(spread**2) * RBF(REACH["lr"]) + ConstantKernel(100 * spread**2)
    process = GaussianProcessRegressor(kernel, alpha=0.02**2 + SEED_NOISE**2, optimizer=None)
    places = np.log10(rates)[:, None]
    mean, covariance = process.fit(places, scores - scores.mean()).predict(places, return_cov=True)
    return mean, covariance


def test_the_level_of_a_stage_does_not_count() -> None:
    coarse = [trial(r, s) for r, s in ((1e-4, 0.3), (1e-3, 0.4), (1e-2, 0.3))]
    fine = [trial(r, s, "fine") for r, s in ((1e-3, 0.70), (2e-3, 0.69))]
    lifted = [trial(t.settings["lr"], (t.score or 0) + 0.1, "fine") for t in fine]
    before, after = smoothed([*coarse, *fine]), smoothed([*coarse, *lifted])
    assert [m for m, _ in before] == pytest.approx([m for m, _ in after], abs=1e-9)
    assert before[1][0] == pytest.approx(before[3][0], abs=1e-9)  # the same rate in both stages is worth the same


def test_stages_of_the_same_length_are_compared_with_one_another() -> None:
    scores = [(1e-3, 0.30), (3e-3, 0.38), (1e-2, 0.34)]
    together = smoothed([trial(rate, score) for rate, score in scores])
    coarse, stages = "coarse", ("coarse", "as long", "coarse")
    apart = smoothed([trial(r, s, stage) for (r, s), stage in zip(scores, stages, strict=True)])
    assert np.array(apart) == pytest.approx(np.array(together), abs=2e-3)
    # Of another length, what stands alone is compared with nothing.
    alone = smoothed([trial(r, s, stage) for (r, s), stage in zip(scores, (coarse, "fine", coarse), strict=True)])
    assert alone[1][0] - alone[0][0] < 0.3 * (together[1][0] - together[0][0])


def test_a_rung_that_broke_off_is_of_no_other_ones_length() -> None:
    broken = [Trial("early", 0, {"lr": rate}, "pruned", epochs=0.1) for rate in (1e-1, 3e-1)]
    finished = [trial(1e-3, 0.5), trial(1e-2, 0.4)]
    alone, beside = smoothed(finished), smoothed([*broken, *finished])[2:]
    assert np.diff([m for m, _ in beside]) == pytest.approx(np.diff([m for m, _ in alone]), abs=0.02)
    assert list(_levels([*broken, *finished])[0]) == [0, 0, 1, 1]


def test_a_difference_is_less_doubtful_than_either_and_more_so_beyond_the_longest_trial() -> None:
    rates, scores = np.array([1e-3, 2e-3, 1e-2]), np.array([0.30, 0.33, 0.34])
    trials = [trial(rate, score) for rate, score in zip(rates, scores, strict=True)]
    found = expectations(trials)
    gain, doubt = found.lead(1, 0)
    assert gain == pytest.approx(found.mean[1] - found.mean[0])
    _, covariance = textbook(rates, scores)
    assert doubt**2 == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], rel=1e-6)
    assert doubt < np.hypot(*(d for _, d in smoothed(trials)[:2]))
    # Settings far from one another may depart from what was seen more than near ones do; equal ones do not.
    further = [found.lead(a, 0, length=100 * EPOCHS["coarse"])[1] - found.lead(a, 0)[1] for a in (0, 1, 2)]
    assert 0 == further[0] < further[1] < further[2]


def test_of_very_many_trials_some_hundreds_judge_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores with noise over a known curve: what 200 of 600 say is within a fraction of the noise of what all say."""
    draw = generator(0, "many trials")
    rates = 10 ** draw.uniform(-5, -1, 600)
    scores = 0.6 - 0.05 * (np.log10(rates) + 3) ** 2 + draw.normal(0, 0.02, 600)
    trials = [trial(float(rate), float(score)) for rate, score in zip(rates, scores, strict=True)]
    monkeypatch.setattr("wellfit.search.smoothing.LISTENED_TO", 600)
    whole = np.array([mean for mean, _ in smoothed(trials)])
    monkeypatch.setattr("wellfit.search.smoothing.LISTENED_TO", 200)
    some = expectations(trials)
    assert some.solved.shape == (200, 600)
    near = np.abs(np.log10(rates) + 3) < 0.5
    assert np.std((some.mean - whole)[near]) < 0.01
    assert abs(np.log10(rates[int(some.mean.argmax())]) + 3) < 0.35


def test_noise_is_shared_out_among_neighbours() -> None:
    """Over many noisy searches of one known curve, the smoothed choice loses less than the single best score does."""
    draw = generator(0, "smoothing")

    def truth(log_lr: np.ndarray) -> np.ndarray:
        return 0.6 - 0.08 * (log_lr + 3) ** 2

    lost_smoothed, lost_single = [], []
    for _ in range(200):
        places = draw.uniform(-4, -2, 20)
        scores = truth(places) + draw.normal(0, 0.03, 20)
        trials = [trial(10.0**p, float(s), error=0.03) for p, s in zip(places, scores, strict=True)]
        expected = [mean for mean, _ in smoothed(trials)]
        lost_smoothed.append(0.6 - truth(places[int(np.argmax(expected))]))
        lost_single.append(0.6 - truth(places[int(np.argmax(scores))]))
    assert np.mean(lost_smoothed) < 0.6 * np.mean(lost_single)


def test_what_is_not_known_shrinks_with_trials_and_never_vanishes() -> None:
    few = smoothed([trial(1e-3, 0.5), trial(1e-2, 0.6)])
    many = smoothed([trial(1e-3, 0.5), trial(1e-2, 0.6)] * 5)
    assert 0 < many[0][1] < few[0][1]
    assert few[0][1] <= max(LEAST_SPREAD, 0.05) + 1e-12


def test_other_choices_share_nothing_and_broken_off_trials_count_as_poor() -> None:
    plain = [trial(1e-3, 0.5, balance="none"), trial(1e-1, 0.6, balance="none")]
    one, other = trial(1e-3, 0.7, balance="weights"), trial(1e-3, 0.7, balance="none")
    apart, beside = smoothed([*plain, one]), smoothed([*plain, other])
    assert beside[0][0] - beside[1][0] > apart[0][0] - apart[1][0]
    good, cliff = trial(1e-2, 0.6), trial(1.2e-2, None)
    assert smoothed([good, trial(1e-4, 0.5), cliff])[0][0] < smoothed([good, trial(1e-4, 0.5)])[0][0]
    assert smoothed([]) == []
