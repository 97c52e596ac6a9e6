import pytest
from pydantic import SecretStr

from strep.control.key import find_key
from strep.specs import ConfigError


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_text("KEY_of_the_file\n")
    return file


def test_key_is_found_in_the_documented_order(key_file):
    other = key_file.with_name("other")
    other.write_text("KEY_of_the_variable_file")
    environment = {
        "STREP_API_KEY": "KEY_of_ours",
        "STREP_API_KEY_FILE": str(other),
        "TELNYX_API_KEY": "KEY_of_the_carrier",
    }

    def found(key=None, file=None):
        return find_key(key, file, environment).get_secret_value()

    assert found("KEY_given", key_file) == "KEY_given"
    assert found(SecretStr("KEY_given"), key_file) == "KEY_given"
    assert found(None, key_file) == "KEY_of_the_file"
    assert found() == "KEY_of_ours"
    del environment["STREP_API_KEY"]
    assert found() == "KEY_of_the_variable_file"
    environment["STREP_API_KEY_FILE"] = ""
    assert found() == "KEY_of_the_carrier"


def test_no_key_at_all_is_refused():
    with pytest.raises(ConfigError) as raised:
        find_key(None, None, {})
    assert str(raised.value) == (
        "there is no API key: set STREP_API_KEY to it or STREP_API_KEY_FILE to a file that holds it"
    )


@pytest.mark.parametrize("key", ["", "  ", "KEY1234 5678", "KEY1234\r\nX-A: 1", "KEY\xe9", "KEY\0"])
def test_what_a_header_cannot_carry_is_refused_and_not_shown(key):
    with pytest.raises(ConfigError) as raised:
        find_key(key, None, {})
    assert str(raised.value) == (
        "the key: is not an API key, which is printable ASCII without blanks"
    )


def test_error_says_where_the_wrong_key_stands(key_file):
    key_file.write_text("two words")
    with pytest.raises(ConfigError, match=rf"^{key_file}: is not an API key"):
        find_key(None, key_file, {})
    with pytest.raises(ConfigError, match=rf"^STREP_API_KEY_FILE: {key_file}: is not an API key"):
        find_key(None, None, {"STREP_API_KEY_FILE": str(key_file)})
    with pytest.raises(ConfigError, match=r"^TELNYX_API_KEY: is not an API key"):
        find_key(None, None, {"TELNYX_API_KEY": "two words"})


def test_file_that_cannot_be_read_is_refused(key_file):
    missing = key_file.with_name("missing")
    with pytest.raises(ConfigError) as raised:
        find_key(None, missing, {})
    assert (
        str(raised.value) == f"{missing}: cannot be read as an API key: No such file or directory"
    )
    key_file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as raised:
        find_key(None, key_file, {})
    assert str(raised.value) == f"{key_file}: is not an API key, which is a line of ASCII"
