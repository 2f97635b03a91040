"""The arrays of one topology: pandapower's own admittances, factorised, and where everything sits in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandapower.pypower.idx_brch import F_BUS, T_BUS
from pandapower.pypower.idx_bus import BASE_KV, PD, QD
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from zgrid.powerflow.plant import Plant
from zgrid.powerflow.runpp import run_cold

Complexes = NDArray[np.complex128]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

DENSE_BUSES = 300
"""Up to so many buses the impedance matrix is kept dense: below, one dense product beats two triangular solves."""


class Injections(NamedTuple):
    """Where power enters, at m of the model's n buses, in pu of the base.

    ``at`` (m,) are buses of the model; ``constant`` (m,) what nobody moves; ``load`` (n_part, m) what the loads of
    each part inject at a scale of 1; ``device`` (n_devices,) the position of each device in ``at``, m where dead.
    """

    base_mva: float
    at: Indices
    constant: Complexes
    load: Complexes
    device: Indices


class Branches(NamedTuple):
    """Lines, then transformers, in the net's row order, (n_branch,) each.

    Currents in pu: ``yff`` V[f] + ``yft`` V[t] at the from or hv end, ``ytf`` V[f] + ``ytt`` V[t] at the other. The
    loading in percent is the larger of ``percent_f`` and ``percent_t`` times the currents, plus ``fixed``, which is 0
    where in service, and what pandapower says of all others (0 or NaN).
    """

    f: Indices
    t: Indices
    yff: Complexes
    yft: Complexes
    ytf: Complexes
    ytt: Complexes
    percent_f: Floats
    percent_t: Floats
    fixed: Floats


class Meters(NamedTuple):
    """How to read the PCCs and the slacks of islanded parts.

    The import of part ``part[k]`` counts what flows into ``branch[k]`` at its from (``end[k]`` 0) or to end;
    besides, ``constant`` (n_part,) and the part's scale times ``load`` (n_part,), in MVA, and less what the devices
    with ``device[d]`` = part inject (n_part: none). Slack k of part ``former[k]`` sits at bus ``former_bus[k]``, whose
    current is ``former_y[k]`` V, and which injects what position ``former_at[k]`` of the injections does not.
    """

    part: Indices
    branch: Indices
    end: Indices
    constant: Complexes
    load: Complexes
    device: Indices
    former: Indices
    former_bus: Indices
    former_y: Complexes
    former_at: Indices


class Triangles(NamedTuple):
    """A sparse LU of the admittances between the unknown buses, as columns of its two factors.

    P_r Y P_c = L U; L has a unit diagonal, which is left out; ``diagonal`` is that of U, also left out there.
    """

    lower_start: Indices
    lower_row: Indices
    lower: Complexes
    upper_start: Indices
    upper_row: Indices
    upper: Complexes
    diagonal: Complexes
    row_order: Indices
    column_order: Indices


@dataclass(frozen=True, slots=True)
class Model:
    """One topology, ready to be solved for any injections.

    ``bus`` (n_bus,) is the model's bus of each bus of the net, n where dead. ``no_load`` (n,) are the voltages without
    injections, ``z`` (n, m) the voltage at each bus per current at each injection and ``z_at`` (m, m) that at the
    injections alone, where the model is dense, else ``lu`` solves for it; ``columns`` and ``columns_at`` are their
    columns, (2, m, n) and (2, m, m): real, imaginary. ``pv`` has the buses whose voltage a generator holds; where there
    are any, ``start`` is where Newton starts: the angles without load, and 1 pu where nobody holds the voltage.
    """

    bus: Indices
    injections: Injections
    branches: Branches
    meters: Meters
    y: Any
    ref: Indices
    pv: Indices
    pq: Indices
    start: Complexes
    no_load: Complexes
    z: Complexes
    z_at: Complexes
    lu: Any
    triangles: Triangles | None
    columns: Floats
    columns_at: Floats

    def compiled(self) -> tuple[Any, ...]:
        """What the compiled solvers take of it."""
        known = (self.bus, self.injections, self.branches, self.meters, self.no_load)
        return (*known, self.columns, self.columns_at) if self.triangles is None else (*known, self.pq, self.triangles)


def uncovered(net: Any) -> str:
    """Why a net needs ``runpp`` itself; empty where the kept arrays say all."""
    loads = net["load"]
    shares = ("const_z_p_percent", "const_i_p_percent", "const_z_q_percent", "const_i_q_percent")
    if any(np.any(loads[share].to_numpy() != 0) for share in shares if share in loads):
        return "loads that depend on the voltage"
    if net.user_pf_options:
        return "the net carries options of its own for the power flow"
    for table in ("svc", "tcsc", "ssc", "vsc", "vsc_stacked", "vsc_bipolar", "dcline", "line_dc", "xward"):
        if table in net and len(net[table]) and net[table]["in_service"].any():
            return f"a {table} in service"
    return ""


def build(plant: Plant, positions: tuple[float, ...], dense_buses: int = DENSE_BUSES) -> Model | None:
    """The model of a topology, dense up to so many buses; None where there is no source, where
    nothing but a source is alive, or where it does not solve even without load.
    """
    network, net = plant.network, plant.net
    plant.write_topology(positions)
    if not plant.has_source:
        return None
    nothing = np.zeros(network.n_devices)
    plant.write_injections(nothing, nothing, np.zeros(len(network.parts)))
    if not run_cold(net):
        return None
    ppc = net["_ppc"]
    kept = ppc["internal"]
    if "bus" not in kept:  # no branch is alive, and pandapower had nothing to solve
        return None
    n = len(kept["bus"])
    lookup = net["_pd2ppc_lookups"]["bus"]
    bus = lookup[net["bus"].index.to_numpy()].astype(np.int64)
    bus = np.where((bus < 0) | (bus >= n), n, bus)
    y = csc_matrix(kept["Ybus"])
    ref, pv, pq = (np.asarray(kept[name], dtype=np.int64) for name in ("ref", "pv", "pq"))
    injections = _injections(plant, kept, bus, n, ref)
    start = np.asarray(kept["V"], dtype=np.complex128).copy()
    start[pq] /= np.abs(start[pq])
    return Model(
        bus,
        injections,
        _branches(net, ppc, kept, n),
        _meters(plant, y, bus, injections, n),
        y,
        ref,
        pv,
        pq,
        start,
        *_factorise(y, kept["V"], ref, pq, injections.at, dense=n <= dense_buses),
    )


def _injections(plant: Plant, kept: Any, bus: Indices, n: int, ref: Indices) -> Injections:
    network, base = plant.network, float(kept["baseMVA"])
    load_bus, device_bus = bus[network.load_bus], bus[network.device_bus]
    load = np.zeros((len(network.parts), n + 1), dtype=np.complex128)
    np.add.at(load, (network.load_part, load_bus), -(network.load_p_mw + 1j * network.load_q_mvar) / base)
    constant = np.append(np.asarray(kept["Sbus"], dtype=np.complex128), 0.0)
    at_ref = kept["bus"][ref]  # a slack's own power is a result, what else stands at its bus is not
    constant[ref] = -(at_ref[:, PD].real + 1j * at_ref[:, QD].real) / base
    used = (load != 0.0).any(axis=0) | (constant != 0.0)
    used[device_bus] = True
    used[n] = False
    at = np.flatnonzero(used)
    position = np.full(n + 1, len(at))
    position[at] = np.arange(len(at))
    return Injections(base, at, constant[at], np.ascontiguousarray(load[:, at]), position[device_bus])


def _branches(net: Any, ppc: Any, kept: Any, n: int) -> Branches:
    """The rows of both tables among pandapower's branches; those not in service have no admittance here."""
    in_service = np.asarray(kept["branch_is"], dtype=bool)
    order = np.cumsum(in_service) - 1
    rows, fixed, percent = [], [], []
    base_ka = float(kept["baseMVA"]) / np.sqrt(3.0)
    ends = kept["branch"][:, [F_BUS, T_BUS]].real.astype(np.int64)
    kv = kept["bus"][:, BASE_KV].real
    for table in ("line", "trafo"):
        if not len(net[table]):
            continue
        begin, end = net["_pd2ppc_lookups"]["branch"][table]
        alive = in_service[begin:end]
        row = np.where(alive, order[begin:end], -1)
        rows.append(row)
        loading = net[f"res_{table}"]["loading_percent"].to_numpy(dtype=np.float64)
        fixed.append(np.where(alive, 0.0, loading))
        per_ka = _percent_per_ka(net, table)
        percent.append(np.where(alive, per_ka, 0.0) * base_ka)
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return Branches(nothing, nothing, *(np.zeros(0, complex) for _ in range(4)), *(np.zeros(0) for _ in range(3)))
    row = np.concatenate(rows)
    alive = row >= 0
    f, t = np.where(alive[:, None], ends[row], 0).T
    yf, yt = kept["Yf"].tocsr(), kept["Yt"].tocsr()

    def of(matrix: Any, column: Indices) -> Complexes:
        return np.where(alive, np.asarray(matrix[row, column]).ravel(), 0.0)

    percent_f, percent_t = np.concatenate(percent, axis=1) / kv[np.stack((f, t))]
    return Branches(
        np.ascontiguousarray(f), np.ascontiguousarray(t), of(yf, f), of(yf, t), of(yt, f), of(yt, t),
        percent_f, percent_t, np.concatenate(fixed),
    )  # fmt: skip


