"""Every exception zgrid raises on purpose.

ZgridError
├── TopologyError (ValueError)          a topology file that cannot run; all findings, each with its path
├── UnknownNameError (LookupError)      a kind or plug-in that cannot be resolved
├── MissingExtraError (ImportError)     an optional package is not installed
├── CheckpointError (ValueError)        what a trainer left behind, and cannot be used here
├── ProfileError (ValueError)           a time series that is missing or unusable
├── NetworkError (ValueError)           an electrical network that cannot be built or solved
├── ForesightError (ValueError)         a case that cannot be planned with foresight
├── ActionError (ValueError)            an action that is not in the action space
├── MessageError (ValueError)           bytes that are no message
├── StudyError (ValueError)             a folder of a study that cannot be used, or rows that cannot be drawn
├── RecordingError (ValueError)         a recording that cannot be written, read or replayed
├── BrokerError (ConnectionError)       a broker that cannot be used (closed, forked, no address)
├── RefusedError (ConnectionError)      a handshake that the proxy refuses: no key, or the wrong one
├── KeyFileError (ValueError)           a key that is missing, taken, or open to others
├── LostMessageError (ConnectionError)  a gap in a sender's sequence
├── StartTimeout (TimeoutError)         an agent that did not come up
├── StepTimeout (TimeoutError)          a message of the step that did not come
├── AgentError (RuntimeError)           an agent that raised; carries the remote traceback
├── NodeDiedError (RuntimeError)        a node process that ended during a run
└── NodeSilentError (ConnectionError)   a node of which nothing is heard any more: stopped, or cut off
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class ZgridError(Exception):
    """Base of everything zgrid raises on purpose."""


class Finding(NamedTuple):
    """One thing wrong in a topology: where (dotted path) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class TopologyError(ZgridError, ValueError):
    """A topology that cannot run. ``findings`` holds everything that is wrong with it."""

    def __init__(self, source: str, findings: Sequence[Finding]) -> None:
        self.source = source
        self.findings = tuple(findings)
        count = len(self.findings)
        lines = "\n".join(f"  {finding}" for finding in self.findings)
        super().__init__(f"{source}: {count} finding{'s' if count != 1 else ''}\n{lines}")

    def __reduce__(self) -> tuple[type[TopologyError], tuple[str, tuple[Finding, ...]]]:
        return type(self), (self.source, self.findings)


class UnknownNameError(ZgridError, LookupError):
    """A kind that is neither built in nor a ``module:attribute`` that can be imported."""


class MissingExtraError(ZgridError, ImportError):
    """An optional dependency is missing; the text names the pip command."""


class CheckpointError(ZgridError, ValueError):
    """What a trainer left behind: missing, damaged, or of other spaces than it is wanted for."""


class ProfileError(ZgridError, ValueError):
    """A time series that is missing, too short or not finite."""


class NetworkError(ZgridError, ValueError):
    """An electrical network that cannot be built, coupled or solved."""


class ForesightError(ZgridError, ValueError):
    """A case whose best plan cannot be found: what is in the way, and what could be planned."""


class ActionError(ZgridError, ValueError):
    """An action of the wrong agent, shape or value."""


class MessageError(ZgridError, ValueError):
    """Bytes that are no message of this protocol version."""


class StudyError(ZgridError, ValueError):
    """A folder of a study that cannot be used, or rows that cannot be drawn."""


class RecordingError(ZgridError, ValueError):
    """A recording that cannot be written, read or replayed."""


class BrokerError(ZgridError, ConnectionError):
    """A broker that cannot be used."""


class RefusedError(ZgridError, ConnectionError):
    """A handshake that fails: ``node`` and ``fingerprint`` of its key (empty without one), ``address`` of the proxy,
    ``cause``, and the ``remedy``."""

    def __init__(self, node: str, fingerprint: str, address: str, cause: str, remedy: str) -> None:
        self.node, self.fingerprint, self.address = node, fingerprint, address
        self.cause, self.remedy = cause, remedy
        who = f"{node} (key {fingerprint})" if fingerprint else "a node without keys"
        super().__init__(f"{who} cannot connect to the proxy at {address}: {cause}; likely {remedy}")

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, str, str, str, str]]:
        return type(self), (self.node, self.fingerprint, self.address, self.cause, self.remedy)


