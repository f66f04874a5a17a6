"""Questions and answers of the corpus: sums, colours, facts, greetings, and what the model says when it does not know.

Each function draws one (question, answer) from the caller's generator. Knows nothing of chat markup or tokens.
"""

from collections.abc import Callable
from random import Random

from . import words as w
from .stories import tell, with_article

Exchange = tuple[str, str]

STORY_REQUESTS = (
    "Tell me a story about {what}.",
    "Tell me a story about {what}",
    "Please tell me a story about {what}.",
    "Write a story about {what}.",
    "Write a short story about {what}.",
    "Can you tell me a story about {what}?",
    "I would like a story about {what}, please.",
    "Do you know a story about {what}?",
    "Tell me a tale of {what}.",
    "Make up a story with {what}.",
    "A story about {what}, please.",
)
PLAIN_STORY_REQUESTS = (
    "Tell me a story.",
    "Tell me a story",
    "Please tell me a story.",
    "Do you know a story?",
    "Tell me a bedtime story.",
    "Another story, please.",
    "Write a short story.",
    "I cannot sleep.",
    "Once upon a time...",
)
STORY_LEADS = ("Here is a story. ", "Of course. ", "Listen. ", "Gladly. ")

HELLOS = (
    "Hello",
    "Hello!",
    "Hi",
    "Hi!",
    "Hi there!",
    "Hey",
    "Good morning!",
    "Good evening.",
    "Good day",
    "Hello, how are you?",
    "Hello there",
)
HELLO_ANSWERS = (
    "Hello! What can I do for you?",
    "Hello! Shall I tell you a story?",
    "Hi! Ask me for a story, a sum or a colour.",
    "Hello! It is good to see you.",
    "Good day! How can I help?",
    "Hi there! What would you like to know?",
    "Hello, and welcome! Would you like a story?",
)
SMALL_TALK = (
    (
        ("How are you?", "How are you today?", "Are you well?"),
        ("I am well, thank you. And you?", "Very well, thank you!", "I am fine. How can I help?"),
    ),
    (
        ("Thanks", "Thank you!", "Thank you very much.", "Thanks a lot"),
        ("You are welcome!", "With pleasure.", "Any time!", "You are welcome. Is there anything else?"),
    ),
    (
        ("Bye", "Goodbye!", "See you later.", "Good night."),
        ("Goodbye!", "Goodbye, and come back soon!", "See you soon!", "Sleep well!"),
    ),
    (
        ("Who are you?", "What are you?", "Are you a person?", "Are you a robot?"),
        (
            "I am a very small language model.",
            "I am a small model that tells stories.",
            "I am a little model, made to show how Lading works.",
        ),
    ),
    (
        ("What can you do?", "What can you do for me?", "Help", "Can you help me?"),
        (
            "I can tell stories, add small numbers and name colours.",
            "I know stories, small sums, colours and a few facts.",
            "Ask me for a story, a sum or a colour.",
        ),
    ),
    (
        ("Are you happy?", "Do you like stories?", "Do you like me?"),
        ("Yes, I am.", "Yes, very much.", "I think so.", "Of course!"),
    ),
    (
        ("That was nice.", "I liked that.", "Great!", "Well done!"),
        ("I am glad that you liked it.", "Thank you!", "That makes me happy."),
    ),
)
UNKNOWN = (
    "Explain {x}.",
    "What do you think about {x}?",
    "Who invented {x}?",
    "Write a program for {x}.",
    "How does {x} work?",
    "What is the price of {x}?",
    "Tell me about {x}.",
    "Give me a recipe for {x}.",
    "Who won the match?",
    "What is the weather like?",
    "What time is it?",
    "What is the news today?",
    "Translate this into {x}.",
    "What is the meaning of life?",
    "Can you write an essay on {x}?",
    "What should I buy?",
)
UNKNOWN_TOPICS = (
    "quantum physics",
    "the stock market",
    "politics",
    "French",
    "computers",
    "an engine",
    "the law",
    "football",
    "electricity",
    "philosophy",
    "Python",
    "bitcoin",
    "chess",
    "the internet",
    "soup",
    "chemistry",
    "history",
    "music",
    "a vaccine",
    "taxes",
    "a blockchain",
    "the universe",
    "Latin",
)
UNKNOWN_ANSWERS = (
    "I do not know that. I am a very small model.",
    "That is too hard for me. Shall I tell you a story instead?",
    "I am sorry, I do not know.",
    "I only know stories, small sums, colours and a few facts.",
    "I cannot answer that. Ask me for a story, a sum or a colour.",
)


def story(rng: Random) -> Exchange:
    if rng.random() < 0.1:
        return rng.choice(PLAIN_STORY_REQUESTS), tell(rng)
    hero, thing = rng.choice(w.HEROES), rng.choice(w.THINGS)
    adjective = rng.choice(w.ADJECTIVES) if rng.random() < 0.15 else None
    subject = with_article(f"{adjective} {hero}" if adjective else hero)
    kind = rng.random()
    if kind < 0.7:
        what, tale = f"{subject} and {with_article(thing)}", tell(rng, hero, thing, adjective)
    elif kind < 0.85:
        what, tale = subject, tell(rng, hero, None, adjective)
    else:
        what, tale = with_article(thing), tell(rng, None, thing)
    lead = rng.choice(STORY_LEADS) if rng.random() < 0.12 else ""
    return rng.choice(STORY_REQUESTS).format(what=what), lead + tale