def _percent_per_ka(net: Any, table: str) -> Floats:
    """(2, n): loading in percent per kA at either end, as pandapower defines it (transformers by current)."""
    frame = net[table]
    share = frame["parallel"].to_numpy(dtype=np.float64) * frame["df"].to_numpy(dtype=np.float64)
    if table == "line":
        limit = frame["max_i_ka"].to_numpy(dtype=np.float64) * share
        return np.stack((100.0 / limit,) * 2)
    sn_mva = frame["sn_mva"].to_numpy(dtype=np.float64) * share
    kv = np.stack((frame["vn_hv_kv"].to_numpy(dtype=np.float64), frame["vn_lv_kv"].to_numpy(dtype=np.float64)))
    return np.asarray(np.sqrt(3.0) * 100.0 * kv / sn_mva)


def _meters(plant: Plant, y: Any, bus: Indices, injections: Injections, n: int) -> Meters:
    network, net = plant.network, plant.net
    first_trafo, n_part = len(net["line"]), len(network.parts)
    taps: list[tuple[int, int, int]] = []
    constant = np.zeros(n_part, dtype=np.complex128)
    load = np.zeros(n_part, dtype=np.complex128)
    device = np.full(network.n_devices, n_part)
    dead_load, dead_sgen = bus[network.load_bus] == n, bus[_rows_of(net, "sgen")] == n
    power = net.sgen["p_mw"].to_numpy() + 1j * net.sgen["q_mvar"].to_numpy()
    power *= (net.sgen["in_service"] * net.sgen["scaling"]).to_numpy() * ~dead_sgen
    for k, part in enumerate(network.parts):
        area = network.areas[part]
        taps += [
            (k, row + (first_trafo if table == "trafo" else 0), int(end in ("to", "lv")))
            for table, row, end in area.pcc_branches
        ]
        loads = area.pcc_loads[~dead_load[area.pcc_loads]]
        load[k] = (network.load_p_mw[loads] + 1j * network.load_q_mvar[loads]).sum()
        others = area.pcc_sgens[area.pcc_sgens < network.first_device]
        constant[k] = -power[others].sum()
        mine = area.pcc_sgens[area.pcc_sgens >= network.first_device]
        device[mine[~dead_sgen[mine]] - network.first_device] = k
    part_of, branch, end = (np.array(column, dtype=np.int64) for column in zip(*taps, strict=True)) if taps else (
        np.zeros(0, dtype=np.int64),) * 3  # fmt: skip
    live = [one for one in network.formers if net.ext_grid["in_service"].iloc[one.row]]
    at = _rows_of(net, "ext_grid")[[one.row for one in live]] if live else np.zeros(0, dtype=np.int64)
    former_bus = bus[at]
    place = np.full(n + 1, len(injections.at))
    place[injections.at] = np.arange(len(injections.at))
    return Meters(
        part_of, branch, end, constant, load, device,
        np.array([one.part for one in live], dtype=np.int64), former_bus,
        np.ascontiguousarray(y[former_bus].toarray(), dtype=np.complex128).reshape(len(live), n), place[former_bus],
    )  # fmt: skip


