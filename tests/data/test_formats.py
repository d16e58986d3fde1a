from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mftrun.data.fields import BadSampleError
from mftrun.data.formats import FORMATS, READ_KEYS, Pair
from mftrun.data.recognition import recogniser
from mftrun.data.sample import ASSISTANT, DOCUMENT, SYSTEM, TOOL, USER, Message, ToolCall, problem
from mftrun.errors import ConfigError

ANY = recogniser(None)
TURNS = (Message(USER, "q"), Message(ASSISTANT, "a"))

RECORDS = {
    "chat_rounds": {"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]},
    "messages": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "conversations": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "text": {"text": "d"},
    **{
        name: dict(zip(name.split("/"), "qa", strict=True))
        for name in (
            "instruction/output",
            "instruction/response",
            "prompt/answer",
            "prompt/response",
            "prompt/completion",
            "input/output",
            "question/response",
            "question/answer",
            "query/answer",
        )
    },
}
CONVERSATIONS = ("chat_rounds", "messages", "conversations")
PAIRS = tuple(name for name in RECORDS if name not in (*CONVERSATIONS, "text"))
ROLE = {"chat_rounds": "role", "messages": "role", "conversations": "from"}
CONTENT = {"chat_rounds": "content", "messages": "content", "conversations": "value"}


def refused(record, form=None):
    with pytest.raises(BadSampleError) as caught:
        recogniser(form).parse(record)
    return str(caught.value)


def changed(record, path, *value):
    """A copy with the value at the path, or without it."""
    copy = json.loads(json.dumps(record))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if value:
        place[path[-1]] = value[0]
    else:
        del place[path[-1]]
    return copy


def test_every_format_has_an_example_here():
    assert set(RECORDS) == set(FORMATS)


@pytest.mark.parametrize("name", RECORDS)
def test_each_format_is_recognised_and_read(name):
    record = RECORDS[name] | {"id": 7, "source": "x"}
    wanted = (Message(DOCUMENT, "d"),) if name == "text" else TURNS
    assert ANY.parse(record) == (wanted, "", name, {"id", "source"})
    assert recogniser(name).parse(record) == (wanted, "", name, {"id", "source"})
    assert ANY.parse(RECORDS[name] | {"id": None}).unread == frozenset()
    assert problem(wanted) is None


@pytest.mark.parametrize("name", [*PAIRS, "text"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true or false"),
        (3, "a number"),
        (0.5, "a number"),
        (["q"], "a list"),
        ({"q": 1}, "an object"),
        (b"q", "bytes"),
    ],
)
def test_a_field_of_a_pair_of_the_wrong_type_is_named(name, value, said):
    for key in FORMATS[name].keys:
        if (name, key, value) == ("alpaca", "input", None):
            continue  # no input
        if isinstance(value, list) and isinstance(FORMATS[name], Pair):
            continue  # of messages
        assert f"'{key}' is {said}, not text" in refused(RECORDS[name] | {key: value})
        assert f"'{key}' is {said}, not text" in refused(RECORDS[name] | {key: value}, name)


@pytest.mark.parametrize("name", [name for name in RECORDS if name != "alpaca"])
def test_a_missing_field_is_named_with_the_keys_that_are_there(name):
    for key in FORMATS[name].keys:
        rest = {other: value for other, value in RECORDS[name].items() if other != key} | {"id": 1}
        assert refused(rest, name) == f"no {key!r}; the keys are: {', '.join(map(repr, rest))}"
        message = refused(rest)
        assert message.startswith(f"no known format (its keys are: {', '.join(map(repr, rest))}); known: ")
        assert "chat_rounds, messages" in message


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "null"), ("q", "text"), ({}, "an object"), (1, "a number"), (False, "true or false")],
)
def test_messages_that_are_no_list(name, value, said):
    assert refused({name: value}) == f"'{name}' is {said}, not a list of messages"


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("field", [ROLE, CONTENT], ids=["role", "content"])
@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "null"), (True, "true or false"), (2, "a number"), ({}, "an object"), (..., None)],
)
def test_a_field_of_a_message_that_is_missing_or_of_the_wrong_type(name, field, value, said):
    key = field[name]
    record = changed(RECORDS[name], (name, 1, key), *([] if value is ... else [value]))
    wanted = f"message 2 has no {key!r}" if value is ... else f"{key!r} of message 2 is {said}, not text"
    assert refused(record) == wanted
    assert refused(record, name) == wanted


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(("item", "said"), [("q", "text"), (None, "null"), ([], "a list"), (1, "a number")])
def test_a_message_that_is_no_object(name, item, said):
    message = refused(changed(RECORDS[name], (name, 0), item))
    assert message == f"message 1 is {said}, not an object with {ROLE[name]!r} and {CONTENT[name]!r}"


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("chat_rounds", {"system": SYSTEM, "human": USER, "user": USER, "bot": ASSISTANT}),
        ("chat_rounds", {"human": USER, "gpt": ASSISTANT, "assistant": ASSISTANT}),
        ("messages", {"system": SYSTEM, "developer": SYSTEM, "tool": TOOL, "function": TOOL}),
        ("conversations", {"human": USER, "chatgpt": ASSISTANT, "bot": ASSISTANT, "assistant": ASSISTANT}),
        ("conversations", {"system": SYSTEM, "observation": TOOL, "tool": TOOL, "user": USER}),
    ],
)
def test_names_of_roles(name, roles):
    turns = [{ROLE[name]: role, CONTENT[name]: "x"} for role in roles]
    assert [message.role for message in ANY.parse({name: turns}).messages] == list(roles.values())


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_an_unknown_role_is_told_the_known_ones(name):
    message = refused(changed(RECORDS[name], (name, 1, ROLE[name]), "critic"))
    assert message.startswith("message 2 has the unknown role 'critic'; use one of system, ")


