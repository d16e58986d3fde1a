"""The first module that the fork server imports: it keeps the libraries that follow from talking."""

from mftrun.launch.logs import silence_imports

silence_imports()
