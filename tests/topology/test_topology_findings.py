"""Everything that can be wrong with a topology is told, with the exact path of the key that is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import small_topology

from zgrid.errors import Finding
from zgrid.messaging.keys import create
from zgrid.topology import examine, load

NAN, INF = math.nan, math.inf
MG_1, DG_1, ESS_1 = "grids.mg_1", "grids.mg_1.devices.dg_1", "grids.mg_1.devices.ess_1"
LOAD = {"kind": "load", "bus": "675", "demand": "load_1", "p_mw": 0.1}


def feeder_topology() -> dict[str, Any]:
    """Two microgrids on a feeder, neighbours of each other."""
    topology = small_topology(2)
    topology["network"] = "ieee34"
    topology["grids"]["mg_1"] |= {"connect_at": "822", "neighbours": ["mg_2"]}
    topology["grids"]["mg_2"] |= {"connect_at": "848", "neighbours": ["mg_1"]}
    return topology


def put(topology: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The topology with a dotted key set; ``...`` deletes it."""
    *way, last = key.split(".")
    holder = topology
    for part in way:
        holder = holder.setdefault(part, {})
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return topology


def findings(topology: Any) -> list[Finding]:
    return examine(topology)[1]


def the_finding(topology: dict[str, Any]) -> Finding:
    """The only one."""
    found = findings(topology)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("good", [small_topology(), small_topology(3), feeder_topology()], ids=["1", "3", "feeder"])
def test_a_good_topology_has_no_findings(good: dict[str, Any]) -> None:
    topology, found = examine(good)
    assert topology is not None
    assert found == []


@pytest.mark.parametrize(
    "path",
    [
        "colour",
        f"{MG_1}.colour",
        f"{MG_1}.network.colour",
        f"{DG_1}.colour",
        "broker.colour",
        "spaces.colour",
        "profiles.colour",
        "power_flow.colour",
        "reward.colour",
    ],
)
def test_an_unknown_key_is_told(path: str) -> None:
    assert the_finding(put(small_topology(), path, 1)) == (path, "unknown key")


@pytest.mark.parametrize(
    "path",
    [
        *("name", "profiles", "reward", "policy", "vertical", "grids"),
        *(f"{MG_1}.network", f"{MG_1}.price", f"{MG_1}.devices", f"{MG_1}.network.kind", "profiles.file"),
        *(f"{DG_1}.bus", f"{DG_1}.p_max_mw", f"{ESS_1}.capacity_mwh"),
    ],
)
def test_a_missing_key_is_told(path: str) -> None:
    assert the_finding(put(small_topology(), path, ...)) == (path, "missing")


@pytest.mark.parametrize(
    ("key", "value", "path", "near"),
    [
        (f"{DG_1}.kind", "generater", f"{DG_1}.kind", "generator"),
        ("policy", "rule_base", "policy.kind", "rule_based"),
        (f"{MG_1}.policy", "idl", f"{MG_1}.policy.kind", "idle"),
        ("reward", "economy", "reward.kind", "economic"),
        (f"{MG_1}.reward", {"kind": "referense"}, f"{MG_1}.reward.kind", "reference"),
        ("vertical", "setpoit", "vertical.kind", "setpoint"),
        (f"{MG_1}.vertical", "set_point", f"{MG_1}.vertical.kind", "setpoint"),
        ("horizontal", "average_consensu", "horizontal.kind", "average_consensus"),
        (f"{MG_1}.network", "iee13", f"{MG_1}.network.kind", "ieee13"),
        ("power_flow.kind", "runp", "power_flow.kind", "runpp"),
    ],
)
def test_an_unknown_kind_is_told_with_the_nearest_known_one(key: str, value: Any, path: str, near: str) -> None:
    found = the_finding(put(small_topology(), key, value))
    assert found.path == path
    assert "unknown" in found.message
    assert f"did you mean {near!r}?" in found.message


