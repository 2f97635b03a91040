"""Vertical protocol ``droop``: the grid commands setpoints, devices correct them by frequency and voltage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from zgrid.devices import Control, device_class
from zgrid.messages import Floats
from zgrid.protocols.base import LocalControl, ProtocolConfig
from zgrid.protocols.setpoint import SetpointProtocol


class DroopGains(BaseModel):
    """The gains of some devices, in units of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gain_mw_per_hz: float = Field(0.0, ge=0, description="active power given per Hz below nominal, MW/Hz")
    gain_mvar_per_pu: float = Field(0.0, ge=0, description="reactive power given per pu of voltage below v_ref, Mvar")


class DroopConfig(ProtocolConfig):
    """Parameters of the local control of all devices with a rating, ``s_rated_mva``."""

    kind: str = "droop"
    p_gain_pu: float = Field(
        0.4, ge=0, description="pu of s_rated_mva per Hz, for devices that gains does not name; 0: no response"
    )
    q_gain_pu: float = Field(
        5.0, ge=0, description="pu of s_rated_mva per pu of voltage, for devices that gains does not name; 0: none"
    )
    gains: dict[str, DroopGains] = Field(
        {}, description="gains of devices by a pattern for their name or kind (* and ?); the first that fits counts"
    )
    v_ref_pu: float = Field(1.0, gt=0, description="voltage at which no reactive power is added, pu")
    v_dead_band_pu: float = Field(0.0, ge=0, lt=0.5, description="the voltage may differ from v_ref_pu by so much, pu")
    f_dead_band_hz: float = Field(0.0, ge=0, description="the frequency may differ from nominal by so much, Hz")
    response: float = Field(
        0.5, gt=0, le=1, description="share of the way to the curve that is gone in each step; 1: undamped, no memory"
    )


class DroopProtocol(SetpointProtocol):
    """What is commanded is as by ``setpoint``; each device then moves by itself, without messages.

    - active power:   p* = p_set - k_p band(deviation), deviation in Hz above nominal, within the control's limits
    - reactive power: q* = q_set + k_q band(v_ref - v), within the circle sqrt(s^2 - p^2)
    - correction:     c <- c + response (c* - c) of each step, with c* = p* - p_set and q* - q_set

    band(x) is x less the dead band, 0 within it. Where all respond, the frequency settles at a deviation of
    -imbalance / sum(k_p) and each gives its share k_p / sum(k_p). The voltage rises by X pu per Mvar, so the loop
    has the gain k_q X, for several devices the largest eigenvalue of the matrix: it settles iff
    response (1 + k_q X) < 2, without swinging at half of that [Farivar, Chen and Low 2013, Equilibrium and
    dynamics of local voltage control in distribution systems]. A measurement that is not known leaves its part of
    the setpoint as it was commanded. Nothing is said, so there is nothing to lose.
    """

    Config: ClassVar[type[ProtocolConfig]] = DroopConfig

    @classmethod
    def local_control(cls, config: Any, device: Any, name: str = "") -> LocalControl | None:
        """The droop of a device with a rating and a setpoint of active power; None: it has neither, or no gain.

        ``name`` is the device's, for the patterns of ``gains``.
        """
        kind = device_class(device.kind)
        s_rated = getattr(device, "s_rated_mva", None)
        if s_rated is None or "p_mw" not in kind.SETPOINT:
            return None
        gains = DroopGains(gain_mw_per_hz=config.p_gain_pu * s_rated, gain_mvar_per_pu=config.q_gain_pu * s_rated)
        for pattern, named in config.gains.items():
            if fnmatchcase(name, pattern) or fnmatchcase(device.kind, pattern):
                gains = named
                break
        if not gains.gain_mw_per_hz and not gains.gain_mvar_per_pu:
            return None
        return Droop(config, gains, kind.SETPOINT, kind.controls(device), s_rated)


class Droop(LocalControl):
    """One device's droop. It remembers its corrections from step to step, unless ``response`` is 1."""

    def __init__(
        self, config: DroopConfig, gains: DroopGains, entries: tuple[str, ...], controls: tuple[Control, ...], s: float
    ) -> None:
        """``entries`` of its setpoint by name, its ``controls``, and its rating ``s`` in MVA."""
        self.config = config
        self.gains = gains
        self.gain_mw_per_hz = gains.gain_mw_per_hz
        self._p = entries.index("p_mw")
        self._q = entries.index("q_mvar") if "q_mvar" in entries else None
        self._limits = next(((c.low, c.high) for c in controls if c.name == "p_mw"), None)
        self._s = s
        self._dp = self._dq = 0.0

    def correct(self, setpoint: Floats, measured: Mapping[str, float]) -> Floats:
        values = list(setpoint)
        p = values[self._p]
        if "deviation_hz" in measured and self._limits is not None:
            values[self._p] = p = p + self._active(p, measured["deviation_hz"])
        if measured.get("vm_pu", 0.0) > 0.0 and self._q is not None:
            values[self._q] += self._reactive(p, values[self._q], measured["vm_pu"])
        return tuple(values)

    def _active(self, p_mw: float, deviation_hz: float) -> float:
        """What is added to an active power, MW."""
        assert self._limits is not None
        asked = p_mw - self.gains.gain_mw_per_hz * beyond(deviation_hz, self.config.f_dead_band_hz)
        wanted = min(max(asked, self._limits[0]), self._limits[1]) - p_mw
        self._dp += self.config.response * (wanted - self._dp)
        return self._dp

    def _reactive(self, p_mw: float, q_mvar: float, vm_pu: float) -> float:
        """What is added to a reactive power beside an active one, Mvar."""
        limit = math.sqrt(max(self._s * self._s - p_mw * p_mw, 0.0))
        error = beyond(self.config.v_ref_pu - vm_pu, self.config.v_dead_band_pu)
        wanted = min(max(q_mvar + self.gains.gain_mvar_per_pu * error, -limit), limit) - q_mvar
        self._dq += self.config.response * (wanted - self._dq)
        return self._dq


def beyond(x: float, band: float) -> float:
    """x less the band, toward 0; 0 within the band."""
    return math.copysign(max(abs(x) - band, 0.0), x)
