"""What can be saved of results that travelled together when some of them can't be rebuilt.

All results of a report are one pickle, which costs little and keeps what they share. When its loading raises, it is
read once more by an unpickler in Python that goes on behind what raised: for the list's items it then knows which
were being built. Called for nothing else, by the parent's ends of workers; it may not touch how pickles are written.
"""

from __future__ import annotations

import gc
import io
import pickle
import types
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from nbparallel.serialize.pickler import Buffer

# `pickle` in Python, which the module keeps beside the one in C; the type checkers' stubs know nothing of its stack.
_PurePython: Any = pickle._Unpickler

_Operation = Callable[[Any], None]
# What operations leave on the stack when they raise: nothing of theirs, the called, or the object to be filled.
_POPPED = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.STACK_GLOBAL, pickle.FROZENSET)
_EXTENSIONS = (pickle.EXT1, pickle.EXT2, pickle.EXT4)
_FILLING = (pickle.BUILD, pickle.APPEND, pickle.SETITEM, pickle.SETITEMS, pickle.ADDITEMS)
# Shared by all items, and not made by any.
_COMMON = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, str, bytes, int, float)


def salvage(segments: Sequence[Buffer]) -> tuple[list[Any], dict[int, BaseException]]:
    """Rebuild the items of a list that `dumps_result` wrote, but for those that raise.

    Args:
        segments: the stream, then its buffers in order.

    Returns:
        The items, and by index what those raised whose place holds nothing of use.
    """
    unpickler = _Salvager(io.BytesIO(segments[0]), buffers=segments[1:])
    items = unpickler.load()
    if len(items) == 1 and unpickler.first is not None:  # a list of one item is written without marks
        return [None], {0: unpickler.first}
    failed = {index: error for index, error in enumerate(unpickler.errors) if error is not None}
    return [None if index in failed else item for index, item in enumerate(items)], failed


class _Broken:
    """Stands where an object could not be made."""


class _Salvager(_PurePython):  # type: ignore[misc]
    """Goes on behind what raises, and notes which item of the outermost list was being built.

    The items stand in the frame of the stack that the list's mark opens. While item n is built, that frame holds n
    items and perhaps parts of this one, of which one is left at its end. So what is known of parts is merged into
    what stands below them as the frame shrinks.

    Attributes:
        errors: for each item what it raised, `None` where it did not.
        first: the first of all errors.
    """

    def __init__(self, file: io.BytesIO, *, buffers: Sequence[Buffer]) -> None:
        super().__init__(file, buffers=buffers)
        self.errors: list[BaseException | None] = []
        self.first: BaseException | None = None
        self._begun: list[int] = []  # for each item, how many objects were memorised before it
        self._finished = 0  # items that the list already has: it takes a thousand at a time
        self._half_filled: dict[int, object] = {}  # by identity

    def follow(self, memorised: int) -> None:
        """Take note of where the stack is after an operation.

        Args:
            memorised: how many objects the memo held before it.
        """
        depth = len(self.metastack)
        if depth == 0:
            return
        # In an inner frame a part is under way that has no place in the outer one yet.
        count = self._finished + (len(self.stack) if depth == 1 else len(self.metastack[1]) + 1)
        while len(self.errors) > count:
            error = self.errors.pop()
            self._begun.pop()
            if self.errors:
                self.errors[-1] = self.errors[-1] or error
        while len(self.errors) < count:
            self.errors.append(None)
            self._begun.append(memorised)

    def fail(self, error: BaseException) -> None:
        """Take note that the last operation raised."""
        self.first = self.first or error
        if self.errors:
            self.errors[-1] = self.errors[-1] or error

    def fill(self, operation: _Operation) -> None:
        """Do an operation that fills the object below its operands."""
        try:
            operation(self)
        except BaseException as error:
            self._half_filled[id(self.stack[-1])] = self.stack[-1]
            self.fail(error)

    def count_items(self) -> None:
        """Take note that a list is about to take what stands above a mark: the outermost, if that is the only one."""
        if len(self.metastack) == 1:
            self._finished += len(self.stack)

    def get(self, number: int) -> None:
        """Push what was memorised; an item fails that holds a broken part of an earlier one."""
        part = self.memo[number]
        self.append(part)
        self.follow(len(self.memo))
        maker = bisect_right(self._begun, number) - 1
        if 0 <= maker < len(self.errors) - 1 and (error := self.errors[maker]) and self._lacks(part):
            self.fail(error)

    def _lacks(self, part: object) -> bool:
        """Return whether a part is or holds what is broken or half filled."""
        seen: set[int] = set()
        waiting = [part]
        while waiting:
            each = waiting.pop()
            if isinstance(each, _Broken) or id(each) in self._half_filled:
                return True
            if id(each) not in seen and not isinstance(each, _COMMON):
                seen.add(id(each))
                waiting += gc.get_referents(each)
        return False


def _followed(operation: _Operation) -> _Operation:
    def perform(salvager: _Salvager) -> None:
        memorised = len(salvager.memo)
        operation(salvager)
        salvager.follow(memorised)

    return perform


def _making(operation: _Operation) -> _Operation:
    def make(salvager: _Salvager) -> None:
        try:
            operation(salvager)
        except BaseException as error:
            salvager.append(_Broken())
            salvager.follow(len(salvager.memo))
            salvager.fail(error)

    return make


def _calling(salvager: _Salvager) -> None:
    try:
        _PurePython.load_reduce(salvager)
    except BaseException as error:
        salvager.stack[-1] = _Broken()
        salvager.follow(len(salvager.memo))
        salvager.fail(error)


def _filling(operation: _Operation) -> _Operation:
    return lambda salvager: salvager.fill(operation)


def _appending(salvager: _Salvager) -> None:
    salvager.count_items()
    salvager.fill(_PurePython.load_appends)


def _operations() -> dict[int, _Operation]:
    found: dict[int, _Operation] = dict(_PurePython.dispatch)
    found[pickle.BINGET[0]] = lambda salvager: salvager.get(salvager.read(1)[0])
    found[pickle.LONG_BINGET[0]] = lambda salvager: salvager.get(int.from_bytes(salvager.read(4), "little"))
    found[pickle.REDUCE[0]] = _calling
    for code in (*_POPPED, *_EXTENSIONS):
        found[code[0]] = _making(found[code[0]])
    for code in _FILLING:
        found[code[0]] = _filling(found[code[0]])
    found[pickle.APPENDS[0]] = _appending
    return {code: operation if code == pickle.STOP[0] else _followed(operation) for code, operation in found.items()}


_Salvager.dispatch = _operations()
