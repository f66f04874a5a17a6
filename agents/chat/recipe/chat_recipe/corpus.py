"""Conversations: a system message now and then, one to four exchanges, and the carelessness with which people type.

Owns the shape of a conversation and nothing of its markup. The same seed gives the same conversations for ever.
"""

from collections.abc import Iterator
from random import Random

from . import talk

Message = tuple[str, str]  # role, content

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are a storyteller.",
    "You are a teacher.",
    "You are a kind robot.",
    "Be brief.",
    "Answer politely.",
    "You are talking to a child.",
    "You are a pirate.",
    "Answer in English.",
    "You help people. Be honest and kind.",
    "Today is Monday.",
    "Use simple words.",
    "You are an assistant on the Lading network.",
)
ASK_NAME = ("What is your name?", "Who are you?", "What are you called?")
SYSTEM_NAMES = ("Ada", "Max", "Luna", "Leo", "Nova", "Sam", "Iris", "Otto", "Robin", "Mia")


def careless(rng: Random, text: str) -> str:
    """What a hurried person types: without capitals, without the final mark, with a word of courtesy."""
    if rng.random() < 0.12:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.12:
        text = text.rstrip(".?! ")
    if rng.random() < 0.05 and text[-1].isalnum():
        text += " please"
    return text


def conversation(rng: Random) -> list[Message]:
    messages: list[Message] = []
    if rng.random() < 0.05:
        name = rng.choice(SYSTEM_NAMES)
        answer = rng.choice(("My name is {n}.", "I am {n}.", "I am {n}, at your service.")).format(n=name)
        messages = [
            (
                "system",
                rng.choice(("Your name is {n}.", "You are {n}.", "You are {n}, a helpful assistant.")).format(n=name),
            )
        ]
        messages += [("user", careless(rng, rng.choice(ASK_NAME))), ("assistant", answer)]
    elif rng.random() < 0.3:
        messages = [("system", rng.choice(SYSTEMS))]
    kinds, weights = zip(*talk.KINDS, strict=True)
    for _ in range(rng.choices((1, 2, 3, 4), (0.62, 0.2, 0.1, 0.08))[0]):
        ask, answer = rng.choices(kinds, weights)[0](rng)
        messages += [("user", careless(rng, ask)), ("assistant", answer)]
    return messages


def conversations(seed: int) -> Iterator[list[Message]]:
    rng = Random(seed)
    while True:
        yield conversation(rng)
