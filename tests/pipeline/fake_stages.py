"""Stages that take no time but keep every promise: same bytes, checkpoints, stops.

Run as a program it is `omrl` with these stages, for tests that kill whole processes.
`OMRL_FAKE_LOG` names a file that gets a line a call; `OMRL_FAKE_SLEEP` slows each chunk, seconds,
`OMRL_FAKE_LIMIT` is the size in bytes of the largest file that can be written.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets.files import fail_point, write_atomically
from stages.context import Interrupted, StageContext

CHUNKS = 4
TASKS = 3
EPISODES = 2


def fake_stage(function: str) -> Callable[..., None]:
    """A stand-in for `module:function`, as `pipeline.run.load_stage` would return."""
    name = function.partition(":")[2]

    def stage(
        config: Any, seed: int, inputs: Mapping[str, Path], output: Path, context: StageContext
    ) -> None:
        _log(name)
        recipe = [name, config.model_dump(mode="json"), seed, _contents(inputs)]
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        cursor = context.checkpoints / "cursor"
        for chunk in range(int(cursor.read_text()) if cursor.exists() else 0, CHUNKS):
            if context.interrupted:
                raise Interrupted(f"{name} stopped at chunk {chunk}")
            _log(f"{name} chunk {chunk}")
            time.sleep(float(os.environ.get("OMRL_FAKE_SLEEP", "0")))
            fail_point(f"{name}-mid")
            write_atomically(cursor, str(chunk + 1).encode())
        (output / "parts").mkdir()
        for chunk in range(CHUNKS):
            (output / "parts" / f"{chunk}.txt").write_text(f"{digest} {chunk}\n" * 50)
        if name == "evaluate":
            (output / "scores.json").write_text(json.dumps(fake_scores(int(digest[:6], 16))))

    return stage


def fake_scores(seed: int) -> dict[str, Any]:
    """A scores file with returns that depend on `seed`."""
    returns = [
        [(seed * (task + 3) % 101) / 10 + k for k in range(EPISODES)] for task in range(TASKS)
    ]
    return {
        "domain": "gridworld",
        "protocol": {
            "task_count": TASKS,
            "start": "origin",
            "episodes": EPISODES,
            "horizon": 15,
            "policy": "deterministic",
            "test_tasks_seen": True,
            "checkpoint": "final",
        },
        "tasks": [[float(task)] for task in range(TASKS)],
        "returns": {
            "agent": returns,
            "agent_best": returns,
            "oracle": [[11.0] * EPISODES] * TASKS,
            "blind": [[0.0] * EPISODES] * TASKS,
        },
        "success": {"agent": [1, 0, 1]},
    }


def _contents(inputs: Mapping[str, Path]) -> dict[str, str]:
    return {name: (path / "parts" / "0.txt").read_text() for name, path in inputs.items()}


def _log(line: str) -> None:
    if path := os.environ.get("OMRL_FAKE_LOG"):
        with Path(path).open("a") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    import pipeline.run
    from pipeline.cli import main

    pipeline.run.load_stage = fake_stage
    if limit := os.environ.get("OMRL_FAKE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    raise SystemExit(main())
