"""Who may import whom, read from the syntax trees and once tried in a fresh interpreter.

    ARCHITECTURE.md -> [test_layers.py] -> every .py file of the four packages

The tables below are the boundaries of ARCHITECTURE.md in a form that fails. A new module needs one
line in LAYERS; a module that wants an import which the tables forbid needs a better idea first.

Imports under `if TYPE_CHECKING` count like any other between our own packages, as a type is
knowledge too; they do not count against optional dependencies, as they load nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SOURCES = {
    "soardb": ROOT / "soardb",
    "soardb_proto": ROOT / "proto/soardb_proto",
    "soardb_service": ROOT / "service/soardb_service",
    "soardb_client": ROOT / "client/soardb_client",
}

MAY_IMPORT: dict[str, set[str]] = {
    "soardb_proto": set(),
    "soardb": set(),
    "soardb_client": {"soardb", "soardb_proto"},  # of soardb the VOCABULARY alone
    "soardb_service": {"soardb", "soardb_proto"},
}

# Imports across packages that the table above forbids and this project wants nevertheless: which
# part of soardb, and what it imports, inside the function that needs it.
EXCEPTIONS: set[tuple[str, str]] = {
    ("soardb.connect", "soardb_client"),  # the one door: soardb.connect("grpc://...")
    ("soardb.cli", "soardb_service"),  # soardb serve, soardb keys
}

# What the client shares with the engine: the words that both speak. None of these may load ENGINE.
VOCABULARY: set[str] = {
    "soardb.arrays",
    "soardb.batching",
    "soardb.connect",
    "soardb.curve",
    "soardb.errors",
    "soardb.filters.check",
    "soardb.filters.expr",
    "soardb.filters.json_form",
    "soardb.filters.parse",
    "soardb.filters.scan",
    "soardb.hits",
    "soardb.kernels.layout",  # the types of arrays
    "soardb.metrics",
    "soardb.models.info",
    "soardb.options",
    "soardb.pages",
    "soardb.pipelines.agent.told",
    "soardb.points",
    "soardb.schema",
}

ENGINE = [
    "apsw",
    "soardb.collection",
    "soardb.database",
    "soardb.index",
    "soardb.kernels._native",
    "soardb.kernels.dispatch",
    "soardb.kernels.native",
    "soardb.kernels.portable",
    "soardb.storage",
]

# The parts of soardb, lowest first. A part may import its own row and the rows above it here.
LAYERS: list[set[str]] = [
    {"errors"},
    {"deadline"},
    {"arrays", "batching", "kernels", "metrics", "schema", "storage", "vectors_io"},
    {"clustering", "curve", "filters", "hits", "options", "pages", "points"}
    | {"quantization", "soar", "topk"},
    {"index"},
    {"budget", "evaluate", "rwlock", "table"},
    {"filter_curves", "generation"},
    {"contents", "fulltext", "grouping"},
    {"core", "search"},
    {"writer", "snapshot"},
    {"promises"},
    {"compaction", "loading", "once", "reads"},
    {"query"},
    {"ask"},
    {"tuning"},
    {"collection"},
    {"checkup", "database"},
    {"exchange"},
    {"cluster"},
    {"connect"},
    {"models"},
    {"pipelines"},
    {"cli", "demo", "integrations"},
]

# What the base install does not hold, or what is slow to load, and who may import it when loaded
# itself. Others import it inside the function that needs it.
AT_MODULE_LEVEL: dict[str, set[str]] = {
    "anyio": {"soardb.integrations.mcp"},
    "apsw": {"soardb.storage", "soardb.cluster.handover"},
    "h5py": set(),
    "langchain_core": {"soardb.integrations.langchain"},
    "llama_index": {"soardb.integrations.llama_index", "soardb.integrations.llama_filters"},
    "matplotlib": set(),
    "mcp": {"soardb.integrations.mcp"},
    "numba": {"soardb.kernels.portable", "soardb.kernels.topk_portable"},
    "openai": set(),
    "peft": set(),
    "pyarrow": set(),
    "ray": {"soardb.cluster"},
    "rich": {"soardb.cli"},
    "safetensors": {"soardb.models.checkpoint", "soardb.models.registry"},
    "sklearn": {"soardb.pipelines.decide.estimators"},
    "sqlglot": set(),
    "torch": {
        "soardb.models",
        "soardb.pipelines.agent.local",
        "soardb.pipelines.agent.tuning",
        "soardb.pipelines.distillspec",
        "soardb.pipelines.embed",
        "soardb.pipelines.hire_lm",
        "soardb.pipelines.raptr",
        "soardb.pipelines.spactor",
        "soardb.pipelines.speculate",
        "soardb.pipelines.tandem",
    },
    "typer": {"soardb.cli"},
    "xllamacpp": set(),
}

NOT_LOADED_BY_IMPORT = [
    "grpc",
    "h5py",
    "langchain_core",
    "llama_index",
    "matplotlib",
    "mcp",
    "numba",
    "openai",
    "peft",
    "pyarrow",
    "ray",
    "rich",
    "safetensors",
    "sklearn",
    "soardb_client",
    "soardb_proto",
    "soardb_service",
    "sqlglot",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
    "xllamacpp",
]


@dataclass(frozen=True)
class Import:
    """One imported module, as `importer` line `line` names it."""

    importer: str
    imported: str
    line: int
    at_module_level: bool

    @property
    def top(self) -> str:
        return self.imported.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: imports {self.imported}"


def modules_of(package: str) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of each module of a package, in a stable order."""
    folder = SOURCES[package]
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports_in(tree: ast.Module, importer: str, is_package: bool) -> Iterator[Import]:
    """Every import of one module, relative ones resolved."""
    loads_nothing = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.unparse(guard.test)
        for statement in guard.body
        for node in ast.walk(statement)
    }
    in_function = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        runs_on_load = id(node) not in loads_nothing and id(node) not in in_function
        for name in imported_names(node, importer, is_package):
            yield Import(importer, name, getattr(node, "lineno", 0), runs_on_load)