@pytest.mark.parametrize(
    ("key", "value", "path", "words"),
    [
        (DG_1, {"bus": "675"}, f"{DG_1}.kind", "missing; one of capacitor, ev_charger, flexible_load, generator"),
        (DG_1, None, f"{DG_1}.kind", "missing"),
        (DG_1, 5, f"{DG_1}.kind", "missing"),
        (f"{DG_1}.kind", 5, f"{DG_1}.kind", "one of capacitor"),
        ("policy", 5, "policy.kind", "missing; one of idle, onnx, random, rule_based"),
        ("vertical", ["setpoint"], "vertical.kind", "missing; one of droop, none, price_signal, setpoint"),
        (f"{DG_1}.kind", "no_such_package:Thing", f"{DG_1}.kind", "no module 'no_such_package'"),
        (f"{DG_1}.kind", "math:NoSuchName", f"{DG_1}.kind", "module 'math' has no 'NoSuchName'"),
        (f"{DG_1}.kind", "math:sqrt", f"{DG_1}.kind", "expected a subclass of zgrid.devices.base.Device"),
        ("power_flow.kind", "math:sqrt", "power_flow.kind", "expected a subclass"),
        (f"{MG_1}.network", "math:pi", f"{MG_1}.network.kind", "expected a function that returns a pandapower net"),
        (f"{MG_1}.network", "no_such.json", f"{MG_1}.network.kind", "no such file"),
    ],
)
def test_what_is_no_kind_is_told(key: str, value: Any, path: str, words: str) -> None:
    found = the_finding(put(small_topology(), key, value))
    assert found.path == path
    assert words in found.message


@pytest.mark.parametrize("kind", [":Thing", "..above:Thing"])
def test_a_plug_in_name_without_a_module_is_told(kind: str) -> None:
    assert the_finding(put(small_topology(), f"{DG_1}.kind", kind)).path == f"{DG_1}.kind"


@pytest.mark.parametrize(
    ("key", "value", "path", "words"),
    [
        (f"{DG_1}.p_min_mw", 0.7, DG_1, "p_min_mw 0.7 is above p_max_mw 0.6"),
        (f"{DG_1}.s_rated_mva", 0.5, DG_1, "p_max_mw 0.6 is above s_rated_mva 0.5"),
        (f"{DG_1}.p_max_mw", -1.0, f"{DG_1}.p_max_mw", "greater than 0"),
        (f"{DG_1}.cost_points", [[0, 0], [1]], f"{DG_1}.cost_points.1.1", "missing"),
        (f"{ESS_1}.soc_init", 0.05, ESS_1, "soc_init 0.05 is outside its band, 0.1 to 1.0"),
        (f"{ESS_1}.soc_max", 0.1, ESS_1, "soc_min 0.1 is not below soc_max 0.1"),
        (f"{ESS_1}.soc_init", 1.5, f"{ESS_1}.soc_init", "less than or equal to 1"),
        (f"{ESS_1}.eta_charge", 0.0, f"{ESS_1}.eta_charge", "greater than 0"),
        (f"{DG_1}.run", "cloud", f"{DG_1}.run", "'process', 'inline' or 'external'"),
    ],
)
def test_device_parameters_that_do_not_fit_are_told(key: str, value: Any, path: str, words: str) -> None:
    found = the_finding(put(small_topology(), key, value))
    assert found.path == path
    assert words in found.message


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(
    "path", ["dt_h", f"{DG_1}.p_max_mw", f"{MG_1}.network.load_scale", "reward.penalty", "broker.step_timeout_s"]
)
def test_a_number_that_is_not_finite_is_told(path: str, value: float) -> None:
    found = the_finding(put(small_topology(), path, value))
    assert found.path == path
    assert "finite" in found.message or "greater than" in found.message


