"""Building: one commit, whole or not at all, once for any number of askers."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from datasets.errors import DiskFullError
from pipeline.building import Lease, Recipe, obtain
from pipeline.clock import seconds_spent, start_clock
from pipeline.errors import StoreError
from pipeline.store import Artefact, Store
from stages.context import Interrupted


class Maker:
    """Fills a folder and counts how often."""

    def __init__(self, content: str = "x", seconds: float = 0.0) -> None:
        self.content, self.seconds, self.calls = content, seconds, 0

    def __call__(self, folder: Path) -> None:
        """Write one file."""
        self.calls += 1
        time.sleep(self.seconds)
        (folder / "data").write_text(self.content)


def recipe(n: int = 0, **inputs: Artefact) -> Recipe:
    """A recipe that differs by `n`."""
    return Recipe("vae", "train-vae", 1, {"n": n}, 0, inputs, {"domain": "gridworld"})


def take(store: Store, maker: Maker, n: int = 0, **options: bool) -> Artefact:
    """Obtain and let go."""
    lease = obtain(store, recipe(n), maker, **options)
    lease.close()
    return lease.artefact


def left_overs(store: Store) -> list[str]:
    """What lies where nothing should be left."""
    return [p.name for f in (".tmp", ".trash", ".checkpoints") for p in (store.root / f).glob("*")]


def test_made_once_then_found(store: Store) -> None:
    maker = Maker()
    first, second = take(store, maker), take(store, maker)
    assert maker.calls == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.manifest == second.manifest
    assert first.manifest.labels == {"domain": "gridworld"}
    assert first.manifest.versions["python"].startswith("3.")
    assert left_overs(store) == []


def test_times_and_versions_are_outside_the_digest(store: Store) -> None:
    first = take(store, Maker(seconds=0.05))
    second = take(store, Maker(), refresh=True)
    assert second.digest == first.digest
    assert second.manifest.seconds < first.manifest.seconds


def test_data_are_on_the_disk_before_the_manifest_and_that_before_the_rename(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    rename = Path.rename

    def fsync(descriptor: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:8]}")

    def renamed(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    take(store, Maker())
    folder = f"fsync {'vae-' + recipe().fingerprint[:4]}"
    assert events == [
        "fsync data", folder, "fsync manifest", folder, "rename", "fsync vae",
    ]  # fmt: skip


def test_refresh_makes_anew_and_swaps(store: Store) -> None:
    take(store, Maker("old"))
    new = take(store, Maker("new"), refresh=True)
    assert not new.cached
    assert (new.folder / "data").read_text() == "new"
    assert take(store, Maker("never")).digest == new.digest


@pytest.mark.parametrize("error", [RuntimeError("bug"), Interrupted("stop"), KeyboardInterrupt()])
def test_a_stage_that_fails_leaves_the_old_one(error: BaseException, store: Store) -> None:
    old = take(store, Maker("old"))
    checkpoint = store.checkpoint_folder("vae", old.manifest.fingerprint)

    def fail(folder: Path) -> None:
        (folder / "data").write_text("half")
        checkpoint.mkdir(parents=True)
        raise error

    with pytest.raises(type(error)):
        obtain(store, recipe(), fail, refresh=True)
    assert left_overs(store) == [checkpoint.name]
    found = take(store, Maker("never"))
    assert found.cached
    assert found.digest == old.digest


def test_checkpoints_go_when_the_artefact_is_committed(store: Store) -> None:
    folder = store.checkpoint_folder("vae", recipe().fingerprint)
    folder.mkdir(parents=True)
    take(store, Maker())
    assert not folder.exists()


def checkpoint_of_an_hour(folder: Path) -> None:
    """What a process leaves that began 3,600 seconds before its last checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    start_clock(folder)
    (folder / "cursor").touch()
    hour_later = time.time() + 3600
    os.utime(folder / "cursor", (hour_later, hour_later))


