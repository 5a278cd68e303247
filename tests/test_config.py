from __future__ import annotations

from pathlib import Path

import pytest

from ray_rl.config import TrainConfig, UserError, field_homes, load_yaml, suggest


def test_yaml_written_is_the_configuration_read(tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(
        {"view": "memory", "hidden_sizes": [32, 16], "target_kl": 0.02, "n_workers": 3, "run_dir": "somewhere"}, "test"
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_yaml(path) == config


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# nothing\n", encoding="utf-8")
    assert load_yaml(path) == TrainConfig()


def test_every_field_has_help_that_is_a_sentence() -> None:
    for group in TrainConfig.model_fields.values():
        for name, field in group.annotation.model_fields.items():
            assert field.description, name
            assert field.description.endswith("."), name
    assert len(field_homes()) > 30


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"n_wokers": 3}, r"unknown key 'n_wokers'; did you mean 'n_workers'"),
        ({"n_workers": 0}, r"n_workers: .*greater than or equal to 1 \(given: 0\)"),
        ({"learning_rate": float("nan")}, r"learning_rate: .*finite"),
        ({"learning_rate": -1e-3}, r"learning_rate: .*greater than 0"),
        ({"discount": 1.5}, r"discount: .*less than or equal to 1"),
        ({"red_agent": "BlineAgent"}, r"unknown red agent 'BlineAgent'; did you mean 'B_lineAgent'"),
        ({"minibatches": 20_001}, r"minibatches \(20001\) exceed the 20000 steps"),
        ({"total_episodes": 100}, r"episodes_per_update \(200\) exceeds total_episodes \(100\)"),
        ({"latency_mean_s": 0.06}, r"latency_max_s must be larger"),
        ({"hidden_sizes": []}, r"hidden_sizes"),
        ({"collector": "threads"}, r"collector: .*'ray-tasks'"),
        ({"seed": -1}, r"seed"),
    ],
)
def test_what_cannot_work_is_refused_with_the_field_and_the_remedy(values: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=f"^here: .*{says}" if "key" not in says else says):
        TrainConfig.from_mapping(values, "here")


@pytest.mark.parametrize(
    ("text", "says"), [("- 1\n- 2\n", "key: value"), ("a: [", "is no YAML"), ("\x00", "is no YAML")]
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        load_yaml(path)


def test_the_nearest_word_is_suggested_whatever_its_case() -> None:
    assert "B_lineAgent" in suggest("b_lineagent", ["B_lineAgent", "SleepAgent"])
    assert suggest("zzz", ["b", "a"]) == "; known: a, b"
