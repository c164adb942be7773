"""Task parameters in the names of files and folders, as BOReL writes them: `goal_0.866_-0.5`."""

import re

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"
_TASK = re.compile(rf"(?:^|[_-])(?:goal|task)_({_NUMBER}(?:_{_NUMBER})*)$", re.ASCII)


def numbers_in(name: str) -> tuple[float, ...] | None:
    """The numbers behind `goal_` or `task_` at a name's end, or None if there are none.

    Names hold few digits, BOReL's three behind the point: what they tell is taken as rounded.
    """
    match = _TASK.search(name)
    return tuple(float(text) for text in match[1].split("_")) if match else None
