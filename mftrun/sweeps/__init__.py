"""Many runs from one command: their folder, which of them are done, and how the sweep ends."""