def test_half_a_surrogate_pair_is_refused_wherever_it_stands():
    assert "'text' holds half a surrogate pair" in refused({"text": "\ud800"})
    record = {"messages": [{"role": "user", "content": [{"type": "text", "text": "\udfff"}]}]}
    assert "'text' of part 1 of message 1 holds half a surrogate pair" in refused(record)
    call = {"name": "f", "arguments": {"a": "\ud800"}}
    record = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    assert "'arguments' of call 1 of message 1 holds half a surrogate pair" in refused(record)
    assert "'tools' holds half a surrogate pair" in refused({"messages": [], "tools": [{"a": "\ud800"}]})


# Which format

LINES = {
    "text beside messages": ({"text": "d"}, "messages", "messages"),
    "prompt beside messages": ({"prompt": "p", "response": "r"}, "messages", "messages"),
    "rendered text beside Alpaca's": ({"text": "d"}, "alpaca", "alpaca"),
    "null messages beside a text": ({"messages": None, "prompt": None}, "text", "text"),
    "null input": ({"input": None}, "instruction/output", "instruction/output"),
    "input with a response": ({"input": ""}, "instruction/response", "instruction/response"),
}


@pytest.mark.parametrize(("more", "base", "name"), LINES.values(), ids=LINES)
def test_precedence(more, base, name):
    assert ANY.parse(RECORDS[base] | more).format == name


