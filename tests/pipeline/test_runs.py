"""A run: which stages are called when, what is refreshed, and what an interruption leaves."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from conftest import RunToy, called, toy_request

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.keys import leaves
from pipeline.plan import STAGES, Step, chain, checked_stage, stages_to_refresh
from pipeline.presets import load_config
from pipeline.records import read_record
from pipeline.run import StageCall, call_directly, execute, load_stage
from pipeline.store import Artefact, Store
from stages.context import Interrupted

ALL = ["collect", "train_vae", "relabel", "train_offline", "train_offline", "evaluate"]


def test_a_fresh_run_calls_every_stage_and_a_second_none(run_toy: RunToy, call_log: Path) -> None:
    first = run_toy()
    assert called(call_log) == ALL
    second = run_toy()
    assert called(call_log) == []
    assert first.record.artefacts == second.record.artefacts
    assert [a.cached for a in second.artefacts.values()] == [True] * 6
    assert list(second.artefacts) == [
        "collect", "train-vae", "relabel", "train-offline", "train-blind", "evaluate",
    ]  # fmt: skip


def test_the_record_tells_what_the_run_is_made_of(run_toy: RunToy, store: Store) -> None:
    result = run_toy(["vae.kl_weight=0.1"])
    record = read_record(store, result.record.name)
    assert record == result.record
    assert record.status == "complete"
    assert record.name.startswith("toy-")
    assert record.name.endswith("-seed0")
    assert (record.preset, record.overrides) == ("toy", ("vae.elbo.kl_weight=0.1",))
    assert record.config["vae"]["elbo"]["kl_weight"] == 0.1
    assert list(record.artefacts) == list(result.artefacts)


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("collect.iterations=7", ALL),
        ("vae.kl_weight=0.1", ALL[1:]),
        ("relabel.belief_rewards=true", ALL[2:]),
        ("offline.rule=cql", ALL[3:]),
        ("evaluate.episodes=3", ALL[5:]),
        ("evaluate.blind_share=0.5", ALL[4:]),
        ("evaluate.blind_share=0", ALL[5:]),
    ],
)
def test_a_change_reruns_its_stage_and_what_follows(
    override: str, stages: list[str], run_toy: RunToy, call_log: Path
) -> None:
    run_toy()
    called(call_log)
    run_toy([override])
    assert called(call_log) == stages


def test_another_seed_shares_nothing(run_toy: RunToy, call_log: Path) -> None:
    run_toy()
    called(call_log)
    run_toy(seed=1)
    assert called(call_log) == ALL


def test_refreshed_bytes_that_stay_the_same_cut_off_the_rest(
    run_toy: RunToy, call_log: Path
) -> None:
    run_toy()
    called(call_log)
    run_toy(refresh=["relabel"])
    assert called(call_log) == ["relabel"]
    run_toy(refresh=["train-offline"])
    assert called(call_log) == ["train_offline", "train_offline"]


def test_refreshed_bytes_that_change_rerun_the_rest(
    run_toy: RunToy, call_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy()
    called(call_log)
    real = load_stage("fake_stages:fake_stage")

    def altered(function: str) -> object:
        stage = real(function)  # type: ignore[call-arg, arg-type, func-returns-value]

        def changed(config: object, seed: int, *rest: object) -> None:
            stage(config, seed + 1000, *rest)  # type: ignore[misc]

        return changed

    monkeypatch.setattr("pipeline.run.load_stage", altered)
    run_toy(refresh=["relabel"])
    assert called(call_log) == ["relabel", "train_offline", "train_offline", "evaluate"]


def test_a_deleted_or_damaged_artefact_is_made_again_alone(run_toy: RunToy, call_log: Path) -> None:
    result = run_toy()
    called(call_log)
    shutil.rmtree(result.artefacts["train-vae"].folder)
    run_toy()
    assert called(call_log) == ["train_vae"]
    (result.artefacts["relabel"].folder / "parts" / "2.txt").write_text("damage")
    run_toy()
    assert called(call_log) == ["relabel"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # 7 stands in for a missing text too
def test_every_field_of_a_section_changes_its_stages_key(presets: Path) -> None:
    """Battery 11: no setting that a result could depend on is left out of the fingerprint."""
    base = load_config("toy", root=presets).config
    keys = {step.name: step.recipe(0, _stub(step), {}).fingerprint for step in chain(base)}
    for leaf in leaves():
        changed = _with_another_value(base, leaf)
        steps = {step.name: step for step in chain(changed)}
        own = [name for name, step in steps.items() if step.section == leaf[0]]
        for name, step in steps.items():
            same = step.recipe(0, _stub(step), {}).fingerprint == keys[name]
            blind_share = leaf[-1] == "blind_share" and name == "train-blind"
            blind_is_fixed = leaf in (("offline", "beliefs"), ("offline", "belief_noise"))
            if not blind_share and not blind_is_fixed:
                assert same == (name not in own), (leaf, name)


def _stub(step: Step) -> dict[str, Artefact]:
    class Stub:
        digest = "d"

    return {source: Stub() for source in step.inputs.values()}  # type: ignore[misc]


def _with_another_value(config: RunConfig, leaf: tuple[str, ...]) -> RunConfig:
    """The configuration with one leaf changed, unchecked: any other value will do."""
    section = getattr(config, leaf[0])
    models = [section]
    for part in leaf[1:-1]:
        models.append(getattr(models[-1], part))
    changed = models[-1].model_copy(update={leaf[-1]: _another(getattr(models[-1], leaf[-1]))})
    for model, part in zip(reversed(models[:-1]), reversed(leaf[1:-1]), strict=True):
        changed = model.model_copy(update={part: changed})
    return config.model_copy(update={leaf[0]: changed})


def _another(value: object) -> object:
    """A different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(2 * value + 1)
    if isinstance(value, tuple):
        return value[:-1]
    return 7 if value is None else f"{value}x"


