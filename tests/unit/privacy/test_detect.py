"""Each type: what is found, what only looks like it, and that no text takes long."""

import random
import time

import pytest

from trunkline_server.privacy.checks import entropy, iso7064_mod11_10, luhn, mod97
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.redact import redact
from trunkline_server.privacy.rules import KINDS

DETECTOR = Detector()
# Made up; assembled here so that scanners of this repository have nothing to find.
RANDOM = "q7Zx2LmP9sVtR4kYb8NcW1dF6gHj3QeUoA5i"


def found(text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in DETECTOR.spans(text)]


# What is between « and » is to be found, as the type that is named.
HOLDS = [
    ("EMAIL_ADDRESS", "write to «anna.b+x@mail.example.co.uk», please"),
    ("EMAIL_ADDRESS", "<«A_B-1@example.museum»>"),
    ("EMAIL_ADDRESS", "mailto:«x@xn--bcher-kva.xn--p1ai»?subject=1"),
    ("EMAIL_ADDRESS", "end of sentence «a@b.org». Next"),
    ("EMAIL_ADDRESS", "..«a@b.org»"),
    ("PHONE_NUMBER", "«+4915112345678» is mine"),
    ("PHONE_NUMBER", "«+44 20 7946 0958»"),
    ("PHONE_NUMBER", "«(212) 555-0187»"),
    ("PHONE_NUMBER", "«212-555-0187 ext. 12», room 3"),
    ("PHONE_NUMBER", "«1-800-555-0199»"),
    ("PHONE_NUMBER", "«01 44 55 66 77»"),
    ("PHONE_NUMBER", "«030/12345678»"),
    ("PHONE_NUMBER", "«01.44.55.66.77»"),
    ("PHONE_NUMBER", "phone: «555 0187»"),
    ("PHONE_NUMBER", "«+49 151 23456789» 12345 67890 1"),
    ("PHONE_NUMBER", "room 2 «212-555-0123» 20240101 1234"),
    ("PHONE_NUMBER", "«555 0187» office"),
    ("IBAN_CODE", "to «DE89 3704 0044 0532 0130 00» today"),
    ("IBAN_CODE", "«gb82west12345698765432»"),
    ("IBAN_CODE", "«NO9386011117947»,"),
    ("IBAN_CODE", "«MT84MALT011000012345MTLCAST001S»"),
    ("CREDIT_CARD", "card «4111 1111 1111 1111» exp"),
    ("CREDIT_CARD", "«378282246310005»"),
    ("CREDIT_CARD", "«3782-822463-10005»"),
    ("CREDIT_CARD", "«5555555555554444»;"),
    ("CREDIT_CARD", "«2223003122003222»"),
    ("CREDIT_CARD", "«30569309025904»"),
    ("CREDIT_CARD", "«6011111111111117»"),
    ("US_SSN", "it is «219-09-9998»."),
    ("US_SSN", "SSN «536 22 1234»"),
    ("US_SSN", "my social security number is «536221234»"),
    ("UK_NINO", "NI «AB 12 34 56 C»"),
    ("UK_NINO", "«JG103759A»"),
    ("DE_TAX_ID", "Steuer-ID «86095742719»"),
    ("DE_TAX_ID", "«47 036 892 816»"),
    ("IP_ADDRESS", "from «203.0.113.77»:443"),
    ("IP_ADDRESS", "[«2001:db8::8a2e:370:7334»]"),
    ("IP_ADDRESS", "«2001:0db8:85a3:0000:0000:8a2e:0370:7334»"),
    ("IP_ADDRESS", "«fe80::1ff:fe23:4567:890a»%eth0"),
    ("IP_ADDRESS", "«::ffff:203.0.113.9»"),
    ("MAC_ADDRESS", "eth «00:1A:2b:3C:4d:5E» up"),
    ("MAC_ADDRESS", "«00-1A-2B-3C-4D-5E»"),
    ("MAC_ADDRESS", "«aa:bb:cc:dd:ee:ff»"),
    ("API_KEY", f"OPENAI_API_KEY=«sk-proj-{RANDOM}»"),
    ("API_KEY", f"key «sk-ant-api03-{RANDOM}»."),
    ("API_KEY", f"«ghp_{RANDOM}»"),
    ("API_KEY", f"«AIza{RANDOM[:35]}»"),
    ("API_KEY", "«AKIAQ7ZX2LMPVTRKYBNC»"),
    ("API_KEY", f"«eyJhbGciOiJIUzI1NiJ9.eyJ{RANDOM}.{RANDOM}»"),
    ("API_KEY", f"«SG.{RANDOM[:22]}.{RANDOM}{RANDOM[:7]}»"),
    ("API_KEY", f"Authorization: Bearer «{RANDOM}==»"),
    ("API_KEY", f"«-----BEGIN EC PRIVATE KEY-----\n{RANDOM * 2}\n-----END EC PRIVATE KEY-----»\n"),
    ("URL_CREDENTIALS", "postgres://«app:hunter2»@db.internal:5432/x"),
    ("DATE_OF_BIRTH", "born on «12/31/1980»."),
    ("DATE_OF_BIRTH", "DOB: «1980-12-31»"),
    ("DATE_OF_BIRTH", "She was born in Rome on «March 3rd, 1980», I think"),
    ("DATE_OF_BIRTH", "geboren am «3.4.1980» in Bonn"),
    ("PASSPORT", "passport no. «C01X0006H»"),
    ("PASSPORT", "Reisepass «123456789»"),
    ("DRIVER_LICENSE", "driver's license number is «D123-4567-8901»"),
]


