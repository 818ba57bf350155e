"""A database: a directory of collections, their names, and the one process that owns it.

    soardb/connect.py, soardb/database.py -> [test_database.py]

The claims: a name never becomes a path, the catalog changes as a whole, one process writes while
others may read, and what is not ours is never deleted.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.connect import connect
from soardb.database import Database
from soardb.errors import (
    AlreadyExists,
    Closed,
    CorruptStorage,
    InUse,
    InvalidArgument,
    NotFound,
    ReadOnly,
    SoarError,
)
from soardb.filters import F
from tests.collections.conftest import D, crashed, ids_of, open_by_hand, points

HOSTILE = [
    "", ".", "..", "../x", "a/b", "a\\b", "/etc", "C:" + "\\x", "a\0b", "\0", "CON", "con",
    "nul.txt", "LPT1", "x" * 129, "x" * 300, "é", "日本", "a b", " a", "a ", "a\n", "%2e%2e",
    "a%00", "-a", "_a", ".hidden", "a.", "\N{RIGHT-TO-LEFT OVERRIDE}a", "a;b", "$(x)", "`x`",
    "a'b", 'a"b', "*", "\ud800",
]  # fmt: skip
FINE = ["a", "A1", "7", "a.b", "a-b_c", "x" * 128, "catalog.json", "LOCK", "c-0123456789abcdef",
        "console", "com", "aux1"]  # fmt: skip


def files(folder: Path) -> list[str]:
    """What lies in a database directory besides the two files that always do."""
    return sorted(f.name for f in folder.iterdir() if f.name not in ("LOCK", "catalog.json"))


class TestCreate:
    def test_a_collection_is_what_was_asked_for(self, database: Database) -> None:
        """And tells so."""
        made = database.create_collection("c", 5, "dot", schema={"n": "int", "a.b": "keyword"})
        assert (made.name, made.d, made.metric) == ("c", 5, "dot")
        assert made.schema == {"n": "int", "a.b": "keyword"}
        assert repr(made) == "Collection('c', dim=5, metric='dot')"
        assert len(made) == 0
        assert database.get_collection("c") is made
        assert database.list_collections() == ["c"]
        assert database.create_collection("plain", 5).metric == "cosine"

    def test_it_is_there_after_a_crash(
        self, database: Database, folder: Path, tmp_path: Path
    ) -> None:
        """Durable when the call returns: collection, schema, options, alias."""
        database.create_collection(
            "c", 5, "l2", schema={"at": "datetime"}, ttl="at", index={"nlist": 7, "seed": 5}
        )
        database.set_alias("live", "c")
        with open_by_hand(crashed(folder, tmp_path / "copy")) as copy:
            found = copy.get_collection("live")
            settings = found._core.settings
            assert (found.name, found.d, found.metric) == ("c", 5, "l2")
            assert settings.ttl == "at"
            assert (settings.params.nlist, settings.params.seed) == (7, 5)

    def test_a_name_is_taken_once(self, database: Database) -> None:
        """By a collection or an alias."""
        database.create_collection("c", D)
        database.set_alias("live", "c")
        with pytest.raises(AlreadyExists, match="got 'c': collection 'c' is there"):
            database.create_collection("c", D)
        with pytest.raises(AlreadyExists, match="got 'live': alias 'live' is there"):
            database.create_collection("live", D)
        assert database.list_collections() == ["c"]

    @pytest.mark.parametrize("name", ["Cats", "CATS", "cATS"])
    def test_names_differ_in_more_than_case(self, database: Database, name: str) -> None:
        """An export to a file system that folds case would mix them up."""
        database.create_collection("cats", D)
        with pytest.raises(AlreadyExists, match="differs only in upper and lower case"):
            database.create_collection(name, D)
        with pytest.raises(AlreadyExists, match="differs only in upper and lower case"):
            database.set_alias(name, "cats")
        with pytest.raises(NotFound):
            database.get_collection(name)

    def test_exist_ok_returns_the_equal_one(self, database: Database) -> None:
        """So that a program can begin with this line every time."""
        options: dict[str, Any] = {"schema": {"n": "int"}}
        made = database.create_collection("c", D, "l2", **options)
        assert database.create_collection("c", D, "l2", exist_ok=True, **options) is made
        assert database.create_collection("new", D, exist_ok=True).count() == 0

    @pytest.mark.parametrize(
        ("changes", "part"),
        [({"dim": D + 1}, "d 8"), ({"metric": "dot"}, "metric 'l2'"), ({"schema": {}}, "schema"),
         ({"schema": {"n": "int", "at": "datetime"}, "ttl": "at"}, "schema|ttl")],
    )  # fmt: skip
    def test_exist_ok_refuses_another_one(
        self, database: Database, changes: dict[str, Any], part: str
    ) -> None:
        """Going on with other dimensions or fields would fail later and elsewhere."""
        given: dict[str, Any] = {"dim": D, "metric": "l2", "schema": {"n": "int"}}
        database.create_collection("c", **given)
        with pytest.raises(AlreadyExists, match=f"collection 'c' is there with .*({part})"):
            database.create_collection("c", exist_ok=True, **(given | changes))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"dim": 1}, "d within 2..4096"),
            ({"dim": 4097}, "d within 2..4096"),
            ({"dim": 2.0}, "d to be an integer"),
            ({"metric": "euclid"}, "one of dot, cosine, l2|metric to be one of"),
            ({"schema": {"n": "integer"}}, "did you mean"),
            ({"schema": {"a b": "int"}}, "field name"),
            ({"schema": ["n"]}, "expected a schema"),
            ({"index": {"nlists": 5}}, "did you mean 'nlist'"),
            ({"index": {"nlist": -1}}, "expected nlist"),
            ({"ttl": "at"}, "declared in schema as datetime"),
        ],
    )
    def test_bad_options_leave_nothing(
        self, database: Database, options: dict[str, Any], words: str
    ) -> None:
        """No name, no folder."""
        with pytest.raises(InvalidArgument, match=words):
            database.create_collection("c", **({"dim": D} | options))
        assert database.list_collections() == []
        assert files(database.path) == []

    def test_many_threads_create_one_collection_once(self, database: Database) -> None:
        """Sixteen at once, under one name: one succeeds; with exist_ok all get the same."""

        def create(_: int) -> bool:
            try:
                database.create_collection("c", D)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            assert sorted(pool.map(create, range(16))) == [False] * 15 + [True]
            same = list(
                pool.map(lambda _: database.create_collection("d", D, exist_ok=True), range(16))
            )
        assert len(set(map(id, same))) == 1
        assert len(files(database.path)) == 2


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_names_are_refused_everywhere(self, database: Database, name: str) -> None:
        """Nothing is made of them, in the directory or beside it."""
        database.create_collection("c", D)
        before = sorted(database.path.parent.rglob("*"))
        calls: list[Callable[[], object]] = [
            lambda: database.create_collection(name, D),
            lambda: database.create_collection(name, D, exist_ok=True),
            lambda: database.get_collection(name),
            lambda: database.drop_collection(name),
            lambda: database.rename_collection("c", name),
            lambda: database.rename_collection(name, "d"),
            lambda: database.set_alias(name, "c"),
            lambda: database.set_alias("a", name),
            lambda: database.set_aliases({"b": "c", name: None}),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument, match="expected the name of a(n)? .* as 1..128"):
                call()
        assert sorted(database.path.parent.rglob("*")) == before
        assert database.list_collections() == ["c"]
        assert database.list_aliases() == {}

    @pytest.mark.parametrize("name", [None, 5, b"a", ["a"]])
    def test_names_are_strings(self, database: Database, name: Any) -> None:
        """Refused with the same words."""
        with pytest.raises(InvalidArgument, match="expected the name of a collection"):
            database.create_collection(name, D)

    @pytest.mark.parametrize("name", FINE)
    def test_fine_names_are_kept(self, database: Database, folder: Path, name: str) -> None:
        """Those of our own files among them, as no name becomes a path."""
        database.create_collection(name, D).upsert([1], points(1))
        database.close()
        with open_by_hand(folder) as again:
            assert again.list_collections() == [name]
            assert again.get_collection(name).count() == 1


class TestDrop:
    def test_everything_of_it_goes(self, database: Database) -> None:
        """Points, files, aliases; others stay; the name is free again."""
        made = database.create_collection("c", D)
        made.upsert(range(10), points(10))
        database.create_collection("other", D).upsert([1], points(1))
        database.set_aliases({"live": "c", "too": "other"})
        database.drop_collection("c")
        assert database.list_collections() == ["other"]
        assert database.list_aliases() == {"too": "other"}
        assert len(files(database.path)) == 1
        for name in ("c", "live"):
            with pytest.raises(NotFound, match=f"no '{name}'; there are other"):
                database.get_collection(name)
        assert database.create_collection("c", D).count() == 0
        assert database.get_collection("too").count() == 1

    def test_a_handle_says_that_it_was_dropped(self, database: Database) -> None:
        """And never writes into the successor of its name."""
        old = database.create_collection("c", D)
        database.drop_collection("c")
        new = database.create_collection("c", D)
        with pytest.raises(Closed, match="collection 'c' was dropped"):
            old.upsert([1], points(1))
        with pytest.raises(Closed, match="collection 'c' was dropped"):
            old.count()
        assert new.count() == 0

    def test_an_alias_is_not_dropped_by_that(self, database: Database) -> None:
        """drop_collection("live") must not delete what live happens to stand for."""
        database.create_collection("c", D)
        database.set_alias("live", "c")
        with pytest.raises(NotFound):
            database.drop_collection("live")
        assert database.list_collections() == ["c"]

    def test_dropping_under_load(self, database: Database) -> None:
        """Eight threads write and search; all of them end with Closed, and the files are gone."""
        made = database.create_collection("c", D)
        made.upsert(range(100), points(100))
        ended: list[BaseException] = []

        def work(number: int) -> None:
            try:
                while True:
                    made.upsert([number], points(1), ack="logged")
                    made.search(points(1)[0])
                    made.get([1], with_vectors=True)
            except BaseException as error:  # noqa: BLE001 - judged below
                ended.append(error)

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(work, i) for i in range(8)]
            time.sleep(0.1)
            database.drop_collection("c")
            for job in jobs:
                job.result(timeout=30)
        assert {type(error) for error in ended} == {Closed}
        assert files(database.path) == []


class TestRename:
    def test_handles_aliases_and_points_stay(self, database: Database, folder: Path) -> None:
        """Nothing moves but the name."""
        made = database.create_collection("old", D)
        made.upsert([1], points(1))
        database.set_alias("live", "old")
        database.rename_collection("old", "new")
        assert made.name == "new"
        assert made.count() == 1
        assert database.list_collections() == ["new"]
        assert database.list_aliases() == {"live": "new"}
        assert database.get_collection("live") is made
        with pytest.raises(NotFound):
            database.get_collection("old")
        database.close()
        with open_by_hand(folder) as again:
            assert again.get_collection("new").count() == 1
            assert again.get_collection("new").name == "new"

    def test_only_to_a_free_name(self, database: Database) -> None:
        """Its own name in another case is free."""
        database.create_collection("a", D)
        database.create_collection("b", D)
        database.set_alias("live", "b")
        for taken in ("b", "B", "live"):
            with pytest.raises(AlreadyExists):
                database.rename_collection("a", taken)
        database.rename_collection("a", "A")
        assert database.list_collections() == ["A", "b"]
        with pytest.raises(NotFound, match="no 'a'"):
            database.rename_collection("a", "c")


class TestAliases:
    def test_an_alias_moves_at_once(self, database: Database) -> None:
        """The way to put a rebuilt collection in the place of the old one."""
        for name, n in (("v1", 1), ("v2", 2)):
            database.create_collection(name, D).upsert(range(n), points(n))
        database.set_alias("live", "v1")
        wrong: list[object] = []
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                count = database.get_collection("live").count()
                if count not in (1, 2):
                    wrong.append(count)

        reader = threading.Thread(target=read)
        reader.start()
        for i in range(50):
            database.set_alias("live", f"v{i % 2 + 1}")
            assert database.get_collection("live").count() == i % 2 + 1
        stop.set()
        reader.join(30)
        assert not wrong

    def test_several_change_together_or_not_at_all(self, database: Database, folder: Path) -> None:
        """A swap of blue and green has no moment between."""
        database.create_collection("v1", D)
        database.create_collection("v2", D)
        database.set_aliases({"blue": "v1", "green": "v2", "old": "v1"})
        bad: list[dict[str, str | None]] = [
            {"blue": "v2", "green": "missing"},
            {"blue": "v2", "missing": None},
            {"blue": "v2", "v1": "v2"},
            {"blue": "v2", "a/b": "v1"},
        ]
        for changes in bad:
            with pytest.raises(SoarError):
                database.set_aliases(changes)
            assert database.list_aliases() == {"blue": "v1", "green": "v2", "old": "v1"}
        database.set_aliases({"blue": "v2", "green": "v1", "old": None})
        database.close()
        with open_by_hand(folder) as again:
            assert again.list_aliases() == {"blue": "v2", "green": "v1"}

    def test_an_alias_of_an_alias_is_one_of_its_collection(self, database: Database) -> None:
        """There are no chains that could break in the middle."""
        database.create_collection("v1", D)
        database.create_collection("v2", D)
        database.set_alias("a", "v1")
        database.set_alias("b", "a")
        database.set_alias("a", "v2")
        assert database.list_aliases() == {"a": "v2", "b": "v1"}


class TestOpening:
    def test_a_directory_is_made(self, tmp_path: Path) -> None:
        """With its parents; not with create=False."""
        with pytest.raises(NotFound, match="expected a soardb database in"):
            connect(tmp_path / "a/b", create=False)
        assert not (tmp_path / "a").exists()
        connect(tmp_path / "a/b").close()
        connect(str(tmp_path / "a/b"), create=False).close()

    def test_other_peoples_files_are_left_alone(self, tmp_path: Path) -> None:
        """A wrong path must not turn a folder of documents into a database."""
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(InvalidArgument, match="holds other files and no catalog.json"):
            connect(tmp_path)
        with pytest.raises(InvalidArgument, match="expected a directory to open, .* is a file"):
            connect(tmp_path / "thesis.txt")
        assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize("target", ["", "a\0b", "http://localhost:1", "soardb://x"])
    def test_what_is_no_path_is_refused(self, target: str) -> None:
        """With a word about servers where it looks like one."""
        with pytest.raises(InvalidArgument, match="expected the path of a directory"):
            connect(target)

    def test_unlisted_folders_are_never_deleted(self, database: Database, folder: Path) -> None:
        """Whoever restores an old catalog must find what it does not know still there."""
        made = database.create_collection("c", D)
        made.upsert([1], points(1))
        old = (folder / "catalog.json").read_bytes()
        database.create_collection("d", D).upsert([1, 2], points(2))
        database.close()
        new = (folder / "catalog.json").read_bytes()
        (folder / "catalog.json").write_bytes(old)
        (folder / "notes").mkdir()
        (folder / "notes.new").mkdir()
        (folder / "c-notes.txt").write_text("mine")
        with open_by_hand(folder) as again:
            assert again.list_collections() == ["c"]
            again.create_collection("e", D)
            again.drop_collection("e")
        assert {"notes", "notes.new", "c-notes.txt"} <= set(files(folder))
        (folder / "catalog.json").write_bytes(new)
        with open_by_hand(folder) as again:
            assert again.get_collection("d").count() == 2

    def test_what_a_crash_left_half_done_is_settled(self, database: Database, folder: Path) -> None:
        """A folder that is being made or dropped goes the way that the catalog says."""
        made = database.create_collection("c", D)
        made.upsert([1], points(1))
        own = made._core.folder.name
        database.close()
        for ending in ("new", "gone"):
            (folder / own).rename(folder / f"{own}.{ending}")  # listed: it gets its name
            (folder / f"c-{'0' * 16}.{ending}").mkdir()  # not listed: it goes
            (folder / ".catalog.json.0123").write_text("half")
            with open_by_hand(folder) as again:
                assert files(folder) == [own]
                assert again.get_collection("c").count() == 1

    def test_a_damaged_catalog_is_not_taken_for_an_empty_one(
        self, database: Database, folder: Path
    ) -> None:
        """That would be the moment in which everything is lost."""
        database.create_collection("c", D)
        database.close()
        path = folder / "catalog.json"
        data = path.read_bytes()
        for spoilt in (b"", b"{}", data[:-5], data.replace(b'"c"', b'"d"'), b"\0" * 100):
            path.write_bytes(spoilt)
            with pytest.raises(CorruptStorage, match="repair"):
                open_by_hand(folder)
            with pytest.raises(CorruptStorage, match="repair"):
                open_by_hand(folder, read_only=True)
            assert len(files(folder)) == 1
        path.unlink()
        with pytest.raises(InvalidArgument, match="soardb repair"):
            open_by_hand(folder)
        path.write_bytes(data)
        open_by_hand(folder).close()


class TestClosing:
    def test_handles_say_so(self, database: Database) -> None:
        """Every call of a closed database; closing twice is fine."""
        database.create_collection("c", D)
        database.close()
        database.close()
        calls: list[Callable[[], object]] = [
            lambda: database.create_collection("d", D),
            lambda: database.get_collection("c"),
            lambda: database.list_collections(),
            lambda: database.drop_collection("c"),
            lambda: database.rename_collection("c", "d"),
            lambda: database.set_alias("a", "c"),
            lambda: database.list_aliases(),
            lambda: database.stats(),
        ]
        for call in calls:
            with pytest.raises(Closed, match="database .* was closed"):
                call()

    def test_nothing_stays_open(self, folder: Path) -> None:
        """No file and no thread, however often it is opened."""
        open_by_hand(folder).close()

        def use() -> None:
            with open_by_hand(folder) as database:
                made = database.create_collection("c", D, exist_ok=True, schema={"b": "text"})
                made.upsert(range(10), points(10), [{"b": "fox"}] * 10)
                made.compact()
                made.search(points(1)[0])
                made.search(text="fox")
                made.scroll()
            with open_by_hand(folder, read_only=True) as database:
                database.get_collection("c").search(points(1)[0])

        use()
        gc.collect()  # mapped files go with their arrays
        before = open_files(), threading.active_count()
        for _ in range(15):
            use()
        gc.collect()
        assert open_files() <= before[0]
        assert threading.active_count() <= before[1]

    def test_an_error_inside_the_block_closes_too(self, folder: Path) -> None:
        """The next one can open it."""
        with pytest.raises(KeyError), open_by_hand(folder):
            raise KeyError
        open_by_hand(folder).close()


def open_files() -> int:
    """Open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


