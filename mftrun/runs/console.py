"""What is printed of runs: tables and lines, whatever their names and files hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def show(console: Console, tables: Iterable[Table], lines: Iterable[str]) -> None:
    """Prints them; a character that the terminal does not have becomes a question mark.

    Args:
        console: Where to.
        tables: Come first.
        lines: Come below, each whole, however long it is.
    """
    with console.capture() as captured:
        for table in tables:
            console.print(table)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    text = captured.get().encode(console.encoding, "replace").decode(console.encoding)
    console.file.write(text)
    console.file.flush()
