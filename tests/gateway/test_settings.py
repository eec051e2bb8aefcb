from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from gateway.web import auth_tokens
from runtime import settings
from runtime.endpoints import is_loopback


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "HOST", "AUTH_TOKENS_FILE", "MAX_CONNECTIONS", "HONCHO_PROCESS_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_serve_on_loopback_8080() -> None:
    values = GatewaySettings()
    assert (values.host, values.port, values.max_connections) == ("127.0.0.1", 8080, 1000)


@pytest.mark.parametrize(
    ("port", "process", "served"),
    [
        ("9000", None, 9000),
        ("5000", "gateway.1", 8080),
        ("5001", "gateway.2", 8080),
        ("9000", "gateway.1", 9000),
        ("9003", "gateway.4", 9000),
    ],
)
def test_the_port_under_honcho(
    monkeypatch: pytest.MonkeyPatch, port: str, process: str | None, served: int
) -> None:
    monkeypatch.setenv("PORT", port)
    if process is not None:
        monkeypatch.setenv("HONCHO_PROCESS_NAME", process)
    assert GatewaySettings().port == served


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_a_public_address_needs_consent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    monkeypatch.setenv("HOST", host)
    with pytest.raises(SystemExit) as caught:
        settings.load(GatewaySettings)
    assert caught.value.code == 78
    assert "ALLOW_PUBLIC_WITHOUT_AUTH" in capsys.readouterr().err
    monkeypatch.setenv("ALLOW_PUBLIC_WITHOUT_AUTH", "true")
    assert GatewaySettings().host == host


def test_a_public_address_needs_no_consent_with_tokens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    access = auth_tokens.Access(digest=auth_tokens.hash_of("secret"))
    auth_tokens.write(path, {"somebody": access})
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("AUTH_TOKENS_FILE", str(path))
    found = auth_tokens.load_tokens(settings.load(GatewaySettings).auth_tokens_file)
    assert found is not None
    assert found.find("secret", 0.0) == ("somebody", access)


@pytest.mark.parametrize("entry", ["zh", "zh:demo", "=demo", "zh=", "z h=demo", "*"])
def test_an_entry_of_the_models_that_names_none_is_refused(entry: str) -> None:
    assert GatewaySettings(asr_models="zh = demo , en=/a=b,").model_names == ["zh", "en"]
    with pytest.raises(ValidationError, match="is not NAME=MODEL"):
        GatewaySettings(asr_models=f"en=demo,{entry}")


@pytest.mark.parametrize("port", [9_720, 9_739])
def test_the_port_is_not_one_of_the_metrics(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: int
) -> None:
    monkeypatch.setenv("METRICS_PORT", "9700")
    monkeypatch.setenv("PORT", str(port))
    with pytest.raises(SystemExit):
        settings.load(GatewaySettings)
    assert f"PORT {port} is one of METRICS_PORT 9700" in capsys.readouterr().err
    monkeypatch.setenv("PORT", "9740")
    settings.load(GatewaySettings)


@pytest.mark.parametrize("name", ["JWT_ISSUER", "JWT_AUDIENCE", "JWT_TENANT_CLAIM"])
def test_an_identity_provider_needs_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "asr")
    with pytest.raises(SystemExit):
        settings.load(GatewaySettings)
    assert "JWT_KEYS_URL" in capsys.readouterr().err


def test_an_identity_provider_is_named_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("JWT_KEYS_URL", "https://id.example.org/keys")
    monkeypatch.setenv("JWT_ISSUER", "https://id.example.org")
    with pytest.raises(SystemExit):
        settings.load(GatewaySettings)
    message = "JWT_KEYS_URL, JWT_ISSUER and JWT_AUDIENCE are needed together"
    assert message in capsys.readouterr().err
    monkeypatch.setenv("JWT_AUDIENCE", "asr")
    assert settings.load(GatewaySettings).needs_tokens
    monkeypatch.setenv("JWT_KEYS_URL", "keys.json")
    with pytest.raises(SystemExit):
        settings.load(GatewaySettings)
    assert "http" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "127.0.0.1:8080"),
        ("HOST", "*"),
        ("JWT_KEYS_URL", "https://[::1/keys"),
        ("JWT_KEYS_URL", "https:///keys"),
        ("ALLOWED_ORIGINS", "a.example"),
        ("ALLOWED_ORIGINS", "https://a.example/page"),
        ("ALLOWED_ORIGINS", "https://*.example"),
        ("ALLOWED_ORIGINS", "https://a.example;https://b.example"),
        ("ALLOWED_HOSTS", "https://a.example"),
        ("ALLOWED_HOSTS", "a.example:8080"),
        ("ALLOWED_HOSTS", "*example.org"),
        ("ALLOWED_HOSTS", "a.example b.example"),
    ],
)
def test_a_form_that_would_have_no_effect_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        settings.load(GatewaySettings)
    assert caught.value.code == 78
    assert capsys.readouterr().err.startswith(f"error: {name}: ")


def test_lists_of_origins_and_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = "https://a.example, http://[::1]:8080/,HTTPS://B.example,null,*"
    hosts = "a.example, *.b.example,::1,A_b,*"
    monkeypatch.setenv("ALLOWED_ORIGINS", origins)
    monkeypatch.setenv("ALLOWED_HOSTS", hosts)
    values = settings.load(GatewaySettings)
    assert (values.allowed_origins, values.allowed_hosts) == (origins, hosts)


def test_tokens_that_cannot_be_used_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTH_TOKENS_FILE", str(tmp_path / "none"))
    with pytest.raises(SystemExit) as caught:
        auth_tokens.load_tokens(settings.load(GatewaySettings).auth_tokens_file)
    assert caught.value.code == 78
    printed = capsys.readouterr().err
    assert printed.startswith("error: AUTH_TOKENS_FILE: ") and printed.count("\n") == 1


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_TOKENS_FILE", "")
    assert GatewaySettings().auth_tokens_file is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
