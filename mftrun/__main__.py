"""`python -m mftrun`."""

from mftrun.cli import main

if __name__ == "__main__":
    main()
