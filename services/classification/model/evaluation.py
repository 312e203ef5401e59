"""`python -m services.classification.model.evaluation`: measure the stored model and write REPORT.md.

The test rows are by authors who wrote none of the training rows. They are for measuring only: nothing in training
reads them. LABELS.md says what those who wrote training rows knew of the errors on them.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from services.classification.model import corpus, wanted
from services.classification.model.classifier import ARTEFACT, MANIFEST_FILE, Classifier, Prediction
from services.classification.model.cleaning import fold
from services.classification.model.corpus import Example
from services.classification.model.duplicates import near_duplicates
from services.classification.model.features import Bools
from services.classification.model.limits import SURE_SHARE_MIN
from services.classification.model.meaning import Scores
from services.classification.model.picture import curve
from services.classification.model.signals import AUTO_REPLY_SUSPECTED, SIGNALS

REPORT: Final = Path(__file__).parent / "REPORT.md"
BINS: Final = 10
COVERAGES: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
TAG_ROWS_MIN: Final = 5
LARGE_LANGUAGES: Final = ("es", "fr", "de", "pt")
LIMITS_COMPARED: Final = (0.0, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.01)
SPEED_TEXTS: Final = 5_000
SHORT_TEXT_CHARS_MAX: Final = 200
BOOTSTRAPS: Final = 1_000
ERRORS_SHOWN: Final = 25
ERROR_CHARS_MAX: Final = 160


@dataclass(frozen=True, slots=True)
class Judged:
    """An example and what the model makes of it."""

    example: Example
    prediction: Prediction

    @property
    def right(self) -> bool:
        """Whether the label is the author's."""
        return self.prediction.label == self.example.label

    @property
    def automated(self) -> bool:
        """Whether nobody wrote it."""
        return self.example.label == "auto_reply"

    @property
    def sure(self) -> bool:
        """Whether the answer needs no confirmation."""
        return not self.prediction.needs_confirmation

    @property
    def suspected(self) -> bool:
        """Whether a machine is taken for the author."""
        return AUTO_REPLY_SUSPECTED in self.prediction.signals


@dataclass(frozen=True, slots=True)
class Speeds:
    """Short texts answered in a second of one core, by the whole path and by the words alone; a cold start."""

    path: float
    words: float
    cold_start_seconds: float


def judge(classifier: Classifier, examples: Sequence[Example]) -> list[Judged]:
    """Classify examples."""
    predictions = classifier.classify([example.text for example in examples])
    return [Judged(example, prediction) for example, prediction in zip(examples, predictions, strict=True)]


def unseen(test: Sequence[Example], train: Sequence[Example]) -> list[Example]:
    """The test rows of which no near duplicate is in training: two authors may both write "Unsubscribe"."""
    known = near_duplicates(fold([e.text for e in test]), fold([e.text for e in train]))
    return [example for example, is_known in zip(test, known.tolist(), strict=True) if not is_known]


def share(flags: Iterable[bool]) -> float:
    """Give the share of true ones; 0 where there are none at all."""
    counted = Counter(flags)
    return counted[True] / max(counted.total(), 1)


def f1(judged: Sequence[Judged], label: str) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean for one label."""
    said = [j for j in judged if j.prediction.label == label]
    meant = [j for j in judged if j.example.label == label]
    precision, recall = share(j.right for j in said), share(j.right for j in meant)
    return precision, recall, 2 * precision * recall / ((precision + recall) or 1)


def mean_f1(judged: Sequence[Judged]) -> float:
    """Give the mean of both labels' F1."""
    return (f1(judged, "accept")[2] + f1(judged, "decline")[2]) / 2