def test_of_null_values_the_one_is_named_that_most_likely_was_meant():
    nulls = dict.fromkeys(READ_KEYS)
    assert refused(nulls | {"query": "q"}) == "'answer' is null, not text"
    assert refused(nulls | {"input": "i", "output": "o"}) == "'instruction' is null, not text"
    assert refused(nulls | {"instruction": "i", "input": "x"}) == "'output' is null, not text"
    assert refused(nulls).endswith("is null, not a list of messages")
    assert ANY.parse(nulls | {"instruction": "i", "output": "o"}).format == "instruction/output"
    for name in ("messages", "prompt/answer", "text", "alpaca"):
        assert ANY.parse(nulls | RECORDS[name]).format == name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("messages", "conversations"),
        ("prompt/answer", "prompt/response"),
        ("alpaca", "instruction/response"),
        ("question/answer", "query/answer"),
        ("prompt/response", "input/output"),
    ],
)
def test_two_formats_of_the_same_rank_are_refused_until_one_is_named(first, second):
    record = RECORDS[first] | RECORDS[second]
    message = refused(record)
    assert message.startswith("fits more than one format: ")
    assert first in message
    assert second in message
    assert "data.tasks.NAME.format=" in message
    assert [recogniser(name).parse(record).format for name in (first, second)] == [first, second]


@pytest.mark.parametrize(
    ("record", "form", "unread"),
    [
        ({"prompt": "p", "input": "i", "output": "o"}, "input/output", "'prompt'"),
        ({"instruction": "i", "question": "q", "answer": "a"}, "question/answer", "'instruction'"),
        ({"text": "t", "answer": "a", "response": "r"}, "text", "'answer', 'response'"),
    ],
)
def test_a_question_or_answer_is_not_left_unread_until_that_is_asked_for(record, form, unread):
    assert f"fits {form}, but that does not read {unread}; " in refused(record)
    assert recogniser(form).parse(record).format == form


def test_an_unknown_format_is_a_config_error_with_the_nearest():
    with pytest.raises(ConfigError, match=r"data\.tasks\.NAME\.format: .*did you mean chat_rounds\?"):
        recogniser("chat_round")


def test_recognisers_can_be_sent_to_a_worker():
    for form in (None, *FORMATS):
        assert pickle.loads(pickle.dumps(recogniser(form))) == recogniser(form)


def test_columns_to_read_hold_all_that_formats_use():
    assert {"system", "system_prompt", "tools", "functions", "history", "input", "text"} <= READ_KEYS


# Alpaca


def test_alpaca_puts_the_input_on_the_next_line():
    record = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert ANY.parse(record).messages[0].content == "Add.\n1 2"
    assert ANY.parse(record | {"input": " \n"}).messages[0].content == "Add."
    assert recogniser("instruction/output").parse(record).messages[0].content == "Add.\n1 2"
    assert recogniser("alpaca").parse({"instruction": "q", "output": "a"}).messages == TURNS


def test_alpaca_may_have_earlier_turns():
    record = RECORDS["alpaca"] | {"history": [["q1", "a1"], ["q2", "a2"]], "system": "s"}
    said = [message.content for message in ANY.parse(record).messages]
    assert said == ["s", "q1", "a1", "q2", "a2", "q", "a"]
    assert ANY.parse(RECORDS["alpaca"] | {"history": []}).messages == TURNS


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ("x", "'history' is text, not a list of turns"),
        ([["q"]], "turn 1 of 'history' is not a list of a question and an answer"),
        ([["q", "a"], "qa"], "turn 2 of 'history' is not a list"),
        ([["q", None]], "'text' of turn 1 of 'history' is null, not text"),
    ],
)
def test_bad_history(history, said):
    assert said in refused(RECORDS["alpaca"] | {"history": history})


# System


@pytest.mark.parametrize("key", ["system", "system_prompt"])
@pytest.mark.parametrize("name", [*CONVERSATIONS, *PAIRS])
def test_a_system_message_of_the_record(name, key):
    assert ANY.parse(RECORDS[name] | {key: "s"}).messages == (Message(SYSTEM, "s"), *TURNS)
    for nothing in ("", " ", None):
        assert ANY.parse(RECORDS[name] | {key: nothing}).messages == TURNS
    assert f"'{key}' is a list, not text" in refused(RECORDS[name] | {key: ["s"]})


