"""Random trials of a tiny family, an untrained belief encoder, and their hyper-states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from algorithms.vae_files import describe, save_vae
from environments.registry import load_family
from models.config import VaeModelConfig
from stages.collect import collect
from stages.config import CollectConfig, RelabelConfig
from stages.context import StageContext
from stages.relabel import relabel

LATENT_DIM = 8


def make_inputs(folder: Path, domain: str, trials: int, **tasks: Any) -> dict[str, Path]:
    """Folders by name, as stages take their inputs."""
    config = CollectConfig.model_validate(
        {
            "domain": domain,
            "behaviour": "random",
            "tasks": tasks,
            "random_trials": trials,
            "iterations": 0,
            "start": "origin",
        }
    )
    inputs = {name: folder / name for name in ("trials", "vae", "hyper-states")}
    for path in inputs.values():
        path.mkdir(parents=True)
    context = StageContext(folder / "checkpoints", threads=1, workers=1, quiet=True)
    collect(config, 1, {}, inputs["trials"], context)
    save_untrained(inputs["vae"], domain)
    relabel(RelabelConfig(), 1, inputs, inputs["hyper-states"], context)
    return inputs


def save_untrained(folder: Path, domain: str, latent_dim: int = LATENT_DIM) -> None:
    """An encoder whose random features of the history stand for a belief."""
    spec = load_family(domain).spec
    model = VaeModelConfig.model_validate({"encoder": {"gru_size": 16, "latent_dim": latent_dim}})
    description = describe(model, domain, spec, spec.episodes, spec.horizon)
    vae = description.build(torch.Generator().manual_seed(0))
    for parameter in vae.encoder.parameters():
        parameter.data.mul_(2.0)
    save_vae(folder, vae, description)