def test_runtime_settings_change_no_key(run_toy: RunToy, store: Store, call_log: Path) -> None:
    run_toy()
    called(call_log)
    request = toy_request()
    runtime = request.runtime.model_copy(
        update={"threads": 1, "workers": 7, "quiet": True, "tensorboard": False}
    )
    execute(type(request)(request.loaded, 0, request.name, runtime=runtime), store)
    assert called(call_log) == []


def test_the_blind_agent_learns_for_a_share_of_the_updates(presets: Path) -> None:
    config = load_config("toy", ["offline.updates=1000"], root=presets).config
    steps = {step.name: step for step in chain(config)}
    blind = steps["train-blind"].config.model_dump()
    assert (blind["beliefs"], blind["updates"]) == (False, 250)
    assert steps["evaluate"].inputs["blind-agent"] == "train-blind"
    assert steps["train-blind"].stage == "train-offline"


@pytest.mark.parametrize("override", ["evaluate.blind_share=0", "offline.beliefs=false"])
def test_no_blind_agent_where_it_makes_no_sense(override: str, presets: Path) -> None:
    steps = [step.name for step in chain(load_config("toy", [override], root=presets).config)]
    assert "train-blind" not in steps


def test_whoever_wants_to_see_the_steps_calls_them(store: Store, presets: Path, fake: None) -> None:
    seen: list[str] = []
    told: list[tuple[str, bool]] = []

    def call(step: StageCall) -> Artefact:
        seen.append(step.step.name)
        return call_directly(step)

    execute(
        toy_request(), store, call=call, on_step=lambda step, a: told.append((step.name, a.cached))
    )
    assert seen == [name for name, _ in told]
    assert not any(cached for _, cached in told)


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    run_toy: RunToy, store: Store, call_log: Path, tmp_path: Path
) -> None:
    straight = run_toy()
    whole = {name: artefact.digest for name, artefact in straight.artefacts.items()}
    shutil.rmtree(store.root / "artefacts")
    call_log.write_text("")
    stop = threading.Event()

    def stop_in_relabel(call: StageCall) -> Artefact:
        if call.step.name == "relabel":
            folder = store.checkpoint_folder("hyper-states", call.recipe.fingerprint)
            folder.mkdir(parents=True)
            (folder / "cursor").write_text("3")
            stop.set()
        return call()

    with pytest.raises(Interrupted, match="relabel stopped at chunk 3"):
        run_toy(call=stop_in_relabel, stop=stop)
    assert read_record(store, "toy-seed0").status == "unfinished"
    assert list((store.root / ".tmp").iterdir()) == []
    call_log.write_text("")
    (clock,) = (store.root / ".checkpoints").glob("hyper-states-*/clock.json")
    clock.write_text(clock.read_text().replace('"before": 0', '"before": 500'))
    result = run_toy()
    assert result.artefacts["relabel"].manifest.seconds > 500
    lines = call_log.read_text().splitlines()
    assert lines[:2] == ["relabel", "relabel chunk 3"]
    assert {name: artefact.digest for name, artefact in result.artefacts.items()} == whole


@pytest.mark.parametrize("resumed", [False, True])
def test_curves_of_an_earlier_training_go_unless_it_goes_on(
    resumed: bool, run_toy: RunToy, store: Store
) -> None:
    key = store.parse(run_toy().record.artefacts["train-vae"])
    events = store.log_folder(*key) / "events"
    events.parent.mkdir(parents=True)
    events.touch()
    if resumed:
        store.checkpoint_folder(*key).mkdir()
        (store.checkpoint_folder(*key) / "cursor").write_text("3")
    run_toy(refresh=["train-vae"])
    assert events.exists() == resumed


def test_stopped_between_stages(run_toy: RunToy) -> None:
    stop = threading.Event()
    with pytest.raises(Interrupted, match="stopped before train-vae"):
        run_toy(stop=stop, on_step=lambda step, artefact: stop.set())


def test_a_stage_that_fails_leaves_the_stages_before(run_toy: RunToy, store: Store) -> None:
    def fail(call: StageCall) -> Artefact:
        if call.step.name == "relabel":
            raise RuntimeError("bug")
        return call()

    with pytest.raises(RuntimeError, match="bug"):
        run_toy(call=fail)
    assert sorted({kind for kind, _ in store.all_keys()}) == ["trials", "vae"]
    assert list(read_record(store, "toy-seed0").artefacts) == ["collect", "train-vae"]


def test_a_name_belongs_to_one_run(store: Store, presets: Path, fake: None) -> None:
    one, two = toy_request(), toy_request(["vae.updates=3"])
    execute(one, store)
    with pytest.raises(StoreError, match=r"run name 'toy-seed0' is taken by toy seed 0; choose"):
        execute(type(two)(two.loaded, 0, one.name), store)


def test_an_unknown_stage_function() -> None:
    with pytest.raises(StoreError, match=r"there is no stage pipeline.run:nothing"):
        load_stage("pipeline.run:nothing")


def test_stages_to_refresh() -> None:
    assert stages_to_refresh((), None) == frozenset()
    assert stages_to_refresh(("relabel",), "evaluate") == {"relabel", "evaluate", "report"}
    assert stages_to_refresh((), "collect") == set(STAGES)
    with pytest.raises(
        ConfigError, match=r"--from: unknown stage 'relable'; did you mean 'relabel'"
    ):
        stages_to_refresh((), "relable")
    assert checked_stage("report", "--refresh") == "report"
