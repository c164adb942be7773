"""Presets and --set: merging, short forms, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.keys import complete, leaves, model_at
from pipeline.presets import FOLDERS, LoadedConfig, description, load_config, preset_names

CLONE = Path(__file__).resolve().parents[2]


def write(root: Path, folder: str, name: str, text: str) -> None:
    (root / folder / f"{name}.yaml").write_text(text)


def refused(root: Path, preset: str = "bad", overrides: tuple[str, ...] = ()) -> str:
    """The one-line message of a configuration that is refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(preset, overrides, root=root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", preset_names(CLONE))
def test_every_shipped_preset_loads_and_says_what_it_is(name: str) -> None:
    loaded = load_config(name, root=CLONE)
    assert name.startswith(loaded.config.collect.domain)
    assert description(name, CLONE)
    assert loaded.stem == name


def test_fragments_fill_their_sections(presets: Path) -> None:
    config = load_config("toy", root=presets).config
    assert config.collect.domain == "gridworld"
    assert config.collect.tasks.train == 21
    assert config.vae.updates == 10
    assert config.offline.learner.rule == "dqn"
    assert config.relabel.block_trials == 256  # a default


def test_a_variant_writes_only_what_differs(presets: Path) -> None:
    write(presets, "vae_config", "variant", "extends: toy\nvae:\n  elbo:\n    kl_weight: 0.5\n")
    write(presets, "vae_config", "deeper", "extends: variant\nvae:\n  updates: 7\n")
    config = load_config("deeper", root=presets).config
    assert (config.vae.updates, config.vae.elbo.kl_weight) == (7, 0.5)
    assert config.offline.learner.rule == "dqn"


def test_all_files_of_a_preset_extend_the_same_one(presets: Path) -> None:
    write(presets, "vae_config", "bad", "extends: toy\n")
    write(presets, "offline_config", "bad", "extends: other\n")
    assert refused(presets) == (
        "offline_config/bad.yaml:1: extends 'other', but vae_config/bad.yaml:1 extends 'toy'"
    )


def test_a_preset_cannot_extend_itself(presets: Path) -> None:
    write(presets, "vae_config", "bad", "extends: worse\n")
    write(presets, "vae_config", "worse", "vae:\n  updates: 3\nextends: bad\n")
    assert "vae_config/worse.yaml:3: preset 'bad' extends itself: bad > worse > bad" in refused(
        presets
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("extends: toi", "vae_config/bad.yaml:1: unknown preset 'toi'; did you mean 'toy'?"),
        ("extends: ../toy", "vae_config/bad.yaml:1: preset name '../toy' cannot be used"),
        ("extends: [toy]", "vae_config/bad.yaml:1: extends takes the name of one preset"),
        ("extends:", "vae_config/bad.yaml:1: extends takes the name of one preset"),
    ],
)
def test_a_bad_extends(line: str, message: str, presets: Path) -> None:
    write(presets, "vae_config", "bad", line + "\n")
    assert refused(presets).startswith(message)


