"""Styles: their exact texts, and the tokens of an answer that has begun."""

from pathlib import Path

import pytest
import yaml
from made_up import Sums, problems

from mftrun.benchmarks.base import Prompt
from mftrun.build import build
from mftrun.data.sample import Message
from mftrun.data.template import Document, ModelTemplate, Template
from mftrun.errors import ConfigError
from mftrun.generation.generator import answer_text, token_prompt
from mftrun.generation.prompts import RawPrompts, prompts_for
from mftrun.generation.requests import Request, text_request
from mftrun.solving.questions import questions
from mftrun.solving.styles import STYLES, Turn, find_style

CONF = Path(__file__).parents[2] / "conf" / "template"
PROMPT = Prompt("Add two.", "def add(a, b):\n")
BEGUN, REST = "def add(a, b):", "\n    return a + b"
CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(model):
    return model.tokenizer


def template(name, tokenizer):
    if name == "model":
        tokenizer.chat_template = CHATML
    return build(yaml.safe_load((CONF / f"{name}.yaml").read_text()), Template, "template")


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("instruct", "Add two.\n\ndef add(a, b):"),
        ("octocoder", "Question: Add two.\n\nAnswer:\ndef add(a, b):"),
        ("chatml", "<|im_start|>user\nAdd two.<|im_end|>\n<|im_start|>assistant\ndef add(a, b):"),
        ("continue", "def add(a, b):"),
        ("Q: {instruction} A: {begun}", "Q: Add two. A: def add(a, b):"),
    ],
)
def test_raw_styles_are_their_text(tokenizer, style, text):
    bound = find_style(style).bind(tokenizer, None)
    assert bound.form.render(PROMPT) == text
    assert bound.prompts.encode(bound.form.request(PROMPT)) == tokenizer(text)["input_ids"]


def test_raw_styles_fill_in_what_was_asked_and_nothing_else():
    odd = Prompt("{begun} {0}", "x = '{instruction}'")
    assert find_style("octocoder").render(odd) == "Question: {begun} {0}\n\nAnswer:\nx = '{instruction}'"
    assert find_style("continue").render(Prompt("Add two.", "")) == "Add two."


def test_control_tokens_of_raw_styles_are_tokens(tokenizer):
    bound = STYLES["chatml"].bind(tokenizer, None)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert bound.prompts.encode(bound.form.request(PROMPT)).count(end) == 1
    assert bound.prompts.stop_ids == [end, tokenizer.eos_token_id]
    assert STYLES["instruct"].bind(tokenizer, None).prompts.stop_ids == [tokenizer.eos_token_id]


def test_unknown_styles_name_the_nearest():
    with pytest.raises(ConfigError, match="did you mean octocoder") as caught:
        find_style("octocode")
    assert caught.value.key == "style"


@pytest.mark.parametrize("name", ["mftcoder", "chatml", "markers", "atorch", "model"])
def test_a_begun_answer_has_the_tokens_of_training(tokenizer, name):
    chosen = template(name, tokenizer)
    turns = [Message("user", "Add two."), Message("assistant", BEGUN + REST)]
    trained = chosen.encoder(tokenizer).encode(turns)
    bound = STYLES["auto"].bind(tokenizer, chosen)
    prompt = token_prompt(bound.prompts, bound.form.request(PROMPT), 0)
    assert prompt.ids == trained.ids[: len(prompt.ids)].tolist()
    begin = int(trained.targets.argmax())
    assert len(prompt.ids) - prompt.begun == begin
    assert tokenizer.decode(prompt.ids[begin:]) == BEGUN
    answer = [
        token for token in trained.ids[len(prompt.ids) :].tolist() if token not in bound.prompts.stop_ids
    ]
    assert bound.prompts.message(answer_text(bound.prompts, prompt, answer)).rstrip("\n") == REST


def test_names_of_control_tokens_in_begun_code_stay_text(tokenizer):
    prompts = prompts_for(template("chatml", tokenizer), tokenizer)
    request = Request((Message("user", "a"),), begun="x = '<|im_end|>'")
    prompt = token_prompt(prompts, request, 0)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in prompt.ids[-prompt.begun :]
    assert tokenizer.decode(prompt.ids[-prompt.begun :]) == request.begun


def test_documents_are_joined_as_in_training(tokenizer):
    bound = STYLES["auto"].bind(tokenizer, Document())
    prompt = token_prompt(bound.prompts, bound.form.request(PROMPT), 0)
    assert tokenizer.decode(prompt.ids) == "Add two.\ndef add(a, b):"


def test_auto_is_plain_without_a_template(tokenizer):
    bound = STYLES["auto"].bind(tokenizer, None)
    assert bound.form is STYLES["instruct"]
    assert isinstance(bound.prompts, RawPrompts)


def test_a_user_who_says_nothing_shows_the_code():
    request = Turn().request(Prompt("", "def add(a, b):\n"))
    assert [message.content for message in request.messages] == ["def add(a, b):"]
    assert request.begun == "def add(a, b):"


def test_a_word_behind_begun_code_keeps_its_space():
    """Tokenizers of SentencePiece write a space into the first word of a text, and leave it out when read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, "</s>": 1, "▁return": 2, "▁x": 3, "▁say": 4}
    rust = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token="</s>")
    prompts = prompts_for(Document(), tokenizer)
    begun = token_prompt(prompts, Request((Message("user", "say"),), begun=" return"), 0)
    assert answer_text(prompts, begun, [3]) == " x"
    raw = RawPrompts(tokenizer)
    assert answer_text(raw, token_prompt(raw, text_request("return"), 0), [3]) == " x"


def test_questions_do_not_depend_on_how_many_there_are(tokenizer):
    bound = STYLES["auto"].bind(tokenizer, ModelTemplate() if tokenizer.chat_template else None)
    many = questions(bound, Sums(), problems(4), 3)
    few = questions(bound, Sums(), problems(2), 2)
    assert {one.key for one in many} == {(f"sums/{p}", s) for p in range(4) for s in range(3)}
    assert set(map(str, few)) < set(map(str, many))
    assert len({one.digest for one in many}) == 4
