"""Typed sizes and switches of the belief encoder and its decoders (no torch imported here)."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

LARGEST = 2**31 - 1


def _bounded(count: int) -> int:
    """A count that no library mistakes for a negative one; the memory gives out long before."""
    if count > LARGEST:
        raise PydanticCustomError("too_large", f"Input should be at most {LARGEST}")
    return count


PositiveInt: TypeAlias = Annotated[pydantic.PositiveInt, AfterValidator(_bounded)]
NonNegativeInt: TypeAlias = Annotated[pydantic.NonNegativeInt, AfterValidator(_bounded)]
Likelihood = Literal["bernoulli-per-cell", "bernoulli", "squared-error"]
DecoderInput = Literal["action", "observation", "next_observation"]


class FrozenConfig(BaseModel):
    """A configuration: immutable, unknown keys refused, NaN and Inf refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderConfig(FrozenConfig):
    """The belief filter q(m | (a, r, s')_{1..i}): embeddings, GRU, two linear heads."""

    latent_dim: PositiveInt = Field(5, description="L, size of the task latent m")
    gru_size: PositiveInt = Field(128, description="width of the recurrent state")
    action_embedding: NonNegativeInt = Field(16, description="0 leaves the action out")
    observation_embedding: PositiveInt = Field(32, description="embedding of s'")
    embedding_layers: PositiveInt = Field(
        1, description="layers of the embeddings of s and s'; two can tell places apart"
    )
    reward_embedding: PositiveInt = Field(16, description="embedding of r")
    sees_observation: bool = Field(
        False,
        description="also embed s, which tells the dynamics of an episode's first step",
    )


class RewardDecoderConfig(FrozenConfig):
    """p(r | m, ...): one output a cell, or one for the transition given."""

    enabled: bool = Field(True, description="whether rewards are reconstructed")
    layers: tuple[PositiveInt, ...] = Field((32, 32), min_length=1, description="hidden layers")
    likelihood: Likelihood = Field(
        "squared-error", description="how a reward is distributed given m"
    )
    inputs: tuple[DecoderInput, ...] = Field(
        ("next_observation",), description="beside m; ignored by bernoulli-per-cell"
    )
    product_features: PositiveInt | None = Field(
        None,
        description="a pair is decoded by the inner product of so many features of m and of the "
        "transition, each from a network of its own; by one network of both if null",
    )


class StateDecoderConfig(FrozenConfig):
    """p(s' | m, s, a), squared error; for families whose tasks differ in dynamics."""

    enabled: bool = Field(False, description="whether next observations are reconstructed")
    layers: tuple[PositiveInt, ...] = Field((32, 32), min_length=1, description="hidden layers")


class VaeModelConfig(FrozenConfig):
    """The belief encoder with its decoders."""

    encoder: EncoderConfig = EncoderConfig()
    reward_decoder: RewardDecoderConfig = RewardDecoderConfig()
    state_decoder: StateDecoderConfig = StateDecoderConfig()
    normalise: bool = Field(
        False,
        # left out where false: earlier models keep their fingerprints
        exclude_if=lambda wanted: not wanted,
        description="scale observations and rewards that networks are given by the data's mean and "
        "deviation; what is decoded stays as it is",
    )

    @model_validator(mode="after")
    def _decoders_have_inputs(self) -> Self:
        reward = self.reward_decoder
        scalar = reward.enabled and reward.likelihood != "bernoulli-per-cell"
        if scalar and not reward.inputs:
            raise ValueError("reward_decoder.inputs is empty: name at least next_observation")
        sees_action = (scalar and "action" in reward.inputs) or self.state_decoder.enabled
        if sees_action and self.encoder.action_embedding == 0:
            raise ValueError(
                "a decoder sees the action, but encoder.action_embedding is 0: give it a width"
            )
        if not (reward.enabled or self.state_decoder.enabled):
            raise ValueError("no decoder is enabled: nothing would train the belief")
        return self