@pytest.mark.parametrize("path", [f"{MG_1}.price", f"{MG_1}.network.load", "grids.mg_1.devices.pv_1.availability"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_constant_in_place_of_a_series_must_be_finite(path: str, value: float) -> None:
    assert the_finding(put(small_topology(), path, value)).path == path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("dt_h", value) for value in ("hourly", None, [1.0], 0.0, -1.0, 25.0)),
        *(("episode_steps", value) for value in (0, 1.5, "many", None)),
        *(("seed", value) for value in (-1, "x")),
        *(("centralized", value) for value in ("perhaps", 3, None)),
        *(("name", value) for value in ("", None, ["a"])),
        *(("grids", value) for value in ({}, [], None, "mg_1")),
        *((MG_1, value) for value in (None, "x", 5)),
        *((f"{MG_1}.devices", value) for value in ({}, [1], None)),
        *((f"{MG_1}.network", value) for value in (5, None)),
        *(("profiles", value) for value in (5, [1], None)),
        *(("reward", value) for value in (None,)),
        *((f"{DG_1}.p_max_mw", value) for value in ("lots", None, {})),
        *((f"{MG_1}.neighbours", value) for value in ("mg_2", 5)),
        *(("broker.ports", value) for value in ("5555,5556", 5555)),
        ("message_broker", "kafka"),
        ("observability", "everything"),
        ("spaces.action", "box"),
        ("profiles.split", "weekends"),
        ("broker.ready_timeout_s", 0),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_told(path: str, value: Any) -> None:
    found = the_finding(put(small_topology(), path, value))
    assert found.path == path
    assert f"got {value!r}" in found.message


@pytest.mark.parametrize("path", [f"{MG_1}.price", f"{MG_1}.network.load", "grids.mg_1.devices.pv_1.availability"])
def test_a_series_of_the_wrong_type_is_told_once_at_its_path(path: str) -> None:
    assert the_finding(put(small_topology(), path, None)).path == path


def test_a_flag_is_no_price() -> None:
    assert findings(put(small_topology(), f"{MG_1}.price", True))


@pytest.mark.parametrize(
    ("path", "value"),
    [("grids.MG1", {}), ("grids.mg-1", {}), (f"{MG_1}.devices.Dg-1", LOAD), (f"{MG_1}.devices.a/b", LOAD)],
)
def test_an_id_that_is_no_name_is_told(path: str, value: Any) -> None:
    found = findings(put(small_topology(), path, value))
    assert any(one.path == path and "pattern" in one.message for one in found), found


def test_a_key_that_is_a_number_is_told() -> None:
    assert the_finding(small_topology() | {5: 6}).path == "5"


def test_an_unknown_bus_is_told_with_the_known_ones() -> None:
    found = the_finding(put(small_topology(), f"{DG_1}.bus", "999"))
    assert found.path == f"{DG_1}.bus"
    assert "unknown bus '999'" in found.message
    assert "675" in found.message


def test_a_bus_may_be_given_as_a_number() -> None:
    assert findings(put(small_topology(), f"{DG_1}.bus", 675)) == []


@pytest.mark.parametrize(
    "path", [f"{MG_1}.price", f"{MG_1}.network.load", "grids.mg_1.devices.pv_1.availability", "network.load"]
)
def test_an_unknown_series_is_told_with_the_known_ones(path: str) -> None:
    topology = feeder_topology()
    topology["network"] = {"kind": "ieee34"}
    found = the_finding(put(topology, path, "sunshine"))
    assert found.path == path
    assert "unknown series 'sunshine'" in found.message
    assert "solar" in found.message


def test_an_unknown_series_of_a_load_is_told() -> None:
    topology = put(small_topology(), f"{MG_1}.devices.load_1", LOAD | {"demand": "nobody"})
    assert the_finding(topology).path == f"{MG_1}.devices.load_1.demand"


@pytest.mark.parametrize("file", ["missing.csv", ["zgrid:simbench_2016", "missing.csv"], "zgrid:missing"])
def test_a_missing_profile_file_is_told(file: Any) -> None:
    found = findings(put(small_topology(), "profiles.file", file))
    assert found[0].path == "profiles.file"
    assert "missing" in found[0].message


@pytest.mark.parametrize("dt_h", [0.7, 5.0, 23.0])
def test_a_step_that_does_not_divide_a_day_is_told(dt_h: float) -> None:
    found = findings(put(small_topology(), "dt_h", dt_h))
    assert found[0] == ("dt_h", f"a day must be a whole number of steps, got {dt_h}")


@pytest.mark.parametrize("dt_h", [0.25, 0.5, 1.0, 3.0, 24.0, 1 / 3])
def test_a_step_that_divides_a_day_is_fine(dt_h: float) -> None:
    constants = put(small_topology(), "profiles.file", [])
    constants["grids"]["mg_1"] |= {"price": 30.0, "network": "ieee13"}
    constants["grids"]["mg_1"]["devices"]["pv_1"]["availability"] = 0.5
    assert findings(put(constants, "dt_h", dt_h)) == []


def test_a_step_that_is_hardly_more_than_nothing_is_told() -> None:
    assert findings(put(small_topology(), "dt_h", 1e-310))[0].path == "dt_h"


def test_episodes_longer_than_any_run_of_test_days_are_told() -> None:
    topology = put(put(small_topology(), "profiles.split", "test"), "episode_steps", 24 * 8)
    found = the_finding(topology)
    assert found.path == "profiles"
    assert "8 days" in found.message


TAPS = {"kind": "tap_changer", "element": "Substation", "tap_min": -2, "tap_max": 2, "tap_init": 0}
SWITCH = {"kind": "switch", "element": "Switch 671-692"}


class TestMoving:
    """Devices that move the network."""

    def findings(self, **devices: Any) -> list[Finding]:
        topology = small_topology()
        topology["grids"]["mg_1"]["devices"] |= devices
        return findings(topology)

    def test_what_is_there_may_be_moved(self) -> None:
        capacitor = {"kind": "capacitor", "bus": "675", "q_mvar_per_step": 0.1, "steps": 3}
        assert self.findings(oltc=TAPS, sw=SWITCH, pcc={"kind": "pcc_breaker"}, cap_1=capacitor, cap_2=capacitor) == []

    @pytest.mark.parametrize(
        ("device", "words"),
        [
            (TAPS | {"element": "Substatoin"}, "unknown tap changer 'Substatoin'; there is Substation"),
            (TAPS | {"element": "Transformer 1"}, "unknown tap changer 'Transformer 1'; there is Substation"),
            (SWITCH | {"element": "Switch 1"}, "unknown switch 'Switch 1'; there is Switch 671-692"),
        ],
    )
    def test_an_unknown_element_is_told_with_the_known_ones(self, device: dict[str, Any], words: str) -> None:
        assert self.findings(one=device) == [("grids.mg_1.devices.one.element", words)]

    def test_a_network_without_such_elements_is_told(self) -> None:
        topology = put(small_topology(), f"{MG_1}.network", "ieee34")
        topology["grids"]["mg_1"]["devices"] = {"one": SWITCH}
        assert the_finding(topology).message == "unknown switch 'Switch 671-692'; there is none"

    @pytest.mark.parametrize(("key", "value"), [("tap_min", -3), ("tap_max", 16)])
    def test_a_range_beyond_that_of_the_transformer_is_told(self, key: str, value: int) -> None:
        found = self.findings(oltc=TAPS | {key: value})
        assert found == [(f"grids.mg_1.devices.oltc.{key}", f"expected -2 to 2, got {value}")]

    @pytest.mark.parametrize(
        ("device", "what"),
        [(TAPS, "tap Substation"), (SWITCH, "switch Switch 671-692"), ({"kind": "pcc_breaker"}, "pcc")],
    )
    def test_two_that_move_the_same_are_told(self, device: dict[str, Any], what: str) -> None:
        assert self.findings(one=device, two=device) == [("grids.mg_1.devices.two", f"one moves the same {what}")]

    def test_a_tap_that_begins_in_two_places_is_told(self) -> None:
        topology = put(small_topology(), f"{MG_1}.network.taps", {"Substation": 1})
        topology["grids"]["mg_1"]["devices"]["oltc"] = TAPS
        assert the_finding(topology) == (f"{MG_1}.network.taps.Substation", "oltc moves it from its tap_init on")

    @pytest.mark.parametrize("key", ["bus", "place"])
    def test_what_is_at_no_bus_has_no_bus(self, key: str) -> None:
        assert self.findings(pcc={"kind": "pcc_breaker", key: "650"}) == [(f"{MG_1}.devices.pcc.{key}", "unknown key")]

    @pytest.mark.parametrize("unit", [None, "dg_9"])
    def test_a_forming_unit_that_is_not_there_is_told_with_those_at_a_bus(self, unit: str | None) -> None:
        topology = put(small_topology(), f"{MG_1}.islanding", "grid_forming")
        topology["grids"]["mg_1"] |= {"forming_unit": unit}
        topology["grids"]["mg_1"]["devices"]["pcc"] = {"kind": "pcc_breaker"}
        assert the_finding(topology) == (f"{MG_1}.forming_unit", f"expected one of dg_1, pv_1, ess_1, got {unit!r}")

    def test_a_forming_unit_at_no_bus_is_told(self) -> None:
        topology = put(small_topology(), f"{MG_1}.islanding", "grid_forming")
        topology["grids"]["mg_1"] |= {"forming_unit": "pcc"}
        topology["grids"]["mg_1"]["devices"]["pcc"] = {"kind": "pcc_breaker"}
        assert the_finding(topology) == (f"{MG_1}.forming_unit", "pcc is at no bus")

    def test_a_forming_unit_without_islanding_is_told(self) -> None:
        found = the_finding(put(small_topology(), f"{MG_1}.forming_unit", "dg_1"))
        assert found == (f"{MG_1}.forming_unit", "without islanding: grid_forming there is none")


class TestNeighbours:
    def finding(self, neighbours: list[str]) -> Finding:
        return the_finding(put(small_topology(2), "grids.mg_1.neighbours", neighbours))

    def test_who_is_no_grid_is_told(self) -> None:
        assert self.finding(["mg_2", "mg_9"]) == ("grids.mg_1.neighbours", "'mg_9' is no grid; there is mg_1, mg_2")

    def test_a_grid_itself_is_told(self) -> None:
        assert self.finding(["mg_2", "mg_1"]) == ("grids.mg_1.neighbours", "mg_1 cannot be its own neighbour")

    def test_who_is_named_twice_is_told(self) -> None:
        assert self.finding(["mg_2", "mg_2"]) == ("grids.mg_1.neighbours", "a neighbour is named twice")

    def test_who_does_not_name_the_grid_in_turn_is_told_at_the_grid_that_names(self) -> None:
        found = the_finding(put(small_topology(2), "grids.mg_1.neighbours", []))
        assert found == ("grids.mg_2.neighbours", "not mutual: mg_1 does not name mg_2")


class TestBroker:
    def findings(self, **broker: Any) -> list[Finding]:
        return findings(put(small_topology(), "broker", broker))

    def test_a_port_taken_twice_is_told(self) -> None:
        assert self.findings(ports=[5555, 5555]) == [("broker.ports", "port 5555 is taken twice")]

    @pytest.mark.parametrize("port", [0, -1, 65536, 99999])
    def test_a_port_out_of_range_is_told(self, port: int) -> None:
        assert self.findings(ports=[5555, port]) == [("broker.ports", f"expected ports from 1 to 65535, got {port}")]

    def test_a_second_port_that_is_missing_is_told(self) -> None:
        assert self.findings(ports=[5555]) == [("broker.ports.1", "missing")]

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "grid.example.org"])
    def test_an_address_that_others_reach_is_told_unless_insecurity_is_wanted(self, host: str) -> None:
        (found,) = self.findings(host=host)
        assert found.path == "broker.host"
        assert "insecure: true" in found.message
        assert self.findings(host=host, insecure=True) == []

    def test_an_address_that_others_reach_is_fine_with_keys(self, tmp_path: Path) -> None:
        create(tmp_path / "keys", ["broker"])
        assert self.findings(host="0.0.0.0", keys=str(tmp_path / "keys")) == []

    def test_keys_that_are_not_there_are_told(self, tmp_path: Path) -> None:
        ((path, message),) = self.findings(keys=str(tmp_path / "none"))
        assert path == "broker.keys"
        assert message.startswith(f"no folder {tmp_path / 'none'}")
        create(tmp_path / "keys", ["env"])
        ((path, message),) = self.findings(keys=str(tmp_path / "keys"))
        assert path == "broker.keys"
        assert "has no public/broker.key" in message

    def test_the_folder_of_keys_is_looked_for_beside_the_file(self, tmp_path: Path) -> None:
        create(tmp_path / "keys", ["broker"])
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(small_topology() | {"broker": {"keys": "keys"}}), encoding="utf-8")
        for checked in (True, False):
            assert load(str(file), checked=checked).broker.keys == str(tmp_path / "keys")

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3"])
    def test_a_loopback_address_needs_nothing(self, host: str) -> None:
        assert self.findings(host=host) == []


