"""The model and what stands before and behind it: cleaning, features, signals, artefact, report, command."""

import io
import json
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from services.classification.cli import LINES_PER_BATCH, BadLineError, classify_jsonl
from services.classification.model import classifier as stored
from services.classification.model import (
    corpus,
    evaluation,
    mixtures,
    wanted,
)
from services.classification.model import limits as choosing
from services.classification.model.classifier import ARTEFACT, ArtefactError, Classifier, Prediction
from services.classification.model.cleaning import CLEAN_CHARS_MAX, fold, own_words
from services.classification.model.corpus import Example
from services.classification.model.courtesies import say_nothing_else
from services.classification.model.encoder import tokenizer
from services.classification.model.evaluation import (
    Judged,
    calibration_error,
    calibration_interval,
    error_by_chance,
    f1,
    unseen,
)
from services.classification.model.features import LEXICON_PATH, clean, dense_names, extract
from services.classification.model.pretrained import pretrained
from services.classification.model.signals import NOTICES_PATH, UNSPACED, absences, hold_a_notice, notices

CLASSIFIER = Classifier.load()


def predict(text: str) -> Prediction:
    return CLASSIFIER.classify([text])[0]


def suspect(text: str) -> Prediction:
    """Predict a text that a machine is suspected to have written."""
    prediction = predict(text)
    assert "auto_reply_suspected" in prediction.signals
    assert prediction.needs_confirmation
    return prediction


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes please, tell me more!", "accept"),
        ("I am not interested, thank you.", "decline"),
        ("Me interesa, ¿hablamos mañana?", "accept"),
        ("No me interesa, gracias.", "decline"),
        ("Avec plaisir, appelez-moi demain.", "accept"),
        ("Merci, mais je ne suis pas intéressé.", "decline"),
        ("Klingt spannend, erzählen Sie mir mehr.", "accept"),
        ("Danke, aber ich habe kein Interesse.", "decline"),
        ("Tenho interesse, pode me mandar mais detalhes?", "accept"),
        ("Obrigado, mas não tenho interesse.", "decline"),
        ("興味があります", "accept"),
        ("興味がありません", "decline"),
        ("👍", "accept"),
        ("👎", "decline"),
    ],
)
def test_r07_plain_answers_are_understood(text: str, label: str) -> None:
    assert predict(text).label == label


def test_r07_plain_replies_are_hardly_ever_misread_and_never_surely() -> None:
    lines = Path(__file__).with_name("plain_replies.txt").read_text(encoding="utf-8").splitlines()
    labels, texts = zip(*(line.split("\t") for line in lines), strict=True)
    told = zip(labels, CLASSIFIER.classify(texts), strict=True)
    wrong = [prediction for label, prediction in told if prediction.label != label]
    assert len(lines) == 227
    assert len(wrong) <= 5
    assert all(prediction.needs_confirmation for prediction in wrong)


@pytest.mark.parametrize("text", ["", "  ", "\u200b", "...", "-- \n"])
def test_r07_what_says_nothing_leans_to_accept_and_asks_for_confirmation(text: str) -> None:
    prediction = predict(text)
    assert (prediction.label, prediction.needs_confirmation) == ("accept", True)
    assert prediction.confidence <= 0.5


@pytest.mark.parametrize(
    "text",
    [
        *("Thanks", "Thank you so much for reaching out! 🙏", "Hello, thanks 👍🏽", "Maybe...", "Hmm, not sure."),
        *("Muchas gracias por tu mensaje.", "Quizás", "Merci beaucoup !", "Peut-être", "Vielen Dank", "Vielleicht."),
        *("Muito obrigada!", "Grazie mille", "Dank je wel", "Dziękuję bardzo.", "Çok teşekkür ederim."),
        *("ご連絡ありがとうございます。", "谢谢您", "Bahut shukriya", "thank you " * 10),
    ],
)
def test_r07_courtesies_alone_lean_to_accept_and_ask_for_confirmation(text: str) -> None:
    prediction = predict(text)
    assert (prediction.label, prediction.confidence, prediction.needs_confirmation) == ("accept", 0.5, True)
    assert prediction.signals == ()


