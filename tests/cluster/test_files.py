"""The files in which a cluster is described, checked as far as it goes without a cloud: form, shell, safety."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_rl.ray_runtime import FAST_FAILURE

ROOT = Path(__file__).parents[2]
RAY_UP = ("cluster.yaml", "cluster/gcp.yaml", "cluster/azure.yaml", "cluster/on-prem.yaml")
CLOUDS = RAY_UP[:3]
KUBERAY = ("raycluster", "rayjob")
HEADS = (*RAY_UP, *(f"cluster/kuberay/{name}.yaml" for name in KUBERAY), "cluster/slurm.sbatch")
CRDS = os.environ.get("RAY_RL_KUBERAY_CRD")
"""File with the RayCluster's CustomResourceDefinition, from the KubeRay operator's repository."""


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def check(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does: fill in what is left out, then hold it against Ray's schema."""
    filled = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    return filled


def commands(config: dict[str, Any]) -> list[str]:
    return [line for key, lines in config.items() if key.endswith("_commands") for line in lines]


def code(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_takes_it(name: str) -> None:
    filled = check(load(name))
    for stale in ("head_node", "worker_nodes", "initial_workers", "target_utilization_fraction"):
        assert stale not in load(name)
    (head,) = (filled["head_node_type"],)
    workers = {kind: node for kind, node in filled["available_node_types"].items() if kind != head}
    if name in CLOUDS:
        assert filled["available_node_types"][head]["resources"]["CPU"] == 0  # no episodes on the head
        assert [(node["min_workers"], node["max_workers"]) for node in workers.values()] == [(0, 16)]
        assert re.search("spot|preemptible", str(workers), re.IGNORECASE)
        assert not re.search("spot|preemptible", str(filled["available_node_types"][head]), re.IGNORECASE)
    else:
        assert "--num-cpus=0" in " ".join(filled["head_start_ray_commands"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"worker_setup_comands": []}, "worker_setup_comands"),
        ({"upscaling_speed": "quick"}, "quick"),
        ({"auth": {"ssh_usr": "ray"}}, "ssh_usr"),
    ],
)
@pytest.mark.parametrize("name", RAY_UP)
def test_a_wrong_key_is_refused_and_named(name: str, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=named):
        check({**load(name), **wrong})


def test_a_file_without_hosts_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    config = load("cluster/on-prem.yaml")
    del config["provider"]["worker_ips"]
    with pytest.raises(click.ClickException):
        check(config)
    assert "list of `worker_ips`" in "".join(capsys.readouterr())


def test_fewer_machines_than_are_asked_for_are_refused() -> None:
    config = load("cluster.yaml")
    config["max_workers"] = 2
    config["available_node_types"]["worker"]["min_workers"] = 3
    with pytest.raises(ValueError, match="max_workers"):
        check(config)


@pytest.mark.parametrize("name", RAY_UP)
def test_it_is_safe(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    config = load(name)
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_AUTH_MODE=token" in " ".join(config["setup_commands"])
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in " ".join(config["setup_commands"])
    assert not re.search(r"0\.0\.0\.0|AKIA|BEGIN|password|[0-9a-f]{32}", text)


@pytest.mark.parametrize("name", HEADS)
def test_it_gives_a_lost_machine_up_as_quickly_as_the_drill_proves(name: str) -> None:
    (settings,) = re.findall(r"\{\s*\"health_check[^}]*\}", (ROOT / name).read_text(encoding="utf-8"))
    assert json.loads(settings) == FAST_FAILURE


@pytest.mark.parametrize("name", RAY_UP)
def test_what_is_sent_is_there_and_its_commands_are_shell(name: str) -> None:
    config = load(name)
    for source in config["file_mounts"].values():
        assert source.startswith("~") or (ROOT / source).exists(), source
    for line in commands(config):
        assert isinstance(line, str), line  # a colon in YAML makes a mapping of a command
        assert code(line).returncode == 0, line
    assert code("if true; then").returncode != 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_files_and_commands_pass_shellcheck() -> None:
    files = [*ROOT.glob("cluster/**/*.sh"), *ROOT.glob("cluster/*.sbatch"), *ROOT.glob("scripts/*.sh")]
    lines = "\n".join(line for name in RAY_UP for line in commands(load(name)))
    # A command begins in the home folder, ~ in a word of its own is the shell's, and so are quotes that write $HOME.
    aloud = ["shellcheck", "--shell=bash", "--exclude=SC2016,SC2164,SC2086,SC2088,SC2103", "-"]
    for words, given in ((["shellcheck", *map(str, files)], None), (aloud, lines)):
        ended = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout


def manifests(name: str) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((ROOT / f"cluster/kuberay/{name}.yaml").read_text(encoding="utf-8"))


def cluster_spec(name: str) -> dict[str, Any]:
    (manifest,) = manifests(name)
    return manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]


def strict(schema: Any) -> Any:
    """An OpenAPI schema of Kubernetes as a JSON schema that refuses unknown fields, as `kubectl` does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.skipif(CRDS is None, reason="RAY_RL_KUBERAY_CRD names no file")
def test_kuberay_takes_the_cluster() -> None:
    with open(str(CRDS), encoding="utf-8") as file:
        crd = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    v1 = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = jsonschema.Draft202012Validator(strict(v1["schema"]["openAPIV3Schema"]["properties"]["spec"]))
    for name in KUBERAY:
        spec = cluster_spec(name)
        assert [f"{list(e.path)}: {e.message}" for e in schema.iter_errors(spec)] == []
        broken = copy.deepcopy(spec)
        broken["workerGroupSpecs"][0]["minReplica"] = 1
        assert "minReplica" in next(iter(schema.iter_errors(broken))).message


def test_kuberay_files_agree_and_are_safe() -> None:
    assert cluster_spec("raycluster") == cluster_spec("rayjob")
    spec = cluster_spec("rayjob")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (claim,) = manifests("runs-volume")
    (volume,) = spec["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    settings = spec["headGroupSpec"]["rayStartParams"]["system-config"]
    assert code(f"ray start --system-config={settings}").returncode == 0


def test_images_are_of_the_tested_ray() -> None:
    tested = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert tested is not None
    named = [load(name)["docker"]["image"] for name in CLOUDS]
    named += re.findall(r"^FROM (.*)$", (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {image.split(":")[1].split("-")[0] for image in named} == {tested[1]}
    assert {cluster_spec(name)["rayVersion"] for name in KUBERAY} == {tested[1]}


def test_what_the_dockerfile_copies_is_there() -> None:
    lines = re.findall(r"^COPY --chown=\S+ (.*) \S+$", (ROOT / "cluster/Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert lines
    assert [source for line in lines for source in line.split() if not (ROOT / source).exists()] == []
