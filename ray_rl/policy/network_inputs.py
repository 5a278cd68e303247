"""What goes into a network: rows of numbers, or rows of bits of which few are set.

The first layer of a network multiplies its inputs by a matrix, and in learning multiplies them by the derivatives. For
bits both are sums over the bits that are set, which is several times faster than a product of matrices full of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag


class NetworkInputs(Protocol):
    """R rows of D inputs."""

    def __len__(self) -> int:
        """R."""
        ...

    def select(self, rows: Tensor) -> Self:
        """The rows at these positions [r] int64, in this order."""
        ...

    def affine(self, matrix: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """Write inputs · matrix [D, W] + bias [W] to out [R, W], and return that."""
        ...

    def transposed_product(self, delta: Tensor, out: Tensor) -> None:
        """Write inputsᵀ · delta [R, W] to out [D, W]."""
        ...


@dataclass(frozen=True, slots=True)
class NumberInputs:
    """Rows of numbers.

    Attributes:
        values: [R, D].
    """

    values: Tensor

    def __len__(self) -> int:
        """R."""
        return len(self.values)

    def select(self, rows: Tensor) -> NumberInputs:
        """As `NetworkInputs.select`."""
        return NumberInputs(self.values.index_select(0, rows))

    def affine(self, matrix: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """As `NetworkInputs.affine`."""
        return torch.addmm(bias, self.values, matrix, out=out)

    def transposed_product(self, delta: Tensor, out: Tensor) -> None:
        """As `NetworkInputs.transposed_product`."""
        torch.mm(self.values.t(), delta, out=out)


@dataclass(frozen=True, slots=True)
class BitInputs:
    """Rows of bits, as lists of those that are set.

    Attributes:
        starts: [R+1] int32; the set bits of row r are ``active[starts[r] : starts[r + 1]]``, ascending.
        active: Positions of set bits, int32.
    """

    starts: NDArray[np.int32]
    active: NDArray[np.int32]

    @classmethod
    def from_packed(cls, packed: NDArray[np.uint8]) -> BitInputs:
        """Unpack bits.

        Args:
            packed: [R, ceil(D/8)] as `numpy.packbits` gives them; bits beyond D are 0.
        """
        return cls(*_set_bits(packed))

    def __len__(self) -> int:
        """R."""
        return len(self.starts) - 1

    def select(self, rows: Tensor) -> BitInputs:
        """As `NetworkInputs.select`."""
        return BitInputs(*_select(self.starts, self.active, rows.numpy()))

    def affine(self, matrix: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """As `NetworkInputs.affine`."""
        return torch.add(_sums_of_rows(matrix, self.starts, self.active), bias, out=out)

    def transposed_product(self, delta: Tensor, out: Tensor) -> None:
        """As `NetworkInputs.transposed_product`."""
        out.copy_(_sums_of_rows(delta, *_transpose(self.starts, self.active, len(out))))


def _sums_of_rows(matrix: Tensor, starts: NDArray[np.int32], rows: NDArray[np.int32]) -> Tensor:
    """For each list of row numbers the sum of those rows of a matrix [.., W]: [number of lists, W]."""
    return embedding_bag(torch.from_numpy(rows), matrix, torch.from_numpy(starts), mode="sum", include_last_offset=True)


def _byte_tables() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each byte the positions of its set bits, most significant first, [256, 8], and their number [256]."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    positions = np.argsort(1 - bits, axis=1, kind="stable")
    return positions.astype(np.int32), bits.sum(axis=1, dtype=np.int32)


_BYTE_POSITIONS, _BYTE_COUNTS = _byte_tables()


@njit(cache=True, nogil=True)
def _set_bits(packed: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Starts [R+1] and positions of the set bits of [R, B] bytes, most significant bit first."""
    n_rows, n_bytes = packed.shape
    starts = np.zeros(n_rows + 1, dtype=np.int32)
    for row in range(n_rows):
        starts[row + 1] = starts[row]
        for byte in range(n_bytes):
            starts[row + 1] += _BYTE_COUNTS[packed[row, byte]]
    active = np.empty(starts[n_rows] + 8, dtype=np.int32)
    k = 0
    for row in range(n_rows):
        for byte in range(n_bytes):
            value = packed[row, byte]
            # All eight are written, which costs less than to branch; the next byte overwrites those beyond the count.
            for i in range(8):
                active[k + i] = _BYTE_POSITIONS[value, i] + 8 * byte
            k += _BYTE_COUNTS[value]
    return starts, active[:k]


@njit(cache=True, nogil=True)
def _select(
    starts: NDArray[np.int32], active: NDArray[np.int32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The lists at these positions."""
    picked_starts = np.zeros(rows.shape[0] + 1, dtype=np.int32)
    for r in range(rows.shape[0]):
        picked_starts[r + 1] = picked_starts[r] + starts[rows[r] + 1] - starts[rows[r]]
    picked = np.empty(picked_starts[-1], dtype=np.int32)
    for r in range(rows.shape[0]):
        offset = starts[rows[r]] - picked_starts[r]
        for k in range(picked_starts[r], picked_starts[r + 1]):
            picked[k] = active[k + offset]
    return picked_starts, picked


@njit(cache=True, nogil=True)
def _transpose(
    starts: NDArray[np.int32], active: NDArray[np.int32], n_inputs: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each input the list of rows in which it is set, ascending."""
    input_starts = np.zeros(n_inputs + 1, dtype=np.int32)
    for k in range(active.shape[0]):
        input_starts[active[k] + 1] += 1
    for i in range(n_inputs):
        input_starts[i + 1] += input_starts[i]
    ends = input_starts.copy()
    rows = np.empty(active.shape[0], dtype=np.int32)
    for r in range(starts.shape[0] - 1):
        for k in range(starts[r], starts[r + 1]):
            rows[ends[active[k]]] = r
            ends[active[k]] += 1
    return input_starts, rows