def _rows_of(net: Any, table: str) -> Indices:
    """The row in the bus table of each element's bus."""
    rows: Indices = net["bus"].index.get_indexer(net[table]["bus"]).astype(np.int64)
    return rows


def _factorise(
    y: Any, v: Complexes, ref: Indices, pq: Indices, at: Indices, *, dense: bool
) -> tuple[Complexes, Complexes, Complexes, Any, Triangles | None, Floats, Floats]:
    """``no_load`` and what follows it, of a model without generators that hold a voltage."""
    n, m = y.shape[0], len(at)
    no_load = np.asarray(v, dtype=np.complex128).copy()
    empty = np.zeros((0, 0), dtype=np.complex128)
    lu = (
        splu(csc_matrix(y[pq][:, pq]), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}) if len(pq) else None
    )
    if lu is not None:
        no_load[pq] = -lu.solve(np.asarray(y[pq][:, ref] @ no_load[ref]).ravel())
    if not dense and lu is not None:
        nothing = np.zeros((2, 0, 0))
        return no_load, empty, empty, lu, _triangles(lu), nothing, nothing
    z = np.zeros((n, m), dtype=np.complex128)
    if lu is not None:
        place = np.full(n, -1)
        place[pq] = np.arange(len(pq))
        unit = np.zeros((len(pq), m), dtype=np.complex128)
        known = place[at] >= 0
        unit[place[at][known], np.flatnonzero(known)] = 1.0
        z[pq] = lu.solve(unit)
    z_at = np.ascontiguousarray(z[at])
    return no_load, z, z_at, None, None, _columns(z), _columns(z_at)


def _columns(z: Complexes) -> Floats:
    return np.ascontiguousarray(np.stack((z.real.T, z.imag.T)))


def _triangles(lu: Any) -> Triangles:
    lower, upper = csc_matrix(lu.L), csc_matrix(lu.U)
    diagonal = upper.diagonal()
    lower.setdiag(0.0)
    upper.setdiag(0.0)
    lower.eliminate_zeros()
    upper.eliminate_zeros()
    return Triangles(
        lower.indptr.astype(np.int64), lower.indices.astype(np.int64), lower.data,
        upper.indptr.astype(np.int64), upper.indices.astype(np.int64), upper.data, diagonal,
        lu.perm_r.astype(np.int64), lu.perm_c.astype(np.int64),
    )  # fmt: skip
