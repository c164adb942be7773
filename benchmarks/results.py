"""Write docs/results.json and docs/results.md from the complete runs of presets in the store.

    python -m benchmarks.results         # reads ./runs, or OMRL_HOME
    python -m benchmarks.results --keep  # and leaves rows of domains that this store has none of

Only runs whose configuration is still what the preset says are counted, so that the command beside
a number makes that number again. Nothing is trained here: each row's `command` makes its runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from benchmarks.belief_probe import read_probes
from benchmarks.single_task import current_mean
from datasets.files import write_atomically
from environments.registry import goal_of
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.markdown import markdown_table
from pipeline.presets import load_config, preset_stem
from pipeline.records import RunRecord, list_records, run_name
from pipeline.scores import ScoreRow, rows_of_runs
from pipeline.store import Store, default_root

DOCS = Path(__file__).resolve().parent.parent / "docs"

INTRODUCTION = """\
# Results

Made by `python -m benchmarks.results` from runs that were made; do not edit by hand. The command
beside a row makes its runs again, `omrl scores DOMAIN` prints the same figures from the store.

*Return* is the mean over test tasks and seeds of the reward summed over a trial (K episodes of H
steps). *IQM* is the interquartile mean over seeds and tasks, the interval its 95 % stratified
bootstrap interval (Agarwal et al., NeurIPS 2021). *Final* is the agent after its last update;
*best* is the best of the evaluations during training, made on the same test tasks, hence an
optimistic figure. *Blind* is an agent trained alike without beliefs, for a share of the updates.
*Oracle* knows the task, *search* is a scripted search that does not. *Single task* is the return of
one episode of ordinary agents that trained on the test tasks themselves, with as much data as those
of the logs (`python -m benchmarks.single_task PRESET`): to be held against the last episode. A
domain or preset without a row has no complete runs yet.
"""

ADAPTATION = """\
One task set a row, its 50 tasks of version 2's draws split into 40 to train and 10 held out, unless
the protocol says otherwise. *Last* is the last episode's mean return over the mean return of an
episode of the logs, as the field's tables are normalised: by *online adaptation*, the agent
gathering its own context, with the weights at the end of training and the best ones; and with
*given context*, the belief first shown offline episodes of the test task. *IDAQ* is what that
method reports (as read from CTMRL's table; other logs, 45 episodes a task of one noise level, so
another normaliser). *Expert* is the script that knows the goal, on the same task. Success is that
of each episode, at any step. *Task-blind* is trained without beliefs; *goal-blind* is the script
kept from knowing the goal: where either comes as far, returns do not measure adaptation. Logs here
hold 16 episodes a task of mixed noise, so their mean is lower than an expert's.
"""

BELIEFS = """\
### What the beliefs of these runs know

`python -m benchmarks.belief_probe --write` reads the goal off the belief's mean by a regression
that is fitted to the training tasks at the ends of episodes; errors are mean distances in
centimetres. *Spread* is the error of knowing nothing. *Logs* and *donors' lead* are errors on
training tasks that the regression was not fitted to: after logged episodes, where a script that
knows the goal stands at it, and after episodes of donors, who stand elsewhere, hence what the
belief can make of steps that do not look for the goal. *Given context* and *own episodes* are of
the test tasks: after the script's episodes, and after each of the agent's own. *Expected minus
received* is the reward that the belief expected before each step of an episode against the one
that came, beside the deviation of rewards.
"""

_BELIEF_COLUMNS = (
    "preset",
    "spread",
    "logs",
    "donors' lead",
    "given context",
    "after own episodes",
    "expected minus received",
    "deviation of rewards",
)

_PUBLISHED = {
    "reach-wall": "0.93",
    "push-wall": "0.71",
    "pick-out-of-hole": "0.26",
    "plate-slide": "1.01",
}
"""Last episode over the data's mean return, IDAQ, online adaptation."""

_ADAPTATION_COLUMNS = (
    "preset",
    "goal",
    "seeds",
    "last, final",
    "last, best",
    "last, given context",
    "IDAQ",
    "over the expert's",
    "return per episode",
    "success",
    "success, given context",
    "task-blind",
    "goal-blind",
)

_COLUMNS = (
    "preset",
    "seeds",
    "final",
    "IQM",
    "95 % of IQM",
    "best",
    "per episode",
    "success",
    "blind",
    "search",
    "oracle",
    "single task",
)


def is_current(record: RunRecord) -> bool:
    """Whether the run is complete, of a plain preset, and of that preset as it stands today.

    A setting that did not exist when it was recorded has its default, as it had then; one that
    exists no more must have been off.
    """
    if record.status != "complete" or record.overrides:
        return False
    try:
        preset = load_config(record.preset)
        known = without_dropped(dict(record.config), preset.config.model_dump(mode="json"))
        recorded = RunConfig.model_validate_json(json.dumps(known))
    except (ConfigError, ValidationError):
        return False
    return recorded == preset.config