def test_the_time_of_all_processes_counts(store: Store) -> None:
    folder = store.checkpoint_folder("vae", recipe().fingerprint)
    assert seconds_spent(folder) == 0
    checkpoint_of_an_hour(folder)
    assert seconds_spent(folder) == pytest.approx(3600, abs=5)
    start_clock(folder)  # a second process, killed before it saved anything
    os.utime(folder / "cursor", (0, 0))
    assert seconds_spent(folder) == pytest.approx(3600, abs=5)
    checkpoint_of_an_hour(folder)
    assert take(store, Maker()).manifest.seconds == pytest.approx(7200, abs=10)
    assert take(store, Maker(), refresh=True).manifest.seconds < 5


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"before": "x", "begun": 0}'])
def test_a_clock_that_says_nothing_counts_nothing(note: str, tmp_path: Path) -> None:
    checkpoint_of_an_hour(tmp_path)
    (tmp_path / "clock.json").write_text(note)
    assert seconds_spent(tmp_path) == 0
    (tmp_path / "cursor").unlink()
    start_clock(tmp_path)
    assert seconds_spent(tmp_path) == 0  # nothing was saved


def test_a_stage_must_write_something_and_not_the_manifest(store: Store) -> None:
    with pytest.raises(StoreError, match="stage train-vae wrote nothing"):
        obtain(store, recipe(), lambda folder: None)

    def own(folder: Path) -> None:
        (folder / "manifest.json").touch()

    with pytest.raises(StoreError, match=r"wrote a file manifest.json, which is the store's own"):
        obtain(store, recipe(), own)
    assert left_overs(store) == []


def test_inputs_that_were_swapped_or_removed_meanwhile(store: Store) -> None:
    source = take(store, Maker("one"), n=1)
    take(store, Maker("two"), n=1, refresh=True)
    with pytest.raises(StoreError, match=r"input trials \(vae/\w+\) was replaced; run again"):
        obtain(store, recipe(trials=source), Maker())
    store.discard(source.folder)
    with pytest.raises(StoreError, match="input trials is gone"):
        obtain(store, recipe(trials=source), Maker())


def test_chaining_on_contents_gives_early_cut_off(store: Store) -> None:
    one, same, other = (take(store, Maker(text), n=n) for n, text in enumerate("aab"))
    assert recipe(9, trials=one).fingerprint == recipe(9, trials=same).fingerprint
    assert recipe(9, trials=one).fingerprint != recipe(9, trials=other).fingerprint


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_path_and_bytes(number: int, store: Store) -> None:
    old = take(store, Maker(), n=1)

    def fill(folder: Path) -> None:
        (folder / "data").write_bytes(b"x" * 1000)
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFullError) as caught:
        obtain(store, recipe(), fill)
    assert caught.value.bytes_needed == 1000
    assert str(store.root) in str(caught.value)
    assert left_overs(store) == []
    assert store.find("vae", old.manifest.fingerprint) is not None
    assert not take(store, Maker()).cached  # works once there is room


def test_other_faults_of_the_disk_pass_through(store: Store) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        obtain(store, recipe(), fail)
    assert left_overs(store) == []


def test_threads_that_ask_for_one_key_make_it_once(store: Store) -> None:
    maker, leases = Maker(seconds=0.2), []
    threads = [
        threading.Thread(target=lambda: leases.append(obtain(store, recipe(), maker)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert maker.calls == 1
    assert sorted(lease.artefact.cached for lease in leases) == [False] + [True] * 7
    for lease in leases:
        lease.close()


def test_whoever_waits_is_told_and_can_be_stopped(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "omrl.store")
    held: list[Lease] = [obtain(store, recipe(), Maker())]
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(Interrupted, match="while another run was busy with vae/"):
        obtain(store, recipe(), Maker(), refresh=True, stop=stop)
    assert caplog.text.count("waiting for another run that builds or uses vae/") == 1
    held[0].close()


def test_a_lease_keeps_others_from_replacing(store: Store) -> None:
    lease = obtain(store, recipe(), Maker("old"))
    done = threading.Event()

    def refresh() -> None:
        obtain(store, recipe(), Maker("new"), refresh=True).close()
        done.set()

    thread = threading.Thread(target=refresh)
    thread.start()
    assert not done.wait(0.3)
    assert (lease.artefact.folder / "data").read_text() == "old"
    lease.close()
    thread.join(20)
    assert done.is_set()
    assert (lease.artefact.folder / "data").read_text() == "new"
