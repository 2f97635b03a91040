"""What a schema cannot say of a topology: names that must exist, values that must fit together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zgrid.devices import AssetConfig, DeviceConfig, device_class
from zgrid.errors import Finding, NetworkError, ProfileError, UnknownNameError
from zgrid.machines import is_address_or_name, is_here, is_loopback, own_address, resolve
from zgrid.networks import Names, TapRange, find_network
from zgrid.powerflow import POWER_FLOWS, power_flow_class
from zgrid.profiles import Calendar, Series, find_file, read_series, series_names
from zgrid.topology.check_links import check_links
from zgrid.topology.check_protocols import check_protocols
from zgrid.topology.kinds import UNSETTLED
from zgrid.topology.nodes import node_plans
from zgrid.topology.schema import BrokerConfig, GridConfig, NetworkConfig, Pool, Topology


def check(topology: Topology) -> list[Finding]:
    """Everything that is wrong with a topology of the right shape."""
    return [
        *_check_clock(topology),
        *_check_broker(topology),
        *_check_machines(topology),
        *_check_power_flow(topology),
        *_check_profiles(topology),
        *_check_networks(topology),
        *_check_islanding(topology),
        *_check_moves(topology),
        *_check_neighbours(topology),
        *check_protocols(topology),
        *_check_actions(topology),
        *_check_safety(topology),
        *_check_names(topology),
        *check_links(topology),
    ]


def _check_clock(topology: Topology) -> Iterator[Finding]:
    steps = 24.0 / topology.dt_h
    if abs(steps - round(steps)) > 1e-9:
        yield Finding("dt_h", f"a day must be a whole number of steps, got {topology.dt_h}")


def _check_broker(topology: Topology) -> Iterator[Finding]:
    broker = topology.broker
    for port in broker.ports or ():
        if not 0 < port < 65536:
            yield Finding("broker.ports", f"expected ports from 1 to 65535, got {port}")
    if broker.ports and broker.ports[0] == broker.ports[1]:
        yield Finding("broker.ports", f"port {broker.ports[0]} is taken twice")
    if ":" in broker.host or broker.host in ("", "*"):
        yield Finding("broker.host", f"expected an IPv4 address or a host name, got {broker.host!r}")
    elif not may_bind(broker):
        yield Finding("broker.host", open_bind(broker.host))
    if broker.keys is not None:
        yield from _check_keys(Path(broker.keys))
    if topology.observability == "full" and not topology.centralized:
        yield Finding("observability", "full needs centralized: true; distributed grids see their own area")


def _check_keys(folder: Path) -> Iterator[Finding]:
    """The proxy's public key: every machine needs that one. Secrets are checked where they are used."""
    hint = "`zgrid keys create TOPOLOGY` makes keys"
    if not folder.is_dir():
        yield Finding("broker.keys", f"no folder {folder}; {hint}")
    elif not (folder / "public" / "broker.key").is_file():
        yield Finding("broker.keys", f"{folder} has no public/broker.key; {hint}")


def may_bind(broker: BrokerConfig) -> bool:
    """Whether the proxy may listen where it is told to: with keys, to this machine only, or by the user's word."""
    return broker.keys is not None or broker.insecure or is_loopback(broker.host)


def open_bind(host: str) -> str:
    """What to tell where it may not."""
    return (
        f"{host} is no loopback address: give broker.keys (`zgrid keys create TOPOLOGY` makes them); without keys "
        f"anybody there can listen and give orders, which needs insecure: true"
    )


def _check_machines(topology: Topology) -> Iterator[Finding]:
    """That every host is one, and can reach the proxy. Names are looked up only where processes will need them."""
    known: dict[str, bool] = {}
    for path, host in _host_paths(topology):
        if not is_address_or_name(host):
            yield Finding(path, f"expected an IPv4 address or a host name, got {host!r}")
        elif topology.mode == "zmq" and not known.setdefault(host, resolve(host) is not None):
            yield Finding(
                path, f"{host!r} cannot be resolved here; expected an address, or a name of DNS or /etc/hosts"
            )
    if topology.mode == "zmq" and is_loopback(topology.broker.host):
        hosts = {plan.host: name for name, plan in node_plans(topology).items() if plan.host is not None}
        away = {host: name for host, name in hosts.items() if known.get(host) and not is_here(host)}
        for host, name in list(away.items())[:1]:
            own = own_address(host)
            yield Finding(
                "broker.host",
                f"{name} runs on {host} and cannot reach {topology.broker.host}; set broker.host to an address of this "
                f"machine{f', as {own}' if own else ''}, or to 0.0.0.0 for all of them, and give broker.keys",
            )


def _host_paths(topology: Topology) -> Iterator[tuple[str, str]]:
    for grid_id, grid in topology.grids.items():
        if grid.host is not None:
            yield f"grids.{grid_id}.host", grid.host
        for name, device in grid.devices.items():
            if device.host is not None:
                yield f"grids.{grid_id}.devices.{name}.host", device.host


