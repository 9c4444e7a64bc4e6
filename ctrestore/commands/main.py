"""The console scripts ``ctrestore`` and ``petpvc``.

One function a sub-command: it adds the parser and names the function that runs. Heavy imports (torch, monai, the
phantoms) go inside the function that runs, so that ``--help`` and typing errors answer at once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ctrestore import __version__
from ctrestore.commands.data_list import add_data_list
from ctrestore.commands.demo import add_demo
from ctrestore.commands.denoise import add_denoise
from ctrestore.commands.phantoms import add_phantoms
from ctrestore.commands.pvc import add_pvc, petpvc_arguments
from ctrestore.commands.release_weights import add_release_weights
from ctrestore.commands.simulate_dose import add_simulate_dose
from ctrestore.commands.upscale import add_upscale
from ctrestore.errors import ScansFailed


class _Parser(argparse.ArgumentParser):
    """Argument parser whose errors look like all others: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[0]}: error: {message} (see `{self.prog} --help`)\n")


COMMANDS = (
    add_data_list,
    add_phantoms,
    add_demo,
    add_pvc,
    add_simulate_dose,
    add_denoise,
    add_upscale,
    add_release_weights,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 where scans failed, 2 after an error that was printed in one line."""
    parser = _Parser(prog="ctrestore", description="Give back what a medical scan lost.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add_command in COMMANDS:
        add_command(commands)
    return _run(parser, argv)


def petpvc(argv: Sequence[str] | None = None) -> int:
    """``ctrestore pvc`` in the place of UCL PETPVC: its arguments, kernel and text tables, and the same exit status."""
    parser = _Parser(prog="petpvc", description="ctrestore in the place of UCL PETPVC: the same arguments.")
    petpvc_arguments(parser)
    return _run(parser, argv)


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    parser.add_argument("--version", action="version", version=f"{parser.prog} {__version__}")
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    args.command_line = shlex.join([parser.prog, *argv])
    try:
        args.run(args)
    except ScansFailed as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return error.exit_status
    except (ValueError, OSError, MemoryError) as error:
        if getattr(args, "debug", False):
            traceback.print_exc()
        reason = str(error) or "out of memory"
        print(f"{parser.prog}: error: {' '.join(reason.split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":  # python -m ctrestore.commands.main, where no script is installed
    sys.exit(main())
