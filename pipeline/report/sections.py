"""The page's sections, from the outputs of all seeds of a run."""

from __future__ import annotations

from collections.abc import Sequence

from environments.base import TaskFamily
from pipeline.report import beliefs, comparison, returns, rollouts
from pipeline.report import policies as scores
from pipeline.report.comparison import Contender
from pipeline.report.curves import Reference, curve_panels
from pipeline.report.page import Section, Tile
from pipeline.report.panels import Panel
from pipeline.report.policies import PolicyScores
from pipeline.report.sources import Arrays, Curves, SeedOutputs
from pipeline.report.tables import Table

_UPDATES = "gradient steps"
_CELLS = {"cell_probabilities", "posterior"}


def score_section(policies: Sequence[PolicyScores], seeds: Sequence[SeedOutputs]) -> Section:
    """The headline table, the returns by task, and both as figures."""
    protocol = scores.protocol_line(seeds[0].scores, len(seeds))
    tables = (
        scores.headline_table("Return of a trial", policies, protocol),
        scores.adaptation_table([one.scores for one in seeds], protocol),
    )
    return Section(
        "scores",
        "Scores",
        tables=tuple(table for table in tables if table is not None),
        panels=(returns.episode_panel(policies), returns.task_panel(policies)),
        layout="wide",
    )


def tiles(policies: Sequence[PolicyScores]) -> tuple[Tile, ...]:
    """The agent's return, success and first and last episode, measured against the references."""
    by_name = {one.policy: one for one in policies}
    agent = by_name["agent"]
    summary = agent.estimate
    ends = f"95 % [{summary.mean_low:.1f}, {summary.mean_high:.1f}]" if agent.varies else "one seed"
    found = [Tile(f"{summary.mean:.1f}", "agent's return of a trial", ends)]
    for policy, what in (
        ("oracle", "oracle, knows the task"),
        ("search", "scripted search"),
        ("goal_blind", "goal-blind script"),
        ("blind", "task-blind agent"),
    ):
        if policy in by_name:
            mean = by_name[policy].estimate.mean
            found.append(Tile(f"{mean:.1f}", what, f"agent {summary.mean - mean:+.1f}"))
    if agent.success is not None:
        solved = agent.success.mean()
        found.append(Tile(f"{100 * solved:.0f} %", "tasks solved", "goal reached at any step"))
    return tuple(found)


def lede(policies: Sequence[PolicyScores]) -> str:
    """The result in two sentences."""
    by_name = {one.policy: one for one in policies}
    agent = by_name["agent"]
    count, episodes = agent.returns.shape[1:]
    first, last = agent.returns.mean(axis=(0, 1))[[0, -1]]
    text = (
        f"On {count} test tasks the agent collects {agent.estimate.mean:.1f} in a trial of "
        f"{episodes} episodes: {first:.1f} in the first, while it finds out which task it is in, "
        f"and {last:.1f} in the last."
    )
    if "oracle" in by_name:
        text += f" A policy that knows the task collects {by_name['oracle'].estimate.mean:.1f}."
    return text


def rollout_section(
    family: TaskFamily, policies: Sequence[PolicyScores], seeds: Sequence[SeedOutputs]
) -> Section:
    """Rollouts of the first seed, from the worst task to the best."""
    own = seeds[0]
    agent = next(one for one in policies if one.policy == "agent")
    chosen = rollouts.spread_tasks(agent.sums[0])
    found = rollouts.rollout_panels(family, own.scores.tasks, own.rollouts, chosen)
    return Section(
        "rollouts",
        "Rollouts",
        f"The final agent of seed {own.seed}, from the test task where it collects least to the "
        "one where it collects most.",
        panels=tuple(found),
        layout="small",
        legend=rollouts.episode_legend(found[0]) if found else (),
    )


def belief_section(family: TaskFamily, seeds: Sequence[SeedOutputs]) -> Section:
    """How beliefs tighten, what they predict, and on cells how well calibrated they are."""
    own = seeds[0]
    horizon = int(own.scores.protocol.get("horizon", family.spec.horizon))
    found: list[Panel] = []
    tracked = [one.rollouts["beliefs"] for one in seeds if "beliefs" in one.rollouts]
    if tracked:
        found.append(beliefs.tightening_panel(tracked, horizon))
    if "beliefs" in own.rollouts:
        found.append(beliefs.belief_map_panel(own.rollouts["beliefs"], own.scores.tasks))
    found += _prediction_panels(own.diagnostics, horizon)
    return Section(
        "beliefs",
        "Beliefs",
        "A belief is a mean and a variance of the latent task, filtered from the prior along the "
        "trial. Predictions are decoded on trials that the training did not see.",
        panels=tuple(found),
    )


