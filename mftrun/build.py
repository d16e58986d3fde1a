"""From a `_target_` config to the object it names: allowed, bound to its signature, and of the right type."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeGuard, get_args

from pydantic import (
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from mftrun.errors import ConfigError, MftrunError
from mftrun.nearest import unknown

ALLOWED = ("mftrun", "torch.optim", "torch.nn", "transformers", "peft")
_RESERVED = frozenset({"_target_", "_partial_", "_args_", "_recursive_", "_convert_"})


def build(
    node: Mapping[str, Any], expected: Any, key: str, *, allowed: Sequence[str] = (), **runtime: Any
) -> Any:
    """Builds the object that a config node describes.

    Args:
        node: A config with `_target_`; nested ones are built first. With `_partial_: true` the object is
            completed with `runtime`.
        expected: Type, tuple of types, or runtime-checkable Protocol the object must be.
        key: Where the node lies in the config, for messages.
        allowed: Module prefixes allowed besides `ALLOWED` (the root key `allowed_targets`).
        runtime: Arguments that only the running program knows.

    Raises:
        ConfigError: The target is not allowed, does not exist, does not take a parameter, refuses a value,
            or is not of the expected type.
    """
    check_node(node, key, allowed, runtime)
    built = _instantiated(node, key)
    if isinstance(built, functools.partial):
        built = _completed(built, key, runtime)
    if not isinstance(built, expected):
        raise ConfigError(
            key, f"{node['_target_']} makes a {type(built).__name__}, which is not a {_name(expected)}"
        )
    return built


def check_node(node: Any, key: str, allowed: Sequence[str] = (), runtime: Iterable[str] = ()) -> None:
    """Checks a config node and all below it, without building anything: targets, parameters, value types.

    Args:
        node: Any part of a resolved config.
        key: Where it lies.
        allowed: Module prefixes allowed besides `ALLOWED`.
        runtime: Parameters of the node that its builder will add.

    Raises:
        ConfigError: As `build`, except for what only building can find out.
    """
    if is_target(node):
        _check_call(node, _target(node["_target_"], f"{key}._target_", allowed), key, frozenset(runtime))
    for name, value in _children(node):
        check_node(value, f"{key}.{name}", allowed)


def is_target(node: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a config node describes an object."""
    return isinstance(node, Mapping) and "_target_" in node


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        return node.items()
    return enumerate(node) if isinstance(node, list | tuple) else ()


def _target(path: Any, key: str, allowed: Sequence[str]) -> Callable[..., Any]:
    """The class or function at a dotted path, if both the path and where it is defined are allowed."""
    _check_allowed(path, path, key, allowed)
    found = _located(path, key)
    if not callable(found):
        raise ConfigError(key, f"{path} is not a class or a function")
    _check_allowed(getattr(found, "__module__", None) or path, path, key, allowed)
    return found  # type: ignore[no-any-return]


def _check_allowed(module: Any, path: Any, key: str, allowed: Sequence[str]) -> None:
    prefixes = (*ALLOWED, *allowed)
    if not isinstance(module, str) or not any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes):
        raise ConfigError(
            key,
            f"{path} is not allowed; targets come from {', '.join(prefixes)}. "
            "Name a package of yours with allowed_targets=[PACKAGE]",
        )


def _located(path: str, key: str) -> Any:
    module, attributes = _imported(path, key)
    found: Any = module
    for name in attributes:
        if not hasattr(found, name):
            public = [entry for entry in vars(found) if not entry.startswith("_")]
            raise ConfigError(
                key, unknown(name, public, f"{path} does not exist: {found.__name__} has no {name}")
            )
        found = getattr(found, name)
    return found