class KeyFileError(ZgridError, ValueError):
    """A key that is missing, taken, unreadable, or whose secret others may read."""


class LostMessageError(ZgridError, ConnectionError):
    """A gap in the sequence of one sender on one channel: in lockstep, a lost message."""

    def __init__(self, sender: str, channel: str, expected: int, got: int) -> None:
        self.sender, self.channel, self.expected, self.got = sender, channel, expected, got
        super().__init__(f"lost message: {sender} on {channel}: expected sequence {expected}, got {got}")

    def __reduce__(self) -> tuple[type[LostMessageError], tuple[str, str, int, int]]:
        return type(self), (self.sender, self.channel, self.expected, self.got)


class StartTimeout(ZgridError, TimeoutError):
    """Agents that did not come up in time. ``missing`` maps each to the reason that is known."""

    def __init__(self, missing: Mapping[str, str], waited_s: float) -> None:
        self.missing, self.waited_s = dict(missing), waited_s
        lines = "\n".join(f"  {agent}: {reason}" for agent, reason in self.missing.items())
        super().__init__(f"not every agent is ready after {waited_s:.1f} s; missing:\n{lines}")

    def __reduce__(self) -> tuple[type[StartTimeout], tuple[dict[str, str], float]]:
        return type(self), (self.missing, self.waited_s)


class StepTimeout(ZgridError, TimeoutError):
    """Messages of one step that did not come. ``missing`` names the senders."""

    def __init__(self, step: int, kind: str, missing: Sequence[str], waited_s: float) -> None:
        self.step, self.kind, self.missing, self.waited_s = step, kind, tuple(missing), waited_s
        super().__init__(f"step {step}: no {kind} from {', '.join(self.missing)} after {waited_s:.1f} s")

    def __reduce__(self) -> tuple[type[StepTimeout], tuple[int, str, tuple[str, ...], float]]:
        return type(self), (self.step, self.kind, self.missing, self.waited_s)


class AgentError(ZgridError, RuntimeError):
    """An agent raised. ``remote_traceback`` is the traceback where it happened."""

    def __init__(self, agent: str, step: int, cause: str, remote_traceback: str) -> None:
        self.agent, self.step, self.cause, self.remote_traceback = agent, step, cause, remote_traceback
        super().__init__(
            f"agent {agent} failed at step {step}: {cause}\n--- traceback of {agent} ---\n{remote_traceback}"
        )

    def __reduce__(self) -> tuple[type[AgentError], tuple[str, int, str, str]]:
        return type(self), (self.agent, self.step, self.cause, self.remote_traceback)


class NodeDiedError(ZgridError, RuntimeError):
    """A node process ended during a run."""

    def __init__(self, node: str, exit_code: int, last_lines: str) -> None:
        self.node, self.exit_code, self.last_lines = node, exit_code, last_lines
        how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exited with code {exit_code}"
        tail = f"; its last lines:\n{last_lines}" if last_lines else "; it wrote nothing"
        super().__init__(f"node {node} {how}{tail}")

    def __reduce__(self) -> tuple[type[NodeDiedError], tuple[str, int, str]]:
        return type(self), (self.node, self.exit_code, self.last_lines)


class NodeSilentError(ZgridError, ConnectionError):
    """Nothing is heard of a node any more: it was stopped, hangs as a whole, or is cut off."""

    def __init__(self, node: str, agents: Sequence[str], cause: str, last_lines: str = "") -> None:
        self.node, self.agents, self.cause, self.last_lines = node, tuple(agents), cause, last_lines
        hosts = f" (agents {', '.join(self.agents)})" if self.agents and self.agents != (node,) else ""
        tail = f"; its last lines:\n{last_lines}" if last_lines else ""
        super().__init__(f"node {node}{hosts}: {cause}{tail}")

    def __reduce__(self) -> tuple[type[NodeSilentError], tuple[str, tuple[str, ...], str, str]]:
        return type(self), (self.node, self.agents, self.cause, self.last_lines)