OTHER_PROCESS = """
import sys
from soardb.connect import connect
from soardb.errors import InUse
try:
    connect(sys.argv[1]).close()
except InUse as error:
    print(error)
    sys.exit(7)
"""

HOLDER = """
import sys, time
from soardb.connect import connect
database = connect(sys.argv[1])
made = database.create_collection("c", 8)
made.upsert([1], [[1.0] * 8])
print("ready", flush=True)
time.sleep(60)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs the code."""
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class TestProcesses:
    def test_the_second_is_told_who_has_it(self, database: Database, folder: Path) -> None:
        """By number, so that the user can find the forgotten notebook."""
        database.create_collection("c", D)
        with python(OTHER_PROCESS, folder) as other:
            said, _ = other.communicate(timeout=60)
        assert other.returncode == 7
        assert f"is open in process {os.getpid()}; close it there" in said
        assert "read_only=True" in said
        database.close()
        with python(OTHER_PROCESS, folder) as other:
            other.communicate(timeout=60)
        assert other.returncode == 0

    def test_the_same_process_cannot_have_it_twice(self, database: Database, folder: Path) -> None:
        """Two writers in one process are no better than in two."""
        with pytest.raises(InUse, match=f"process {os.getpid()}"):
            open_by_hand(folder)

    def test_a_killed_process_leaves_no_lock(self, folder: Path) -> None:
        """The kernel frees it; and what was acknowledged is there."""
        with python(HOLDER, folder) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            with pytest.raises(InUse, match=f"process {other.pid};"):
                open_by_hand(folder)
            other.kill()
            other.wait(60)
        with open_by_hand(folder) as database:
            assert database.get_collection("c").count() == 1

    def test_a_fork_cannot_write(self, database: Database) -> None:
        """Its threads did not come along; without a word the call would wait for ever."""
        made = database.create_collection("c", D)
        made.upsert([1], points(1))
        made._writer._pid += 1  # as it is in a child
        with pytest.raises(Closed, match="before this process was forked; open it anew"):
            made.upsert([2], points(1))
        made._writer._pid -= 1
        assert made.count() == 1


