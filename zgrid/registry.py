"""Resolve a kind from a topology, ``generator`` or ``my_package.module:FuelCell``, to an object."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from zgrid.errors import UnknownNameError


def is_plugin(name: str) -> bool:
    """Whether ``name`` has the form ``module:attribute``."""
    return ":" in name


def resolve(family: str, name: str, table: Mapping[str, str]) -> Any:
    """The object a kind names.

    ``table`` maps the built-in names of one family to their ``module:attribute``, so that a member is imported
    only when it is used.

    Raises:
        UnknownNameError: the name is not in the table and cannot be imported.
    """
    target = table.get(name, name)
    if not is_plugin(target):
        raise UnknownNameError(_unknown(family, name, table))
    module_name, _, attribute = target.partition(":")
    if not module_name or module_name.startswith("."):
        raise UnknownNameError(f"{family} {name!r}: a plug-in is module:attribute, with the module's full name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise UnknownNameError(
                f"{family} {name!r}: {module_name} needs a module that is not there: {error}"
            ) from error
        raise UnknownNameError(
            f"{family} {name!r}: no module {error.name!r}; a plug-in is module:attribute, importable from the "
            f"directory the command is started in"
        ) from error
    except Exception as error:  # a plug-in is a user's code
        raise UnknownNameError(f"{family} {name!r}: importing {module_name} failed: {error!r}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise UnknownNameError(f"{family} {name!r}: module {module_name!r} has no {attribute!r}") from error


def resolve_class(family: str, name: str, table: Mapping[str, str], base: type) -> Any:
    """Like :func:`resolve`, for a subclass of ``base``.

    Raises:
        UnknownNameError: also when what the name stands for is no subclass of ``base``.
    """
    found = resolve(family, name, table)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UnknownNameError(f"{family} {name!r}: expected a subclass of {base.__module__}.{base.__qualname__}")
    return found


def _unknown(family: str, name: str, table: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {family} {name!r}; {hint}built in: {', '.join(sorted(table))}; or a plug-in, module:attribute"