class TestMachines:
    """The hosts of grids and devices."""

    def findings(self, host: Any, broker: str = "127.0.0.1") -> list[Finding]:
        content = put(small_topology(), "broker", {"host": broker, "insecure": True})
        return findings(put(content, "grids.mg_1.devices.pv_1.host", host))

    @pytest.mark.parametrize(
        "host", ["10.0.0.300", "10.0.0", "0.0.0.0", "10.0.0.2:5555", "tcp://a", "a b", "", "-a", "::1", "*"]
    )
    def test_what_is_no_host_is_told(self, host: str) -> None:
        ((path, message),) = self.findings(host)
        assert path == "grids.mg_1.devices.pv_1.host"
        assert message == f"expected an IPv4 address or a host name, got {host!r}"

    def test_a_name_that_nobody_knows_is_told_once_for_each_that_has_it(self) -> None:
        content = put(small_topology(), "grids.mg_1.devices.pv_1.host", "no.such.machine.invalid")
        found = findings(put(content, "grids.mg_1.host", "no.such.machine.invalid"))
        assert [path for path, _ in found] == ["grids.mg_1.host", "grids.mg_1.devices.pv_1.host"]
        assert "cannot be resolved" in found[0].message
        assert findings(content | {"centralized": True}) == []

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
    def test_this_machine_needs_nothing(self, host: str | None) -> None:
        assert self.findings(host) == []

    def test_a_proxy_on_loopback_cannot_be_reached_from_elsewhere(self) -> None:
        ((path, message),) = self.findings("192.0.2.77")
        assert path == "broker.host"
        assert message.startswith("mg_1.pv_1 runs on 192.0.2.77 and cannot reach 127.0.0.1; set broker.host to ")
        assert self.findings("192.0.2.77", "0.0.0.0") == []


