"""What a case is, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

OK, WRONG, DISPUTED, SKIPPED, INFO = "OK", "WRONG", "DISPUTED", "skipped", "info"


@dataclass(frozen=True)
class Case:
    """One program under one set of circumstances."""

    name: str
    """As in the table and in --only."""
    program: str
    """A built program (build.py), `python/NAME.py`, or `bin/NAME` for a prebuilt one."""
    check: Callable
    """(box, case) -> Row"""
    environment: dict = field(default_factory=dict)
    arguments: tuple = ()
    exit_by: str = "return"
    """How the program ends: `return` from main, or `_exit`."""
    oracle: str = ""
    """compute-sanitizer: `compare` (device memory, and arrays by count), `device` (without arrays),
    `show` (known to differ), or empty (not asked)."""
    driver: bool = False
    """Needs the driver API only, so it runs on a simulated driver too."""
    alone: bool = False
    """Measures something that other programs would disturb."""
    limit: int = 60
    """Seconds for each run of the program."""
    history_lost: bool = False
    """The ring is meant to be too small."""


@dataclass
class Row:
    """One line of the table."""

    case: str
    truth: str = "-"
    ours: str = "-"
    oracle: str = "-"
    verdict: str = OK
    notes: list = field(default_factory=list)
    seconds: float = 0.0
    data: dict = field(default_factory=dict)
    """For results.json only."""

    def wrong(self, note):
        """Something does not agree."""
        self.verdict = WRONG
        self.notes.append(note)

    @property
    def passed(self):
        return self.verdict in (OK, SKIPPED, INFO)