def imported_names(node: ast.AST, importer: str, is_package: bool) -> list[str]:
    """The modules that one statement names; `from package import x` may mean package.x."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = importer.split(".")
            parents = parents[: len(parents) - node.level + is_package]
            base = ".".join([*parents, base] if base else parents)
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


def all_imports(package: str) -> list[Import]:
    return [
        found
        for module, file in modules_of(package)
        for found in imports_in(
            ast.parse(file.read_text("utf-8"), str(file)), module, file.name == "__init__.py"
        )
    ]


def part_of(module: str) -> str:
    """soardb.index.ivf -> index; the package itself -> "" """
    return [*module.split("."), ""][1]


def is_within(module: str, place: str) -> bool:
    """Whether it is a module or package, or something in it."""
    return module == place or module.startswith(place + ".")


def is_excepted(found: Import) -> bool:
    return not found.at_module_level and any(
        is_within(found.importer, importer) and found.top == imported
        for importer, imported in EXCEPTIONS
    )


def layer_of(part: str) -> int:
    for depth, parts in enumerate(LAYERS):
        if part in parts:
            return depth
    pytest.fail(f"soardb.{part} stands in no row of LAYERS; say where it belongs")


@pytest.mark.parametrize("package", SOURCES)
class TestPackages:
    def test_imports_only_the_packages_it_may(self, package: str) -> None:
        """The engine knows nothing of the wire, and a client does not drag the engine along."""
        forbidden = set(SOURCES) - MAY_IMPORT[package] - {package}
        offenders = [
            str(found)
            for found in all_imports(package)
            if found.top in forbidden and not is_excepted(found)
        ]
        assert not offenders

    def test_declares_its_types(self, package: str) -> None:
        """Without py.typed, mypy ignores every annotation of an installed package."""
        assert (SOURCES[package] / "py.typed").is_file()

    def test_imports_no_folder_of_the_repository(self, package: str) -> None:
        """`tests` and `benchmarks` use the package, never the other way round."""
        folders = {"tests", "benchmarks", "native", "service", "client", "proto"}
        assert not [str(found) for found in all_imports(package) if found.top in folders]


class TestEngine:
    def test_every_part_has_its_layer(self) -> None:
        """A module outside the table would be outside the rule."""
        for module, _ in modules_of("soardb"):
            if part_of(module):
                layer_of(part_of(module))

    def test_no_part_imports_one_above_it(self) -> None:
        """Nothing below knows what is above it, so a part can be read with those below alone."""
        offenders = [
            str(found)
            for found in all_imports("soardb")
            if found.top == "soardb"
            and part_of(found.importer)
            and layer_of(part_of(found.imported)) > layer_of(part_of(found.importer))
        ]
        assert not offenders

    def test_optional_dependencies_are_imported_where_they_are_used(self) -> None:
        """The base install imports and searches; an extra is asked for when its part is called."""
        offenders = [
            str(found)
            for found in all_imports("soardb")
            if found.at_module_level
            and found.top in AT_MODULE_LEVEL
            and not any(
                is_within(found.importer, allowed) for allowed in AT_MODULE_LEVEL[found.top]
            )
        ]
        assert not offenders

    def test_every_other_import_is_numpy_or_the_standard_library(self) -> None:
        """The base install needs nothing that is not named in the tables of this file."""
        known = {"numpy", "soardb", *AT_MODULE_LEVEL, *sys.stdlib_module_names}
        offenders = [
            str(found)
            for found in all_imports("soardb")
            if found.at_module_level and found.top not in known
        ]
        assert not offenders


class TestVocabulary:
    def test_the_client_imports_of_the_engine_its_vocabulary_alone(self) -> None:
        """Errors, filters and results are the same on both sides; searching is not the client's."""
        offenders = [
            str(found)
            for found in all_imports("soardb_client")
            if found.top == "soardb"
            and not any(is_within(found.imported, word) for word in VOCABULARY)
        ]
        assert not offenders

    def test_each_module_of_it_is_there(self) -> None:
        """A name left over in the table would allow what nobody meant."""
        assert {module for module, _ in modules_of("soardb")} >= VOCABULARY

    def test_it_loads_vocabulary_alone(self) -> None:
        """Read from the syntax trees, so that the first wrong import is named with its line."""
        offenders = [
            str(found)
            for found in all_imports("soardb")
            if found.importer in VOCABULARY
            and found.at_module_level
            and found.top == "soardb"
            and not any(is_within(found.imported, word) for word in VOCABULARY)
        ]
        assert not offenders


