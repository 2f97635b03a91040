"""``zgrid keys``: create, list, revoke and rotate the keys of a topology's nodes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zgrid.command import BAD_INPUT, OK, tell
from zgrid.errors import TopologyError, ZgridError

DEFAULT_DIR = Path("keys")


def add_keys(commands: Any) -> None:
    """The command and its four parts."""
    made = commands.add_parser(
        "keys",
        help="make and manage the keys of nodes",
        description="Keys say who may connect to the proxy; what each may say and hear follows from the topology.",
        epilog="examples:\n"
        "  zgrid keys create topologies/3mg.yaml --dir keys\n"
        "  zgrid keys list --dir keys\n"
        "  zgrid keys revoke mg_1.pv_1 --dir keys",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = made.add_subparsers(dest="part", required=True, metavar="PART")
    create = _part(parts, "create", "make the keys of a topology's nodes", "zgrid keys create topologies/3mg.yaml")
    create.add_argument("file", metavar="TOPOLOGY", help="topology file")
    create.add_argument("names", metavar="NAME", nargs="*", help="only these (default: all nodes that have none yet)")
    listed = _part(parts, "list", "show whose keys there are", "zgrid keys list --json")
    listed.add_argument("--json", action="store_true", help="for programs")
    revoke = _part(parts, "revoke", "accept a key no more, also while a run goes on", "zgrid keys revoke mg_1.pv_1")
    revoke.add_argument("name", metavar="NAME", help="whose key")
    rotate = _part(parts, "rotate", "revoke a key and make a new one", "zgrid keys rotate mg_1.pv_1")
    rotate.add_argument("name", metavar="NAME", help="whose key")


def _part(parts: Any, name: str, what: str, example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = parts.add_parser(name, help=what, epilog=f"example: {example}")
    made.add_argument("--dir", metavar="FOLDER", type=Path, default=DEFAULT_DIR, help="folder of keys (default: keys)")
    return made


def keys(arguments: argparse.Namespace) -> int:
    """Run one part; the exit code."""
    part: Callable[[argparse.Namespace], None] = {
        "create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate,
    }[arguments.part]  # fmt: skip
    try:
        part(arguments)
    except TopologyError as error:
        return tell(str(error), BAD_INPUT)
    except (ZgridError, OSError) as error:
        return tell(f"error: {error}", BAD_INPUT)
    return OK


def _create(arguments: argparse.Namespace) -> None:
    from zgrid.messaging.keys import PROXY, create
    from zgrid.topology import load
    from zgrid.topology.traffic import rights

    folder: Path = arguments.dir
    granted = rights(load(arguments.file, checked=False))
    everybody = [PROXY, *granted.publish, *sorted(granted.watchers)]
    unknown = [name for name in arguments.names if name not in everybody]
    names = arguments.names or [name for name in everybody if not (folder / "public" / f"{name}.key").exists()]
    if not names:
        print(f"{folder}: every node of {arguments.file} has a key already; for a new one: zgrid keys rotate NAME")
        return
    for name, fingerprint in zip(names, create(folder, names), strict=True):
        print(f"  {name:24} {fingerprint}")
    for name in unknown:
        print(f"{name} is no node of {arguments.file}: the proxy lets it connect, but grants it nothing")
    print(_next(folder))


def _next(folder: Path) -> str:
    return (
        f"made in {folder}/. Next:\n"
        f"  1. name the folder in the topology, relative to that file: broker: {{keys: {folder}}}; or --keys {folder}\n"
        f"  2. where the proxy runs:   {folder}/public/ and {folder}/revoked/, {folder}/secret/broker.key_secret\n"
        f"  3. where node NAME runs:   {folder}/public/broker.key, {folder}/secret/NAME.key_secret (mode 0600)\n"
        f"     over a safe way (scp -p), and to no other machine: who has a secret is that node"
    )


def _list(arguments: argparse.Namespace) -> None:
    from zgrid.messaging.keys import listing

    states = listing(arguments.dir)
    if arguments.json:
        print(json.dumps([state._asdict() for state in states], indent=2))
        return
    print(f"{'name':24} {'fingerprint':16} {'state':8} secret")
    for name, fingerprint, state, has_secret in states:
        print(f"{name:24} {fingerprint:16} {state:8} {'here' if has_secret else '-'}")


def _revoke(arguments: argparse.Namespace) -> None:
    from zgrid.messaging.keys import revoke

    folder: Path = arguments.dir
    fingerprint = revoke(folder, arguments.name)
    print(
        f"revoked {arguments.name} ({fingerprint}). A proxy that reads {folder} cuts it off at once; elsewhere copy "
        f"{folder}/revoked/ to the proxy's machine.\nFor a new key: zgrid keys rotate {arguments.name} --dir {folder}"
    )


def _rotate(arguments: argparse.Namespace) -> None:
    from zgrid.messaging.keys import PROXY, rotate

    folder, name = arguments.dir, arguments.name
    print(f"{name} has a new key ({rotate(folder, name)}); the old one is revoked. Next:")
    if name == PROXY:
        print(f"  copy {folder}/public/{PROXY}.key to every node's machine, and restart the proxy and all nodes")
    else:
        print(
            f"  copy {folder}/secret/{name}.key_secret to the machine of {name}, and restart that node\n"
            f"  copy {folder}/public/ and {folder}/revoked/ to the proxy's machine, if that is another"
        )
