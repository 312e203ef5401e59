"""Comparing words, and the smart replies that are compared."""

import pytest

from shared.events import Template
from shared.templates import LOCALES, find, render
from shared.text import known_name, normalise


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("", ""),
        ("  \t\r\n ", ""),
        ("Not   interested,\n thanks", "not interested, thanks"),
        ("...Not interested!?", "not interested"),
        ("«¡No, gracias!»", "no, gracias"),
        ("STRASSE straße", "strasse strasse"),
        ("\uff2e\uff4f", "no"),  # full width
        ("ﬁne", "fine"),
        ("n\u200bo\ufeff", "no"),
        ("soft\u00adware", "software"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\u200b\u0301", "\u00e9"),  # what stands between letter and accent hides that they are one
        ("no\u00a0\u3000thanks", "no thanks"),
        ("!\u200b ?!", ""),
        ("\u2764\ufe0f", "\u2764"),
        ("\U0001f44d", "\U0001f44d"),  # a thumb up says something
        ("$", "$"),
        ("\x07", ""),
        ("興味がありません。", "興味がありません"),
        ("لا، شكرا؟", "لا، شكرا"),
    ],
)
def test_r03_texts_are_compared_without_what_cannot_be_seen_or_heard(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_r03_normalising_again_changes_nothing() -> None:
    # All assigned characters outside the private planes, and the invisible tags.
    for code in (*range(0x32000), *range(0xE0000, 0xE1000)):
        if not 0xD800 <= code < 0xE000:
            once = normalise(f"a{chr(code)}b {chr(code)}")
            assert normalise(once) == once, hex(code)


@pytest.mark.parametrize(
    ("name", "known"),
    [(None, None), ("", None), (" \t", None), ("\u200b\ufeff", None), ("\u00a0", None), (" Ana ", "Ana"), (".", ".")],
)
def test_r03_a_blank_name_is_no_name(name: str | None, known: str | None) -> None:
    assert known_name(name) == known


def test_r03_a_wording_is_recognised_with_any_of_the_names_or_none() -> None:
    template, text = render("not_interested", "en", "Ana")
    wording = find(template)
    assert wording is not None
    assert "Ana" in text
    assert wording.says(normalise(text.upper()), ["Bo", "Ana"])
    assert render("not_interested", "en", " ") == render("not_interested", "en", None)
    assert wording.says(normalise(render("not_interested", "en", None)[1]), [])
    assert not wording.says(normalise(text), ["Bo"])
    assert not wording.says(normalise(text + " Call me in May."), ["Ana"])


def test_r03_a_name_that_looks_like_the_slot_is_only_a_name() -> None:
    assert render("interested", "en", "{name}")[1].count("{name}") == 1


def test_r03_old_versions_stay_and_the_newest_is_offered() -> None:
    for locale in ("de", "en", "es", "fr", "pt"):
        for choice, template_id in (("interested", "reply-interested"), ("not_interested", "reply-not-interested")):
            first = find(Template(id=template_id, version=1, locale=locale))
            assert first is not None
            assert first.choice == choice
            offered, text = render(choice, locale, None)
            assert (offered.version, offered.locale) == (2, locale)
            assert text != first.unnamed


def test_r03_an_unknown_id_version_or_locale_is_not_found() -> None:
    assert find(Template(id="reply-interested", version=1, locale="en")) is not None
    assert find(Template(id="reply-other", version=1, locale="en")) is None
    assert find(Template(id="reply-interested", version=99, locale="en")) is None
    assert find(Template(id="reply-interested", version="1", locale="en")) is None
    assert find(Template(id="reply-interested", version=1, locale="xx")) is None


@pytest.mark.parametrize(
    ("locale", "offered"), [("pt-BR", "pt"), ("DE_at", "de"), ("ja", "en"), (None, "en"), ("", "en")]
)
def test_smart_replies_are_offered_in_the_language_of_the_locale_else_in_english(
    locale: str | None, offered: str
) -> None:
    assert render("interested", locale, None)[0].locale == offered


def test_no_two_wordings_of_a_locale_read_alike() -> None:
    """Else a refusal could be read as interest."""
    assert LOCALES == ("de", "en", "es", "fr", "pt")
    seen = set()
    for locale in LOCALES:
        for version in (1, 2):
            for template_id in ("reply-interested", "reply-not-interested"):
                wording = find(Template(id=template_id, version=version, locale=locale))
                assert wording is not None
                assert wording.named.count("{name}") == 1
                for text in (wording.filled("Ana"), wording.unnamed):
                    key = (locale, normalise(text))
                    assert key not in seen
                    seen.add(key)