def test_two_system_messages_are_refused():
    record = RECORDS["prompt/answer"] | {"system": "s", "system_prompt": "p"}
    assert refused(record) == "both 'system' and 'system_prompt' are a system message; keep one"
    turns = [{"role": "system", "content": "s"}, *RECORDS["messages"]["messages"]]
    assert refused({"messages": turns, "system": "s"}).startswith("both 'system' and message 1 are")


# Weights


def weights(name, **values):
    return [message.weight for message in ANY.parse(changed_turn(name, 1, values)).messages]


def changed_turn(name, index, values):
    turns = [dict(turn) for turn in RECORDS[name][name]]
    turns[index] |= values
    return {name: turns}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    ("values", "weight"),
    [
        ({"train": True}, 1.0),
        ({"train": False}, 0.0),
        ({"weight": 0}, 0.0),
        ({"weight": 2}, 2.0),
        ({"weight": 0.25}, 0.25),
        ({"train": None, "weight": None}, 1.0),
        ({"train": True, "weight": 3}, 3.0),
        ({"train": False, "weight": 0.0}, 0.0),
    ],
)
def test_weight_of_an_answer(name, values, weight):
    assert weights(name, **values) == [1.0, weight]


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": "no"}, "'train' of message {} is text, not true or false"),
        ({"train": 0}, "'train' of message {} is a number, not true or false"),
        ({"weight": "1"}, "'weight' of message {} is text, not a number"),
        ({"weight": True}, "'weight' of message {} is true or false, not a number"),
        ({"weight": [1]}, "'weight' of message {} is a list, not a number"),
        ({"weight": -1}, "'weight' of message {} is -1, not from 0 to 1,000,000"),
        ({"weight": float("nan")}, "'weight' of message {} is nan, not from"),
        ({"weight": float("inf")}, "'weight' of message {} is inf, not from"),
        ({"weight": 10**400}, "'weight' of message {} is 1000"),
        ({"train": False, "weight": 1}, "'train' and 'weight' of message {} contradict each other"),
        ({"train": True, "weight": 0}, "'train' and 'weight' of message {} contradict each other"),
    ],
)
def test_a_wrong_weight_is_refused_on_any_message(name, index, values, said):
    assert refused(changed_turn(name, index, values)).startswith(said.format(index + 1))


def test_the_weight_of_a_question_changes_nothing():
    for values in ({"train": True}, {"train": False}, {"weight": 5}):
        assert ANY.parse(changed_turn("messages", 0, values)).messages == TURNS


# Content parts, tool calls and tools


def test_content_may_be_a_list_of_text_parts():
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "you"}, "!"]
    assert ANY.parse(changed(RECORDS["messages"], ("messages", 0, "content"), parts)).messages[0] == Message(
        USER, "Hello, you!"
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image_url", "image_url": {}}, "part 1 of message 1 is of type 'image_url'; only 'text'"),
        ({"text": "x"}, "part 1 of message 1 has no 'type'"),
        ({"type": "text"}, "part 1 of message 1 has no 'text'"),
        ({"type": "text", "text": None}, "'text' of part 1 of message 1 is null, not text"),
        (3, "part 1 of message 1 is a number, not an object"),
    ],
)
def test_bad_content_parts(part, said):
    assert refused(changed(RECORDS["messages"], ("messages", 0, "content"), [part])).startswith(said)


def calling(**values):
    turn = {"role": "assistant", "content": None} | values
    return {"messages": [{"role": "user", "content": "q"}, turn]}


CALLS = {
    "arguments as text": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":  1}'}}]},
    "legacy": {"function_call": {"name": "f", "arguments": '{"a":  1}'}},
    "flat": {"tool_calls": [{"name": "f", "arguments": '{"a":  1}'}], "function_call": None},
}


@pytest.mark.parametrize("values", CALLS.values(), ids=CALLS)
def test_tool_calls_keep_the_text_of_their_arguments(values):
    (_, answer) = ANY.parse(calling(**values)).messages
    assert answer == Message(ASSISTANT, "", 1.0, (ToolCall("f", '{"a":  1}'),))
    assert ANY.parse(calling(**values) | {"id": 1}).messages[1] == answer
    assert ANY.parse(calling(**(values | {"content": "Let me see."}))).messages[1].content == "Let me see."