def calibration_error(judged: Sequence[Judged]) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, over bins of equal width, by size."""
    return float(_calibration_errors(judged, np.array([[j.right for j in judged]]), 1)[0])


def calibration_interval(judged: Sequence[Judged]) -> str:
    """Give the calibration error with its 95 % interval by bootstrap: drawing adds to it, so it may lie at one end."""
    times = np.array([np.bincount(rows, minlength=len(judged)) for rows in _draws(len(judged))])
    errors = _calibration_errors(judged, np.array([[j.right for j in judged]]), times)
    return _with_interval(calibration_error(judged), errors)


def error_by_chance(judged: Sequence[Judged]) -> float:
    """Give the calibration error that one draw in twenty exceeds where every confidence is exactly right."""
    drawn = np.random.default_rng(0).random((BOOTSTRAPS, len(judged)))
    exact = drawn < np.array([j.prediction.confidence for j in judged])
    return float(np.quantile(_calibration_errors(judged, exact, 1), 0.95))


def _calibration_errors(judged: Sequence[Judged], right: Bools, times: npt.NDArray[np.intp] | int) -> Scores:
    """Give the error, (draws,), for each draw of which rows are right and how often each counts, (draws, rows)."""
    confidence = np.array([j.prediction.confidence for j in judged])
    return np.asarray(np.abs(((right - confidence) * times) @ _bins(confidence)).sum(axis=1) / max(len(judged), 1))


def _bins(confidence: Scores) -> Scores:
    """Put rows into bins of confidence of equal width: 1 where a row stands in a bin, (rows, BINS)."""
    return np.eye(BINS)[np.minimum((confidence * BINS).astype(np.intp), BINS - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Write a Markdown table."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in row) + " |" for row in rows),
        "",
    ]


def by(judged: Sequence[Judged], keys: Callable[[Judged], Iterable[str]]) -> list[tuple[str, int, float]]:
    """Accuracy by key: name, rows, share right; largest first."""
    grouped: dict[str, list[Judged]] = {}
    for j in judged:
        for key in keys(j):
            grouped.setdefault(key, []).append(j)
    counted = [(key, len(some), share(j.right for j in some)) for key, some in grouped.items()]
    return sorted(counted, key=lambda row: (-row[1], row[0]))


def signal_rows(judged: Sequence[Judged]) -> list[tuple[str, int, float, float]]:
    """Precision and recall of each signal, held against the authors' tags (a tag is not a complete truth)."""
    tag_of = {AUTO_REPLY_SUSPECTED: "auto_reply"}
    rows = []
    for signal in SIGNALS:
        tag = tag_of.get(signal, signal)

        def tagged(j: Judged, tag: str = tag) -> bool:
            return j.example.label == tag or tag in j.example.tags

        said = [j for j in judged if signal in j.prediction.signals]
        meant = [j for j in judged if tagged(j)]
        rows.append(
            (signal, len(meant), share(map(tagged, said)), share(signal in j.prediction.signals for j in meant))
        )
    return rows


def answers_a_second(classifier: Classifier, examples: Sequence[Example]) -> float:
    """Short texts classified in a second of one core, the best of three runs; all but the first know the words."""
    short = [example.text for example in examples if len(example.text) <= SHORT_TEXT_CHARS_MAX]
    texts = list(islice(cycle(short), SPEED_TEXTS))
    return len(texts) / _fastest_seconds(lambda: classifier.classify(texts), runs=3)


def cold_start_seconds() -> float:
    """Start an interpreter that loads the model and answers: the shortest of three times, files being in memory."""
    program = "from services.classification.model.classifier import Classifier; Classifier.load().classify(['hm'])"
    command = [sys.executable, "-c", program]
    return _fastest_seconds(lambda: subprocess.run(command, check=True), runs=3)  # noqa: S603  our own program


