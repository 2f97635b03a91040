"""MAPPO with RLlib: one policy that all grids share, a central critic; the same curve to the bit in every mode.

python examples/mappo_training.py topologies/3mg.yaml --iterations 100 --mode zmq --checkpoint-dir runs/mappo
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from zgrid.errors import ZgridError

EVERY = 10  # iterations between checkpoints
MODES = {
    "centralized": {"centralized": True},
    "in_memory": {"centralized": False, "message_broker": "in_memory"},
    "zmq": {"centralized": False, "message_broker": "zmq"},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train MAPPO on a topology with RLlib.",
        epilog="example: python examples/mappo_training.py 3mg --iterations 100 --mode zmq --checkpoint-dir runs/mappo",
    )
    parser.add_argument("topology", nargs="?", default="3mg", help="topology file or the name of a shipped one (3mg)")
    parser.add_argument("--iterations", type=int, default=100, help="iterations in all, of 42 days (default: 100)")
    parser.add_argument(
        "--mode", choices=MODES, default="centralized", help="how the agents run (default: %(default)s)"
    )
    parser.add_argument("--independent", action="store_true", help="a policy and a critic for each grid, alone")
    parser.add_argument("--num-env-runners", metavar="N", type=int, default=0, help="processes that play (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-dir", metavar="DIR", type=Path, default=Path("runs/mappo"))
    parser.add_argument("--resume", metavar="DIR", type=Path, help="go on from this checkpoint, exactly")
    parser.add_argument("--test", action="store_true", help="three small iterations, to see that all is installed")
    arguments = parser.parse_args()
    try:
        return train(arguments)
    except ZgridError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def train(arguments: argparse.Namespace) -> int:
    from zgrid.rl import needs

    needs("rllib")
    from zgrid.rl.checkpoint import check_free
    from zgrid.rl.progress import Progress, Row, baselines
    from zgrid.rl.rllib import Settings, Trainer
    from zgrid.rl.stopping import Stopping
    from zgrid.topology import load

    topology = load(arguments.topology, MODES[arguments.mode])
    folder = arguments.resume or arguments.checkpoint_dir
    check_free(folder)
    last = 3 if arguments.test else arguments.iterations
    runners = arguments.num_env_runners
    if arguments.resume:
        trainer = Trainer.resume(folder, topology, num_env_runners=runners)
    else:
        settings = Settings(days=4, minibatch=96) if arguments.test else Settings()
        trainer = Trainer(
            topology, settings, arguments.seed, independent=arguments.independent, num_env_runners=runners
        )
    with (
        trainer,
        Progress(folder, last, baselines(topology), fresh=not arguments.resume) as progress,
        Stopping() as stopping,
    ):
        while trainer.iteration < last and not stopping.is_asked:
            begin = time.perf_counter()
            mean_return = trainer.train()
            progress.add(Row(trainer.iteration, trainer.env_steps, mean_return, time.perf_counter() - begin))
            if trainer.iteration % EVERY == 0 or trainer.iteration == last or stopping.is_asked:
                trainer.save(folder)
                progress.save()
    if stopping.is_asked:
        print(
            f"stopped; checkpoint: {folder}; to go on:\n  python {sys.argv[0]} {arguments.topology} --resume {folder}"
        )
        return stopping.exit_code
    name = "policy_{grid}.onnx" if trainer.is_independent else "policy.onnx"
    print(f"checkpoint: {folder}; next:\n  zgrid export {folder} {name}")
    print(f"  python launch.py {arguments.topology} --policy onnx:{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