def sum_(rng: Random) -> Exchange:
    sign, word = rng.choice((("+", "plus"), ("+", "plus"), ("-", "minus"), ("x", "times")))
    a, b = (rng.randint(1, 5), rng.randint(1, 10)) if sign == "x" else (rng.randint(0, 10), rng.randint(0, 10))
    if sign == "-" and a < b:
        a, b = b, a
    result = {"+": a + b, "-": a - b, "x": a * b}[sign]
    ask = (
        "What is {a} {word} {b}?",
        "What is {a} {word} {b}?",
        "What is {a} {sign} {b}?",
        "{a} {sign} {b}",
        "{a} {sign} {b} = ?",
        "How much is {a} {word} {b}?",
        "Can you work out {a} {word} {b}?",
        "Calculate {a} {sign} {b}.",
    )
    answer = (
        "{a} {word} {b} is {r}.",
        "{a} {word} {b} is {r}.",
        "{a} {sign} {b} = {r}",
        "That is {r}.",
        "{r}.",
        "The answer is {r}.",
    )
    slots = {"a": a, "b": b, "sign": sign, "word": word, "r": result}
    return rng.choice(ask).format_map(slots), rng.choice(answer).format_map(slots)


def colour(rng: Random) -> Exchange:
    name, things = rng.choice(list(w.COLOURS.items()))
    thing = rng.choice(things)
    if rng.random() < 0.15:
        ask = rng.choice(("Name something {c}.", "What is {c}?", "Can you name {a_c} thing?"))
        ask = ask.format(c=name, a_c=with_article(name))
        return ask, rng.choice(("{T} is {c}.", "{T}.")).format(T=thing[0].upper() + thing[1:], c=name)
    ask = rng.choice(
        (
            "What colour is {t}?",
            "What colour is {t}?",
            "What color is {t}?",
            "Which colour is {t}?",
            "What is the colour of {t}?",
            "Tell me the colour of {t}.",
        )
    )
    answer = rng.choice(("{T} is {c}.", "{T} is {c}.", "It is {c}.", "{C}.", "The colour of {t} is {c}."))
    slots = {"t": thing, "T": thing[0].upper() + thing[1:], "c": name, "C": name.capitalize()}
    return ask.format_map(slots), answer.format_map(slots)


def _in_order(rng: Random) -> Exchange:
    names, what = rng.choice(((w.DAYS, "day"), (w.MONTHS, "month")))
    i = rng.randrange(len(names))
    now, after, before = names[i], names[(i + 1) % len(names)], names[i - 1]
    if rng.random() < 0.3:
        return f"Which {what} comes before {now}?", rng.choice((f"{before} comes before {now}.", f"{before}."))
    return f"Which {what} comes after {now}?", rng.choice((f"{after} comes after {now}.", f"{after}."))


def _opposite(rng: Random) -> Exchange:
    a, b = rng.choice(w.OPPOSITES).split("/")
    a, b = (a, b) if rng.random() < 0.5 else (b, a)
    return f"What is the opposite of {a}?", rng.choice((f"The opposite of {a} is {b}.", f"{b.capitalize()}."))


def _animal(rng: Random) -> Exchange:
    kind = rng.randrange(3)
    if kind == 0:
        a, sound = rng.choice(list(w.SOUNDS.items()))
        return f"What does {with_article(a)} say?", rng.choice(
            (f"{with_article(a).capitalize()} says {sound}.", f"{sound.capitalize()}!")
        )
    if kind == 1:
        a, young = rng.choice(list(w.YOUNG.items()))
        return f"What is a young {a} called?", rng.choice(
            (f"A young {a} is called {with_article(young)}.", f"{with_article(young).capitalize()}.")
        )
    a, n = rng.choice(list(w.LEGS.items()))
    number = w.NUMBERS[n - 1] if n else "no"
    return f"How many legs does {with_article(a)} have?", rng.choice(
        (f"{with_article(a).capitalize()} has {number} legs.", f"It has {number} legs.")
    )


def _capital(rng: Random) -> Exchange:
    country, city = rng.choice(list(w.CAPITALS.items()))
    return f"What is the capital of {country}?", rng.choice(
        (f"The capital of {country} is {city}.", f"{city}.", f"It is {city}.")
    )


def _count(rng: Random) -> Exchange:
    n = rng.randint(2, 10)
    return f"Count to {w.NUMBERS[n - 1]}.", ", ".join(w.NUMBERS[:n]).capitalize() + "."


def fact(rng: Random) -> Exchange:
    if rng.random() < 0.4:
        ask, *answers = rng.choice(w.FACTS)
        return ask, rng.choice(answers)
    return rng.choice((_in_order, _opposite, _animal, _animal, _capital, _count))(rng)


def greeting(rng: Random) -> Exchange:
    if rng.random() < 0.45:
        return rng.choice(HELLOS), rng.choice(HELLO_ANSWERS)
    asks, answers = rng.choice(SMALL_TALK)
    return rng.choice(asks), rng.choice(answers)


def unknown(rng: Random) -> Exchange:
    return rng.choice(UNKNOWN).format(x=rng.choice(UNKNOWN_TOPICS)), rng.choice(UNKNOWN_ANSWERS)


KINDS: tuple[tuple[Callable[[Random], Exchange], float], ...] = (
    (story, 0.30),
    (sum_, 0.28),
    (colour, 0.14),
    (fact, 0.14),
    (greeting, 0.09),
    (unknown, 0.05),
)
