"""Published test networks, as pandapower has them, with short names.

- ``case33bw``: M. E. Baran, F. F. Wu, "Network reconfiguration in distribution systems for loss reduction and load
  balancing", IEEE Transactions on Power Delivery 4(2), 1989. 33 buses at 12.66 kV, 3.715 MW and 2.3 Mvar.
- ``cigre_mv``, ``cigre_lv``: CIGRE Task Force C6.04.02, "Benchmark Systems for Network Integration of Renewable and
  Distributed Energy Resources", Technical Brochure 575, 2014. The European medium-voltage network with its photovoltaic
  plants and wind turbine (14 buses at 20 kV, 44.7 MW), and the low-voltage network (20 kV to 0.4 kV, 0.69 MW).
"""

from __future__ import annotations

from typing import Any

import pandapower.networks as published
from pandapower import toolbox

RATING_KA = 0.4
"""Rating of the lines of ``case33bw``: nearly twice the 0.21 kA at its head; the paper gives none."""


def case33bw() -> Any:
    """The 33-bus network: buses "1" to "33", "Line 1-2" and so on; the five tie lines are out of service."""
    net = published.case33bw()
    net.f_hz, net.sn_mva = 50.0, 1.0  # no line has a capacitance
    net.poly_cost = net.poly_cost.iloc[:0]  # as pandapower's own, for optimal power flow
    net.bus["name"] = [str(bus + 1) for bus in net.bus.index]
    net.line["name"] = _between(net, "Line")
    net.line["max_i_ka"] = RATING_KA
    net.load["name"] = [f"Load {bus + 1}" for bus in net.load["bus"]]
    return net


def cigre_mv() -> Any:
    """The medium-voltage network: source "0" at 110 kV, buses "1" to "14"; what its plants feed in is fixed.

    The loop switches S1, S2 and S3 are open. The closed ones at the other ends of their lines and before the
    transformers are named after what they switch and where.
    """
    net = published.create_cigre_network_mv(with_der="pv_wind")
    _shorten(net)
    net.switch["name"] = [name or _what(net, k) for k, name in zip(net.switch.index, net.switch["name"], strict=True)]
    return net


def cigre_lv() -> Any:
    """The low-voltage network: source "0" at 20 kV, residential buses "R1" and so on, industrial "I", commercial "C".

    The circuit breakers S1, S2 and S3 stand between a bus bar and one transformer each; here they switch the
    transformers at the bus bar itself, which is electrically the same and lets the import be metered there.
    """
    net = published.create_cigre_network_lv()
    _shorten(net)
    for switch, source, behind in zip(net.switch.index, net.switch["bus"], net.switch["element"], strict=True):
        trafo = net.trafo.index[net.trafo["hv_bus"] == behind][0]
        net.trafo.loc[trafo, "hv_bus"] = source
        net.switch.loc[switch, ["element", "et"]] = trafo, "t"
        toolbox.drop_buses(net, [behind], drop_elements=False)
    net.trafo["name"] = [f"Trafo {name[6]}" for name in net.trafo["name"]]  # "Trafo R0-R1"
    toolbox.create_continuous_bus_index(net)
    return net


def _shorten(net: Any) -> None:
    """Take the word out of "Bus 1"."""
    net.bus["name"] = net.bus["name"].str.removeprefix("Bus ")


def _between(net: Any, word: str) -> list[str]:
    """Names of the lines by the buses they join."""
    name = net.bus["name"]
    return [f"{word} {name[a]}-{name[b]}" for a, b in zip(net.line["from_bus"], net.line["to_bus"], strict=True)]


def _what(net: Any, switch: int) -> str:
    """What a switch without a name switches, and at which bus."""
    row = net.switch.loc[switch]
    table = {"l": "line", "t": "trafo"}[row["et"]]
    return f"{net[table]['name'][row['element']]} at {net.bus['name'][row['bus']]}"
