"""What classes and annotations are made of, beside functions: type variables, aliases, sentinels.

Each is told apart by identity, so each keeps it. Called by `pickler`; the ``make_`` functions run on the other side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import typing
from typing import TYPE_CHECKING, Any

from nbparallel.serialize import modules, tracker
from nbparallel.serialize.functions import Reduction

if TYPE_CHECKING:
    from nbparallel.serialize.pickler import Pickler

# Sentinels of `dataclasses`, which have no reduction of their own.
_SENTINELS = {
    id(getattr(dataclasses, name)): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR")
    if hasattr(dataclasses, name)
}


def reduce_sentinel(pickler: Pickler, sentinel: Any) -> Reduction:
    name = _SENTINELS.get(id(sentinel))
    return NotImplemented if name is None else (getattr, (dataclasses, name))


def reduce_hint(pickler: Pickler, hint: Any) -> Reduction:
    """Reduce what the C pickler would look up by name in its module: a `TypeVar`, a `NewType`, an alias."""
    module = getattr(hint, "__module__", None)
    if (
        module is not None
        and modules.is_importable(module)
        and getattr(sys.modules[module], hint.__name__, None) is hint
    ):
        return NotImplemented
    key = tracker.foreign_id_of(hint) if pickler.to_parent else None
    if key is not None:
        return (tracker.resolve, (key,))
    key = pickler.track(hint)
    if hasattr(hint, "__value__") and not hint.__type_params__:
        value: dict[str, Any] = {}
        return (make_alias, (hint.__name__, module, value, key), (value, hint.__value__), None, None, fill_alias)
    details = {} if id(hint) in pickler.open_hints else _details(hint)
    # A bound may lead back to the variable (`class Node[T: Node]`): inside itself it travels without one.
    pickler.open_hints.add(id(hint))
    return (make_hint, (type(hint), hint.__name__, module, details, key))


def _details(hint: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if isinstance(hint, typing.TypeVar):
        names = ("bound", "constraints", "covariant", "contravariant", "infer_variance")
        details = {name: getattr(hint, f"__{name}__") for name in names if hasattr(hint, f"__{name}__")}
    elif isinstance(hint, typing.NewType):
        details = {"supertype": hint.__supertype__}
    elif hasattr(hint, "__value__"):
        details = {"value": hint.__value__, "type_params": hint.__type_params__}
    if getattr(hint, "has_default", bool)():
        details["default"] = hint.__default__
    return details


def make_hint(kind: Any, name: str, module: str | None, details: dict[str, Any], key: str) -> Any:
    known = tracker.find(key)
    if known is not None:
        return known
    if kind is typing.NewType:
        hint = kind(name, details.get("supertype", object))
    elif "value" in details:
        hint = kind(name, **details)
    else:
        hint = kind(name, *details.pop("constraints", ()), **details)
    with contextlib.suppress(AttributeError):  # read-only for some kinds; only shown in a repr
        hint.__module__ = module  # type: ignore[assignment]
    return tracker.adopt(hint, key)


def make_alias(name: str, module: str | None, value: dict[str, Any], key: str) -> Any:
    known = tracker.find(key)
    if known is not None:
        return known
    # The statement's value is looked up when it is asked for: `type Tree = list[Tree]` needs that.
    namespace: dict[str, Any] = {"__name__": module, "__value": value}
    exec(f"type {name} = __value['value']", namespace)
    return tracker.adopt(namespace[name], key)


def fill_alias(alias: Any, state: tuple[dict[str, Any], Any]) -> None:
    state[0]["value"] = state[1]


REDUCERS: dict[type, Any] = {
    **{type(getattr(dataclasses, name)): reduce_sentinel for name in _SENTINELS.values()},
    **dict.fromkeys((typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple, typing.NewType), reduce_hint),
}
if sys.version_info >= (3, 12):
    REDUCERS[typing.TypeAliasType] = reduce_hint