class TestFeeder:
    def finding(self, key: str, value: Any) -> Finding:
        return the_finding(put(feeder_topology(), key, value))

    def test_a_grid_that_does_not_say_where_it_hangs_is_told(self) -> None:
        found = self.finding("grids.mg_2.connect_at", ...)
        assert found == ("grids.mg_2.connect_at", "missing; the topology has a feeder (network)")

    def test_a_grid_that_hangs_on_nothing_is_told(self) -> None:
        found = the_finding(put(small_topology(), "grids.mg_1.connect_at", "822"))
        assert found.path == "grids.mg_1.connect_at"
        assert "there is no feeder" in found.message

    def test_a_bus_that_the_feeder_does_not_have_is_told(self) -> None:
        found = self.finding("grids.mg_2.connect_at", "nowhere")
        assert found.path == "grids.mg_2.connect_at"
        assert "unknown bus 'nowhere'" in found.message

    def test_two_grids_at_one_bus_are_told(self) -> None:
        found = self.finding("grids.mg_2.connect_at", "822")
        assert found == ("grids.mg_2.connect_at", "bus 822 is taken by mg_1")

    def test_voltages_that_differ_are_told(self) -> None:
        found = self.finding("grids.mg_2.connect_at", "890")
        assert found == ("grids.mg_2.connect_at", "bus 890 has 4.16 kV, the grid's PCC has 24.9 kV")

    def test_an_unknown_feeder_is_told(self) -> None:
        assert self.finding("network", "ieee43").path == "network.kind"

    @pytest.mark.parametrize(
        ("key", "changer", "position"), [("network", "Regulator 1", 17), (f"{MG_1}.network", "Substation", -3)]
    )
    def test_a_tap_position_out_of_range_is_told(self, key: str, changer: str, position: int) -> None:
        kind = "ieee34" if key == "network" else "ieee13"
        found = self.finding(key, {"kind": kind, "taps": {changer: position}})
        assert found.path == f"{key}.taps.{changer}"
        assert f"got {position}" in found.message

    def test_an_unknown_tap_changer_is_told(self) -> None:
        found = self.finding("network", {"kind": "ieee34", "taps": {"Regulator 3": 1}})
        assert found.path == "network.taps.Regulator 3"
        assert "there is Regulator 1, Regulator 2" in found.message

    def test_a_tap_position_that_is_no_whole_number_is_told(self) -> None:
        found = self.finding("network", {"kind": "ieee34", "taps": {"Regulator 1": 1.5}})
        assert found.path == "network.taps.Regulator 1"


