"""Laws that every template keeps for random conversations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import chat_templates
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mftrun.build import build
from mftrun.data.sample import Message
from mftrun.data.template import ModelTemplate, Template

CONF = Path(__file__).parents[2] / "conf" / "template"
CONTROL = ["</s>", "<s>", "<|im_start|>", "<|im_end|>", "<|role_start|>", "<|role_end|>"]
ENDS = {"mftcoder": "\n</s>", "chatml": "<|im_end|>", "atorch": "</s>", "markers": "\n</s>"}
MODELS = {"CHATML": "<|im_end|>", "QWEN25": "<|im_end|>", "CHATML_WITH_TAGS": "<|im_end|>", "ZEPHYR": "</s>"}

# Text with control tokens, pieces of them, and white space at its edges; never empty.
_words = st.one_of(
    st.sampled_from(
        [*CONTROL, "<|im_", "end|>", "### User:\n", " ", "\n", "\n\n", "é🙂", "{{ x }}", "\ue000"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
texts = st.lists(_words, min_size=1, max_size=6).map("".join).filter(str.strip)
weights = st.sampled_from([0.0, 0.5, 1.0, 3.0])


@st.composite
def conversations(draw):
    """An optional system text, then one to three questions and answers with weights."""
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(texts)), Message("assistant", draw(texts), draw(weights))]
    return messages


@pytest.fixture(scope="module")
def bound(make_tokenizer):
    """bound(name): tokenizer and encoder of an option of the template group, or of a chat template."""
    made = {}

    def bind(name):
        if name not in made:
            tokenizer = make_tokenizer(CONTROL[1:])
            if name in MODELS:
                tokenizer.chat_template = getattr(chat_templates, name)
                chosen = ModelTemplate()
            else:
                chosen = build(yaml.safe_load((CONF / f"{name}.yaml").read_text()), Template, "template")
            made[name] = tokenizer, chosen, chosen.encoder(tokenizer)
        return made[name]

    return bind


def answered(encoded, tokenizer):
    """Text and weight of each unbroken run of one weight above 0."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], encoded.weights, [0]])))
    runs = [(a, b) for a, b in pairwise(edges) if encoded.weights[a]]
    return [(tokenizer.decode(encoded.ids[a:b]), float(encoded.weights[a])) for a, b in runs]


quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", [*ENDS, *MODELS])
@quick
@given(messages=conversations())
def test_targets_are_the_answers_and_their_ends(bound, name, messages):
    tokenizer, _, encoder = bound(name)
    encoded = encoder.encode(messages)
    end, lead = {**ENDS, **MODELS}[name], "\n" if name == "ZEPHYR" else ""
    answers = [message for message in messages if message.role == "assistant" and message.weight]
    expected = [(f"{lead}{message.content}{end}", message.weight) for message in answers]
    assert answered(encoded, tokenizer) == expected


@pytest.mark.parametrize("name", [*ENDS, "CHATML", "QWEN25", "ZEPHYR"])
@quick
@given(messages=conversations())
def test_tokens_decode_to_the_rendered_text(bound, name, messages):
    tokenizer, chosen, encoder = bound(name)
    dicts = [{"role": message.role, "content": message.content} for message in messages]
    rendered = tokenizer.apply_chat_template(dicts, chat_template=chosen.chat_template(), tokenize=False)
    assert tokenizer.decode(encoder.encode(messages).ids) == rendered


@pytest.mark.parametrize("name", [*ENDS, *MODELS])
@quick
@given(messages=conversations())
def test_messages_bring_no_control_tokens(bound, name, messages):
    tokenizer, _, encoder = bound(name)
    harmless = [Message(message.role, "x", message.weight) for message in messages]
    control = tokenizer.convert_tokens_to_ids(CONTROL)
    counts = [np.isin(encoder.encode(each).ids, control).sum() for each in (messages, harmless)]
    assert counts[0] == counts[1]


@quick
@given(text=texts)
def test_documents_keep_their_text_and_train_all_of_it(bound, text):
    tokenizer, _, encoder = bound("none")
    encoded = encoder.encode([Message("document", text)])
    assert tokenizer.decode(encoded.ids) == text + "</s>"
    assert encoded.targets[1:].all()
    assert not encoded.targets[0]
