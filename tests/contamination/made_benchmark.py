"""A small made-up benchmark, of the kind that is published."""

from dataclasses import dataclass

from mftrun.benchmarks.base import Problem, Prompt
from mftrun.contamination.passages import passages_of
from mftrun.contamination.samples import Place, SampleText
from mftrun.data.sample import Origin
from mftrun.languages.base import Program

HEAD = "import math\nimport random\nfrom typing import List, Tuple, Dict, Set, Any, Optional\n\n\n"
BODIES = {
    "weigh_apples": '''def weigh_apples(baskets: List[float], tare: float) -> float:
    """ Say what all apples weigh, given the gross weights of their baskets and the weight of one empty
    basket. A basket that weighs less than an empty one is broken and must be passed over.
    >>> weigh_apples([3.5, 0.2, 4.0], 0.5)
    6.5
    """
    # the sum of what is in whole baskets
    total = 0.0
    for gross in baskets:
        if gross >= tare:
            total = total + gross - tare
    return total
''',
    "longest_nap": '''def longest_nap(sleeps: List[Tuple[int, int]]) -> int:
    """ Return the length of the longest nap of a cat that falls asleep and wakes up at the given minutes.
    Naps with less than one quiet minute between them were really one nap.
    >>> longest_nap([(1, 4), (4, 9), (12, 14)])
    8
    """
    best, begin, end = 0, None, None
    for start, stop in sorted(sleeps):
        if end is None or start - end >= 1:
            begin = start
        end = stop if end is None else max(end, stop)
        best = max(best, end - begin)
    return best
''',
    "spell_backwards": '''def spell_backwards(sentence: str) -> str:
    """ Spell each word of the sentence backwards, but leave the words where they are; several blanks
    between two words stay as many as they were before.
    >>> spell_backwards("sit down")
    'tis nwod'
    """
    return " ".join(word[::-1] for word in sentence.split(" "))
''',
    "tiny": '''def tiny(x):
    """ Double it. """
    return x + x
''',
}
TESTS = {
    "weigh_apples": "assert weigh_apples([2.5, 3.5, 9.75], 0.75) == 13\nassert weigh_apples([], 1) < 1",
    "longest_nap": "assert longest_nap([(7, 19), (30, 31), (31, 55)]) == 25\nassert longest_nap([]) == 0",
    "spell_backwards": "assert spell_backwards('ab cd ef') == 'ba dc fe'\nassert spell_backwards('u') == 'u'",
    "tiny": "assert tiny(2) == 4",
}
CHECK = """

if __name__ == '__main__':
    for one in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        print(one, flush=True)
"""


@dataclass(frozen=True)
class Made:
    """Implements `Benchmark`, as far as texts are concerned."""

    name: str = "made"
    language: str = "python"
    stop: tuple = ()

    def problems(self, data=None):
        return [Problem(f"Made/{number}", {"name": name}) for number, name in enumerate(BODIES)]

    def prompt(self, problem):
        code = BODIES[problem.fields["name"]]
        doc = code.split('"""')[1]
        return Prompt(
            f"Write a Python function that solves this problem:\n{doc}", HEAD + code[: code.rindex('"""') + 3]
        )

    def postprocess(self, problem, answer):
        return self.prompt(problem).begun + answer

    def canonical(self, problem):
        return HEAD + BODIES[problem.fields["name"]]

    def assemble(self, problem, solution):
        return Program("python", f"{solution}\n{TESTS[problem.fields['name']]}{CHECK}", 3.0)

    def buggy(self, problem):
        return None


def passages(benchmark=None):
    """All texts of a made-up benchmark."""
    benchmark = benchmark or Made()
    return list(passages_of(benchmark, benchmark.problems()))


def sample(text, number=0, task="code"):
    """A sample that says this."""
    return SampleText(Place(task, "train", number, Origin("data.jsonl", number + 1)), text, 1)
