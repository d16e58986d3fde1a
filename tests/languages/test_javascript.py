"""JavaScript programs: what passes, what fails, and what tries to pass."""

import pytest
from judging import judged, verdict

from mftrun.languages import javascript
from mftrun.languages.base import Missing, Verdict
from mftrun.languages.javascript import JavaScript, SilentJavaScript

JS = JavaScript()
TESTS = "const testPlus = () => {\n  console.assert(plus(1) === 2)\n}\n\ntestPlus()\n"
RIGHT = "const plus = (x) => {\n  return x + 1;\n}\n"
WRONG = "const plus = (x) => {\n  return x;\n}\n"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "console.log('hello'); process.stdout.write('no new line');\n",
        "const md5 = require('js-md5'); console.assert(md5('').length === 32);\n",
        "setTimeout(() => console.assert(plus(2) === 3), 1);\n",
        "if (require.main !== module || __filename !== process.argv[1]) throw new Error('x');\n",
    ],
)
def test_right_solutions_pass(before):
    assert verdict(JS, before + RIGHT + TESTS) is Verdict.PASSED


def test_a_program_may_assert_later_only():
    assert verdict(JS, "setTimeout(() => console.assert(true), 1)\n") is Verdict.PASSED


@pytest.mark.parametrize(
    "source",
    [
        WRONG + TESTS,
        "setTimeout(() => console.assert(false), 1)\n",
        "Promise.resolve().then(() => console.assert(false))\n",
        RIGHT + TESTS + "Promise.reject(new Error('later'))\n",
        "setTimeout(() => { throw new Error('later') }, 1)\n",
        "const plus = (x => {\n" + TESTS,
        "process.exit(1)\n",
    ],
)
def test_wrong_solutions_fail(source):
    assert verdict(JS, source) is Verdict.FAILED


def test_what_failed_is_told():
    assert judged(JS, WRONG + TESTS).log == "Assertion failed"


ATTACKS = {
    "exit": "process.exit(0)\n",
    "exit code": "process.exitCode = 0; process.on('exit', () => process.reallyExit(0))\n",
    "abort": "process.abort()\n",
    "kill": "process.kill(process.pid)\n",
    "exit when called": "process.nextTick(() => process.exit(0))\n",
    "fake verdict": "console.log('passed'); console.log('0'.repeat(32))\n",
    "assert": "console.assert(true); console.assert = () => {}\n",
    "define assert": (
        "console.assert(true); try { Object.defineProperty(console, 'assert', { value() {} }) } catch {}\n"
    ),
    "another console": "const console = { assert() {}, log() {} }\n",
    "global console": "console.assert(true); globalThis.console = { assert() {} }\n",
    "say that all is done": "process.emit('beforeExit', 0)\n",
    "call who listens": "for (const name of process.eventNames()) process.listeners(name).map((f) => f(0))\n",
    "swallow errors": "process.on('uncaughtException', () => {}); throw new Error('x')\n",
    "write to the harness's files": (
        "for (const name of ['/job/program.js', '/job/driver.js'])"
        " try { require('fs').writeFileSync(name, '') } catch {}\n"
    ),
    "return": "console.assert(true); return;\n",
    "main module": "require.main = null; process.mainModule = null; require.cache = {}\n",
}
LOOKS = {
    "stdin": "try { found.push(fs.readFileSync(0)) } catch {}\n",
    "pool": "found.push(Buffer.from(Buffer.from('a').buffer))\n",
    "proc": (
        "for (const pid of fs.readdirSync('/proc').filter(Number))"
        " for (const name of ['fd/0', 'fd/1', 'environ', 'cmdline'])"
        " try { found.push(fs.readFileSync(`/proc/${pid}/${name}`)) } catch {}\n"
    ),
    "callers": (
        "const up = function () { return up.caller };\n"
        "try { found.push(String(up()), ...up().arguments.map(String)) } catch {}\n"
    ),
    "cached modules": "found.push(JSON.stringify(Object.values(require.cache).map((one) => one.exports)))\n",
    "globals": "for (const key of Object.getOwnPropertyNames(globalThis)) found.push(`${globalThis[key]}`)\n",
    "heap": "found.push(fs.readFileSync(require('v8').writeHeapSnapshot('/tmp/heap')))\n",
}
DEBUGGED = """
found.push('');
const session = new Session();
session.connect();
session.on('Debugger.paused', ({ params }) => {
  for (const { callFrameId } of params.callFrames) {
    const asked = { callFrameId, expression: "typeof word === 'object' ? word.toString('latin1') : ''" };
    session.post('Debugger.evaluateOnCallFrame', asked, (_, said) => found.push(`${said.result.value}`));
  }
});
session.post('Debugger.enable');
debugger;
"""
LOOKS |= {
    "inspector": f"const {{ Session }} = require('inspector');{DEBUGGED}",
    "inspector by its other name": f"const {{ Session }} = require('node:inspector');{DEBUGGED}",
}
SAY = (
    "for (const one of found)"
    " for (const word of Buffer.from(one).toString('latin1').match(/\\b[0-9a-f]{32}\\b/g) ?? [])"
    " fs.writeSync(1, `\\n${word}\\n`);\nprocess.exit(0);\n"
)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_programs_that_end_or_lie_fail(attack):
    assert verdict(JS, attack + WRONG + TESTS) is Verdict.FAILED


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_word_is_not_found(look):
    assert verdict(JS, f"const fs = require('fs');\nconst found = [];\n{look}{SAY}") is Verdict.FAILED


