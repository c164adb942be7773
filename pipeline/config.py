"""The configuration of a whole run: one section a stage. YAML, Prefect's form and --set fill it.

What is runtime only (device, threads, workers) is `RuntimeConfig`, which no fingerprint covers.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from stages.config import (
    CollectConfig,
    DonorsConfig,
    EvaluateConfig,
    OfflineConfig,
    RelabelConfig,
    VaeConfig,
)
from stages.context import Precision

SECTIONS = ("collect", "donors", "vae", "relabel", "offline", "evaluate")


class RunConfig(BaseModel):
    """Everything that decides a run's results, but for the seed, which stands beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    collect: CollectConfig
    donors: DonorsConfig = Field(
        DonorsConfig(),
        # left out where default: runs of before keep their digests
        exclude_if=lambda config: config == DonorsConfig(),
    )
    vae: VaeConfig = VaeConfig()
    relabel: RelabelConfig = RelabelConfig()
    offline: OfflineConfig = OfflineConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _sections_fit_each_other(self) -> RunConfig:
        if self.offline.use_belief_rewards and not self.relabel.belief_rewards:
            raise _misfit("offline.use_belief_rewards", "needs relabel.belief_rewards: true")
        relabelling = self.vae.relabelling
        needs_others = relabelling.enabled and relabelling.donors == "other-tasks"
        if needs_others and self.collect.tasks.train < 2:
            raise _misfit(
                "collect.tasks.train",
                "must be at least 2: reward relabelling takes donors from other tasks "
                "(or set vae.relabelling.enabled: false)",
            )
        _check_replaying(self.collect)
        return self


class RuntimeConfig(BaseModel):
    """How a run is carried out; none of it but `decisive` can change a result's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda, cuda:1")
    precision: Precision = Field("float32", description="of matrix products in training on a GPU")
    threads: PositiveInt = Field(2, description="CPU threads of one stage")
    workers: PositiveInt = Field(2, description="processes that collect in parallel")
    quiet: bool = Field(False, description="no progress bars")
    tensorboard: bool = Field(True, description="write TensorBoard events below logs/")

    @property
    def decisive(self) -> dict[str, Any]:
        """What can change the last bits of a result: needed to make it again."""
        return {"device": self.device, "precision": self.precision, "threads": self.threads}


def _check_replaying(collect: CollectConfig) -> None:
    """Refuse a group of one task whose other task's agent would be its own."""
    train, size = collect.tasks.train, collect.group_size
    if not collect.policy_replaying or (size > 1 and train % size != 1):
        return
    if train == 1:
        text = "must be at least 2: collect.policy_replaying needs another task's agent"
        raise _misfit("collect.tasks.train", text)
    fitting = next(n for n in range(size + 1, train + 2) if train % n != 1)
    raise _misfit(
        "collect.group_size",
        f"{size} leaves {'each' if size == 1 else 'one'} of {train} tasks alone in its group, but "
        f"collect.policy_replaying needs another task's agent there: take a size such as {fitting}",
    )


def _misfit(path: str, text: str) -> PydanticCustomError:
    """An error about one key though the whole is at fault; `path` lets its line be found."""
    return PydanticCustomError("misfit", "{path} {text}", {"path": path, "text": text})
