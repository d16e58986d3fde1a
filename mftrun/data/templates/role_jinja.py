"""A role template as a jinja chat template, so that servers write what was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mftrun.data.sample import ASSISTANT, SYSTEM, TOOL, USER

if TYPE_CHECKING:
    from mftrun.data.templates.roles import RoleTemplate
    from mftrun.data.templates.tools import ToolText


def chat_template(template: RoleTemplate) -> str:
    """Renders conversations as the template does; refuses what the template refuses."""
    lines = ["{{- bos_token }}"] if template.begin_token else []
    lines += _tool_list(template)
    lines += ["{%- for message in messages %}"]
    for number, (role, body) in enumerate(_turns(template)):
        lines += [f"{{%- {'elif' if number else 'if'} message['role'] == '{role}' %}}", *body]
    lines += ["{%- else %}", "{{- raise_exception('Unknown role: ' + message['role']) }}", "{%- endif %}"]
    lines += ["{%- endfor %}"]
    prompt = _quoted(template.assistant_prefix)
    lines += [f"{{%- if add_generation_prompt %}}{{{{- {prompt} }}}}{{%- endif %}}"]
    return "\n".join(lines)


def _turns(template: RoleTemplate) -> Iterator[tuple[str, list[str]]]:
    listed = ""
    if template.tools is not None:
        listed = f" + ({_quoted(template.tools.list_after_system)} + tool_list.text if tools else '')"
    if template.system_prefix is not None:
        system = f"{_quoted(template.system_prefix)} + message['content']{listed}"
        yield SYSTEM, [f"{{{{- {system} + {_quoted(template.system_suffix)} }}}}"]
    user = f"{_quoted(template.user_prefix)} + message['content'] + {_quoted(template.user_suffix)}"
    yield USER, [f"{{{{- {user} }}}}"]
    if template.tools is not None:
        yield TOOL, _result(template.tools)
    yield ASSISTANT, _answer(template)


def _answer(template: RoleTemplate) -> list[str]:
    end = _quoted(template.end_token) if template.end_token else "eos_token"
    close = f"{_quoted(template.assistant_suffix)} + {end} + {_quoted(template.after_end)}"
    opening = f"{{{{- {_quoted(template.assistant_prefix)} + (message['content'] or '') }}}}"
    return [opening, *_calls(template.tools), f"{{{{- {close} }}}}"]


def _calls(tools: ToolText | None) -> list[str]:
    if tools is None:
        refusal = "{{- raise_exception('This template cannot write calls of tools') }}"
        return ["{%- if message['tool_calls'] %}", refusal, "{%- endif %}"]
    separator = f"({_quoted(tools.call_separator)} if message['content'] or not loop.first else '')"
    arguments = "(call['arguments'] if call['arguments'] is string else call['arguments'] | tojson)"
    body = f"'{{\"name\": ' + (call['name'] | tojson) + ', \"arguments\": ' + {arguments} + '}}'"
    text = f"{separator} + {_quoted(tools.call_prefix)} + {body} + {_quoted(tools.call_suffix)}"
    return [
        "{%- for item in message['tool_calls'] or [] %}",
        "{%- set call = item['function'] or item %}",
        f"{{{{- {text} }}}}",
        "{%- endfor %}",
    ]


def _result(tools: ToolText) -> list[str]:
    before = f"loop.first or loop.previtem['role'] != '{TOOL}'"
    after = f"loop.last or loop.nextitem['role'] != '{TOOL}'"
    text = [
        f"({_quoted(tools.turn_prefix)} if {before} else {_quoted(tools.result_separator)})",
        _quoted(tools.result_prefix),
        "message['content']",
        _quoted(tools.result_suffix),
        f"({_quoted(tools.turn_suffix)} if {after} else '')",
    ]
    return [f"{{{{- {' + '.join(text)} }}}}"]


def _tool_list(template: RoleTemplate) -> list[str]:
    tools = template.tools
    if tools is None or template.system_prefix is None:
        refusal = "{{- raise_exception('This template cannot write tools') }}"
        return [f"{{%- if tools %}}{refusal}{{%- endif %}}"]
    before = f"({_quoted(tools.list_prefix)} if loop.first else {_quoted(tools.list_separator)})"
    alone = f"{_quoted(template.system_prefix)} + tool_list.text + {_quoted(template.system_suffix)}"
    return [
        "{%- if tools %}",
        "{%- set tool_list = namespace(text='') %}",
        "{%- for tool in tools %}",
        f"{{%- set tool_list.text = tool_list.text + {before} + (tool | tojson) %}}",
        "{%- endfor %}",
        f"{{%- set tool_list.text = tool_list.text + {_quoted(tools.list_suffix)} %}}",
        f"{{%- if messages[0]['role'] != '{SYSTEM}' %}}{{{{- {alone} }}}}{{%- endif %}}",
        "{%- endif %}",
    ]


def _quoted(text: str) -> str:
    # Python's ascii() is a jinja string literal too: jinja reads \n, \x, \u and \U as Python does.
    return ascii(text)