@pytest.mark.parametrize(
    "way",
    [
        "require('inspector').open(0)",
        "process.binding('inspector')",
        "new (require('worker_threads').Worker)('', { eval: true })",
    ],
)
def test_no_way_leads_to_a_debugger(way):
    assert "not here" in judged(JS, f"{way};\n").log


def test_no_signal_starts_a_debugger():
    source = "setTimeout(() => console.assert(!require('inspector').url()), 50);\n"
    source += "process.kill(process.pid, 'SIGUSR1')\n"
    assert verdict(JS, source) is Verdict.PASSED


def test_endless_programs_are_ended():
    assert verdict(JS, "while (true) {}\n", seconds=1) is Verdict.TIMEOUT
    assert verdict(JS, "setInterval(() => {}, 1000)\n", seconds=1) is Verdict.TIMEOUT


def test_memory_and_output_have_an_end():
    lists = "const all = [];\nwhile (true) all.push(new Array(1e6).fill(1.5));\n"
    assert verdict(JS, lists, memory_gb=0.25) is Verdict.MEMORY
    assert verdict(JS, "while (true) console.log('x'.repeat(9999));\n") is Verdict.OUTPUT_LIMIT


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RIGHT + TESTS, Verdict.PASSED),
        (WRONG + TESTS, Verdict.FAILED),
        ("console.log('hello')\n" + RIGHT + TESTS, Verdict.FAILED),
        ("process.exit(1)\n", Verdict.PASSED),
        ("while (true) {}\n", Verdict.TIMEOUT),
    ],
)
def test_upstream_takes_silence_for_success(source, expected):
    assert verdict(SilentJavaScript(), source, seconds=1 if "while" in source else 20) is expected


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    no_package = JavaScript(modules=tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert no_package.missing() == Missing("js-md5", "npm install -g js-md5")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert no_package.missing() == Missing("node", "apt-get install nodejs npm")


def test_the_package_is_looked_for_where_node_path_says(monkeypatch, tmp_path):
    (tmp_path / "here/js-md5").mkdir(parents=True)
    monkeypatch.setenv("NODE_PATH", f"{tmp_path / 'nowhere'}:{tmp_path / 'here'}")
    assert (
        next(folder for folder in javascript._places(tmp_path) if (folder / "js-md5").is_dir())
        == tmp_path / "here"
    )
    assert JavaScript()._modules == tmp_path / "here"
