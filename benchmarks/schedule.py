"""What a whole run of the published schedule takes, from the rates of its measured stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cases import CASES, Case, load_case
from pipeline.markdown import markdown_table

TARGETS = {"gridworld": 10.0, "point_robot_sparse": 8.0}
"""How many times as fast as the plain loops a whole run is to be at least."""


def work(case: Case) -> dict[str, float]:
    """How many units of each duel a run of the case's settings does."""
    config, spec = case.config, case.family.spec
    collect, vae, offline = config.collect, config.vae, config.offline
    steps = (collect.episodes or spec.episodes) * spec.horizon  # of a trial
    trials = collect.random_trials + collect.iterations * collect.trials_per_iteration
    batch = vae.tasks_per_batch * vae.trials_per_task
    share = max(1, spec.episodes // 2) / spec.episodes
    kept = trials if config.relabel.trials is None else min(trials, config.relabel.trials)
    evaluations = offline.updates // offline.evaluate_every + 1
    tasks = collect.tasks.train
    return {
        "collection": float(tasks * collect.iterations * collect.updates_per_iteration),
        "acting": float(tasks * trials * steps),
        "rewards": vae.updates * batch * steps * share,
        "vae": float(vae.updates),
        "relabel": float(tasks * kept * steps),
        "offline": float(offline.updates),
        "evaluation": float(evaluations * collect.tasks.test * spec.episodes * spec.horizon),
    }


def schedule_rows(duels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hours of a run with the plain loops and with ours, for cases whose every stage was timed."""
    rows = []
    for name in CASES:
        timed = {row["key"]: row for row in duels if row["case"] == name}
        units = work(load_case(name))
        if units.keys() - timed.keys():
            continue
        plain = {key: units[key] / timed[key]["plain_units_per_second"] / 3600 for key in units}
        ours = {key: units[key] / timed[key]["units_per_second"] / 3600 for key in units}
        rows.append(
            {
                "case": name,
                "plain_hours": sum(plain.values()),
                "hours": sum(ours.values()),
                "ratio": sum(plain.values()) / sum(ours.values()),
                "target": TARGETS.get(name),
                "longest": max(ours, key=lambda key: ours[key]),
                "plain_hours_each": plain,
                "hours_each": ours,
            }
        )
    return rows


def schedule_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, hours stage by stage."""
    stages = list(work(load_case(CASES[0])))
    lines = []
    for row in rows:
        for side, prefix in (("plain", "plain_"), ("ours", "")):
            each = [_hours(row[f"{prefix}hours_each"][stage]) for stage in stages]
            ratio = f"**{row['ratio']:.1f}**" if side == "ours" else ""
            wanted = f"{row['target']:g}" if side == "ours" and row["target"] else ""
            total = _hours(row[f"{prefix}hours"])
            lines.append([row["case"], side, *each, total, ratio, wanted])
    return markdown_table(["case", "side", *stages, "all", "ratio", "wanted"], lines)


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.2f} h" if hours >= 0.1 else "< 0.1 h"
