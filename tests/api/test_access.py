from __future__ import annotations

import pytest
import structlog
from apibench import ApiBench
from pydantic import SecretStr

from strep.api import check_exposure, find_token
from strep.specs import Address, ConfigError

TOKEN = "s3cret-token"  # noqa: S105 -- the test's own
FORK = "/v1/forks/5f7d7b0e-8a57-4bd0-b8a3-7d3a0c7a4a01"


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with ApiBench(tmp_path_factory.mktemp("api"), plane={}, token=TOKEN) as bench:
        yield bench


WITH_TOKEN = [
    ("GET", "/metrics", 200),
    ("GET", "/v1/calls", 200),
    ("GET", "/v1/calls?limit=1", 200),
    ("GET", "/v1/calls/x", 404),
    ("GET", "/v1/forks", 200),
    ("POST", "/v1/forks", 415),
    ("GET", FORK, 404),
    ("DELETE", FORK, 404),
    ("GET", "/problems/no-ports", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/nothing", 404),
    ("PUT", "/metrics", 405),
    ("PUT", "/healthz", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), WITH_TOKEN)
def test_the_token_is_wanted(api, method, path, status):
    without = api.ask(method, path)
    assert without.status == 401
    assert without.headers["WWW-Authenticate"] == "Bearer"
    assert without.headers["Content-Type"] == "application/problem+json"
    assert without.document == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "the token is missing: give it as Authorization: Bearer",
    }
    assert api.ask(method, path, Authorization=f"Bearer {TOKEN}").status == status


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_for_everybody(api, path):
    assert api.get(path).status == 200


def test_webhooks_are_known_by_their_signature(api):
    event = {"event_type": "x", "id": "1", "occurred_at": "2023-11-14T22:13:21Z", "payload": {}}
    assert api.tell({"data": event}).status == 200
    unsigned = api.post("/webhooks", {}, Authorization=f"Bearer {TOKEN}")
    assert unsigned.document["reason"] == "missing_header"


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \u00e9\u00ff",
    ],
)
def test_whatever_is_not_the_token_is_refused(api, header):
    answer = api.get("/metrics", Authorization=header)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.document["detail"] == "the token is wrong"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_has_no_case(api, scheme):
    assert api.get("/metrics", Authorization=f"{scheme} {TOKEN}").status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_loopback_needs_no_token(host):
    check_exposure(Address(host, 8080), None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.org"])  # noqa: S104 -- to be refused
def test_other_addresses_need_a_token(host):
    check_exposure(Address(host, 8080), SecretStr(TOKEN))
    with pytest.raises(ConfigError) as error:
        check_exposure(Address(host, 8080), None)
    assert str(error.value) == (
        f"http: {Address(host, 8080)} can be reached from other hosts, which needs a token: set"
        " STREP_HTTP_TOKEN to one or STREP_HTTP_TOKEN_FILE to a file that holds it, or serve on a"
        " loopback address such as 127.0.0.1:8080"
    )


def test_the_token_comes_from_the_file_then_from_the_variables(tmp_path):
    file, other = tmp_path / "token", tmp_path / "other"
    file.write_text("from-file\n")
    other.write_text("from-named-file")
    variables = {"STREP_HTTP_TOKEN": "from-variable", "STREP_HTTP_TOKEN_FILE": str(other)}
    assert find_token(file, variables).get_secret_value() == "from-file"
    assert find_token(None, variables).get_secret_value() == "from-variable"
    del variables["STREP_HTTP_TOKEN"]
    assert find_token(None, variables).get_secret_value() == "from-named-file"
    assert find_token(None, {}) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a token: No such file or directory"),
        (b"", "is not a token, which is printable ASCII without blanks"),
        (b"two words", "is not a token, which is printable ASCII without blanks"),
        (b"\xff\xfe", "is not a token, which is a line of ASCII"),
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(tmp_path, content, message):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        find_token(file, {})
    assert str(error.value) == f"{file}: {message}"
