"""The rules of alignment: by hand, and against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rl.envs.cage2.constants import HOSTS
from ray_rl.workflow.alignment import align, judge
from ray_rl.workflow.orders import HOST_TYPES, ORDERS, order_name, parse_order, type_of_host
from ray_rl.workflow.reference import reference_alignment
from ray_rl.workflow.rule import AlignmentRule

ORDER = parse_order("op_server,enterprise,user,defender,op_host")
DEFENDER, ENTERPRISE, OP_SERVER, OP_HOST, USER = range(5)


@pytest.mark.parametrize(
    ("compromised", "target", "verdict"),
    [
        ((), -1, -1),
        ((ENTERPRISE,), -1, -1),  # no fix is no verdict
        ((), USER, 1),  # nothing is compromised: any fix will do
        ((ENTERPRISE,), ENTERPRISE, 1),
        ((ENTERPRISE,), USER, 0),
        ((ENTERPRISE, USER), ENTERPRISE, 1),
        ((ENTERPRISE, USER), USER, 0),
        ((ENTERPRISE, USER), OP_SERVER, 0),  # more important, but clean
        ((OP_HOST,), OP_HOST, 1),  # the least important, alone
        ((DEFENDER, OP_HOST), OP_HOST, 0),
        ((DEFENDER, ENTERPRISE, OP_SERVER, OP_HOST, USER), OP_SERVER, 1),
    ],
)
def test_a_fix_must_hit_the_most_important_compromised_type(
    compromised: tuple[int, ...], target: int, verdict: int
) -> None:
    assert judge(ORDERS[ORDER], sum(1 << kind for kind in compromised), target) == verdict


@pytest.mark.parametrize(
    ("verdicts", "rule", "rewards", "compliance", "fixes"),
    [
        ([-1, 1, -1], AlignmentRule(), [0, 30, 0], 1.0, 1),
        ([0, -1, 1], AlignmentRule(), [0, 0, 15], 0.5, 2),
        ([1, 0, 0, 1], AlignmentRule(12), [12, -6, -2, 2], 0.5, 4),
        ([-1, -1], AlignmentRule(), [0, -6], 0.5, 0),  # no fix at all
        ([1, 0], AlignmentRule(10, 1, 3), [11, -8], 0.5, 2),
        ([1, 0, -1], AlignmentRule(0, 0, 0), [0, 0, 0], 0.5, 2),
    ],
)
def test_compliance_is_paid_as_it_changes(
    verdicts: list[int], rule: AlignmentRule, rewards: list[float], compliance: float, fixes: int
) -> None:
    result = align(np.array(verdicts, dtype=np.int8), np.array([len(verdicts)], dtype=np.int32), rule)
    np.testing.assert_allclose(result.rewards, rewards, rtol=1e-6)
    assert result.returns[0] == pytest.approx(sum(rewards))
    assert result.compliance[0] == compliance
    assert result.fixes[0] == fixes


def test_episodes_do_not_run_into_each_other() -> None:
    verdicts = np.array([1, 0, -1, -1, 0, 1], dtype=np.int8)
    result = align(verdicts, np.array([2, 2, 2], dtype=np.int32), AlignmentRule(10))
    np.testing.assert_allclose(result.rewards, [10, -5, 0, -2, 0, 5])
    assert result.compliance.tolist() == [0.5, 0.5, 0.5]
    assert result.fixes.tolist() == [2, 0, 2]
    np.testing.assert_allclose(result.returns, [5, -2, 5])


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["Sleep", "Monitor", *(f"{v} {h}" for v in ("Analyse", "Remove", "Restore") for h in HOSTS)]),
        st.sets(st.sampled_from(HOSTS)),
    ),
    min_size=1,
    max_size=30,
)


@given(
    st.integers(0, 119), _STEPS, st.floats(0, 100), st.sampled_from([(0.0, 0.0), (1.5, 0.0), (0.0, 2.0), (0.5, 0.25)])
)
def test_the_compiled_rules_are_those_of_the_reference(
    order: int, steps: list[tuple[str, set[str]]], weight: float, extras: tuple[float, float]
) -> None:
    actions, red_hosts = [a for a, _ in steps], [hosts for _, hosts in steps]
    expected = reference_alignment(order_name(order).split(","), actions, red_hosts, weight, *extras)
    verdicts = []
    for action, hosts in steps:
        verb, _, host = action.partition(" ")
        target = type_of_host(host) if verb in ("Remove", "Restore") else -1
        compromised = {type_of_host(h) for h in hosts if h != "User0"}
        verdicts.append(judge(ORDERS[order], sum(1 << kind for kind in compromised), target))
    found = align(
        np.array(verdicts, dtype=np.int8), np.array([len(steps)], dtype=np.int32), AlignmentRule(weight, *extras)
    )
    np.testing.assert_allclose(found.rewards, expected.rewards, rtol=1e-5, atol=1e-4)
    assert found.compliance[0] == pytest.approx(expected.compliance)
    assert found.fixes[0] == expected.fixes


def test_all_types_are_known_to_both() -> None:
    assert set(order_name(ORDER).split(",")) == set(HOST_TYPES)