@pytest.mark.parametrize(
    ("text", "label"),
    [("Thanks, but no.", "decline"), ("Danke, kein Interesse", "decline"), ("Merci, avec plaisir !", "accept")],
)
def test_r07_courtesies_hide_no_answer(text: str, label: str) -> None:
    assert predict(text).label == label


def test_nobody_who_teaches_or_is_measured_declines_by_courtesies_alone() -> None:
    rows = [row for split in ("train", "test") for row in corpus.load(split)]
    told = zip(rows, say_nothing_else(clean([row.text for row in rows])), strict=True)
    assert {row.label for row, nothing_else in told if nothing_else} == {"accept"}


@pytest.mark.parametrize("count", [10, 20, 50, 150])
@pytest.mark.parametrize("said", ["I am not interested. ", "Yes, I am interested.\n", "No me interesa! ", "no "])
def test_what_is_said_again_and_again_is_said_once(said: str, count: int) -> None:
    once, again = predict(said), predict(said * count)
    assert (again.label, again.signals) == (once.label, once.signals)
    assert again.confidence == pytest.approx(once.confidence, abs=0.03)  # the last one stays without its blank


def test_an_emoji_drawn_out_is_the_same_emoji() -> None:
    assert clean(["🎉" * 100]) == clean(["🎉🎉🎉"])


@pytest.mark.parametrize("text", ["Мне это не нужно", "관심이 없습니다", "لست مهتما", "qwzx vkjhq zzxqw"])
def test_r07_words_never_met_ask_for_confirmation(text: str) -> None:
    assert predict(text).needs_confirmation


@pytest.mark.parametrize(
    "text",
    [
        "I am out of the office until 4 May. For urgent matters please contact the service desk.",
        "OOO until the 3rd of May",
        "Automatic reply: back on Thursday",
        "自動返信 外出中です",
        "Automatische Antwort: Ich bin bis zum 3. März im Urlaub.",
        "Respuesta automática: estoy de vacaciones hasta el lunes.",
        "Je suis actuellement absente du bureau, de retour le 12 juin.",
        "Estou de férias até o dia 10. Em caso de urgência, contacte a Joana.",
    ],
)
def test_r09_a_text_like_an_answering_machine_s_is_a_response_under_suspicion(text: str) -> None:
    assert suspect(text).label == "accept"


@pytest.mark.parametrize(
    "text",
    [
        "Ms Okafor has left the company. Please write to reception.",
        "Unser Kollege ist nicht mehr für uns tätig.",
        "Madame Blin ne fait plus partie de nos effectifs.",
        "La Sra. Vidal ya no trabaja en esta oficina.",
        "O colega já não faz parte da equipa.",
        "Il dottor Sala non lavora più con noi.",
        "Mevrouw Smit is niet langer werkzaam bij deze organisatie.",
        "Pan Lis już nie pracuje w tym dziale.",
        "Lütfen bu mesaja cevap vermeyiniz.",
        "田中は先月末で退職いたしました。",
        "王经理已离职。",
        "Woh ab hamare saath nahi hain.",
        "This inbox is not monitored.",
        "Your request has been logged.",
        "The recipient's mailbox is full.",
        "We're closed until the 4th.",
        "Kindly note I will be on leave from 5th to 9th June.",
        "The number you have dialled is not in service.",
        "Die gewählte Rufnummer ist nicht vergeben.",
        "Le numéro que vous avez demandé n'est pas attribué.",
        "El número marcado no existe.",
        "O número para o qual ligou não está disponível.",
        "Il numero da Lei chiamato è inesistente.",
        "Het door u gekozen nummer is niet in gebruik.",
        "Wybrany numer nie istnieje.",
        "Arad\u0131\u011f\u0131n\u0131z numara kullan\u0131lmamaktad\u0131r.",
        "おかけになった電話番号は現在使われておりません。",
        "您拨打的电话已关机。",
        "Jis number par aap call kar rahe hain wo band hai",
    ],
)
def test_r09_a_notice_is_a_response_under_suspicion(text: str) -> None:
    suspect(text)


