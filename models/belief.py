"""The belief filter q(m | (a, r, s')_{1..i}) of VariBAD (Zintgraf et al., 2020) and BOReL (2021).

Beliefs are the mean and the log-variance of a diagonal Gaussian over the task latent m. The prior
b_0 is learned: the heads at zero hidden state. The hidden state is never reset inside a trial.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import EncoderConfig
from models.inputs import InputEmbedding, action_features
from models.layers import gru, linear
from models.recurrence import run_gru


class BeliefEncoder(nn.Module):
    """Embeddings of a, s', r (and s), a GRU, linear heads for mean and log-variance (2L)."""

    def __init__(
        self,
        config: EncoderConfig,
        observation_dim: int,
        action_dim: int,
        n_actions: int | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.sees_observation = config.sees_observation
        self.latent_dim = config.latent_dim
        self.embedding = InputEmbedding(
            _embedding_sizes(config, observation_dim, n_actions or action_dim),
            generator,
            config.embedding_layers,
        )
        self.gru = gru(self.embedding.width, config.gru_size, generator)
        self.heads = linear(config.gru_size, 2 * config.latent_dim, generator)

    @property
    def belief_dim(self) -> int:
        """2L: the mean, then the log-variance."""
        return 2 * self.latent_dim

    def forward(
        self,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        observations: Tensor | None = None,
    ) -> Tensor:
        """Beliefs b_0 .. b_T of whole trials, in one recurrent pass.

        actions (B, T, act), rewards (B, T), next_observations and observations (B, T, obs); the
        last are needed where the encoder `sees_observation`, ignored otherwise. Returns
        (B, T + 1, 2L), the learned prior first.
        """
        hidden = self.hidden_states(actions, rewards, next_observations, observations)
        beliefs: Tensor = self.heads(hidden)
        return beliefs

    def hidden_states(
        self,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        observations: Tensor | None = None,
    ) -> Tensor:
        """What the beliefs of whole trials are read from, (B, T + 1, G), zero first."""
        inputs = self.inputs(actions, rewards, next_observations, observations)
        return run_gru(self.gru, self.embedding(inputs))

    def initial(self, batch: int) -> tuple[Tensor, Tensor]:
        """The prior (batch, 2L) and the zero hidden state (batch, G)."""
        hidden = self.heads.weight.new_zeros(batch, self.gru.hidden_size)
        return self.heads(hidden), hidden

    def step(
        self,
        hidden: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        observation: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The belief (B, 2L) and hidden state (B, G) after one more transition.

        hidden (B, G), action (B, act), reward (B,), next_observation and observation (B, obs).
        """
        features = self.embedding(self.inputs(action, reward, next_observation, observation))
        # A whole GRU over one step would cost three times as much as the cell.
        hidden = torch.gru_cell(features, hidden, *self.gru.parameters())
        return self.heads(hidden), hidden

    def inputs(
        self,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        observations: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What is embedded, (..., width) each, by the names of `embedding`.

        Shapes as for `forward` or `step`.

        Raises:
            ValueError: there are no observations, and the encoder sees them.
        """
        if self.sees_observation and observations is None:
            raise ValueError("this encoder sees the observation s: give `observations` as well")
        inputs = {
            "action": action_features(actions, self.n_actions, rewards.dtype),
            "next_observation": next_observations,
            "reward": rewards[..., None],
        }
        if observations is not None:
            inputs["observation"] = observations
        return inputs


def _embedding_sizes(
    config: EncoderConfig, observation_dim: int, action_width: int
) -> dict[str, tuple[int, int]]:
    sizes = {
        "action": (action_width, config.action_embedding),
        "next_observation": (observation_dim, config.observation_embedding),
        "reward": (1, config.reward_embedding),
    }
    if config.sees_observation:
        sizes["observation"] = (observation_dim, config.observation_embedding)
    return {name: size for name, size in sizes.items() if size[1] > 0}
