"""Digests of code and data that are the same in every kernel, by which a checkpoint recognises what it has.

Pickles can't serve: ids are random, cells have other file names, sets another order, and equal texts may be one object
or two. Here an object is walked by the pickler's own reductions, and

* code counts without its place: a cell that is moved, run again or commented has the same digest;
* a class or function of the notebook counts by its definition and all that it refers to, one that is imported by its
  name, with the version of its module if that is the user's own (`sources`);
* what hashes by its value counts by its value, wherever it occurs; what does not counts once, and is referred to by
  the order in which it was met: shared and cyclic structures are told apart;
* sets count in the order of their members' digests;
* types count: 1, 1.0 and True are three.

The walk only reads. Called by `checkpoints` and by `keeping`; no worker loads this module.
"""

from __future__ import annotations
import __future__

import copyreg
import dis
import marshal
import pickle
import types
from hashlib import blake2b
from typing import Any

from nbparallel.serialize import classes, functions, modules, namespaces
from nbparallel.serialize.functions import Reduction
from nbparallel.serialize.pickler import Pickler
from nbparallel.serialize.sources import Sources, imports

#: The size of a digest: among 10^12 inputs, two share one with a probability of 10^-24.
DIGEST_BYTES = 20

# Written by `marshal`, whose version 2 is a function of the value alone: it knows no references and no interning.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), type(...)})
_MARSHAL = 2
#: From so many bytes on, texts, bytes and buffers go to the hash uncopied.
_LARGE = 64 * 1024

# What makes code what it does; its place (file, lines, columns) does not.
_CODE_PARTS = (
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_name",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_exceptiontable",
)
# A cell inherits these from the cells before it; what they change is in the code itself.
_FUTURE = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names})

# What the interpreter writes into a class of its place, and what is added when its hints are asked for or an instance
# is pickled.
_NOT_OF_CLASS = frozenset({"__firstlineno__", "__static_attributes__", "__annotations_cache__", "__slotnames__"})


class Digester:
    """Digests many objects; code and modules count as they were when they were first met.

    Made for one run: what it has met stays alive as long as it does. One thread at a time.
    """

    def __init__(self) -> None:
        self._code: dict[int, tuple[Any, bytes]] = {}
        self._sources: Sources | None = None

    def digest(self, obj: Any) -> bytes:
        """Return the digest of an object that can be pickled.

        Returns:
            `DIGEST_BYTES` bytes (BLAKE2b).

        Raises:
            Exception: it can't be pickled, or a ``__reduce__`` of the user's own raised.
        """
        kind = type(obj)
        if kind in _PLAIN and not (kind in (str, bytes) and len(obj) >= _LARGE):  # what most inputs are
            return blake2b(marshal.dumps(obj, _MARSHAL), digest_size=DIGEST_BYTES).digest()
        return _Walk(self, embeds=False).digest(obj)

    def of_code(self, obj: Any) -> bytes:
        """Return the digest of a function, a class, or what wraps one, with all that it refers to."""
        known = self._code.get(id(obj))
        if known is None:
            known = self._code[id(obj)] = (obj, _Walk(self, embeds=True).digest(obj))
        return known[1]

    def version_of(self, module: str) -> bytes | None:
        """Return the version of a module of the user's own; `None` for any other."""
        if self._sources is None:
            self._sources = Sources(self.digest)
        return self._sources.version(module)


def digest(obj: Any) -> bytes:
    """Return the digest of one object; see `Digester.digest`."""
    return Digester().digest(obj)


class _CodePickler(Pickler):
    """Reduces a definition, with the definitions that it refers to in it."""

    def __init__(self) -> None:
        super().__init__(None)

    def track(self, obj: Any) -> str:
        return ""  # the walk knows what it has met

    def can_write(self, obj: Any) -> bool:
        try:
            digest(obj)
        except Exception:
            return False
        return True


class _DataPickler(_CodePickler):
    """Reduces data; a definition in it counts by its own digest."""

    def __init__(self, digester: Digester) -> None:
        super().__init__()
        self._digester = digester

    def claim_all(self, found: Any) -> list[types.FunctionType]:
        return []

    def token(self, obj: Any) -> Reduction | None:
        return (_Code, (self._digester.of_code(obj),))


class _Code:
    """Stands for a definition."""