@pytest.mark.parametrize(
    "text",
    [
        "Out of office",
        "I am out of the office until Monday.",
        "Thanks for your message. I am currently out of the office. I will reply when I return.",
        "I'm on parental leave until March.",
        "Estoy fuera de la oficina.",
        "Je suis actuellement absent.",
        "Ich bin bis Montag nicht im B\u00fcro.",
        "Estou de f\u00e9rias at\u00e9 segunda-feira.",
        "Sono in ferie fino al 20 agosto.",
        "Ik ben afwezig tot maandag.",
        "Jestem na urlopie do 5 maja.",
        "Ofis d\u0131\u015f\u0131nday\u0131m.",
        "\u73fe\u5728\u4e0d\u5728\u3067\u3059\u3002",
        "\u6211\u76ee\u524d\u4e0d\u5728\u529e\u516c\u5ba4\u3002",
        "Main office se bahar hoon.",
    ],
)
def test_r09_who_is_away_and_says_no_more_may_be_a_machine(text: str) -> None:
    prediction = suspect(text)
    assert prediction.label == "accept" or prediction.confidence >= CLASSIFIER.limits.sure_confidence_min


def test_r09_plain_away_messages_are_suspected() -> None:
    texts = Path(__file__).with_name("away_messages.txt").read_text(encoding="utf-8").splitlines()
    suspected = ["auto_reply_suspected" in prediction.signals for prediction in CLASSIFIER.classify(texts)]
    assert len(texts) == 55
    assert sum(suspected) >= 54


def test_r09_who_is_away_and_says_more_is_a_person() -> None:
    people = clean([row.text for row in corpus.load("train") if row.label != "auto_reply"])
    assert [text for text in people if absences().fullmatch(text)] == []


@pytest.mark.parametrize("text", ["I am out of the office", "Ich bin in Elternzeit."])
def test_r07_a_suspected_machine_declines_only_where_that_is_sure(text: str) -> None:
    assert predict(text).label == "accept"
    sure_of_less = replace(CLASSIFIER.limits, sure_confidence_min=0.56)
    hasty = Classifier(CLASSIFIER._weights, CLASSIFIER._encoder, sure_of_less, "hasty")
    assert hasty.classify([text])[0].label == "decline"


def test_r09_people_hardly_ever_write_in_the_words_of_a_notice() -> None:
    rows = corpus.load("train")
    held = hold_a_notice(clean([row.text for row in rows]))
    people = np.array([row.label != "auto_reply" for row in rows])
    assert held[people].mean() < 0.0005
    assert held[~people].mean() > 0.05


def test_patterns_written_by_their_first_letters_find_what_each_finds_alone() -> None:
    occasions = json.loads(NOTICES_PATH.read_text(encoding="utf-8")).values()
    alone = [
        re.compile(pattern if lang in UNSPACED else rf"\b(?:{pattern})")
        for occasion in occasions
        for lang, patterns in occasion.items()
        for pattern in patterns
    ]
    texts = clean([row.text for row in corpus.load("train") if row.label == "auto_reply"])
    held = [any(pattern.search(text) for pattern in alone) for text in texts]
    assert [notices().search(text) is not None for text in texts] == held
    assert sum(held) > 300


@pytest.mark.parametrize(
    "text",
    [
        "I'm on holiday until Monday, can we talk then?",
        "Happy to talk, I am back in the office tomorrow.",
        "Is it automation testing? Interested.",
        "已离职\uff0c可以马上上班",
        "3月末で退職しました。すぐに面談可能です。",
    ],
)
def test_r09_a_person_on_holiday_is_no_machine(text: str) -> None:
    assert "auto_reply_suspected" not in predict(text).signals


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("Not at the moment, sorry. Maybe next year.", "not_now"),
        ("No me interesa ahora mismo, quizás más adelante.", "not_now"),
        ("Not for me, but a friend of mine might be interested.", "referral"),
        ("Stop messaging me and remove me from your list.", "unsubscribe"),
        ("Nu even niet, misschien volgend jaar.", "not_now"),
        ("Şu an değil, belki seneye.", "not_now"),
        ("Ich selbst nicht, aber fragen Sie mal Herrn Weber.", "referral"),
        ("Ne m'écrivez plus", "unsubscribe"),
        ("What is the salary?", "question"),
    ],
)
def test_signals_say_what_else_a_reply_holds(text: str, signal: str) -> None:
    assert signal in predict(text).signals