def without_dropped(recorded: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings but for those that are unknown today and were off."""
    return {
        name: without_dropped(value, known[name])
        if isinstance(value, dict) and isinstance(known.get(name), dict)
        else value
        for name, value in recorded.items()
        if value or name in known
    }


def markdown(rows: Sequence[ScoreRow]) -> str:
    """The page: a table and the protocols for each domain."""
    parts = [INTRODUCTION]
    adapted = [row for row in rows if "adaptation" in row]
    if adapted:
        details = (_details(row) for row in adapted)
        parts += ["## Meta-World ML1\n", ADAPTATION, _adaptation_table(adapted), *details, ""]
        if known := _belief_lines(adapted, read_probes()):
            parts += [BELIEFS, markdown_table(_BELIEF_COLUMNS, known), ""]
    for domain in dict.fromkeys(row["domain"] for row in rows if "adaptation" not in row):
        chosen = [row for row in rows if row["domain"] == domain]
        parts += [f"## {domain}\n", _table(chosen), *(_details(row) for row in chosen), ""]
    return "\n".join(parts)


def _table(rows: Sequence[ScoreRow]) -> str:
    lines = []
    for row in rows:
        interval, others = row["return_sum"]["ci95"], row["others"]
        cells = (
            f"**{row['preset']}**" if row["headline"] else row["preset"],
            str(len(row["seeds"])),
            f"{row['return_sum']['mean']:.2f}",
            f"{row['return_sum']['iqm']:.2f}",
            f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "-",
            *(f"{others[name]:.2f}" if name in others else "-" for name in ("agent_best",)),
            ", ".join(f"{value:.2f}" for value in row["return_per_episode"]),
            "-" if row["success"] is None else f"{row['success']:.0%}",
            *(f"{others[name]:.2f}" if name in others else "-" for name in ("blind", "search")),
            "-" if row["oracle"] is None else f"{row['oracle']:.2f}",
            "-" if (alone := current_mean(row["preset"])) is None else f"{alone:.2f}",
        )
        lines.append(cells)
    return markdown_table(_COLUMNS, lines)


def _adaptation_table(rows: Sequence[ScoreRow]) -> str:
    lines = []
    for row in rows:
        found = row["adaptation"]
        agent, shown = found["agent"], found.get("agent_given_context")
        task_set = row["domain"].partition("/")[2]
        lines.append(
            (
                f"**{row['preset']}**" if row["headline"] else row["preset"],
                goal_of(row["domain"]),
                str(len(row["seeds"])),
                f"{agent['over_data']:.2f}",
                "-" if "agent_best" not in found else f"{found['agent_best']['over_data']:.2f}",
                "-" if shown is None else f"{shown['over_data']:.2f}",
                _PUBLISHED.get(task_set, "-"),
                f"{agent['over_expert']:.2f}",
                ", ".join(f"{value:.0f}" for value in row["return_per_episode"]),
                _shares(agent["success"]),
                "-" if shown is None else _shares(shown["success"]),
                *(
                    f"{found[name]['over_data']:.2f}" if name in found else "-"
                    for name in ("blind", "goal_blind")
                ),
            )
        )
    return markdown_table(_ADAPTATION_COLUMNS, lines)


def _belief_lines(
    rows: Sequence[ScoreRow], probes: Mapping[str, Mapping[str, Any]]
) -> list[Sequence[str]]:
    """A line a preset whose runs were all probed: means over its seeds, task sets with a secret."""
    lines: list[Sequence[str]] = []
    for row in rows:
        names = [run_name(preset_stem(row["preset"]), (), seed) for seed in row["seeds"]]
        found = [probes[name] for name in names if name in probes]
        if len(found) < len(names) or goal_of(row["domain"]) != "hidden":
            continue
        led, given = (
            [probe[name] for probe in found if probe[name] is not None]
            for name in ("copies", "given")
        )
        lines.append(
            (
                row["preset"],
                f"{np.mean([probe['spread'] for probe in found]):.1f}",
                f"{np.mean([probe['logs'] for probe in found]):.1f}",
                f"{np.mean(led):.1f}" if led else "-",
                f"{np.mean(given):.1f}" if given else "-",
                ", ".join(f"{x:.1f}" for x in _means(found, "own")),
                ", ".join(f"{x:+.2f}" for x in _means(found, "reward_bias")),
                f"{np.mean([probe['reward_deviation'] for probe in found]):.2f}",
            )
        )
    return lines


def _means(probes: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    means: list[float] = np.mean([probe[name] for probe in probes], axis=0).tolist()
    return means


def _shares(success: Sequence[float] | None) -> str:
    return "-" if success is None else ", ".join(f"{share:.0%}" for share in success)


def _kept(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Rows of results.json of domains that these have none of."""
    covered = {row["domain"] for row in rows}
    stored: list[ScoreRow] = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    return [row for row in stored if row["domain"] not in covered]


def _details(row: ScoreRow) -> str:
    protocol = ", ".join(f"{name} {value}" for name, value in row["protocol"].items())
    return f"- `{row['command']}`: {protocol}"


def main() -> int:
    """Write both files; says so, and which domains they cover."""
    store = Store(default_root())
    rows = rows_of_runs(store, [record for record in list_records(store) if is_current(record)])
    if not rows:
        sys.stderr.write(f"no complete runs of current presets in {store.root}: run some first\n")
        return 2
    if "--keep" in sys.argv[1:]:
        rows = sorted([*rows, *_kept(rows)], key=lambda row: row["domain"])
    text = json.dumps(rows, indent=2) + "\n"
    write_atomically(DOCS / "results.json", text.encode())
    write_atomically(DOCS / "results.md", markdown(rows).encode())
    sys.stdout.write(f"{len(rows)} rows of {sorted({row['domain'] for row in rows})}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
