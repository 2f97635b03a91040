"""What every device kind must do. One suite for the built-in kinds, a plug-in and yours: subclass DeviceContract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from pydantic import ValidationError

from zgrid.devices import DEVICES, AssetConfig, Clock, Control, Device, DeviceConfig, Effect, Market, device_class

DT_H = 0.25
STEPS, BATCH = 40, 8  # x devices of a suite: the number of random cases
TOLERANCE = 1e-12

Row = tuple[float, ...]


class Case(NamedTuple):
    """One device, and one step of it: what it was told and what came of it."""

    device: Device
    state: Row
    setpoint: Row
    series: Row
    next_state: Row
    effect: Row


class DeviceContract:
    """Subclass it with a kind (built in, or module:Class) and several devices of that kind, as in a topology.

    Each device may say what it promises by its parameters: ``p_max_mw``, ``s_rated_mva``. ``place`` is where they are:
    at a bus, at an element, or nowhere.
    """

    kind: ClassVar[str]
    devices: ClassVar[Sequence[dict[str, Any]]]
    costs_may_be_negative: ClassVar[bool] = False
    place: ClassVar[dict[str, str]] = {"bus": "b"}

    @pytest.fixture
    def configs(self) -> list[Any]:
        return list(_configs(type(self)))

    @pytest.fixture
    def many(self, configs: list[Any]) -> Device:
        device: Device = device_class(self.kind).many(configs, DT_H)
        return device

    @pytest.fixture
    def ones(self, configs: list[Any]) -> list[Device]:
        return [device_class(self.kind).one(config, DT_H) for config in configs]

    @pytest.fixture
    def cases(self) -> list[Case]:
        walked = _random_walks(type(self))
        assert len(walked) >= 1000, "give more devices: the suite promises a thousand cases"
        return walked

    # ---- configs and controls ----------------------------------------------------------------------------------------

    def test_kind_is_a_device_class_with_its_own_config(self) -> None:
        found = device_class(self.kind)
        assert issubclass(found, Device)
        assert issubclass(found.Config, AssetConfig)
        assert isinstance(found.COST, str)

    def test_config_refuses_an_unknown_key(self, configs: list[Any]) -> None:
        raw = {**configs[0].model_dump(), "p_max_kw": 1.0}
        with pytest.raises(ValidationError, match=r"p_max_kw\n.*Extra inputs"):
            type(configs[0]).model_validate(raw)

    def test_config_cannot_be_changed(self, configs: list[Any]) -> None:
        with pytest.raises(ValidationError):
            configs[0].run = "inline"

    def test_config_survives_json(self, configs: list[Any]) -> None:
        for config in configs:
            assert type(config).model_validate_json(config.model_dump_json()) == config

    def test_config_gives_one_finite_column_per_time_series_of_the_kind(self, configs: list[Any]) -> None:
        clock = Clock(3, 24, 1.0)
        for config in configs:
            given = config.columns(lambda source: np.full(clock.n_rows, 0.5), clock, np.random.default_rng(1))
            assert len(given) == len(device_class(self.kind).SERIES)
            assert all(column.shape == (clock.n_rows,) and np.isfinite(column).all() for column in given)

    def test_config_gives_the_same_columns_again(self, configs: list[Any]) -> None:
        clock = Clock(3, 24, 1.0)
        for config in configs:
            one, two = (
                config.columns(lambda source: np.ones(clock.n_rows), clock, np.random.default_rng(1)) for _ in range(2)
            )
            assert [column.tobytes() for column in one] == [column.tobytes() for column in two]

    def test_what_moves_the_network_has_its_position_in_the_state(self, ones: list[Device]) -> None:
        for device in ones:
            moves = device._configs[0].actuation() is not None
            assert moves == (device.POSITION in device.STATE)

    def test_it_measures_nothing_but_the_voltage(self, ones: list[Device]) -> None:
        assert ones[0].MEASURES in ((), ("vm_pu",))
        assert not ones[0].MEASURES or isinstance(ones[0]._configs[0], DeviceConfig)

    def test_controls_are_entries_of_the_setpoint_in_its_order(self, ones: list[Device]) -> None:
        for device in ones:
            places = [device.SETPOINT.index(control.name) for control in controls_of(device)]
            assert places == sorted(set(places))

    def test_controls_have_limits_that_are_finite_and_in_order(self, ones: list[Device]) -> None:
        for device in ones:
            for control in controls_of(device):
                assert math.isfinite(control.low)
                assert math.isfinite(control.high)
                assert control.low <= control.high

    def test_controls_can_stay_idle(self, ones: list[Device]) -> None:
        for device in ones:
            for control in controls_of(device):
                idle = control.scale(control.unscale(control.idle))
                assert idle == pytest.approx(min(max(control.idle, control.low), control.high), abs=1e-12)

    def test_neutral_setpoint_has_the_length_of_the_setpoint(self, ones: list[Device]) -> None:
        assert len(ones[0].neutral()) == len(ones[0].SETPOINT)

    # ---- the equations -----------------------------------------------------------------------------------------------

    def test_initial_state_has_one_entry_per_name(self, ones: list[Device], many: Device) -> None:
        n = len(ones)
        assert all(len(device.initial()) == len(device.STATE) for device in ones)
        assert [np.shape(entry) for entry in many.initial()] == [(n,)] * len(many.STATE)

    def test_step_keeps_the_length_of_the_state(self, cases: list[Case]) -> None:
        assert {len(case.next_state) for case in cases} == {len(cases[0].device.STATE)}

    def test_step_on_floats_gives_floats(self, cases: list[Case]) -> None:
        for case in cases:
            assert {type(x) for x in (*case.next_state, *case.effect)} == {float}

    def test_everything_a_step_gives_is_finite(self, cases: list[Case]) -> None:
        for case in cases:
            assert all(math.isfinite(x) for x in (*case.next_state, *case.effect)), case

    def test_step_forgets_nothing_and_remembers_nothing(self, cases: list[Case]) -> None:
        for case in cases[::7]:
            again = case.device.step(case.state, case.setpoint, case.series)
            assert (again[0], tuple(again[1])) == (case.next_state, case.effect)

    def test_active_power_stays_within_p_max(self, cases: list[Case]) -> None:
        for case in cases:
            p_max = getattr(case.device._configs[0], "p_max_mw", math.inf)
            assert abs(case.effect[0]) <= p_max + TOLERANCE, case

    def test_apparent_power_stays_in_the_circle(self, cases: list[Case]) -> None:
        for case in cases:
            s_rated = getattr(case.device._configs[0], "s_rated_mva", math.inf)
            assert math.hypot(case.effect[0], case.effect[1]) <= s_rated + TOLERANCE, case

    def test_cost_is_never_negative(self, cases: list[Case]) -> None:
        if self.costs_may_be_negative:
            pytest.skip("this kind may earn")
        assert all(case.effect[2] >= 0.0 for case in cases)

    def test_violation_is_never_negative(self, cases: list[Case]) -> None:
        assert all(case.effect[3] >= 0.0 for case in cases)

    def test_a_setpoint_that_is_met_is_no_violation(self, cases: list[Case]) -> None:
        for case in cases:
            if case.device.SETPOINT[:2] != ("p_mw", "q_mvar"):
                return
            met = case.setpoint[0] == case.effect[0] and case.setpoint[1] == case.effect[1]
            assert not met or case.effect[3] == 0.0, case

    def test_respond_gives_a_setpoint_that_step_takes_without_violation(self, cases: list[Case]) -> None:
        for k, case in enumerate(cases):
            price = (-20.0, 0.0, 30.0, 60.0, 200.0)[k % 5]
            wanted = case.device.respond(case.state, case.series, Market(price, 20.0, 60.0))
            setpoint = wanted + case.device.neutral()[len(wanted) :]
            _, effect = case.device.step(case.state, setpoint, case.series)
            assert effect.violation == 0.0, (case, price)

    # ---- one device and many ---------------------------------------------------------------------------------------

    def _walk(self, ones: list[Device], many: Device, seed: int, *, negative_zeros: bool) -> list[tuple[Any, Any]]:
        """Pairs of arrays, (batch, device): every output of a walk on arrays, and the same on floats."""
        rng = np.random.default_rng(seed)
        n = len(ones)
        states = [[device.initial() for device in ones] for _ in range(BATCH)]
        stacked: tuple[Any, ...] = many.initial()
        pairs = []
        for _ in range(STEPS):
            setpoints = [[random_setpoint(rng, device) for device in ones] for _ in range(BATCH)]
            series = [[random_series(rng, many) for _ in ones] for _ in range(BATCH)]
            if negative_zeros:
                setpoints = [[tuple(-0.0 if x == 0.0 else x for x in one) for one in row] for row in setpoints]
                series = [[tuple(-0.0 if x < 0.0 else x for x in one) for one in row] for row in series]
            stacked, effect = many.step(stacked, columns(setpoints), columns(series))
            results = [
                [
                    device.step(state, floats(setpoint), floats(one))
                    for device, state, setpoint, one in zip(ones, *rows, strict=True)
                ]
                for rows in zip(states, setpoints, series, strict=True)
            ]
            states = [[state for state, _ in row] for row in results]
            single = columns([[(*state, *effect) for state, effect in row] for row in results])
            for batched, alone in zip((*stacked, *effect), single, strict=True):
                pairs.append((np.broadcast_to(batched, (BATCH, n)), alone))
        return pairs

    def test_one_device_and_a_batch_agree_to_the_bit(self, ones: list[Device], many: Device) -> None:
        for batched, alone in self._walk(ones, many, 2, negative_zeros=False):
            # + 0.0 turns -0.0 into 0.0 and leaves every other float as it is
            np.testing.assert_array_equal((batched + 0.0).view(np.int64), (alone + 0.0).view(np.int64))

    def test_one_device_and_a_batch_agree_in_the_sign_of_zero(self, ones: list[Device], many: Device) -> None:
        for batched, alone in self._walk(ones, many, 3, negative_zeros=True):
            assert np.ascontiguousarray(batched).tobytes() == alone.tobytes()

    def test_one_row_of_arrays_agrees_with_floats_to_the_bit(self, configs: list[Any], cases: list[Case]) -> None:
        rows = {id(case.device): device_class(self.kind).many(case.device._configs, DT_H) for case in cases}
        for case in cases[::3]:
            arguments = [tuple(np.array([x]) for x in values) for values in (case.state, case.setpoint, case.series)]
            state, effect = rows[id(case.device)].step(*arguments)
            got = np.array([x[0] for x in (*state, *effect)]) + 0.0
            assert got.tobytes() == (np.array([*case.next_state, *case.effect]) + 0.0).tobytes(), case

    def test_respond_on_one_device_and_a_batch_agree_to_the_bit(self, ones: list[Device], many: Device) -> None:
        rng = np.random.default_rng(4)
        states: tuple[Any, ...] = many.initial()
        for k in range(30):
            series = columns([[random_series(rng, many) for _ in ones]])
            series = tuple(x[0] for x in series)
            market = Market((-20.0, 0.0, 30.0, 60.0, 200.0)[k % 5], 20.0, 60.0)
            wanted = many.respond(states, series, market)
            for row, device in enumerate(ones):
                state, mine = (tuple(float(x[row]) for x in values) for values in (states, series))
                alone = np.array(device.respond(state, mine, market)) + 0.0
                assert np.array([np.broadcast_to(x, len(ones))[row] + 0.0 for x in wanted]).tobytes() == alone.tobytes()
            setpoints = columns([[random_setpoint(rng, device) for device in ones]])
            states, _ = many.step(states, tuple(x[0] for x in setpoints), series)


@cache
def _configs(suite: type[DeviceContract]) -> tuple[Any, ...]:
    config = device_class(suite.kind).Config
    return tuple(config.model_validate({"kind": suite.kind, **suite.place, **device}) for device in suite.devices)


@cache
def _random_walks(suite: type[DeviceContract]) -> list[Case]:
    """Random walks of every device of a suite, on floats."""
    rng = np.random.default_rng(1)
    walked = []
    for config in _configs(suite):
        device = device_class(suite.kind).one(config, DT_H)
        for _ in range(BATCH):
            state = device.initial()
            for _ in range(STEPS):
                setpoint = random_setpoint(rng, device)
                series = random_series(rng, device)
                following, effect = device.step(state, setpoint, series)
                walked.append(Case(device, state, setpoint, series, following, tuple(effect)))
                state = following
    return walked


def controls_of(device: Device) -> tuple[Control, ...]:
    return device.controls(device._configs[0])


def random_setpoint(rng: np.random.Generator, device: Device) -> Row:
    """Within, at and beyond the limits of the controls; entries without a control stay neutral."""
    values = list(device.neutral())
    for control in controls_of(device):
        low, high = control.low, control.high
        value = rng.uniform(low, high) if rng.random() < 0.6 else rng.choice([low, high, 0.0, low - 0.3, high + 0.3])
        values[device.SETPOINT.index(control.name)] = control.scale(rng.uniform(-1, 1)) if control.levels else value
    return floats(values)


def random_series(rng: np.random.Generator, device: Device) -> Row:
    """Time series around 0 to 1, and voltages from dead to high."""
    series = rng.choice([0.0, 1.0, *rng.uniform(-0.2, 1.3, 6)], len(device.SERIES))
    measured = rng.choice([0.0, 1.0, *rng.uniform(0.85, 1.15, 6)], len(device.MEASURES))
    return floats((*series, *measured))


def floats(values: Sequence[float]) -> Row:
    return tuple(float(x) for x in values)


def columns(rows: Sequence[Sequence[Row]]) -> tuple[Any, ...]:
    """(batch, device) tuples of entries as one (batch, device) float64 array per entry."""
    array = np.array(rows, dtype=np.float64)
    return tuple(np.ascontiguousarray(array[..., k]) for k in range(array.shape[-1]))


PLANT = {"p_max_mw": 0.66, "s_rated_mva": 1.0}


class TestGenerator(DeviceContract):
    kind = "generator"
    devices = (
        {**PLANT, "cost_a": 100.0, "cost_b": 72.4, "cost_c": 0.5011},
        {**PLANT, "cost_b": 40.0, "q_control": True, "min_power_factor": 0.8},
        {"p_max_mw": 1.0, "s_rated_mva": 1.0, "q_control": True, "q_min_mvar": -0.2, "q_max_mvar": 0.5},
        {**PLANT, "p_min_mw": 0.2, "commitment": True, "start_time_h": 0.5, "stop_time_h": 0.25, "start_cost": 9.0},
        {**PLANT, "p_min_mw": 0.1, "cost_points": [(0.1, 5.0), (0.3, 15.0), (0.66, 51.0)], "q_control": True},
        {**PLANT, "cost_points": [(0.0, 0.0), (0.66, 30.0)], "commitment": True, "stop_cost": 2.0},
    )


class TestRampedGenerator(DeviceContract):
    kind = "generator"
    devices = (
        {**PLANT, "cost_a": 10.0, "cost_b": 40.0, "ramp_mw_per_h": 0.4},
        {**PLANT, "cost_b": 40.0, "ramp_mw_per_h": 0.1, "p_min_mw": 0.2, "q_control": True},
        {**PLANT, "cost_b": 40.0, "ramp_mw_per_h": 0.8, "commitment": True, "start_time_h": 0.25},
        {**PLANT, "cost_b": 40.0, "ramp_mw_per_h": 5.0, "q_control": True, "min_power_factor": 0.9},
    )

    def test_respond_gives_a_setpoint_that_step_takes_without_violation(self, cases: list[Case]) -> None:
        super().test_respond_gives_a_setpoint_that_step_takes_without_violation(cases)


class TestRenewable(DeviceContract):
    kind = "renewable"
    devices = (
        {"availability": "solar", "p_max_mw": 0.3, "s_rated_mva": 0.33},
        {"availability": "wind", "p_max_mw": 0.3, "s_rated_mva": 0.3, "q_control": True, "curtailment_cost": 12.0},
        {"availability": 0.5, "p_max_mw": 1.3, "s_rated_mva": 1.5, "q_control": True, "limited_by": "rating"},
        {"availability": "solar", "p_max_mw": 0.1, "s_rated_mva": 0.7, "curtailment_cost": 0.1},
    )


class TestStorage(DeviceContract):
    kind = "storage"
    devices = (
        {"p_max_mw": 0.5, "s_rated_mva": 0.6, "capacity_mwh": 2.0, "soc_min": 0.1, "eta_charge": 0.98,
         "eta_discharge": 0.97, "wear_cost": 5.0},
        {"p_max_mw": 0.5, "s_rated_mva": 0.5, "capacity_mwh": 0.2, "eta_charge": 0.7, "eta_discharge": 0.6,
         "q_control": True},
        {"p_max_mw": 2.0, "s_rated_mva": 2.5, "capacity_mwh": 1.0, "soc_min": 0.2, "soc_max": 0.9, "soc_init": 0.2,
         "eta_charge": 1.0, "eta_discharge": 1.0, "q_control": True, "wear_cost": 1.0},
        {"p_max_mw": 0.1, "s_rated_mva": 0.3, "capacity_mwh": 5.0, "soc_init": 1.0, "eta_charge": 0.9,
         "eta_discharge": 0.95},
    )  # fmt: skip


class TestLoad(DeviceContract):
    kind = "load"
    devices = (
        {"demand": "load_1", "p_mw": 0.3, "q_mvar": 0.1},
        {"demand": "load_2", "p_mw": 0.5, "q_mvar": -0.1, "scale": 0.7},
        {"demand": 0.4, "p_mw": 0.0},
        {"demand": 1.0, "p_mw": 1.0, "scale": 0.0},
    )


class TestSmartRenewable(DeviceContract):
    kind = "smart_renewable"
    devices = (
        {"availability": "solar", "p_max_mw": 0.3, "s_rated_mva": 0.33, "control_mode": "volt_var"},
        {
            "availability": "solar",
            "p_max_mw": 0.3,
            "s_rated_mva": 0.3,
            "control_mode": "volt_var_watt",
            "response": 1.0,
        },
        {"availability": 0.5, "p_max_mw": 1.3, "s_rated_mva": 1.5, "q_control": True, "control_mode": "volt_watt"},
        {"availability": "solar", "p_max_mw": 0.1, "s_rated_mva": 0.7, "q_control": True, "curtailment_cost": 0.1},
    )


class TestSmartStorage(DeviceContract):
    kind = "smart_storage"
    devices = tuple(
        {**TestStorage.devices[0], "q_control": True, "control_mode": mode}
        for mode in ("none", "volt_var", "volt_watt", "volt_var_watt")
    )


class TestGridTie(DeviceContract):
    kind = "grid_tie"
    costs_may_be_negative = True
    devices = (
        {"import_limit_mw": 0.5, "export_limit_mw": 0.3, "s_rated_mva": 0.6, "price": "price"},
        {"import_limit_mw": 0.5, "export_limit_mw": 0.0, "s_rated_mva": 0.5, "price": 40.0, "q_control": True},
        {"import_limit_mw": 0.0, "export_limit_mw": 0.3, "s_rated_mva": 0.4, "price": "price", "sell_discount": 0.0},
        {"import_limit_mw": 1.0, "export_limit_mw": 1.0, "s_rated_mva": 1.0, "price": 3, "sell_discount": 0.9,
         "q_control": True},
    )  # fmt: skip


class TestFlexibleLoad(DeviceContract):
    kind = "flexible_load"
    _shifts: ClassVar[dict[str, float]] = {"shift_max_mw": 0.2, "backlog_max_mwh": 0.15, "recover_h": 2.0}
    devices = (
        {"demand": "load_1", "p_mw": 0.3, "q_mvar": 0.1, "shed_max": 0.4, "shed_cost": 100.0},
        {"demand": "load_1", "p_mw": 0.3, "power_factor": 0.9, "waiting_cost": 1.0, **_shifts},
        {"demand": 0.7, "p_mw": 0.5, "q_mvar": -0.1, "shed_max": 1.0, "shift_cost": 3.0, **_shifts},
        {"demand": 0.7, "p_mw": 0.5, "shed_max": 0.2, **_shifts, "recover_h": 0.1},
    )


class TestEvCharger(DeviceContract):
    kind = "ev_charger"
    devices = (
        {"p_max_mw": 0.011},
        {"p_max_mw": 0.15, "eta": 0.9, "energy_mwh": {"mean": 0.3, "std": 0.1}, "missed_cost": 900.0},
        {"p_max_mw": 0.4, "eta": 1.0, "days_with_car": 0.3, "seed": 7},
        {"p_max_mw": 1.0, "arrival_h": {"mean": 8.0}, "stay_h": {"mean": 9.0}},
    )

    def test_respond_gives_a_setpoint_that_step_takes_without_violation(self, cases: list[Case]) -> None:
        """What a car leaves without is a violation that no setpoint of the last step can mend: up to that, none."""
        for case in cases:
            wanted = case.device.respond(case.state, case.series, Market(30.0, 20.0, 60.0))
            _, effect = case.device.step(case.state, wanted, case.series)
            _, most = case.device.step(case.state, (-9.0,), case.series)
            assert effect == most


class TestCapacitor(DeviceContract):
    kind = "capacitor"
    devices = (
        {"q_mvar_per_step": 0.1, "steps": 1},
        {"q_mvar_per_step": 0.05, "steps": 4, "step_init": 2, "switching_cost": 1.0},
        {"q_mvar_per_step": 0.05, "steps": 8, "max_moves": 2, "switching_cost": 0.5},
        {"q_mvar_per_step": 0.05, "steps": 33, "max_moves": 1},
    )


class TestShunt(DeviceContract):
    kind = "shunt"
    place: ClassVar[dict[str, str]] = {"element": "SCB 1"}
    devices = (
        {"steps": 1},
        {"steps": 4, "step_init": 2, "switching_cost": 1.0},
        {"steps": 8, "max_moves": 2, "switching_cost": 0.5},
        {"steps": 2, "step_init": 1},
    )


class TestTapChanger(DeviceContract):
    kind = "tap_changer"
    place: ClassVar[dict[str, str]] = {"element": "Substation"}
    devices = (
        {"tap_min": -2, "tap_max": 2, "tap_init": 0},
        {"tap_min": -16, "tap_max": 16, "tap_init": -3, "max_moves": 3, "tap_cost": 1.5},
        {"tap_min": 0, "tap_max": 1, "tap_init": 1},
        {"tap_min": -8, "tap_max": -2, "tap_init": -2, "max_moves": 99},
    )


class TestSwitch(DeviceContract):
    kind = "switch"
    place: ClassVar[dict[str, str]] = {"element": "Switch 671-692"}
    devices = tuple({"closed_init": k % 2 == 0, "switching_cost": float(k)} for k in range(4))


class TestPccBreaker(DeviceContract):
    kind = "pcc_breaker"
    place: ClassVar[dict[str, str]] = {}
    devices = tuple({"closed_init": k != 1, "switching_cost": 2.0, "min_open_h": 0.3 * k} for k in range(4))


class FuelCellConfig(DeviceConfig):
    """Parameters of a device as a user may write it."""

    p_max_mw: float
    price_of_gas: float


class FuelCell(Device):
    """Burns gas at a price."""

    Config = FuelCellConfig
    COST = "gas_cost"

    def __init__(self, configs: Any, dt_h: float, m: Any) -> None:
        super().__init__(configs, dt_h, m)
        self.p_max = self._parameter(lambda c: c.p_max_mw)
        self.gas = self._parameter(lambda c: c.price_of_gas)

    @classmethod
    def controls(cls, config: Any) -> tuple[Control, ...]:
        return (Control("p_mw", 0.0, config.p_max_mw),)

    def initial(self) -> tuple[Any, ...]:
        return ()

    def step(self, state: Any, setpoint: Any, series: Any) -> Any:
        p = self.m.clip(setpoint[0], 0.0, self.p_max)
        return (), Effect(p, p * 0.0, self.gas * p * self.dt_h, p * 0.0)

    def respond(self, state: Any, series: Any, market: Market) -> tuple[Any, ...]:
        p = self.m.where(market.price > self.gas, self.p_max, 0.0)
        return p, p * 0.0


class TestPlugIn(DeviceContract):
    kind = f"{__name__}:FuelCell"
    devices = tuple({"p_max_mw": 0.1 * k, "price_of_gas": 7.0 * k} for k in range(1, 6))


def test_every_built_in_kind_runs_the_contract() -> None:
    assert {suite.kind for suite in DeviceContract.__subclasses__()} >= set(DEVICES)