@pytest.mark.parametrize(("kind", "marked"), HOLDS)
def test_what_is_personal_is_found_to_the_character(kind: str, marked: str) -> None:
    before, value, after = marked.replace("»", "«").split("«")
    assert found(before + value + after) == [(kind, value)]


CLEAN = [
    "in 2019, 1,234,567.89 were 45.6 % of 3.14159265358979",
    "2019-10-12T07:20:50.52Z and 12/31/1999 and 20191012072050",
    "version 1.2.3.4 of build: 10.0.19041.388, chapter 1.2.3.4",
    "127.0.0.1, 0.0.0.0, ::1 and :: are nobody's; 256.1.1.1 is none; 1.2.3.4.5 neither",
    "std::vector<a::b> x; foo::bar(); dead::beef; 10:20:30",
    "4111 1111 1111 1112 fails its check digit, 1234567890123452 has no issuer",
    "GB82 WEST 1234 5698 7654 33 is wrong; so is ZZ82WEST12345698765432",
    "000-12-3456 666-12-3456 912-12-3456 123-00-4567 123-45-0000 078-05-1120",
    "BG123456A GB123456A AB123456E QQ123456C",
    "12345678901 86095742718 11111111111",
    "00:00:00:00:00:00 ff:ff:ff:ff:ff:ff 00:1A:2b:3C:4d 00:1A-2b:3C-4d:5E",
    "sk-your-api-key-goes-here-0000 sk-xxxxxxxxxxxxxxxxxxxxxxxx1 ghp_short1 task-12345678901",
    "Bearer authentication is described below; bearer of news; Bearer xxxxxxxxxxxxxxxxxxxx",
    "a@b, @handle, user@localhost, pkg@1.2.3, git@github.com:x/y.git, a@@b.com",
    "https://example.com/a:b@c https://example.com:8080/ http://x.org/?q=a:b@c",
    "the meeting of 12/31/2020 is far from any word of that kind",
    "passport control is at gate B12 and takes 20 minutes",
    "the driver said that 5 of 10 cars are red",
    "order 67801642 was shipped; id 1699999999123456789; sum 0.4111111111111111",
    "0123456789abcdef0123456789abcdef deadbeefcafe1234",
]


@pytest.mark.parametrize("text", CLEAN)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert found(text) == []


def test_every_type_has_examples() -> None:
    assert {kind for kind, _ in HOLDS} == KINDS


def test_check_digits_follow_the_published_examples() -> None:
    assert luhn("79927398713")
    assert not any(luhn(f"7992739871{digit}") for digit in "012456789")
    assert mod97("GB82WEST12345698765432")
    assert not mod97("GB82WEST12345698765423")
    assert iso7064_mod11_10("86095742719")
    assert not any(iso7064_mod11_10(f"8609574271{digit}") for digit in "012345678")
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2


def test_single_digit_errors_are_told_from_true_numbers() -> None:
    rng = random.Random(3)
    for number in ("4111111111111111", "DE89370400440532013000", "86095742719"):
        assert found(number)
        for _ in range(30):
            place = rng.randrange(4, len(number))
            wrong = str((int(number[place]) + rng.randrange(1, 10)) % 10)
            kinds = {kind for kind, _ in found(number[:place] + wrong + number[place + 1 :])}
            assert not kinds & {"CREDIT_CARD", "IBAN_CODE", "DE_TAX_ID"}


def test_of_overlapping_finds_the_surer_stands() -> None:
    assert found("call 4111 1111 1111 1111") == [("CREDIT_CARD", "4111 1111 1111 1111")]
    assert found("https://a:b@c.org and x@y.org") == [
        ("URL_CREDENTIALS", "a:b"),
        ("EMAIL_ADDRESS", "x@y.org"),
    ]


def test_redaction_names_the_types_and_leaves_the_rest() -> None:
    text = "Ann <ann@example.org>, +4915112345678: hello"
    assert redact(text) == "Ann <[EMAIL_ADDRESS]>, [PHONE_NUMBER]: hello"
    assert redact("nothing here") == "nothing here"
    assert redact("") == ""


def test_redacted_text_holds_nothing_more_to_redact() -> None:
    for _, marked in HOLDS:
        once = redact(marked.replace("«", "").replace("»", ""))
        assert redact(once) == once


def test_letters_that_grow_when_made_small_shift_nothing() -> None:
    assert found("İ" * 60 + " born on 12/31/1980") == [("DATE_OF_BIRTH", "12/31/1980")]


# Each makes some pattern's worst case when it is repeated.
NASTY = [
    "a", "1", "@", ":", "-", ".", "+", "(", " ", "a@", "a.", "1.", "1 ", "1-", "(1", "+1", "::",
    "a:", "1:", "ab12", "GB12 ", "eyJ", "eyJa1.", "eyJaaaaaaaa1.", "sk-", "sk-1", "sk-a1 ",
    "://", "://a:", "://a:b", "bearer ", "bearer a", "born ", "born 1/1/", "passport ",
    "passport A1", "driver ", "driver's license ", "driver's license A-1", "1/1/1 ", "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----", "1111 ", "1111-", "12 345 678 ", "AB 12 ", "AB12 34", "SG.",
    "SG.a", "hvs.", "hvs.a1", "akia", "AKIA", "a@a.", "a@a", "a.a@", "1.1.1.", "xn--", "é", "\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", NASTY)
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    """Four times the text takes about four times the time; a square would take sixteen."""

    def seconds(size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size] + "!"
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            DETECTOR.spans(text)
            best = min(best, time.process_time() - started)
        return best

    small, large = seconds(20_000), seconds(80_000)
    assert large < 9 * small + 0.01
    # The most that any text of this size may cost, on a slow machine.
    assert large < 2.0
