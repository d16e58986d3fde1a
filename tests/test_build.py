"""Building objects from configs: what is allowed, what is refused, and in which words."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import pytest

from mftrun.build import build, check_node, check_value
from mftrun.errors import ConfigError, DataError

HOUSE = "house_of_tests"


@runtime_checkable
class Speaker(Protocol):
    def speak(self) -> str: ...


@dataclass
class Dog:
    name: str
    age: int = 3
    weight: float = 1.0
    friend: Speaker | None = None
    tags: Sequence[str] = ()

    def speak(self) -> str:
        return f"{self.name} barks"


@dataclass
class Puppy(Dog):
    months: Hidden = None  # type: ignore[name-defined]  # noqa: F821


class Stone:
    pass


class Picky:
    def __init__(self, size: int) -> None:
        raise ValueError(f"{size} is too much")


class Careful:
    def __init__(self) -> None:
        raise DataError("a.jsonl", 3, "is not right")


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("our own mistake")


@pytest.fixture(autouse=True)
def house() -> Iterator[None]:
    """The classes above as an importable package of a user."""
    module = types.ModuleType(HOUSE)
    for class_ in (Dog, Puppy, Stone, Picky, Careful, Broken):
        setattr(module, class_.__name__, class_)
    module.system = __import__("os").system
    sys.modules[HOUSE] = module
    yield
    del sys.modules[HOUSE]


def make(node: dict, expected: object = Speaker, **runtime: object) -> object:
    return build(node, expected, "pet", allowed=[HOUSE, __name__], **runtime)


def target(class_: str, **values: object) -> dict:
    return {"_target_": f"{HOUSE}.{class_}", **values}


def test_builds_nested_objects() -> None:
    dog = make(target("Dog", name="Rex", friend=target("Dog", name="Bo", tags=["a"])))
    assert dog.speak() == "Rex barks"
    assert dog.friend.speak() == "Bo barks"
    assert type(dog.friend.tags) is list


def test_a_partial_is_completed_with_runtime_arguments() -> None:
    assert make(target("Dog", _partial_=True, age=5), name="Rex").speak() == "Rex barks"


@pytest.mark.parametrize(
    ("node", "key", "words"),
    [
        (target("Dog", name="Rex", aeg=1), "pet.aeg", "did you mean pet.age?"),
        (target("Dog"), "pet.name", "needs a value"),
        (target("Dog", name="Rex", age="3"), "pet.age", "valid integer, not '3'"),
        (target("Dog", name="Rex", age=True), "pet.age", "valid integer, not True"),
        (target("Dog", name="Rex", age=1.5), "pet.age", "integer"),
        (target("Dog", name="Rex", tags=["a", 1]), "pet.tags.1", "valid string, not 1"),
        (target("Dog", name="Rex", friend="Bo"), "pet.friend", "_target_ of a Speaker"),
        (target("Dog", name="Rex", friend=target("Dog", name=3)), "pet.friend.name", "valid string"),
        (target("Puppy", name="Rex", age="3"), "pet.age", "valid integer"),
        (target("Dgo", name="Rex"), "pet._target_", "did you mean Dog?"),
        ({"_target_": "mftrun.nowhere.Thing"}, "pet._target_", "does not exist"),
        ({"_target_": "mftrun.paths"}, "pet._target_", "not a class"),
        (target("Stone"), "pet", "which is not a Speaker"),
        (target("Picky", size=9), "pet", "9 is too much"),
    ],
)
def test_refusals_name_the_key_and_the_way_out(node: dict, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(node)
    assert caught.value.key == key
    assert words in caught.value.message


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.load",
        "torch.optimizer",
        "builtins.eval",
        "mftrunx.Thing",
        "mftrun.paths.os.system",
        3,
    ],
)
def test_targets_outside_the_allowlist_are_refused(path: object) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        check_node({"_target_": path}, "pet")


def test_a_function_that_an_allowed_module_imported_is_refused() -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        check_node(target("system", command="true"), "pet", [HOUSE])


@pytest.mark.parametrize("inside", [{"friend": target("Dog")}, {"tags": [{"deep": target("Dog")}]}])
def test_nested_targets_are_under_the_allowlist_too(inside: dict) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        check_node({"any": inside}, "pet")


def test_a_users_package_is_allowed_by_name() -> None:
    check_node(target("Dog", name="Rex"), "pet", [HOUSE, __name__])


def test_errors_of_ours_pass_through_untouched() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:3"):
        make(target("Careful"))
    with pytest.raises(RuntimeError, match="our own mistake"):
        make(target("Broken"))


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, float, 1.0),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ("a/b", Path, Path("a/b")),
        (None, int | None, None),
        ("x", Literal["x", "y"], "x"),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
    ],
)
def test_values_that_fit(value: object, annotation: object, expected: object) -> None:
    assert check_value(value, annotation, "key") == expected


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("1", int),
        (1.0, int),
        (1, str),
        (1, bool),
        ("z", Literal["x", "y"]),
        ([1], tuple[float, float]),
        (None, int),
    ],
)
def test_values_that_do_not_fit(value: object, annotation: object) -> None:
    with pytest.raises(ConfigError):
        check_value(value, annotation, "key")
