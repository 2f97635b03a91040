"""MAPPO with TorchRL on many copies of a topology in one process: one policy that all grids share, a central critic.

python examples/torchrl_mappo.py topologies/3mg.yaml --iterations 300 --checkpoint-dir runs/mappo
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from zgrid.errors import ZgridError

EVERY = 20  # iterations between checkpoints


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train MAPPO on copies of a topology with TorchRL.",
        epilog="example: python examples/torchrl_mappo.py 3mg --iterations 300 --checkpoint-dir runs/mappo",
    )
    parser.add_argument("topology", nargs="?", default="3mg", help="topology file or the name of a shipped one (3mg)")
    parser.add_argument("--iterations", type=int, default=300, help="iterations in all (default: 300)")
    parser.add_argument("--num-envs", type=int, default=128, help="copies, each a day an iteration (default: 128)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("runs/torchrl_mappo"))
    parser.add_argument("--resume", metavar="DIR", type=Path, help="go on from this checkpoint, exactly")
    parser.add_argument("--test", action="store_true", help="three small iterations, to see that all is installed")
    arguments = parser.parse_args()
    try:
        train(arguments)
    except ZgridError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train(arguments: argparse.Namespace) -> None:
    from zgrid.rl import needs

    needs("torchrl")
    from zgrid.rl.checkpoint import check_free
    from zgrid.rl.progress import Progress, Row, baselines
    from zgrid.rl.torchrl import Settings, Trainer
    from zgrid.topology import load

    topology = load(arguments.topology)
    folder = arguments.resume or arguments.checkpoint_dir
    check_free(folder)
    if arguments.resume:
        trainer = Trainer.resume(arguments.resume, topology)
    else:
        trainer = Trainer(topology, Settings(num_envs=8 if arguments.test else arguments.num_envs), arguments.seed)
    last = 3 if arguments.test else arguments.iterations
    with Progress(folder, last, baselines(topology), fresh=not arguments.resume) as progress:
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
