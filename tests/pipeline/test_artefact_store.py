"""The store: what counts as an artefact, what an id means, and what counts as damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.files import json_bytes
from pipeline.building import Recipe, obtain
from pipeline.errors import StoreError
from pipeline.manifest import MANIFEST, content_digest, fingerprint, read_manifest, scan
from pipeline.store import Artefact, Store, default_root


def make(content: bytes = b"data") -> Callable[[Path], None]:
    """A builder of two files."""

    def fill(folder: Path) -> None:
        (folder / "a.bin").write_bytes(content)
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "b.bin").write_bytes(content[::-1] * 3)

    return fill


def put(store: Store, kind: str = "trials", n: int = 0, content: bytes = b"data") -> Artefact:
    """An artefact in the store."""
    lease = obtain(store, Recipe(kind, "collect", 1, {"n": n}, 0), make(content))
    lease.close()
    return lease.artefact


def test_opening_a_store_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert list(store.all_keys()) == []
    assert not (tmp_path / "none").exists()


def test_the_root_is_omrl_home_or_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMRL_HOME", "/x/y")
    assert default_root() == Path("/x/y")
    monkeypatch.setenv("OMRL_HOME", "")
    assert default_root() == Path("runs")


def test_a_file_in_the_stores_place(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StoreError, match="is a file; set OMRL_HOME to a folder"):
        Store(tmp_path / "f")


def test_a_whole_artefact_is_found(store: Store) -> None:
    made = put(store)
    found = store.find("trials", made.manifest.fingerprint)
    assert found is not None
    assert found.manifest == made.manifest
    assert (made.cached, found.cached) == (False, True)
    assert found.manifest.size == 16
    assert set(found.manifest.files) == {"a.bin", "deep/er/b.bin"}
    assert store.manifests() == [made.manifest]
    assert store.manifests(("vae",)) == []


Damage = Callable[[Path], None]


def _edit(field: str, value: object) -> Damage:
    def damage(folder: Path) -> None:
        document = json.loads((folder / MANIFEST).read_text())
        document[field] = value
        (folder / MANIFEST).write_bytes(json_bytes(document))

    return damage


def _append(folder: Path) -> None:
    with (folder / "a.bin").open("ab") as stream:
        stream.write(b"!")


def _link(folder: Path) -> None:
    target = shutil.move(folder / "a.bin", folder.parent / "elsewhere.bin")
    (folder / "a.bin").symlink_to(target)


def _swap(folder: Path) -> None:
    a, b = folder / "a.bin", folder / "deep" / "er" / "b.bin"
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing file": (lambda f: (f / "a.bin").unlink(), "file a.bin is missing"),
    "missing folder": (lambda f: shutil.rmtree(f / "deep"), "file deep/er/b.bin is missing"),
    "truncated": (
        lambda f: (f / "a.bin").write_bytes(b"dat"),
        "file a.bin has 3 bytes instead of 4",
    ),
    "grown": (_append, "file a.bin has 5 bytes instead of 4"),
    "changed": (lambda f: (f / "a.bin").write_bytes(b"dota"), "file a.bin has changed"),
    "extra file": (lambda f: (f / "c.bin").touch(), "file c.bin does not belong there"),
    "swapped": (_swap, "file a.bin has 12 bytes instead of 4"),
    "link": (_link, "is a link or a special file"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "is missing"),
    "half a manifest": (lambda f: (f / MANIFEST).write_text('{"format": 1'), "not valid JSON"),
    "empty manifest": (lambda f: (f / MANIFEST).write_text(""), "not valid JSON"),
    "binary manifest": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), "not valid JSON"),
    "list as manifest": (lambda f: (f / MANIFEST).write_text("[]"), "not a manifest of format 1"),
    "other format": (_edit("format", 2), "is not a manifest of format 1"),
    "edited config": (_edit("config", {"n": 7}), "was edited after it was sealed"),
    "edited files": (_edit("files", {}), "was edited after it was sealed"),
    "edited seconds": (_edit("seconds", 1e9), "was edited after it was sealed"),
    "edited seal": (_edit("seal", "0" * 64), "was edited after it was sealed"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_found_and_the_artefact_never_used(
    case: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = DAMAGES[case]
    made = put(store)
    damage(made.folder)
    assert store.find("trials", made.manifest.fingerprint) is None
    problem = store.inspect("trials", made.manifest.fingerprint).problem
    assert problem is not None
    assert reason in problem
    again = put(store)
    assert not again.cached
    assert again.digest == made.digest
    assert "is damaged" in caplog.text
    assert put(store).cached


def test_an_artefact_under_another_key_is_damage(store: Store) -> None:
    one, two = put(store, n=1), put(store, n=2)
    shutil.rmtree(two.folder)
    shutil.copytree(one.folder, two.folder)
    problem = store.inspect("trials", two.manifest.fingerprint).problem
    assert problem is not None
    assert f"holds the manifest of {one.reference}" in problem


def test_every_flipped_bit_is_found(store: Store) -> None:
    made = put(store, content=bytes(range(256)))
    rng = np.random.default_rng(0)
    files = sorted(path for path in made.folder.rglob("*") if path.is_file())
    for _ in range(200):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        assert store.find("trials", made.manifest.fingerprint) is None, path
        path.write_bytes(whole)
    assert store.find("trials", made.manifest.fingerprint) is not None


def test_every_truncation_is_found(store: Store) -> None:
    made = put(store, content=bytes(range(256)))
    for path in sorted(path for path in made.folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for length in np.linspace(0, len(whole) - 1, 20).astype(int):
            path.write_bytes(whole[:length])
            assert store.find("trials", made.manifest.fingerprint) is None, (path, length)
        path.write_bytes(whole)


def test_a_sealed_manifest_that_lacks_fields(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = put(store)
    monkeypatch.setattr("pipeline.manifest._sha256", lambda value: "same")
    (made.folder / MANIFEST).write_text('{"format": 1, "seal": "same"}')
    monkeypatch.setattr(
        "pipeline.manifest.json_bytes", lambda value: b'{"format": 1, "seal": "same"}'
    )
    with pytest.raises(DataError, match="lacks what a manifest has"):
        read_manifest(made.folder)


def test_the_digest_covers_names_and_contents_only(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        make()(tmp_path / name)
    (tmp_path / "b" / "a.bin").chmod(0o400)
    assert content_digest(scan(tmp_path / "a")) == content_digest(scan(tmp_path / "b"))
    (tmp_path / "b" / "a.bin").rename(tmp_path / "b" / "c.bin")
    assert content_digest(scan(tmp_path / "a")) != content_digest(scan(tmp_path / "b"))


def test_a_fingerprint_covers_all_that_decides_the_bytes() -> None:
    base = fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 0, {"trials": "d"})
    assert len(base) == 20
    assert base == fingerprint("vae", 1, {"a": {"y": 2, "x": 1}}, 0, {"trials": "d"})
    others = [
        fingerprint("agent", 1, {"a": {"x": 1, "y": 2}}, 0, {"trials": "d"}),
        fingerprint("vae", 2, {"a": {"x": 1, "y": 2}}, 0, {"trials": "d"}),
        fingerprint("vae", 1, {"a": {"x": 1, "y": 3}}, 0, {"trials": "d"}),
        fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 1, {"trials": "d"}),
        fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 0, {"trials": "e"}),
        fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 0, {"trails": "d"}),
        fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 0, {"trials": "d"}, "s"),
        fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 0, {"trials": "d"}, "t"),
    ]
    assert len({base, *others}) == 9


def test_fingerprints_stay_what_they_are() -> None:
    """Another value here would make every artefact that there is in the world anew."""
    recipe = fingerprint("vae", 1, {"a": {"x": 1, "y": 2}}, 0, {"trials": "d"})
    assert recipe == "cb33bad4f7938cdbbb60"


def test_ids_are_any_unambiguous_prefix(store: Store) -> None:
    made = put(store)
    name = made.manifest.fingerprint
    put(store, "vae")
    for text in (name, name[:6], f"trials/{name}", f"trials/{name[:1]}", "trials/"):
        assert store.resolve(text) == ("trials", name)
    assert store.parse(f"trials/{name}") == ("trials", name)


@pytest.mark.parametrize("text", ["", "zz", "nothing/", "trials/zz", "../..", "a\0b", "x" * 300])
def test_an_unknown_id_is_refused(text: str, store: Store) -> None:
    put(store)
    with pytest.raises(StoreError, match="no artefact"):
        store.resolve(text)


@pytest.mark.parametrize("text", ["", "zz", "vae/z"])
def test_an_unknown_id_is_told_what_there_is(text: str, store: Store) -> None:
    names = [put(store, n=n).reference[: len("trials/") + 8] for n in range(3)]
    with pytest.raises(StoreError) as caught:
        store.resolve(text)
    told = str(caught.value).partition("; known: ")[2].split(", ")
    assert told == sorted(names)


def test_an_ambiguous_id_names_the_candidates(store: Store) -> None:
    one, two = put(store, n=1), put(store, n=2)
    with pytest.raises(
        StoreError, match=r"'trials/' is ambiguous: trials/\w+, trials/\w+"
    ) as caught:
        store.resolve("trials/")
    assert one.reference in str(caught.value)
    assert two.reference in str(caught.value)


@pytest.mark.parametrize("key", [("trials", "../../x"), ("../x", "0" * 20), ("trials", "A" * 20)])
def test_keys_cannot_leave_the_store(key: tuple[str, str], store: Store) -> None:
    with pytest.raises(StoreError, match="is not an artefact's id"):
        store.artefact_folder(*key)


@pytest.mark.parametrize("name", ["artefacts", ".tmp", "records", ".locks", "logs", ".checkpoints"])
def test_a_linked_folder_that_leads_outside_is_refused(
    name: str, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    store.root.mkdir()
    (store.root / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="is a link that leads out of the store"):
        Store(store.root)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("what", ["kind", "artefact"])
def test_links_deeper_down_are_refused_too(what: str, store: Store, tmp_path: Path) -> None:
    made = put(store)
    path = made.folder if what == "artefact" else made.folder.parent
    shutil.move(path, tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="is a link that leads out of the store"):
        store.find("trials", made.manifest.fingerprint)


def test_a_linked_store_is_the_users_choice(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "home")
    assert put(store).folder.exists()
    assert put(store).cached
