"""`resrt.completion`: the completion of commands, options and names of networks in a shell."""

from __future__ import annotations

from resrt._support.extras import requires_extra
from resrt.errors import InputError

SHELLS = ("bash", "zsh", "fish")


def completion(shell: str) -> str:
    """Return the script that makes a shell complete the `resrt` command.

    Args:
        shell: "bash", "zsh" or "fish".

    Raises InputError for another shell, and PackageError if argcomplete is not installed.
    """
    if shell not in SHELLS:
        raise InputError(f"shell must be one of {', '.join(SHELLS)}, not {shell!r}")
    with requires_extra("completion", "completing commands"):
        from argcomplete.shell_integration import shellcode
    script: str = shellcode(["resrt"], shell=shell)
    return script
