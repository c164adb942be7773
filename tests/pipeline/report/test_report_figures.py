"""Figures: what they compute, and that each is one self-contained drawing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_data import MakeSeed, seed_maker

from datasets.errors import DataError
from environments.registry import DOMAINS, load_family
from pipeline.report import beliefs, panels
from pipeline.report.comparison import Contender, comparison_panel
from pipeline.report.curves import Reference, curve_panels, split_name
from pipeline.report.rollouts import episode_legend, rollout_panels, spread_tasks
from pipeline.report.sources import Curves, Scores, SeedOutputs


@pytest.fixture
def make_seed(tmp_path: Path) -> MakeSeed:
    """Writes made-up artefacts of one seed."""
    return seed_maker(tmp_path / "made")


def test_a_panel_follows_the_page() -> None:
    panel = panels.draw("a_line", "", lambda axes: axes.plot([0, 1], color="#000000"))
    svg = panel.svg()
    assert svg.startswith("<svg viewBox=")
    assert 'aria-label="a line"' in svg
    assert "#000000" not in svg
    assert "currentColor" in svg
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
    assert panel.png().startswith(b"\x89PNG")


def test_equal_drawings_have_equal_bytes_and_names_keep_ids_apart() -> None:
    def drawing(name: str) -> panels.Panel:
        return panels.draw(name, "", lambda axes: axes.plot([0, 1], "o"))

    assert drawing("one").svg() == drawing("one").svg()
    assert drawing("one").png() == drawing("one").png()
    ids = [set(re.findall(r'id="([^"]*)"', drawing(name).svg())) for name in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_drawing_leaves_no_global_state_and_imports_no_pyplot() -> None:
    code = (
        "import sys, matplotlib\n"
        "from pipeline.report import panels\n"
        "before = matplotlib.rcParams.copy()\n"
        "panels.draw('x', '', lambda axes: axes.plot([1, 2])).svg()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
        "assert dict.__eq__(matplotlib.rcParams, before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("validation_kl", ("kl", "validation")),
        ("reward_train", ("reward", "train")),
        ("return_p10", ("return", "p10")),
        ("episode_3", ("return per episode", "ep. 3")),
        ("critic_loss", ("critic_loss", "")),
    ],
)
def test_columns_are_grouped_by_quantity(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


def test_one_panel_a_quantity_with_references() -> None:
    steps = np.arange(1000.0)
    one = Curves(
        steps, {"train_kl": steps + 1, "validation_kl": np.where(steps % 2, steps, np.nan)}
    )
    two = Curves(steps[:500], {"train_kl": steps[:500] + 2, "empty": np.full(500, np.nan)})
    drawn = curve_panels("vae", [one, two], "step", {"kl": [Reference("limit", 5.0, "#333333")]})
    assert [panel.name for panel in drawn] == ["vae_kl"]
    axes = drawn[0].figure.axes[0]
    assert axes.get_yscale() == "log"
    longest = max(len(line.get_xdata()) for line in axes.get_lines())
    assert longest <= 400
    texts = axes.get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["train", "validation", "limit"]


def test_a_loss_that_is_off_is_left_out_but_a_return_of_zero_is_not() -> None:
    zeros = np.zeros(3)
    log = Curves(np.arange(3.0), {"train_rec_state": zeros, "return_mean": zeros})
    assert [panel.name for panel in curve_panels("x", [log], "step")] == ["x_return"]


def test_spread_tasks_go_from_worst_to_best() -> None:
    scores = np.array([5.0, 1.0, 3.0, 2.0, 4.0])
    assert spread_tasks(scores, 3) == [1, 2, 0]
    assert spread_tasks(scores, 9) == [1, 3, 2, 4, 0]


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_every_domain_draws_its_rollouts(make_seed, domain: str) -> None:
    seed = SeedOutputs.read(make_seed(domain, tasks=3))
    family = load_family(domain)
    drawn = rollout_panels(family, seed.scores.tasks, seed.rollouts, [2, 0])
    assert [panel.name for panel in drawn] == ["rollout_2", "rollout_0"]
    labels = [label for label, _ in episode_legend(drawn[0])]
    assert labels == [f"episode {k + 1}" for k in range(family.spec.episodes)]


def test_several_trials_a_task_draw_the_first(make_seed) -> None:
    seed = SeedOutputs.read(make_seed("point_robot_sparse", tasks=2))
    twice = {name: np.repeat(array, 2, axis=0) for name, array in seed.rollouts.items()}
    family = load_family("point_robot_sparse")
    once = rollout_panels(family, seed.scores.tasks, seed.rollouts, [1])[0]
    assert rollout_panels(family, seed.scores.tasks, twice, [1])[0].svg() == once.svg()
    odd = {name: array[:3] for name, array in twice.items()}
    with pytest.raises(DataError, match="3 trials, which 2 tasks cannot share"):
        rollout_panels(family, seed.scores.tasks, odd, [0])
    assert rollout_panels(family, seed.scores.tasks, {}, [0]) == []


def test_reliability_bins_are_means() -> None:
    predicted = np.array([0.0, 0.04, 0.95, 1.0])
    truth = np.array([0.0, 0.2, 1.0, 0.5])
    means, observed, counts = beliefs.reliability(predicted, truth)
    np.testing.assert_allclose(means, [0.02, 0.975])
    np.testing.assert_allclose(observed, [0.1, 0.75])
    assert counts.tolist() == [2, 2]
    lowest, _, _ = beliefs.reliability(predicted, truth, (-10.0, 10.0))
    assert lowest.tolist() == [pytest.approx(0.4975)]


def test_an_exact_decoder_has_no_calibration_error() -> None:
    exact = np.random.default_rng(0).dirichlet(np.ones(25), size=(4, 7))
    bins = beliefs.reliability(exact, exact, (0.0, 1.0))
    title = beliefs.calibration_panel("Goal", bins, "truth").figure.axes[0].get_title("left")
    assert title == "Goal: calibration error 0.000"


def test_a_constant_prediction_has_one_bin() -> None:
    means, observed, counts = beliefs.reliability(np.full(5, 0.3), np.arange(5.0))
    assert (means.tolist(), observed.tolist(), counts.tolist()) == ([0.3], [2.0], [5])


def test_the_telling_trial_is_open_long_and_ends_certain() -> None:
    exact = np.zeros((3, 4, 5))
    exact[0, :, 0] = 1.0  # certain from the start
    exact[1, :3] = 0.2  # open for long, then certain
    exact[1, 3, 2] = 1.0
    exact[2] = 0.2  # never certain
    assert beliefs.telling_trial(exact) == 1
    assert beliefs.telling_trial(exact[[0, 2]]) == 0


def test_the_belief_map_does_not_depend_on_a_sign() -> None:
    rng = np.random.default_rng(1)
    trials = rng.normal(size=(6, 3, 8)).astype(np.float32)
    tasks = rng.normal(size=(6, 2))
    first = beliefs.belief_map_panel(trials, tasks).svg()
    assert beliefs.belief_map_panel(trials.copy(), tasks).svg() == first
    one_dimension = beliefs.belief_map_panel(trials[..., [0, 4]], tasks[:, :1])
    assert one_dimension.svg()


def test_bars_of_one_preset_are_told_apart(make_seed) -> None:
    folder = make_seed("gridworld", tasks=2).folders["scores"]
    scores = (Scores.read(folder / "scores.json"),)
    rule, long = "offline.learner.rule=cql", ", ".join(f"vae.elbo.weight_{n}={n}" for n in range(9))
    own, *others = (
        Contender(label, difference, scores)
        for label, difference in (("pr", ""), ("pr", rule), ("pr", long), ("other", rule))
    )
    axes = comparison_panel(own, others).figure.axes[0]
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert ticks[:2] == ["pr", f"pr\n{rule}"]
    assert ticks[3] == "other"  # its name says enough
    lines = ticks[2].split("\n")
    assert len(lines) == 3
    assert lines[2].endswith(" ...")
    assert max(map(len, lines)) <= 40
