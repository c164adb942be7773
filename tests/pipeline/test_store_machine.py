"""The artefact store against a plain dictionary, by random sequences of everything one can do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.building import Recipe, obtain
from pipeline.garbage import find_garbage, remove, sweep
from pipeline.records import RunRecord, delete_record, find_record, list_records, write_record
from pipeline.store import KINDS, Store

NUMBERS = st.integers(0, 2)
KIND = st.sampled_from(KINDS[:2])
Key = tuple[str, int]


class StoreMachine(RuleBasedStateMachine):
    """The model: which contents lie at each key, and which of them are damaged or recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.store = Store(self.home)
        self.contents: dict[Key, str] = {}
        self.damaged: set[Key] = set()
        self.recorded: set[Key] = set()

    def teardown(self) -> None:
        """Delete the store."""
        shutil.rmtree(self.home)

    def recipe(self, key: Key) -> Recipe:
        """The recipe of a key of the model."""
        return Recipe(key[0], "stage", 1, {"n": key[1]}, 0)

    @rule(
        kind=KIND, n=NUMBERS, content=st.text("ab", min_size=1, max_size=2), refresh=st.booleans()
    )
    def get(self, kind: str, n: int, content: str, refresh: bool) -> None:
        """Obtain: whatever is whole stays, unless it is refreshed."""
        key = (kind, n)
        expected_hit = key in self.contents and key not in self.damaged and not refresh

        def make(folder: Path) -> None:
            (folder / "data").write_text(content)

        lease = obtain(self.store, self.recipe(key), make, refresh=refresh)
        lease.close()
        assert lease.artefact.cached == expected_hit
        if not expected_hit:
            self.contents[key] = content
            self.damaged.discard(key)
        assert (lease.artefact.folder / "data").read_text() == self.contents[key]

    @rule(kind=KIND, n=NUMBERS, how=st.sampled_from(["change", "delete", "manifest"]))
    def damage(self, kind: str, n: int, how: str) -> None:
        """Break an artefact from outside."""
        key = (kind, n)
        if key not in self.contents or key in self.damaged:
            return
        folder = self.store.artefact_folder(kind, self.recipe(key).fingerprint)
        if how == "change":
            (folder / "data").write_text("!" * len(self.contents[key]))
        elif how == "delete":
            (folder / "data").unlink()
        else:
            (folder / "manifest.json").unlink()
        self.damaged.add(key)

    @rule(kind=KIND, n=NUMBERS)
    def record(self, kind: str, n: int) -> None:
        """A run that uses this artefact."""
        key = (kind, n)
        name = f"{kind}{n}"
        reference = self.recipe(key).reference
        write_record(self.store, RunRecord(name, "p", (), 0, "d", {}, {"step": reference}))
        self.recorded.add(key)
        found = find_record(self.store, name)
        assert found is not None
        assert found.artefacts == {"step": reference}

    @rule(kind=KIND, n=NUMBERS)
    def forget(self, kind: str, n: int) -> None:
        """Delete that run's record."""
        if (kind, n) in self.recorded:
            delete_record(self.store, f"{kind}{n}")
            self.recorded.discard((kind, n))

    @rule()
    def collect_garbage(self) -> None:
        """What no run uses goes, the rest stays."""
        for item in find_garbage(self.store):
            assert remove(self.store, item)
        for key in set(self.contents) - self.recorded:
            del self.contents[key]
            self.damaged.discard(key)

    @rule()
    def start_anew(self) -> None:
        """Another process opens the store; what a killed one left goes."""
        (self.store.folder(".tmp") / f"vae-{'0' * 20}-abc").mkdir(exist_ok=True)
        self.store = Store(self.home)
        sweep(self.store)
        assert list((self.home / ".tmp").iterdir()) == []

    @invariant()
    def store_equals_model(self) -> None:
        """Every key holds what the model says."""
        keys = {(kind, self.recipe((kind, n)).fingerprint): (kind, n) for kind, n in self.contents}
        assert set(self.store.all_keys()) == set(keys)
        for (kind, fingerprint), key in keys.items():
            found = self.store.find(kind, fingerprint)
            assert (found is None) == (key in self.damaged)
            if found is not None:
                assert (found.folder / "data").read_text() == self.contents[key]
        assert {record.name for record in list_records(self.store)} == {
            f"{kind}{n}" for kind, n in self.recorded
        }


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
