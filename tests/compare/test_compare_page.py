"""The page: whole, self-contained, small, and its script does what its controls say."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folders import done, evaluation, settings, training, write_run

from mftrun.compare.comparison import Comparison
from mftrun.compare.curves import curve_data, thinned
from mftrun.compare.write import write
from mftrun.runs import find_runs

EVIL = "</script><script>alert(1)</script>&amp;'\"$title"
VOID = {"meta", "input", "br", "wbr"}


class Page(HTMLParser):
    """What a browser would see: elements that close, and texts by element."""

    def __init__(self, source):
        super().__init__()
        self.is_data = False
        self.open, self.tags, self.attributes, self.cells = [], [], [], []
        self.data = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.is_data = ("id", "data") in attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.is_data = False

    def handle_data(self, data):
        if self.is_data:
            self.data += data
        elif "td" in self.open:
            self.cells.append(data)


def write_page(folder):
    comparison = Comparison.of(find_runs(str(folder)))
    write(comparison, folder / "compare.html")
    return (folder / "compare.html").read_text()


@pytest.fixture
def sweep(tmp_path):
    for number, (name, slow) in enumerate({"0_slow": 1.0, "1_fast": 0.5, "2_none": 0.0}.items()):
        evaluations = [evaluation(step, a=8 - slow * step / 10, b=4.0) for step in range(0, 60, 10)]
        trained = [
            training(step, {"a": step / 60 if number else 1.0, "b": 1.0}, a=5.0, b=4.0)
            for step in range(2, 60, 2)
        ]
        records = sorted([*evaluations, *trained], key=lambda record: record["step"])
        write_run(tmp_path / name, settings(seed=number), records, done())
    (tmp_path / "multirun.yaml").touch()
    return tmp_path


def test_whole_and_in_need_of_nothing_else(sweep):
    source = write_page(sweep)
    page = Page(source)
    assert source.startswith("<!doctype html>")
    assert page.tags.count("table") == 2
    assert not [value for key, value in page.attributes if key in ("src", "href")]
    assert re.findall(r"https?://[^\"\s]+", source) == ["http://www.w3.org/2000/svg"]  # a name, no address
    assert "url(" not in source
    assert [run["label"] for run in json.loads(page.data)["runs"]] == ["0_slow", "1_fast", "2_none"]


def test_text_of_any_kind_stays_text(tmp_path):
    run = write_run(tmp_path / "run", settings(), [evaluation(1, **{EVIL: 2.0})])
    (run / "failure.json").write_text(json.dumps({"message": EVIL}))
    other = write_run(tmp_path / "&lt;i&gt;", settings(name=EVIL), [evaluation(1, a=1.0)])
    assert other.exists()
    page = Page(write_page(tmp_path))
    assert page.tags.count("script") == 2
    assert json.loads(page.data)["tasks"] == ["a", EVIL]
    assert EVIL in page.cells
    assert "&lt;i&gt;" in page.cells


def test_a_comparison_without_any_numbers_is_a_page(tmp_path):
    (tmp_path / "0_empty").mkdir()
    (tmp_path / "multirun.yaml").touch()
    assert json.loads(Page(write_page(tmp_path)).data) == {
        "tasks": [],
        "runs": [{"label": "0_empty", "settings": {}}],
    }


def test_weights_are_there_where_they_change(sweep):
    first, second, _ = curve_data(Comparison.of(find_runs(str(sweep))))
    assert "weight" not in first
    assert second["weight"]["tasks"]["b"] == [1.0] * 29


def test_thinned_curves_keep_ends_and_minima():
    rows = [(step, {"a": 1 + step / 1000, "b": float(step != 777)}) for step in range(2000)]
    rows[3] = (3, {"a": 0.5})
    kept = dict(thinned(rows, 50))
    assert len(kept) <= 52
    assert {0, 3, 777, 1999} <= kept.keys()
    assert thinned(rows[:50], 50) == rows[:50]


def test_a_hundred_runs_of_five_tasks_stay_small(tmp_path, monkeypatch):
    tasks = [f"task_number_{number}" for number in range(5)]
    records = []
    for step in range(1, 1001):
        losses = dict.fromkeys(tasks, 3.123456 + step * 7919 % 1000 / 1013)
        records += [
            training(step, dict.fromkeys(tasks, step / 1013), **losses),
            evaluation(step, **losses),
        ]
    write_run(tmp_path / "0", settings(), records, done())
    one = find_runs(str(tmp_path))[0]
    comparison = Comparison.of([one] * 100)
    write(comparison, tmp_path / "compare.html")
    size = (tmp_path / "compare.html").stat().st_size
    assert 1_000_000 < size < 5_000_000


# The page's script runs in it.
node = pytest.mark.skipif(
    shutil.which("node") is None, reason="node, which runs the page's script, is not installed"
)


def browse(page, program):
    """What a program finds after the page's script has run; `byId` and `tables` are the page's."""
    helper = Path(__file__).with_name("dom.js")
    command = ["node", str(helper), str(page), program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


COUNT = "const count = (id) => byId[id].all('svg').map((svg) => svg.all('path').length);"


@node
def test_curves_are_drawn_hidden_and_shown(sweep):
    write_page(sweep)
    program = (
        COUNT
        + """
        const found = { first: count("charts"), weights: count("weights") };
        byId.controls.train.checked = true; byId.controls.fire("change");
        found.training = count("charts");
        const one = byId.legend.children[1];
        one.fire("click");
        found.hidden = [count("charts"), count("weights"), one.getAttribute("aria-pressed")];
        byId.controls.elements.none.fire("click");
        found.none = count("charts");
        byId.legend.children[2].fire("dblclick");
        found.only = count("charts");
        byId.controls.elements.all.fire("click");
        found.all = count("charts");
        return found;"""
    )
    assert browse(sweep / "compare.html", program) == {
        "first": [3, 3, 3],
        "weights": [2, 2],
        "training": [6, 6, 6],
        "hidden": [[4, 4, 4], [1, 1], "false"],
        "none": [0, 0, 0],
        "only": [2, 2, 2],
        "all": [6, 6, 6],
    }


@node
@pytest.mark.parametrize(
    ("last", "first", "points"),
    [(50, 40.0, 5), (50, 4.2, 6), (0, 40.0, 6)],
    ids=["high at first", "much the same", "one run ended early"],
)
def test_the_first_fifth_is_left_out_where_it_hides_the_rest(tmp_path, last, first, points):
    for name, end in (("0_long", 50), ("1_other", last)):
        losses = [first if step < 10 else 4 - step / 100 for step in range(0, end + 1, 10)]
        records = [evaluation(10 * number, a=loss) for number, loss in enumerate(losses)]
        write_run(tmp_path / name, settings(name=name), records)
    write_page(tmp_path)
    program = """
        const path = byId.charts.all("path")[0].getAttribute("d");
        return [byId.controls.late.checked, path.split("L").length];"""
    assert browse(tmp_path / "compare.html", program) == [points < 6, points]


@node
def test_scales_headings_and_the_pointer(sweep):
    write_page(sweep)
    program = """
        const shape = () => byId.charts.all("path")[3].getAttribute("d");
        const order = () => tables[0].tBodies[0].rows.map((row) => row.dataset.run);
        const sort = (column) => tables[0].tHead.rows[0].cells[column].firstElementChild.fire("click");
        const found = { linear: shape() };
        byId.controls.logy.checked = true; byId.controls.fire("change");
        found.log = shape();
        byId.controls.late.checked = true; byId.controls.fire("change");
        found.late = shape();
        sort(3); found.up = order();
        sort(3); found.down = order();
        const chart = byId.charts.all("svg")[1];
        chart.fire("pointermove", { clientX: 449, clientY: 280 });
        found.tip = byId.tip.children.map((line) => line.children.at(-1));
        found.near = chart.all("path").map((path) => path.classList.has("near"));
        chart.fire("pointerleave");
        found.left = byId.tip.hidden;
        const look = (one) => one.attributes.stroke + one.attributes["stroke-dasharray"];
        found.styles = byId.legend.all("line").map(look);
        return found;"""
    found = browse(sweep / "compare.html", program)
    assert found["linear"].count("L") == found["log"].count("L") == 5
    assert found["linear"] != found["log"]
    assert found["late"].count("L") == 3
    assert found["up"] == ["0", "1", "2"]
    assert found["down"] == ["2", "1", "0"]
    assert found["tip"] == ["3 · step 50 · 0_slow", "5.5 · step 50 · 1_fast", "8 · step 50 · 2_none"]
    assert found["near"] == [True, False, False]
    assert found["left"] is True
    assert len(set(found["styles"])) == 3
