"""Policy ``onnx``: a trained policy from a file, run by onnxruntime from what the grid itself sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from zgrid.errors import CheckpointError, MissingExtraError
from zgrid.messages import Floats
from zgrid.policies.base import Actor, GridView, Policy, PolicyConfig, Spaces

EXTRA = "a policy from an ONNX file needs onnxruntime: pip install 'zgrid[onnx]'"


class OnnxConfig(PolicyConfig):
    """Where the policy is: input ``observation`` (n, n_obs) float32, output ``action`` (n, n_actions) in [-1, 1].

    What the file says of itself in its metadata is checked where it is there: ``dt_h``, and ``pad`` (true: shorter
    observations are filled up with zeros, as with ``spaces.pad``).
    """

    kind: str = "onnx"
    file: str = Field(description="the ONNX file; {grid} in it stands for the grid's id")
    sha256: str | None = Field(None, description="of the file's bytes; what agents have to agree on")


class Onnx(Policy):
    """The deterministic action of a trained policy."""

    Config: ClassVar[type[PolicyConfig]] = OnnxConfig

    def __init__(self, config: Any, actors: Sequence[Actor]) -> None:
        """
        Raises:
            MissingExtraError: onnxruntime is not installed.
            CheckpointError: the file is missing or no policy.
        """
        super().__init__(config, actors)
        self._model = _open(config.file, config.sha256)
        self._n_obs, _ = _sizes(self._model, config.file)
        self._row = np.zeros((1, self._n_obs), dtype=np.float32)

    @classmethod
    def misfits(cls, config: Any, spaces: Spaces) -> list[str]:
        """Whether the file is a policy of these spaces and this step."""
        try:
            model = _open(config.file, config.sha256)
            sizes = _sizes(model, config.file)
        except (CheckpointError, MissingExtraError) as error:
            return [str(error)]
        about = model.get_modelmeta().custom_metadata_map
        has = {"observation": sizes[0], "action": sizes[1]}
        wanted = {"observation": spaces.n_observation, "action": spaces.n_action}
        padded = about.get("pad") == "true"
        wrong = [
            f"{config.file}: its {name} has {has[name]} entries, this grid's has {wanted[name]}"
            for name in has
            if has[name] != wanted[name] and not (padded and has[name] > wanted[name])
        ]
        dt_h = about.get("dt_h")
        if dt_h is not None and float(dt_h) != spaces.dt_h:
            wrong.append(f"{config.file}: trained with dt_h {dt_h}, not {spaces.dt_h}")
        return wrong

    def reset(self, seed: Sequence[int]) -> None:
        """Nothing to forget."""

    def act(self, view: GridView) -> Floats:
        self._row[0, : len(view.observation)] = view.observation
        (action,) = self._model.run(("action",), {"observation": self._row})
        return tuple(action[0, : self.size].tolist())


@cache
def _open(file: str, sha256: str | None) -> Any:
    """The model of a file; ``sha256`` tells apart what stood there at different times."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(EXTRA) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    state = onnxruntime.capi.onnxruntime_pybind11_state
    failures = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.NoSuchFile, state.InvalidArgument,
                state.NotImplemented, state.RuntimeException)  # fmt: skip
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except failures as error:
        raise CheckpointError(f"{file}: no ONNX file that can be run: {error}") from error


def _sizes(model: Any, file: str) -> tuple[int, int]:
    """Entries of observation and action."""
    found = {}
    for put in (*model.get_inputs(), *model.get_outputs()):
        if put.type == "tensor(float)" and len(put.shape) == 2 and isinstance(put.shape[1], int):
            found[put.name] = put.shape[1]
    if found.keys() != {"observation", "action"} or len(model.get_inputs()) != 1:
        raise CheckpointError(
            f"{file}: no policy of zgrid: expected one input, observation (n, n_obs) float32, and one output, action "
            f"(n, n_actions) float32"
        )
    return found["observation"], found["action"]