def test_ways_to_decline_are_no_signals_of_an_acceptance() -> None:
    prediction = predict("Yes, I am very interested! A friend of mine works there, tell me more.")
    assert prediction.label == "accept"
    assert prediction.signals == ()


@pytest.mark.parametrize(
    "other",
    [
        "NO THANKS, I AM NOT INTERESTED",
        "no thanks, i am not interested",
        "No\u200b than\u00adks, I am not inter\u200dested",
        "Ｎｏ ｔｈａｎｋｓ, I am not interested",  # noqa: RUF001
        "Nо thаnks, I аm nоt intеrеstеd",  # noqa: RUF001  with Cyrillic letters
    ],
)
def test_how_letters_are_written_does_not_matter(other: str) -> None:
    assert predict(other) == predict("No thanks, I am not interested")


def own(text: str) -> str:
    return own_words(fold([text])[0])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("No thanks\n\n> Would you be open to a call?\n> Ann", "no thanks"),
        ("> Would you be open to a call?\n\nNo thanks", "no thanks"),
        ("Sure!\n\nOn Tue, 3 Mar 2026, Ann Bell wrote:\n> Are you free?", "sure!"),
        ("Sure!\n\nOn Tue, 3 Mar 2026, Ann Bell wrote:\nAre you free?\nAnn", "sure!"),
        ("Klar!\n\nAm 3. März 2026 schrieb Anna Bell:\n> Hätten Sie Zeit?", "klar!"),
        ("Claro\n\nEl 3 mar 2026, Ana escribió:\n> ¿Hablamos?", "claro"),
        ("Oui\n\nLe 3 mars 2026, Anne a écrit :\n> Disponible ?", "oui"),
        ("Sim\n\nEm 3 de março, Ana escreveu:\n> Podemos falar?", "sim"),
        ("Yes\n\n-----Original Message-----\nFrom: Ann\nnot interested", "yes"),
        ("Yes\n-- \nNo Nonsense Ltd", "yes"),
        ("Yes\nSent from my phone", "yes"),
        ("I'll pass.\n\nKind regards,\nAnn Open\nHead of Yes", "i'll pass.\n\nkind regards,"),
        ("Thanks,\nbut no", "thanks,\nbut no"),
        ("> only a quotation", "> only a quotation"),
        ("I once wrote: never again", "i once wrote: never again"),
    ],
)
def test_only_the_candidate_s_own_words_count(text: str, kept: str) -> None:
    assert own(text) == kept


def test_a_postscript_after_the_signature_counts() -> None:
    assert "actually no" in own("Sounds good\n\nBest regards,\nAnn\nPS: actually no, forget it")


def test_long_texts_are_cut_in_the_middle() -> None:
    text = "beginning " + "x " * 200_000 + "end"
    kept = own(text)
    assert len(kept) <= CLEAN_CHARS_MAX + 1
    assert kept.startswith("beginning")
    assert kept.endswith("end")


@pytest.mark.parametrize("text", ["> " * 5_000, "-" * 10_000, "on " * 3_000 + "wrote", "\n" * 10_000, "a" * 10_000])
def test_awkward_long_texts_are_answered(text: str) -> None:
    assert predict(text).label in {"accept", "decline"}


def test_a_word_drawn_out_is_the_same_word() -> None:
    assert predict("Yesssss") == predict("Yes")
    assert predict("OOO") != predict("O")


def test_scripts_without_gaps_are_read_in_words() -> None:
    texts = ["暂时不考虑", "メールは不要です", "CVを送ります", "not now", "N/A 2月"]
    assert extract(clean(texts)).words.tolist() == [5, 5, 4, 2, 4]


