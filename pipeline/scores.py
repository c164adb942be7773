"""The rows of docs/results.json: what the complete runs in the store have scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.files import read_json
from pipeline.again import again
from pipeline.console import table
from pipeline.presets import preset_stem
from pipeline.records import RunRecord, list_records
from pipeline.statistics import estimate
from pipeline.store import Store

SCORES_STEP = "evaluate"
_OTHERS = ("agent_best", "agent_given_context", "blind", "goal_blind", "search")
_ADAPTED = ("agent", "agent_best", "agent_given_context", "blind", "goal_blind")
_ORACLE = "oracle"

Float64 = NDArray[np.float64]


class ReturnSum(TypedDict):
    """Summed return of a trial over seeds and tasks; the interval is the IQM's."""

    mean: float
    iqm: float
    ci95: list[float] | None  # None for a single seed, which tells nothing of the spread


class Adaptation(TypedDict):
    """How far a policy comes in the last episode, and how often each episode succeeds."""

    over_data: float  # last episode's mean return over that of an episode of the logs
    over_expert: float  # last episode's return over the expert's on the same task, mean
    success: list[float] | None  # of each episode, None where it was not recorded


class ScoreRow(TypedDict):
    """One preset (with its overrides, under one name) over its seeds."""

    domain: str
    name: str  # of its runs, without the seed
    preset: str
    overrides: list[str]
    headline: bool  # the domain's own preset, unchanged and not renamed
    seeds: list[int]
    protocol: dict[str, Any]
    return_sum: ReturnSum
    return_per_episode: list[float]
    success: float | None  # None where the domain knows no success
    oracle: float | None  # summed return of the policy that knows the task, if there is one
    others: dict[str, float]  # summed return: best checkpoint, task-blind agent, scripted search
    command: str
    adaptation: NotRequired[dict[str, Adaptation]]  # by policy; where a script knows the goal


def score_rows(store: Store, domain: str | None = None) -> list[ScoreRow]:
    """Rows of a domain's complete runs (all domains if None), the headline first.

    Of runs that differ in more than their seed under one name, those of the newest configuration
    count.
    """
    records = [r for r in list_records(store) if r.status == "complete"]
    return rows_of_runs(store, [r for r in records if domain in (None, r.domain)])


def rows_of_runs(store: Store, records: Iterable[RunRecord]) -> list[ScoreRow]:
    """Rows of these runs; a run whose scores are missing or damaged is left out."""
    groups: dict[tuple[str, str, tuple[str, ...], str], list[RunRecord]] = {}
    for record in sorted(records, key=lambda r: r.created):
        key = (record.domain, record.preset, record.overrides, record.stem)
        groups.setdefault(key, []).append(record)
    rows = [_row(store, _newest(group)) for group in groups.values()]
    found = [row for row in rows if row is not None]
    return sorted(
        found,
        key=lambda r: (r["domain"], not r["headline"], r["preset"], r["overrides"], r["name"]),
    )


