"""From settings to the rules that tell callers by their client certificates."""

from collections.abc import Iterable, Mapping
from typing import Literal

from trunkline_server.app.access import networks_of
from trunkline_server.governance.identity.certificates import CertificateRule, Certificates
from trunkline_server.settings import CertificateSettings

_NAMES: Mapping[str, Literal["uri", "dns", "subject"]] = {
    "uri": "uri",
    "dns": "dns",
    "subject": "subject",
}


def certificates_of(rules: Iterable[CertificateSettings]) -> Certificates:
    """Whom client certificates stand for."""
    return Certificates(
        CertificateRule(
            rule=rule.name,
            identity=_NAMES[rule.identity],
            pattern=rule.pattern,
            fixed=rule.fixed,
            roles=frozenset(rule.roles),
            scopes=frozenset(rule.scopes) if rule.scopes else None,
            models=rule.models,
            routes=rule.routes,
            networks=networks_of(rule.networks),
        )
        for rule in rules
    )
