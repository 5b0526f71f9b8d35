"""A teacher by rules for the tasks of reasoning-gym that come without a worked solution: how to go about one, and never
the answer. `--teacher-model python:experiments/real/teacher.py:teach`.
"""

from __future__ import annotations

import re

WAYS = {
    "leg": "Write each animal with its number of legs: insects have 6, spiders and scorpions 8, crabs and shrimps 10, "
    "woodlice 14, snails, slugs, worms and fish none, birds and humans 2, other animals 4. Multiply each by how many "
    "there are, and add the products up one after the other.",
    "Solve for": "Collect the terms with the letter on one side and the plain numbers on the other, doing the same to "
    "both sides each time. Then divide by what multiplies the letter, and put your value in to check it.",
    "married to": "Write down each couple and their children. Find how the first person is connected to the second, "
    "step by step, and then name that relation with the right gender.",
    "arithmetic problem": "Work from left to right. Take only two numbers at a time, write down what they make, and "
    "go on with it. Watch the sign.",
    "multiplication": "Take the second number apart into tens and ones. Multiply the first number by each part, write "
    "both products down, and add them.",
    "Sort these": "Compare signs first: of two negative numbers, the one with the larger digits is the smaller. Pick "
    "the next number one by one, and copy each exactly once.",
    "How many times does the letter": "Spell the text letter by letter, word by word. Write a running count behind "
    "each letter that is the one asked for.",
    "Simplify the fraction": "Find the largest number that divides both by dividing with remainder again and again. "
    "Then divide both by it.",
    "Greatest Common Divisor": "Divide the larger by the smaller and keep the remainder. Go on with the smaller and "
    "the remainder until nothing is left; the last divisor is it.",
    "day": "Count in days. Seven days make a week, so only the remainder after dividing by seven matters; step on from "
    "the weekday that is known.",
    "duration": "Turn both times into the smallest unit, subtract, and turn the difference back. Keep the form that "
    "is asked for, with its leading zeros.",
}


def teach(question: str, reference: str, responses: list[str]) -> str:
    """The first half of a worked solution, where the reference has one; else how to go about such a question."""
    lines = [line for line in reference.splitlines() if line.strip()]
    answer = re.sub(r"^.*answer is\s*|\.$", "", lines[-1])
    if len(lines) > 2:
        shown = [
            line for line in lines[: len(lines) // 2] if not re.search(rf"(?<![\d.]){re.escape(answer)}(?!\d)", line)
        ]
        if shown:
            return "Start like this: " + " ".join(shown)
    way = next((text for word, text in WAYS.items() if word in question), "Work in small steps, and write each down.")
    return f"{way} This try did not get there: go through it again from the start." if len(responses) > 1 else way
