"""Which format a path holds, told from names in it, and the tasks that are found there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import DataError
from datasets.logs.borel import borel_tasks, is_borel
from datasets.logs.d4rl import SUFFIXES, d4rl_tasks
from datasets.logs.idaq import idaq_tasks, is_idaq
from datasets.logs.minari import MAIN_FILE, data_sets, minari_folder, minari_tasks
from datasets.logs.source import Format, LoggedTask, natural

_WORDS = {
    "d4rl": "D4RL files",
    "minari": "Minari data sets",
    "borel": "folders of .npy arrays in BOReL's layout",
    "idaq": "episode files in IDAQ's layout",
}


@dataclass(frozen=True)
class Logs:
    """All tasks that were found, in order."""

    format: Format
    tasks: tuple[LoggedTask, ...]

    @property
    def sentence(self) -> str:
        """What was recognised."""
        count = len(self.tasks)
        return f"{_WORDS[self.format]}: {count} task{'s' * (count != 1)}"


def find_logs(paths: Sequence[str], wanted: str = "auto") -> Logs:
    """The logs at these paths, which must be of one format.

    Args:
        paths: files, folders, or ids of local Minari data sets.
        wanted: a format, or "auto" to tell it from the names of files.

    Raises:
        DataError: nothing there, nothing known, or several formats; two logs of one name.
    """
    known = {text: _format(text, wanted) for text in paths}
    kinds = sorted(set(known.values()))
    if len(kinds) > 1:
        raise DataError(f"the paths hold {' and '.join(_WORDS[k] for k in kinds)}; give one kind")
    tasks = [task for text in paths for task in _tasks(text, known[text])]
    seen: dict[str, LoggedTask] = {}
    for task in tasks:
        if not task.name.isprintable():
            raise DataError(f"{task.name!a} is no name to print; rename that file or folder")
        other = seen.setdefault(task.name, task)
        if other is not task:
            raise DataError(
                f"{task.files[0]} and {other.files[0]} are both called {task.name!r}; rename one"
            )
    if not tasks:
        raise DataError(f"{', '.join(paths)}: nothing to import was found")
    return Logs(kinds[0], tuple(tasks))


def _format(text: str, wanted: str) -> Format:
    path = Path(text)
    if not path.exists():
        if minari_folder(text) is not None:
            return "minari"
        raise DataError(f"{text} is neither a file, nor a folder, nor a local Minari data set")
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if path.is_file():
        if path.name == MAIN_FILE:
            raise DataError(f"{path} is part of a Minari data set; give its folder")
        if path.suffix in SUFFIXES:
            return "d4rl"
        raise DataError(f"{path} is not a {' or '.join(SUFFIXES)} file; see docs/data.md")
    if data_sets(path):
        return "minari"
    children = [path, *path.iterdir()]
    if any(map(is_borel, children)):
        return "borel"
    if any(map(is_idaq, children)):
        return "idaq"
    if any(child.suffix in SUFFIXES for child in children):
        return "d4rl"
    raise DataError(
        f"{path} holds none of what can be imported: {'; '.join(_WORDS.values())} (docs/data.md)"
    )


def _tasks(text: str, kind: Format) -> Iterator[LoggedTask]:
    path = Path(text)
    if kind == "minari":
        folder = path if path.exists() else minari_folder(text)
        for found in data_sets(folder or path) or [path]:
            yield from minari_tasks(found)
        return
    if kind == "d4rl":
        files = [path]
        if path.is_dir():
            inside = [p for p in path.iterdir() if p.suffix in SUFFIXES]
            files = sorted(inside, key=lambda p: natural(p.name))
        for file in files:
            yield from d4rl_tasks(file)
        return
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; {_WORDS[kind]} lie in one")
    yield from borel_tasks(path) if kind == "borel" else idaq_tasks(path)
