"""The headline in numbers: who collects how much, by policy, by episode and by task.

No matplotlib here: the command line prints these tables too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import DataError
from pipeline.report.sources import Float64, Scores
from pipeline.report.tables import Cell, Share, Table
from pipeline.statistics import Estimate, estimate

POLICIES: dict[str, tuple[str, str]] = {
    "agent": ("agent", "#3478c6"),
    "agent_best": ("agent, best", "#7fb0e6"),
    "agent_given_context": ("agent, given context", "#1f9aa8"),
    "oracle": ("oracle", "#2c9a68"),
    "goal_blind": ("goal-blind script", "#b0892f"),
    "search": ("scripted search", "#9566cc"),
    "blind": ("task-blind", "#d9730d"),
    "random": ("random", "#868b93"),
}
"""Policies in the order of every table: their name for people and their colour."""

NOTES = {
    "agent": "agent: the final checkpoint, which is the result.",
    "agent_best": "agent, best: the best checkpoint during training, chosen on these same test "
    "tasks, so it flatters.",
    "agent_given_context": "agent, given context: its belief was first shown offline episodes of "
    "the test task; the other rows gather their own context (online adaptation).",
    "oracle": "oracle: a scripted policy that knows the task.",
    "goal_blind": "goal-blind script: the same script kept from knowing the goal; where it "
    "succeeds too, success does not measure adaptation.",
    "search": "scripted search: sweeps for the goal at first, then goes straight to it.",
    "blind": "task-blind: the same update rule on states alone, without beliefs.",
}


@dataclass(frozen=True)
class PolicyScores:
    """One policy over all seeds: returns (seeds, tasks, K), success (seeds, tasks) or None."""

    policy: str
    returns: Float64
    success: Float64 | None

    @property
    def sums(self) -> Float64:
        """Summed return of a trial, (seeds, tasks)."""
        total: Float64 = self.returns.sum(axis=2)
        return total

    @property
    def fixed(self) -> bool:
        """Whether it is scripted, and so the same for every seed."""
        return self.policy in ("oracle", "search", "goal_blind")

    @cached_property
    def estimate(self) -> Estimate:
        """Mean and interquartile mean of the summed return, with their intervals over seeds."""
        return estimate(self.sums[:1] if self.fixed else self.sums)

    @property
    def varies(self) -> bool:
        """Whether there is an interval to speak of: several seeds of something that learns."""
        return len(self.returns) > 1 and not self.fixed


def gather(scores: Sequence[Scores]) -> list[PolicyScores]:
    """Stack the seeds of a run, policy by policy, in the order of `POLICIES`.

    A policy counts only if every seed has it. Raises DataError where seeds differ in their tasks
    or episodes, since such returns must not be averaged.
    """
    first = scores[0]
    for other in scores[1:]:
        if not np.array_equal(other.tasks, first.tasks):
            raise DataError("the seeds of this run were evaluated on different tasks")
        if other.returns["agent"].shape != first.returns["agent"].shape:
            raise DataError("the seeds of this run differ in their number of episodes")
    common = set.intersection(*(set(one.returns) for one in scores))
    order = [p for p in POLICIES if p in common] + sorted(common - set(POLICIES))
    return [
        PolicyScores(
            policy,
            np.stack([one.returns[policy] for one in scores]),
            np.stack([one.success[policy] for one in scores])
            if all(policy in one.success for one in scores)
            else None,
        )
        for policy in order
    ]


def label(policy: str) -> str:
    """A policy's name for people."""
    return POLICIES.get(policy, (policy.replace("_", " "), ""))[0]


def colour(policy: str) -> str:
    """A policy's colour in every figure."""
    return POLICIES.get(policy, ("", "#868b93"))[1]


def protocol_line(scores: Scores, seeds: int) -> str:
    """How the numbers were made, in one line; it stands under every table."""
    protocol = scores.protocol
    count = protocol.get("task_count", len(scores.tasks))
    seen = "seen in training" if protocol.get("test_tasks_seen") else "held out"
    return (
        f"Protocol: {count} test tasks ({seen}), start {protocol.get('start', '?')}, "
        f"{_extras(protocol)}"
        f"{protocol.get('episodes', '?')} episodes of {protocol.get('horizon', '?')} steps from "
        f"the prior, {protocol.get('policy', 'deterministic')} policy{_exploring(protocol)}, "
        f"{protocol.get('checkpoint', 'final')} checkpoint, {seeds} seed{'s' * (seeds != 1)}."
    )


