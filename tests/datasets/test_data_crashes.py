"""kill -9 while data are written: what was whole before stays whole, what was not is not readable.

Each case runs the writer in a process of its own, which kills itself at a named point
(`OMRL_FAIL`, see `datasets.files.fail_point`) or is killed from outside at a random moment.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.checkpoints import CheckpointFile
from datasets.errors import DataError
from datasets.files import digest_tree, list_files, sweep_temporaries
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates
from datasets.trial_store import missing_tasks, read_trials, write_meta

CHECKPOINTS = """
import sys
from pathlib import Path
import numpy as np
from datasets.checkpoints import CheckpointFile

checkpoint = CheckpointFile(Path(sys.argv[1]))
found = checkpoint.load()
start = 0 if found is None else found[1]["step"]
for step in range(start + 1, 6):
    checkpoint.save({"weights": np.full(1000, step)}, {"step": step})
"""

TRIALS = """
import sys
from pathlib import Path
import numpy as np
from datasets.trial_store import missing_tasks, read_meta, write_trials
from datasets.trials import Trials

folder = Path(sys.argv[1])
meta = read_meta(folder)
for task in missing_tasks(folder, meta):
    each = (3, meta.episodes, meta.horizon)
    rng = np.random.default_rng(task)
    write_trials(folder, meta, task, Trials(
        rng.normal(size=(3, meta.episodes, meta.horizon + 1, 3)).astype("f4"),
        rng.uniform(-1, 1, (*each, 2)).astype("f4"),
        rng.normal(size=each).astype("f4"), np.zeros(each, bool), np.zeros(each, bool)))
"""

HYPER_STATES = """
import sys
from pathlib import Path
import numpy as np
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStateWriter

layout = HyperStateLayout(3, 4, 2, 3, 2, 1, 2)
with HyperStateWriter(Path(sys.argv[1]), layout) as writer:
    for task in range(3):
        rng = np.random.default_rng(task)
        writer.write_task(task, {
            name: rng.random(field.shape[1:]).astype(field.dtype)
            for name, field in layout.fields().items()})
"""


def run(script: str, path: Path, fail: str = "") -> int:
    environment = {**os.environ, "OMRL_FAIL": fail}
    return subprocess.run(
        [sys.executable, "-c", script, str(path)], env=environment, check=False
    ).returncode


@pytest.mark.parametrize(
    ("point", "newest"),
    [
        ("checkpoint-before:3", 2),
        ("file-written:3", 2),
        ("checkpoint-written:3", 2),
        ("checkpoint-moved:2", 2),
        ("checkpoint-renamed:3", 3),
    ],
)
def test_a_checkpoint_survives_and_the_run_goes_on(tmp_path: Path, point: str, newest: int) -> None:
    path = tmp_path / "c.safetensors"
    assert run(CHECKPOINTS, path, point) == -signal.SIGKILL
    found = CheckpointFile(path).load()
    assert found is not None
    assert found[1] == {"step": newest}
    np.testing.assert_array_equal(found[0]["weights"], newest)
    assert {name.removesuffix(".previous") for name in list_files(tmp_path)} == {"c.safetensors"}

    assert run(CHECKPOINTS, path) == 0
    assert run(CHECKPOINTS, tmp_path / "straight") == 0
    assert path.read_bytes() == (tmp_path / "straight").read_bytes()


@pytest.mark.parametrize(
    ("point", "whole"), [("trials-before:2", 1), ("file-written:2", 1), ("trials-written:2", 2)]
)
def test_whole_tasks_survive_and_only_the_missing_are_written(
    tmp_path: Path, make_trials: Any, make_meta: Any, point: str, whole: int
) -> None:
    meta = make_meta(make_trials())
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    for folder in (killed, straight):
        folder.mkdir()
        write_meta(folder, meta)
    assert run(TRIALS, killed, point) == -signal.SIGKILL
    assert missing_tasks(killed, meta) == list(range(whole, 3))
    for task in range(whole):
        read_trials(killed, task)
    sweep_temporaries(killed)

    assert run(TRIALS, killed) == 0
    assert run(TRIALS, straight) == 0
    assert digest_tree(killed) == digest_tree(straight)


@pytest.mark.parametrize(
    "point",
    [
        "hyper-states-before:1",
        "hyper-states-before:3",
        "hyper-states-field:2",
        "hyper-states-field:15",
        "hyper-states-close",
    ],
)
def test_a_store_killed_before_it_was_sealed_does_not_open(tmp_path: Path, point: str) -> None:
    assert run(HYPER_STATES, tmp_path / "x.zarr", point) == -signal.SIGKILL
    with pytest.raises(DataError, match="never finished"):
        HyperStates.open(tmp_path / "x.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_moment_nothing_half_is_read(tmp_path: Path, seed: int) -> None:
    moment = random.Random(seed).uniform(0, 1.5)
    loop = HYPER_STATES + "\nprint('sealed', flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", loop, str(tmp_path / "x.zarr")], stdout=subprocess.PIPE, text=True
    )
    time.sleep(moment)
    process.kill()
    sealed = "sealed" in process.communicate()[0]
    try:
        HyperStates.open(tmp_path / "x.zarr").load()
    except DataError:
        assert not sealed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_moment_a_checkpoint_stays(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "c"
    CheckpointFile(path).save({"weights": np.full(1000, 0)}, {"step": 0})
    endless = CHECKPOINTS.replace("6)", "10**9)")
    process = subprocess.Popen([sys.executable, "-c", endless, str(path)])
    time.sleep(random.Random(seed).uniform(0.2, 1))
    process.kill()
    process.wait()
    found = CheckpointFile(path).load()
    assert found is not None
    np.testing.assert_array_equal(found[0]["weights"], found[1]["step"])


def test_a_layout_is_what_the_script_says(tmp_path: Path) -> None:
    assert run(HYPER_STATES, tmp_path / "x.zarr") == 0
    assert HyperStates.open(tmp_path / "x.zarr").layout == HyperStateLayout(3, 4, 2, 3, 2, 1, 2)
