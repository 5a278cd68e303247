"""Where a learner computes: on the CPU, or on a GPU that it has to itself."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ray_rl.config import DeviceName, UserError

CPU = torch.device("cpu")


def learner_device(name: DeviceName) -> torch.device:
    """The device of that name.

    Raises:
        UserError: When there is none.
    """
    if name == "cpu":
        return CPU
    # Else cuBLAS may add up in another order from run to run (https://pytorch.org/docs/stable/notes/randomness.html).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not torch.cuda.is_available():
        raise UserError(
            f"--learner-device {name}: torch {torch.__version__} finds no GPU here. Install a torch that is built for "
            "CUDA where there is one, or learn with --learner-device cpu"
        )
    return torch.device(name)


def onto(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host in the memory of a device: on the CPU themselves, on a GPU a copy.

    A copy goes through pinned memory, while whoever asked for it goes on.
    """
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)