class TestReadOnly:
    @pytest.fixture
    def written(self, database: Database) -> Collection:
        """100 points, a field, a generation."""
        made = database.create_collection("c", D, "l2", schema={"n": "int", "body": "text"})
        made.upsert(range(100), points(100), [{"n": i, "body": "fox"} for i in range(100)])
        made.compact()
        return made

    @pytest.fixture
    def beside(self, written: Collection, folder: Path) -> Any:
        """The same collection, opened for reading while the writer has it."""
        with open_by_hand(folder, read_only=True) as reader:
            yield reader.get_collection("c")

    def test_it_sees_every_commit(self, written: Collection, beside: Collection) -> None:
        """The next read after an acknowledged write has it: points, payloads, texts, deletions."""
        for i in range(30):
            written.upsert([1000 + i], points(1, seed=i), [{"n": 1000 + i, "body": f"w{i}"}])
            assert beside.count() == 101
            assert ids_of(beside.search(points(1, seed=i)[0], 1)) == [1000 + i]
            assert beside.count(F("n") == 1000 + i) == 1
            assert ids_of(beside.search(text=f"w{i}")) == [1000 + i]
            written.delete([1000 + i])
            assert beside.get([1000 + i]) == [None]
        written.update_payload({"n": -1}, ids=[5])
        (point,) = beside.get([5])
        assert point is not None
        assert point.payload == {"n": -1, "body": "fox"}

    def test_it_follows_generations(self, written: Collection, beside: Collection) -> None:
        """The file that it had mapped is deleted meanwhile, and answers until then."""
        for i in range(5):
            written.upsert([i], points(1, seed=50 + i), [{"n": 500 + i}])
            written.delete([90 + i])
            written.compact()
            assert len(beside.search(points(1)[0], 1000)) == 99 - i
            written.upsert([200], points(1, seed=i))
            written.delete([200])
            assert beside.count() == 99 - i
            assert beside.count(F("n") >= 500) == i + 1
            assert {p.id for p in beside.scroll(page_size=1000)} == {
                p.id for p in written.scroll(page_size=1000)
            }

    def test_it_reads_while_much_is_written(self, written: Collection, beside: Collection) -> None:
        """No read fails, and none sees a call half done, through builds and deletions."""
        stop = threading.Event()
        wrong: list[object] = []

        def read() -> None:
            try:
                while not stop.is_set():
                    n = beside.count()
                    if n % 50:
                        wrong.append(n)
                    hits = beside.search(points(1)[0], 30)
                    if len(set(ids_of(hits))) != 30:
                        wrong.append(ids_of(hits))
            except SoarError as error:
                wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for i in range(40):
                written.upsert(range(100, 150), points(50), ack="logged")
                written.upsert(range(50), points(50, seed=i), ack="logged")
                if i % 8 == 7:
                    written.compact()
                written.delete(range(100, 150), ack="logged")
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert not wrong

    def test_it_writes_nothing(self, written: Collection, beside: Collection, folder: Path) -> None:
        """Neither by a call nor in passing."""
        database = Database(folder, read_only=True)
        calls: list[Callable[[], object]] = [
            lambda: beside.upsert([1], points(1)),
            lambda: beside.insert([1000], points(1)),
            lambda: beside.delete([1]),
            lambda: beside.update_payload({"n": 1}, ids=[1]),
            lambda: beside.compact(),
            lambda: database.create_collection("d", D),
            lambda: database.create_collection("c", D, exist_ok=True),
            lambda: database.drop_collection("c"),
            lambda: database.rename_collection("c", "d"),
            lambda: database.set_alias("a", "c"),
        ]
        for call in calls:
            with pytest.raises(ReadOnly, match="read_only=True"):
                call()
        database.close()
        assert written.count() == 100

    def test_it_sees_collections_come_and_go(self, database: Database, folder: Path) -> None:
        """Names and aliases as they are now."""
        with open_by_hand(folder, read_only=True) as reader:
            assert reader.list_collections() == []
            database.create_collection("c", D).upsert([1], points(1))
            assert reader.get_collection("c").count() == 1
            assert reader.list_collections() == ["c"]
            database.set_alias("live", "c")
            assert reader.get_collection("live").count() == 1
            assert reader.list_aliases() == {"live": "c"}
            database.rename_collection("c", "d")
            assert reader.get_collection("d").count() == 1
            database.drop_collection("d")
            assert reader.list_collections() == []
            with pytest.raises(NotFound):
                reader.get_collection("d")

    def test_without_a_writer(self, written: Collection, database: Database, folder: Path) -> None:
        """A database at rest, and one that was left by a crash; nothing is changed."""
        database.close()
        before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.generation")}
        with open_by_hand(folder, read_only=True) as reader:
            assert reader.get_collection("c").count() == 100
            assert np.array_equal(reader.get_collection("c").search(points(100)[3], 1).ids, [3])
        assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.generation")} == before

    def test_there_must_be_a_database(self, tmp_path: Path) -> None:
        """Reading makes none."""
        with pytest.raises(NotFound, match="expected a soardb database"):
            connect(tmp_path / "db", read_only=True)
        assert not (tmp_path / "db").exists()


ENDED = """
import sys, threading
import numpy as np
import soardb
from soardb import database, topk

begun, scores = threading.Event(), np.random.default_rng(0).random((1, 2_000_000), np.float32)

def tend(self, folder, core):
    while not core.stop_build.is_set():
        begun.set()
        topk.topk(scores, 100)

database.Database._tend = tend
for folder in sys.argv[1:]:
    soardb.connect(folder).create_collection("c", 4)
assert begun.wait(60)
sys.exit(7)
"""


def test_an_interpreter_may_end_while_the_worker_is_in_native_code(tmp_path: Path) -> None:
    """It is not aborted. Without care it was in every second run."""
    folders = [str(tmp_path / str(number)) for number in range(4)]
    done = subprocess.run(
        [sys.executable, "-c", ENDED, *folders], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 7, done.stderr
