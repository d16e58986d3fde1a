package main

// A program that gives these a meaning of its own does not compile.
const (
	true  = 1 == 1
	false = 1 != 1
)
