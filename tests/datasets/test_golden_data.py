"""Files of every released format version must still load, number for number.

The files lie in `golden/v<version>/`. A new format version gets a new folder, never a change to an
old one: raise the versions in the package, then run

    python tests/datasets/test_golden_data.py

which writes the current version's folder if it is not there, and commit it.
"""

from pathlib import Path

import numpy as np
import pytest

from datasets import hyper_states
from datasets.checkpoints import load_tensors, save_tensors
from datasets.collection_meta import FORMAT_VERSION, CollectionMeta
from datasets.hyper_state_layout import HyperStateLayout
from datasets.hyper_states import HyperStates, HyperStateWriter
from datasets.trial_store import read_meta, read_trials, write_meta, write_trials
from datasets.trials import Trials

GOLDEN = Path(__file__).parent / "golden"
LAYOUT = HyperStateLayout(2, 3, 2, 3, 2, 1, 1, n_actions=5, belief_rewards=True)


def ramp(*shape: int) -> np.ndarray:
    """Numbers that need no generator: k / 7, wrapped into [-1, 1]."""
    return (np.arange(np.prod(shape)).reshape(shape) / 7 % 2 - 1).astype(np.float32)


def golden_trials() -> Trials:
    ends = np.zeros((3, 2, 3), bool)
    ends[:, :, -1] = True
    return Trials(
        ramp(3, 2, 4, 2), np.arange(18).reshape(3, 2, 3, 1) % 5, ramp(3, 2, 3), np.zeros_like(ends),
        ends, {"qpos": ramp(3, 2, 3, 2).astype(np.float64)},
    )  # fmt: skip


def golden_meta() -> CollectionMeta:
    return CollectionMeta(
        "gridworld", np.array([[0.1, 1 / 3]]), np.array([[2.0, 3.0]]), "origin", "dqn",
        episodes=2, horizon=3, observation_dim=2, action_dim=1, n_actions=5, details={"a": [1]},
    )  # fmt: skip


def golden_fields(task: int) -> dict[str, np.ndarray]:
    fields: dict[str, np.ndarray] = {}
    for name, field in LAYOUT.fields().items():
        values = ramp(*field.shape[1:]) * (1 - task / 2)
        fields[name] = np.abs(values * 4).astype(field.dtype) if name == "actions" else values
        fields[name] = fields[name].astype(field.dtype)
    return fields


def write(folder: Path) -> None:
    (folder / "trials").mkdir(parents=True)
    write_meta(folder / "trials", golden_meta())
    write_trials(folder / "trials", golden_meta(), 0, golden_trials())
    with HyperStateWriter(folder / "hyper_states.zarr", LAYOUT) as writer:
        for task in range(2):
            writer.write_task(task, golden_fields(task))
    save_tensors(folder / "agent.safetensors", {"w": ramp(2, 3)}, {"step": 7})


@pytest.fixture(params=sorted(folder.name for folder in GOLDEN.glob("v*")))
def folder(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / request.param


def test_trials_still_load(folder: Path) -> None:
    assert read_meta(folder / "trials").to_json() == golden_meta().to_json()
    found = read_trials(folder / "trials", 0)
    for name, array in golden_trials().arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_hyper_states_still_load(folder: Path) -> None:
    store = HyperStates.open(folder / "hyper_states.zarr")
    assert store.layout == LAYOUT
    for task in range(2):
        found = store.read(store.names, task)
        for name, array in golden_fields(task).items():
            np.testing.assert_array_equal(found[name], array)


def test_tensors_still_load(folder: Path) -> None:
    arrays, meta = load_tensors(folder / "agent.safetensors")
    np.testing.assert_array_equal(arrays["w"], ramp(2, 3))
    assert meta == {"step": 7}


def test_the_current_version_has_its_folder() -> None:
    assert hyper_states.FORMAT_VERSION == FORMAT_VERSION
    assert (GOLDEN / f"v{FORMAT_VERSION}").is_dir()


if __name__ == "__main__" and not (GOLDEN / f"v{FORMAT_VERSION}").exists():
    write(GOLDEN / f"v{FORMAT_VERSION}")
