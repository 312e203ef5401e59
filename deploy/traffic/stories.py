"""A few conversations written by hand, the same in every scenario, to be told at the end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from deploy.traffic.people import Person
from deploy.traffic.places import LARGE
from deploy.traffic.talk import Talk


@dataclass(frozen=True, slots=True)
class Story:
    """A conversation with a title; it begins so many days before the scenario's end."""

    title: str
    talk: Talk
    days_ago: float


def _one_click(talk: Talk) -> None:
    inmail_id = talk.schedule()
    talk.wait(hours=1)
    talk.send(inmail_id)
    talk.wait(hours=3)
    talk.draft("not_interested")
    talk.wait(minutes=2)
    talk.draft("interested")
    talk.wait(minutes=1)
    talk.reply_as_offered("interested", "as is")


def _second_thoughts(talk: Talk) -> None:
    talk.send()
    talk.wait(hours=20)
    talk.reply_as_offered("not_interested", "as is")
    talk.wait(hours=1)
    talk.recruiter_writes("Would a four-day week change your mind?")
    talk.wait(days=2)
    talk.reply_in_words("accept", text="Una semana de cuatro días lo cambia todo. ¡Hablemos, me interesa!")
    talk.wait(hours=2)
    talk.recruiter_writes("Wonderful. I will call you on Thursday.")


def _no_need_to_remind(talk: Talk) -> None:
    talk.send()
    talk.wait(hours=1)
    talk.schedule(kind="follow_up", automated=True, deliver_in_days=7)
    talk.wait(days=3)
    talk.reply_in_words("decline", text="Merci d'avoir pensé à moi, mais je viens de signer ailleurs.")


def _for_two(talk: Talk) -> None:
    talk.follow(talk.desk.colleagues[0])
    talk.wait(minutes=10)
    talk.send()
    talk.wait(days=1, hours=13)
    talk.reply_edited("interested", "added")


def _too_late(talk: Talk) -> None:
    talk.send()
    talk.wait(days=90, milliseconds=1)
    talk.reply_in_words("accept", text="Desculpe a demora! Ainda quero saber mais sobre a vaga, podemos conversar?")


def _out_of_order(talk: Talk) -> None:
    talk.send()
    talk.wait(hours=5)
    talk.reply_in_words("accept", text="Das klingt gut, wann können wir telefonieren?")
    talk.wait(days=1)
    talk.reply_as_offered("not_interested", "as is")
    talk.arrival = (2, 1, 0)


# (title, name, language, days before the end, seat, plot)
_STORIES: Final[tuple[tuple[str, str, str, float, int, Callable[[Talk], None]], ...]] = (
    ("One click is enough", "Maya Bennett", "en", 9, 0, _one_click),
    ("A bare refusal locks the thread; own words open it again", "Diego Navarro", "es", 12, 0, _second_thoughts),
    ("Who has answered is not reminded", "Élodie Garnier", "fr", 20, 2, _no_need_to_remind),
    ("A colleague wants to know, too", "Priya Shah", "en", 6, 3, _for_two),
    ("One millisecond too late for the credit", "Thiago Araújo", "pt", 110, 1, _too_late),
    ("Everything arrives backwards", "Katharina Vogt", "de", 15, 0, _out_of_order),
)


def stories() -> Iterator[Story]:
    """Write the stories."""
    for number, (title, name, language, days_ago, seat, plot) in enumerate(_STORIES, start=1):
        person = Person(f"story-{number}/candidate", name, language, language, "Europe/Lisbon")
        talk = Talk(f"story-{number}", LARGE[0].desk(seat), person, Random(number))  # noqa: S311  repeatable traffic, no secret
        plot(talk)
        yield Story(title, talk, days_ago)