def test_no_phrase_of_the_lexicon_is_lost() -> None:
    entries: dict[str, dict[str, list[str]]] = json.loads(LEXICON_PATH.read_text(encoding="utf-8"))
    for name in set(entries) - {"negator", "negator_after", "contrast"}:
        phrases = [phrase.replace(" .. ", " ") for some in entries[name].values() for phrase in some]
        columns = [dense_names().index(column) for column in (name, f"{name}!")]
        found = extract(clean(phrases)).dense[:, columns].sum(axis=1).tolist()
        assert [phrase for phrase, said in zip(phrases, found, strict=True) if not said] == []


def test_negation_is_seen_before_and_after() -> None:
    for plain, negated in (
        ("I am interested", "I am not interested"),
        ("es interessiert mich", "es interessiert mich nicht"),
    ):
        assert predict(plain).label == "accept"
        assert predict(negated).label == "decline"


def test_the_last_clause_settles_it() -> None:
    assert predict("Sounds interesting, but I am not looking right now.").label == "decline"
    assert predict("I am not looking right now, but it sounds interesting, tell me more.").label == "accept"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained.cache_clear()
    tokenizer.cache_clear()
    monkeypatch.setattr("services.classification.model.pretrained.PACKAGE", "not_there")
    with pytest.raises(ArtefactError, match=r"not_there.* make setup"):
        stored._load.__wrapped__(ARTEFACT)


def test_a_group_of_texts_is_bounded_by_what_cleaning_makes_of_them() -> None:
    longer_when_clean = "\ufdfa" * 390
    sizes = [sum(map(len, group)) for group in stored._in_groups(clean([longer_when_clean] * stored.BATCH_TEXTS_MAX))]
    assert len(sizes) > 1
    assert max(sizes) <= stored.BATCH_CHARS_MAX
    assert [len(group) for group in stored._in_groups(["yes"] * 600)] == [256, 256, 88]
    assert list(stored._in_groups(["x" * (stored.BATCH_CHARS_MAX + 1), "y"]))[1] == ["y"]
    assert list(stored._in_groups([])) == []


def test_the_report_says_what_falls_short_and_what_would_help() -> None:
    some = (wanted.Wanted("a", "at least", 0.5, tried="x", helps="y"), wanted.Wanted("b", "at most", 1e3, 0, tried="z"))
    told = [("a", "at least 0.500", "0.500", "yes"), ("b", "at most 1,000", "1,000", "yes")]
    assert wanted.rows({"a": 0.5, "b": 1e3}, some) == told
    assert wanted.shortfalls({"a": 0.5, "b": 1e3}, some) == []
    assert [row[-1] for row in wanted.rows({"a": 0.4999, "b": 1000.1}, some)] == ["no", "no"]
    assert wanted.shortfalls({"a": 0.4999, "b": 1000.1}, some) == [
        "- **a**. Tried: x. Would help: y.",
        "- **b**. Tried: z. Would help: not known yet.",
    ]
    found = evaluation._found([], [], evaluation.Speeds(path=0, words=0, cold_start_seconds=0))
    assert found.keys() == {one.figure for one in wanted.WANTED}


def test_a_new_word_in_the_bucket_of_a_known_one_is_not_known() -> None:
    words = ["".join(letters) for letters in product("bcdfghklmnprst", repeat=3)]
    features = extract(clean(words))
    (stem,) = (group for group in features.groups if group.name == "stem")
    _, slots = stored.word_slots(features)
    met: dict[int, int] = {}
    for number, bucket in enumerate(stem.bucket.tolist()):
        known = met.setdefault(bucket, number)
        if slots[known] != slots[number]:
            break
    else:
        pytest.fail("no two of the words share a bucket")
    seen = np.zeros(stored.SEEN_SLOTS, dtype=bool)
    seen[slots[known]] = True
    shares = stored.known_share(features, replace(CLASSIFIER._weights, seen=seen))
    assert (shares[known], shares[number]) == (1, 0)


def row(text: str, lang: str) -> Example:
    return Example(text, "accept", lang, (), "x", "train")