def _check_power_flow(topology: Topology) -> Iterator[Finding]:
    if topology.power_flow.kind in POWER_FLOWS:
        return  # resolving one of these would import pandapower
    try:
        power_flow_class(topology.power_flow.kind)
    except UnknownNameError as error:
        yield Finding("power_flow.kind", str(error))


def load_calendar(topology: Topology) -> Calendar:
    """The time series of a topology, on its clock.

    Raises:
        ProfileError: a series that is missing or does not fit.
    """
    profiles = topology.profiles
    files = [profiles.file] if isinstance(profiles.file, str) else profiles.file
    wanted = topology.series()
    series: dict[str, Series] = {}
    for path in (find_file(name, Path.cwd()) for name in files):
        mine = wanted.intersection(series_names(path)) - series.keys()
        read = read_series(path, sorted(mine))
        series |= {name: one._replace(dt_h=one.dt_h or profiles.dt_h) for name, one in read.items()}
    return Calendar(series, topology.dt_h)


def _check_profiles(topology: Topology) -> Iterator[Finding]:
    profiles = topology.profiles
    files = [profiles.file] if isinstance(profiles.file, str) else profiles.file
    try:
        paths = [find_file(file, Path.cwd()) for file in files]
    except ProfileError:
        return  # told when the files were looked for
    try:
        known = {name for path in paths for name in series_names(path)}
    except ProfileError as error:
        yield Finding("profiles.file", str(error))
        return
    unknown = [
        Finding(path, f"unknown series {source!r}; there is {', '.join(sorted(known))}")
        for path, source in _series_paths(topology)
        if isinstance(source, str) and source not in known
    ]
    yield from unknown
    if unknown:
        return
    try:
        load_calendar(topology).days(profiles.split, topology.episode_steps)
    except ProfileError as error:
        yield Finding("profiles", str(error))


def _settled(grid: GridConfig) -> Iterator[tuple[str, AssetConfig]]:
    """The devices that are not wrong already."""
    return ((name, device) for name, device in grid.devices.items() if device.kind != UNSETTLED)


def _series_paths(topology: Topology) -> Iterator[tuple[str, str | float]]:
    if topology.network is not None:
        yield "network.load", topology.network.load
    for grid_id, grid in topology.grids.items():
        yield f"grids.{grid_id}.network.load", grid.network.load
        yield f"grids.{grid_id}.price", grid.price
        for name, device in _settled(grid):
            keys = device_class(device.kind).SERIES
            for key, source in zip(keys, device.series(), strict=False):  # some kinds make their own
                yield f"grids.{grid_id}.devices.{name}.{key}", source


def _check_networks(topology: Topology) -> Iterator[Finding]:
    feeder = None
    if topology.network is not None:
        feeder, findings = _names("network", topology.network)
        yield from findings
    taken: dict[str, str] = {}
    for grid_id, grid in topology.grids.items():
        path = f"grids.{grid_id}"
        names, findings = _names(f"{path}.network", grid.network)
        yield from findings
        if names is not None:
            for name, device in _settled(grid):
                yield from _check_place(f"{path}.devices.{name}", device, names)
        yield from _check_connection(path, grid, topology, feeder, names)
        if grid.connect_at is not None and grid.connect_at in taken:
            yield Finding(f"{path}.connect_at", f"bus {grid.connect_at} is taken by {taken[grid.connect_at]}")
        taken[grid.connect_at or ""] = grid_id


def _check_place(path: str, device: AssetConfig, names: Names) -> Iterator[Finding]:
    """The bus a device is at, and the element it moves."""
    if isinstance(device, DeviceConfig) and device.bus not in names.buses:
        yield Finding(f"{path}.bus", _unknown("bus", device.bus, names.buses))
    move = device.actuation()
    known = {
        "tap": ("tap changer", tuple(names.taps)),
        "switch": ("switch", names.switches),
        "shunt": ("shunt", names.shunts),
    }
    if move is None or move.kind not in known:
        return
    what, elements = known[move.kind]
    if move.element not in elements:
        yield Finding(f"{path}.element", _unknown(what, move.element, elements))
    elif move.kind == "tap":
        yield from _check_tap_range(path, device, names.taps[move.element])


def _check_tap_range(path: str, device: AssetConfig, taps: TapRange) -> Iterator[Finding]:
    """A tap changer's own range has to lie within that of its transformer."""
    for key in ("tap_min", "tap_max"):
        position = getattr(device, key, None)
        if position is not None and not taps.low <= position <= taps.high:
            yield Finding(f"{path}.{key}", f"expected {taps.low} to {taps.high}, got {position}")


def _check_islanding(topology: Topology) -> Iterator[Finding]:
    for grid_id, grid in topology.grids.items():
        path = f"grids.{grid_id}.forming_unit"
        if grid.islanding == "blackout":
            if grid.forming_unit is not None:
                yield Finding(path, "without islanding: grid_forming there is none")
            continue
        unit = grid.devices.get(grid.forming_unit or "")
        if unit is None:
            possible = [name for name, device in _settled(grid) if isinstance(device, DeviceConfig)]
            yield Finding(path, f"expected one of {', '.join(possible)}, got {grid.forming_unit!r}")
        elif unit.kind != UNSETTLED and not isinstance(unit, DeviceConfig):
            yield Finding(path, f"{grid.forming_unit} is at no bus")


