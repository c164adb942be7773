"""Typed configuration of every stage: what a YAML preset fills and a fingerprint covers.

No torch here: the command line reads these to check a file, and Prefect to draw its form.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from algorithms.config import ElboConfig, LearnerConfig, RelabellingConfig
from environments.registry import canonical_domain
from models.config import FrozenConfig, NonNegativeInt, PositiveInt, VaeModelConfig

if TYPE_CHECKING:
    from environments.base import Spec


class TasksConfig(FrozenConfig):
    """Which tasks are trained on and which are held out."""

    train: PositiveInt = Field(80, description="tasks with logs")
    test: PositiveInt = Field(20, description="tasks to evaluate on")
    seed: NonNegativeInt = Field(
        73, description="draws the tasks; apart from the run's seed, so seeds share their tasks"
    )
    test_tasks_seen: bool = Field(
        False, description="finite families: evaluate on the training tasks themselves"
    )
    split: str | None = Field(
        None,
        # left out where null: earlier collections keep their fingerprints
        exclude_if=lambda name: name is None,
        description="a split that the field compares on, such as ml1 or idaq, of which the first "
        "`train` and `test` tasks are taken; drawn from the seed if null",
    )

    def misfit(self, family: str, known: Sized | None) -> str | None:
        """Why a family of these tasks (None: a continuum) cannot have these counts, if so."""
        if self.split is not None and self.test_tasks_seen:
            return "sets test_tasks_seen, but a split says what is tested: leave one of them out"
        if known is None:
            text = (
                f"sets test_tasks_seen, but {family} has infinitely many tasks, so its test tasks"
            )
            return f"{text} are drawn apart: set it to false" if self.test_tasks_seen else None
        if self.test_tasks_seen and self.test > self.train:
            text = f"asks for {self.test} test tasks, but test_tasks_seen evaluates on the training"
            return f"{text} tasks, of which there are {self.train}: lower test"
        needed = self.train if self.test_tasks_seen else self.train + self.test
        if needed > len(known):
            return f"asks for {needed} tasks, but {family} has {len(known)}"
        return None


class CollectConfig(FrozenConfig):
    """One ordinary agent a task learns its own task; all of its experience is the data set."""

    domain: Annotated[str, AfterValidator(canonical_domain)] = Field(
        description="a task family's name, or module:Class"
    )
    imported: str | None = Field(
        None,
        # left out where null: collections keep their fingerprints
        exclude_if=lambda name: name is None,
        min_length=1,
        description="name of trials from `omrl import` that a run begins with; of the settings "
        "here only the domain counts then; collected if null",
    )
    tasks: TasksConfig = TasksConfig()
    behaviour: Literal["learner", "scripted", "random", "policy"] = Field(
        "learner", description="how the logs' actions are chosen"
    )
    policy: str | None = Field(
        None,
        exclude_if=lambda name: name is None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="policy: your own `module:function`, which gives actions (n, act) for "
        "observations (n, obs), tasks (n, task) and a NumPy generator",
    )
    start: Literal["origin", "wide"] = Field("wide", description="start distribution of the logs")
    episodes: PositiveInt | None = Field(None, description="K a trial; the family's own if null")
    random_trials: NonNegativeInt = Field(50, description="trials of random actions, first")
    random_hold: PositiveInt = Field(
        1, description="steps a random action is held; more of them travel further"
    )
    iterations: NonNegativeInt = Field(300, description="rounds of collection and learning")
    trials_per_iteration: PositiveInt = Field(2, description="trials a task a round")
    updates_per_iteration: NonNegativeInt = Field(500, description="gradient steps a task a round")
    batch_size: PositiveInt = Field(256, description="transitions a task a gradient step")
    shared_experience: float = Field(
        0.0,
        ge=0,
        le=1,
        # left out where 0: earlier collections keep their fingerprints
        exclude_if=lambda share: share == 0,
        description="share of an agent's batch that is drawn from all tasks of its group, under "
        "its own task's reward: agents learn to move from each other, and act in their own task",
    )
    learner: LearnerConfig = LearnerConfig(critic_layers=(32, 32), actor_layers=(32, 32))
    epsilon_decay: PositiveInt = Field(50, description="dqn: rounds from random to greedy")
    epsilon_end: float = Field(0.0, ge=0, le=1, description="dqn: exploration at the end")
    scripted_noise: NonNegativeFloat | tuple[NonNegativeFloat, ...] = Field(
        0.3,
        description="scripted: sd of the action noise; of several, every episode draws its own",
    )
    policy_replaying: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of rounds' trials whose first half another task's agent acts",
    )
    replaying_steps: PositiveInt | None = Field(
        None,
        # left out where null: earlier collections keep their fingerprints
        exclude_if=lambda steps: steps is None,
        description="in replayed trials the task's own agent and others take turns, drawn anew "
        "every so many steps; must divide the horizon; another acts the first half if null",
    )
    group_size: PositiveInt = Field(
        20, description="tasks trained as one batched network; groups spread over workers"
    )

    def sharing_misfit(self, spec: Spec) -> str | None:
        """Why agents of such a family cannot learn from each other's experience, if so."""
        if not self.shared_experience:
            return None
        if spec.tasks_differ_in == "dynamics":
            return f"is set, but tasks of {spec.name} differ in dynamics: set it to 0"
        if spec.infos:
            return f"is set, but rewards of {spec.name} need simulator states: set it to 0"
        return None


