"""How a command ends: exit codes, error sentences, and the JSON form of both.

0 done; 1 a check failed; 2 the user's mistake; 3 a defect of wellfit; 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from wellfit.errors import Interrupted, UserError
from wellfit.findings import GateFailed


def run(command: click.Command) -> None:
    """Invoke the command with sys.argv and leave with the right code and one clear sentence."""
    as_json = "--json" in sys.argv[1:]
    try:
        result = command.main(prog_name="wellfit", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        code = fail("interrupted", "stopped by Ctrl-C", 130, as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except click.UsageError as error:
        hint = f"; see `{error.ctx.command_path} --help`" if error.ctx is not None else ""
        code = fail("usage", f"{error.format_message().rstrip('.')}{hint}", 2, as_json)
    except UserError as error:
        code = fail("user", str(error), error.exit_code, as_json)
    except GateFailed as error:
        code = fail(
            "gate",
            "a check failed, so the run stopped; --force goes on all the same",
            error.exit_code,
            as_json,
            findings=[finding.as_dict() for finding in error.findings],
        )
        for finding in error.findings:
            click.echo(f"  {finding}", err=True)
    except (Interrupted, KeyboardInterrupt) as error:
        code = fail("interrupted", str(error) or "stopped by Ctrl-C", 130, as_json)
    except BrokenPipeError:
        # The reader of our output left (`wellfit runs | head`): nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            code = fail("user", f"nothing more can be written ({error.strerror}); make room and try again", 2, as_json)
        elif error.filename is None or isinstance(error, ConnectionError):
            code = internal(error, as_json)
        else:
            code = fail(
                "user",
                f"'{error.filename}': {error.strerror}; check the path, its permissions and the space left",
                2,
                as_json,
            )
    except Exception as error:
        code = internal(error, as_json)
    sys.stdout.flush()
    sys.exit(code)


def fail(kind: str, message: str, code: int, as_json: bool, **more: Any) -> int:
    """Say what went wrong on stderr, with --json also as one object on stdout."""
    click.echo(f"wellfit: {message}", err=True)
    if as_json:
        print_json({"error": {"kind": kind, "message": message, **more}})
    return code


def internal(error: Exception, as_json: bool) -> int:
    """A defect of ours: the traceback goes to a file, the sentence says where."""
    path = Path.cwd() / "wellfit-defect.txt"
    text = "".join(traceback.format_exception(error))
    try:
        path.write_text(text, encoding="utf-8")
        where = f"the details are in {path}"
    except OSError:
        click.echo(text, err=True)
        where = "the details stand above"
    return fail(
        "internal",
        f"this is a defect of wellfit, not a mistake of yours ({type(error).__name__}: {error}); {where}",
        3,
        as_json,
    )


def print_json(values: dict[str, Any]) -> None:
    """One object on one line, with its schema; the last line of stdout."""
    click.echo(json.dumps({"schema": 1, **values}, ensure_ascii=False, default=str))
