"""Synthetic radial feeders of any size: kinds ``feeder_1`` to ``feeder_1000``, with a connection bus per microgrid.

Laterals of five connection buses each leave a busbar of 24.9 kV, the voltage of the IEEE 34-bus feeder. The feeder has
no loads of its own; up to about 1 MW and 0.6 Mvar at every connection bus leave the voltages within 5 %.
"""

from __future__ import annotations

from zgrid.networks.tables import Bus, Line, LineType, NetworkTables

LARGEST = 1000
_KV = 24.9
_PER_LATERAL = 5
_ACSR = LineType("336.4 ACSR", 0.1902, 0.3896, 13.68, 0.53)
"""Conductor 336,400 26/7 ACSR (530 A) as in the IEEE 123-node feeder: positive sequence of line code 1 of the OpenDSS
distribution's case, at 60 Hz; the capacitance, 11.4 nF/km, is scaled by 60 / 50, as nets are built for 50 Hz."""


def radial_feeder(n: int) -> NetworkTables:
    """A busbar "source" and connection buses "1" to str(n), five to a lateral.

    Args:
        n: how many connection buses, 1 to 1000.
    """
    if not 1 <= n <= LARGEST:
        raise ValueError(f"a feeder has 1 to {LARGEST} connection buses, not {n}")
    buses = range(1, n + 1)
    return NetworkTables(
        name=f"feeder_{n}",
        source_bus="source",
        source_vm_pu=1.02,
        buses=(Bus("source", _KV), *(Bus(str(bus), _KV) for bus in buses)),
        line_types=(_ACSR,),
        lines=tuple(Line(f"Line {bus}", _before(bus), str(bus), _length_km(bus), _ACSR.name) for bus in buses),
        trafos=(),
        loads=(),
    )


def _before(bus: int) -> str:
    """The bus from which a connection bus is fed."""
    return "source" if bus % _PER_LATERAL == 1 else str(bus - 1)


def _length_km(bus: int) -> float:
    """0.6 to 1.8 km, in an order that differs from lateral to lateral."""
    return round(0.6 + 0.2 * (3 * bus % 7), 1)
