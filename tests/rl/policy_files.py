"""Policy files made by hand: no training, known actions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx: Any = pytest.importorskip("onnx", reason="needs onnx, of the extras rllib, sb3 and torchrl")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'zgrid[onnx]'")


def write_linear(
    path: Path, weights: Any, bias: Sequence[float], about: Mapping[str, str] | None = None, *, names: Any = None
) -> Path:
    """A file whose action is weights @ observation + bias; ``weights`` (n_actions, n_obs)."""
    see, do = names or ("observation", "action")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    w = np.asarray(weights, dtype=np.float32)
    constants = {"w": w, "b": np.asarray(bias, dtype=np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Gemm", [see, "w", "b"], [do], transB=1)],
        "linear",
        [helper.make_tensor_value_info(see, kind, ["n", w.shape[1]])],
        [helper.make_tensor_value_info(do, kind, ["n", w.shape[0]])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    helper.set_model_props(model, dict(about or {}))
    path.write_bytes(model.SerializeToString())
    return path


def write_constant(path: Path, n_obs: int, action: Sequence[float], about: Mapping[str, str] | None = None) -> Path:
    """A file that always says the same."""
    return write_linear(path, np.zeros((len(action), n_obs)), action, about)


def properties(path: Path) -> dict[str, Any]:
    """What a file says of itself; what is JSON there is read."""
    told = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    return told | {key: json.loads(told[key]) for key in ("observation", "action", "pad")}
