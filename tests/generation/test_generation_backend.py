"""Batches change no answer; every setting acts, and none that came with the model."""

import copy

import pytest
import torch
from transformers import GenerationConfig

from mftrun.generation.base import Ending, TokenPrompt
from mftrun.generation.sampling import Sampling
from mftrun.generation.transformers_backend import TransformersBackend

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
LIVELY = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, top_k=50, num_samples=2, seed=5)
PENALISED = Sampling(max_new_tokens=12, temperature=0.0, repetition_penalty=1.5)
PROMPTS = [
    TokenPrompt([(7 * number + place) % 250 + 3 for place in range(length)], number)
    for number, length in enumerate([3, 17, 1, 9, 30, 9, 4])
]


@pytest.fixture
def ending(tokenizer):
    return Ending([tokenizer.eos_token_id], (), tokenizer.decode)


def backend(model, tokenizer, size=3):
    return TransformersBackend(copy.deepcopy(model), tokenizer.pad_token_id, size)


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY, PENALISED], ids=["greedy", "sampled", "penalised"])
def test_batched_is_one_by_one(model, tokenizer, ending, sampling):
    together = list(backend(model, tokenizer).generate(PROMPTS, sampling, ending))
    single = backend(model, tokenizer, size=1)
    alone = [answer for prompt in PROMPTS for answer in single.generate([prompt], sampling, ending)]
    assert [
        [ids[: len(own)] for ids, own in zip(a, b, strict=True)] for a, b in zip(together, alone, strict=True)
    ] == alone
    assert len({tuple(ids) for answer in alone for ids in answer}) > 4  # they do depend on their prompts


def test_greedy_is_the_likeliest_token_each_time(model, tokenizer, ending):
    ids = list(PROMPTS[1].ids)
    (((*found,),),) = backend(model, tokenizer).generate([PROMPTS[1]], GREEDY, ending)
    for _ in found:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert ids[17:] == found


def test_samples_differ_by_seed_number_and_sample(model, tokenizer, ending):
    def drawn(number, seed):
        sampling = Sampling(max_new_tokens=8, temperature=1.5, top_p=1.0, num_samples=2, seed=seed)
        (answers,) = backend(model, tokenizer).generate([TokenPrompt([9, 8], number)], sampling, ending)
        return answers

    first = drawn(0, 0)
    assert first == drawn(0, 0)
    assert len({tuple(ids) for ids in [*first, *drawn(1, 0), *drawn(0, 1)]}) == 6


def test_settings_that_came_with_the_model_do_not_act(model, tokenizer, ending):
    changed = copy.deepcopy(model)
    changed.generation_config = GenerationConfig(
        repetition_penalty=9.0, do_sample=True, temperature=3.0, max_new_tokens=2, bad_words_ids=[[5]]
    )
    expected = list(backend(model, tokenizer).generate(PROMPTS[:2], GREEDY, ending))
    assert list(backend(changed, tokenizer).generate(PROMPTS[:2], GREEDY, ending)) == expected


def test_answers_end_at_stop_tokens_texts_and_positions(model, tokenizer, ending):
    plain = backend(model, tokenizer)
    ((whole,),) = plain.generate([PROMPTS[3]], GREEDY, ending)
    assert len(whole) == 12
    ((stopped,),) = plain.generate([PROMPTS[3]], GREEDY, Ending([whole[4]], (), tokenizer.decode))
    assert stopped == whole[: whole.index(whole[4]) + 1]
    text = tokenizer.decode(whole[6:7])
    stop = Sampling(max_new_tokens=12, temperature=0.0, stop=(text,))
    ((stopped,),) = plain.generate([PROMPTS[3]], stop, Ending([], (text,), tokenizer.decode))
    assert len(stopped) <= 7
    assert whole[: len(stopped)] == stopped
    assert plain.positions == 64
    long = TokenPrompt([9] * 60, 0)
    ((short,), (other,)) = plain.generate([long, PROMPTS[3]], GREEDY, ending)
    assert other == whole
    assert len(short) == 12  # its row went on beside the other's; what is beyond its end is padding
    assert set(short[4:]) == {tokenizer.pad_token_id}


def test_streams_feed_all_tokens_and_stop_when_interrupted(model, tokenizer, ending):
    plain = backend(model, tokenizer)
    ((whole,),) = plain.generate([PROMPTS[4]], GREEDY, ending)
    fed = []
    assert plain.stream(PROMPTS[4], GREEDY, ending, lambda ids: fed.append(list(ids))) == whole
    assert fed == [whole[: n + 1] for n in range(12)]

    def interrupt(ids):
        if len(ids) == 3:
            raise KeyboardInterrupt

    assert plain.stream(PROMPTS[4], GREEDY, ending, interrupt) == whole[:3]
