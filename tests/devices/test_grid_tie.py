"""A tie's limits and trade, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zgrid.devices import Effect, Market
from zgrid.devices.grid_tie import GridTie, GridTieConfig


def config(**parameters: Any) -> GridTieConfig:
    raw = {"kind": "grid_tie", "bus": "680", "import_limit_mw": 0.4, "export_limit_mw": 0.3, "s_rated_mva": 0.5}
    return GridTieConfig.model_validate({**raw, "price": "price", "sell_discount": 0.8, **parameters})


def step(p_mw: float, q_mvar: float = 0.0, price: float = 40.0, dt_h: float = 1.0, **parameters: Any) -> Effect:
    return GridTie.one(config(**parameters), dt_h).step((), (p_mw, q_mvar), (price,))[1]


@pytest.mark.parametrize(("asked", "done"), [(0.2, 0.2), (9.0, 0.4), (-0.2, -0.2), (-9.0, -0.3)])
def test_power_stays_within_the_limits(asked: float, done: float) -> None:
    assert step(asked)[0::3] == (done, 0.0)


@pytest.mark.parametrize(
    ("p_mw", "price", "dt_h", "cost"),
    # 0.25 MW x 40 $/MWh; of an export 0.8 of that is paid
    [(0.25, 40.0, 1.0, 10.0), (0.25, 40.0, 0.25, 2.5), (-0.25, 40.0, 1.0, -8.0), (0.25, -40.0, 1.0, -10.0),
     (-0.25, -40.0, 1.0, 8.0), (0.0, 40.0, 1.0, 0.0)],
)  # fmt: skip
def test_an_import_costs_and_an_export_earns(p_mw: float, price: float, dt_h: float, cost: float) -> None:
    assert step(p_mw, price=price, dt_h=dt_h).cost == pytest.approx(cost, rel=1e-12)


def test_reactive_power_stays_in_the_circle_and_the_rest_is_a_violation() -> None:
    # sqrt(0.5^2 - 0.3^2) = 0.4; asked for 0.45: 0.05 / 0.5
    effect = step(-0.3, 0.45, q_control=True)
    assert effect.q_mvar == pytest.approx(0.4, rel=1e-12)
    assert effect.violation == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize(
    ("here", "there", "p_mw"),
    # import below the price here; export where 0.8 of the price there is above it
    [(41.0, 40.0, 0.4), (40.0, 40.0, 0.0), (33.0, 40.0, 0.0), (31.0, 40.0, -0.3)],
)
def test_by_itself_it_trades_where_that_pays(here: float, there: float, p_mw: float) -> None:
    assert GridTie.one(config(), 1.0).respond((), (there,), Market(here, 20.0, 60.0)) == (p_mw, 0.0)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"import_limit_mw": 0.6}, "import_limit_mw 0.6 is above s_rated_mva 0.5"),
        ({"export_limit_mw": 0.6}, "export_limit_mw 0.6 is above s_rated_mva 0.5"),
        ({"import_limit_mw": 0.0, "export_limit_mw": 0.0}, "are both 0"),
        ({"sell_discount": 1.1}, "sell_discount"),
        ({"price": None}, "price"),
    ],
)
def test_a_config_that_cannot_be_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**parameters)


def test_controls_have_the_limits_of_the_config() -> None:
    p, q = GridTie.controls(config(q_control=True))
    assert (p.low, p.high) == (-0.3, 0.4)
    assert (q.low, q.high) == (-0.5, 0.5)
    assert len(GridTie.controls(config())) == 1
