import pytest

from mftrun.tracking import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (999.7, "1k"),
        (12345.6, "12.3k"),
        (4_560_000, "4.56M"),
        (7e9, "7G"),
        (2e12, "2T"),
    ],
)
def test_short_count(value, shown):
    assert text.short_count(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (7620, "2h07m"),
        (273_600, "3d04h"),
    ],
)
def test_duration(seconds, shown):
    assert text.duration(seconds) == shown


def test_losses_and_counts():
    assert [text.loss(value) for value in (None, 1.23456, 0.0, 12345.0)] == [
        "-",
        "1.2346",
        "0.0000",
        "1.23e+04",
    ]
    assert [text.count(value) for value in (0, 1_234_567, 98_765_432)] == ["0", "1,234,567", "98.8M"]
    assert [text.step(value) for value in (None, 0, 7)] == ["", "0", "7"]


def test_short_names_keep_both_ends_and_never_collide():
    assert text.short_name("short", 5) == "short"
    assert text.short_name("a_long_task_name", 10) == "a_lo..name"
    names = [f"prefix_{number:03d}_suffix_of_a_task" for number in range(12)]
    short = text.short_names(names, 12)
    assert list(short) == names
    assert len(set(short.values())) == 12
    assert all(len(form) <= 12 for form in short.values())
