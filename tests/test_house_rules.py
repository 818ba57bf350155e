"""The rules of CONTRIBUTING.md that a program can check.

    CONTRIBUTING.md -> [test_house_rules.py] -> every source file, every page of docs/

Each rule is one test, and each failure names file and line. What ruff and mypy check already
(unused names, untyped functions, formats) is not repeated here.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import soardb
from soardb.index.plan import BuildParams

ROOT = Path(__file__).resolve().parent.parent

PYTHON_FOLDERS = ["soardb", "proto", "service", "client", "tests", "benchmarks"]
NOT_OURS = {"build", "dist", "site", "data", "results", "__pycache__", "format-1"}
TEXT_SUFFIXES = {
    "", ".cpp", ".hpp", ".h", ".md", ".py", ".pyi", ".sh", ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip

# Roots under which a path belongs to one machine. Joined here, so that this file passes too.
MACHINE_ROOTS = ["home", "root", "work", "tmp", "mnt", "srv", "opt", "Users", "data"]
ABSOLUTE_PATH = re.compile(
    r"""(?:^|[\s"'`(=,:\[])/(?:""" + "|".join(MACHINE_ROOTS) + r")/[\w.]|\b[A-Z]:\\\\?\w"
)

OBJECT_LOADERS = {"cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "shelve"}


def python_files() -> list[Path]:
    return [
        file
        for folder in PYTHON_FOLDERS
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not NOT_OURS.intersection(file.relative_to(ROOT).parts)
        and not file.stem.endswith("_pb2")  # generated
    ]


def text_files() -> Iterator[Path]:
    """Every file of ours that people read, the hidden ones of the root included."""
    for folder, names, files in os.walk(ROOT):
        at_root = Path(folder) == ROOT
        names[:] = sorted(
            name for name in names if name not in NOT_OURS and (name[0] != "." or name == ".ci")
        )
        for name in sorted(files):
            if Path(name).suffix in TEXT_SUFFIXES and (name[0] != "." or at_root):
                yield Path(folder, name)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def at(file: Path, node: ast.AST | int) -> str:
    line = node if isinstance(node, int) else getattr(node, "lineno", 0)
    return f"{file.relative_to(ROOT)}:{line}"


def declared_all(tree: ast.Module) -> list[str] | None:
    """What a module lists in __all__, or None where it has none."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            names: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return names
    return None


def bound_at_top(tree: ast.Module) -> set[str]:
    """The names that a module binds at its top level, by any statement."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    return bound


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in caught
    )


def does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


class TestPublicNames:
    def test_every_name_in_all_exists_and_is_listed_once(self) -> None:
        """A name in __all__ that is not there breaks `from module import *` and the reference."""
        offenders = []
        for file in python_files():
            names = declared_all(tree_of(file))
            if names is None:
                continue
            if len(set(names)) != len(names):
                offenders.append(f"{at(file, 1)}: a name twice in __all__")
            missing = sorted(set(names) - bound_at_top(tree_of(file)))
            offenders += [
                f"{at(file, 1)}: __all__ names {name}, which is not here" for name in missing
            ]
        assert not offenders

    def test_all_of_soardb_holds_every_public_name(self) -> None:
        """What can be imported from soardb without an underscore is a promise, so it is listed."""
        names = declared_all(tree_of(ROOT / "soardb/__init__.py"))
        assert names is not None, "soardb/__init__.py declares no __all__"
        assert sorted(names) == sorted(soardb.__all__)
        tree = tree_of(ROOT / "soardb/__init__.py")
        for_type_checkers = [
            statement for node in tree.body if isinstance(node, ast.If) for statement in node.body
        ]
        imported = {
            alias.asname or alias.name
            for node in [*tree.body, *for_type_checkers]
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "soardb"
            for alias in node.names
        }
        public = {name for name in imported if not name.startswith("_")}
        assert public - set(names) == set()

    def test_every_public_name_can_be_had(self) -> None:
        """Lazily loaded names included."""
        for name in soardb.__all__:
            assert getattr(soardb, name) is not None

    def test_the_docs_name_every_public_name(self) -> None:
        """A public name that no page mentions does not exist for a reader."""
        pages = "\n".join(page.read_text("utf-8") for page in sorted(ROOT.glob("docs/**/*.md")))
        unnamed = [
            name for name in soardb.__all__ if not re.search(rf"\b{re.escape(name)}\b", pages)
        ]
        assert not unnamed

    def test_the_guide_lists_every_option_of_an_index_with_its_default(self) -> None:
        """A default that the page has wrong is worse than one that it leaves out."""
        guide = (ROOT / "docs/index-guide.md").read_text("utf-8")
        rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", guide, re.M))
        for field in dataclasses.fields(BuildParams):
            assert rows.get(field.name) == repr(field.default), field.name

    def test_the_reference_names_only_what_exists(self) -> None:
        """Each `::: a.b.c` of docs/api.md is a module or a name in one."""
        for dotted in re.findall(r"^::: (\S+)", (ROOT / "docs/api.md").read_text("utf-8"), re.M):
            module, _, name = dotted.rpartition(".")
            owner = importlib.import_module(module) if module else importlib.import_module(dotted)
            if module and not hasattr(owner, name):
                importlib.import_module(dotted)


class TestDocstrings:
    def test_every_module_says_where_the_reader_is(self) -> None:
        """One line names the module; what it neighbours, why and what it leaves out needs more."""
        offenders = [
            at(file, 1)
            for file in python_files()
            if tree_of(file).body and len((ast.get_docstring(tree_of(file)) or "").splitlines()) < 2
        ]
        assert not offenders


class TestErrors:
    def test_no_bare_except(self) -> None:
        """It catches the interrupt of the user and the errors of the author alike."""
        offenders = [
            at(file, node)
            for file in python_files()
            for node in ast.walk(tree_of(file))
            if isinstance(node, ast.ExceptHandler) and node.type is None
        ]
        assert not offenders

    def test_no_exception_is_swallowed_unseen(self) -> None:
        """`except Exception: pass` turns a wrong state into a wrong answer."""
        offenders = [
            at(file, node)
            for file in python_files()
            for node in ast.walk(tree_of(file))
            if isinstance(node, ast.ExceptHandler) and is_broad(node) and does_nothing(node.body)
        ]
        offenders += [
            at(file, node)
            for file in python_files()
            for node in ast.walk(tree_of(file))
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("suppress")
            and any(ast.unparse(kind) in ("Exception", "BaseException") for kind in node.args)
        ]
        assert not offenders


class TestSafety:
    def test_nothing_unpickles(self) -> None:
        """A file that is loaded must not be able to run code."""
        offenders = []
        for file in python_files():
            for node in ast.walk(tree_of(file)):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                    names = [] if getattr(node.value, "value", None) is False else ["pickle"]
                if OBJECT_LOADERS.intersection(name.partition(".")[0] for name in names):
                    offenders.append(at(file, node))
        assert not offenders


class TestPortability:
    def test_no_file_names_a_path_of_one_machine(self) -> None:
        """A path that exists here exists nowhere else."""
        offenders = []
        for file in text_files():
            if file.name == "LICENSE":
                continue
            for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
                if ABSOLUTE_PATH.search(line):
                    offenders.append(f"{at(file, number)}: {line.strip()}")
        assert not offenders