def test_mixtures_hold_what_was_written_in_one_language() -> None:
    rows = [
        row("Yes. Call me at nine.", "en"),
        row("No. Not in a hundred years! Bye.", "en"),
        row("Oui. Non merci.", "fr"),
    ]
    found = mixtures.mixed(rows, 12, seed=3)
    assert found == mixtures.mixed(rows, 12, seed=3)
    assert found != mixtures.mixed(rows, 12, seed=4)
    known = {lang: {*" ".join(r.text for r in rows if r.lang == lang).lower().split()} for lang in ("en", "fr")}
    for text, lang in found.items():
        assert {word.rstrip(".!") for word in text.split()} <= {word.rstrip(".!") for word in known[lang]}
    assert found.keys().isdisjoint(clean([r.text for r in rows])), "what was written has a label already"


def test_mixtures_hold_neither_quotations_nor_halves_of_sentences() -> None:
    rows = [
        row("Yes. Gladly!\n> We need a welder. Are you one?", "en"),
        row("No. Never again!\n--\nAda Byron", "en"),
        row("好的!谢谢。再见", "zh"),
        row("不了!算了。以后再说", "zh"),
    ]
    words = " ".join(mixtures.mixed(rows, 30))
    assert not {"welder", "ada"} & {*words.replace(".", " ").replace("!", " ").split()}
    assert "!算了" in words
    assert "谢谢。以后再说" in words, "a beginning of one and the end of the other"


@pytest.mark.parametrize("rows", [[], [Example("No.", "decline", "en", (), "x", "train")]])
def test_too_few_rows_for_so_many_mixtures_are_said(rows: list[Example]) -> None:
    with pytest.raises(ValueError, match=r"mixtures of 9: ask for fewer, or add rows"):
        mixtures.mixed(rows, 9)


def test_no_reply_that_is_measured_on_is_part_of_a_mixture() -> None:
    held_back = [*corpus.load("test"), *(e for e in corpus.load("train") if e.author in corpus.JUDGES)]
    written = clean([e.text for e in held_back])
    texts = [text for text in written if len(text) > 60]  # shorter ones are what anybody says
    assert len(texts) > 1000
    everything = "\n".join(mixture.text for mixture in mixtures.load())
    assert [text for text in texts if text in everything] == []


def test_a_bad_line_of_mixtures_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"text": "x", "odds": [1, 0]}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"m\.jsonl, line 1"):
        mixtures.load(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    "name",
    [
        "features_version",
        "lexicon_sha256",
        "notices_sha256",
        "absences_sha256",
        "courtesies_sha256",
        "pretrained",
        "network_sha256",
        "weights_sha256",
    ],
)
def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "artefact"
    shutil.copytree(ARTEFACT, folder)
    manifest = json.loads((folder / stored.MANIFEST_FILE).read_text(encoding="utf-8"))
    (folder / stored.MANIFEST_FILE).write_text(json.dumps({**manifest, name: "other"}), encoding="utf-8")
    with pytest.raises(ArtefactError, match=f"{name}.*make train"):
        Classifier.load(folder)


def test_a_model_of_other_parts_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "artefact"
    shutil.copytree(ARTEFACT, folder)
    manifest = json.loads((folder / stored.MANIFEST_FILE).read_text(encoding="utf-8"))
    del manifest["limits"]["way_score_min"]
    (folder / stored.MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"way_score_min.*make train"):
        Classifier.load(folder)


@pytest.mark.parametrize("name", [stored.WEIGHTS_FILE, stored.NETWORK_FILE])
def test_a_missing_or_broken_model_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtefactError, match="make train"):
        Classifier.load(tmp_path / "nowhere")
    folder = tmp_path / "artefact"
    shutil.copytree(ARTEFACT, folder)
    (folder / name).write_bytes(b"broken")
    with pytest.raises(ArtefactError, match="make train"):
        Classifier.load(folder)


def test_training_and_test_have_no_author_in_common() -> None:
    assert {e.author for e in corpus.load("train")} & {e.author for e in corpus.load("test")} == set()


def test_what_was_trained_on_is_not_measured_on() -> None:
    def example(text: str) -> Example:
        return Example(text, "accept", "en", (), "x", "test")

    left = unseen([example("Yes."), example("Yes, gladly.")], [example("YES.")])
    assert [each.text for each in left] == ["Yes, gladly."]


