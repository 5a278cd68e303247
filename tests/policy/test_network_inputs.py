"""Bits as lists of what is set give the same products as the table of numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_rl.policy.network_inputs import BitInputs, NetworkInputs, NumberInputs


@pytest.mark.parametrize(("n_rows", "size", "density"), [(50, 97, 0.2), (9, 13, 0.0), (9, 16, 1.0), (1, 1, 0.5)])
def test_both_kinds_of_rows_give_the_same_products(n_rows: int, size: int, density: float) -> None:
    rng = np.random.default_rng(size)
    table = (rng.random((n_rows, size)) < density).astype(np.uint8)
    rows = torch.from_numpy(rng.integers(0, n_rows, 30))
    matrix, bias, delta = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((size, 6), 6, (30, 6)))
    kinds: list[NetworkInputs] = [
        BitInputs.from_packed(np.packbits(table, axis=1), table.shape[1]),
        NumberInputs(torch.from_numpy(table).float()),
    ]
    products = []
    for kind in kinds:
        assert len(kind) == n_rows
        picked = kind.select(rows).ready_to_learn()
        assert len(picked) == 30
        gradient = torch.full((size, 6), 7.0)
        picked.transposed_product(delta, gradient)
        products.append((picked.affine(matrix, bias, torch.empty(30, 6)), gradient))
    numbers = torch.from_numpy(table).float()[rows]
    for result, gradient in products:
        torch.testing.assert_close(result, numbers @ matrix + bias, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, numbers.t() @ delta, atol=1e-5, rtol=1e-5)
