"""The rules, one for each type of personal data and for each kind of key."""

from trunkline_server.privacy.rule import Rule
from trunkline_server.privacy.rules.contact import CROWDED_PHONE, EMAIL, PHONE
from trunkline_server.privacy.rules.finance import CREDIT_CARD, IBAN
from trunkline_server.privacy.rules.identity import (
    DATE_OF_BIRTH,
    DE_TAX_ID,
    DRIVER_LICENSE,
    PASSPORT,
    UK_NINO,
    US_SSN,
)
from trunkline_server.privacy.rules.keys import KEYS
from trunkline_server.privacy.rules.network import IPV4, IPV6, MAC

RULES: tuple[Rule, ...] = (
    EMAIL,
    PHONE,
    CROWDED_PHONE,
    IBAN,
    CREDIT_CARD,
    US_SSN,
    UK_NINO,
    DE_TAX_ID,
    IPV4,
    IPV6,
    MAC,
    *KEYS,
    DATE_OF_BIRTH,
    PASSPORT,
    DRIVER_LICENSE,
)

KINDS: frozenset[str] = frozenset(rule.kind for rule in RULES)