BAD_SECTIONS = {
    "unknown key": (
        "vae:\n  elbo:\n    kl_weigth: 0.1\n",
        "vae_config/bad.yaml:3: unknown key 'kl_weigth' in vae.elbo; did you mean 'kl_weight'?",
    ),
    "key of another section": (
        "vae:\n  kl_weight: 0.1\n",
        "vae_config/bad.yaml:2: unknown key 'kl_weight' in vae; did you mean 'vae.elbo.kl_weight'?",
    ),
    "section of another folder": (
        "offline:\n  updates: 3\n",
        "vae_config/bad.yaml:1: unknown section 'offline'; known: donors, vae, extends",
    ),
    "misspelt section": ("vea:\n  updates: 3\n", "unknown section 'vea'; did you mean 'vae'?"),
    "empty section": ("vae:\n", "vae_config/bad.yaml:1: section 'vae' is empty"),
    "section is a list": (
        "vae: [1]\n",
        "vae_config/bad.yaml:1: vae must be a section of keys, not a list",
    ),
    "section is a number": (
        "vae:\n  elbo: 3\n",
        "bad.yaml:2: vae.elbo must be a section of keys, not 3",
    ),
    "word for a number": (
        "vae:\n  updates: many\n",
        "vae_config/bad.yaml:2: vae.updates must be a whole number, not 'many'",
    ),
    "text for a number": ("vae:\n  updates: '3'\n", "vae.updates must be a whole number, not '3'"),
    "fraction for a count": (
        "vae:\n  updates: 2.5\n",
        "vae.updates must be a whole number, not 2.5",
    ),
    "null": ("vae:\n  updates: null\n", "vae.updates must be a whole number, not null"),
    "list for a number": (
        "vae:\n  updates: [1]\n",
        "vae.updates must be a whole number, not a list",
    ),
    "negative": ("vae:\n  updates: -3\n", "bad.yaml:2: vae.updates must be greater than 0, not -3"),
    "zero": ("vae:\n  updates: 0\n", "vae.updates must be greater than 0, not 0"),
    "nan": ("vae:\n  learning_rate: .nan\n", "vae.learning_rate must be a finite number"),
    "inf": ("vae:\n  learning_rate: .inf\n", "vae.learning_rate must be a finite number"),
    "share out of range": (
        "vae:\n  validation_share: 0.7\n",
        "vae.validation_share must be less than 0.5",
    ),
    "False as text": (
        'vae:\n  relabelling:\n    enabled: "False"\n',
        "vae_config/bad.yaml:3: vae.relabelling.enabled must be true or false, not 'False'",
    ),
    "no for false": ("vae:\n  learning_rate_decay: no\n", "must be true or false, not 'no'"),
    "number for a switch": ("vae:\n  learning_rate_decay: 1\n", "must be true or false, not 1"),
    "unknown choice": (
        "vae:\n  relabelling:\n    donors: others\n",
        "vae.relabelling.donors must be 'other-tasks' or 'any-task', not 'others'",
    ),
    "bad item": (
        "vae:\n  model:\n    reward_decoder:\n      layers:\n      - 32\n      - wide\n",
        "bad.yaml:6: vae.model.reward_decoder.layers.1 must be a whole number, not 'wide'",
    ),
    "two mistakes": (
        "vae:\n  updates: -1\n  epochs: 3\n",
        "bad.yaml:3: unknown key 'epochs' in vae; closest: elbo, updates, "
        "tasks_per_batch; `omrl schema` lists all",
    ),
    "no decoder at all": (
        "vae:\n  model:\n    reward_decoder:\n      enabled: false\n",
        "vae_config/bad.yaml:2: vae.model: no decoder is enabled",
    ),
    "duplicate key": (
        "vae:\n  updates: 1\n  updates: 1\n",
        "vae_config/bad.yaml:3: key 'updates' stands",
    ),
    "lone surrogate": ('vae:\n  updates: "\\ud800"\n', "bad"),
}


@pytest.mark.parametrize("case", BAD_SECTIONS)
def test_bad_settings_name_file_line_and_what_would_fit(case: str, presets: Path) -> None:
    text, message = BAD_SECTIONS[case]
    write(presets, "data_collection_config", "bad", "collect:\n  domain: gridworld\n")
    write(presets, "vae_config", "bad", text)
    assert message in refused(presets)


def test_the_number_of_further_mistakes_is_told(presets: Path) -> None:
    write(presets, "vae_config", "bad", "extends: toy\nvae:\n  updates: -1\n  log_every: 0\n")
    assert refused(presets).endswith("(and 1 more)")


def test_a_missing_domain(presets: Path) -> None:
    write(presets, "vae_config", "bad", "vae:\n  updates: 1\n")
    assert refused(presets) == "bad: collect is missing"


