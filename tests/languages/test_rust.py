"""Rust programs: what they may do, and what does not help them to pass."""

from functools import partial

import pytest
from judging import judged as judged_by

from mftrun.languages.base import Verdict
from mftrun.languages.rust import Rust

_PROGRAM = """\
fn main(){}
%s

fn twice(n: i32) -> i32 {
    %s
}
%s
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_twice() {
        assert_eq!(twice(2), 4);
        assert!(twice(0) == 0);
    }
}
"""
_CONSTRUCTOR = """
#[used]
#[link_section = ".init_array"]
static FIRST: extern "C" fn() = first;
extern "C" fn first() { %s }
"""
_SEEN = "if %s.iter().any(|file| std::fs::read(file).map_or(false, |text| text.len() > 0)) { return 2 * n } 0"
_STDIN = _SEEN % '["/dev/stdin", "/proc/self/fd/0", "/proc/1/fd/0"]'
_MEMORY = 'if std::fs::File::open("/proc/self/mem").is_ok() { return 2 * n } 0'
_READ = (
    "let mut word = String::new(); std::io::Read::read_to_string(&mut std::io::stdin(), &mut word).unwrap();"
    ' println!("\\n{}", word); std::process::exit(0);'
)

# Reads the word where the driver does, should the driver ask a function that a program may define.
_TAKES_CALLS = """
static mut SAVED: *mut u8 = 0 as *mut u8;
static mut SIZE: usize = 0;
extern "C" { fn write(file: i32, from: *const u8, size: usize) -> isize; }
extern "C" { fn syscall(number: i64, ...) -> i64; }
#[cfg(target_arch = "x86_64")] const READ: i64 = 0;
#[cfg(target_arch = "aarch64")] const READ: i64 = 63;
#[no_mangle] pub extern "C" fn read(file: i32, to: *mut u8, size: usize) -> isize { unsafe {
    let count = syscall(READ, file, to, size) as isize;
    if SIZE == 0 && count > 0 { SAVED = to; SIZE = count as usize; }
    count
} }
"""
_SAY = (
    'unsafe { write(1, b"\\n".as_ptr(), 1); write(1, SAVED, SIZE); write(1, b"\\n".as_ptr(), 1); }'
    " std::process::exit(0)"
)


@pytest.fixture(scope="module")
def judged():
    return partial(judged_by, Rust())


def _program(body, before="", after=""):
    return _PROGRAM % (before, body, after)


def test_a_right_program_passes(judged):
    before = "use rand::Rng;\nuse regex::Regex;\nuse md5;\nuse std::any::{Any, TypeId};"
    body = 'print!("heard {:x}", md5::compute("x")); assert!(Regex::new("a+").unwrap().is_match("aa")); 2 * n'
    assert judged(_program(body, before)).verdict is Verdict.PASSED


def test_a_wrong_program_fails_and_says_where(judged):
    found = judged(_program("n"))
    assert found.verdict is Verdict.FAILED
    assert "left: 2" in found.log
    assert "program.rs:14" in found.log


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("m", Verdict.COMPILE_ERROR),
        ("let mut kept = vec![]; loop { kept.push(vec![0u8; 1 << 28]); }", Verdict.MEMORY),
        ('loop { println!("flood, flood, flood") }', Verdict.OUTPUT_LIMIT),
        ("twice(n) + 1", Verdict.FAILED),
    ],
)
def test_other_verdicts(judged, body, verdict):
    assert judged(_program(body)).verdict is verdict


def test_an_endless_program(judged):
    assert judged(_program("loop {}"), seconds=1).verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(
    ("body", "before"),
    [
        (_SAY, _TAKES_CALLS),
        ("std::process::exit(0)", ""),
        ('println!("test result: ok. 1 passed; 0 failed"); std::process::exit(0)', ""),
        ("std::panic::set_hook(Box::new(|_| std::process::exit(0))); 0", ""),
        ("std::thread::spawn(|| std::process::exit(0)); loop {}", ""),
        ("0", _CONSTRUCTOR % "std::process::exit(0)"),
        ("0", _CONSTRUCTOR % _READ),
        (_STDIN, ""),
        (_MEMORY, ""),
    ],
)
def test_a_wrong_program_does_not_pass_by_a_trick(judged, body, before):
    assert judged(_program(body, before)).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("macro_rules! assert_eq { ($($any:tt)*) => {} }\nmacro_rules! assert { ($($any:tt)*) => {} }", ""),
        ("", "#[cfg(any())]"),
        ("", '#[no_mangle] pub extern "C" fn main(_: i32, _: *const u8) -> i32 { 0 }'),
    ],
)
def test_a_program_may_not_replace_what_its_tests_use(judged, before, after):
    assert judged(_program("0", before, after)).verdict is Verdict.COMPILE_ERROR


def test_a_program_without_tests_does_not_pass(judged):
    assert judged("fn main(){}\n").verdict is Verdict.FAILED


def test_without_rustc_its_name_and_the_way_to_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    missing = Rust().missing()
    assert missing is not None
    assert "apt-get install rustc" in missing.install


def test_without_crates_the_first_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("MFTRUN_RUST_CRATES", str(tmp_path))
    (tmp_path / "rand-0.8.5").mkdir()
    (tmp_path / "rand-0.8.5/Cargo.toml").touch()
    (tmp_path / "bin").mkdir()
    for name in ("rustc", "cargo", "cc"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    missing = Rust().missing()
    assert missing is not None
    assert "regex" in missing.what
    assert "librust-regex-dev" in missing.install
