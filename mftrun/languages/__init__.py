"""Six languages: what a program needs to be compiled and run, and how it tells that its tests were passed."""
