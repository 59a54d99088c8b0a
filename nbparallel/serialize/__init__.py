"""How code and data travel: code by dill's ways, data by the C pickler, and why something can't.

`pickler` and the reducers (`functions`, `classes`, `exceptions`) write one object graph; `units` keeps code's
versions; `tracker` keeps identity; `frames` makes tracebacks travel; `references` and `modules` decide what is needed
and what is importable; `explain` finds what can't travel. Everything outside this folder uses the names below, and
`checkpoints` also those of `stable` (digests, by means of `sources`) and `keeping`, which no worker loads.
"""

from nbparallel.serialize.explain import explain, name_of
from nbparallel.serialize.frames import describe, rebuild
from nbparallel.serialize.modules import stamps
from nbparallel.serialize.pickler import Buffer, dumps_error, dumps_result, loads
from nbparallel.serialize.references import DYNAMIC_LOOKUPS, global_names
from nbparallel.serialize.salvage import salvage
from nbparallel.serialize.units import (
    Data,
    Unit,
    attempt,
    call_initializer,
    dumps_data,
    forget,
    is_alive,
    load_unit,
    receive,
    start_afresh,
    unit_of,
)
from nbparallel.serialize.weight import heavy_globals

__all__ = [
    "DYNAMIC_LOOKUPS",
    "Buffer",
    "Data",
    "Unit",
    "attempt",
    "call_initializer",
    "describe",
    "dumps_data",
    "dumps_error",
    "dumps_result",
    "explain",
    "forget",
    "global_names",
    "heavy_globals",
    "is_alive",
    "load_unit",
    "loads",
    "name_of",
    "rebuild",
    "receive",
    "salvage",
    "stamps",
    "start_afresh",
    "unit_of",
]