def _imported(path: str, key: str) -> tuple[types.ModuleType, list[str]]:
    """The longest importable module of a dotted path, and the rest of the path."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            return importlib.import_module(name), parts[cut:]
        except ModuleNotFoundError as error:
            # Only "this very module is missing" lets us look one level up; a missing dependency is an error.
            if not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(
                    key, f"{path} needs the package {error.name}, which is not installed"
                ) from error
    raise ConfigError(key, f"{path} does not exist: no module {parts[0]}")


def _check_call(
    node: Mapping[str, Any], target: Callable[..., Any], key: str, runtime: frozenset[str]
) -> None:
    signature = inspect.signature(target)
    given = [name for name in node if name not in _RESERVED]
    _check_names(signature, (*given, *runtime), key, node["_target_"])
    if not node.get("_partial_", False):
        assert not runtime, f"{key}: runtime arguments need _partial_: true"
        _check_complete(signature, frozenset(given), key, node["_target_"])
    for name in given:
        if not _holds_target(node[name]) and name in signature.parameters:
            check_value(node[name], _annotation(signature.parameters[name], target), f"{key}.{name}")


def _check_names(signature: inspect.Signature, names: Iterable[str], key: str, path: str) -> None:
    parameters = signature.parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}.{name}", unknown(name, known, f"{path} does not take it", prefix=key))


def _check_complete(signature: inspect.Signature, given: frozenset[str], key: str, path: str) -> None:
    for parameter in signature.parameters.values():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic and parameter.name not in given:
            raise ConfigError(f"{key}.{parameter.name}", f"{path} needs a value; none is given")


def check_value(value: Any, annotation: Any, key: str) -> Any:
    """Checks a plain config value against a type annotation; an int passes as a float, "3" not as an int.

    Returns:
        The value as the annotation has it: a list may have become a tuple.

    Raises:
        ConfigError: The value is of another type, or outside the annotated range.
    """
    try:
        # YAML knows what JSON knows: lists stand for tuples and sets, strings for paths.
        return _adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([key, *_keys(first["loc"], value)])
        raise ConfigError(where, f"{_finding(first, annotation)}, not {_shown(first['input'])}") from error


def _keys(location: Iterable[Any], value: Any) -> Iterator[str]:
    """The parts of pydantic's location that are keys of ours; it also names the members of unions."""
    for part in location:
        if part in dict(_children(value)):
            yield str(part)
            value = value[part]


def _finding(first: Any, annotation: Any) -> str:
    message = str(first["msg"])
    if first["type"].startswith(("is_instance_of", "needs_python_object")):
        message = f"Input should be a config with the _target_ of a {_name(annotation)}"
    return message.replace("Input should be", "must be", 1)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return TypeAdapter(Any)
    except PydanticUserError:  # a type that brings its own pydantic settings
        return TypeAdapter(annotation)


def _annotation(parameter: inspect.Parameter, target: Callable[..., Any]) -> Any:
    """The evaluated annotation; Any where there is none, or where it names what only type checkers import."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, _namespace(target))
    except NameError:
        return Any


def _namespace(target: Callable[..., Any]) -> dict[str, Any]:
    """The names an annotation may use: those of the modules that define the target and its bases."""
    modules = (
        [base.__module__ for base in reversed(inspect.getmro(target))] if inspect.isclass(target) else []
    )
    names: dict[str, Any] = {}
    for module in (*modules, getattr(target, "__module__", "builtins")):
        names.update(vars(importlib.import_module(module)))
    return names


def _holds_target(value: Any) -> bool:
    return is_target(value) or any(_holds_target(child) for _, child in _children(value))


def _instantiated(node: Mapping[str, Any], key: str) -> Any:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(dict(node), _convert_="all")
    except InstantiationException as error:
        _refused(error.__cause__ or error, key, node["_target_"])


def _completed(partial: functools.partial[Any], key: str, runtime: Mapping[str, Any]) -> Any:
    try:
        return partial(**runtime)
    except ValueError as error:
        _refused(error, key, _name(partial.func))


def _refused(error: BaseException, key: str, path: str) -> NoReturn:
    """A constructor's refusal of a value is the user's to mend; anything else is ours, with its traceback."""
    if isinstance(error, MftrunError) or not isinstance(error, ValueError):
        raise error from None
    raise ConfigError(key, f"{path} refuses its values: {error}") from error


def _name(expected: Any) -> str:
    members = expected if isinstance(expected, tuple) else get_args(expected)
    if members:
        return " or ".join(_name(one) for one in members if one is not type(None))
    return str(getattr(expected, "__name__", expected))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