class _Walk:
    """One walk over an object graph, which writes an unambiguous text into a hash.

    Each piece begins with a byte that says what follows: those of `marshal` for plain values, else L(ist), T(uple),
    D(ict), S(et), A(rray), R(eduction), N(ame), C(ode), B(ytes), U(nicode text), #buffer, V(alue, by its digest),
    @number (of what was met before), ^level (a value inside itself).

    Args:
        digester: knows the digests of definitions.
        embeds: whether the definitions that are met are walked, as parts of one; or named by their own digests.
        outer: the walk that seeks the order of a set.
    """

    def __init__(self, digester: Digester, *, embeds: bool, outer: _Walk | None = None) -> None:
        self._digester = digester
        self._embeds = embeds
        self._pickler = _CodePickler() if embeds else _DataPickler(digester)
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._out = bytearray()
        # What is written when an object is met again; the object is held, so that no other can have its id.
        self._met: dict[int, tuple[Any, bytes]] = {}
        self._count = 0
        self._level = 0
        self._outer = outer
        self._open_sets: set[int] = set() if outer is None else outer._open_sets
        self._colours: dict[int, tuple[Any, bytes]] = {} if outer is None else outer._colours

    def digest(self, obj: Any) -> bytes:
        self._add(obj)
        return self._end()

    def _end(self) -> bytes:
        self._hash.update(self._out)
        return self._hash.digest()

    def _put(self, piece: bytes | memoryview) -> None:
        self._out += piece
        if len(self._out) >= _LARGE:
            self._hash.update(self._out)
            self._out.clear()

    def _put_large(self, tag: bytes, piece: bytes | bytearray | memoryview) -> None:
        view = memoryview(piece)
        self._put(b"%c%d;" % (tag, view.nbytes))
        if view.nbytes < _LARGE:
            self._put(view)
        else:
            self._hash.update(self._out)
            self._out.clear()
            self._hash.update(view)

    def _add(self, obj: Any) -> None:
        kind = type(obj)
        if kind in _PLAIN:
            if kind is bytes and len(obj) >= _LARGE:
                self._put_large(b"B", obj)
            elif kind is str and len(obj) >= _LARGE:
                self._put_large(b"U", obj.encode("utf-8", "surrogatepass"))
            else:
                self._put(marshal.dumps(obj, _MARSHAL))
        elif kind is tuple and _PLAIN.issuperset(map(type, obj)):
            self._sequence(b"T", obj)
        elif id(obj) in self._met:
            self._put(self._met[id(obj)][1])
        elif kind is pickle.PickleBuffer:
            self._put_large(b"#", obj.raw())
        elif not self._embeds and issubclass(kind, (types.FunctionType, type)):
            self._put(b"V" + self._digester.of_code(obj))
        elif _is_value(obj):
            self._value(obj)
        else:
            self._met[id(obj)] = (obj, b"@%d;" % self._count)
            self._count += 1
            self._contents(obj)

    def _value(self, obj: Any) -> None:
        """Write the digest of what hashes by value: it is the same for this object and for its equal."""
        self._met[id(obj)] = (obj, b"^%d;" % self._level)
        outer = self._hash, self._out
        self._hash, self._out = blake2b(digest_size=DIGEST_BYTES), bytearray()
        self._level += 1
        self._contents(obj)
        written = b"V" + self._end()
        self._level -= 1
        self._hash, self._out = outer
        self._met[id(obj)] = (obj, written)
        self._put(written)

    def _contents(self, obj: Any) -> None:
        kind = type(obj)
        if kind is list:
            self._sequence(b"L", obj)
        elif kind is tuple:
            self._sequence(b"T", obj)
        elif kind is dict:
            self._put(b"D")
            self._sequence(b"L", list(obj))
            self._sequence(b"L", list(obj.values()))
        elif kind is set or kind is frozenset:
            self._put(b"S1" if kind is set else b"S0")
            self._members(obj)
        elif kind is types.CodeType:
            self._code(obj)
        elif (kind.__module__, kind.__qualname__) == ("numpy", "ndarray") and not obj.dtype.hasobject:
            self._array(obj)
        elif (kind.__module__, kind.__qualname__) in _CANONICAL:
            self._reduction(_CANONICAL[kind.__module__, kind.__qualname__](obj))
        else:
            self._reduce(obj)

    def _sequence(self, tag: bytes, items: list[Any] | tuple[Any, ...]) -> None:
        if _PLAIN.issuperset(map(type, items)):
            self._put(tag + marshal.dumps(items, _MARSHAL))
        else:
            self._put(b"%c%d;" % (tag, len(items)))
            for item in items:
                self._add(item)

    def _members(self, members: set[Any] | frozenset[Any]) -> None:
        if _PLAIN.issuperset(map(type, members)):
            self._sequence(b"L", sorted(marshal.dumps(member, _MARSHAL) for member in members))
        elif self._outer is not None and (id(members) in self._open_sets or not all(map(_is_value, members))):
            self._put(b"?%d;" % len(members))  # only an order is sought, and this may lead back to where it is
        else:
            self._open_sets.add(id(members))
            ordered = sorted(members, key=self._colour)
            self._open_sets.remove(id(members))
            self._sequence(b"L", ordered)

    def _colour(self, member: Any) -> bytes:
        """Return the digest of a member by itself. It only puts members in order: they are written afterwards."""
        known = self._colours.get(id(member))
        if known is None:
            walk = _Walk(self._digester, embeds=self._embeds, outer=self)
            known = self._colours[id(member)] = (member, walk.digest(member))
        return known[1]

    def _array(self, array: Any) -> None:
        """Write a NumPy array: its memory as it is; of a view with gaps, a copy without them."""
        whole = array if array.flags.c_contiguous or array.flags.f_contiguous else array.copy()
        self._put(b"AC" if whole.flags.c_contiguous else b"AF")
        self._add((whole.dtype, whole.shape))
        if whole.nbytes:
            self._put_large(b"#", whole.ravel("K").view("u1").data)

    def _code(self, code: types.CodeType) -> None:
        parts = [getattr(code, part) for part in _CODE_PARTS]
        instructions: Any = code.co_code
        constants: Any = code.co_consts
        if "__firstlineno__" in code.co_names:  # a class body: it stores its own line
            constants = None
            instructions = _of_class_body(code)
        self._put(b"C")
        for part in (*parts, code.co_flags & ~_FUTURE, instructions, constants):
            self._add(part)

    def _reduce(self, obj: Any) -> None:
        kind = type(obj)
        if kind is types.ModuleType and modules.is_importable(obj.__name__):
            return self._name(obj.__name__, "")
        if kind is namespaces.Namespace and obj.module is not None:
            return self._name(obj.module, "")
        reduction = self._pickler.reducer_override(obj)
        if reduction is NotImplemented:
            if kind is types.FunctionType or isinstance(obj, type):
                return self._name(obj.__module__, obj.__qualname__)
            own = copyreg.dispatch_table.get(kind)
            reduction = obj.__reduce_ex__(5) if own is None else own(obj)
        if isinstance(reduction, str):
            return self._name(getattr(obj, "__module__", None), reduction)
        return self._reduction(reduction)

    def _name(self, module: str | None, name: str) -> None:
        self._put(b"N")
        self._add((module, name, None if module is None else self._digester.version_of(module)))

    def _reduction(self, reduction: tuple[Any, ...]) -> None:
        function, arguments, *rest = reduction
        rest[1:3] = [None if items is None else list(items) for items in rest[1:3]]
        if function is functions.make_function and rest:
            rest[0] = self._state(rest[0], arguments[0])
        elif function is functions.fill_function:
            arguments = (arguments[0], self._state(arguments[1], arguments[0].__code__))
        elif function is classes.set_attributes:
            arguments = (arguments[0], _written(arguments[1]))
        elif function is classes.end_class:
            arguments = (arguments[0], arguments[3])  # the names were in the attributes
        self._put(b"R%d;" % len(rest))
        for part in (function, arguments, *rest):
            self._add(part)

    def _state(self, state: dict[str, Any], code: types.CodeType) -> dict[str, Any]:
        """Return a function's state, with the versions of the own modules that its code imports or goes through."""
        names = sorted({*state["submodules"], *imports(code, "")})
        versions = [(name, self._digester.version_of(name)) for name in names]
        return {**state, "submodules": [known for known in versions if known[1] is not None]}