def score_table(rows: Sequence[ScoreRow]) -> str:
    """The rows for people: a table a protocol, which stands under it."""
    groups: dict[str, list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault(f"{row['domain']}: {_protocol(row['protocol'])}", []).append(row)
    return "\n\n".join(_group_table(group, protocol) for protocol, group in groups.items())


def _group_table(rows: Sequence[ScoreRow], protocol: str) -> str:
    header = ("run", "seeds", "return", "IQM", "95 % of IQM", "per episode", "success", "oracle")
    lines = [
        (
            row["name"],
            str(len(row["seeds"])),
            f"{row['return_sum']['mean']:.2f}",
            f"{row['return_sum']['iqm']:.2f}",
            _interval(row["return_sum"]["ci95"]),
            " ".join(f"{value:.2f}" for value in row["return_per_episode"]),
            "-" if row["success"] is None else f"{row['success']:.0%}",
            "-" if row["oracle"] is None else f"{row['oracle']:.2f}",
        )
        for row in rows
    ]
    changes = [_origin(row) for row in rows if row["name"] != preset_stem(row["preset"])]
    return "\n".join([table(header, lines, right=(1, 2, 3, 6, 7)), *changes, protocol])


def _row(store: Store, records: Sequence[RunRecord]) -> ScoreRow | None:
    pairs = [(record, _read(store, record)) for record in records]
    by_seed = {record.seed: (record, scores) for record, scores in pairs if scores is not None}
    if not by_seed:
        return None
    seeds = sorted(by_seed)
    record, first = by_seed[seeds[0]]
    alike = [s for s in seeds if by_seed[s][1]["tasks"] == first["tasks"]]
    found = [by_seed[seed][1] for seed in alike]
    returns = _stack(found, "agent")  # (seeds, tasks, K)
    summary = estimate(returns.sum(axis=2))
    names = (*_OTHERS, _ORACLE)
    shared = ["agent", *(n for n in names if all(n in s["returns"] for s in found))]
    sums = {
        name: float(_stack(found, name).sum(axis=2).mean()) for name in shared if name != "agent"
    }
    row = ScoreRow(
        domain=record.domain,
        name=record.stem,
        preset=record.preset,
        overrides=list(record.overrides),
        headline=record.preset == record.domain
        and record.stem == preset_stem(record.preset)
        and not record.overrides,
        seeds=alike,
        protocol=dict(first["protocol"]),
        return_sum=ReturnSum(
            mean=summary.mean,
            iqm=summary.iqm,
            ci95=[summary.low, summary.high] if len(alike) > 1 else None,
        ),
        return_per_episode=returns.mean(axis=(0, 1)).tolist(),
        success=_success(found),
        oracle=sums.pop(_ORACLE, None),
        others=sums,
        command=again([by_seed[seed][0] for seed in alike]),
    )
    if all("goal_blind" in s["returns"] and "data_return" in s for s in found):
        row["adaptation"] = {name: _adaptation(found, name) for name in _ADAPTED if name in shared}
    return row


def _success(found: Sequence[dict[str, Any]]) -> float | None:
    known = [one["success"]["agent"] for one in found if "agent" in one["success"]]
    return float(np.mean(known)) if len(known) == len(found) else None


def _adaptation(found: Sequence[dict[str, Any]], policy: str) -> Adaptation:
    last, expert = (_stack(found, name)[..., -1] for name in (policy, _ORACLE))
    data = np.array([one["data_return"] for one in found])[:, None]
    solved = [one.get("episode_success", {}).get(policy) for one in found]
    known = [part for part in solved if part is not None]
    return Adaptation(
        over_data=float((last / data).mean()),
        over_expert=float((last / expert).mean()),
        success=np.mean(known, axis=(0, 1)).tolist() if len(known) == len(found) else None,
    )


def _newest(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Those with the configuration of the newest, one a seed."""
    digest = records[-1].config_digest
    return list({r.seed: r for r in records if r.config_digest == digest}.values())


def _read(store: Store, record: RunRecord) -> dict[str, Any] | None:
    reference = record.artefacts.get(SCORES_STEP)
    if reference is None:
        return None
    artefact = store.find(*store.parse(reference))
    if artefact is None:
        return None
    try:
        document = read_json(artefact.folder / "scores.json")
        document["returns"]["agent"], document["success"], document["tasks"]
    except (DataError, KeyError, TypeError):
        return None
    return document if isinstance(document, dict) else None


def _stack(scores: Sequence[dict[str, Any]], policy: str) -> Float64:
    """Returns of one policy, (seeds, tasks, K)."""
    return np.asarray([one["returns"][policy] for one in scores], dtype=np.float64)


def _origin(row: ScoreRow) -> str:
    """What the runs of a row were made from, where their name does not say."""
    changes = f" with {', '.join(row['overrides'])}" if row["overrides"] else ""
    return f"{row['name']}: {row['preset']}{changes}"


def _interval(ci95: Sequence[float] | None) -> str:
    return "-" if ci95 is None else f"{ci95[0]:.2f} to {ci95[1]:.2f}"


def _protocol(protocol: dict[str, Any]) -> str:
    seen = "seen in training" if protocol.get("test_tasks_seen") else "held out"
    noise = f" but for {protocol['exploration']}" if "exploration" in protocol else ""
    return (
        f"{protocol.get('task_count', '?')} tasks {seen}, start {protocol.get('start', '?')}, "
        f"{protocol.get('episodes', '?')} episodes of {protocol.get('horizon', '?')} steps, "
        f"{protocol.get('policy', 'deterministic')} policy{noise}, "
        f"{protocol.get('checkpoint', 'final')} checkpoint"
    )
