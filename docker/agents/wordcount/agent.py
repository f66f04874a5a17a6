"""Counts words, finds the most frequent ones, and repeats a text word by word."""

import re
from collections import Counter

from lading_agent import Agent, BadRequest

agent = Agent("wordcount")


def words(input):
    if not isinstance(input, dict) or not isinstance(input.get("text"), str):
        raise BadRequest('Send {"text": "..."}.')
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", input["text"].lower())


@agent.operation
def count(input, call):
    found = words(input)
    most = sorted(Counter(found).items(), key=lambda pair: (-pair[1], pair[0]))[:10]
    return {"words": len(found), "distinct": len(set(found)), "most": most}


@agent.operation
def repeat(input, call):
    return (word + " " for word in words(input))


agent.run()
