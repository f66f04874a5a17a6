"""Stories of the corpus: a plot chosen by the caller's generator, told in seven to ten sentences.

Owns the sentences and how they hang together (each problem has its own actions and outcomes). Knows nothing of chat
or tokens.
"""

from random import Random

from .words import ADJECTIVES, HEROES, MORALS, NAMES, PLACES, SPOTS, THING_ADJECTIVES, THINGS, TIMES, WONDERS

OPENINGS = (
    "Once upon a time, {a_adj_hero} named {name} lived {place}.",
    "There was once {a_adj_hero} who lived {place}. {Pos} name was {name}.",
    "Long ago, {place}, there lived {a_adj_hero} called {name}.",
    "{name} was {a_adj_hero} who lived {place}.",
    "{Place} lived {a_adj_hero}. Everyone called {obj} {name}.",
    "This is the story of {name}, {a_adj_hero} who lived {place}.",
)
FINDINGS = (
    "{time}, {name} found {a_tadj_thing} {spot}.",
    "{time}, {sub} saw {a_tadj_thing} lying {spot}.",
    "{time}, a stranger came by and gave {obj} {a_tadj_thing}.",
    "{time}, {name} went for a walk and came upon {a_tadj_thing} {spot}.",
    "More than anything, {sub} loved {pos} {tadj} {thing}.",
    "{name} had always dreamed of {a_tadj_thing}, and {time_lower} {sub} found one {spot}.",
    "{Pos} grandmother had left {obj} {a_tadj_thing}.",
)
MARVELS = (
    "It {wonder}.",
    "The {thing} {wonder}.",
    "{name} had never seen {a_thing} like it, for it {wonder}.",
    '"How lovely," said {name}, because it {wonder}.',
    "It was no common {thing}: it {wonder}.",
)
# Each plot: problems, actions, outcomes. Any of each may be told together.
PLOTS = (
    (
        (
            "But the {thing} belonged to {a_friend}, who had lost it.",
            "That evening {a_friend} came by, crying for a lost {thing}.",
        ),
        (
            '"Is this yours?" asked {name}.',
            "{name} wanted to keep it, but {sub} knew what was right.",
            "{name} thought about it all night long.",
        ),
        (
            "The {friend} was so glad that {fsub} danced.",
            "{name} gave it back, and the {friend} smiled.",
            "Together they carried it home.",
        ),
    ),
    (
        (
            "Then a great storm came, and the night grew very dark.",
            "But that night the wind howled and every light went out.",
        ),
        (
            "{name} heard {a_friend} calling for help.",
            "Somewhere in the dark, {a_friend} was lost.",
            "{name} took the {thing} and ran outside.",
        ),
        (
            "With the {thing}, {sub} showed the {friend} the way home.",
            "{Sub} held the {friend} close until the storm was over.",
            "The {friend} followed the {thing} and was safe at last.",
        ),
    ),
    (
        ("But {a_fadj} {friend} wanted the {thing} too.", "Soon {a_fadj} {friend} came and took the {thing} away."),
        (
            '"Give it to me," said the {friend}.',
            "They argued until the sun went down.",
            '"Why do you need it?" asked {name} softly.',
        ),
        (
            "In the end they shared it, one day each.",
            "The {friend} felt sorry and brought it back.",
            "Then they laughed, for there was room for both.",
        ),
    ),
    (
        ("But one day the {thing} was gone.", "The next morning the {thing} had vanished."),
        (
            "{name} looked everywhere, even {spot}.",
            "{Sub} asked {a_friend}, but the {friend} had not seen it.",
            "For three days {sub} searched, and {sub} did not give up.",
        ),
        (
            "At last {sub} found it {spot2}.",
            "It had been in {pos} own bed all the time.",
            "{A_friend} had kept it safe for {obj}.",
        ),
    ),
    (
        (
            "{name} wanted to show it to {pos} friend, the {friend}, who lived far away.",
            "Far away lived {a_friend} who was ill and sad.",
        ),
        (
            "So {sub} walked for seven days.",
            "{Sub} crossed the river and climbed the hill.",
            "The road was long, but {name} sang all the way.",
        ),
        (
            "When the {friend} saw the {thing}, {fsub} felt well again.",
            "They sat by the fire and told stories until morning.",
            "The {friend} hugged {obj} and would not let go.",
        ),
    ),
    (
        ("But the {thing} would not work, however hard {sub} tried.", "But the {thing} fell and broke in two."),
        (
            "{A_friend} came along and looked at it.",
            '"I will try again tomorrow," said {name}.',
            "{name} sat down and wanted to cry.",
        ),
        (
            "They worked all day, and by evening it was as good as new.",
            "It took glue, string and a lot of patience.",
            "Soon it was better than before.",
        ),
    ),
    (
        ("Nobody believed {name} when {sub} told them about it.", "The others laughed at {name} and {pos} {thing}."),
        ("Only {a_friend} wanted to see it.", '"Wait until tonight," said {name}.', "{name} did not mind and waited."),
        (
            "That night they all saw it, and nobody laughed.",
            "When they saw it with their own eyes, they cheered.",
            "The {friend} told everyone that it was true.",
        ),
    ),
    (
        ("Every night {sub} heard a voice from the {thing}.", "When {sub} touched it, the {thing} began to speak."),
        ('"Make a wish," it said.', '"Take me to the sea," it whispered.', '"I was once {a_friend}," it said.'),
        (
            "{name} wished for a friend, and there stood {a_friend}.",
            "{name} did as it asked, and the sea shone like silver.",
            "So {name} had company every evening.",
        ),
    ),
)
LINKS = (
    "The {friend} was hungry, so they ate bread and honey.",
    "The stars came out one by one.",
    "A cold wind blew, but they did not notice.",
    "{name} was afraid at first.",
    "Nobody said a word for a long time.",
    '"Thank you," said the {friend}.',
    "It was not easy.",
)
ENDINGS = (
    "From that day on, the {hero} and the {friend} were the best of friends.",
    "And {name} learned that {moral}.",
    "{name} went to sleep that night with a smile.",
    "Since then, they meet every year {place}.",
    "And if you walk there at night, you may still see the {thing}.",
    "They lived happily ever after.",
    "Now everyone {place} knows that {moral}.",
    "So the {hero} kept the {thing}, and {sub} was never lonely again.",
)


