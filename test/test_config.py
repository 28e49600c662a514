"""Configuration: every key is checked, errors say where, and what was written reads back equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from como_core import config
from como_core.config import ConfigError


@dataclass(frozen=True)
class Optimiser:
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"


@dataclass(frozen=True)
class Train:
    steps: int
    name: str = "run"
    fast: bool = False
    out: Path = Path("runs")
    seed: int | None = None
    sizes: tuple[int, int] = (64, 64)
    tags: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    optimiser: Optimiser = field(default_factory=Optimiser)

    def __post_init__(self) -> None:
        if self.steps <= 0:
            raise ValueError(f"steps must be above 0, got {self.steps}")


def write(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_loads_every_kind_of_value(tmp_path: Path) -> None:
    path = write(tmp_path, """
steps: 10
name: small
fast: true
out: runs/small
seed: 4
sizes: [32, 48]
tags: [a, b]
weights: {rgb: 1, flow: 0.5}
optimiser:
  learning_rate: 1
  schedule: constant
""")
    assert config.load(Train, path) == Train(
        10, "small", True, Path("runs/small"), 4, (32, 48), ["a", "b"], {"rgb": 1.0, "flow": 0.5},
        Optimiser(1.0, "constant"))
    assert isinstance(config.load(Train, path).weights["rgb"], float)


@pytest.mark.parametrize(("text", "message"), [
    ("steps: 1\nstepz: 2\n", r"train\.yaml:2: unknown key 'stepz'; did you mean 'steps'\?"),
    ("steps: 1\noptimiser:\n  learning_rat: 1\n",
     r"train\.yaml:3: unknown key 'optimiser\.learning_rat'; did you mean 'learning_rate'\?"),
    ("steps: 1\nzzz: 2\n", r"unknown key 'zzz'; valid keys: fast, name, optimiser"),
    ("name: x\n", r"train\.yaml:1: 'steps' is missing \(Train needs it\)"),
    ("", r"'steps' is missing"),
    ("steps: many\n", r"train\.yaml:1: steps: expected a whole number, got 'many' \(str\)"),
    ("steps: true\n", r"steps: expected a whole number, got True \(bool\)"),
    ("steps: 1.5\n", r"steps: expected a whole number, got 1\.5 \(float\)"),
    ("steps: 1\nfast: 1\n", r"train\.yaml:2: fast: expected true or false, got 1"),
    ("steps: 1\nname: 3\n", r"name: expected text, got 3"),
    ("steps: 1\nsizes: [1]\n", r"sizes: expected a list of 2 values"),
    ("steps: 1\ntags: a\n", r"tags: expected a list, got 'a'"),
    ("steps: 1\ntags: [a, 2]\n", r"tags\[1\]: expected text, got 2"),
    ("steps: 1\nweights: {rgb: .nan}\n", r"weights\.rgb: expected a number"),
    ("steps: 1\nweights: 3\n", r"weights: expected a mapping"),
    ("steps: 1\noptimiser: fast\n", r"optimiser: expected a mapping \(Optimiser\)"),
    ("steps: 1\noptimiser: {schedule: cosin}\n",
     r"schedule: 'cosin' is not one of constant, cosine; did you mean 'cosine'\?"),
    ("steps: 1\nsteps: 2\n", r"train\.yaml:2: key 'steps' stands twice \(first at .*train\.yaml:1\)"),
    ("steps: 0\n", r"Train: steps must be above 0, got 0"),
    ("steps: [\n", r"not valid YAML"),
    ("name: !!python/name:os.system x\n", r"train\.yaml:1: .*cannot be read as plain data: could not determine"),
    ("steps: 2026-13-45\n", r"train\.yaml:1: '2026-13-45' cannot be read as plain data: month must be"),
    ("steps: &a [*a]\n", r"train\.yaml: a value refers to itself"),
    ("- a\n", r"expected a mapping \(Train\)"),
])
def test_bad_configuration_says_where_and_what(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(Train, write(tmp_path, text))


def test_a_missing_file_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file \(expected the YAML of a Train\)"):
        config.load(Train, tmp_path / "none.yaml")


def test_a_binary_file_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(Train, tmp_path / "train.yaml")


def test_overrides_replace_and_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "steps: 1\nname: a\n")
    assert config.load(Train, path, overrides={"steps": 5}) == Train(5, "a")
    with pytest.raises(ConfigError, match=r"override 'stepz': unknown key 'stepz'"):
        config.load(Train, path, overrides={"stepz": 5})
    with pytest.raises(ConfigError, match=r"override 'steps': steps: expected a whole number, got 'x'"):
        config.load(Train, path, overrides={"steps": "x"})


def test_build_from_plain_values() -> None:
    assert config.build(Train, {"steps": 2, "optimiser": {"learning_rate": 2}}) == Train(2, optimiser=Optimiser(2.0))
    with pytest.raises(ConfigError, match=r"^checkpoint: unknown key 'a'"):
        config.build(Train, {"a": 1}, where="checkpoint")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


@given(train=st.builds(
    Train, steps=st.integers(1, 10**9), name=NAMES, fast=st.booleans(), seed=st.none() | st.integers(-9, 9),
    out=st.just(Path("runs/x")), sizes=st.tuples(st.integers(), st.integers()), tags=st.lists(NAMES),
    weights=st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False)),
    optimiser=st.builds(Optimiser, st.floats(allow_nan=False, allow_infinity=False), st.just("constant"))))
def test_what_is_saved_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, train: Train) -> None:
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    config.save(train, path)
    assert config.load(Train, path) == train


@pytest.mark.parametrize(("a", "b", "difference"), [
    (Train(1), Train(1), None),
    (Train(1), Train(2), ("steps", 1, 2)),
    (Train(1), Train(1, optimiser=Optimiser(2.0)), ("optimiser.learning_rate", 1e-3, 2.0)),
    (Train(1, weights={"a": 1.0}), Train(1), ("weights.a", 1.0, "absent")),
    (Train(1), Train(1, weights={"a": 1.0}), ("weights.a", "absent", 1.0)),
    (Train(1, tags=["a"]), Train(1, tags=["b"]), ("tags", ["a"], ["b"])),
])
def test_first_difference_is_named(a: Train, b: Train, difference: tuple[str, Any, Any] | None) -> None:
    assert config.first_difference(a, b) == difference
