"""Settings files are read as TOML, or refused in one line that names the file."""

import pytest

from kontext.errors import BadConfig
from kontext.settings_files import read_toml


def test_tables_and_values_are_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('port = 80\n[loras]\nalways = ["knit"]\n')
    assert read_toml(path) == {"port": 80, "loras": {"always": ["knit"]}}


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_what_is_not_toml_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(BadConfig, match="a.toml is not TOML"):
        read_toml(path)


def test_what_cannot_be_read_is_refused_with_its_name(tmp_path):
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(BadConfig, match="cannot be read"):
            read_toml(path)