def _prediction_panels(diagnostics: Arrays, horizon: int) -> list[Panel]:
    """Predicted rewards, and where they are probabilities, how well these are calibrated."""
    found: list[Panel] = []
    if {"rewards", "reward_predictions"} <= set(diagnostics):
        pair = (diagnostics["rewards"], diagnostics["reward_predictions"])
        found += beliefs.prediction_panels(*pair, horizon)
        if "reliability_predicted" not in diagnostics:
            found.append(beliefs.agreement_panel(*pair))
    if "reliability_predicted" in diagnostics:
        predicted = diagnostics["reliability_predicted"]
        bins = (predicted, diagnostics["reliability_observed"], diagnostics["reliability_counts"])
        found.append(beliefs.calibration_panel("Reward", bins, "share of high rewards"))
    if set(diagnostics) >= _CELLS:
        decoded, exact = diagnostics["cell_probabilities"], diagnostics["posterior"]
        bins = beliefs.reliability(decoded, exact, (0.0, 1.0))
        found.append(beliefs.calibration_panel("Goal", bins, "exact probability, mean"))
        found.append(beliefs.gap_panel(decoded, exact, horizon))
    return found


def map_section(family: TaskFamily, seeds: Sequence[SeedOutputs]) -> Section:
    """Decoded reward maps beside the exact posterior, where the family has cells."""
    own = seeds[0].diagnostics
    found: list[Panel] = []
    if set(own) >= _CELLS:
        decoded, exact = own["cell_probabilities"], own["posterior"]
        trial = beliefs.telling_trial(exact)
        found = beliefs.map_panels(decoded[trial], exact[trial], family.spec.horizon)
    return Section(
        "posterior",
        "Decoded and exact posterior",
        "Probability that a cell is the goal, along one held-out trial: what the reward decoder "
        "reads from the belief, beside the exact Bayes posterior. Both maps of a pair share "
        "their scale.",
        panels=tuple(found),
        layout="small",
    )


def training_sections(
    policies: Sequence[PolicyScores], seeds: Sequence[SeedOutputs]
) -> tuple[Section, ...]:
    """Curves of offline RL, belief training and collection, the result's stage first."""
    offline = _curves("evaluation", [one.evaluations for one in seeds], _UPDATES, policies)
    offline += _curves("offline", [one.offline_losses for one in seeds], _UPDATES)
    beliefs_trained = _curves("vae", [one.belief_training for one in seeds], _UPDATES)
    collected = _curves("collection", [one.collection for one in seeds], "trials a task")
    return (
        Section(
            "offline",
            "Offline RL",
            "Evaluations on the test tasks while the agent learns, and its losses. Pale lines are "
            "single seeds.",
            panels=tuple(offline),
        ),
        Section(
            "encoder",
            "Belief training",
            "Losses of the belief encoder on training trials and on trials held out.",
            panels=tuple(beliefs_trained),
        ),
        Section(
            "collection",
            "Collection",
            "What the ordinary agents collected, each on its own task; all of it is the data set.",
            panels=tuple(collected),
        ),
    )


def _curves(
    stem: str,
    curves: Sequence[Curves | None],
    axis: str,
    policies: Sequence[PolicyScores] = (),
) -> list[Panel]:
    """Panels of the logs that are there, with the returns of scripted policies as lines."""
    lines = [
        Reference(scores.label(one.policy), one.estimate.mean, scores.colour(one.policy))
        for one in policies
        if one.policy in ("oracle", "search")
    ]
    present = [one for one in curves if one is not None]
    return curve_panels(stem, present, axis, {"return": lines}) if present else []


def comparison_section(own: Contender, others: Sequence[Contender]) -> Section:
    """Other presets of the domain that were evaluated on the same tasks."""
    return Section(
        "comparison",
        "Comparison",
        "Other runs in the store, on the same test tasks under the same protocol.",
        tables=(comparison.comparison_table(own, others),) if others else (),
        panels=(comparison.comparison_panel(own, others),) if others else (),
        layout="wide",
    )


def task_section(table: Table) -> Section:
    """Every task's return, the longest table, last."""
    return Section("tasks", "Tasks", tables=(table,))
