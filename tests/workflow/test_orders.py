"""Orders of repair: every name for them means the same one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ray_rl.envs.cage2.constants import HOSTS
from ray_rl.workflow.orders import (
    HOST_TYPES,
    N_ORDERS,
    ORDERS,
    kendall_distances,
    order_code,
    order_index,
    order_name,
    parse_order,
    type_of_host,
)


def test_every_host_has_its_type() -> None:
    kinds = [HOST_TYPES[type_of_host(host)] for host in HOSTS]
    assert kinds == ["defender"] + ["enterprise"] * 3 + ["op_host"] * 3 + ["op_server"] + ["user"] * 5
    with pytest.raises(ValueError, match="Router1"):
        type_of_host("Router1")


def test_index_types_name_and_code_are_one() -> None:
    assert len(ORDERS) == N_ORDERS
    for index, types in enumerate(ORDERS.tolist()):
        assert order_index(types) == index
        assert parse_order(order_name(index)) == index
        assert parse_order(str(index)) == index
        assert order_code(index).reshape(5, 5).argmax(axis=1).tolist() == types
        assert order_code(index).sum() == 5
    assert order_name(0) == "defender,enterprise,op_server,op_host,user"
    assert parse_order(" Op-Server, enterprise,defender,op_host,user") == order_index([2, 1, 0, 3, 4])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("120", "outside"),
        ("-1", "outside"),
        ("user,user,op_host,defender,enterprise", "exactly once"),
        ("user,op_host", "exactly once"),
        ("user,op_host,defender,enterprise,router", "'router'"),
        ("", "unknown host type"),
    ],
)
def test_what_is_no_order_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_order(text)


def test_types_that_are_no_permutation_are_refused() -> None:
    with pytest.raises(ValueError, match="permutation"):
        order_index([0, 1, 2, 3, 3])


def test_kendall_distance_counts_the_pairs_ranked_differently() -> None:
    distances = kendall_distances()
    for a, b in [(0, 0), (0, 119), (0, 1), (17, 93), (64, 5)]:
        pairs = itertools.combinations(range(5), 2)
        left, right = ORDERS[a].tolist(), ORDERS[b].tolist()
        differing = sum((left.index(x) < left.index(y)) != (right.index(x) < right.index(y)) for x, y in pairs)
        assert distances[a, b] == differing
    assert distances[0, 119] == 10
    np.testing.assert_array_equal(distances, distances.T)
