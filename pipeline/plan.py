"""The chain of steps that a configuration asks for: what runs, on what, under which key.

A step's key is made from its inputs' contents, so it is known only once they exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import BaseModel

from environments.errors import TaskError
from environments.registry import family_source, load_family, policy_source
from pipeline.building import Recipe
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.names import did_you_mean, printable
from pipeline.store import Artefact
from stages.config import CollectConfig

REPORT = "report"
STAGES = ("collect", "plan-donors", "train-vae", "relabel", "train-offline", "evaluate", REPORT)
BLIND = "train-blind"

VERSIONS = {
    "collect": 2,
    "plan-donors": 1,
    "train-vae": 4,
    "relabel": 6,
    "train-offline": 3,
    "evaluate": 3,
}
"""Raised by hand when a stage gives other bytes for the same config: nothing stale is used then."""


@dataclass(frozen=True)
class Step:
    """One call of a stage: the stage's function, its config, and whose artefacts it reads."""

    name: str
    stage: str
    kind: str
    function: str  # module:function, imported when it runs
    version: int
    section: str
    config: BaseModel
    inputs: Mapping[str, str] = field(default_factory=dict)  # name for the stage -> step's name
    domain: str = ""

    @property
    def source(self) -> str | None:
        """Digest of a user's own files that the stage calls; None where there are none.

        Every stage calls the family, collection the policy too.
        """
        digests = [family_source(self.domain)]
        if isinstance(self.config, CollectConfig) and self.config.behaviour == "policy":
            digests.append(policy_source(self.config.policy))
        found = [digest for digest in digests if digest is not None]
        return " ".join(found) or None

    def recipe(self, seed: int, made: Mapping[str, Artefact], labels: Mapping[str, str]) -> Recipe:
        """What the store is asked for; `made` holds the artefacts of the steps before by name."""
        return Recipe(
            kind=self.kind,
            stage=self.name,
            version=self.version,
            config=self.config.model_dump(mode="json"),
            seed=seed,
            inputs={name: made[step] for name, step in self.inputs.items()},
            labels=labels,
            source=self.source,
        )


def chain(config: RunConfig) -> tuple[Step, ...]:
    """The steps of a run in order, the task-blind agent among them if the evaluation wants one."""
    return tuple(replace(step, domain=config.collect.domain) for step in _steps(config))


def _steps(config: RunConfig) -> Iterator[Step]:
    collect, vae = "collect", "train-vae"
    yield _step(collect, "trials", "stages.collect:collect", "collect", config.collect)
    source = {"trials": collect}
    plan, planned = "plan-donors", _needs_plan(config)
    if any(planned.values()):
        yield _step(
            plan, "donor-plan", "stages.plan_donors:plan_donors", "donors", config.donors, source
        )
    known = {name: {"donors": plan} if needed else {} for name, needed in planned.items()}
    inputs = source | known[vae]
    yield _step(vae, "vae", "stages.train_vae:train_vae", "vae", config.vae, inputs)
    both = {"trials": collect, "vae": vae}
    yield _step(
        "relabel",
        "hyper-states",
        "stages.relabel:relabel",
        "relabel",
        config.relabel,
        both | known["relabel"],
    )
    agent = _step(
        "train-offline",
        "agent",
        "stages.train_offline:train_offline",
        "offline",
        config.offline,
        {"hyper-states": "relabel", "vae": vae},
    )
    yield agent
    judged = {**both, "agent": agent.name}
    if config.evaluate.blind_share > 0 and config.offline.beliefs:
        yield replace(agent, name=BLIND, config=_blind(config))
        judged["blind-agent"] = BLIND
    function = "stages.evaluate:evaluate"
    yield _step("evaluate", "scores", function, "evaluate", config.evaluate, judged)


def _needs_plan(config: RunConfig) -> dict[str, bool]:
    """Which stages draw donors whose rewards only a simulator's states tell."""
    try:
        stated = bool(load_family(config.collect.domain).spec.infos)
    except TaskError:  # told by who checks whether a configuration fits
        stated = False
    return {
        "train-vae": stated and config.vae.relabelling.enabled,
        "relabel": stated and config.relabel.relabelled_copies > 0,
    }


def _step(
    name: str,
    kind: str,
    function: str,
    section: str,
    config: BaseModel,
    inputs: Mapping[str, str] | None = None,
) -> Step:
    return Step(name, name, kind, function, VERSIONS[name], section, config, inputs or {})


def _blind(config: RunConfig) -> BaseModel:
    """The task-blind agent: the same rule on states alone, for a share of the updates."""
    updates = max(1, round(config.offline.updates * config.evaluate.blind_share))
    return config.offline.model_copy(
        update={"beliefs": False, "updates": updates, "belief_noise": 0.0}
    )


def checked_stage(name: str, option: str) -> str:
    """`name` if it is a stage.

    Raises:
        ConfigError: it is not; names the option and the nearest stages.
    """
    if name not in STAGES:
        raise ConfigError(
            f"{option}: unknown stage {printable(name)}; {did_you_mean(name, STAGES)}"
        )
    return name


def stages_to_refresh(refresh: Sequence[str], since: str | None) -> frozenset[str]:
    """The stages named by --refresh, each with commas or alone, and by --from that and all after.

    Raises:
        ConfigError: there is no such stage, or an option names none.
    """
    chosen: set[str] = set()
    for text in refresh:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if not names:
            raise ConfigError(f"--refresh: name a stage: {', '.join(STAGES)}")
        chosen |= {checked_stage(name, "--refresh") for name in names}
    if since is not None:
        chosen |= set(STAGES[STAGES.index(checked_stage(since, "--from")) :])
    return frozenset(chosen)