def test_arguments_may_be_an_object_or_nothing_and_there_may_be_several_calls():
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": "Kraków"}}},
        {"function": {"name": "g", "arguments": ""}},
    ]
    found = ANY.parse(calling(tool_calls=calls, weight=2)).messages[1]
    assert found.tool_calls == (ToolCall("f", '{"city": "Kraków"}'), ToolCall("g", "{}"))
    assert found.weight == 2.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tool_calls": []}, "'content' of message 2 is null, not text"),
        ({"tool_calls": "f()"}, "'tool_calls' of message 2 is text, not a list"),
        ({"tool_calls": ["f"]}, "call 1 of message 2 is text, not an object with 'name' and 'arguments'"),
        ({"tool_calls": [{"function": None}]}, "call 1 of message 2 is null"),
        ({"tool_calls": [{"function": {"arguments": "{}"}}]}, "call 1 of message 2 has no 'name'"),
        ({"tool_calls": [{"name": " ", "arguments": "{}"}]}, "'name' of call 1 of message 2 is empty"),
        ({"tool_calls": [{"name": 1, "arguments": "{}"}]}, "'name' of call 1 of message 2 is a number"),
        ({"tool_calls": [{"name": "f"}]}, "call 1 of message 2 has no 'arguments'"),
        ({"tool_calls": [{"name": "f", "arguments": "x"}]}, "'arguments' of call 1 of message 2 is not JSON"),
        ({"tool_calls": [{"name": "f", "arguments": "[1]"}]}, "'arguments' of call 1 of message 2 is a list"),
        ({"function_call": "f"}, "'function_call' of message 2 is text"),
        (
            {"function_call": {"name": "f", "arguments": {}}, "tool_calls": [{"name": "f", "arguments": {}}]},
            "message 2 has both 'tool_calls' and 'function_call'",
        ),
    ],
)
def test_bad_calls(values, said):
    assert refused(calling(**values)).startswith(said)


def test_sharegpt_calls_are_json_in_the_text():
    turns = [("human", "q"), ("function_call", '{"name": "f", "arguments": {"a": 1}}')]
    turns += [("observation", "1"), ("gpt", "a")]
    found = ANY.parse({"conversations": [{"from": role, "value": value} for role, value in turns]}).messages
    assert found[1] == Message(ASSISTANT, "", 1.0, (ToolCall("f", '{"a": 1}'),))
    assert [message.role for message in found] == [USER, ASSISTANT, TOOL, ASSISTANT]
    assert problem(found) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("f(1)", "the function call of message 1 is not JSON"),
        ("[]", "the function call of message 1 is an empty list"),
        ('"f"', "the function call of message 1 is text, not an object"),
        ('{"name": "f"}', "the function call of message 1 has no 'arguments'"),
        ("[" * 100_000, "the function call of message 1 is not JSON"),
    ],
)
def test_bad_sharegpt_calls(value, said):
    assert refused({"conversations": [{"from": "function_call", "value": value}]}).startswith(said)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tools_become_the_text_of_a_json_list(name):
    tools = [{"type": "function", "function": {"name": "météo"}}]
    for given_tools in (tools, json.dumps(tools)):
        found = ANY.parse(RECORDS[name] | {"tools": given_tools}).tools
        assert json.loads(found) == tools
        assert "météo" in found
    assert json.loads(ANY.parse(RECORDS[name] | {"functions": [{"name": "météo"}]}).tools) == tools
    for nothing in ([], "", None, "[]"):
        assert ANY.parse(RECORDS[name] | {"tools": nothing}).tools == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tools": {"name": "f"}}, "'tools' is an object, not a list of objects"),
        ({"tools": "weather"}, "'tools' is not JSON"),
        ({"tools": ["f"]}, "entry 1 of 'tools' is text, not an object"),
        ({"tools": [{"a": float("nan")}]}, "'tools' cannot be written as JSON"),
        ({"tools": [{"name": "f"}], "functions": [{"name": "f"}]}, "both 'tools' and 'functions'"),
    ],
)
def test_bad_tools(values, said):
    assert refused(RECORDS["messages"] | values).startswith(said)


