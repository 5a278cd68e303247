"""What goes into a network: rows of numbers, or rows of bits of which few are set.

The first layer of a network multiplies its inputs by a matrix, and in learning multiplies them by the derivatives. For
bits both are sums over the bits that are set, which is several times faster than a product of matrices full of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    def ready_to_learn(self) -> Self:
        """The same rows, ready for `transposed_product`."""
        ...

    def affine(self, matrix: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """Write inputs · matrix [D, W] + bias [W] to out [R, W], and return that."""
        ...

    def transposed_product(self, delta: Tensor, out: Tensor) -> None:
        """Write inputsᵀ · delta [R, W] to out [D, W]; the rows are ready to learn."""
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

    def ready_to_learn(self) -> NumberInputs:
        """As `NetworkInputs.ready_to_learn`."""
        return self

    def affine(self, matrix: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """As `NetworkInputs.affine`."""
        return torch.addmm(bias, self.values, matrix, out=out)

    def transposed_product(self, delta: Tensor, out: Tensor) -> None:
        """As `NetworkInputs.transposed_product`."""
        torch.mm(self.values.t(), delta, out=out)


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of numbers, one behind another.

    Attributes:
        starts: [L + 1] int32; list number l is ``members[starts[l] : starts[l + 1]]``.
        members: Numbers of all lists, int32.
    """

    starts: NDArray[np.int32]
    members: NDArray[np.int32]

    def sums(self, matrix: Tensor) -> Tensor:
        """For each list the sum of those rows of a matrix [.., W]: [L, W]."""
        members, starts = torch.from_numpy(self.members), torch.from_numpy(self.starts)
        return embedding_bag(members, matrix, starts, mode="sum", include_last_offset=True)


@dataclass(frozen=True, slots=True)
class BitInputs:
    """Rows of bits, as lists of those that are set.

    Attributes:
        size: D.
        bits_of_row: R lists: the bits of each row that are set, ascending.
        rows_of_bit: D lists: the rows in which each bit is set, ascending; None where they are not ready to learn.
    """

    size: int
    bits_of_row: Lists
    rows_of_bit: Lists | None = None

    @classmethod
    def from_packed(cls, packed: NDArray[np.uint8], size: int) -> BitInputs:
        """Unpack bits.

        Args:
            packed: [R, ceil(D/8)] as `numpy.packbits` gives them; bits beyond D are 0.
            size: D.
        """
        return cls(size, Lists(*_set_bits(packed)))

    def __len__(self) -> int:
        """R."""
        return len(self.bits_of_row.starts) - 1

    def select(self, rows: Tensor) -> BitInputs:
        """As `NetworkInputs.select`."""
        return BitInputs(self.size, Lists(*_select(self.bits_of_row.starts, self.bits_of_row.members, rows.numpy())))

    def ready_to_learn(self) -> BitInputs:
        """As `NetworkInputs.ready_to_learn`."""
        bits = self.bits_of_row
        return replace(self, rows_of_bit=Lists(*_transpose(bits.starts, bits.members, self.size)))

    def affine(self, matrix: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """As `NetworkInputs.affine`."""
        return torch.add(self.bits_of_row.sums(matrix), bias, out=out)

    def transposed_product(self, delta: Tensor, out: Tensor) -> None:
        """As `NetworkInputs.transposed_product`."""
        assert self.rows_of_bit is not None
        out.copy_(self.rows_of_bit.sums(delta))


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
    starts: NDArray[np.int32], members: NDArray[np.int32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The lists at these positions."""
    picked_starts = np.zeros(rows.shape[0] + 1, dtype=np.int32)
    for r in range(rows.shape[0]):
        picked_starts[r + 1] = picked_starts[r] + starts[rows[r] + 1] - starts[rows[r]]
    picked = np.empty(picked_starts[-1], dtype=np.int32)
    end = np.uint64(0)  # unsigned: numba need not look for positions counted from the end
    for row in rows:
        for k in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
            picked[end] = members[k]
            end += np.uint64(1)
    return picked_starts, picked


@njit(cache=True, nogil=True)
def _transpose(
    starts: NDArray[np.int32], members: NDArray[np.int32], n_numbers: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each number below `n_numbers` the lists that it is in, ascending."""
    lists_starts = np.zeros(n_numbers + 1, dtype=np.int32)
    for k in range(members.shape[0]):
        lists_starts[members[k] + 1] += 1
    for i in range(n_numbers):
        lists_starts[i + 1] += lists_starts[i]
    ends = lists_starts.copy()
    lists = np.empty(members.shape[0], dtype=np.int32)
    for r in range(starts.shape[0] - 1):
        for k in range(starts[r], starts[r + 1]):
            number = np.uint64(members[k])  # unsigned: see above
            lists[np.uint64(ends[number])] = r
            ends[number] += 1
    return lists_starts, lists