def test_sections_must_fit_each_other(presets: Path) -> None:
    write(presets, "offline_config", "bad", "extends: toy\noffline:\n  use_belief_rewards: true\n")
    assert refused(presets) == (
        "offline_config/bad.yaml:3: offline.use_belief_rewards needs relabel.belief_rewards: true"
    )
    assert "collect.tasks.train must be at least 2" in refused(
        presets, "toy", ("collect.tasks.train=1",)
    )


@pytest.mark.parametrize("name", ["../toy", "/etc/passwd", "a\0b", "", "..", "con", "x" * 300])
def test_preset_names_cannot_leave_the_folders(name: str, presets: Path) -> None:
    assert "preset name" in refused(presets, name)


def test_an_unknown_preset_names_the_nearest(presets: Path) -> None:
    assert refused(presets, "toi") == "unknown preset 'toi'; did you mean 'toy'?"


def test_a_users_own_file(presets: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: toy\nvae:\n  updates: 3\noffline:\n  updates: 4\n")
    loaded = load_config(str(path), root=presets)
    assert loaded.config.vae.updates == 3
    assert loaded.config.collect.tasks.train == 21
    assert loaded.stem == "mine"
    path.write_text("extends: toy\nvae:\n  epochs: 3\n")
    assert refused(presets, str(path)).startswith(f"{path}:3: unknown key 'epochs' in vae")
    assert "cannot be read" in refused(presets, str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("vae.elbo.kl_weight", ("vae", "elbo", "kl_weight")),
        ("vae.kl_weight", ("vae", "elbo", "kl_weight")),
        ("vae.encoder.latent_dim", ("vae", "model", "encoder", "latent_dim")),
        ("offline.rule", ("offline", "learner", "rule")),
        ("offline.learning_rate", ("offline", "learner", "learning_rate")),
        ("collect.tasks.seed", ("collect", "tasks", "seed")),
        ("vae.elbo", ("vae", "elbo")),
    ],
)
def test_keys_have_short_forms(text: str, key: tuple[str, ...]) -> None:
    assert complete(text) == key


def test_an_ambiguous_short_form_names_both() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'vae.layers' could be vae.*reward_decoder.layers or vae.*state_decoder.layers",
    ):
        complete("vae.layers")


def test_every_leaf_completes_to_itself() -> None:
    assert len(leaves()) > 70
    assert all(complete(".".join(leaf)) == leaf for leaf in leaves())
    assert all(model_at(leaf) is None for leaf in leaves())


def loaded_with(root: Path, *overrides: str) -> LoadedConfig:
    return load_config("toy", overrides, root=root)


def test_set_changes_one_thing(presets: Path) -> None:
    loaded = loaded_with(presets, "vae.kl_weight=0.1", "vae.reward_decoder.layers=[8, 8]")
    assert loaded.config.vae.elbo.kl_weight == 0.1
    assert loaded.config.vae.model.reward_decoder.layers == (8, 8)
    assert loaded.overrides == ("vae.elbo.kl_weight=0.1", "vae.model.reward_decoder.layers=[8, 8]")
    assert loaded.config.vae.updates == 10


def test_set_merges_a_section_and_the_last_one_wins(presets: Path) -> None:
    loaded = loaded_with(presets, "vae.elbo={kl_weight: 2}", "vae.kl_weight=3e-1")
    assert loaded.config.vae.elbo.kl_weight == 0.3
    assert loaded.overrides == ("vae.elbo.kl_weight=0.3",)


