"""Accounts and cards."""

import re

from trunkline_server.privacy.checks import luhn, mod97
from trunkline_server.privacy.rule import Lead, Rule

# Lengths by country, after the IBAN registry that SWIFT keeps for ISO 13616.
_IBAN_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
# In groups of four as on paper, or without spaces.
_IBAN_SHAPES = "|".join(
    rf"(?:{'|'.join(countries.split())})\d\d(?:[ ]?[A-Z0-9]){{{length - 4}}}"
    for length, countries in _IBAN_LENGTHS.items()
)

IBAN = Rule(
    "IBAN_CODE",
    Lead.WORD,
    80,
    re.compile(rf"(?:{_IBAN_SHAPES})(?![A-Za-z0-9])", re.IGNORECASE),
    lambda match: mod97(match[0].replace(" ", "").upper()),
)

# Beginnings and lengths of the card networks, as they publish them; ISO/IEC 7812-1 bounds the
# number at 19 digits. Maestro's are the only ones of 12 and 13 digits besides old Visa cards.
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}"  # Mastercard
    r"|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"  # American Express
    r"|(?:30[0-5]|309|36\d|38\d|39\d)\d{11}(?:\d{2,5})?"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
    r"|35\d{14,17}"  # JCB has 3528 to 3589; generated numbers go further
    r"|(?:1800|2131)\d{11}"
    r"|(?:5018|5020|5038|5[6-8]\d\d|6304|67\d\d)\d{8,15}"  # Maestro
    r"|62\d{14,17}"  # UnionPay
    r"|220[0-4]\d{12,15}"  # Mir
    r"|(?:60|81|82)\d{14}"  # RuPay
)


def _is_card(match: re.Match[str]) -> bool:
    digits = match[0].replace(" ", "").replace("-", "")
    return _ISSUERS.fullmatch(digits) is not None and luhn(digits)


CREDIT_CARD = Rule(
    "CREDIT_CARD",
    Lead.NUMBER,
    75,
    re.compile(
        r"(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}(?:\1\d{1,4}){1,2}|\d{4}([ -])\d{6}\2\d{4,5})"
        r"(?![A-Za-z0-9_])"
    ),
    _is_card,
)
