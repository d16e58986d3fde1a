"""A translated config as a command, as an experiment, and told key by key."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from mftrun.mftcoder.translation import Fate, Setting, Translation, shown

_WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z0-9_./:+-]+|\?\?\?")
_WORDS = frozenset({"null", "true", "false", "nan", "inf"})


def overrides(found: Translation) -> list[str]:
    """What one writes after `python -m mftrun`, not quoted for a shell."""
    choices = [f"{group}={option}" for group, option in found.choices.items()]
    settings = [f"{one.key}={_hydra(one.value)}" for one in found.settings]
    return list(dict.fromkeys([*choices, *settings, *personal(found)]))


def personal(found: Translation) -> list[str]:
    """The part of it that is for one run alone, which an experiment leaves out."""
    return [f"{one.key}={_hydra(one.value)}" for one in found.personal]


def command(arguments: Iterable[str]) -> str:
    """A shell command of lines of bearable length."""
    lines = ["python -m mftrun"]
    for argument in map(shlex.quote, arguments):
        if len(lines[-1]) + len(argument) + 3 > _WIDTH:
            lines.append(f"    {argument}")
        else:
            lines[-1] += f" {argument}"
    return " \\\n".join(lines)


def experiment(found: Translation, name: str, source: str) -> str:
    """An experiment's YAML; each key says which of MFTCoder's it comes from."""
    lines = [
        "# @package _global_",
        f"# {source}, imported from MFTCoder. Behind each key stands what it comes from.",
        "defaults:",
        *(f"  - override /{group}: {option}" for group, option in found.choices.items()),
        f"name: {_yaml(name)}",
        *_nested(found.settings),
    ]
    return "\n".join(lines) + "\n"


def told(found: Translation) -> str:
    """Every key of MFTCoder: what it became, or why it was dropped; then what comes out otherwise."""
    parts = [("mapped", _fates(one for one in found.mapped if not one.is_default))]
    parts.append(("assumed by MFTCoder where the file says nothing", _fates(_assumed(found))))
    parts.append(("dropped", _fates(found.dropped)))
    parts.append(("unknown, and left out", _fates(found.unknown)))
    parts.append(("comes out otherwise", [f"  {text}" for text in found.notes]))
    parts.append(("to be given by you", [f"  {key}" for key in found.missing]))
    return "\n\n".join("\n".join([title, *lines]) for title, lines in parts if lines)


def _assumed(found: Translation) -> list[Fate]:
    return [one for one in found.mapped if one.is_default]


def _fates(fates: Iterable[Fate]) -> list[str]:
    lines = [(f"{one.key}={shown(one.value)}", one.became) for one in fates]
    width = min(max((len(left) for left, _ in lines), default=0), 44)
    return [f"  {left.ljust(width)}  {right}" for left, right in lines]


def _hydra(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_hydra, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not _is_number(value):
        return value
    # Before a quote, and at the end, a backslash counts as an escape; elsewhere it stands for itself.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + (f"\\{m[2]}" if m[2] else ""), value)
    return f'"{escaped}"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _nested(settings: Sequence[Setting], depth: int = 0) -> list[str]:
    """Lines of a nested mapping; keys that share a beginning stand together."""
    heads = dict.fromkeys(one.key.split(".")[depth] for one in settings)
    lines = []
    for head in heads:
        below = [one for one in settings if one.key.split(".")[depth] == head]
        indent = "  " * depth
        if len(below) == 1 and below[0].key.count(".") == depth:
            left = f"{indent}{_key(head)}: {_yaml(below[0].value)}"
            lines.append(f"{left}  # {below[0].origin}")
        else:
            lines += [f"{indent}{_key(head)}:", *_nested(below, depth + 1)]
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) and name.lower() not in _WORDS else json.dumps(name)


def _yaml(value: Any) -> str:
    """A value of YAML 1.1, where a float needs its point."""
    if isinstance(value, float) and "e" in (text := repr(value)) and "." not in text:
        return text.replace("e", ".0e")
    return value if value == "???" else json.dumps(value, ensure_ascii=False)