def test_the_same_settings_are_written_the_same_way(presets: Path) -> None:
    one = loaded_with(
        presets, "offline.rule='cql'", "vae={updates: 1_000, elbo: {kl_weight: 1e-1}}"
    )
    two = loaded_with(presets, "vae.kl_weight=0.10", "vae.updates=1000", "offline.learner.rule=cql")
    assert one == two
    assert two.overrides == (
        "offline.learner.rule=cql",
        "vae.elbo.kl_weight=0.1",
        "vae.updates=1000",
    )
    assert loaded_with(presets, *two.overrides) == two


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vae.kl_weigth=1", "--set vae.kl_weigth=1: unknown key 'vae.kl_weigth'; did you mean"),
        ("vae.xyz=1", "unknown key 'vae.xyz'; closest: vae."),
        ("vea.updates=1", "--set vea.updates=1: unknown section 'vea'; did you mean 'vae'?"),
        ("vae.layers=[1]", "--set vae.layers=[1]: key 'vae.layers' could be"),
        ("vae.updates", "--set vae.updates: write KEY=VALUE"),
        ("vae.updates=", "--set vae.updates=: write KEY=VALUE"),
        ("=3", "--set =3: unknown section ''"),
        ("vae.updates=many", "--set vae.updates=many: vae.updates must be a whole number"),
        ("vae.updates=nan", "--set vae.updates=nan: vae.updates must be a whole number, not 'nan'"),
        ("vae.kl_weight=.nan", "vae.elbo.kl_weight must be a finite number"),
        ("vae.updates=-1", "--set vae.updates=-1: vae.updates must be greater than 0, not -1"),
        ("vae.updates=[1", "--set vae.updates=[1: not valid YAML"),
        ("vae.updates=!!python/name:os.system", "is not used here"),
        ("vae=3", "--set vae=3: vae must be a section of keys, not 3"),
        ("seed=3", "--set seed=3: unknown section 'seed'"),
        ("vae.updates=" + "9" * 400, "vae.updates must be"),
        ("collect.iterations=2147483648", "must be at most 2147483647, not 2147483648"),
        ("offline.critic_layers=[8, 99999999999]", "critic_layers.1 must be at most 2147483647"),
    ],
)
def test_a_bad_set_names_the_option(override: str, message: str, presets: Path) -> None:
    assert message in refused(presets, "toy", (override,))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("offline.critic_layers=[8, -1]", "offline.learner.critic_layers.1 must be greater than 0"),
        ("vae.elbo={kl_weight: -1}", "vae.elbo.kl_weight must be greater than or equal to 0"),
    ],
)
def test_an_error_inside_a_value_names_the_option_and_not_the_file_below(
    override: str, message: str, presets: Path
) -> None:
    text = "offline:\n  learner:\n    rule: dqn\n    critic_layers: [4, 4, 4]\n"
    write(presets, "offline_config", "toy", text)
    assert refused(presets, "toy", (override,)).startswith(f"--set {override}: {message}")


def test_values_of_a_program_lie_between_preset_and_set(presets: Path) -> None:
    values = {"vae": {"updates": 5, "log_every": 7}, "offline": None}
    config = load_config("toy", ["vae.updates=6"], values, presets).config
    assert (config.vae.updates, config.vae.log_every) == (6, 7)
    assert config.offline.learner.rule == "dqn"
    assert values == {"vae": {"updates": 5, "log_every": 7}, "offline": None}


def test_the_order_of_keys_and_comments_change_nothing(presets: Path) -> None:
    write(presets, "vae_config", "a", "extends: toy\nvae:\n  updates: 3\n  log_every: 2\n")
    write(presets, "vae_config", "b", "vae:\n  log_every: 2 # why\n\n  updates: 3\nextends: toy\n")
    one, two = (load_config(name, root=presets).config for name in "ab")
    assert json.dumps(one.model_dump(mode="json")) == json.dumps(two.model_dump(mode="json"))


def test_presets_are_listed(presets: Path) -> None:
    write(presets, "offline_config", "other", "extends: toy\n")
    assert preset_names(presets) == ["other", "toy"]
    assert description("toy", presets) == "a toy"
    assert description("other", presets) == ""
    assert set(FOLDERS) == {path.name for path in presets.iterdir()}
