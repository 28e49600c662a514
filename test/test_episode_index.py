"""episodes.jsonl: appended to, never rewritten; a label only where somebody gave one; a torn line costs only itself."""

from pathlib import Path

import pytest

from como_core.cli.main import main
from como_core.config import ConfigError
from como_core.errors import ComoError
from como_core.formats.episode_index import INDEX, EpisodeEntry, append_entry, label, read_index


def test_the_newest_line_of_a_name_stands_and_older_ones_stay(tmp_path: Path) -> None:
    assert read_index(tmp_path) == {}
    for name in ("a", "b"):
        append_entry(tmp_path, EpisodeEntry(name, 12.5, 3.0, 40, "open", faults=("gap",)))
    first = (tmp_path / INDEX).read_bytes()
    assert main(["data", "label", str(tmp_path), "a", "success"]) == 0
    assert label(tmp_path, "b", False).success is False
    found = read_index(tmp_path)
    assert [(entry.name, entry.success) for entry in found.values()] == [("a", True), ("b", False)]
    assert found["a"].faults == ("gap",) and found["a"].start_s == 12.5 and found["a"].written_utc
    assert (tmp_path / INDEX).read_bytes().startswith(first) and len(first.splitlines()) == 2
    with pytest.raises(ComoError, match=r"no episode 'ab'; did you mean 'a'|no episode 'ab'"):
        label(tmp_path, "ab", True)


def test_a_line_that_a_crash_has_cut_off_costs_only_itself(tmp_path: Path) -> None:
    append_entry(tmp_path, EpisodeEntry("a", 0.0, 3.0, 40))
    whole = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(whole + whole[:30])
    append_entry(tmp_path, EpisodeEntry("b", 0.0, 3.0, 40))
    assert list(read_index(tmp_path)) == ["a", "b"]


def test_another_format_or_key_is_named_with_its_line(tmp_path: Path) -> None:
    append_entry(tmp_path, EpisodeEntry("a", 0.0, 3.0, 40))
    line = (tmp_path / INDEX).read_text()
    (tmp_path / INDEX).write_text(line + line.replace("como-episodes-1", "como-episodes-9"))
    with pytest.raises(ComoError, match="episodes.jsonl:2: is not of the format"):
        read_index(tmp_path)
    (tmp_path / INDEX).write_text(line.replace('"seconds"', '"secnods"'))
    with pytest.raises(ConfigError, match="secnods"):
        read_index(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / INDEX).mkdir()
    with pytest.raises(ComoError, match="episodes.jsonl: cannot be written: .* the bag a itself is kept"):
        append_entry(tmp_path, EpisodeEntry("a", 0.0, 3.0, 40))
