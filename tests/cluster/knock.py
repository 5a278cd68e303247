"""Runs on a host: knocks at every door of a cluster, and prints as JSON what each answers to which token.

Arguments: the head's address, the dashboard's, the right token. It speaks to the doors themselves, since Ray's own
clients would read a token from the host's files.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
from ray.core.generated import (
    gcs_service_pb2,
    gcs_service_pb2_grpc,
    node_manager_pb2,
    node_manager_pb2_grpc,
    ray_client_pb2,
    ray_client_pb2_grpc,
)

TIMEOUT_S = 60


def web(address: str) -> Callable[[str | None], str]:
    def knock(token: str | None) -> str:
        request = urllib.request.Request(address)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return str(answer.status)
        except urllib.error.HTTPError as error:
            return str(error.code)

    return knock


def rpc(address: str, stub: Any, name: str, request: Any) -> Callable[[str | None], str]:
    def knock(token: str | None) -> str:
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        with grpc.insecure_channel(address) as channel:
            try:
                getattr(stub(channel), name)(request, timeout=TIMEOUT_S, metadata=metadata)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    return knock


def nodes(gcs: str, token: str) -> list[Any]:
    with grpc.insecure_channel(gcs) as channel:
        ask = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetAllNodeInfo
        metadata = (("authorization", f"Bearer {token}"),)
        return list(ask(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=TIMEOUT_S, metadata=metadata).node_info_list)


def main(head: str, dashboard: str, right: str) -> None:
    gcs = f"{head}:6379"
    all_nodes = gcs_service_pb2.GetAllNodeInfoRequest()
    ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
    doors = {
        "dashboard": web(f"{dashboard}/nodes?view=summary"),
        "version": web(f"{dashboard}/api/version"),
        "jobs": web(f"{dashboard}/api/jobs/"),
        "GCS": rpc(gcs, gcs_service_pb2_grpc.NodeInfoGcsServiceStub, "GetAllNodeInfo", all_nodes),
        "client": rpc(f"{head}:10001", ray_client_pb2_grpc.RayletDriverStub, "ClusterInfo", ping),
    }
    for node in nodes(gcs, right):
        address = f"{node.node_manager_address}:{node.node_manager_port}"
        stats = node_manager_pb2.GetNodeStatsRequest()
        doors[f"raylet {address}"] = rpc(address, node_manager_pb2_grpc.NodeManagerServiceStub, "GetNodeStats", stats)
    tokens = {"none": None, "wrong": "0" * len(right), "right": right}
    said = {door: {name: knock(token) for name, token in tokens.items()} for door, knock in doors.items()}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
