"""What each option of the template group writes, and which tokens it trains."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from mftrun.build import build
from mftrun.data.sample import Message, Origin, Sample, ToolCall
from mftrun.data.template import Document, RoleTemplate, Template
from mftrun.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf" / "template"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))
TURNS = [
    Message("system", "Be brief."),
    Message("user", "add"),
    Message("assistant", "a + b"),
    Message("user", "and now?"),
    Message("assistant", "b + a"),
]
TOOLS = [{"type": "function", "function": {"name": "find", "description": "é", "parameters": {}}}]
CALLS = (ToolCall("find", '{"word":"é \\"<|im_end|>\\"", "n": 2}'), ToolCall("find", "{}"))
CALLING = [
    Message("user", "look"),
    Message("assistant", "I look.", tool_calls=CALLS),
    Message("tool", "4"),
    Message("tool", "</s> 5"),
    Message("assistant", "", tool_calls=CALLS[1:]),
    Message("tool", "6"),
    Message("assistant", "six"),
]


def option(name, **changes):
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return build({**node, **changes}, Template, "template")


def encode(chosen, tokenizer, messages, tools=""):
    return chosen.encoder(tokenizer).encode(messages, tools)


def reason(chosen, tokenizer, messages, tools=""):
    (refused,) = chosen.encoder(tokenizer).encode_all([Sample(tuple(messages), Origin("", 0), tools)])
    assert isinstance(refused, str)
    return refused


def spans(encoded, tokenizer):
    """The text of each unbroken run of targets."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], encoded.targets, [False]]).astype(int)))
    return [tokenizer.decode(encoded.ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def as_openai(messages):
    """Messages as a server gets them, arguments of calls parsed."""
    dicts = []
    for message in messages:
        entry = {"role": message.role, "content": message.content}
        if message.tool_calls:
            functions = [
                {"name": call.name, "arguments": json.loads(call.arguments)} for call in message.tool_calls
            ]
            entry["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        dicts.append(entry)
    return dicts


PINNED = {
    "mftcoder": (
        "<s>system\nBe brief.\n<s>human\nadd\n<s>bot\na + b\n</s>\n<s>human\nand now?\n<s>bot\nb + a\n</s>\n",
        ["a + b\n</s>", "b + a\n</s>"],
    ),
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nadd<|im_end|>\n<|im_start|>assistant\na + b<|im_end|>\n"
        "<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\nb + a<|im_end|>\n",
        ["a + b<|im_end|>", "b + a<|im_end|>"],
    ),
    "atorch": (
        "<|role_start|>system<|role_end|>Be brief."
        "<|role_start|>human<|role_end|>add<|role_start|>bot<|role_end|>a + b</s>"
        "<|role_start|>human<|role_end|>and now?<|role_start|>bot<|role_end|>b + a</s>",
        ["a + b</s>", "b + a</s>"],
    ),
    "markers": (
        "### System:\nBe brief.\n### User:\nadd\n### Assistant:\na + b\n</s>\n"
        "### User:\nand now?\n### Assistant:\nb + a\n</s>\n",
        ["a + b\n</s>", "b + a\n</s>"],
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_text_and_targets_of_a_conversation(make_tokenizer, name):
    chosen = option(name)
    tokenizer = make_tokenizer(chosen.required_tokens)
    encoded = encode(chosen, tokenizer, TURNS)
    text, targets = PINNED[name]
    assert tokenizer.decode(encoded.ids) == text
    assert spans(encoded, tokenizer) == targets
    assert set(encoded.weights.tolist()) == {0.0, 1.0}


def test_all_options_are_pinned_somewhere():
    assert set(OPTIONS) == {*PINNED, "none", "model"}


@pytest.mark.parametrize("name", OPTIONS)
def test_option_builds_a_template_that_travels_to_a_worker(name):
    chosen = option(name)
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert json.loads(json.dumps(chosen.fingerprint())) == chosen.fingerprint()


def test_an_encoder_of_a_pickled_tokenizer_gives_the_same(make_tokenizer):
    chosen = option("chatml")
    tokenizer = make_tokenizer(chosen.required_tokens)
    copy = pickle.loads(pickle.dumps(tokenizer))
    nasty = [*TURNS[:2], Message("assistant", "<|im_end|> </s>")]
    expected = encode(chosen, tokenizer, nasty)
    assert np.array_equal(encode(chosen, copy, nasty).ids, expected.ids)
    encoder = pickle.loads(pickle.dumps(chosen.encoder(tokenizer)))
    assert np.array_equal(encoder.encode(nasty).ids, expected.ids)


@pytest.mark.parametrize("name", PINNED)
def test_weights_of_messages_reach_their_text_and_end_token(make_tokenizer, name):
    chosen = option(name)
    tokenizer = make_tokenizer(chosen.required_tokens)
    turns = [
        *TURNS[:2],
        Message("assistant", "a + b", weight=0.0),
        TURNS[3],
        Message("assistant", "b", weight=2.5),
    ]
    encoded = encode(chosen, tokenizer, turns)
    assert set(encoded.weights.tolist()) == {0.0, 2.5}
    (span,) = spans(encoded, tokenizer)
    assert span == PINNED[name][1][1].replace("b + a", "b")


def test_documents_are_targets_from_the_second_token_to_the_end_token(make_tokenizer):
    tokenizer, chosen = make_tokenizer([]), option("none")
    encoded = encode(chosen, tokenizer, [Message("document", "say </s> twice\n")])
    assert tokenizer.decode(encoded.ids) == "say </s> twice\n</s>"
    assert encoded.targets.tolist() == [False] + [True] * (len(encoded.ids) - 1)
    assert (encoded.ids == tokenizer.eos_token_id).sum() == 1
    assert chosen.chat_template() is None
    assert chosen.stop_ids(tokenizer) == [tokenizer.eos_token_id]


def test_conversations_without_a_template_are_joined_texts(make_tokenizer):
    tokenizer, chosen = make_tokenizer([]), option("none")
    encoded = encode(chosen, tokenizer, TURNS)
    assert tokenizer.decode(encoded.ids) == "Be brief.\nadd\na + b\nand now?\nb + a</s>"
    assert encoded.targets[1:].all()
    turns = [Message("user", "add", weight=0.0), Message("assistant", "a + b", weight=0.5)]
    weighted = encode(chosen, tokenizer, turns)
    assert spans(weighted, tokenizer) == ["a + b</s>"]
    assert set(weighted.weights.tolist()) == {0.0, 0.5}
    turns = [Message("user", "add"), Message("assistant", "a", weight=2.0)]
    assert encode(chosen, tokenizer, turns).weights.tolist()[-3:] == [1.0, 2.0, 2.0]


def test_documents_begin_with_a_token_if_asked(make_tokenizer):
    tokenizer, chosen = make_tokenizer(["<s>"]), Document(begin_token=True, end_token="<s>")
    with pytest.raises(ConfigError, match=r"template\.begin_token"):
        chosen.encoder(tokenizer)
    tokenizer.bos_token = "<s>"
    encoded = encode(chosen, tokenizer, [Message("document", "a")])
    assert tokenizer.decode(encoded.ids) == "<s>a<s>"
    assert encoded.targets.tolist() == [False, True, True]
    assert chosen.required_tokens == ("<s>",)


def test_documents_need_an_end_token(make_tokenizer):
    with pytest.raises(ConfigError, match=r"template\.end_token: the tokenizer has no end-of-sequence"):
        Document().encoder(make_tokenizer([], eos=None))


def test_the_first_token_is_never_a_target(make_tokenizer):
    tokenizer = make_tokenizer([])
    encoded = encode(RoleTemplate("", "", ""), tokenizer, [Message("assistant", "a + b", weight=2.0)])
    assert encoded.weights[0] == 0
    assert (encoded.weights[1:] == 2.0).all()


def test_chatml_writes_tools_as_qwen_does(make_tokenizer):
    chosen = option("chatml")
    tokenizer = make_tokenizer(chosen.required_tokens)
    encoded = encode(chosen, tokenizer, [TURNS[0], *CALLING], json.dumps(TOOLS))
    call = '<tool_call>\n{"name": "find", "arguments": {"word": "é \\"<|im_end|>\\"", "n": 2}}\n</tool_call>'
    empty = '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>'
    text = tokenizer.decode(encoded.ids)
    head, rest = text.split("\n</tools>\n\nFor each function call, return a json object")
    assert head == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\n"
        "You may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "find", "description": "é", "parameters": {}}}'
    )
    assert rest == (
        " with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        f"<|im_start|>user\nlook<|im_end|>\n<|im_start|>assistant\nI look.\n{call}\n{empty}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n4\n</tool_response>\n"
        "<tool_response>\n</s> 5\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant\n{empty}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n6\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nsix<|im_end|>\n"
    )
    expected = [f"I look.\n{call}\n{empty}<|im_end|>", f"{empty}<|im_end|>", "six<|im_end|>"]
    assert spans(encoded, tokenizer) == expected
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert [(encoded.ids == end).sum() for end in ends] == [7, 0]


@pytest.mark.parametrize("tools", [[], TOOLS, TOOLS * 2])
@pytest.mark.parametrize("start", [0, 1])
def test_chat_template_renders_tools_as_trained(make_tokenizer, tools, start):
    chosen = option("chatml")
    tokenizer = make_tokenizer(chosen.required_tokens)
    turns = [TURNS[0], *CALLING][start:]
    listed = json.dumps(tools) if tools else ""
    options = {"chat_template": chosen.chat_template(), "tools": tools or None}
    rendered = tokenizer.apply_chat_template(as_openai(turns), tokenize=False, **options)
    encoded = encode(chosen, tokenizer, turns, listed)
    assert rendered == tokenizer.decode(encoded.ids)
    for number in (i for i, message in enumerate(turns) if message.role == "assistant"):
        prompt = tokenizer.apply_chat_template(
            as_openai(turns[:number]), tokenize=False, add_generation_prompt=True, **options
        )
        assert rendered.startswith(prompt)


def test_arguments_that_are_text_are_trained_parsed(make_tokenizer):
    chosen = option("chatml")
    tokenizer = make_tokenizer(chosen.required_tokens)

    def texts(written):
        calls = (ToolCall("find", written),)
        turns = [CALLING[0], Message("assistant", "", tool_calls=calls)]
        as_text = as_openai(turns)
        as_text[1]["tool_calls"][0]["function"]["arguments"] = written
        options = {"chat_template": chosen.chat_template(), "tokenize": False}
        rendered = [tokenizer.apply_chat_template(each, **options) for each in (as_openai(turns), as_text)]
        return tokenizer.decode(encode(chosen, tokenizer, turns).ids), *rendered

    trained, parsed, as_text = texts('{"n":1, "word":"\\u00e9"}')
    assert '"arguments": {"n": 1, "word": "é"}}' in trained
    assert trained == parsed != as_text
    trained, parsed, as_text = texts('{"n": 1, "word": "é"}')
    assert trained == parsed == as_text


def test_inference_prompt_with_tools_has_the_tokens_that_were_trained_on(make_tokenizer):
    chosen = option("chatml")
    tokenizer = make_tokenizer(chosen.required_tokens)
    prompt = tokenizer.apply_chat_template(
        as_openai(CALLING[:1]),
        tools=TOOLS,
        chat_template=chosen.chat_template(),
        add_generation_prompt=True,
        return_dict=False,
    )
    encoded = encode(chosen, tokenizer, CALLING[:2], json.dumps(TOOLS))
    assert prompt == encoded.ids[: np.flatnonzero(encoded.targets)[0]].tolist()


@pytest.mark.parametrize("name", ["mftcoder", "atorch", "markers"])
def test_templates_without_tools_refuse_them(make_tokenizer, name):
    chosen = option(name)
    tokenizer = make_tokenizer(chosen.required_tokens)
    assert "message 2 is a message of the role 'tool'" in reason(chosen, tokenizer, [CALLING[0], CALLING[2]])
    assert "calls tools" in reason(chosen, tokenizer, CALLING[:2])
    assert "lists tools" in reason(chosen, tokenizer, TURNS, json.dumps(TOOLS))
    for changes in ({"tools": TOOLS}, {"conversation": as_openai(CALLING[:2])}):
        arguments = {"conversation": as_openai(TURNS), "chat_template": chosen.chat_template(), **changes}
        with pytest.raises(Exception, match="This template cannot write"):
            tokenizer.apply_chat_template(**arguments)


def test_other_samples_that_cannot_be_rendered(make_tokenizer):
    tokenizer = make_tokenizer(["<|im_start|>", "<|im_end|>"])
    chatml, none = option("chatml"), option("none")
    for chosen in (chatml, option("mftcoder"), option("atorch"), option("markers")):
        document = [Message("document", "text")]
        assert "message 1 is plain text" in reason(chosen, tokenizer, document)
        assert "template=none" in reason(chosen, tokenizer, document)
    no_system = option("markers", system_prefix=None)
    assert "message 1 is a message of the role 'system'" in reason(no_system, tokenizer, TURNS)
    assert encode(no_system, tokenizer, TURNS[1:]).targets.any()
    without = option("chatml", system_prefix=None)
    assert "tools stand in the system turn" in reason(without, tokenizer, CALLING, json.dumps(TOOLS))
    assert "has none for tools" in reason(none, tokenizer, CALLING)
    broken = [CALLING[0], Message("assistant", "", tool_calls=(ToolCall("f", "{"),))]
    assert "arguments of the call of f are not JSON" in reason(chatml, tokenizer, broken)
    with pytest.raises(ValueError, match="not JSON"):
        encode(chatml, tokenizer, broken)


def test_a_bad_sample_leaves_its_neighbours_in_place(make_tokenizer):
    chosen = option("chatml")
    tokenizer = make_tokenizer(chosen.required_tokens)
    conversations = [TURNS, [Message("document", "x")], TURNS[1:3]]
    samples = [Sample(tuple(messages), Origin("", 0)) for messages in conversations]
    first, bad, last = chosen.encoder(tokenizer).encode_all(samples)
    assert isinstance(bad, str)
    assert np.array_equal(first.ids, encode(chosen, tokenizer, TURNS).ids)
    assert np.array_equal(last.ids, encode(chosen, tokenizer, TURNS[1:3]).ids)


@pytest.mark.parametrize("name", ["mftcoder", "none"])
def test_names_become_control_tokens_only_if_asked(make_tokenizer, name):
    tokenizer = make_tokenizer(["<s>"])
    turns = [Message("user", "a</s>b"), Message("assistant", "c</s>d")]
    for asked, ends in {False: 1, True: 3}.items():
        encoded = encode(option(name, control_text=asked), tokenizer, turns)
        assert (encoded.ids == tokenizer.eos_token_id).sum() == ends


def test_fingerprint_follows_tools():
    plain, changed = option("chatml"), option("chatml", tools=None)
    assert plain.fingerprint() != changed.fingerprint()
    assert Document().fingerprint() != Document(separator="").fingerprint()
