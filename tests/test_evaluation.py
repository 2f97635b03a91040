"""An evaluation plays the same days with every policy, and the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import small_topology

from zgrid.environment import NetworkedGridEnv
from zgrid.errors import TopologyError
from zgrid.evaluation import Evaluation, Settings, choose_days, day_seed, evaluate
from zgrid.profiles.calendar import is_test_day

PLAIN = Settings(episodes=2, seed=5, overrides={"episode_steps": 6}, optimum=False)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(small_topology(2), {"again": "random"}, PLAIN)


class TestDays:
    def test_a_count_is_a_seeded_choice_without_repetition(self) -> None:
        days = range(100, 200)
        one, again, other = (choose_days(days, 20, seed) for seed in (1, 1, 2))
        assert one == again != other
        assert len(set(one)) == 20
        assert set(one) <= set(days)

    def test_more_days_keep_the_first_ones(self) -> None:
        assert set(choose_days(range(50), 5, 3)) < set(choose_days(range(50), 10, 3))

    @pytest.mark.parametrize("count", [None, 3, 7])
    def test_all_days_where_there_are_no_more(self, count: int | None) -> None:
        assert choose_days((4, 1, 9), count, 0) == (1, 4, 9)

    def test_are_of_the_split(self, evaluation: Evaluation) -> None:
        assert all(is_test_day(day) for day in evaluation.days)

    def test_a_seed_of_a_day_depends_on_both(self) -> None:
        assert len({day_seed(0, 1), day_seed(0, 2), day_seed(1, 1)}) == 3


class TestPolicies:
    def test_all_play_the_same_days(self, evaluation: Evaluation) -> None:
        assert list(evaluation.played) == ["idle", "random", "rule_based", "again"]
        for days in evaluation.played.values():
            assert tuple(day.day for day in days) == evaluation.days

    def test_the_same_policy_draws_the_same(self, evaluation: Evaluation) -> None:
        returns = {name: [day.value for day in days] for name, days in evaluation.played.items()}
        assert returns["again"] == returns["random"] != returns["idle"]

    def test_what_is_played_is_what_the_env_plays(self, evaluation: Evaluation) -> None:
        day = evaluation.played["rule_based"][1]
        env = NetworkedGridEnv(small_topology(2), {"centralized": True, "episode_steps": 6})
        env.reset(options={"day": day.day})
        returns, imports, lowest = np.zeros(2), [], []
        while env.agents:
            _, rewards, _, _, infos = env.step(dict.fromkeys(env.agents))
            returns += list(rewards.values())
            imports.append([info["p_pcc_mw"] for info in infos.values()])
            lowest.append([info["vm_min_pu"] for info in infos.values()])
        env.close()
        assert np.array_equal(day.returns, returns)
        assert np.array_equal(day.import_mw, imports)
        assert np.allclose(day.excursion_pu, np.maximum(0.95 - np.array(lowest), 0.0))
        assert not day.diverged.any()

    def test_a_shared_reward_is_worth_the_same(self, evaluation: Evaluation) -> None:
        shared = evaluate(small_topology(2), {}, PLAIN._replace(overrides={"episode_steps": 6, "share_reward": True}))
        assert [day.value for day in shared.played["idle"]] == [day.value for day in evaluation.played["idle"]]


class TestFigures:
    def test_a_row_for_each_policy_and_day(self, evaluation: Evaluation) -> None:
        rows = evaluation.rows()
        assert len(rows) == 4 * 2
        for row in rows:
            assert row["return"] == pytest.approx(row["mg_1.return"] + row["mg_2.return"])
        assert {"energy_cost", "violation_steps", "diverged_steps", "safety"} <= rows[0].keys()

    def test_costs_are_those_of_the_rows(self, evaluation: Evaluation) -> None:
        costs = evaluation.summary()["policies"]["rule_based"]["costs"]
        rows = [row for row in evaluation.rows() if row["policy"] == "rule_based"]
        assert costs["energy_cost"] == pytest.approx(np.mean([row["energy_cost"] for row in rows]))
        assert costs["penalties"] == pytest.approx(100.0 * np.mean([row["safety"] for row in rows]))


class TestWhatCannotBeEvaluated:
    def test_an_unknown_policy(self) -> None:
        with pytest.raises(TopologyError, match="unknown policy 'best'"):
            evaluate(small_topology(), {"best": "best"}, PLAIN)

    def test_a_split_without_days(self) -> None:
        with pytest.raises(TopologyError, match="the split 'test'"):
            evaluate(small_topology(), {}, PLAIN._replace(overrides={"episode_steps": 24 * 9}))

    def test_no_episodes(self) -> None:
        with pytest.raises(ValueError, match="episodes 0"):
            evaluate(small_topology(), {}, PLAIN._replace(episodes=0))


def test_what_has_no_optimum_is_evaluated_without_it() -> None:
    content = small_topology()
    content["grids"]["mg_1"]["devices"]["dg_1"]["commitment"] = True
    found = evaluate(content, {}, PLAIN._replace(optimum=True)).summary()
    assert "grids.mg_1.devices.dg_1: kind 'generator' with commitment" in found["optimum"]["missing"]
    assert "optimum" not in found["policies"]
    assert found["policies"]["idle"]["score"] is None
