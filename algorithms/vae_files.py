"""A trained belief model on disk: weights as safetensors, and a JSON description to rebuild it."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

from algorithms.errors import AlgorithmError
from datasets.checkpoints import load_tensors, save_tensors
from datasets.files import read_json, write_json
from environments.base import Spec
from models.config import FrozenConfig, VaeModelConfig
from models.vae import Vae

WEIGHTS, DESCRIPTION = "vae.safetensors", "vae.json"


class VaeDescription(FrozenConfig):
    """What a model was built for."""

    model: VaeModelConfig
    family: str
    observation_dim: int
    action_dim: int
    n_actions: int | None
    cells: int | None
    binary_reward: tuple[float, float] | None
    episodes: int  # K of the trials trained on
    horizon: int  # H

    def build(self, generator: torch.Generator | None = None) -> Vae:
        """A model with initial weights from the generator."""
        return Vae(
            self.model,
            self.observation_dim,
            self.action_dim,
            self.n_actions,
            self.cells,
            generator,
        )


def describe(
    model: VaeModelConfig, family: str, spec: Spec, episodes: int, horizon: int
) -> VaeDescription:
    """The description of a model for trials of a family, loaded under the name `family`."""
    return VaeDescription(
        model=model,
        family=family,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        n_actions=spec.n_actions,
        cells=spec.cells,
        binary_reward=spec.binary_reward,
        episodes=episodes,
        horizon=horizon,
    )


def save_vae(folder: Path, vae: Vae, description: VaeDescription) -> None:
    """Write vae.safetensors and vae.json into the folder."""
    weights = {name: tensor.cpu().numpy() for name, tensor in vae.state_dict().items()}
    save_tensors(folder / WEIGHTS, weights, {})
    write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def load_description(folder: Path) -> VaeDescription:
    """What the model in a folder was built for.

    Raises:
        AlgorithmError: the description does not have the fields of one.
        DataError: the file is missing or damaged.
    """
    try:
        return VaeDescription.model_validate(read_json(folder / DESCRIPTION))
    except ValidationError as error:
        raise AlgorithmError(
            f"{folder / DESCRIPTION} is not a model's description: {error}"
        ) from error


def load_vae(folder: Path, device: torch.device | str = "cpu") -> Vae:
    """The model in a folder, in evaluation mode and without gradients.

    Raises:
        AlgorithmError: the weights do not fit the description.
        DataError: a file is missing or damaged.
    """
    description = load_description(folder)
    arrays, _ = load_tensors(folder / WEIGHTS)
    vae = description.build()
    try:
        vae.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except RuntimeError as error:
        raise AlgorithmError(
            f"{folder / WEIGHTS} does not fit {folder / DESCRIPTION}: {error}"
        ) from error
    return vae.to(device).eval().requires_grad_(False)