def with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _slots(rng: Random, hero: str, thing: str, adjective: str | None) -> dict[str, str]:
    name, sub, obj, pos = rng.choice(NAMES)
    adj, fadj = rng.sample(ADJECTIVES, 2)
    adj = adjective or adj
    tadj = rng.choice(THING_ADJECTIVES)
    friend = rng.choice([h for h in HEROES if h != hero])
    place = rng.choice(PLACES)
    spot, spot2 = rng.sample(SPOTS, 2)
    time = rng.choice(TIMES)
    slots = {
        "name": name,
        "sub": sub,
        "obj": obj,
        "pos": pos,
        "hero": hero,
        "thing": thing,
        "tadj": tadj,
        "friend": friend,
        "place": place,
        "spot": spot,
    }
    slots |= {
        "spot2": spot2,
        "time": time,
        "time_lower": time[0].lower() + time[1:],
        "wonder": rng.choice(WONDERS),
        "moral": rng.choice(MORALS),
    }
    slots |= {
        "Sub": sub.capitalize(),
        "Pos": pos.capitalize(),
        "Place": place[0].upper() + place[1:],
        "fsub": rng.choice(("he", "she")),
    }
    slots |= {
        "a_adj_hero": with_article(f"{adj} {hero}"),
        "a_thing": with_article(thing),
        "a_tadj_thing": with_article(f"{tadj} {thing}"),
    }
    return slots | {
        "a_friend": with_article(friend),
        "A_friend": with_article(friend).capitalize(),
        "a_fadj": with_article(fadj),
    }


def tell(rng: Random, hero: str | None = None, thing: str | None = None, adjective: str | None = None) -> str:
    """One story; a hero, thing or adjective of the hero that is not given is drawn from the word lists."""
    slots = _slots(rng, hero or rng.choice(HEROES), thing or rng.choice(THINGS), adjective)
    problems, actions, outcomes = rng.choice(PLOTS)
    parts = [rng.choice(OPENINGS), rng.choice(FINDINGS)]
    if rng.random() < 0.75:
        parts.append(rng.choice(MARVELS))
    parts += [rng.choice(problems), *rng.sample(actions, rng.choice((1, 2, 2)))]
    if rng.random() < 0.4:
        parts.append(rng.choice(LINKS))
    parts += [rng.choice(outcomes), *rng.sample(ENDINGS, rng.choice((1, 1, 2)))]
    return " ".join(parts).format_map(slots)
