"""Studies over scores that are known: how soon methods find the best, and one policy beside the specialists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ray_rl.cli import main
from ray_rl.search.gaussian_process import Observations
from ray_rl.search.methods import Rule
from ray_rl.search.regret import Regret, measure_regret, pool
from ray_rl.search.simulate import simulate, synthetic_truth
from ray_rl.workflow.orders import N_ORDERS, order_name

ONE_POLICY = [
    *("train", "--collector", "sequential", "--workflow", "random", "--total-episodes", "16", "--episode-steps", "8"),
    *("--episodes-per-update", "8", "--hidden-sizes", "8", "--minibatches", "1", "--epochs", "1"),
    *("--evaluate-every", "0"),
]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All orders with a known score, but for the last, whose training failed, and the one before, below the gate."""
    scores = synthetic_truth(2)
    rows = [
        {"order": k, "error": "", "met_gate": k != 118, "score": s, "standard_error": 0.05, "compliance": 0.95}
        for k, s in enumerate(scores.tolist())
    ]
    rows[119] |= {"error": "the learner diverged", "met_gate": False, "score": None}
    path = tmp_path_factory.mktemp("truth") / "truth.json"
    path.write_text(json.dumps({"orders": rows}), encoding="utf-8")
    return path


def test_regret_writes_curves_of_every_method_and_a_picture(truth: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "regret.json"), "--plot", str(tmp_path / "regret.png")]
    assert main(["regret", "--truth", str(truth), "--searches", "3", "--trainings", "25", *files]) == 0
    found = json.loads((tmp_path / "regret.json").read_text(encoding="utf-8"))
    scores = synthetic_truth(2)[:118]
    assert found["best_order"] == int(np.argmax(scores))
    assert found["orders_with_a_score"] == 118
    for curves in found["methods"].values():
        gaps = np.array(curves["gaps"])
        assert gaps.shape == (3, 25)
        assert (gaps >= 0).all()
    assert max(found["methods"]["gp-ucb"]["found_after"]) <= 25
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_recognises_the_best_once_it_stays_in_front() -> None:
    gaps = np.array([[3.0, 0.1, 2.0, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 1.0]])
    regret = Regret(0, 0.0, 0.5, 0.5, 120, {"random": gaps}, {"random": gaps}, {"random": np.ones(3)})
    assert regret.recognised("random").tolist() == [4.0, 1.0, np.inf]


def test_searches_with_other_seeds_tell_mean_scores_and_what_training_adds_to_the_noise() -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, N_ORDERS)) * 2.0 + synthetic_truth(0)
    everything, few = np.arange(N_ORDERS), np.arange(1, N_ORDERS)
    evaluation = np.full(N_ORDERS, 0.01)
    pooled, n = pool([Observations(everything, a, evaluation), Observations(few, b[1:], evaluation[1:])])
    assert n == 2.0
    assert pooled.orders.tolist() == few.tolist()
    np.testing.assert_allclose(pooled.scores, (a + b)[1:] / 2)
    np.testing.assert_allclose(pooled.variances, np.mean((a - b)[1:] ** 2 / 2))
    three, _ = pool([Observations(everything, scores, evaluation) for scores in (a, b, c)])
    assert three.variances[0] == pytest.approx(4.0, rel=0.3)
    alone, n = pool([Observations(everything, a, evaluation)])
    assert n == 1.0
    assert alone.variances[0] == 0.01


def test_regret_counts_what_every_order_tried_lies_below_the_best() -> None:
    scores = synthetic_truth(1)
    truth = Observations(np.arange(N_ORDERS), scores, np.full(N_ORDERS, 1e-6))
    regret = measure_regret([truth], Rule(n_start=2), n_trainings=20, n_searches=2)
    tried = simulate(scores, np.full(N_ORDERS, 1e-3), Rule("gp-ucb", n_start=2), 20).tried
    np.testing.assert_allclose(regret.paid["gp-ucb"][0], scores.max() - scores[tried])
    assert regret.paid["gp-ucb"].mean() < 0.7 * regret.paid["random"].mean()


def test_one_policy_stands_beside_the_specialists(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", tmp_path / "orders.json"
    assert main([*ONE_POLICY, "--run-dir", str(run)]) == 0
    assert main(["orders", str(run), "--truth", str(truth), "--episodes", "4", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [row["order"] for row in found["orders"]] == list(range(N_ORDERS))
    assert found["orders"][7]["specialist_score"] == pytest.approx(synthetic_truth(2)[7])
    assert found["orders"][119]["specialist_score"] is None
    assert found["summary"]["specialists"] == 119
    followed = sum(row["compliance"] >= 0.9 for row in found["orders"])
    assert found["summary"]["orders_followed"] == followed
    capsys.readouterr()
    words = ["evaluate", str(run), "--workflow", "7", "--episodes", "4", "--sampled", "--steps", "8"]
    words += ["--red-agents", "B_lineAgent", "--collector", "sequential", "--json", str(file)]
    assert main(words) == 0
    assert json.loads(file.read_text())["cells"][0]["mean"] == pytest.approx(found["orders"][7]["score"])
    assert found["orders"][7]["name"] == order_name(7)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["regret", "--truth", "nowhere.json"], "nowhere.json holds no scores"),
        (["regret", "--truth", "TRUTH", "--trainings", "121"], "--trainings must be 1 to 120"),
        (["orders", "nowhere", "--truth", "TRUTH"], "nowhere"),
        (["orders", "nowhere", "--truth", "TRUTH", "--episodes", "1"], "--episodes must be 2 or more"),
    ],
)
def test_what_cannot_work_is_one_clear_error(
    words: list[str], says: str, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(truth) if word == "TRUTH" else word for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]
