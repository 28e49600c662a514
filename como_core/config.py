"""Dataclasses from YAML: every key is checked, and an error names file, line, key and the nearest valid key.

    config = load(TrainConfig, "config/policy/diffusion.yaml", overrides={"steps": 500})

Supported field types: str, int, float, bool, Path, Literal, Optional, list, tuple, dict[str, X] and nested dataclasses.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from como_core.errors import ComoError

T = TypeVar("T")

_LARGEST_BITS = 1023  # of whole numbers, which a float holds too


class ConfigError(ComoError, ValueError):
    """A configuration that cannot be used; the message says where, what was given and what was expected."""


@dataclasses.dataclass(frozen=True)
class _Located:
    """A YAML value with the place it was read from."""

    value: Any
    where: str


def load(cls: type[T], path: str | Path, overrides: Mapping[str, Any] | None = None,
         base: str | Path | None = None) -> T:
    """Build dataclass `cls` from a YAML file; `overrides` replaces top-level keys.

    `base` is a YAML file that gives what `path` leaves out, at any depth. Raises ConfigError for unreadable YAML,
    unknown or missing keys and values of the wrong type.
    """
    tree = _tree(cls, Path(path))
    if base is not None:
        tree = _merged(_tree(cls, Path(base)), tree)
    if overrides:
        if not isinstance(tree.value, dict):
            raise ConfigError(f"{tree.where}: expected a mapping for {cls.__name__}, got {_kind(tree.value)}")
        tree.value.update({key: _Located(value, f"override {key!r}") for key, value in overrides.items()})
    return _convert(tree, cls, "")


def build(cls: type[T], data: Mapping[str, Any], where: str = "config") -> T:
    """Build dataclass `cls` from plain nested mappings; `where` is named in errors."""
    return _convert(_Located(dict(data), where), cls, "")


def to_dict(config: Any) -> Any:
    """Plain dicts, lists and scalars of a dataclass, ready for YAML or JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def save(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML that `load` reads back to an equal object."""
    Path(path).write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: Any) -> str:
    """The YAML text of a dataclass, keys in declaration order."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=110)


def with_options(settings: T, **options: Any) -> T:
    """`settings` with dotted keys replaced: with_options(settings, **{"loss.kl": 1e-6, "latent_size": 32}).

    Raises ConfigError for an unknown key or a value that does not fit.
    """
    tree = to_dict(settings)
    for key, value in options.items():
        *parents, leaf = key.split(".")
        place = tree
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                raise ConfigError(f"option {key!r}: unknown key {parent!r}; {nearest(parent, place)}")
            place = place[parent]
        place[leaf] = value
    return build(type(settings), tree, "options")


def parse_options(given: Iterable[str], **flags: tuple[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of texts such as "loss.kl=1e-6", values as in YAML, and of options that set a key as well.

    flags  key -> such an option and its value, None where it was not given: **{"loop.steps": ("--steps", steps)}

    Raises ConfigError for other texts, and for a key that is set twice.
    """
    options = {key: value for key, (_, value) in flags.items() if value is not None}
    said = {key: f"{flags[key][0]} {value}" for key, value in options.items()}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"option {text!r}: expected KEY=VALUE, such as loss.kl=1e-6")
        if key in said:
            raise ConfigError(f"{said[key]} and --set {text} say the same key; give one of them")
        said[key] = f"--set {text}"
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"option {text!r}: {value!r} is no value: {reason}") from error
        if isinstance(options[key], bool) and value.lower() not in ("true", "false"):
            options[key] = value  # precision=no is no falsehood
        if isinstance(options[key], str):
            with suppress(ValueError):  # to YAML 1e-6 is a text, 1.0e-6 a number
                options[key] = float(value)
    return options


def nearest(key: str, valid: typing.Iterable[str]) -> str:
    """A hint such as "; did you mean 'topic'?" for a misspelt key, or the list of valid ones."""
    valid = list(valid)
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid keys: {', '.join(sorted(valid))}"


def first_difference(a: Any, b: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Dotted key and both values where two configurations first differ; None where they are equal."""
    a, b = to_dict(a), to_dict(b)
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            if key not in a or key not in b:
                return f"{path}{key}", a.get(key, "absent"), b.get(key, "absent")
            found = first_difference(a[key], b[key], f"{path}{key}.")
            if found:
                return found
        return None
    return None if a == b else (path.rstrip("."), a, b)


def with_defaults(saved: Any, settings: Any) -> Any:
    """Plain mappings that were saved of earlier `settings`, and the defaults of the keys that have been added since.

    A key that was not there then had no effect, which is what its default must mean.
    """
    if not isinstance(saved, Mapping):
        return saved
    if isinstance(settings, Mapping):
        return {key: with_defaults(value, settings.get(key)) for key, value in saved.items()}
    if not dataclasses.is_dataclass(settings):
        return saved
    found = {key: with_defaults(value, getattr(settings, key, None)) for key, value in saved.items()}
    for item in dataclasses.fields(settings):
        factory: Any = item.default_factory
        if item.name not in found and item.default is not dataclasses.MISSING:
            found[item.name] = to_dict(item.default)
        elif item.name not in found and factory is not dataclasses.MISSING:
            found[item.name] = to_dict(factory())
    return found


def _tree(cls: type, path: Path) -> _Located:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file (expected the YAML of a {cls.__name__})")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: lists or mappings within each other hundreds deep; expected the YAML of a "
                          f"{cls.__name__}") from error
    try:
        return _Located({}, str(path)) if node is None else _locate(node, path)
    except RecursionError as error:
        raise ConfigError(f"{path}: a value refers to itself (&name ... *name); write it out") from error


def _merged(base: _Located, over: _Located) -> _Located:
    """`base` with the values of `over`, mapping by mapping."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    values = {name: _merged(base.value[name], item) if name in base.value else item
              for name, item in over.value.items()}
    return _Located({**base.value, **values}, over.where)


def _locate(node: yaml.Node, path: Path) -> _Located:
    where = f"{path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, _Located] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = f"{path}:{key_node.start_mark.line + 1}"
            if key in mapping:
                raise ConfigError(f"{line}: key {key!r} stands twice (first at {mapping[key].where})")
            mapping[key] = dataclasses.replace(_locate(value_node, path), where=line)
        return _Located(mapping, where)
    if isinstance(node, yaml.SequenceNode):
        return _Located([_locate(item, path) for item in node.value], where)
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # a tag that is not plain data, or a date that does not exist
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where}: {node.value!r} cannot be read as plain data: {reason}") from error
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        raise ConfigError(f"{where}: a whole number of {len(node.value)} digits, {node.value[:12]}...; expected one "
                          f"of at most {_LARGEST_BITS} bits")
    return _Located(value, where)


def _convert(item: Any, expected: Any, key: str) -> Any:
    value, where = (item.value, item.where) if isinstance(item, _Located) else (item, "config")
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)

    def child(inner: Any, kind: Any, name: str) -> Any:
        return _convert(inner if isinstance(inner, _Located) else _Located(inner, where), kind, name)

    def refuse(wanted: str) -> ConfigError:
        return ConfigError(f"{where}: {key or 'the file'}: expected {wanted}, got {_kind(_plain(value))}")

    if expected is Any:
        return _plain(value)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [a for a in arguments if a is not type(None)]
        if len(options) == 1:
            return _convert(item, options[0], key)
        for option in options:
            try:
                return _convert(item, option, key)
            except ConfigError:
                continue
        raise refuse(" or ".join(getattr(o, "__name__", str(o)) for o in options))
    if origin is Literal:
        if value not in arguments:
            given = _plain(value)
            hint = nearest(str(given), [str(a) for a in arguments])
            raise ConfigError(f"{where}: {key}: {given!r} is not one of {', '.join(map(str, arguments))}; {hint}")
        return value
    if dataclasses.is_dataclass(expected):
        if isinstance(value, expected):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise refuse(f"a mapping ({expected.__name__})")  # type: ignore[union-attr]
        return _dataclass(value, expected, key, where)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise refuse("a list")
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            if len(value) != len(arguments):
                raise refuse(f"a list of {len(arguments)} values")
            return tuple(child(v, a, f"{key}[{i}]") for i, (v, a) in enumerate(zip(value, arguments, strict=True)))
        return origin(child(v, arguments[0], f"{key}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise refuse("a mapping")
        return {str(k): child(v, arguments[1], f"{key}.{k}") for k, v in value.items()}
    if expected is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise refuse("a number")
        return float(value)
    if expected is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise refuse("a whole number")
    if expected is Path and isinstance(value, (str, Path)):
        return Path(value)
    if isinstance(expected, type) and isinstance(value, expected):
        return value
    raise refuse({"str": "text", "bool": "true or false"}.get(getattr(expected, "__name__", ""), str(expected)))


def _dataclass(mapping: Mapping[str, Any], cls: Any, key: str, where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    prefix = f"{key}." if key else ""
    for name, item in mapping.items():
        if name not in fields:
            line = item.where if isinstance(item, _Located) else where
            raise ConfigError(f"{line}: unknown key {prefix + str(name)!r}; {nearest(str(name), fields)}")
    values = {}
    for name, field in fields.items():
        if name in mapping:
            inner = mapping[name] if isinstance(mapping[name], _Located) else _Located(mapping[name], where)
            values[name] = _convert(inner, hints[name], prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: {prefix + name!r} is missing ({cls.__name__} needs it)")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{_line_of(str(error), mapping, where)}: {key or cls.__name__}: {error}") from error


def _line_of(message: str, mapping: Mapping[str, Any], where: str) -> str:
    """Where the key stands with which a refusal begins, such as limits.lower; `where` for any other."""
    inner: Any = mapping
    for name in re.split(r"[^\w.]", message, maxsplit=1)[0].split("."):
        item = inner.get(name) if isinstance(inner, Mapping) else None
        if not isinstance(item, _Located):
            break
        inner, where = item.value, item.where
    return where


def _plain(value: Any) -> Any:
    if isinstance(value, _Located):
        return _plain(value.value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _kind(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