def sums_bytes(path: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the processor has instructions for the network's products: with them it is several times faster."""
    flags = path.read_text(encoding="utf-8") if path.exists() else ""
    return any(name in flags for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _fastest_seconds(step: Callable[[], object], *, runs: int) -> float:
    def timed() -> float:
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    return min(timed() for _ in range(runs))


def interval(flags: Sequence[bool]) -> str:
    """Give a share with its 95 % interval by bootstrap, repeatable."""
    if not flags:
        return "no rows"
    values = np.array(flags, dtype=np.float64)
    return _with_interval(float(values.mean()), values[_draws(len(values))].mean(axis=1))


def _draws(rows: int) -> npt.NDArray[np.intp]:
    """Draw rows with replacement, (BOOTSTRAPS, rows)."""
    return np.random.default_rng(0).integers(rows, size=(BOOTSTRAPS, rows))


def _with_interval(figure: float, drawn: Scores) -> str:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{figure:.3f} ({low:.3f} to {high:.3f})"


def report(
    classifier: Classifier, manifest: dict[str, object], everything: Sequence[Judged], left_out: int, speeds: Speeds
) -> str:
    """Write the report on judged test rows, and on the training split's left-out authors as the manifest holds it."""
    judged = [j for j in everything if not j.automated]
    automated = [j for j in everything if j.automated]
    lines = [
        *_about(classifier, judged, automated, left_out),
        *table(("figure", "value"), _main_figures(judged, automated, speeds)),
        "![Accuracy of the surest answers](coverage.svg) ![Confidence and accuracy](reliability.svg)",
        "",
        *_against_what_was_wanted(_found(judged, automated, speeds)),
        *_in_parts(judged, everything),
        *_cost_and_sureness(classifier, judged),
        "## Signals",
        "",
        "Held against the tags; those of refusals were read anew by readers who saw the texts alone (LABELS.md).",
        "",
        *table(("signal", "rows tagged", "precision", "recall"), signal_rows(everything)),
        "## Rows that teach nothing, on which weights of scores and thresholds were chosen",
        "",
        *table(("figure", "value"), list(_figures(manifest))),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _about(
    classifier: Classifier, judged: Sequence[Judged], automated: Sequence[Judged], left_out: int
) -> tuple[str, ...]:
    return (
        "# What the model achieves",
        "",
        f"Model `{classifier.version}`. Made by `make eval` (`python -m services.classification.model.evaluation`),",
        "from the artefact that `make train` (`python -m services.classification.model.training`) wrote.",
        "",
        f"Test rows: {len(judged)} replies and {len(automated)} automated ones, by authors none of whose rows are in",
        f"training; {left_out} more rows are left out, as training holds nearly the same words",
        f"(`duplicates.py`). {share(j.example.hard for j in judged):.0%} of the replies are hard by their tags.",
        "All count in the accuracy, those that ask for confirmation too. In brackets: 95 % intervals by bootstrap.",
        "",
    )


def _against_what_was_wanted(found: Mapping[str, float]) -> tuple[str, ...]:
    return (
        "## What was wanted",
        "",
        f"Answers a second are those to texts up to {SHORT_TEXT_CHARS_MAX} characters.",
        "",
        *table(("figure", "wanted", "found", "reached"), wanted.rows(found)),
        *wanted.shortfalls(found),
        "",
    )


def _in_parts(judged: Sequence[Judged], everything: Sequence[Judged]) -> tuple[str, ...]:
    """Write how the model does by label, language, author and kind of reply."""
    confusion = Counter((j.example.label, j.prediction.label) for j in judged)
    return (
        "## Labels",
        "",
        *table(("label", "precision", "recall", "F1"), [(name, *f1(judged, name)) for name in ("accept", "decline")]),
        *table(
            ("written as", "said accept", "said decline"),
            [(w, confusion[w, "accept"], confusion[w, "decline"]) for w in ("accept", "decline")],
        ),
        "## Languages",
        "",
        *table(("language", "rows", "accuracy", "F1", "sure", "calibration error", "by chance"), _by_language(judged)),
        "By chance: if confidence were exactly right in each row, one draw in twenty would show a larger error.",
        "",
        "## Authors",
        "",
        "Each wrote an examination of their own; LABELS.md says what they were asked for.",
        "",
        *table(
            ("author", "replies", "accuracy", "sure", "right where sure", "automated", "suspected", "people suspected"),
            _by_author(everything),
        ),
        "## Kinds of replies",
        "",
        *table(("tag", "rows", "accuracy", "F1"), _by_tag(judged)),
        *table(
            ("replies", "rows", "accuracy"),
            [(name, len(some), interval([j.right for j in some])) for name, some in _by_hardness(judged)],
        ),
    )


def _cost_and_sureness(classifier: Classifier, judged: Sequence[Judged]) -> tuple[str, ...]:
    return (
        "## Accuracy and cost",
        "",
        "The words decide alone from a confidence upwards; below it the encoder is asked. One core, the test rows,",
        "the best of two runs.",
        "",
        *table(
            ("words decide from", "encoder asked", "accuracy", "sure", "texts a second"), _costs(classifier, judged)
        ),
        "## The surest answers",
        "",
        *table(("share of answers, the surest first", "lowest confidence", "accuracy"), coverage(judged)),
        "## Worst errors",
        "",
        "The surest answers that are wrong.",
        "",
        *table(("confidence", "written as", "language", "text"), _worst(judged)),
    )


def coverage(judged: Sequence[Judged]) -> list[tuple[float, float, float]]:
    """Give share of answers, lowest confidence among them, and accuracy, for the surest answers."""
    by_share = [(c, _surest(judged, c)) for c in COVERAGES if judged]
    return [(c, some[-1].prediction.confidence, share(j.right for j in some)) for c, some in by_share]


def _surest(judged: Sequence[Judged], coverage: float) -> list[Judged]:
    """Give so large a share of the answers, the surest first; one at least."""
    return sorted(judged, key=lambda j: -j.prediction.confidence)[: max(int(len(judged) * coverage), 1)]


def reliability(judged: Sequence[Judged]) -> list[tuple[float, float]]:
    """Give mean confidence and accuracy of each bin of confidence that holds rows."""
    confidence = np.array([j.prediction.confidence for j in judged])
    bins = _bins(confidence)
    sums = np.array([confidence, [j.right for j in judged], np.ones(len(judged))]) @ bins
    return [(confident / rows, right / rows) for confident, right, rows in sums.T.tolist() if rows]


def _main_figures(judged: Sequence[Judged], automated: Sequence[Judged], speeds: Speeds) -> list[tuple[str, object]]:
    return [
        ("accuracy", interval([j.right for j in judged])),
        ("accuracy of answers that need no confirmation", interval([j.right for j in judged if j.sure])),
        ("share of answers that need no confirmation", interval([j.sure for j in judged])),
        (f"accuracy of the surest {SURE_SHARE_MIN:.0%}", interval([j.right for j in _surest(judged, SURE_SHARE_MIN)])),
        ("expected calibration error, 10 bins", calibration_interval(judged)),
        ("automated replies suspected", interval([j.suspected for j in automated])),
        ("people's replies falsely suspected", interval([j.suspected for j in judged])),
        ("automated replies not taken for a refusal", interval([j.prediction.label == "accept" for j in automated])),
        (f"answers a second, texts up to {SHORT_TEXT_CHARS_MAX} characters, one core", f"{round(speeds.path, -2):.0f}"),
        ("seconds from a cold start, the encoder loaded too", f"{speeds.cold_start_seconds:.1f}"),
        (
            "answers a second and cold start on a processor that",
            f"{'has' if sums_bytes() else 'lacks'} sums of products of bytes (VNNI, AMX)",
        ),
    ]


def _found(judged: Sequence[Judged], automated: Sequence[Judged], speeds: Speeds) -> dict[str, float]:
    """Give the figures of `wanted.WANTED`."""
    right = {lang: accuracy for lang, _, accuracy in by(judged, lambda j: [j.example.lang])}
    others = right.keys() - {"en", *LARGE_LANGUAGES}
    return {
        "accuracy, English": right.get("en", 0.0),
        "accuracy, the lowest of es, fr, de, pt": min(right.get(lang, 0.0) for lang in LARGE_LANGUAGES),
        "accuracy, the lowest of the other languages": min((right[lang] for lang in others), default=0.0),
        "accuracy of answers that need no confirmation": share(j.right for j in judged if j.sure),
        "share of answers that need no confirmation": share(j.sure for j in judged),
        "expected calibration error": calibration_error(judged),
        "automated replies suspected": share(j.suspected for j in automated),
        "people's replies falsely suspected": share(j.suspected for j in judged),
        "answers a second, whole path, one core": speeds.path,
        "answers a second, the words alone, one core": speeds.words,
        "seconds from a cold start": speeds.cold_start_seconds,
    }


def _by_language(judged: Sequence[Judged]) -> list[tuple[str, int, str, float, float, float, float]]:
    rows = []
    for lang, count, _ in by(judged, lambda j: [j.example.lang]):
        some = [j for j in judged if j.example.lang == lang]
        errors = calibration_error(some), error_by_chance(some)
        rows.append(
            (lang, count, interval([j.right for j in some]), mean_f1(some), share(j.sure for j in some), *errors)
        )
    return rows


def _by_author(everything: Sequence[Judged]) -> Iterable[tuple[str, int, float, float, float, int, float, float]]:
    for author in sorted({j.example.author for j in everything}):
        people, machine = (
            [j for j in everything if j.example.author == author and j.automated is automated]
            for automated in (False, True)
        )
        yield (
            *(author, len(people), share(j.right for j in people)),
            *(share(j.sure for j in people), share(j.right for j in people if j.sure)),
            *(len(machine), share(j.suspected for j in machine), share(j.suspected for j in people)),
        )


def _by_tag(judged: Sequence[Judged]) -> list[tuple[str, int, float, float]]:
    return [
        (tag, count, right, mean_f1([j for j in judged if tag in j.example.tags]))
        for tag, count, right in by(judged, lambda j: j.example.tags)
        if count >= TAG_ROWS_MIN
    ]


def _by_hardness(judged: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    return [
        ("hard by their author's tags", [j for j in judged if j.example.hard]),
        ("the others", [j for j in judged if not j.example.hard]),
    ]


def _costs(classifier: Classifier, judged: Sequence[Judged]) -> list[tuple[str, float, float, float, int]]:
    """What each limit of the cascade costs and gives; 0 is the words alone, and above 1 the encoder is always asked."""
    texts = [j.example.text for j in judged]
    labels = [j.example.label for j in judged]
    rows = []
    for limit in sorted({*LIMITS_COMPARED, classifier.limits.words_confidence_min}):
        some = classifier.with_words_from(limit)
        predictions = some.classify(texts)
        rate = len(texts) / _fastest_seconds(partial(some.classify, texts), runs=2)
        right = share(p.label == label for p, label in zip(predictions, labels, strict=True))
        sure = share(not p.needs_confirmation for p in predictions)
        marked = " (at work)" if limit == classifier.limits.words_confidence_min else ""
        rows.append((f"{limit:.2f}{marked}", some.asked_share(texts), right, sure, int(round(rate, -2))))
    return rows


def _worst(judged: Sequence[Judged]) -> list[tuple[float, str, str, str]]:
    wrong = sorted((j for j in judged if not j.right), key=lambda j: -j.prediction.confidence)
    return [
        (
            j.prediction.confidence,
            j.example.label,
            j.example.lang,
            " ".join(j.example.text.split()).replace("|", "/")[:ERROR_CHARS_MAX],
        )
        for j in wrong[:ERRORS_SHOWN]
    ]


def _figures(manifest: dict[str, object]) -> Iterable[tuple[str, object]]:
    figures = manifest["left_out"]
    return figures.items() if isinstance(figures, dict) else ()


def main() -> None:
    """Measure the stored model, write the report and print it."""
    manifest = json.loads((ARTEFACT / MANIFEST_FILE).read_text(encoding="utf-8"))
    classifier = Classifier.load()
    with threadpool_limits(1):
        written = corpus.load("test")
        rows = judge(classifier, unseen(written, corpus.load("train")))
        people = [j.example for j in rows if not j.automated]
        speeds = Speeds(
            path=answers_a_second(classifier, people),
            words=answers_a_second(classifier.with_words_from(0), people),
            cold_start_seconds=cold_start_seconds(),
        )
        text = report(classifier, manifest, rows, len(written) - len(rows), speeds)
    judged = [j for j in rows if not j.automated]
    REPORT.write_text(text, encoding="utf-8")
    covered = [(c, right) for c, _, right in coverage(judged)]
    for name, points, title, across in (
        ("coverage", covered, "Accuracy of the surest answers", "share of answers"),
        ("reliability", reliability(judged), "Confidence and accuracy", "confidence"),
    ):
        REPORT.with_name(f"{name}.svg").write_text(curve(points, title, across, "accuracy"), encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
