"""Whether W&B can go online: what its own client would find, without importing it."""

from __future__ import annotations

import configparser
import netrc
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

# W&B's public servers: the client knows them as one and the same.
_PUBLIC_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com", "forge.coreweave.com")


def chosen_mode(environ: Mapping[str, str]) -> str | None:
    """The mode chosen outside our configuration: WANDB_MODE, else `wandb offline`; None for neither."""
    return environ.get("WANDB_MODE") or _settings(environ).get("mode")


def logged_in(environ: Mapping[str, str]) -> bool:
    """Whether credentials are at hand: in the environment, in W&B's settings files, or in netrc."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = _settings(environ)
    if settings.get("api_key"):
        return True
    server = environ.get("WANDB_BASE_URL") or settings.get("base_url")
    return _in_netrc(environ, _hosts(server))


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """W&B's settings files: the user's, then the working directory's, which `wandb offline` writes."""
    user = Path(environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([user / "settings", Path("wandb") / "settings"])
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


def _hosts(server: str | None) -> tuple[str, ...]:
    host = urlsplit(server).netloc if server else ""
    return _PUBLIC_HOSTS if not host or host in _PUBLIC_HOSTS else (host,)


def _in_netrc(environ: Mapping[str, str], hosts: tuple[str, ...]) -> bool:
    path = Path(environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        entries = netrc.netrc(str(path)).hosts
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return False
    return any(host in entries and entries[host][2] for host in hosts)
