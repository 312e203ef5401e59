"""The ways a conversation can go: each plot writes one, with chance deciding the details."""

from collections.abc import Callable
from typing import Final

from deploy.traffic.people import leaning
from deploy.traffic.talk import Offered, Talk
from shared.events import Choice

_HOWS: Final[tuple[Offered, ...]] = ("as is", "as is", "as is", "empty", "retyped", "old", "unnamed")


def opening(talk: Talk, *, credit_cost: int = 1) -> str:
    """Send the first InMail, half of the time scheduled before."""
    if talk.chance(0.5):
        inmail_id = talk.schedule(credit_cost=credit_cost)
        talk.wait(hours=1)
        talk.send(inmail_id)
    else:
        inmail_id = talk.send(credit_cost=credit_cost)
    return inmail_id


def silent(talk: Talk) -> None:
    """Nobody answers; sometimes a follow-up is sent, or still waits."""
    opening(talk)
    if talk.chance(0.35):
        talk.wait(days=7)
        follow_up = talk.schedule(kind="follow_up", automated=talk.chance(0.7), deliver_in_days=3)
        if talk.chance(0.6):
            talk.wait(days=3)
            talk.send(follow_up)


def chosen(talk: Talk) -> None:
    """A smart reply, as it was offered (R1, R3, R4)."""
    opening(talk)
    talk.wait_some(6)
    choice = _choice(talk)
    if talk.chance(0.4):
        talk.draft(choice)
        talk.wait(minutes=1)
    talk.reply_as_offered(choice, talk.rng.choice(_HOWS))


def edited(talk: Talk) -> None:
    """A smart reply with own words (R5)."""
    opening(talk)
    talk.wait_some(6)
    talk.reply_edited(_choice(talk), talk.rng.choice(("added", "added", "replaced", "attached", "unknown")))


def own_words(talk: Talk) -> None:
    """A message without a choice (R7)."""
    opening(talk)
    talk.wait_some(12)
    talk.reply_in_words(leaning(talk.rng))


def long_talk(talk: Talk) -> None:
    """Several messages, whatever they say (R8)."""
    inmail_id = opening(talk)
    for _ in range(talk.rng.randint(2, 3)):
        talk.wait_some(2)
        talk.reply_in_words(leaning(talk.rng), in_reply_to=inmail_id if talk.chance(0.3) else None)


def changed_mind(talk: Talk) -> None:
    """Drafts one way and sends the other (R2)."""
    opening(talk)
    talk.wait_some(3)
    choice = _choice(talk)
    for draft in (_other(choice), None, choice):
        talk.draft(draft)
        talk.wait(minutes=1)
    talk.reply_as_offered(choice, "as is")


def only_drafted(talk: Talk) -> None:
    """Picks a smart reply and never sends it (R2)."""
    opening(talk)
    talk.wait_some(3)
    talk.draft(_choice(talk))


def chosen_after_words(talk: Talk) -> None:
    """Writes, and later says it with a smart reply (R8)."""
    opening(talk)
    talk.wait_some(3)
    talk.reply_in_words(leaning(talk.rng))
    talk.wait_some(3)
    talk.reply_as_offered(_choice(talk), "as is")


def flipped(talk: Talk) -> None:
    """Declines in own words and comes back with a message (R8), sometimes before anybody was told (R28)."""
    opening(talk)
    talk.wait_some(3)
    talk.reply_in_words("decline")
    talk.wait_some(0.01 if talk.chance(0.5) else 5)
    talk.reply_in_words("accept")


def unlocked(talk: Talk) -> None:
    """A bare refusal locks the thread; own words open it again (R4, R6)."""
    opening(talk)
    talk.wait_some(3)
    talk.reply_as_offered("not_interested", "as is")
    talk.wait_some(0.2)
    talk.recruiter_writes("May I ask what would have to change?")
    talk.wait_some(5)
    if talk.chance(0.5):
        talk.reply_in_words("accept")
    else:
        talk.reply_as_offered("interested", "as is")
    talk.wait_some(0.5)
    talk.recruiter_writes("That is good to hear!")


def said_twice(talk: Talk) -> None:
    """The same choice again: a new version of an equal outcome (R8)."""
    opening(talk)
    choice = _choice(talk)
    for _ in range(2):
        talk.wait_some(2)
        talk.reply_as_offered(choice, "as is")


def away(talk: Talk) -> None:
    """The platform answers for somebody who is away (R9)."""
    opening(talk)
    talk.wait(minutes=2)
    talk.reply_automatically()
    if talk.chance(0.4):
        talk.wait_some(9)
        talk.reply_in_words(leaning(talk.rng))


def like_a_machine(talk: Talk) -> None:
    """An away message that nobody has marked as one (R9)."""
    opening(talk)
    talk.wait(minutes=3)
    talk.reply_like_a_machine()


def bounced(talk: Talk) -> None:
    """An InMail that does not arrive (R17); sometimes a second one does, and is answered."""
    inmail_id = talk.schedule()
    talk.wait(hours=1)
    if talk.chance(0.5):
        talk.send(inmail_id)
        talk.wait(minutes=2)
    talk.bounce(inmail_id)
    if talk.chance(0.4):
        talk.wait(days=1)
        talk.send()
        talk.wait_some(4)
        talk.reply_as_offered(_choice(talk), "as is")


