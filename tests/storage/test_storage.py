"""Places in remote storage: what users name, what is written whole, and what is found before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import s3fs

from ray_rl.config import TrainConfig, UserError
from ray_rl.run_folder import check_run_folder
from ray_rl.storage import is_remote, location, write_whole


def config_of(place: str, **changes: object) -> TrainConfig:
    return TrainConfig.from_mapping({"run_dir": place} | changes, "test")


@pytest.mark.parametrize(
    ("name", "path"), [("runs/mine", "runs/mine"), ("file:///mnt/share/my%20run", "/mnt/share/my run")]
)
def test_a_folder_of_this_machine_is_a_plain_path(name: str, path: str) -> None:
    assert location(name) == Path(path)
    assert not is_remote(location(name))


def test_a_url_stays_what_the_user_wrote(place: str) -> None:
    assert config_of(place).run.run_dir == place
    assert str(location(place) / "config.yaml") == f"{place}/config.yaml"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s4://bucket/run", "unknown kind of storage"),
        ("gs://bucket/run", "gcsfs"),
    ],
)
def test_a_storage_that_nothing_here_can_reach_is_refused_with_the_remedy(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config_of(name)


def test_what_is_written_replaces_what_was_there_and_leaves_nothing_beside(place: str) -> None:
    folder = location(place)
    for text in ("first", "second, longer", "3"):
        write_whole(folder / "file.txt", text.encode())
        assert (folder / "file.txt").read_text() == text
    assert [p.name for p in folder.iterdir()] == ["file.txt"]


def test_a_bucket_that_does_not_exist_is_found_before_training(s3_server: str) -> None:
    with pytest.raises(UserError, match=r"cannot use --run-dir s3://nobodys/run: .*bucket does not exist"):
        check_run_folder(config_of("s3://nobodys/run"))


def test_a_server_that_does_not_answer_is_found_before_training(
    s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()  # a connection that is there already would be used
    with pytest.raises(UserError, match=r"cannot use --run-dir s3://runs/x: .*127.0.0.1:1"):
        check_run_folder(config_of("s3://runs/x"))
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_without_the_right_to_write_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the refusal is made."""
    import fsspec.implementations.memory as memory

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(memory.MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(UserError, match=r"cannot use --run-dir memory://.*: Access Denied; check"):
        check_run_folder(config_of("memory://locked"))


def test_looking_leaves_nothing_behind(place: str) -> None:
    check_run_folder(config_of(place))
    assert list(location(place).parent.glob(f"{location(place).name}/**/*.probe*")) == []
    folder = location(place)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_place_that_holds_something_else_is_refused_and_left_alone(place: str) -> None:
    write_whole(location(place) / "thesis.txt", b"precious")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        check_run_folder(config_of(place))
    assert [p.name for p in location(place).iterdir()] == ["thesis.txt"]
