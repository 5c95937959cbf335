"""Every command of the command line, with what it is run with where a test runs them all."""

from tests.test_docs import COMMANDS

# In this order: what one does, the next can show. The names are of what `prepared` makes.
ARGUMENTS: dict[str, list[str]] = {
    "harca inspect": ["store"],
    "harca migrate": ["store"],
    "harca backup": ["store"],
    "harca verify": ["store"],
    "harca status": [],
    "harca search": ["--vector", "query.json"],
    "harca embedder": [],
    "harca bench search": ["--queries", "2", "--rounds", "1", "--clients", "0"],
    "harca rejections list": [],
    "harca rejections export": ["rejected"],
    "harca export": ["exported", "--format", "jsonl"],
    "harca plan": ["store", "-m", "load it"],
    "harca load": ["--max-rejects", "1"],
    "harca db url": [],
    "harca db psql": ["-c", "SELECT current_user"],
    "harca db config": [],
    "harca rollback": ["1"],
}
# Not every role can do what these do, or well enough; left alone they would take minutes.
MAY_FAIL: dict[str, list[str]] = {
    "harca soak": ["--minutes", "0.02"],
    "harca bench scale": ["--rows", "12", "--dims", "3", "--queries", "2", "--rounds", "1"],
}
OF_THE_EMBEDDED_SERVER = ("harca db start", "harca db stop")

_LAST = "harca rollback"


def arguments_of(path: str) -> list[str]:
    """Return what a command is run with; one that nobody has listed gets what it has to have."""
    if path in ARGUMENTS:
        return ARGUMENTS[path]
    if path in MAY_FAIL:
        return MAY_FAIL[path]
    return [
        "store"
        for parameter in COMMANDS[path].params
        if parameter.required and parameter.param_type_name == "argument"
    ]


def of_a_database() -> list[str]:
    """Return the commands, but for those about the embedded server, in an order to run them in."""
    others = [
        path for path in COMMANDS if path not in ARGUMENTS and path not in OF_THE_EMBEDDED_SERVER
    ]
    return [*(path for path in ARGUMENTS if path != _LAST), *others, _LAST]
