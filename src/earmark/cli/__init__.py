"""The command line: `earmark COMMAND ...`; results on stdout, progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

PASSED, FAILED, INCONCLUSIVE, UNUSABLE = 0, 1, 2, 3
"""Exit codes: all PASS, any FAIL, none FAIL but some INCONCLUSIVE, usage or prerequisite."""


def exit_code(outcomes: Collection[str]) -> int:
    """Return the exit code of some outcomes."""
    return FAILED if "FAIL" in outcomes else INCONCLUSIVE if "INCONCLUSIVE" in outcomes else PASSED


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one line on stderr, never a traceback.

    With EARMARK_DEBUG in the environment, an error that nobody expected is raised instead.

    Args:
        arguments: Words after `earmark`; those of the process by default.

    Returns:
        The exit code.
    """
    try:
        from earmark.cli.app import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("earmark: interrupted", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        if os.environ.get("EARMARK_DEBUG"):
            raise
        print(f"earmark: {_in_words(error)}", file=sys.stderr)
    return UNUSABLE  # 1 would say FAIL


def _in_words(error: Exception) -> str:
    """Return an error in one line; one that nobody expected asks to be reported."""
    from earmark.errors import EarmarkError
    from earmark.records.lines import plain

    words = plain(" ".join(str(error).split()))
    if isinstance(error, EarmarkError):
        return words
    return f"internal error: {type(error).__name__}: {words[:200]}; please report it (EARMARK_DEBUG=1 says where)"