def _is_value(obj: Any) -> bool:
    """Return whether an object's class says that it is known by its value."""
    return getattr(type(obj), "__hash__", None) not in (None, object.__hash__)


def _written(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a class's attributes without those that nobody has written."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in _NOT_OF_CLASS and (name != "__annotations__" or value)
    }


def _of_class_body(code: types.CodeType) -> list[Any]:
    """Return the instructions of a class body, but for the line and the attributes that the compiler has noted."""
    found: list[Any] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_NAME" and instruction.argval in _NOT_OF_CLASS:
            found.pop()
        elif instruction.opname.startswith("LOAD_CONST"):
            found.append(("LOAD_CONST", instruction.argval))
        else:
            found.append((instruction.opname, instruction.arg))
    return found


def _reduce_frame(frame: Any) -> Any:
    """Reduce a pandas frame by its columns: how it keeps them in blocks changes when it is only looked at."""
    columns = [column.array for _, column in frame.items()]
    state = (frame.index, frame.columns, columns, frame.attrs, frame.flags.allows_duplicate_labels)
    return (type(frame), (), state)


def _reduce_jitted(dispatcher: Any) -> Any:
    """Reduce a function compiled by Numba: not by what it was called with so far, nor by its random id."""
    return (type(dispatcher), (dispatcher.py_func, dispatcher.targetoptions, dispatcher.locals))


_CANONICAL: dict[tuple[str, str], Any] = {
    ("pandas.core.frame", "DataFrame"): _reduce_frame,  # pandas 2
    ("pandas", "DataFrame"): _reduce_frame,
    ("numba.core.registry", "CPUDispatcher"): _reduce_jitted,
}