class DonorsConfig(FrozenConfig):
    """Donor episodes whose rewards under other tasks are recomputed in advance.

    Only for families whose exact rewards need simulator states.
    """

    episodes: PositiveInt = Field(48, description="donor episodes a task, spread over the others")
    after_contact: Literal["keep", "drop"] = Field(
        "keep",
        description="families whose goal is a solid body: drop leaves out donors' steps from the "
        "touch on, which could not have been those of the other task, in whole episodes or, where "
        "they are cut, pieces; the task's own stand where no donor is left",
    )


class VaeConfig(FrozenConfig):
    """Training of the belief encoder (VAE)."""

    model: VaeModelConfig = VaeModelConfig()
    elbo: ElboConfig = ElboConfig()
    relabelling: RelabellingConfig = RelabellingConfig()
    learning_rate: PositiveFloat = Field(3e-4, description="Adam, encoder and decoders together")
    muon: PositiveFloat | None = Field(
        None,
        # left out where null: earlier models keep their fingerprints
        exclude_if=lambda factor: factor is None,
        description="weight matrices move by Muon, at this multiple of the learning rate, which "
        "learns in a third of the updates what Adam learns last; by Adam if null",
    )
    learning_rate_decay: bool = Field(False, description="cosine to zero over the updates")
    gradient_clip: NonNegativeFloat = Field(0.0, description="largest gradient norm; 0 is off")
    updates: PositiveInt = Field(5000, description="gradient steps")
    tasks_per_batch: PositiveInt = Field(8, description="tasks drawn a step")
    trials_per_task: PositiveInt = Field(8, description="trials of each of those tasks")
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of trials held out")
    log_every: PositiveInt = Field(50, description="updates between logged losses")
    validate_every: PositiveInt = Field(500, description="updates between validations")


class RelabelConfig(FrozenConfig):
    """State relabelling: all trials through the belief encoder, in order."""

    trials: PositiveInt | None = Field(None, description="trials a task to keep; all if null")
    skip_trials: NonNegativeInt = Field(0, description="first trials a task to leave out")
    relabelled_copies: NonNegativeInt = Field(
        0, description="copies of every trial, rewards relabelled before the belief sees them"
    )
    original_trials: bool = Field(
        True, description="false keeps the copies alone: no behaviour that knows its task"
    )
    relabelling: RelabellingConfig = RelabellingConfig()
    block_trials: PositiveInt = Field(256, description="trials encoded at once; bounds the memory")
    belief_rewards: bool = Field(
        False, description="also store R+, with the belief before the step"
    )
    belief_reward_samples: PositiveInt = Field(20, description="latent samples of R+")

    @property
    def keeps_outcomes(self) -> bool:
        """Whether both outcomes of a step in doubt are kept, for targets to average over."""
        return self.relabelling.enabled and self.relabelling.task_averaging

    @model_validator(mode="after")
    def _check(self) -> RelabelConfig:
        if not (self.original_trials or self.relabelled_copies):
            raise ValueError("original_trials is false and relabelled_copies is 0: nothing is left")
        return self