def test_a_bad_line_of_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1"):
        corpus.load("train", tmp_path)


def test_the_lowest_confidence_that_is_right_often_enough() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    right = np.array([True, True, False, True])
    assert choosing.sure_confidence(confidence, right, 0.75) == 0.6
    assert choosing.sure_confidence(confidence, right, 0.9) == 0.8
    assert choosing.sure_confidence(confidence, ~right, 0.9) == 1.0


def test_calibration_undoes_overconfidence() -> None:
    declined = np.array([1.0] * 8 + [0.0] * 2 + [0.0] * 8 + [1.0] * 2)
    scores = np.array([6.0] * 10 + [-6.0] * 10)
    slope, offset = choosing.calibrate(scores, declined)
    assert 1 / (1 + np.exp(-(slope * 6 + offset))) == pytest.approx(0.8, abs=1e-3)
    assert offset == pytest.approx(0, abs=1e-3)


def judged(written: corpus.Label, said: stored.Label, confidence: float) -> Judged:
    return Judged(Example("", written, "en", (), "x", "test"), Prediction(said, confidence, False, (), "m"))


def test_figures_are_what_they_are_called() -> None:
    rows = [
        judged("accept", "accept", 0.95),
        judged("accept", "accept", 0.95),
        judged("decline", "accept", 0.75),
        judged("accept", "decline", 0.75),
    ]
    assert f1(rows, "accept") == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert f1(rows, "decline") == (0, 0, 0)
    assert calibration_error(rows) == pytest.approx((2 * 0.05 + 2 * 0.75) / 4)


@pytest.mark.parametrize(("right", "by_chance"), [(300, True), (285, True), (250, False)])
def test_an_error_of_calibration_is_held_against_chance(right: int, by_chance: bool) -> None:
    said = Prediction("accept", 0.75, needs_confirmation=False, signals=(), model_version="m")
    rows = [Judged(Example("", "accept" if n < right else "decline", "en", (), "x", "test"), said) for n in range(400)]
    assert (calibration_error(rows) < error_by_chance(rows)) == by_chance


def test_an_error_of_calibration_has_an_interval_as_wide_as_draws_differ() -> None:
    rows = [judged("accept" if n % 4 else "decline", "accept", 0.65) for n in range(400)]
    figure, low, high = map(float, re.findall(r"[\d.]+", calibration_interval(rows)))
    assert (figure, low, high) == pytest.approx((0.1, 0.06, 0.14), abs=0.01), "a deviation is 0.0217"
    assert calibration_interval([judged("accept", "accept", 1.0)]) == "0.000 (0.000 to 0.000)"


# -- the command ------------------------------------------------------------------------------------------------------


def test_lines_are_answered_in_order() -> None:
    lines = [json.dumps({"id": i, "text": "No thanks" if i % 2 else "Yes please"}) for i in range(LINES_PER_BATCH + 1)]
    out = io.BytesIO()
    assert classify_jsonl([b"", *(line.encode() for line in lines), b"\n"], out) == len(lines)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [answer["id"] for answer in answers] == list(range(len(lines)))
    assert [answer["label"] for answer in answers[:2]] == ["accept", "decline"]
    assert list(answers[0]) == ["id", "label", "confidence", "needs_confirmation", "signals", "model_version"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[]", "line 2: "),
        ('{"id": "a"}', "line 2: text"),
        ('{"id": null, "text": ""}', "line 2: id"),
        ('{"id": 99999999999999999999, "text": ""}', "line 2: id"),
        ('{"id": "a", "text": "' + "x" * 1024 * 1024 + '"}', "line 2: 10"),
        ('{"id": "a", "text": "caf\xe9"}', "line 2: the line"),
    ],
)
def test_a_bad_line_is_named_after_the_lines_before_it_are_answered(line: str, message: str) -> None:
    out = io.BytesIO()
    with pytest.raises(BadLineError, match=message):
        classify_jsonl([b'{"id": "first", "text": "yes"}', line.encode("latin-1")], out)
    assert [json.loads(answer)["id"] for answer in out.getvalue().splitlines()] == ["first"]
