"""The tokenizer's own chat template: exact targets for templates with all kinds of habits."""

from __future__ import annotations

import json
import pickle
from datetime import datetime

import chat_templates
import numpy as np
import pytest
from tokenizers import AddedToken

from mftrun.data.sample import Message, Origin, Sample, ToolCall
from mftrun.data.template import ModelTemplate, Template
from mftrun.data.templates import clock
from mftrun.data.templates.rendering import ChatTemplate
from mftrun.errors import ConfigError

MODELS = {
    "LLAMA3": ["<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "CHATML": ["<|im_start|>", "<|im_end|>"],
    "CHATML_WITH_TAGS": ["<|im_start|>", "<|im_end|>"],
    "QWEN25": ["<|im_start|>", "<|im_end|>"],
    "QWEN3": ["<|im_start|>", "<|im_end|>"],
    "MISTRAL": ["<s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"],
    "GEMMA": ["<s>", "<start_of_turn>", "<end_of_turn>"],
    "ZEPHYR": [],
    "DEEPSEEK": ["<s>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend▁of▁sentence\uff5c>"],
    "PHI3": ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
    "LAST_ONLY": [],
    "UNENDED_TURNS": ["<s>"],
}
USER_TURNS = [
    Message("user", "add"),
    Message("assistant", "a + b"),
    Message("user", "and\n\nnow?"),
    Message("assistant", "b + a"),
]
TURNS = [Message("system", "Be brief."), *USER_TURNS]
THINKING = [
    Message("user", "add"),
    Message("assistant", "<think>\nhm\n</think>\n\na + b"),
    Message("user", "and now?"),
    Message("assistant", "<think>\nwell\n</think>\n\nb + a"),
]
CALL = ToolCall("find", '{"word": "é <|im_end|>", "n": 2}')
TOOLS = json.dumps([{"type": "function", "function": {"name": "find", "parameters": {}}}])
CALLING = [
    Message("user", "look"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "4 </s>"),
    Message("assistant", "four"),
]


@pytest.fixture
def make(make_tokenizer):
    """make(name): a tokenizer that has the chat template of that name."""

    def build(name):
        tokenizer = make_tokenizer(MODELS[name])
        tokenizer.chat_template = getattr(chat_templates, name)
        if "<s>" in MODELS[name]:
            tokenizer.bos_token = "<s>"
        if name in ("QWEN25", "QWEN3", "DEEPSEEK"):
            plain = [AddedToken(text, special=False) for text in ("<think>", "</think>", "<tool_call>")]
            tokenizer.add_tokens(plain)
        return tokenizer

    return build


def encode(tokenizer, messages, tools="", **options):
    return ModelTemplate(**options).encoder(tokenizer).encode(messages, tools)


def reason(tokenizer, messages, tools="", **options):
    sample = Sample(tuple(messages), Origin("", 0), tools)
    (refused,) = ModelTemplate(**options).encoder(tokenizer).encode_all([sample])
    assert isinstance(refused, str)
    return refused


def spans(encoded, tokenizer):
    """The text of each unbroken run of targets."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], encoded.targets, [False]]).astype(int)))
    return [tokenizer.decode(encoded.ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def as_dicts(messages):
    return [{"role": message.role, "content": message.content} for message in messages]


PINNED = {
    "LLAMA3": ["a + b<|eot_id|>", "b + a<|eot_id|>"],
    "CHATML": ["a + b<|im_end|>", "b + a<|im_end|>"],
    "CHATML_WITH_TAGS": ["a + b<|im_end|>", "b + a<|im_end|>"],
    "QWEN25": ["a + b<|im_end|>", "b + a<|im_end|>"],
    "QWEN3": ["a + b<|im_end|>", "b + a<|im_end|>"],
    "MISTRAL": [" a + b</s>", " b + a</s>"],  # the prompt ends before the space
    "ZEPHYR": ["\na + b</s>", "\nb + a</s>"],  # and before the newline
    "DEEPSEEK": ["a + b<\uff5cend▁of▁sentence\uff5c>", "b + a<\uff5cend▁of▁sentence\uff5c>"],
    "PHI3": ["a + b<|end|>", "b + a<|end|>"],
    "LAST_ONLY": ["a + b", "b + a\n</s>"],
    "UNENDED_TURNS": ["a + b", "b + a\n</s>"],
}


@pytest.mark.parametrize("name", PINNED)
def test_text_and_targets_of_a_conversation(make, name):
    tokenizer = make(name)
    encoded = encode(tokenizer, TURNS)
    assert tokenizer.decode(encoded.ids) == tokenizer.apply_chat_template(as_dicts(TURNS), tokenize=False)
    assert spans(encoded, tokenizer) == PINNED[name]


def test_gemma_calls_the_assistant_model_and_refuses_a_system_text(make):
    tokenizer = make("GEMMA")
    encoded = encode(tokenizer, USER_TURNS)
    assert tokenizer.decode(encoded.ids).startswith(
        "<s><start_of_turn>user\nadd<end_of_turn>\n<start_of_turn>model"
    )
    assert spans(encoded, tokenizer) == ["a + b<end_of_turn>", "b + a<end_of_turn>"]
    assert "System role not supported" in reason(tokenizer, TURNS)


@pytest.mark.parametrize("name", sorted({*MODELS} - {"DEEPSEEK", "QWEN3"}))  # whose prompts begin thoughts
def test_the_prompt_is_what_stands_before_the_targets(make, name):
    tokenizer = make(name)
    encoded = encode(tokenizer, USER_TURNS[:2])
    prompt = tokenizer.apply_chat_template(
        as_dicts(USER_TURNS[:1]), add_generation_prompt=True, return_dict=False
    )
    assert prompt == encoded.ids[: np.flatnonzero(encoded.targets)[0]].tolist()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("edge", [" ", "\n\n", "\t "])
def test_white_space_around_answers_is_a_target_where_the_template_keeps_it(make, name, edge):
    tokenizer = make(name)
    turns = [*USER_TURNS[:2], Message("user", f"{edge}q{edge}"), Message("assistant", f"{edge}b + a{edge}")]
    encoded = encode(tokenizer, turns)
    rendered = tokenizer.apply_chat_template(as_dicts(turns), tokenize=False)
    assert tokenizer.decode(encoded.ids) == rendered
    kept = f"{edge}b + a{edge}" in rendered
    before, end = PINNED.get(name, ["", "b + a<end_of_turn>"])[1].split("b + a")
    expected = f"{before}{edge}b + a{edge}{end}" if kept else f"{before}b + a{end}"
    if name == "QWEN3":  # its newlines before a last answer are cut off
        expected = f"{edge.lstrip(chr(10))}b + a{edge}<|im_end|>"
    assert spans(encoded, tokenizer)[1] == expected


def test_empty_thoughts_that_the_template_adds_are_no_target(make):
    tokenizer = make("QWEN3")
    encoded = encode(tokenizer, USER_TURNS)
    assert "assistant\n<think>\n\n</think>\n\nb + a" in tokenizer.decode(encoded.ids)
    assert spans(encoded, tokenizer) == ["a + b<|im_end|>", "b + a<|im_end|>"]


def test_thoughts_are_targets_where_the_template_keeps_them(make):
    tokenizer = make("QWEN3")
    encoded = encode(tokenizer, THINKING)
    assert tokenizer.decode(encoded.ids) == tokenizer.apply_chat_template(as_dicts(THINKING), tokenize=False)
    expected = ["a + b<|im_end|>", "<think>\nwell\n</think>\n\nb + a<|im_end|>"]
    assert spans(encoded, tokenizer) == expected
    thinking = tokenizer.convert_tokens_to_ids("<think>")
    assert encoded.targets[encoded.ids == thinking].tolist() == [True]


def test_deepseek_cuts_thoughts_off(make):
    tokenizer = make("DEEPSEEK")
    expected = ["\n\na + b<\uff5cend▁of▁sentence\uff5c>", "\n\nb + a<\uff5cend▁of▁sentence\uff5c>"]
    assert spans(encode(tokenizer, THINKING), tokenizer) == expected


def test_tags_of_the_template_rule_where_nothing_else_could_tell(make):
    tokenizer = make("CHATML_WITH_TAGS")
    turns = [Message("user", "q"), Message("assistant", "say twice ")]
    assert spans(encode(tokenizer, turns), tokenizer) == ["say twice say twice <|im_end|>"]
    for tag in ("{% generation %}", "{% endgeneration %}"):
        tokenizer.chat_template = tokenizer.chat_template.replace(tag, "")
    assert "rewrites message 2 (assistant)" in reason(tokenizer, turns)


def test_unended_answers_stay_so_where_texts_are_trimmed(make):
    tokenizer = make("LAST_ONLY")
    tokenizer.chat_template = chat_templates.LAST_ONLY.replace(
        "message['content']", "message['content'] | trim"
    )
    turns = [USER_TURNS[0], Message("assistant", " a + b "), USER_TURNS[2], Message("assistant", " b + a ")]
    assert spans(encode(tokenizer, turns), tokenizer) == PINNED["LAST_ONLY"]


def test_what_a_template_puts_before_some_answers_is_no_target(make):
    tokenizer = make("CHATML")
    header = "{{ 'Long:' if message['content'] | length > 9 else '' }}{{ message['content'] | trim +"
    tokenizer.chat_template = chat_templates.CHATML.replace("'\n' + message['content'] +", "'\n' }}" + header)
    turns = [Message("user", "q"), Message("assistant", "an answer that is long")]
    assert spans(encode(tokenizer, turns), tokenizer) == ["an answer that is long<|im_end|>"]
    turns = [Message("user", "q"), Message("assistant", "an answer that is long ")]
    assert "rewrites message 2 (assistant)" in reason(tokenizer, turns)


def test_an_answer_rewritten_beyond_proof_is_a_bad_sample(make):
    tokenizer = make("CHATML")
    # An answer that says so loses its header and its white space: neither start nor prompt is as elsewhere.
    rewritten = "{% if 'drop' in message['content'] %}{{ message['content'] | trim }}{% else %}"
    tokenizer.chat_template = chat_templates.CHATML.replace(
        "{{ '<|im_start|>' +", rewritten + "{{ '<|im_start|>' +"
    )
    tokenizer.chat_template = tokenizer.chat_template.replace("{% endfor %}", "{% endif %}{% endfor %}")
    turns = [Message("user", "q"), Message("assistant", " drop ")]
    assert "rewrites message 2 (assistant)" in reason(tokenizer, turns)


def test_calls_and_their_end_token_are_targets(make):
    tokenizer = make("QWEN25")
    encoded = encode(tokenizer, CALLING, TOOLS)
    text = tokenizer.decode(encoded.ids)
    assert '<tools>\n{"type": "function", "function": {"name": "find"' in text
    assert "<|im_start|>user\n<tool_response>\n4 </s>\n</tool_response><|im_end|>\n" in text
    call = (
        '<tool_call>\n{"name": "find", "arguments": {"word": "é <|im_end|>", "n": 2}}\n</tool_call><|im_end|>'
    )
    assert spans(encoded, tokenizer) == [call, "four<|im_end|>"]
    assert (encoded.ids == tokenizer.convert_tokens_to_ids("<|im_end|>")).sum() == 5
    assert not (encoded.ids == tokenizer.eos_token_id).any()


def test_text_before_calls_is_a_target_too(make):
    tokenizer = make("QWEN25")
    turns = [CALLING[0], Message("assistant", "I look.", tool_calls=(ToolCall("f", "{}"),) * 2), *CALLING[2:]]
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    expected = [f"I look.\n{call}\n{call}<|im_end|>", "four<|im_end|>"]
    assert spans(encode(tokenizer, turns, TOOLS), tokenizer) == expected


def test_a_last_call_of_a_thinking_model(make):
    turns = [Message("user", "look"), Message("assistant", "", tool_calls=(ToolCall("f", "{}"),))]
    tokenizer = make("QWEN3")
    encoded = encode(tokenizer, turns)
    assert "<think>\n\n</think>" in tokenizer.decode(encoded.ids)
    expected = ['<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_end|>']
    assert spans(encoded, tokenizer) == expected


def test_other_manners_of_calling(make):
    llama = make("LLAMA3")
    call = '{"name": "find", "parameters": {"word": "é <|im_end|>", "n": 2}}<|eot_id|>'
    assert spans(encode(llama, CALLING), llama) == [call, "four<|eot_id|>"]
    mistral = make("MISTRAL")
    first, last = spans(encode(mistral, CALLING), mistral)
    assert first.startswith(
        '[TOOL_CALLS] [{"name": "find", "arguments": {"word": "é <|im_end|>", "n": 2}, "id": "'
    )
    assert first.endswith('"}]</s>')
    assert last == " four</s>"


def test_calls_whose_turn_begins_unlike_the_prompt_make_a_bad_sample(make):
    tokenizer = make("LLAMA3")
    head, tail = chat_templates.LLAMA3.split("{%- if add_generation_prompt %}")
    tokenizer.chat_template = head + "{%- if add_generation_prompt %}" + tail.replace("assistant", "model")
    assert "rewrites message 2 (assistant)" in reason(tokenizer, CALLING)
    assert spans(encode(tokenizer, USER_TURNS), tokenizer) == PINNED["LLAMA3"]


def test_what_a_template_leaves_out_makes_a_bad_sample(make):
    zephyr, llama = make("ZEPHYR"), make("LLAMA3")
    with_tool = [*USER_TURNS[:2], Message("tool", "4"), *USER_TURNS[2:]]
    assert "leaves out message 3 (tool)" in reason(zephyr, with_tool)
    assert "leaves out the list of tools" in reason(zephyr, USER_TURNS, TOOLS)
    with_text = [CALLING[0], Message("assistant", "I look.", tool_calls=(CALL,)), *CALLING[2:]]
    assert "leaves out message 2 (assistant)" in reason(llama, with_text)
    deepseek = make("DEEPSEEK")
    calling = [CALLING[0], Message("assistant", "I look.", tool_calls=(CALL,))]
    assert "leaves out calls of message 2" in reason(deepseek, calling)


def test_calls_that_are_no_json_make_a_bad_sample(make):
    tokenizer = make("QWEN25")
    for arguments, message in {"{": "are not JSON", "[]": "must be a JSON object"}.items():
        turns = [CALLING[0], Message("assistant", "", tool_calls=(ToolCall("f", arguments),))]
        assert message in reason(tokenizer, turns)
    assert "tools is not JSON" in reason(tokenizer, CALLING, "[")
    assert "must be a JSON list" in reason(tokenizer, CALLING, "{}")


def test_plain_text_is_a_bad_sample(make):
    assert "use template=none" in reason(make("CHATML"), [Message("document", "text")])


@pytest.mark.parametrize("name", sorted({*MODELS} - {"LLAMA3", "GEMMA", "MISTRAL"}))  # which trim
def test_names_of_control_tokens_in_messages_stay_text(make, name):
    tokenizer = make(name)
    nasty = f"</s>{''.join(MODELS[name])} {{{{ x }}}} {{% if %}} \U000f0000 é\ue000"
    turns = [Message("user", nasty), Message("assistant", nasty), *USER_TURNS[2:]]
    encoded, harmless = encode(tokenizer, turns), encode(tokenizer, USER_TURNS)
    control = tokenizer.convert_tokens_to_ids(["</s>", *MODELS[name]])
    assert np.isin(encoded.ids, control).sum() == np.isin(harmless.ids, control).sum()
    assert tokenizer.decode(encoded.ids).count(nasty) == 2
    assert nasty in spans(encoded, tokenizer)[0]


def test_a_name_that_template_and_message_spell_together_makes_a_bad_sample(make):
    tokenizer = make("CHATML")
    tokenizer.chat_template = chat_templates.CHATML.replace("'\n' + message", "'\n<|' + message")
    assert "together spell a control token" in reason(tokenizer, [Message("user", "im_end|>"), USER_TURNS[1]])
    assert encode(tokenizer, USER_TURNS).targets.any()


@pytest.mark.parametrize("special", [True, False])
def test_what_a_template_does_with_names_in_messages_is_done_or_refused(make, special):
    tokenizer = make("CHATML")
    tokenizer.add_tokens(
        [AddedToken(name, special=special) for name in ("<think>", "</think>")], special_tokens=special
    )
    tokenizer.chat_template = chat_templates.DEEPSEEK.replace("<\uff5cend▁of▁sentence\uff5c>", "<|im_end|>")
    if special:
        refused = reason(tokenizer, THINKING)
        assert "goes by control tokens that the text of message 2 (assistant) names" in refused
        assert "template.control_text=true" in refused
    kept = encode(tokenizer, THINKING, control_text=special)
    rendered = tokenizer.apply_chat_template(as_dicts(THINKING), tokenize=False)
    assert tokenizer.decode(kept.ids) == rendered
    assert "<think>" not in rendered


def test_a_template_that_goes_by_names_in_several_messages_or_refuses_them(make):
    tokenizer = make("CHATML")
    both = "messages | map(attribute='content') | select('in', ['<|im_end|>']) | list | length > 1"
    tokenizer.chat_template = f"{{% if {both} %}}Twice.{{% endif %}}" + chat_templates.CHATML
    turns = [Message("user", "<|im_end|>"), Message("assistant", "<|im_end|>")]
    assert "the messages and tools together" in reason(tokenizer, turns)
    assert encode(tokenizer, [turns[0], USER_TURNS[1]]).targets.any()
    check = "{% if '<|im_end|>' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = check + chat_templates.CHATML
    assert "message 1 (user) names" in reason(tokenizer, turns)


@pytest.mark.parametrize("cut", ["[:6]", "[-6:]"])
def test_a_part_that_is_left_out_makes_a_bad_sample(make, cut):
    tokenizer = make("CHATML")
    tokenizer.chat_template = chat_templates.CHATML.replace("['content']", f"['content']{cut}")
    turns = [Message("user", "a long question"), Message("assistant", "a long answer")]
    assert "leaves out a part of message 1 (user)" in reason(tokenizer, turns)
    tokenizer.chat_template = chat_templates.CHATML.replace(
        "message['content']", f"(message['content']{cut} if loop.last else message['content'])"
    )
    if cut.startswith("[:"):
        assert "leaves out a part of message 2 (assistant)" in reason(tokenizer, turns)
    else:  # as where thoughts are cut off
        assert spans(encode(tokenizer, turns), tokenizer)[0].endswith("answer<|im_end|>")


def test_texts_that_are_trimmed_are_whole(make):
    tokenizer = make("CHATML")
    tokenizer.chat_template = chat_templates.CHATML.replace(
        "message['content']", "(message['content'] | trim)"
    )
    turns = [Message(turn.role, f" {turn.content}\n") for turn in TURNS]
    assert spans(encode(tokenizer, turns), tokenizer) == PINNED["CHATML"]


DATED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "?" %}{%- endif %}'
    "{%- endif %}{{ 'Today: ' + date_string + '\n' }}"
)


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({}, "26 Jul 2024"),
        ({"today": "2026-11-21"}, "21 Nov 2026"),
        ({"date_string": "a day"}, "a day"),
        ({"date_string": "a day", "today": "2026-11-21"}, "a day"),
    ],
)
def test_the_date_that_is_shown_is_fixed(make, caplog, variables, shown):
    tokenizer = make("CHATML")
    tokenizer.chat_template = DATED + chat_templates.CHATML
    with caplog.at_level("INFO"):
        encoded = encode(tokenizer, USER_TURNS, variables=variables)
    assert tokenizer.decode(encoded.ids).startswith(f"Today: {shown}\n<|im_start|>user")
    assert spans(encoded, tokenizer) == PINNED["CHATML"]
    assert ("template.variables.today" in caplog.text) == ("date_string" not in variables)


def test_a_template_that_shows_the_time_is_rendered_twice_alike(make):
    tokenizer = make("CHATML_WITH_TAGS")
    tokenizer.chat_template = "{{ strftime_now('%H:%M:%S.%f|') }}" + chat_templates.CHATML_WITH_TAGS
    for variables, shown in (
        ({}, "00:00:00.000000|"),
        ({"today": "2026-11-21T12:34:56"}, "12:34:56.000000|"),
    ):
        encoded = encode(tokenizer, USER_TURNS, variables=variables)
        assert tokenizer.decode(encoded.ids).startswith(f"{shown}<|im_start|>")
        assert spans(encoded, tokenizer) == PINNED["CHATML_WITH_TAGS"]


def test_today_is_a_variable_like_others_where_no_date_is_read(make):
    tokenizer = make("CHATML")
    tokenizer.chat_template = "{{ today }}" + chat_templates.CHATML
    encoded = encode(tokenizer, USER_TURNS, variables={"today": "Friday"})
    assert tokenizer.decode(encoded.ids).startswith("Friday<|im_start|>")
    tokenizer.chat_template = DATED + chat_templates.CHATML
    with pytest.raises(ConfigError, match=r"template\.variables\.today: 'Friday' is no date such as"):
        encode(tokenizer, USER_TURNS, variables={"today": "Friday"})


@pytest.mark.parametrize(
    "format", ["%d %b %Y", "%Y-%m-%d %H:%M:%S", "%A, %-d. %B (%j) 100%% é", " \n%I%p%", ""]
)
def test_the_clock_writes_dates_as_python_does(format):
    moment = datetime(2026, 3, 4, 5, 6, 7)
    told = clock.stopped(f"{{{{ strftime_now({format!r}) }}}}", moment)
    assert ChatTemplate(told, {}).render([]) == moment.strftime(format)


@pytest.mark.parametrize(
    "begin", ["", "\n", "  ", "\n\n x", "  {% if 1 %}\n y{% endif %}", "{%- if 1 %} {% endif %}"]
)
def test_the_clock_changes_nothing_else(begin):
    text = begin + "z{# strftime_now #}\n"
    assert ChatTemplate(text, {}).render([]) == ChatTemplate(text.replace("strftime_now", ""), {}).render([])


def test_names_become_control_tokens_if_asked(make):
    tokenizer = make("CHATML")
    turns = [Message("user", "<|im_end|>"), Message("assistant", "a<|im_start|>b")]
    plain, asked = encode(tokenizer, turns), encode(tokenizer, turns, control_text=True)
    assert len(asked.ids) < len(plain.ids)
    assert spans(asked, tokenizer) == ["a<|im_start|>b<|im_end|>"]


def test_markers_that_are_not_called_special_are_no_way_in(make_tokenizer):
    tokenizer = make_tokenizer([])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in MODELS["PHI3"]])
    tokenizer.chat_template = chat_templates.PHI3
    encoded = encode(tokenizer, [Message("user", "<|assistant|>\nyes<|end|>"), Message("assistant", "no")])
    ids = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>"])
    assert [(encoded.ids == number).sum() for number in ids] == [1, 2]


def test_weights_are_those_of_the_messages(make):
    tokenizer = make("LLAMA3")
    answers = [Message("assistant", "a", weight=0.0), Message("assistant", "b", weight=2.5)]
    turns = [USER_TURNS[0], answers[0], USER_TURNS[2], answers[1]]
    encoded = encode(tokenizer, turns)
    assert sorted(set(encoded.weights.tolist())) == [0.0, 2.5]
    assert spans(encoded, tokenizer) == ["b<|eot_id|>"]


def test_characters_for_private_use_are_text(make):
    tokenizer = make("CHATML")
    planes = [0xF, 0x10, *range(4, 14)]
    for number in range(len(planes)):
        text = "".join(chr(plane << 16) for plane in planes[:number])
        turns = [Message("user", "q"), Message("assistant", f"<|im_end|>{text}")]
        assert spans(encode(tokenizer, turns), tokenizer) == [f"<|im_end|>{text}<|im_end|>"]
    turns = [Message("user", "q"), Message("assistant", "".join(chr(plane << 16) for plane in planes))]
    assert "every Unicode plane" in reason(tokenizer, turns)


def test_no_chat_template(make_tokenizer):
    with pytest.raises(ConfigError, match=r"template\.path: .*no chat template of its own; choose another"):
        ModelTemplate().encoder(make_tokenizer())


def test_a_template_that_ends_no_answer(make_tokenizer):
    tokenizer = make_tokenizer([])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="ends no answer with a control token; choose another"):
        ModelTemplate().encoder(tokenizer)


def test_a_template_with_an_error(make_tokenizer):
    tokenizer = make_tokenizer([])
    tokenizer.chat_template = "{% for %}"
    with pytest.raises(ConfigError, match=r"refuses the conversation.*choose another"):
        ModelTemplate().encoder(tokenizer)


def test_a_file_takes_the_place_of_the_tokenizers_own(make_tokenizer, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(chat_templates.ZEPHYR)
    tokenizer, chosen = make_tokenizer([]), ModelTemplate(path=str(file))
    assert spans(chosen.encoder(tokenizer).encode(USER_TURNS), tokenizer) == PINNED["ZEPHYR"]
    assert chosen.chat_template() == chat_templates.ZEPHYR
    before = chosen.fingerprint()
    file.write_text(chat_templates.CHATML)
    assert chosen.fingerprint() == before
    assert ModelTemplate(path=str(file)).fingerprint() != before
    with pytest.raises(ConfigError, match=r"template\.path: .*missing.* cannot be read"):
        ModelTemplate(path=str(tmp_path / "missing")).encoder(tokenizer)


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_file_that_changes_after_the_start_changes_nothing(make, tmp_path, caplog, change):
    file, tokenizer = tmp_path / "mine.jinja", make("CHATML")
    tokenizer.chat_template = chat_templates.CHATML
    file.write_text(chat_templates.ZEPHYR)
    started = ModelTemplate(path=str(file))
    if change == "edited":
        file.write_text(chat_templates.CHATML.replace("<|im_end|>", "<|im_start|>"))
    else:
        file.unlink()
    assert started.chat_template() == chat_templates.ZEPHYR
    later = ModelTemplate(path=str(file))
    assert later.stop_ids(tokenizer) == tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert spans(later.encoder(tokenizer).encode(USER_TURNS), tokenizer) == PINNED["CHATML"]
    assert ("tokenizer's chat template is used" in caplog.text) == (change == "edited")
    assert later.fingerprint() != started.fingerprint()
    assert ("cannot be read" in later.fingerprint()["chat_template"]) == (change == "removed")


def test_variables_reach_the_template(make):
    tokenizer = make("QWEN3")
    with_system = [Message("user", "q"), Message("assistant", "a")]
    tokenizer.chat_template = "{{ greeting }}" + chat_templates.QWEN3
    encoded = encode(tokenizer, with_system, variables={"greeting": "Hello. "})
    assert tokenizer.decode(encoded.ids).startswith("Hello. <|im_start|>user")


def test_the_template_for_tools_is_used_with_tools(make):
    tokenizer = make("QWEN25")
    tokenizer.chat_template = {"default": chat_templates.CHATML, "tool_use": chat_templates.QWEN25}
    assert "You are Qwen." not in tokenizer.decode(encode(tokenizer, USER_TURNS).ids)
    assert "You are Qwen." in tokenizer.decode(encode(tokenizer, USER_TURNS, TOOLS).ids)


def test_stop_ids(make):
    tokenizer = make("LLAMA3")
    assert ModelTemplate().stop_ids(tokenizer) == tokenizer.convert_tokens_to_ids(["<|eot_id|>", "</s>"])
    assert ModelTemplate().chat_template() is None
    assert isinstance(ModelTemplate(), Template)


def test_template_and_tokenizer_travel_to_a_worker(make):
    tokenizer = make("LLAMA3")
    template, copy = pickle.loads(pickle.dumps((ModelTemplate(), tokenizer)))
    nasty = [*TURNS, Message("user", "<|eot_id|>"), Message("assistant", "<|eot_id|>")]
    expected = encode(tokenizer, nasty)
    assert np.array_equal(template.encoder(copy).encode(nasty).ids, expected.ids)
    encoder = pickle.loads(pickle.dumps(template.encoder(tokenizer)))
    assert np.array_equal(encoder.encode(nasty).ids, expected.ids)
