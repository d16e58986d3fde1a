"""A chat: history, commands, interruption, and what it says when a turn cannot be answered."""

import copy
from pathlib import Path

import pytest
import yaml

from mftrun.build import build
from mftrun.data.template import Template
from mftrun.generation.chat import Chat
from mftrun.generation.generator import Generator
from mftrun.generation.prompts import prompts_for
from mftrun.generation.sampling import Sampling
from mftrun.generation.transformers_backend import TransformersBackend

CONF = Path(__file__).parents[2] / "conf" / "template"


class Told(Generator):
    """Keeps what it was given, and answers what it is told."""

    def __init__(self, backend, prompts, tokenizer, answers):
        super().__init__(backend, prompts)
        self.given = []
        self._tokenizer = tokenizer
        backend.stream = self._said
        self._answers = iter(answers)

    def _said(self, prompt, sampling, ending, feed):
        self.given.append(self._tokenizer.decode(prompt.ids))
        text, is_whole = next(self._answers)
        ids = self._tokenizer(text)["input_ids"]
        feed(ids)
        return [*ids, self._tokenizer.eos_token_id] if is_whole else ids


@pytest.fixture
def talk(model, tokenizer):
    """talk(lines, answers): what the model was given, and what was shown."""

    def run(lines, answers, system=""):
        template = build(yaml.safe_load((CONF / "mftcoder.yaml").read_text()), Template, "template")
        backend = TransformersBackend(copy.deepcopy(model), tokenizer.pad_token_id)
        told = Told(backend, prompts_for(template, tokenizer), tokenizer, answers)
        said, shown = iter(lines), []

        def read(mark):
            try:
                line = next(said)
            except StopIteration:
                raise EOFError from None
            if line is None:
                raise KeyboardInterrupt
            return line

        Chat(told, Sampling(max_new_tokens=20), system, read, shown.append).run()
        return told.given, "".join(shown)

    return run


def test_turns_are_remembered_until_reset(talk):
    lines = ["a", "", "b", "/reset", "c", " /exit ", "never"]
    given, shown = talk(lines, [("x\n", True), ("y\n", True), ("z\n", True)], system="S")
    assert given == [
        "<s>system\nS\n<s>human\na\n<s>bot\n",
        "<s>system\nS\n<s>human\na\n<s>bot\nx\n<|endoftext|>\n<s>human\nb\n<s>bot\n",
        "<s>system\nS\n<s>human\nc\n<s>bot\n",
    ]
    assert shown.endswith("x\n\ny\n\nThe conversation begins anew.\nz\n\n")


def test_an_answer_that_was_stopped_is_kept_and_an_empty_one_is_not(talk):
    given, shown = talk(["a", "b", "c", None], [("half", False), ("", True), ("z", True)])
    assert given[1].startswith("<s>human\na\n<s>bot\nhalf")
    assert "half [interrupted]\n" in shown
    assert shown.count("[the model ended its answer at once]\n") == 1
    assert given[2].count("<s>human") == 2
    assert "\nc\n" in given[2]


def test_ctrl_c_at_the_prompt_ends_nothing(talk):
    given, shown = talk(["a", None, "b"], [("x\n", True), ("y\n", True)])
    assert "[/exit or Ctrl-D ends]" in shown
    assert "a" in given[1].split()


def test_a_conversation_that_has_grown_too_long(talk):
    given, shown = talk(["a", "b" * 80, "c"], [("x", True), ("z", True)])
    assert "/reset begins anew]" in shown
    assert [text.count("<s>human") for text in given] == [1, 2]