# Keys of both styles


HUMAN_ASKS = [{"from": "human", "value": "q"}, {"role": "user", "content": "q"}]
GPT_SAYS = [{"from": "gpt", "value": "a"}, {"role": "bot", "content": "a"}]


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("question", HUMAN_ASKS)
@pytest.mark.parametrize("answer", GPT_SAYS)
def test_messages_may_have_the_keys_of_either_style(name, question, answer):
    assert ANY.parse({name: [question, answer]}) == (TURNS, "", name, frozenset())


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            {"role": "user", "value": "q"},
            "message 1 has both 'role' and 'value'; write 'role' and 'content', or",
        ),
        ({"from": "human", "value": "q", "role": "user"}, "message 1 has both "),
        ({"role": "user", "content": "q", "from": "human"}, "message 1 has both "),
        ({"content": "q"}, "message 1 has no 'role'"),
        ({"value": "q"}, "message 1 has no 'from'"),
    ],
)
def test_messages_that_mix_both_styles_are_refused(name, item, said):
    assert refused({name: [item, GPT_SAYS[0]]}).startswith(said)


def test_null_keys_of_the_other_style_are_absent():
    items = [HUMAN_ASKS[0] | {"role": None, "content": None}, GPT_SAYS[1] | {"value": None}]
    assert ANY.parse({"messages": items}) == (TURNS, "", "messages", frozenset())


def test_calls_are_kept_once():
    call = {"name": "f", "arguments": "{}"}
    item = {"role": "function_call", "content": json.dumps(call), "tool_calls": [call]}
    assert refused({"messages": [item]}) == "message 1 has calls beside its role 'function_call'; keep one"


# Lists of messages in pairs


PROMPT = [{"role": "user", "content": "q"}]


@pytest.mark.parametrize("name", [name for name in PAIRS if isinstance(FORMATS[name], Pair)])
@pytest.mark.parametrize("answer", ["a", [GPT_SAYS[0]], [GPT_SAYS[1]]])
def test_a_question_and_its_answer_may_be_messages(name, answer):
    question, reply = FORMATS[name].keys
    assert ANY.parse({question: PROMPT, reply: answer}) == (TURNS, "", name, frozenset())
    assert ANY.parse({question: "q", reply: answer}).messages == TURNS


def test_what_the_prompt_says_is_not_trained_unless_it_has_a_weight():
    said = [*PROMPT, {"role": "assistant", "content": "x"}, *PROMPT]
    said += [{"role": "assistant", "content": "x", "weight": None, "train": None}, *PROMPT]
    said += [{"role": "assistant", "content": "y", "weight": 2}, *PROMPT]
    said += [{"role": "assistant", "content": "z", "train": True}, *PROMPT]
    found = ANY.parse({"prompt": said, "completion": "a"}).messages
    assert [message.weight for message in found if message.role == ASSISTANT] == [0.0, 0.0, 2.0, 1.0, 1.0]


def test_tools_beside_a_prompt_of_messages_are_read_and_beside_a_text_counted():
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert json.loads(ANY.parse({"prompt": PROMPT, "completion": "a", "tools": tools}).tools) == tools
    assert ANY.parse({"prompt": "q", "completion": "a", "tools": "hammer"}) == (
        TURNS,
        "",
        "prompt/completion",
        {"tools"},
    )


