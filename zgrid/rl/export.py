"""Export: the actors of a checkpoint as ONNX files that a grid node plays without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import CheckpointError
from zgrid.rl.checkpoint import SHARED, About, read_about, read_actors
from zgrid.rl.networks import CLIP, Actor
from zgrid.topology import Topology, load

_OPSET = 17
_IR_VERSION = 8
"""Old enough for every onnxruntime that zgrid takes."""
GRID = "{grid}"


def export(folder: Path, target: Path) -> list[Path]:
    """Write the policies of a checkpoint; the files written.

    A policy that all grids share is one file. Where each grid has its own, the name of the target holds ``{grid}``.

    Raises:
        CheckpointError: no usable checkpoint, or a target that does not fit its policies.
    """
    about, actors = read_about(folder), read_actors(folder)
    shared = about.policies == [SHARED]
    if shared and GRID in str(target):
        raise CheckpointError(
            f"{target}: all grids of this checkpoint share one policy; expected a name without {GRID}"
        )
    if not shared and GRID not in str(target):
        raise CheckpointError(
            f"{target}: every grid of this checkpoint has a policy of its own; expected a name with {GRID}, such as "
            f"{target.with_stem(f'{target.stem}_{GRID}')}"
        )
    topology = about.load_topology()
    written = []
    for policy in about.policies:
        grid = next(grid for grid, its in about.policy_of.items() if its == policy)
        model = to_onnx(actors[policy], describe(about, topology, grid))
        path = Path(str(target).replace(GRID, grid))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        written.append(path)
    return written


def describe(about: About, topology: Topology, grid: str) -> dict[str, str]:
    """What a policy file says of itself: every value is text, lists are JSON."""
    env = NetworkedGridEnv(load(topology, {"centralized": True, "spaces.observation": "flat"}))
    own = f"{grid}."
    return {
        "zgrid": version("zgrid"),
        "topology": topology.name,
        "topology_hash": topology.hash(),
        "dt_h": repr(topology.dt_h),
        "pad": json.dumps(topology.spaces.pad),
        "observation": json.dumps([name.removeprefix(own) for name in env.observation_names(grid)]),
        "action": json.dumps([name.removeprefix(own) for name in env.action_names(grid)]),
        "trainer": about.trainer,
        "command": about.command,
        "seed": str(about.seed),
        "iteration": str(about.iteration),
        "env_steps": str(about.env_steps),
    }


def to_onnx(actor: Actor, about: Mapping[str, str]) -> onnx.ModelProto:
    """The graph: ``observation`` (n, n_obs) float32, raw as a grid sees it, to ``action`` (n, n_actions) in [-1, 1].

    Scaling of the observation and limits of the action are inside.
    """
    constants: dict[str, NDArray[np.float32]] = {
        "mean": actor.scaled.mean.numpy(),
        "std": actor.scaled.std.numpy(),
        "clip": np.array(CLIP, dtype=np.float32),
        "minus_clip": np.array(-CLIP, dtype=np.float32),
        "one": np.array(1.0, dtype=np.float32),
        "minus_one": np.array(-1.0, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["observation", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "minus_clip", "clip"], ["x0"]),
    ]
    x = "x0"
    for k, layer in enumerate(actor.body):
        after = f"x{k + 1}"
        if isinstance(layer, nn.Linear):
            constants |= {f"w{k}": layer.weight.detach().numpy(), f"b{k}": layer.bias.detach().numpy()}
            nodes.append(helper.make_node("Gemm", [x, f"w{k}", f"b{k}"], [after], transB=1))
        else:
            nodes.append(helper.make_node("Tanh", [x], [after]))
        x = after
    nodes.append(helper.make_node("Clip", [x, "minus_one", "one"], ["action"]))
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", actor.n_obs])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["n", actor.n_actions])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="zgrid")
    model.ir_version = _IR_VERSION
    helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    return model
