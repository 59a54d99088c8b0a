"""What goes through queues, pipes and managers: pickles that any process of this notebook can load.

A process may not know the cell's class whose instance it receives: the definition goes along, and is used where it is
not known yet, so that there is one class per definition in each process. Called by `connection` and `queues`.
"""

from __future__ import annotations

import pickle
from typing import Any

from nbparallel.serialize import explain, tracker, unit_of
from nbparallel.serialize.pickler import Pickler
from nbparallel.serialize.units import loads_unit


class _MessagePickler(Pickler):
    def claim_all(self, found: Any) -> list[Any]:
        return []  # each comes with its definition

    def token(self, obj: Any) -> Any:
        unit = unit_of(obj)
        if unit.descriptors:
            raise pickle.PicklingError(
                "it refers to a lock, a queue or shared memory: make it an argument of a Process"
            )
        return (arrive, (tracker.id_of(obj), tuple(bytes(segment) for segment in unit.segments)))


def arrive(key: str, segments: tuple[bytes, ...]) -> Any:
    """Return a function or class: the one that is known here by its id, or else made of its definition."""
    known = tracker.find(key)
    return loads_unit(segments) if known is None else known


# What holds no code: making the pickler below would cost as much again as sending one of these.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


def dumps(obj: Any) -> bytes:
    """Pickle a message.

    Raises:
        SerializationError: it can't travel; the message names what.
    """
    if type(obj) in _PLAIN:
        return pickle.dumps(obj, 5)
    try:
        return _dumps(obj)
    except Exception as error:
        raise explain(error, obj, _dumps, "the message") from error


def _dumps(obj: Any) -> bytes:
    pickler = _MessagePickler(None)
    pickler.write(obj)
    return pickler.file.getvalue()


loads = pickle.loads
