"""RLlib: a topology as a MultiAgentEnv, networks as an RLModule, and multi-agent PPO that resumes to the bit."""

from __future__ import annotations

from zgrid.rl.rllib.algorithm import DayRunner, ExactPPO
from zgrid.rl.rllib.env import GridEnv
from zgrid.rl.rllib.module import GridModule
from zgrid.rl.rllib.trainer import Settings, Trainer, ppo_config

__all__ = ["DayRunner", "ExactPPO", "GridEnv", "GridModule", "Settings", "Trainer", "ppo_config"]
