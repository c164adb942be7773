"""Typed hyper-parameters of the update rules and of the belief's training (no torch imported)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from models.config import FrozenConfig, PositiveInt

Rule = Literal["dqn", "sac", "cql", "iql", "td3bc", "rebrac"]


class LearnerConfig(FrozenConfig):
    """One update rule and its hyper-parameters; a rule reads those that name it.

    One flat model rather than a union: changing the rule stays one line of YAML, and Prefect's
    form stays a form.
    """

    rule: Rule = Field("sac", description="which update rule")
    critic_layers: tuple[PositiveInt, ...] = Field((128, 128), description="hidden layers of Q, V")
    actor_layers: tuple[PositiveInt, ...] = Field((128, 128), description="hidden layers of pi")
    learning_rate: PositiveFloat = Field(3e-4, description="Adam, critics (and Q of dqn)")
    actor_learning_rate: PositiveFloat = Field(3e-4, description="Adam, actor")
    muon: PositiveFloat | None = Field(
        None,
        # left out where null: earlier agents keep their fingerprints
        exclude_if=lambda factor: factor is None,
        description="weight matrices move by Muon, at this multiple of the rates; by Adam if null",
    )
    discount: float = Field(0.99, ge=0, lt=1, description="gamma")
    polyak: float = Field(0.005, gt=0, le=1, description="target networks' rate, every update")
    gradient_clip: NonNegativeFloat = Field(0.0, description="largest gradient norm; 0 is off")

    temperature: PositiveFloat = Field(0.01, description="sac, cql: entropy temperature alpha")
    learn_temperature: bool = Field(False, description="sac, cql: tune alpha to target_entropy")
    target_entropy: float | None = Field(None, description="sac, cql: default -action_dim")

    cql_weight: NonNegativeFloat = Field(1.0, description="cql: weight of logsumexp Q - Q(s, a)")
    cql_actions: PositiveInt = Field(4, description="cql: sampled actions a proposal (3 proposals)")
    iql_expectile: float = Field(0.8, gt=0, lt=1, description="iql: tau of the expectile")
    iql_inverse_temperature: PositiveFloat = Field(3.0, description="iql: beta of exp(beta A)")
    iql_advantage_clip: PositiveFloat = Field(100.0, description="iql: largest exp(beta A)")
    td3bc_weight: NonNegativeFloat = Field(2.5, description="td3bc: lambda's alpha; 0 is cloning")
    rebrac_actor_weight: NonNegativeFloat = Field(0.01, description="rebrac: beta_1, actor's MSE")
    rebrac_critic_weight: NonNegativeFloat = Field(0.01, description="rebrac: beta_2, critic's MSE")
    policy_noise: NonNegativeFloat = Field(0.2, description="td3bc, rebrac: target smoothing")
    noise_clip: NonNegativeFloat = Field(0.5, description="td3bc, rebrac: its clip")
    policy_delay: PositiveInt = Field(
        2, description="td3bc, rebrac: updates of the critics for each update of the actor"
    )


class RelabellingConfig(FrozenConfig):
    """Reward relabelling (RR) inside the belief's training (BOReL, section 4)."""

    enabled: bool = Field(True, description="false leaves every trial its own rewards")
    fraction: float = Field(1.0, ge=0, le=1, description="share of a batch's trials relabelled")
    donors: Literal["other-tasks", "any-task"] = Field(
        "other-tasks", description="whose behaviour leads a relabelled trial"
    )
    whole_trials: float = Field(
        0.0, ge=0, le=1, description="share of relabelled trials whose every episode is the donor's"
    )
    until_success: bool = Field(
        False,
        description="in whole trials donors act up to the episode (or piece) of the first high "
        "reward, the task's own agent in later ones",
    )
    donors_after_success: float = Field(
        0.0,
        ge=0,
        le=1,
        # left out where 0: what was made before there was any keeps its fingerprint
        exclude_if=lambda share: share == 0,
        description="share of whole trials with until_success whose donors act on after the find: "
        "the own agent stays where the reward is, so its steps never show where the reward ends",
    )
    piece_steps: PositiveInt | None = Field(
        None,
        description="steps until another donor takes over; must divide the horizon; whole "
        "episodes if null",
    )
    piece_persistence: float = Field(
        0.0,
        ge=0,
        lt=1,
        exclude_if=lambda chance: chance == 0,
        description="chance that a piece's donor goes on in the next one, drawn for each trial "
        "between 0 and this: stays and journeys that last longer than a piece",
    )
    fruitless: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of whole trials whose donors, up to a slot drawn uniformly, are drawn "
        "again where they would find the high reward: long searches; needs task_averaging",
    )
    decoded_steps: PositiveInt | None = Field(
        None,
        description="steps drawn from all logs that every posterior of a trial decodes, under the "
        "trial's task; the trial's own steps if null",
    )
    task_averaging: bool = Field(
        False,
        description="learn from the mean over all training tasks that explain the rewards so far, "
        "not from the trial's own task alone: what posteriors decode, or an agent's targets",
    )

    @model_validator(mode="after")
    def _check(self) -> RelabellingConfig:
        for name in ("until_success", "fruitless"):
            if self.enabled and getattr(self, name) and not self.whole_trials:
                raise ValueError(f"{name} is about whole trials: set whole_trials above 0")
        if self.enabled and self.donors_after_success and not self.until_success:
            raise ValueError(
                "donors_after_success is a share of trials with until_success: set that to true"
            )
        if self.enabled and self.piece_persistence and self.piece_steps is None:
            raise ValueError("piece_persistence is about pieces: set piece_steps")
        if self.enabled and self.fruitless and not self.task_averaging:
            raise ValueError(
                "fruitless chooses by what a trial finds, which is right only where outcomes are "
                "averaged over tasks: set task_averaging to true, or fruitless to 0"
            )
        return self


class ElboConfig(FrozenConfig):
    """Weights of the ELBO; every term is a SUM over decoded steps and posteriors."""

    kl_weight: NonNegativeFloat = Field(0.05, description="weight of the KL chain")
    reward_weight: NonNegativeFloat = Field(1.0, description="weight of reward reconstruction")
    state_weight: NonNegativeFloat = Field(1.0, description="weight of state reconstruction")
    decoded_posteriors: PositiveInt | None = Field(
        None, description="posteriors a trial that decode it in an update, drawn; all if null"
    )
    block_pairs: PositiveInt = Field(
        16384, description="(posterior, step) pairs decoded at once; bounds the memory"
    )
