"""Numbers that states give to people, and dates of birth."""

import re
from collections import Counter

from trunkline_server.privacy.checks import iso7064_mod11_10
from trunkline_server.privacy.rule import Lead, Rule, Words, always

_SSN_WORDS = Words(r"\bssn\b|social security|\bsoc\.? sec", ("ssn", "soc"))
# Numbers that were printed in advertisements, and so belong to nobody.
_SSN_ADVERTISED = {"078051120", "219099999"}


def _is_ssn(match: re.Match[str]) -> bool:
    """US Social Security Administration, randomization of 2011: no area 000, 666 or 9xx, no
    group 00, no serial 0000. Without hyphens only where words say what it is."""
    digits = match[0].replace("-", "").replace(" ", "")
    if digits[:3] in {"000", "666"} or digits[0] == "9" or digits in _SSN_ADVERTISED:
        return False
    if digits[3:5] == "00" or digits[5:] == "0000":
        return False
    return match[1] == "-" or _SSN_WORDS.before(match)


US_SSN = Rule(
    "US_SSN",
    Lead.NUMBER,
    70,
    re.compile(r"\d{3}([ -]?)\d{2}\1\d{4}(?![A-Za-z0-9_-])"),
    _is_ssn,
)

# HM Revenue and Customs, National Insurance Manual NIM39110: letters that are not used, prefixes
# that are not given out, and a last letter from A to D.
UK_NINO = Rule(
    "UK_NINO",
    Lead.WORD,
    70,
    re.compile(
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r"([ ]?)\d\d\1\d\d\1\d\d\1[A-D](?![A-Za-z0-9])"
    ),
    always,
)


def _is_tax_id(match: re.Match[str]) -> bool:
    """Bundeszentralamt für Steuern, Steueridentifikationsnummer: eleven digits, the first not
    0, the last a check digit; of the first ten exactly one digit stands twice or three times,
    every other at most once, and never three in a row."""
    digits = match[0].replace(" ", "")
    repeated = [count for count in Counter(digits[:10]).values() if count > 1]
    if len(repeated) != 1 or repeated[0] > 3 or not iso7064_mod11_10(digits):
        return False
    return all(len(set(digits[place : place + 3])) > 1 for place in range(8))


DE_TAX_ID = Rule(
    "DE_TAX_ID",
    Lead.NUMBER,
    72,
    re.compile(r"[1-9]\d([ ]?)\d{3}\1\d{3}\1\d{3}(?![A-Za-z0-9_])"),
    _is_tax_id,
)

_BIRTH_PIECES = ("born", "birth", "dob", "geb", "naiss", "naci", "nascit")
_BIRTH_WORDS = Words(
    r"\bborn\b|\bbirth|\bdob\b|\bgeboren\b|\bgeburts|\bgeb\.|\bnaissance|"
    r"\bnacid[oa]\b|\bnacimiento|\bnascita",
    _BIRTH_PIECES,
)
_MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:18|19|20)\d\d"

# A date is a birthday only where a word says so.
DATE_OF_BIRTH = Rule(
    "DATE_OF_BIRTH",
    Lead.CONTEXT,
    50,
    re.compile(
        rf"(?<![\w/.-])(?:{_DAY}([/.-]){_DAY}\1(?:{_YEAR}|\d\d)|{_YEAR}([/.-])\d\d?\2{_DAY}"
        rf"|{_DAY}(?:st|nd|rd|th|\.)?[ ](?:of[ ])?{_MONTHS}\.?,?[ ]{_YEAR}"
        rf"|{_MONTHS}\.?[ ]{_DAY}(?:st|nd|rd|th)?,?[ ]{_YEAR})(?![\w/-])",
        re.IGNORECASE,
    ),
    _BIRTH_WORDS.before,
    _BIRTH_PIECES,
)

_PASSPORT_PIECES = ("pass", "pasap")
_PASSPORT_WORDS = Words(r"passport|reisepass|pasaporte|passeport|passaporto", _PASSPORT_PIECES)

# ICAO Doc 9303: nine characters of A to Z and 0 to 9 at most. Only after the word.
PASSPORT = Rule(
    "PASSPORT",
    Lead.CONTEXT,
    45,
    re.compile(r"(?<![\w-])(?=[A-Z]{0,3}\d{2}|\d{2})(?=[A-Z0-9]{0,6}\d{3})[A-Z0-9]{6,9}(?![\w-])"),
    _PASSPORT_WORDS.before,
    _PASSPORT_PIECES,
)

_LICENSE_PIECES = ("driv", "führersch", "permis de")
_LICENSE_WORDS = Words(
    r"driver.{0,2} licen[sc]e|driving licen[sc]e|führerschein|"
    r"permis de conduire",
    _LICENSE_PIECES,
)

# AAMVA's card design standard allows 25 characters; the states use 4 to 19. After the words only.
DRIVER_LICENSE = Rule(
    "DRIVER_LICENSE",
    Lead.CONTEXT,
    46,
    re.compile(
        r"(?<![\w-])(?=[A-Z0-9-]{0,6}\d{3})[A-Z0-9](?:-?[A-Z0-9]){4,18}(?![\w-])",
    ),
    _LICENSE_WORDS.before,
    _LICENSE_PIECES,
)
