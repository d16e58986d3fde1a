"""Planted copies are found, in whatever dress; what is only alike is not."""

import re

import pytest
from made_benchmark import BODIES, CHECK, HEAD, TESTS, Made, passages, sample

from mftrun.contamination.detector import Detector

APPLES = BODIES["weigh_apples"]
DOC = APPLES.split('"""')[1]
BARE = re.sub(r'"{3}[^"]*"{3}|#.*', "", APPLES)
PROGRAM = """class Shop:
    def __init__(self, name):
        self.name = name

    def open(self):
        print(self.name)
"""
PEARS = """def weigh_pears(boxes):
    total = 0.0
    for box in boxes:
        total += box
    return total
"""


@pytest.fixture(scope="module")
def detector():
    return Detector(passages(), ngram=10, threshold=0.5)


def found(detector, *texts):
    """Problem and part of what each text holds, with the share."""
    hits = list(detector.hits([sample(text, number) for number, text in enumerate(texts)]))
    return {(hit.sample.number, hit.passage.problem, hit.passage.part): hit.share for hit in hits}


def test_a_copy_holds_all_of_prompt_and_solution(detector):
    assert found(detector, APPLES) == {(0, "Made/0", "prompt"): 1.0, (0, "Made/0", "solution"): 1.0}


@pytest.mark.parametrize(
    "text",
    [
        APPLES.replace("    ", "\t").replace("\n", "\r\n"),
        APPLES.upper(),
        BARE,
        BARE.replace("\n", "\n        # what comes next\n"),
        f"{PROGRAM * 9}\n{APPLES}\n{PROGRAM * 9}",
        f"<s>human\nHow do I do it?\n<s>bot\nLike this:\n```python\n{BARE}```\nGood luck!<|endoftext|>",
        BARE.replace("total = total + gross - tare", "total += gross - tare"),
    ],
    ids=["tabs", "upper case", "no comments", "other comments", "long file", "chat", "edited"],
)
def test_solutions_in_other_dress(detector, text):
    assert found(detector, text)[0, "Made/0", "solution"] > 0.5


@pytest.mark.parametrize(
    "text",
    [
        DOC,
        re.sub("^ *", "// ", DOC, flags=re.MULTILINE),
        f"/**\n{re.sub('^ *', ' * ', DOC, flags=re.MULTILINE)}\n */",
    ],
    ids=["bare", "Go", "Java"],
)
def test_prompts_in_other_dress(detector, text):
    assert set(found(detector, text)) == {(0, "Made/0", "prompt")}


def test_tests_alone(detector):
    assert set(found(detector, TESTS["longest_nap"])) == {(0, "Made/1", "tests")}


def test_a_part_is_told_by_its_share(detector):
    lines = BARE.splitlines(keepends=True)
    most, little = "".join(lines[:-2]), "".join(lines[:3])
    shares = found(detector, most)
    assert 0.5 < shares[0, "Made/0", "solution"] < 1
    assert found(detector, little) == {}
    assert found(Detector(passages(), 10, 0.1), little)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + PROGRAM,
        CHECK,
        "def tiny(x):\n    return x + x\n",
        PEARS,
        "Say what all pears weigh. The gross weights are given.",
        "",
    ],
    ids=["imports", "frame of tests", "too short", "alike", "few words", "nothing"],
)
def test_usual_code_is_no_copy(detector, text):
    assert found(detector, text) == {}


def test_texts_that_are_not_looked_for_are_named(detector):
    assert detector.too_short == [
        ("made", "Made/3", "prompt"),
        ("made", "Made/3", "solution"),
        ("made", "Made/3", "tests"),
    ]


def test_each_sample_has_its_own_hits(detector):
    texts = [PROGRAM, APPLES, "", BODIES["longest_nap"], PROGRAM]
    alone = [found(detector, text) for text in texts]
    together = found(detector, *texts)
    assert together == {(n, *key[1:]): share for n, one in enumerate(alone) for key, share in one.items()}
    assert {key[0] for key in together} == {1, 3}


def test_words_of_neighbours_make_no_ngram(detector):
    words = BARE.split()
    halves = [" ".join(words[begin : begin + 4]) for begin in range(0, len(words), 4)]
    assert found(detector, *halves) == {}


def test_benchmarks_with_the_same_problems_find_both():
    both = Detector([*passages(Made("one")), *passages(Made("two")), *passages(Made("three"))], 10, 0.5)
    hits = {hit.passage.benchmark for hit in both.hits([sample(BARE)])}
    assert hits == {"one", "two", "three"}


def test_the_piece_is_the_longest_common_one_as_it_was_written(detector):
    text = BARE.replace("0.0", "0.5").replace("tare:", "Tare:")
    (hit,) = detector.hits([sample(f"x = 1\n{text}")])
    assert hit.piece == "weigh_apples(baskets: List[float], Tare: float) -> float: total = 0."
    long = Detector(passages(), 10, 0.5)
    assert all(len(one.piece) <= 202 for one in long.hits([sample(APPLES * 3)]))


def test_a_repeated_ngram_counts_once(detector):
    lines = BARE[BARE.index("if gross") :]
    assert found(detector, lines * 50) == {}
    assert found(Detector(passages(), 10, 0.1), lines)
