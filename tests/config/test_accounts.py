"""Accounts that give tokens: found in variables, Google's credential files and logins; none unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, Login, add_login, load, read_logins, remove_login, token_folder
from keyturn.core import Account
from keyturn.errors import ConfigError

ENV_TOKENS = {
    "HUGGINGFACE_ACCESS_TOKEN": "planted-access",
    "HUGGINGFACE_REFRESH_TOKEN": "planted-refresh",
    "HUGGINGFACE_CLIENT_ID": "app",
}
ENTRA = {
    "AZURE_API_BASE": "https://r.openai.azure.com/openai/v1",
    "AZURE_TENANT_ID": "contoso.com",
    "AZURE_CLIENT_ID": "app",
    "AZURE_CLIENT_SECRET": "planted-client-secret",
}
SERVICE = {
    "type": "service_account",
    "project_id": "their-project",
    "private_key_id": "k1",
    "private_key": "planted-private-key",
    "client_email": "robot@p.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}
USER = {
    "type": "authorized_user",
    "client_id": "gcloud",
    "client_secret": "planted-gcloud-secret",
    "refresh_token": "planted-google-refresh",
    "quota_project_id": "payer",
}
LOGIN = Login("huggingface", "ada", "app", "https://huggingface.co/oauth/token", ("inference-api",), "2026-11-21")


def loaded(tmp_path: Path, **environ: str) -> Config:
    return load(environ, cwd=tmp_path)


def problems(tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(environ, cwd=tmp_path)
    assert "planted" not in str(refused.value)
    return str(refused.value)


def accounts(config: Config, provider: str) -> list[Account]:
    return [each.account for each in config.credentials.get(provider, ()) if each.account is not None]


def file(tmp_path: Path, members: dict[str, Any], name: str = "key.json") -> str:
    (tmp_path / name).write_text(json.dumps(members))
    return name


def gcloud(tmp_path: Path, members: dict[str, Any]) -> str:
    """A home folder in which gcloud has left *members*."""
    place = tmp_path / "home" / ".config" / "gcloud"
    place.mkdir(parents=True)
    file(place, members, "application_default_credentials.json")
    return str(tmp_path / "home")


# --- variables ------------------------------------------------------------------------------------------------------


def test_CRD_07_tokens_in_variables(tmp_path: Path) -> None:
    more = {
        "HUGGINGFACE_EXPIRY_DATE": "1800000000000",
        "HUGGINGFACE_EMAIL": "ada",
        "HUGGINGFACE_CLIENT_SECRET": "planted-s",
    }
    config = loaded(tmp_path, **ENV_TOKENS, **more)
    (credential,) = config.credentials["huggingface"]
    account = credential.account
    assert account is not None
    assert (credential.label, account.who, account.client_id) == ("huggingface-0", "ada", "app")
    assert account.expires == 1_800_000_000
    assert [each.reveal() for each in account.secrets] == ["planted-s", "planted-refresh", "planted-access"]
    assert "planted" not in repr(config)
    assert not credential.secret


def test_CRD_07_numbered_tokens_are_further_accounts(tmp_path: Path) -> None:
    numbered = {name.replace("FACE_", "FACE_2_"): value for name, value in ENV_TOKENS.items()}
    config = loaded(tmp_path, **ENV_TOKENS, **numbered, HUGGINGFACE_API_KEY="hf_a_key_of_the_usual_kind")
    assert {each.number for each in config.credentials["huggingface"]} == {0, 2, 3}, "no number twice"


def test_CRD_07_numbered_wins_for_one_account(tmp_path: Path) -> None:
    numbered = {name.replace("FACE_", "FACE_2_"): value for name, value in ENV_TOKENS.items()}
    config = loaded(tmp_path, **ENV_TOKENS, **numbered, HUGGINGFACE_EMAIL="ada", HUGGINGFACE_2_EMAIL="ada")
    (credential,) = config.credentials["huggingface"]
    assert credential.origin == "HUGGINGFACE_2_REFRESH_TOKEN"


@pytest.mark.parametrize("lacking", ["ACCESS", "REFRESH"])
def test_CRD_07_both_tokens_are_needed(tmp_path: Path, lacking: str) -> None:
    environ = {name: value for name, value in ENV_TOKENS.items() if lacking not in name}
    config = loaded(tmp_path, **environ)
    assert any(f"without HUGGINGFACE_{lacking}_TOKEN" in note for note in config.notes)
    assert "huggingface" not in config.credentials


def test_OAU_07_tokens_of_other_programs_are_not_taken(tmp_path: Path) -> None:
    tokens = {"ACCESS_TOKEN": "planted-access", "REFRESH_TOKEN": "planted-refresh"}
    names = ("ANTHROPIC", "OPENAI", "GEMINI_CLI")
    config = loaded(tmp_path, **{f"{name}_{end}": value for name in names for end, value in tokens.items()})
    assert sum("are not taken" in note for note in config.notes) == 3
    assert config.demo


def test_the_program_that_tokens_were_given_to_must_be_named(tmp_path: Path) -> None:
    environ = {name: value for name, value in ENV_TOKENS.items() if "CLIENT" not in name}
    assert "needs HUGGINGFACE_CLIENT_ID" in problems(tmp_path, **environ)


def test_tokens_are_asked_for_over_https_only(tmp_path: Path) -> None:
    said = problems(tmp_path, **ENV_TOKENS, HUGGINGFACE_TOKEN_URI="http://id.example.com/token")
    assert "HUGGINGFACE_TOKEN_URI: must start with https://" in said


# --- logins ---------------------------------------------------------------------------------------------------------


def test_CRD_06_logins_are_read_from_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / ".cache"
    add_login(data, LOGIN)
    add_login(data, LOGIN._replace(who="grace"))
    add_login(data, LOGIN._replace(since="2026-11-22"))
    config = loaded(tmp_path, HOME=str(tmp_path))
    assert {each.who: each.since for each in accounts(config, "huggingface")} == {
        "grace": "2026-11-21",
        "ada": "2026-11-22",
    }
    first = config.credentials["huggingface"][0]
    assert remove_login(data, "huggingface", first.fingerprint)
    assert not remove_login(data, "huggingface", first.fingerprint)
    assert [each.who for each in read_logins(data)] == ["ada"]


def test_CRD_08_one_account_twice_is_used_once(tmp_path: Path) -> None:
    add_login(tmp_path / ".cache", LOGIN)
    config = loaded(tmp_path, **ENV_TOKENS, HUGGINGFACE_EMAIL="ada")
    assert len(config.credentials["huggingface"]) == 1
    assert any("is the same account as login ada" in note for note in config.notes)


def test_a_broken_list_of_logins_is_no_reason_to_forget_them(tmp_path: Path) -> None:
    add_login(tmp_path / ".cache", LOGIN)
    (tmp_path / ".cache" / "tokens" / "logins.json").write_text("{")
    assert "logins.json: cannot be read" in problems(tmp_path)


# --- Google ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", ["VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT", ""])
def test_vertex_with_a_service_account(tmp_path: Path, project: str) -> None:
    environ = {project: "my-project"} if project else {}
    config = loaded(tmp_path, VERTEX_CREDENTIALS=file(tmp_path, SERVICE), VERTEX_LOCATION="europe-west4", **environ)
    (account,) = accounts(config, "vertex")
    assert (account.kind, account.who, account.key_id) == ("service_account", SERVICE["client_email"], "k1")
    named = "my-project" if project else "their-project"
    host = "https://europe-west4-aiplatform.googleapis.com/v1"
    address = f"{host}/projects/{named}/locations/europe-west4/publishers/google"
    assert config.providers["vertex"].base_url == address
    assert any(each.path.name == "key.json" for each in config.files), "a new key is noticed"
    assert "planted" not in repr(config)


def test_several_service_accounts_of_one_project_share_its_quota(tmp_path: Path) -> None:
    other = file(tmp_path, SERVICE | {"client_email": "other@p.iam.gserviceaccount.com"}, "other.json")
    config = loaded(tmp_path, VERTEX_CREDENTIALS_1=file(tmp_path, SERVICE), VERTEX_CREDENTIALS_2=other)
    one, two = config.credentials["vertex"]
    assert (one.number, two.number) == (1, 2)
    assert one.fingerprint != two.fingerprint
    assert one.group == two.group


def test_the_default_credentials_are_used_when_vertex_is_set(tmp_path: Path) -> None:
    home = gcloud(tmp_path, USER)
    config = loaded(tmp_path, VERTEX_PROJECT="my-project", HOME=home)
    (account,) = accounts(config, "vertex")
    assert (account.kind, account.headers) == ("refresh_token", (("x-goog-user-project", "payer"),))
    assert config.providers["vertex"].base_url.startswith(
        "https://aiplatform.googleapis.com/v1/projects/my-project/locations/global"
    )
    named = loaded(tmp_path, VERTEX_PROJECT="p1", HOME=home, GOOGLE_APPLICATION_CREDENTIALS=file(tmp_path, SERVICE))
    assert [each.kind for each in accounts(named, "vertex")] == ["service_account"], (
        "the file that is named comes first"
    )


def test_CRD_06_nothing_of_gcloud_is_read_unasked(tmp_path: Path) -> None:
    home = gcloud(tmp_path, USER)
    config = loaded(tmp_path, GEMINI_API_KEY="a-key", HOME=home, GOOGLE_APPLICATION_CREDENTIALS=file(tmp_path, SERVICE))
    assert accounts(config, "gemini") == []
    assert "vertex" not in config.providers


def test_gemini_takes_the_default_credentials_when_it_is_told_to(tmp_path: Path) -> None:
    config = loaded(tmp_path, GEMINI_AUTH="adc", GEMINI_API_KEY="a-key", HOME=gcloud(tmp_path, USER))
    assert [each.account is None for each in config.credentials["gemini"]] == [True, False]


def test_without_a_file_the_machine_itself_is_asked(tmp_path: Path) -> None:
    config = loaded(tmp_path, VERTEX_PROJECT="my-project", GCE_METADATA_HOST="127.0.0.1:8080", HOME=str(tmp_path))
    (account,) = accounts(config, "vertex")
    assert account.kind == "google_metadata"
    assert account.token_url == "http://127.0.0.1:8080/computeMetadata/v1/instance/service-accounts/default/token"
    assert "gcloud auth application-default login" in account.remedy


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        json.dumps([{**LOGIN._asdict(), "who": "\ud800"}]),
        json.dumps([{**LOGIN._asdict(), "who": "a\x1b[31m"}]),
        json.dumps([{**LOGIN._asdict(), "provider": ["x"]}]),
        json.dumps([{**LOGIN._asdict(), "token_url": 4}]),
        json.dumps([{**LOGIN._asdict(), "scopes": [4]}]),
    ],
)
def test_whatever_stands_in_the_list_of_logins_is_told(tmp_path: Path, text: str) -> None:
    file = token_folder(tmp_path) / "logins.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigError, match="mend it, or remove it and log in again"):
        read_logins(tmp_path)


@pytest.mark.parametrize("name", ["client_email", "private_key_id", "private_key"])
def test_what_a_credential_file_holds_can_be_sent(tmp_path: Path, name: str) -> None:
    told = problems(tmp_path, VERTEX_PROJECT="p-1", VERTEX_CREDENTIALS=file(tmp_path, {**SERVICE, name: "a\n\ud800"}))
    assert f"VERTEX_CREDENTIALS: holds a character in {name} that does not belong there" in told


def test_a_credential_file_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    told = problems(tmp_path, VERTEX_PROJECT="p-1", VERTEX_CREDENTIALS=str(tmp_path / "deep.json"))
    assert "is not a credential file of Google" in told
    assert "cannot be read" in problems(tmp_path, VERTEX_PROJECT="p-1", VERTEX_CREDENTIALS="~nobody-at-all/key.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ACCESS_TOKEN", "tök-planted"),
        ("ACCESS_TOKEN", "two planted"),
        ("REFRESH_TOKEN", "planted\udc80"),
        ("PROJECT_ID", "planted\nx: y"),
        ("CLIENT_SECRET", "planted\nx"),
    ],
)
def test_what_of_a_login_cannot_be_sent_is_told_without_it(tmp_path: Path, name: str, text: str) -> None:
    told = problems(tmp_path, **{**ENV_TOKENS, f"HUGGINGFACE_{name}": text})
    assert f"HUGGINGFACE_{name}: holds a space, a line break" in told
    told = problems(tmp_path, **{**ENTRA, "AZURE_CLIENT_SECRET": "planted\udc80"})
    assert "AZURE_CLIENT_SECRET: holds a space, a line break" in told


def test_a_key_of_vertex_needs_no_project(tmp_path: Path) -> None:
    config = loaded(tmp_path, VERTEX_API_KEY="a-key", HOME=gcloud(tmp_path, USER))
    assert accounts(config, "vertex") == []
    assert config.providers["vertex"].base_url == "https://aiplatform.googleapis.com/v1/publishers/google"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (
            {"type": "external_account"},
            "type 'external_account', which is not supported; supported are service_account",
        ),
        ({"type": "impersonated_service_account"}, "which is not supported"),
        ({"type": "service_account", "private_key": "planted-k"}, "of type service_account without client_email"),
        (SERVICE | {"token_uri": "http://evil.example/token"}, "token_uri must start with https://"),
        ([], "is not a credential file of Google"),
    ],
    ids=["external", "impersonated", "incomplete", "plain http", "no object"],
)
def test_other_files_are_refused_with_what_is_supported(tmp_path: Path, members: Any, said: str) -> None:
    assert said in problems(tmp_path, VERTEX_CREDENTIALS=file(tmp_path, members), VERTEX_PROJECT="p1")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "VERTEX_CREDENTIALS: cannot be read: No such file" in problems(tmp_path, VERTEX_CREDENTIALS="no.json")


def test_a_location_is_part_of_an_address_and_no_more(tmp_path: Path) -> None:
    said = problems(tmp_path, VERTEX_PROJECT="p1", VERTEX_LOCATION="evil.example/x", HOME=str(tmp_path))
    assert "is not the name of a project or location" in said


# --- Azure ----------------------------------------------------------------------------------------------------------


def test_azure_with_a_service_principal(tmp_path: Path) -> None:
    (account,) = accounts(loaded(tmp_path, **ENTRA), "azure")
    assert account.token_url == "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token"
    assert account.scopes == ("https://cognitiveservices.azure.com/.default",)
    other = loaded(tmp_path, **ENTRA | {"AZURE_CLIENT_SECRET": "planted-newer"}).credentials["azure"][0]
    assert other.fingerprint == account.fingerprint("azure"), "who it is does not depend on its secret"


def test_azure_elsewhere(tmp_path: Path) -> None:
    foundry = ENTRA | {"AZURE_API_BASE": "https://r.services.ai.azure.com/openai/v1"}
    (account,) = accounts(
        loaded(tmp_path, **foundry, AZURE_AUTHORITY_HOST="https://login.microsoftonline.us/"), "azure"
    )
    assert account.token_url == "https://login.microsoftonline.us/contoso.com/oauth2/v2.0/token"
    assert account.scopes == ("https://ai.azure.com/.default",)


def test_variables_of_azures_own_tools_take_nothing_over(tmp_path: Path) -> None:
    config = loaded(tmp_path, **ENTRA, AZURE_API_KEY="a-key")
    assert accounts(config, "azure") == []
    assert len(accounts(loaded(tmp_path, **ENTRA, AZURE_API_KEY="a-key", AZURE_AUTH="entra"), "azure")) == 1
    without = {name: value for name, value in ENTRA.items() if name != "AZURE_API_BASE"}
    assert loaded(tmp_path, **without).notes == ()


def test_azure_managed_identity(tmp_path: Path) -> None:
    config = loaded(tmp_path, AZURE_API_BASE=ENTRA["AZURE_API_BASE"], AZURE_AUTH="managed_identity")
    (account,) = accounts(config, "azure")
    assert (account.kind, account.token_url[:24]) == ("azure_metadata", "http://169.254.169.254/m")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AZURE_AUTH": "entre"}, "did you mean entra?"),
        ({"AZURE_AUTH": "entra", "AZURE_CLIENT_SECRET": ""}, "needs AZURE_TENANT_ID, AZURE_CLIENT_ID and"),
        ({"AZURE_TENANT_ID": ""}, "is not used without AZURE_TENANT_ID"),
        ({"AZURE_TENANT_ID": "a/b"}, "is not a tenant"),
        ({"GROQ_AUTH": "adc", "GROQ_API_KEY": "k"}, "groq is asked with API keys"),
    ],
    ids=["misspelled", "incomplete", "no tenant", "not a tenant", "keys only"],
)
def test_mistakes_are_told(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    assert said in problems(tmp_path, **ENTRA | environ)


def test_CFG_44_no_start_asks_anybody_and_no_period_is_needed(tmp_path: Path) -> None:
    config = loaded(tmp_path, OAUTH_REFRESH_INTERVAL="600", SKIP_OAUTH_INIT_CHECK="true")
    assert sorted(note.partition(" ")[0] for note in config.notes) == [
        "OAUTH_REFRESH_INTERVAL:",
        "SKIP_OAUTH_INIT_CHECK:",
    ]