def test_a_grid_of_devices_without_controls_is_told() -> None:
    found = the_finding(put(small_topology(), f"{MG_1}.devices", {"load_1": LOAD}))
    assert found == (f"{MG_1}.devices", "no device that can be controlled; expected at least one")


def test_full_observability_needs_centralized() -> None:
    topology = put(small_topology(), "observability", "full")
    assert the_finding(topology).path == "observability"
    assert findings(topology | {"centralized": True}) == []


def test_several_findings_of_shape_are_told_at_once() -> None:
    topology = put(small_topology(2), "colour", 1)
    put(topology, f"{DG_1}.p_min_mw", 2.0)
    put(topology, "grids.mg_2.devices.ess_1.kind", "battery")
    put(topology, "policy", "best")
    put(topology, "dt_h", -1)
    assert sorted(one.path for one in findings(topology)) == [
        *("colour", "dt_h", DG_1, "grids.mg_2.devices.ess_1.kind", "policy.kind")
    ]


def test_several_findings_of_meaning_are_told_at_once() -> None:
    topology = put(feeder_topology(), f"{DG_1}.bus", "nowhere")
    put(topology, "grids.mg_2.connect_at", "822")
    put(topology, "grids.mg_2.neighbours", [])
    put(topology, "broker.ports", [1, 1])
    put(topology, "grids.mg_2.price", "cheap")
    assert sorted(one.path for one in findings(topology)) == [
        *("broker.ports", f"{DG_1}.bus", "grids.mg_1.neighbours", "grids.mg_2.connect_at", "grids.mg_2.price")
    ]


def test_findings_of_shape_and_of_meaning_are_told_at_once() -> None:
    topology = put(small_topology(2), "colour", 1)
    put(topology, "grids.mg_2.neighbours", [])
    assert sorted(one.path for one in findings(topology)) == ["colour", "grids.mg_1.neighbours"]


def test_examining_leaves_the_given_mapping_alone() -> None:
    given = put(small_topology(), "colour", 1)
    expected = put(small_topology(), "colour", 1)
    findings(given)
    assert given == expected
