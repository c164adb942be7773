"""What a batch has come to: a row a preset, from the run records and the scores in the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.errors import DataError
from environments.errors import TaskError
from pipeline.batch.job import JobResult
from pipeline.batch.request import BatchRequest, Member
from pipeline.records import RunRecord, find_record
from pipeline.report.policies import PolicyScores, gather, protocol_line
from pipeline.report.sources import Scores
from pipeline.report.tables import Cell, Share, Table
from pipeline.scores import SCORES_STEP
from pipeline.store import Store

_EXPERTS = ("expert", "oracle")
_PATIENCE_SECONDS = 10.0  # a network file system shows another machine's files after a while


@dataclass(frozen=True)
class Row:
    """One preset: what its complete seeds have scored, and what became of the others."""

    label: str
    goal: str | None  # whether the first observation tells it; None where nobody knows
    asked: int
    scores: tuple[Scores, ...]  # one a complete seed
    policies: tuple[PolicyScores, ...]
    failures: tuple[str, ...]  # one sentence each
    runs: tuple[str, ...]

    @property
    def state(self) -> str:
        """`complete`, `failed` or `waiting`: begun or not, the next run of the batch goes on."""
        if self.failures:
            return "failed"
        return "complete" if len(self.scores) == self.asked else "waiting"

    def policy(self, *names: str) -> PolicyScores | None:
        """The first of these that was evaluated."""
        found = {policy.policy: policy for policy in self.policies}
        return next((found[name] for name in names if name in found), None)

    @property
    def share(self) -> float | None:
        """The agent's return over the expert's, where that is positive."""
        agent, expert = self.policy("agent"), self.policy(*_EXPERTS)
        if agent is None or expert is None or expert.sums.mean() <= 0:
            return None
        return float(agent.sums.mean() / expert.sums.mean())

    @property
    def success(self) -> float | None:
        """The share of tasks that the agent solves."""
        agent = self.policy("agent")
        return None if agent is None or agent.success is None else float(agent.success.mean())


def rows(request: BatchRequest, store: Store, results: Sequence[JobResult]) -> list[Row]:
    """A row a preset, in the batch's order."""
    return [_row(request, member, store, results) for member in request.members]


def is_there(store: Store, run: str) -> bool:
    """Whether a complete run with its scores is seen here, now or in a moment."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _complete(store, run) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def batch_table(found: Sequence[Row], title: str, seeds: int, reasons: bool = True) -> Table:
    """The rows as a table; why something failed stands in its last column, or is left out."""
    episodes = max((row.policies[0].returns.shape[2] for row in found if row.policies), default=0)
    lines = [_line(row, episodes, reasons) for row in found]
    if len(found) > 1:
        lines.append(_mean_line(found, episodes))
    named = [f"ep. {k + 1}" for k in range(episodes)]
    columns = ("family", "goal", "seeds", "return", "95 %", *named, "of expert", "success", "state")
    each = dict.fromkeys(protocol_line(row.scores[0], seeds) for row in found if row.scores)
    protocol = " ".join(each) or "Protocol: nothing was evaluated."
    return Table("batch", title, protocol, columns, tuple(lines), _NOTES)


_NOTES = (
    "return: of a trial, the mean over seeds and test tasks, with its 95 % bootstrap interval.",
    "of expert: that return over the scripted policy's which knows the task, where it is positive.",
)


def _row(request: BatchRequest, member: Member, store: Store, results: Sequence[JobResult]) -> Row:
    ended = {result.run: result for result in results if result.status == "failed"}
    runs = tuple(member.run(seed) for seed in request.seeds)
    failures = [member.problem] if member.problem else []
    scores: list[Scores] = []
    for seed, run in zip(request.seeds, runs, strict=True):
        if run in ended:
            failures.append(f"seed {seed}: {ended[run].reason}")
        elif member.loaded is not None:
            try:
                scores += _scores(store, member, run)
            except DataError as error:
                failures.append(f"seed {seed}: {error}")
    try:
        policies = tuple(gather(scores)) if scores else ()
    except DataError as error:
        policies, failures = (), [*failures, str(error)]
    return Row(
        label=member.label,
        goal=_goal(member),
        asked=len(request.seeds),
        scores=tuple(scores),
        policies=policies,
        failures=tuple(failures),
        runs=runs,
    )


def _scores(store: Store, member: Member, run: str) -> list[Scores]:
    """The scores of a run, if it is complete and of this very configuration."""
    record = _complete(store, run)
    if record is None or member.loaded is None:
        return []
    if dict(record.config) != member.loaded.config.model_dump(mode="json"):
        return []
    folder = store.artefact_folder(*store.parse(record.artefacts[SCORES_STEP]))
    return [Scores.read(folder / "scores.json")]


def _complete(store: Store, run: str) -> RunRecord | None:
    record = find_record(store, run)
    if record is None or record.status != "complete" or SCORES_STEP not in record.artefacts:
        return None
    key = store.parse(record.artefacts[SCORES_STEP])
    return record if store.inspect(*key, data=False).manifest is not None else None


def _goal(member: Member) -> str | None:
    from environments.registry import load_family

    if member.loaded is None:
        return None
    try:
        return load_family(member.loaded.config.collect.domain).spec.goal
    except TaskError:
        return None


def _line(row: Row, episodes: int, reasons: bool) -> tuple[Cell, ...]:
    agent = row.policy("agent")
    state = f"failed: {'; '.join(row.failures)}" if reasons and row.failures else row.state
    per_episode: list[Cell] = [None] * episodes
    mean: float | None = None
    interval: tuple[float, float] | None = None
    if agent is not None:
        mean = agent.estimate.mean
        interval = (agent.estimate.mean_low, agent.estimate.mean_high) if agent.varies else None
        values = agent.returns.mean(axis=(0, 1))
        per_episode[: len(values)] = [float(value) for value in values]
    share, success = (None if x is None else Share(x) for x in (row.share, row.success))
    done = f"{len(row.scores)}/{row.asked}"
    return row.label, row.goal, done, mean, interval, *per_episode, share, success, state


def _mean_line(found: Sequence[Row], episodes: int) -> tuple[Cell, ...]:
    """Means over the presets that have scores; returns of different rewards are not averaged."""
    done = [row for row in found if row.policies]
    means: list[Cell] = []
    for values in ([row.share for row in done], [row.success for row in done]):
        known = [value for value in values if value is not None]
        means.append(Share(np.mean(known)) if known else None)
    state = ", ".join(
        f"{count} {state}"
        for state in ("complete", "failed", "waiting")
        if (count := sum(row.state == state for row in found))
    )
    return f"mean of {len(done)}", None, "", None, None, *([None] * episodes), *means, state
