"""Typed sizes and switches of the belief encoder and its decoders (no torch imported here)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Likelihood = Literal["bernoulli-per-cell", "bernoulli", "squared-error"]
DecoderInput = Literal["action", "observation", "next_observation"]


class FrozenConfig(BaseModel):
    """A configuration: immutable, unknown keys refused, NaN and Inf refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderConfig(FrozenConfig):
    """The belief filter q(m | (a, r, s')_{1..i}): embeddings, GRU, two linear heads."""

    latent_dim: PositiveInt = Field(5, description="L, size of the task latent m")
    gru_size: PositiveInt = Field(128, description="width of the recurrent state")
    action_embedding: int = Field(16, ge=0, description="0 leaves the action out")
    observation_embedding: PositiveInt = Field(32, description="embedding of s'")
    reward_embedding: PositiveInt = Field(16, description="embedding of r")
    sees_observation: bool = Field(
        False,
        description="also embed s, which tells the dynamics of an episode's first step",
    )


class RewardDecoderConfig(FrozenConfig):
    """p(r | m, ...): one output a cell, or one for the transition given."""

    enabled: bool = True
    layers: tuple[PositiveInt, ...] = Field((32, 32), description="hidden layers")
    likelihood: Likelihood = "squared-error"
    inputs: tuple[DecoderInput, ...] = Field(
        ("next_observation",), description="beside m; ignored by bernoulli-per-cell"
    )


class StateDecoderConfig(FrozenConfig):
    """p(s' | m, s, a), squared error; for families whose tasks differ in dynamics."""

    enabled: bool = False
    layers: tuple[PositiveInt, ...] = Field((32, 32), description="hidden layers")


class VaeModelConfig(FrozenConfig):
    """The belief encoder with its decoders."""

    encoder: EncoderConfig = EncoderConfig()
    reward_decoder: RewardDecoderConfig = RewardDecoderConfig()
    state_decoder: StateDecoderConfig = StateDecoderConfig()
