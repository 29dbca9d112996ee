"""Names of downloads (RFC 6266 and 8187): every script arrives, nothing harmful does."""

import re
from urllib.parse import unquote

import httpx
import pytest

from kontext.server.service.outputs import disposition

HEADER = re.compile(r"attachment; filename=\"([A-Za-z0-9.-]+)\"(?:; filename\*=UTF-8''([A-Za-z0-9%._~-]+))?")


def names(header):
    """A name in ASCII, and the name that a browser takes."""
    found = HEADER.fullmatch(header)
    assert found, header
    return found[1], unquote(found[2], errors="strict") if found[2] else found[1]


@pytest.mark.parametrize(
    "name, plain, whole",
    [
        ("My kid", "My-kid.zip", "My-kid.zip"),
        ("我的孩子", "session.zip", "我的孩子.zip"),
        ("Мой ребёнок", "session.zip", "Мой-ребёнок.zip"),
        ("ילד שלי", "session.zip", "ילד-שלי.zip"),
        ("طفلي", "session.zip", "طفلي.zip"),
        ("बच्चा", "session.zip", "बच्चा.zip"),
        ("café 2", "cafe-2.zip", "café-2.zip"),
        ("cafe\u0301", "cafe.zip", "café.zip"),
        ("👩‍👩‍👧 family", "family.zip", "👩‍👩‍👧-family.zip"),
        ('a "quoted" name', "a-quoted-name.zip", "a-quoted-name.zip"),
        ("it's; filename=evil.exe", "it-s-filename-evil-exe.zip", "it-s-filename-evil-exe.zip"),
        ("../../etc/passwd", "etc-passwd.zip", "etc-passwd.zip"),
        ("C:\\kid*?<>|", "C-kid.zip", "C-kid.zip"),
        ("a\r\nSet-Cookie: x=1", "a-Set-Cookie-x-1.zip", "a-Set-Cookie-x-1.zip"),
        ("photo\u202egnp.exe", "photognp-exe.zip", "photognp-exe.zip"),
        ("\u2066kid\u2069\ufeff\ud800\x00", "kid.zip", "kid.zip"),
        ("100% wahr", "100-wahr.zip", "100-wahr.zip"),
        ("\u3000孩子\u00a0", "session.zip", "孩子.zip"),
        ("", "session.zip", "session.zip"),
        ("...", "session.zip", "session.zip"),
    ],
)
def test_a_name_keeps_its_letters_and_loses_what_harms(name, plain, whole):
    assert names(disposition(name, "zip", "session")) == (plain, whole)


@pytest.mark.parametrize("letter", ["a", "é", "我", "😀", "👩‍🚀"])
def test_a_long_name_fits_a_file_system(letter):
    plain, whole = names(disposition(letter * 1000, "jpeg", "picture", "00-"))
    assert whole.startswith(f"00-{letter}") and whole.endswith(".jpeg")
    assert (
        len(whole.encode()) <= 255
        and len(plain) <= 255
        and not whole.removesuffix(".jpeg").endswith("\u200d")
    )


@pytest.mark.parametrize("name", ["我的孩子", "ילד שלי", "👩‍👩‍👧", 'say "hi"', "é\u202e"])
def test_downloads_carry_the_names_of_sessions_and_turns(server, name):
    session = server.session(name=name)
    base = f"/api/sessions/{session['id']}"

    def download(path, **query) -> httpx.Response:
        answer = server.http.get(path, params=query)
        assert answer.status_code == 200
        return answer

    expected = disposition(name, "zip", "session")
    assert download(f"{base}/export").headers["content-disposition"] == expected
    source = session["turns"][0]["picture"]
    for form in ("png", "jpeg", "webp"):
        header = download(source, download=True, format=form).headers["content-disposition"]
        assert header == disposition(name, form, "picture", "00-")
    assert download(source, download=True, width=32).headers["content-disposition"]
    server.ended(server.edit(session, name.replace("\u202e", ""))[0])
    made = server.load(session)["turns"][1]
    header = download(made["picture"], download=True, metadata=False).headers["content-disposition"]
    assert header == disposition(name.lower(), "png", "picture", "01-")
    answer = server.http.patch(f"{base}/turns/{made['id']}", json={"name": "Zweiter Schritt é"})
    assert answer.status_code == 200
    header = download(made["picture"], download=True).headers["content-disposition"]
    assert names(header) == ("01-zweiter-schritt-e.png", "01-zweiter-schritt-é.png")
