"""Processes that Ctrl-C ends, also where the tests run in the background.

A shell starts a background job (`nohup make test &`) with SIGINT ignored. A child inherits that, and Python then never
raises KeyboardInterrupt.
"""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Start a program that takes SIGINT as it does in a terminal; options of Popen, and text in its pipes."""
    return subprocess.Popen(command, text=True, preexec_fn=_take_interrupts, **options)


def _take_interrupts() -> None:
    """Run between fork and exec: Python itself then installs its handler."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
