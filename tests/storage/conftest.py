"""Storages to write to: fsspec's memory, an S3 server on this machine, and a disk that is reached through fsspec."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from moto.server import ThreadedMotoServer


class SharedDisk(LocalFileSystem):
    """A disk under a scheme of its own: a storage that keeps half-written files, unlike an object store."""

    protocol = "shareddisk"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server with the bucket ``runs``."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("runs")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["s3", "memory", "shareddisk"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A URL where nothing is yet."""
    name = uuid.uuid4().hex
    if request.param == "s3":
        request.getfixturevalue("s3_server")
        return f"s3://runs/{name}"
    if request.param == "memory":
        return f"memory://{name}"
    fsspec.register_implementation("shareddisk", SharedDisk, clobber=True)
    return f"shareddisk://{tmp_path_factory.mktemp('disk')}/{name}"