def test_places_in_a_prompt_are_named():
    said = refused({"prompt": [*PROMPT, {"role": "critic", "content": "x"}], "completion": "a"})
    assert said.startswith("message 2 of 'prompt' has the unknown role 'critic'")
    assert refused({"prompt": PROMPT, "response": 3}) == "'response' is a number, not text"


# Keys that nothing reads


def test_keys_that_nothing_reads_are_told():
    assert ANY.parse({"question": "q", "answer": "a", "context": "c", "id": None}).unread == {"context"}
    assert ANY.parse(RECORDS["messages"] | {"prompt": "p"}).unread == {"prompt"}
    turns = [HUMAN_ASKS[1] | {"name": "Ann", "id": None}, GPT_SAYS[1] | {"rating": 3, "weight": 1}]
    assert ANY.parse({"messages": turns}).unread == {"messages.name", "messages.rating"}
    assert ANY.parse({"prompt": [turns[0]], "response": "a"}).unread == {"prompt.name"}


@pytest.mark.parametrize("key", ["wieght", "weigth", "weights", "Weight", "trian", "Train", "tran"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_mistyped_weight_is_refused(name, key):
    meant = "train" if key.lower().startswith("t") else "weight"
    assert refused(changed_turn(name, 1, {key: 0.5})) == (
        f"message 2 has {key!r}, which nothing reads; is {meant!r} meant?"
    )
    assert ANY.parse(changed_turn(name, 1, {key: None})).messages == TURNS


# Columns


def test_columns_may_have_other_names():
    form = recogniser(None, {"prompt": "question_text", "response": "best_answer"})
    record = {"question_text": "q", "best_answer": "a", "id": 1}
    assert form.parse(record) == (TURNS, "", "prompt/response", {"id"})
    assert form.parse(record | {"prompt": "x"}) == (TURNS, "", "prompt/response", {"id", "prompt"})
    swapped = recogniser("prompt/response", {"prompt": "response", "response": "prompt"})
    assert swapped.parse({"prompt": "a", "response": "q"}) == (TURNS, "", "prompt/response", frozenset())
    assert pickle.loads(pickle.dumps(form)) == form
    assert recogniser(None, {}) == ANY


def test_a_record_without_a_named_column_is_refused():
    with pytest.raises(BadSampleError) as caught:
        recogniser(None, {"prompt": "ask"}).parse({"prompt": "q", "answer": "a"})
    said = "no 'ask', which data.tasks.NAME.columns.prompt names; the keys are: 'prompt', 'answer'"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("form", "columns", "said"),
    [
        (None, {"promt": "x"}, r"columns\.promt: no format reads a key 'promt'; did you mean prompt\?"),
        ("prompt/answer", {"prompts": "x"}, "prompt/answer reads no key 'prompts'; did you mean prompt"),
        ("prompt/answer", {"question": "x"}, "prompt/answer reads no key 'question'"),
        (None, {"prompt": "x", "answer": "x"}, r"columns\.answer: 'x' stands for 'prompt' already"),
    ],
)
def test_columns_that_nothing_reads_are_refused(form, columns, said):
    with pytest.raises(ConfigError, match=said):
        recogniser(form, columns)


KEYS = sorted({*READ_KEYS, "role", "content", "from", "value", "train", "weight", "tool_calls", "type"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), st.sampled_from([None, *FORMATS]))
def test_any_record_is_read_or_refused_with_a_reason(record, form):
    try:
        found = recogniser(form).parse(record)
    except BadSampleError:
        return
    assert all(isinstance(message.content, str) for message in found.messages)
    assert form in (None, found.format)


TEXT = st.text(max_size=20)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.sampled_from(CONVERSATIONS))
def test_texts_are_kept_as_they_are(turns, name):
    roles = ("human", "bot") if name != "messages" else ("user", "assistant")
    said = [text for turn in turns for text in turn]
    items = [{ROLE[name]: roles[i % 2], CONTENT[name]: text} for i, text in enumerate(said)]
    assert [message.content for message in ANY.parse({name: items}).messages] == said