class OfflineConfig(FrozenConfig):
    """Offline RL on hyper-states."""

    learner: LearnerConfig = LearnerConfig()
    beliefs: bool = Field(True, description="false trains a task-blind agent on the states alone")
    use_belief_rewards: bool = Field(
        False, description="learn from R+ instead of the log's rewards"
    )
    normalise: bool = Field(True, description="scale hyper-states by the data's mean and deviation")
    updates: PositiveInt = Field(50_000, description="gradient steps")
    batch_size: PositiveInt = Field(1024, description="transitions a step, over all tasks")
    learning_rate_decay: float = Field(
        0.5, ge=0, le=1, description="last share of the updates, over which rates go to zero"
    )
    weight_averaging: float = Field(
        0.0,
        ge=0,
        lt=1,
        # left out where 0: agents trained before there was any keep their fingerprints
        exclude_if=lambda rate: rate == 0,
        description="rate at which the weights that act follow the trained ones, a moving average "
        "that steadies scores; 0: the trained ones act",
    )
    belief_noise: NonNegativeFloat = Field(
        0.0,
        # left out where 0: agents trained before there was any keep their fingerprints
        exclude_if=lambda noise: noise == 0,
        description="noise on a batch's beliefs, in deviations of the data's: with few training "
        "tasks agents act on details of beliefs that mean nothing",
    )
    evaluate_every: PositiveInt = Field(5000, description="updates between evaluations")
    log_every: PositiveInt = Field(500, description="updates between logged losses")
    memory_gb: PositiveFloat = Field(
        8.0, description="GiB of memory for hyper-states; where they need more, tasks take turns"
    )
    rotation_updates: PositiveInt | None = Field(
        None,
        # left out where null: agents trained before there was any keep their fingerprints
        exclude_if=lambda updates: updates is None,
        description="where tasks take turns in memory, updates until one gives way to the next: "
        "fewer mix better but read more; if null, as many as draw each transition of a task once, "
        "but few enough for four turns of every task",
    )


class EvaluateConfig(FrozenConfig):
    """Evaluation on the test tasks, from the prior, deterministic, all tasks as one batch."""

    episodes: PositiveInt | None = Field(None, description="K; the family's own if null")
    start: Literal["origin", "wide"] = Field("origin", description="start distribution")
    trials_per_task: PositiveInt = Field(1, description="trials a task; more for wide starts")
    exploration_noise: NonNegativeFloat = Field(
        0.0,
        # left out where 0: earlier evaluations keep their fingerprints
        exclude_if=lambda noise: noise == 0,
        description="sd of the noise on the agent's actions in the first episode of a trial, "
        "without a given context; continuous actions only",
    )
    context_episodes: NonNegativeInt = Field(
        0,
        # left out where 0: scores made before there was any keep their fingerprints
        exclude_if=lambda episodes: episodes == 0,
        description="also evaluate with given context: the belief is first shown so many episodes "
        "of the noisy script on the test task, as offline logs of it would; 0 leaves this out",
    )
    context_noise: NonNegativeFloat = Field(
        0.3,
        exclude_if=lambda noise: noise == 0.3,
        description="sd of the script's action noise in given context",
    )
    blind_share: float = Field(
        0.25, ge=0, le=1, description="updates of the task-blind agent, a share; 0 leaves it out"
    )
