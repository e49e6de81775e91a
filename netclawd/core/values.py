"""Frozen value classes that cost almost nothing to define.

Pure. ``@frozen`` reads like ``@dataclass(frozen=True, slots=True)`` and behaves like it: positional and
keyword arguments, defaults, ``__match_args__``, equality within one class, hash, repr. The difference
is what it does at import: a frozen dataclass with slots compiles six functions and inspects a
signature, 0.4 ms for each class, and this program has over a hundred classes on the way from execve
to serving; here nothing is compiled until a class is first instantiated. That was 40 ms of the gap
in which nobody is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class _Factory:
    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def field(*, default_factory: Callable[[], T]) -> T:
    """Give a field a fresh default for each instance."""
    return _Factory(default_factory)  # type: ignore[return-value]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T], /) -> type[T]:
    """Make a class of annotations into a frozen value class with slots.

    The bases may be value classes too; their fields come first. Fields without a default come
    before those with one, as in a function's signature.
    """
    inherited: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited.update(getattr(base, "__value_fields__", {}))
    own = _own_fields(cls)
    body = {k: v for k, v in cls.__dict__.items() if k not in (*own, "__dict__", "__weakref__")}
    fields = {**inherited, **own}
    body |= {
        "__slots__": tuple(own),
        "__value_fields__": fields,
        "__match_args__": tuple(fields),
        "__init__": _compile_and_init,
        "__setattr__": _refuse_change,
        "__delattr__": _refuse_change,
        "__eq__": _equal,
        "__hash__": _hash,
    }
    body.setdefault("__repr__", _repr)
    metaclass: Any = type(cls)
    made: type[T] = metaclass(cls.__name__, cls.__bases__, body)
    return made


_MISSING: Any = object()


def _own_fields(cls: type) -> dict[str, Any]:
    """Return the annotated names with their defaults, in order."""
    annotations = cls.__annotations__
    return {
        name: cls.__dict__.get(name, _MISSING)
        for name, kind in annotations.items()
        if not str(kind).startswith("ClassVar")
    }


def _compile_and_init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Compile the class's ``__init__`` at its first use, put it in its place and call it."""
    cls = type(self)
    cls.__init__ = _compile_init(cls.__value_fields__)
    cls.__init__(self, *args, **kwargs)


def _compile_init(fields: Mapping[str, Any]) -> Callable[..., None]:
    namespace: dict[str, Any] = {"_set": object.__setattr__, "_fresh": _fresh}
    parameters, body = ["self"], []
    for name, default in fields.items():
        parameter, given = name, name
        if default is not _MISSING:
            namespace[f"_default_{name}"] = default
            parameter = f"{name}=_default_{name}"
        if isinstance(default, _Factory):
            given = f"_fresh({name})"
        parameters.append(parameter)
        body.append(f" _set(self, {name!r}, {given})")
    source = f"def __init__({', '.join(parameters)}):\n" + ("\n".join(body) or " pass")
    exec(source, namespace)  # noqa: S102 - the names are our own identifiers
    made: Callable[..., None] = namespace["__init__"]
    return made


def _fresh(given: Any) -> Any:
    return given.make() if isinstance(given, _Factory) else given


def _refuse_change(self: Any, name: str, *_value: Any) -> None:
    raise FrozenInstanceError(f"{type(self).__name__}.{name} can't be changed")


def _items(instance: Any) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(instance, name)) for name in type(instance).__value_fields__)


def _equal(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return all(mine == getattr(other, name) for name, mine in _items(self))


def _hash(self: Any) -> int:
    return hash((type(self), *(mine for _, mine in _items(self))))


def _repr(self: Any) -> str:
    inside = ", ".join(f"{name}={mine!r}" for name, mine in _items(self))
    return f"{type(self).__qualname__}({inside})"


def field_names(cls: type) -> tuple[str, ...]:
    """Return the names of a value class's fields, in order."""
    return tuple(getattr(cls, "__value_fields__", ()))


def is_value(thing: object) -> bool:
    """Tell whether ``thing`` is an instance of a value class."""
    return hasattr(type(thing), "__value_fields__")


def replace(instance: T, **changes: Any) -> T:
    """Return a copy with these fields changed; TypeError for a field that there isn't."""
    return type(instance)(**{**dict(_items(instance)), **changes})


def as_map(instance: Any) -> dict[str, Any]:
    """Return the fields as a map, value classes inside it as maps too."""
    return {name: _plain(mine) for name, mine in _items(instance)}


def _plain(thing: Any) -> Any:
    if is_value(thing):
        return as_map(thing)
    if isinstance(thing, tuple | list):
        return type(thing)(_plain(item) for item in thing)
    if isinstance(thing, Mapping):
        return {key: _plain(item) for key, item in thing.items()}
    return thing
