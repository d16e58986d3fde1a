package main

import (
	"flag"
	"os"
	"testing"
	"testing/internal/testdeps"
	word "@WORD@"

	program "program"
)

// passed counts the tests that came to their end: one that was skipped or left out is none.
var passed int

func counted(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		test(t)
		if !t.Failed() {
			passed++
		}
	}
}

func main() {
	tests := []testing.InternalTest{
@TESTS@
	}
	testing.Init()
	flag.CommandLine.Parse(nil)
	code := testing.MainStart(testdeps.TestDeps{}, tests, nil, nil, nil).Run()
	if code == 0 && passed == len(tests) && passed > 0 {
		word.Say()
		os.Exit(0)
	}
	os.Exit(1)
}