class TestFreshInterpreter:
    def test_importing_soardb_loads_nothing_heavy(self) -> None:
        """`import soardb` is on the path of every script, and of every client."""
        assert loaded_by("import soardb", NOT_LOADED_BY_IMPORT + ENGINE) == []

    @pytest.mark.parametrize("module", sorted(VOCABULARY))
    def test_no_word_of_the_vocabulary_loads_the_engine(self, module: str) -> None:
        """A client that takes filters from soardb must not need a compiled kernel for it."""
        assert loaded_by(f"import {module}", ENGINE) == []

    def test_importing_the_client_does_not_load_the_engine(self) -> None:
        """A client runs where no kernel was ever compiled."""
        assert loaded_by("import soardb_client", [*ENGINE, "soardb_service", "numba"]) == []

    def test_a_name_stays_what_it_is_whatever_is_imported_before(self) -> None:
        """`connect` is a function and a module; loading names late must not mix the two up."""
        statement = (
            "import soardb.connect, soardb\n"
            "from soardb.connect import connect\n"
            "assert soardb.connect is connect, soardb.connect\n"
            "assert set(soardb.__all__) <= set(dir(soardb))\n"
            "assert not hasattr(soardb, 'no_such_name')"
        )
        assert loaded_by(statement, ENGINE) == []


def loaded_by(statement: str, suspects: list[str]) -> list[str]:
    """Which of the suspects are in sys.modules after a statement, in an interpreter of its own."""
    script = (
        f"import sys\n{statement}\nprint('loaded', *(m for m in {suspects!r} if m in sys.modules))"
    )
    # -P: the source tree must not hide the installed package.
    run = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    # An editable install may speak of its rebuild before.
    word, *loaded = run.stdout.splitlines()[-1].split()
    assert word == "loaded"
    return loaded