def _exploring(protocol: Mapping[str, Any]) -> str:
    return f" but for {protocol['exploration']}" if "exploration" in protocol else ""


def _extras(protocol: Mapping[str, Any]) -> str:
    """What only some domains have to say of a protocol."""
    parts = [
        f"split {protocol['split']}" if "split" in protocol else "",
        f"goal {protocol['goal']}" if "goal" in protocol else "",
        f"given context {protocol['given_context']}" if "given_context" in protocol else "",
    ]
    return "".join(f"{part}, " for part in parts if part)


def headline_table(title: str, policies: Sequence[PolicyScores], protocol: str) -> Table:
    """Return of a trial (mean, IQM, interval), return per episode and success, by policy."""
    episodes = policies[0].returns.shape[2]
    rows: list[tuple[Cell, ...]] = []
    for scores in policies:
        summary = scores.estimate
        success = None if scores.success is None else Share(scores.success.mean())
        per_episode = scores.returns.mean(axis=(0, 1))
        rows.append(
            (
                label(scores.policy),
                summary.mean,
                summary.iqm,
                (summary.low, summary.high) if scores.varies else None,
                *(float(x) for x in per_episode),
                success,
            )
        )
    columns = ("policy", "return", "IQM", "95 % of IQM")
    return Table(
        "scores",
        title,
        protocol,
        (*columns, *(f"ep. {k + 1}" for k in range(episodes)), "success"),
        tuple(rows),
        tuple(NOTES[s.policy] for s in policies if s.policy in NOTES),
    )


def adaptation_table(scores: Sequence[Scores], protocol: str) -> Table | None:
    """Success of each episode, and returns over those of the expert and of the logs, by policy.

    None where the domain has no goal-blind script: elsewhere the headline says it all.
    """
    first = scores[0]
    if "goal_blind" not in first.returns or "oracle" not in first.returns:
        return None
    episodes = first.returns["agent"].shape[1]
    rows: list[tuple[Cell, ...]] = []
    for policy in (p for p in POLICIES if all(p in one.returns for one in scores)):
        returns = np.stack([one.returns[policy] for one in scores])  # (seeds, tasks, K)
        expert = np.stack([one.returns["oracle"] for one in scores])
        solved = [one.episode_success.get(policy) for one in scores]
        if all(part is not None for part in solved):
            shares: tuple[Cell, ...] = tuple(
                Share(x) for x in np.stack([p for p in solved if p is not None]).mean((0, 1))
            )
        else:  # scripted: every episode is alike
            known = [one.success[policy].mean() for one in scores if policy in one.success]
            shares = (Share(np.mean(known)) if known else None,) * episodes
        data = first.data_return
        rows.append(
            (
                label(policy),
                float((returns[..., -1] / expert[..., -1]).mean()),
                float(returns[..., -1].mean() / data) if data else None,
                *shares,
            )
        )
    return Table(
        "adaptation",
        "Adaptation: the last episode's return, and how many tasks each episode solves",
        protocol,
        (
            "policy",
            "over the expert's",
            "over the logs'",
            *(f"success ep. {k + 1}" for k in range(episodes)),
        ),
        tuple(rows),
        (
            "over the expert's: mean over tasks of the last episode's return over that of the "
            "script that knows the goal, on the same task.",
            "over the logs': last episode's mean return over the mean return of an episode of the "
            "data, as the field's tables are normalised.",
            "success: at any step of the episode.",
        ),
    )


def task_table(policies: Sequence[PolicyScores], tasks: Float64, protocol: str) -> Table:
    """Summed return of every test task by policy, averaged over seeds."""
    means = [scores.sums.mean(axis=0) for scores in policies]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (index, " ".join(f"{x:.4g}" for x in task), *(float(mean[index]) for mean in means))
        for index, task in enumerate(tasks)
    )
    columns = ("task", "parameters", *(label(scores.policy) for scores in policies))
    title = "Return of a trial, task by task"
    return Table("tasks", title, protocol, columns, rows, folded=len(rows) > 12)


def run_table(title: str, folders: Sequence[Path]) -> str:
    """The headline table of one run, a scores folder a seed, as text for a terminal.

    Raises:
        DataError: scores are damaged, or the seeds were evaluated on different tasks.
    """
    read = [Scores.read(folder / "scores.json") for folder in folders]
    protocol = protocol_line(read[0], len(read))
    tables = [headline_table(title, gather(read), protocol), adaptation_table(read, protocol)]
    return "\n\n".join(table.plain_text() for table in tables if table is not None)
