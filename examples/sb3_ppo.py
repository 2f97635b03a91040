"""PPO with Stable-Baselines3: every grid of a topology is a row of one VecEnv, and all share one policy.

python examples/sb3_ppo.py topologies/3mg.yaml --iterations 200 --checkpoint-dir runs/sb3
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path

from zgrid.errors import ZgridError

EVERY = 20  # iterations between checkpoints
MODES = {
    "copies": {},
    "centralized": {"centralized": True},
    "in_memory": {"centralized": False, "message_broker": "in_memory"},
    "zmq": {"centralized": False, "message_broker": "zmq"},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train PPO with Stable-Baselines3; all grids of the topology share one policy.",
        epilog="example: python examples/sb3_ppo.py 3mg --iterations 200 --checkpoint-dir runs/sb3",
    )
    parser.add_argument("topology", nargs="?", default="3mg", help="topology file or the name of a shipped one (3mg)")
    parser.add_argument("--iterations", type=int, default=200, help="iterations in all (default: 200)")
    parser.add_argument("--num-envs", type=int, default=64, help="days in an iteration: of as many copies at once, or "
                        "one after the other of one env (default: 64)")  # fmt: skip
    parser.add_argument("--mode", choices=MODES, default="copies", help="train on copies in one process, or on one env "
                        "in this mode (default: copies)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("runs/sb3_ppo"))
    parser.add_argument("--resume", metavar="DIR", type=Path, help="go on from this checkpoint, exactly: in its mode, "
                        "with its seed and its number of envs")  # fmt: skip
    parser.add_argument("--test", action="store_true", help="three small iterations, to see that all is installed")
    arguments = parser.parse_args()
    if min(arguments.iterations, arguments.num_envs) < 1:
        parser.error("--iterations and --num-envs: expected at least 1")
    try:
        train(arguments)
    except ZgridError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train(arguments: argparse.Namespace) -> None:
    from zgrid.rl import needs

    needs("sb3")
    from zgrid.rl.checkpoint import check_free
    from zgrid.rl.progress import Progress, Row, baselines
    from zgrid.rl.sb3 import Settings, Trainer
    from zgrid.topology import load

    topology = load(arguments.topology, MODES[arguments.mode])
    folder = arguments.resume or arguments.checkpoint_dir
    check_free(folder)
    if arguments.resume:
        trainer = Trainer.resume(arguments.resume, topology)
    else:
        days = 4 if arguments.test else arguments.num_envs
        trainer = Trainer(topology, Settings(days=days, copies=arguments.mode == "copies"), arguments.seed)
    last = 3 if arguments.test else arguments.iterations
    with closing(trainer), Progress(folder, last, baselines(topology), fresh=not arguments.resume) as progress:
        while trainer.iteration < last:
            begin = time.perf_counter()
            mean_return = trainer.train()
            progress.add(Row(trainer.iteration, trainer.env_steps, mean_return, time.perf_counter() - begin))
            if trainer.iteration % EVERY == 0 or trainer.iteration == last:
                trainer.save(folder)
                progress.save()
    print(f"checkpoint: {folder}; next:\n  zgrid export {folder} policy.onnx")
    print(f"  python launch.py {arguments.topology} --policy onnx:policy.onnx")


if __name__ == "__main__":
    sys.exit(main())
