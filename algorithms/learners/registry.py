"""The update rules by name."""

from __future__ import annotations

import torch

from algorithms.config import LearnerConfig
from algorithms.errors import AlgorithmError
from algorithms.learners.base import Learner, Sizes
from algorithms.learners.cql import CQL, DiscreteCQL
from algorithms.learners.dqn import DQN
from algorithms.learners.iql import IQL
from algorithms.learners.rebrac import ReBRAC
from algorithms.learners.sac import SAC
from algorithms.learners.td3bc import TD3BC

CONTINUOUS: dict[str, type[Learner]] = {
    "sac": SAC,
    "cql": CQL,
    "iql": IQL,
    "td3bc": TD3BC,
    "rebrac": ReBRAC,
}
DISCRETE: dict[str, type[Learner]] = {"dqn": DQN, "cql": DiscreteCQL}


def make_learner(
    config: LearnerConfig,
    state_dim: int,
    action_dim: int,
    n_actions: int | None = None,
    *,
    agents: int = 1,
    seed: int,
    device: torch.device | str = "cpu",
) -> Learner:
    """Build the learner that `config.rule` names.

    Args:
        config: the rule and its hyper-parameters.
        state_dim: width of a state (of a hyper-state: observation and belief).
        action_dim: width of a continuous action.
        n_actions: number of discrete actions; None for continuous ones in [-1, 1]^action_dim.
        agents: independent agents trained side by side, A.
        seed: of the initial weights and of all noise, in [0, 2^63).
        device: where the weights live and batches are expected.

    Raises:
        AlgorithmError: if the rule does not fit the kind of actions.
    """
    rules, kind = (CONTINUOUS, "continuous") if n_actions is None else (DISCRETE, "discrete")
    if config.rule not in rules:
        raise AlgorithmError(
            f"learner.rule is {config.rule!r}, but actions are {kind}: use one of {sorted(rules)}"
        )
    sizes = Sizes(state_dim, action_dim, n_actions, agents)
    return rules[config.rule](config, sizes, seed=seed, device=device)
