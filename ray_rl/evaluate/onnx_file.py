"""A trained policy as an ONNX file: the network alone, for whoever brings observations and masks of their own.

An MLP takes ``observation`` [N, D] and gives ``logits`` [N, A]. A GRU takes ``last_action`` [N, A] besides (a one at
the place of the policy's own last action, zeros at first) and ``memory`` [N, H] (zeros at first), and gives
``next_memory`` too.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ray_rl
from ray_rl.config import UserError
from ray_rl.evaluate.policies import TrainedPolicy
from ray_rl.policy.inference import PolicyWeights

_OPSET = 17
_IR_VERSION = 9
"""Old enough for runtimes of the last years."""
ONNX_FILE = "policy.onnx"


def export_onnx(policy: TrainedPolicy, folder: Path, score: str) -> None:
    """Write ``policy.onnx``.

    Args:
        policy: What to export.
        folder: New or empty folder.
        score: What the policy scored, in words; kept in the file's description.

    Raises:
        UserError: When the package onnx is missing.
    """
    onnx = load_onnx()
    folder.mkdir(parents=True, exist_ok=True)
    about = " ".join(part for part in (policy.spec.name, policy.made_by, score) if part)
    onnx.save(make_model(onnx, policy.weights, about), folder / ONNX_FILE)


def load_onnx() -> ModuleType:
    """The package onnx.

    Raises:
        UserError: When it is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("--format onnx needs the package onnx: pip install 'ray_rl[onnx]'") from error
    return onnx


def make_model(onnx: Any, weights: PolicyWeights, about: str) -> Any:
    """The network as an ``onnx.ModelProto``, checked.

    Args:
        onnx: The package.
        weights: The network.
        about: Description to keep.
    """
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    n_inputs, n_actions = int(weights.sizes[0]), int(weights.sizes[-1])
    tensors: dict[str, NDArray[Any]] = {}
    nodes, inputs, outputs = [], {"observation": n_inputs}, {"logits": n_actions}
    start, last, first_layer = 0, "observation", 0
    if weights.kind == "gru":
        n_units = int(weights.sizes[1])
        inputs |= {"last_action": n_actions, "memory": n_units}
        outputs["next_memory"] = n_units
        start, first_layer = _gru_tensors(weights, n_inputs + n_actions, n_units, tensors), 1
        tensors["time"] = np.zeros(1, dtype=np.int64)
        nodes += [
            helper.make_node("Concat", ["observation", "last_action"], ["seen"], axis=1),
            helper.make_node("Unsqueeze", ["seen", "time"], ["seen_once"]),
            helper.make_node("Unsqueeze", ["memory", "time"], ["memory_once"]),
            helper.make_node(
                "GRU",
                ["seen_once", "W", "R", "B", "", "memory_once"],
                ["", "next_memory_once"],
                hidden_size=n_units,
                linear_before_reset=1,
            ),
            helper.make_node("Squeeze", ["next_memory_once", "time"], ["next_memory"]),
        ]
        last = "next_memory"
    sizes = weights.sizes.tolist()[first_layer:]
    for number, (n_in, n_out) in enumerate(pairwise(sizes)):
        end = start + n_in * n_out
        tensors[f"matrix_{number}"] = weights.values[start:end].reshape(n_in, n_out)
        tensors[f"bias_{number}"] = weights.values[end : end + n_out]
        start = end + n_out
        out = "logits" if number == len(sizes) - 2 else f"sum_{number}"
        nodes.append(helper.make_node("Gemm", [last, f"matrix_{number}", f"bias_{number}"], [out]))
        if out != "logits":
            last = f"hidden_{number}"
            nodes.append(helper.make_node("Relu", [out], [last]))
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(name, kind, ["N", size]) for name, size in inputs.items()],
        [helper.make_tensor_value_info(name, kind, ["N", size]) for name, size in outputs.items()],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in tensors.items()],
        doc_string=about,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="ray_rl",
        producer_version=ray_rl.__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _gru_tensors(weights: PolicyWeights, n_inputs: int, n_units: int, tensors: dict[str, NDArray[Any]]) -> int:
    """Add the GRU's tensors as ONNX wants them, gates in the order update, reset, candidate; returns where they end."""
    parts, start = [], 0
    for shape in ((n_inputs, 3 * n_units), (3 * n_units,), (n_units, 3 * n_units), (3 * n_units,)):
        end = start + int(np.prod(shape))
        reset, update, candidate = np.split(weights.values[start:end].reshape(shape), 3, axis=-1)
        parts.append(np.concatenate((update, reset, candidate), axis=-1))
        start = end
    tensors |= {
        "W": parts[0].T[None],
        "R": parts[2].T[None],
        "B": np.concatenate((parts[1], parts[3]))[None],
    }
    return start