def withdrawn(talk: Talk) -> None:
    """An InMail that is taken back before it is sent, or after; sometimes it is answered all the same (R18)."""
    if talk.chance(0.3):
        inmail_id = talk.schedule(deliver_in_days=2)
        talk.wait(hours=5)
        talk.withdraw(inmail_id)
        return
    inmail_id = opening(talk)
    talk.wait_some(3)
    talk.withdraw(inmail_id)
    if talk.chance(0.3):
        talk.wait_some(3)
        talk.reply_edited("interested", "added")


def at_the_boundary(talk: Talk) -> None:
    """An answer around the end of the credit window, equality included, to the millisecond (R13)."""
    opening(talk)
    days, milliseconds = talk.rng.choice(((89, 0), (90, -1), (90, 0), (90, 1), (91, 0)))
    talk.wait(days=days)
    talk.wait(milliseconds=milliseconds)
    if talk.chance(0.5):
        talk.reply_as_offered("interested", "as is")
    else:
        talk.reply_in_words("accept")


def hundredth_day(talk: Talk) -> None:
    """Day 0, follow-up on day 28, an answer on day 100 that names neither (R15)."""
    opening(talk)
    talk.wait(days=28)
    talk.send(kind="follow_up", automated=True)
    talk.wait(days=72)
    talk.reply_in_words("accept")


def cancelled(talk: Talk) -> None:
    """An answer while an automated follow-up waits (R16); sometimes that goes out all the same."""
    opening(talk)
    follow_up = talk.schedule(kind="follow_up", automated=True, deliver_in_days=7)
    talk.wait_some(6)
    talk.reply_as_offered(_choice(talk), "as is")
    if talk.chance(0.2):
        talk.wait(hours=1)
        talk.send(follow_up)


def answered_by_name(talk: Talk) -> None:
    """An answer that names the first InMail although a newer one was sent (R12)."""
    first = opening(talk)
    talk.wait(days=7)
    talk.send(kind="follow_up", automated=True)
    talk.wait_some(2)
    talk.reply_in_words(leaning(talk.rng), in_reply_to=first)


def in_company(talk: Talk) -> None:
    """Colleagues follow, one leaves again, the thread is given away; all who are left are told (R26)."""
    first, second = talk.desk.colleagues[:2]
    if talk.chance(0.3):
        talk.follow(first)
    opening(talk)
    talk.wait_some(1)
    talk.follow(second)
    if talk.chance(0.5):
        talk.wait_some(1)
        talk.unfollow(second)
    if talk.chance(0.5):
        talk.wait_some(1)
        talk.reassign(first)
    talk.wait_some(3)
    if talk.chance(0.5):
        talk.reply_as_offered(_choice(talk), "as is")
    else:
        talk.reply_in_words(leaning(talk.rng))
    talk.wait_some(1)
    talk.follow(second)


def impatient(talk: Talk) -> None:
    """A recruiter who writes before there is an answer, and after it (R20)."""
    opening(talk)
    talk.wait_some(1)
    talk.recruiter_writes("Did you see my message?")
    talk.wait_some(3)
    talk.reply_in_words(leaning(talk.rng))
    talk.wait_some(1)
    talk.recruiter_writes()


def into_nothing(talk: Talk) -> None:
    """A recruiter who writes in a thread that does not exist (R20)."""
    talk.recruiter_writes("Hello?")


def free_of_charge(talk: Talk) -> None:
    """An InMail that costs nothing (R19)."""
    opening(talk, credit_cost=0)
    talk.wait_some(3)
    if talk.chance(0.5):
        talk.reply_as_offered(_choice(talk), "as is")


def ahead_of_time(talk: Talk) -> None:
    """An answer that, by another clock, came a little before its InMail (R22)."""
    talk.send()
    talk.wait(minutes=-talk.rng.randint(1, 4))
    talk.reply_as_offered(_choice(talk), "as is")


def never_explained(talk: Talk) -> None:
    """An answer to an InMail that nobody has told of: it waits (R21)."""
    talk.reply_in_words("accept")


Plot = Callable[[Talk], None]

# How often each happens, in thousandths. What must not grow with the traffic is in RARE.
PLOTS: Final[dict[Plot, int]] = {
    silent: 340,
    chosen: 150,
    own_words: 140,
    edited: 70,
    long_talk: 25,
    changed_mind: 20,
    only_drafted: 10,
    chosen_after_words: 20,
    flipped: 20,
    unlocked: 20,
    said_twice: 10,
    away: 20,
    like_a_machine: 10,
    bounced: 25,
    withdrawn: 25,
    at_the_boundary: 15,
    hundredth_day: 10,
    cancelled: 25,
    answered_by_name: 10,
    in_company: 25,
    impatient: 15,
    free_of_charge: 15,
    ahead_of_time: 10,
}
RARE: Final[tuple[Plot, ...]] = (never_explained, never_explained, into_nothing, into_nothing)


def _choice(talk: Talk) -> Choice:
    return "interested" if talk.chance(0.55) else "not_interested"


def _other(choice: Choice) -> Choice:
    return "not_interested" if choice == "interested" else "interested"
