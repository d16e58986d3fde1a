"""What counts as a word, and what is passed over."""

import pytest

from mftrun.contamination.views import CODE, PROSE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Total_1 += x[0]", ["total_1", "+", "=", "x", "[", "0", "]"]),
        ("  a\r\n\tb", ["a", "b"]),
        ("größer Ω", ["größer", "ω"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("view", [PROSE, CODE])
def test_words(view, text, words):
    assert view.words(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "add two numbers\n>> > 3",
        "# add two numbers\n# >> > 3",
        "    // add two numbers\n    // >> > 3",
        "/** add two numbers\n * >> > 3\n */",
        '"""add two numbers\n>> > 3"""',
    ],
)
def test_marks_of_comments_are_no_prose(text):
    assert PROSE.words(text) == ["add", "two", "numbers", ">", ">", ">", "3"]


@pytest.mark.parametrize(
    "text",
    [
        'def f(a):\n    """ Doc. """\n    return a  # that is all\n',
        "def f(a): // a comment\n/* one\n * more\n */ return a",
        "def f(a):\n    '''\n    Doc.\n    '''\n    return a",
    ],
)
def test_comments_are_no_code(text):
    assert CODE.words(text) == ["def", "f", "(", "a", ")", ":", "return", "a"]


def test_a_comment_that_never_ends_is_code():
    assert CODE.words("a /* b") == ["a", "/", "*", "b"]


@pytest.mark.parametrize(
    ("length", "words"), [(1_000, ["a"]), (9_000, ["a", "/", "*", "x" * 9_000, "*", "/"])]
)
def test_the_end_of_a_comment_is_looked_for_nearby(length, words):
    assert CODE.words(f"a /*{'x' * length}*/") == words


def test_pieces_are_as_they_were_written():
    assert CODE.piece("Alpha = Beta(\n    GAMMA)  # note", 2, 5) == "Beta( GAMMA)"
    assert PROSE.piece("Grüße an ALLE", 1, 2) == "an ALLE"


def test_letters_that_grow_in_lower_case_move_no_piece():
    assert PROSE.piece("\u0130\u0130 an alle Leute", 3, 6).endswith("leute")
