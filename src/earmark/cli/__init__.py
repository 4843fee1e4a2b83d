"""The command line: `earmark COMMAND ...`; results on stdout, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Collection

PASSED, FAILED, INCONCLUSIVE, UNUSABLE = 0, 1, 2, 3
"""Exit codes: all PASS, any FAIL, none FAIL but some INCONCLUSIVE, usage or prerequisite."""


def exit_code(outcomes: Collection[str]) -> int:
    """Return the exit code of some outcomes."""
    return FAILED if "FAIL" in outcomes else INCONCLUSIVE if "INCONCLUSIVE" in outcomes else PASSED


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; an expected error is one line on stderr, never a traceback.

    Args:
        arguments: Words after `earmark`; those of the process by default.

    Returns:
        The exit code.
    """
    from earmark.cli.app import run
    from earmark.errors import EarmarkError

    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except EarmarkError as error:
        print(f"earmark: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("earmark: interrupted", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:
        sys.stderr.close()
        return UNUSABLE