def _check_moves(topology: Topology) -> Iterator[Finding]:
    """No two devices may move the same element, and nothing else may say where it begins."""
    for grid_id, grid in topology.grids.items():
        taken: dict[tuple[str, str], str] = {}
        for name, device in _settled(grid):
            move = device.actuation()
            if move is None or move.kind == "capacitor":
                continue
            key = (move.kind, move.element)
            if key in taken:
                yield Finding(f"grids.{grid_id}.devices.{name}", f"{taken[key]} moves the same {' '.join(key).strip()}")
            taken.setdefault(key, name)
            if move.kind == "tap" and move.element in grid.network.taps:
                yield Finding(f"grids.{grid_id}.network.taps.{move.element}", f"{name} moves it from its tap_init on")


def _names(path: str, config: NetworkConfig) -> tuple[Names | None, list[Finding]]:
    try:
        names = find_network(config.kind).names()
    except (UnknownNameError, NetworkError) as error:
        return None, [Finding(f"{path}.kind", str(error))]
    findings = []
    for name, position in config.taps.items():
        if name not in names.taps:
            findings.append(Finding(f"{path}.taps.{name}", _unknown("tap changer", name, tuple(names.taps))))
        elif not names.taps[name].low <= position <= names.taps[name].high:
            low, high = names.taps[name]
            findings.append(Finding(f"{path}.taps.{name}", f"expected {low} to {high}, got {position}"))
    return names, findings


def _check_connection(
    path: str, grid: GridConfig, topology: Topology, feeder: Names | None, own: Names | None
) -> Iterator[Finding]:
    if grid.connect_at is None:
        if topology.network is not None:
            yield Finding(f"{path}.connect_at", "missing; the topology has a feeder (network)")
    elif topology.network is None:
        yield Finding(f"{path}.connect_at", "there is no feeder; give the topology a network")
    elif feeder is not None and grid.connect_at not in feeder.buses:
        yield Finding(f"{path}.connect_at", _unknown("bus", grid.connect_at, feeder.buses))
    elif feeder is not None and own is not None and feeder.vn_kv(grid.connect_at) != own.vn_kv(own.source_bus):
        feeder_kv, own_kv = feeder.vn_kv(grid.connect_at), own.vn_kv(own.source_bus)
        yield Finding(f"{path}.connect_at", f"bus {grid.connect_at} has {feeder_kv} kV, the grid's PCC has {own_kv} kV")


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    shown = (", ".join(known[:15]) or "none") + (", ..." if len(known) > 15 else "")
    return f"unknown {what} {name!r}; there is {shown}"


def _check_neighbours(topology: Topology) -> Iterator[Finding]:
    for grid_id, grid in topology.grids.items():
        path = f"grids.{grid_id}.neighbours"
        for other in grid.neighbours:
            if other not in topology.grids:
                yield Finding(path, f"{other!r} is no grid; there is {', '.join(topology.grids)}")
            elif other == grid_id:
                yield Finding(path, f"{grid_id} cannot be its own neighbour")
            elif grid_id not in topology.grids[other].neighbours:
                yield Finding(path, f"not mutual: {other} does not name {grid_id}")
        if len(set(grid.neighbours)) != len(grid.neighbours):
            yield Finding(path, "a neighbour is named twice")


def _check_actions(topology: Topology) -> Iterator[Finding]:
    for grid_id, grid in topology.grids.items():
        settled = list(_settled(grid))
        controlled = any(device_class(device.kind).controls(device) for _, device in settled)
        if len(settled) == len(grid.devices) and not controlled:
            yield Finding(f"grids.{grid_id}.devices", "no device that can be controlled; expected at least one")


def _check_names(topology: Topology) -> Iterator[Finding]:
    """The workers of a pool have names that no grid may have."""
    if isinstance(topology.placement, Pool):
        for grid_id in topology.grids:
            if grid_id.startswith("pool_"):
                yield Finding(f"grids.{grid_id}", "pool_1, pool_2, ... are the workers of placement: pool")


def _check_safety(topology: Topology) -> Iterator[Finding]:
    """What is declared for failures: safe setpoints by the names of their entries, and what a proxy can do."""
    if topology.broker.on_failure.kind == "fallback":
        yield Finding("broker.on_failure", "expected fail or restart; nobody can stand in for the proxy")
    for grid_id, grid in topology.grids.items():
        for name, device in _settled(grid):
            known = device_class(device.kind).SETPOINT
            for entry in device.safe:
                if entry not in known:
                    path = f"grids.{grid_id}.devices.{name}.safe.{entry}"
                    yield Finding(path, f"a {device.kind} has no such entry; its setpoint has {', '.join(known)}")
