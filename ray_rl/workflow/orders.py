"""The 120 orders of repair: permutations of the five types of host, the most important first.

An order is known by its index 0…119 (lexicographic), by its names (``op_server,enterprise,defender,op_host,user``), and
to a network by its code: 25 bits, five for each position, of which the one of the type that stands there is set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

HOST_TYPES: Final = ("defender", "enterprise", "op_server", "op_host", "user")
"""The types of host, by their numbers 0…4."""
N_TYPES: Final = len(HOST_TYPES)
N_ORDERS: Final = 120
ORDER_CODE_SIZE: Final = N_TYPES * N_TYPES
RANDOM_ORDER: Final = "random"
"""Stands for an order that each episode draws for itself."""

ORDERS: Final = np.array(list(itertools.permutations(range(N_TYPES))), dtype=np.int64)
"""[120, 5] types of each order, the most important first."""
ORDER_BITS: Final = ORDERS + N_TYPES * np.arange(N_TYPES)
"""[120, 5] positions of the set bits of each order's code, ascending."""


def type_of_host(name: str) -> int:
    """The type of a host of CAGE-2, 0…4.

    Args:
        name: As the scenario has it, for example ``Op_Server0``.

    Raises:
        ValueError: For a host of no known type.
    """
    kind = name.rstrip("0123456789").lower()
    if kind not in HOST_TYPES:
        raise ValueError(f"host {name!r} is of no known type; types: {', '.join(HOST_TYPES)}")
    return HOST_TYPES.index(kind)


def order_index(types: Sequence[int]) -> int:
    """The index of an order.

    Args:
        types: The five types, the most important first.

    Raises:
        ValueError: When they are no permutation of 0…4.
    """
    if sorted(types) != list(range(N_TYPES)):
        raise ValueError(f"{list(types)} is no permutation of the types 0…{N_TYPES - 1}")
    rest = list(range(N_TYPES))
    index = 0
    for kind in types:
        place = rest.index(kind)
        index = index * len(rest) + place
        rest.pop(place)
    return index


def order_name(index: int) -> str:
    """The types of an order by name, the most important first, with commas between them."""
    return ",".join(HOST_TYPES[kind] for kind in ORDERS[index])


def parse_order(text: str) -> int:
    """The index of an order that a user names.

    Args:
        text: An index 0…119, or all five types with commas between them.

    Raises:
        ValueError: When it is neither; says what is wrong.
    """
    text = text.strip()
    if text.lstrip("+-").isdecimal():
        if not 0 <= int(text) < N_ORDERS:
            raise ValueError(f"order {text} is outside 0…{N_ORDERS - 1}")
        return int(text)
    names = [name.strip().lower().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in HOST_TYPES:
            raise ValueError(f"unknown host type {name!r}; an order names all of {','.join(HOST_TYPES)}")
    if len(names) != N_TYPES or len(set(names)) != N_TYPES:
        raise ValueError(f"{text!r} is no order: it must name each of {','.join(HOST_TYPES)} exactly once")
    return order_index([HOST_TYPES.index(name) for name in names])


def order_code(index: int) -> NDArray[np.uint8]:
    """What a network sees of an order: [25] uint8, bit 5·position + type set."""
    code = np.zeros(ORDER_CODE_SIZE, dtype=np.uint8)
    code[ORDER_BITS[index]] = 1
    return code


def kendall_distances() -> NDArray[np.int64]:
    """Kendall's distance between all orders: pairs of types that two orders rank differently, [120, 120] in 0…10."""
    ranks = np.argsort(ORDERS, axis=1)  # [120, 5] place of each type
    first, second = np.triu_indices(N_TYPES, 1)
    before = ranks[:, first] < ranks[:, second]  # [120, 10]
    distances: NDArray[np.int64] = (before[:, None, :] != before[None, :, :]).sum(axis=2, dtype=np.int64)
    return distances
