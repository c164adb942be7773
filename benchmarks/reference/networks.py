"""Our networks' weights as torch's own layers: one `nn.Linear` a layer and member, one `nn.GRU`."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.belief import BeliefEncoder
from models.inputs import InputEmbedding, action_features
from models.mlp import EnsembleMLP


def linear_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with copies of weight (outputs, inputs) and bias (outputs,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def mlp_of(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Layers with ReLUs in between."""
    first, *rest = layers
    return nn.Sequential(first, *(part for layer in rest for part in (nn.ReLU(), layer)))


def member_of(network: EnsembleMLP, member: int) -> nn.Sequential:
    """One member of a batched network as a network of its own."""
    if network.layer_norm:
        raise ValueError("the published networks are not normalised")
    pairs = zip(network.weights, network.biases, strict=True)
    return mlp_of(linear_of(weight[member].T, bias[member, 0]) for weight, bias in pairs)


def embeddings_of(embedding: InputEmbedding) -> nn.ModuleDict:
    """A copy of the one-layer embeddings, by the name of what they embed, in order."""
    layers = copy.deepcopy(embedding.layers)
    if not all(isinstance(layer, nn.Linear) for layer in layers.values()):
        raise ValueError("the published embeddings have one layer")
    return layers


class PlainEncoder(nn.Module):
    """Embeddings, a GRU and two heads; beliefs are mean and log-variance, 2L."""

    def __init__(self, encoder: BeliefEncoder) -> None:
        """Copies the weights of ours.

        Raises:
            ValueError: the encoder is not of the published kind.
        """
        super().__init__()
        if encoder.sees_observation:
            raise ValueError("the published encoder does not see s")
        self.n_actions = encoder.n_actions
        self.embeddings = embeddings_of(encoder.embedding)
        self.gru = copy.deepcopy(encoder.gru)
        weights, biases = encoder.heads.weight.chunk(2), encoder.heads.bias.chunk(2)
        self.mean, self.log_variance = (
            linear_of(weight, bias) for weight, bias in zip(weights, biases, strict=True)
        )

    def prior(self, batch: int) -> tuple[Tensor, Tensor]:
        """The belief (batch, 2L) before any step, and the hidden state (1, batch, G)."""
        hidden = self.mean.weight.new_zeros(1, batch, self.gru.hidden_size)
        return self._beliefs(hidden[0]), hidden

    def forward(
        self, actions: Tensor, rewards: Tensor, next_observations: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Beliefs (B, T, 2L) after each of T more steps, and the hidden state (1, B, G).

        actions (B, T, act), rewards (B, T), next_observations (B, T, obs), hidden (1, B, G).
        """
        inputs = {
            "action": action_features(actions, self.n_actions, rewards.dtype),
            "next_observation": next_observations,
            "reward": rewards.unsqueeze(-1),
        }
        embedded = [torch.relu(layer(inputs[name])) for name, layer in self.embeddings.items()]
        outputs, hidden = self.gru(torch.cat(embedded, -1), hidden)
        return self._beliefs(outputs), hidden

    def whole_trials(self, actions: Tensor, rewards: Tensor, next_observations: Tensor) -> Tensor:
        """Beliefs (B, T + 1, 2L) of whole trials, the prior first."""
        prior, hidden = self.prior(len(rewards))
        beliefs, _ = self(actions, rewards, next_observations, hidden)
        return torch.cat([prior.unsqueeze(1), beliefs], 1)

    def _beliefs(self, hidden: Tensor) -> Tensor:
        return torch.cat([self.mean(hidden), self.log_variance(hidden)], -1)
