"""WordNet's synsets one by one: their words, the file that they were written in, what they mean.

    packages.py -> [synsets.py] -> bench_spactor.py, bench_encoders.py

words.py reads glosses alone, which is what the older benchmarks ask for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.packages import debian_files
from soardb.errors import CorruptStorage

__all__ = ["PARTS", "Synset", "read_synsets", "synsets_of"]

PARTS = ("noun", "verb", "adj", "adv")
_MARK = re.compile(r"\((?:p|a|ip)\)$")  # where an adjective may stand
_EXAMPLE = re.compile(r'"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Synset:
    """words with blanks; file: number of the lexicographer's file, 3 to 28 of nouns; gloss: the
    definition and examples.
    """

    words: tuple[str, ...]
    file: int
    gloss: str

    @property
    def definition(self) -> str:
        """The gloss without its examples."""
        return self.gloss.partition('"')[0].strip().rstrip(";").strip()

    @property
    def examples(self) -> list[str]:
        """What stands in quotes in the gloss."""
        return _EXAMPLE.findall(self.gloss)


def read_synsets(package: Path, parts: Sequence[str] = PARTS) -> list[Synset]:
    """Of these parts of speech in the order of their files; a gloss that several share, once."""
    wanted = tuple(f"./usr/share/wordnet/data.{part}" for part in parts)
    found = dict(debian_files(package, wanted))
    if missing := [path for path in wanted if path not in found]:
        raise CorruptStorage(f"{package}: expected WordNet's {', '.join(missing)}; not in it")
    every = [one for path in wanted for one in synsets_of(found[path].decode())]
    return list({one.gloss: one for one in reversed(every)}.values())[::-1]


def synsets_of(text: str) -> list[Synset]:
    """Of one data file: a synset a line; two blanks mark licence."""
    found = []
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        plain = tuple(_MARK.sub("", word).replace("_", " ") for word in words)
        found.append(Synset(plain, int(fields[1]), gloss.strip()))
    return found
