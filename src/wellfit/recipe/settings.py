"""Finding the settings of a fit: schedule, study and trials as in `wellfit search`, in this process (SPEC S1-S5)."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from typing import Any

from wellfit.recipe.best_trials import BestTrials
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import Plan
from wellfit.recipe.trials import CONTINUABLE, TrialRunner
from wellfit.record import read_record
from wellfit.search.knobs import reaching
from wellfit.search.rounds import Round
from wellfit.search.schedule import Schedule
from wellfit.search.space import Choice, LogUniform, Space
from wellfit.search.stages import diverged, winner
from wellfit.search.trial import Trial

DECAY_TRIALS = 16  # of the coarse stage: two settings ask for more trials than one
SLOWER = 1.35  # times the share of the time that was planned, after which a search whose trials are slow is ended
MOST_SEARCH_TIME = 0.5  # of what is left
ALIKE = 1.5  # times: rates nearer than that are not told apart by a trial
ASIDE = 3.0  # times the default, up and down: what few random draws would leave out
ANEW = 1.3  # how much more the trials cost where longer ones start again


def find_settings(job: Job, material: Material) -> Settings:
    """The best settings of the plan's trials; the defaults where the plan has none."""
    plan = material.plan
    with job.step("search") as outcome:
        if not plan.search.coarse_trials:
            why = "the settings are given" if job.config.optimizer.lr else "the plan leaves no time for trials"
            outcome.skip(next((r for r in plan.reasons if r.startswith("no search: a line search")), why))
            return Settings.of(plan)
        # The storage's libraries are for those who search.
        from wellfit.recipe.search_work import concluded, stage_line
        from wellfit.search.study import Study

        schedule = schedule_of(material, rate_of_checks(job))
        until = time.monotonic() + search_time(plan) * job.budget.left
        runner = TrialRunner(
            material,
            job.folder.path,
            job.record.write,
            rate=plan.schedule,
            keep=lambda task: plan.schedule == CONTINUABLE,
            trained=BestTrials(job, plan.ending.trials),
        )

        def opened(round_: Round) -> None:
            fields = stage_line(round_)
            del fields["findings"]
            job.record.write("stage", **fields)
            job.report(*round_.findings)

        with Study.open(
            job.folder.search, "fit", identity=_identity(plan), schedule=schedule.to_dict(), say=job.say
        ) as study:
            study.work(
                schedule,
                runner,
                worker="1",
                stop=lambda: job.stop() or time.monotonic() > until,
                opened=opened,
            )
            trials = study.trials()
        job.report(*concluded(schedule, trials).findings)
        broken = diverged(trials, math.log(len(material.data.classes)))
        if broken is not None:
            job.report(broken)
        default = _longest_of_defaults(trials)
        chosen, why = winner(trials, default, schedule.space, length=plan.epochs)
        settings = Settings.of(plan, chosen.settings if chosen is not None else None)
        outcome.reason = (
            f"lr {settings.lr:.3g}, weight decay {settings.weight_decay:.3g}, after {len(trials)} trials: {why}"
        )
        if chosen is not None and default is not None and chosen.epochs == default.epochs:
            outcome.gain = round((chosen.score or 0.0) - (default.score or 0.0), 4)
        shutil.rmtree(job.folder.path / "trials", ignore_errors=True)
        return settings


def rate_of_checks(job: Job) -> float | None:
    """The learning rate at which the check before the search saw the loss fall most; None where it told none."""
    lines = (line for line in read_record(job.folder.record) if line["kind"] == "check")
    found = [line["value"] for line in lines if line["check"] == "no-good-lr" and line["passed"] and line["finished"]]
    return float(found[-1]) if found and found[-1] else None


def search_time(plan: Plan) -> float:
    """The share of what is left that the search may take, where its trials turn out slower than planned."""
    search, training = plan.search, plan.training
    trials = search.coarse_trials * search.coarse_steps + search.fine_trials * search.fine_steps
    steps = trials * max(1, search.folds)
    return min(MOST_SEARCH_TIME, SLOWER * steps / max(1, steps + training.steps * plan.ending.members))


def schedule_of(material: Material, found: float | None = None) -> Schedule:
    """The schedule that divides what the plan's coarse and fine trials may cost; the default settings come first.

    found: the rate that the checks found to work best for their few iterations: it is tried second. Then come rates
    above and below the default, the higher one first, since the checks have told one that is far too high.
    """
    plan = material.plan
    search, epoch = plan.search, plan.training.steps_per_epoch
    steps = search.coarse_trials * search.coarse_steps + search.fine_trials * search.fine_steps
    cost = steps / epoch / (1.0 if plan.schedule == CONTINUABLE else ANEW)
    space = starting_space(material, found)
    usual, lr = vars(Settings.of(plan)), plan.optimizer.lr
    first: list[dict[str, Any]] = [{name: usual[name] for name in space}]
    for rate in (found, ASIDE * lr, lr / ASIDE):
        if rate is not None and not any(1 / ALIKE < rate / tried["lr"] < ALIKE for tried in first):
            first.append({"lr": rate})  # what else varies is drawn: few trials have to tell of it too
    return Schedule.plan(
        space,
        seed=plan.seed,
        longest=max(search.coarse_steps, search.fine_steps) / epoch,
        shortest=search.coarse_steps / epoch,
        budget_epochs=max(cost, search.coarse_steps / epoch),
        first=first,
    )


def starting_space(material: Material, found: float | None = None) -> Space:
    """lr from a thirtieth to ten times the default; weight decay a decade either way; balance where classes differ."""
    plan = material.plan
    optimizer = plan.optimizer
    rates = LogUniform(optimizer.lr / 30, optimizer.lr * 10)
    space: Space = {"lr": rates if found is None else reaching(rates, found)}
    long, many = plan.search.coarse_steps >= plan.training.steps_per_epoch, plan.search.coarse_trials >= DECAY_TRIALS
    if optimizer.weight_decay > 0 and long and many:
        space["weight_decay"] = LogUniform(optimizer.weight_decay / 10, optimizer.weight_decay * 10)
    if material.imbalanced and plan.training.balance == "auto":
        space["balance"] = Choice(("none", "weights", "sampler"))
    return space


def _identity(plan: Plan) -> dict[str, Any]:
    return {"plan": hashlib.blake2b(repr(plan).encode(), digest_size=8).hexdigest()}


def _longest_of_defaults(trials: list[Trial]) -> Trial | None:
    """The longest trial with the settings of the first one, which are those that would be used without a search."""
    same = [trial for trial in trials if trial.settings == trials[0].settings]
    return max(same, key=lambda trial: (trial.epochs, trial.number), default=None)
