"""The command line: the parser, and what becomes of an error.

The user's mistakes (ValueError, OSError) become one line on stderr and exit status 2; anything else is our mistake and
keeps its traceback. Set SPIKEVRT_TRACEBACK=1 to see the traceback of every error.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import platform
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from spikevrt import __version__
from spikevrt.verbs import HELP_LAYOUT, capturing, restoring, spelled, training

TCACHE = "glibc.malloc.tcache_count"
USER_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


class _Parser(argparse.ArgumentParser):
    """argparse with our error line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            verb = getattr(parsed, "parser", self)
            near = difflib.get_close_matches(unknown[0].split("=")[0], verb._option_string_actions, n=1)
            verb.error(f"unknown argument {unknown[0]}" + (f"; did you mean {near[0]}?" if near else ""))
        return parsed


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb. Loads nothing heavy."""
    parser = _Parser(
        prog="spikevrt",
        description="Restore sharp colour video from a blurry colour camera and a spike camera.",
        epilog="The verbs stand in the order of the data flow. `spikevrt VERB --help` shows one.",
        allow_abbrev=False,
        formatter_class=HELP_LAYOUT,
    )
    parser.add_argument("--version", action="version", version=f"spikevrt {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    capturing.add(verbs)  # in the order of the data flow
    training.add(verbs)
    restoring.add_restore(verbs)
    training.add_scores(verbs)
    restoring.add_export(verbs)
    restoring.add_demo(verbs)
    restoring.add_app(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 or the verb's own, 2 after a user's mistake, 130 when interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    parser = build_parser()
    try:
        parsed = parser.parse_args(arguments)
        parser = parsed.parser
        if arguments is None and parsed.computes:
            restart_with_tuned_allocator()
        status: int | None = parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("spikevrt: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `spikevrt inspect x | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError) as error:
        if os.environ.get("SPIKEVRT_TRACEBACK"):
            raise
        typed = sys.argv[1:] if arguments is None else arguments
        print(f"spikevrt: {spelled(_one_line(error), parser, typed)}", file=sys.stderr)
        return USER_ERROR
    return status or 0


def restart_with_tuned_allocator() -> None:
    """Start this command anew with the setting of glibc's allocator that is read only when a process starts.

    `runtime.tune_allocator` does the rest and says why. Not on another C library, and not where the user has set it.
    """
    settings = os.environ.get("GLIBC_TUNABLES", "")
    if TCACHE in settings or platform.libc_ver()[0] != "glibc":
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (settings, f"{TCACHE}=0")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return " ".join(f"{error.filename}: {error.strerror}".split())
    return " ".join(str(error).split())
