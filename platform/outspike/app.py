"""What every job shares: recipes and overrides from the command line, logging, exit codes.

A job script is three lines: choose a config, call one function, hand the result to
:func:`run_job`. Errors raised on purpose become one line; anything else keeps its traceback.
"""

import difflib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from outspike.errors import ConfigError, OutspikeError

logger = logging.getLogger(__name__)

DONE = 0
FAILED = 1
BAD_USAGE = 2
QUARANTINED = 3
"""Exit code of a job that finished, with more bad inputs than ``max_bad_share`` allows."""
REFUSED = 4
"""Exit code of a promotion that the gate refused; the model stays registered."""
INTERRUPTED = 130

_EXIT_CODES_HELP = (
    "exit codes: 0 done, 1 failed, 2 bad usage, 3 done with quarantined inputs past the limit, "
    "4 promotion refused"
)

C = TypeVar("C")


def choose_config(
    recipes: Mapping[str, Callable[[], C]],
    *,
    default: str,
    prog: str,
    description: str,
    arguments: Sequence[str] | None = None,
) -> C:
    """Resolve ``RECIPE --dotted.overrides`` into a config.

    Args:
        recipes: Recipe name to a function that returns the whole config; the first sentence of
            its docstring is its line in ``--help``.
        default: Recipe used when the command line names none.
        prog: How the job is called, for the usage lines.
        description: What the job does and an example or two, shown by ``--help``.
        arguments: Command line without the program; None reads ``sys.argv``.

    Bad usage prints what was wrong and what was meant, and exits with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, default)
    if not given[0].startswith("-") and given[0] not in recipes:
        _refuse_recipe(given[0], recipes, prog)
    return tyro.extras.overridable_config_cli(
        {name: (_first_sentence(recipe), recipe()) for name, recipe in recipes.items()},
        prog=prog,
        description=(
            f"{description}\n\nusage: {prog} [RECIPE] [--dotted.overrides ...]; without a recipe, "
            f"{default}. Options of a recipe: {prog} RECIPE --help\n\n{_EXIT_CODES_HELP}"
        ),
        args=given,
    )


def _refuse_recipe(name: str, recipes: Iterable[str], prog: str) -> NoReturn:
    near = difflib.get_close_matches(name, recipes, n=3)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    print(f"{prog}: no recipe {name!r}.{meant} There are {', '.join(recipes)}.", file=sys.stderr)
    sys.exit(BAD_USAGE)


def run_job(main: Callable[[], int | None]) -> NoReturn:
    """Run a job and leave the process with the exit code that says how it went.

    ``main`` returns None or an exit code. A :class:`~outspike.errors.ConfigError` exits with 2,
    any other error of ours and any operating-system error with 1, each as one line; other
    exceptions are our own faults and keep their traceback.
    """
    # Recordings and workers are what runs in parallel; threads inside each only get in their way.
    # Set before the job imports NumPy, which reads it once.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(_exit_code(main))


def _exit_code(main: Callable[[], int | None]) -> int:
    try:
        configure_logging()
        code = main()
    except KeyboardInterrupt:
        logger.error("interrupted; run the same command again to go on where it stopped")
        return INTERRUPTED
    except Exception as error:
        known = expected_cause(error)
        if known is None:
            logger.exception("unexpected failure, please report it")
            return FAILED
        logger.error("%s: %s", type(known).__name__, known)
        return BAD_USAGE if isinstance(known, ConfigError) else FAILED
    return DONE if code is None else code


def expected_cause(error: BaseException) -> OutspikeError | OSError | None:
    """The error of ours (or of the operating system) that ``error`` is or was raised from.

    Ray wraps an exception raised on a worker in one that inherits from it too, with the whole
    remote traceback as its text; the original sits in ``cause``.
    """
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__
    for candidate in reversed(seen):
        if isinstance(candidate, OutspikeError):
            return candidate
    # A connection that broke inside a remote call is an OSError too, but says nothing by itself.
    return error if isinstance(error, OSError) and len(seen) == 1 else None


# ------------------------------------------------------------------------------------ logging


def configure_logging(*, rank: int | None = None, level: int | None = None) -> None:
    """One line per fact on standard error, with the node and (in training) the rank.

    Only rank 0 speaks below WARNING. ``OUTSPIKE_LOG`` (``DEBUG``, ``INFO``, ...) sets the level.
    """
    if level is None:
        level = _level_from_environment()
    if rank:
        level = max(level, logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(rank))
    ours = logging.getLogger("outspike")
    ours.handlers = [handler]
    ours.propagate = False
    ours.setLevel(level)


class _Formatter(logging.Formatter):
    def __init__(self, rank: int | None) -> None:
        where = socket.gethostname() if rank is None else f"{socket.gethostname()} rank={rank}"
        super().__init__(
            f"%(asctime)s %(levelname)s [{where.replace('%', '%%')}] %(name)s: %(message)s",
            datefmt="%H:%M:%S",
        )


def _level_from_environment() -> int:
    name = os.environ.get("OUTSPIKE_LOG", "INFO").upper()
    level = logging.getLevelNamesMapping().get(name)
    if level is None:
        raise ConfigError(f"OUTSPIKE_LOG={name!r}: expected DEBUG, INFO, WARNING or ERROR.")
    return level


def _first_sentence(function: Callable[..., Any]) -> str:
    return (function.__doc__ or function.__name__).strip().split("\n\n")[0].replace("\n", " ")


# -------------------------------------------------------------------------------------- tables


def table(rows: Sequence[tuple[str, object]]) -> str:
    """The short two-column table a job ends with."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
