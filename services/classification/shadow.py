"""A new model beside the one at work: what would change if it decided. Pure: nothing is published or stored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.classification.model.classifier import Classifier, Prediction


@dataclass(frozen=True, slots=True)
class Change:
    """A text of which the two models say different things."""

    text: str
    old: Prediction
    new: Prediction


@dataclass(slots=True)
class Shadow:
    """The comparison so far. `changes` holds the first `samples_max` texts whose label would change."""

    old: Classifier
    new: Classifier
    samples_max: int = 20
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Texts by (old label, new label)."""
    confirmations: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    """Texts by whether the (old, new) answer asks for confirmation."""
    changes: list[Change] = field(default_factory=list)

    def add(self, texts: Iterable[str]) -> None:
        """Let both models decide some more texts."""
        some = list(texts)
        for text, old, new in zip(some, self.old.classify(some), self.new.classify(some), strict=True):
            self.labels[old.label, new.label] += 1
            self.confirmations[old.needs_confirmation, new.needs_confirmation] += 1
            if old.label != new.label and len(self.changes) < self.samples_max:
                self.changes.append(Change(text, old, new))

    @property
    def texts(self) -> int:
        """Texts that both have decided."""
        return self.labels.total()

    @property
    def changed(self) -> int:
        """Texts whose outcome would be another one."""
        return sum(count for (old, new), count in self.labels.items() if old != new)
