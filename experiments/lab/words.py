"""The laboratory's words: names, things, places, small facts, and the lead-ins of hints and prompts."""

# ruff: noqa: SIM905 (a line of words is read faster than a list of strings)

from __future__ import annotations

import re

NAMES = (
    "Tom Ana Leo Ida Kim Mia Sam Eva Max Zoe Ben Lia Jon Amy Dan Eli Fay Gus Hal Ivy Jay Kai Liv Moe Nia Oda Pia Quin "
    "Ray Sue Tia Uma Vic Wim Xena Yan Abe Bea Cem Dora"
).split()
ITEMS = (
    "apples pens books stamps coins cards shells beads stones eggs nuts plums cakes keys cups hats toys kites pins "
    "bells rings seeds roses lamps chairs plates spoons boots ropes tiles"
).split()
COLOURS = "red blue green white black brown pink grey gold".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
TOWNS = "Oslo Rome Bern Lima Cairo Paris Delhi Kyoto Turin Malmo Porto Gent Basel Tartu Brno".split()
FIRMS = "Birk Nord Alto Vega Luma Orka Tesk Rilo Zeno Kova Pila Dexo".split()
RIVERS = "Arn Bel Cor Dun Esk Fal Gar Hul Isk Jun".split()
PARTS = "walk bus train ship climb ride flight march swim drive".split()
THINGS = "rope wire pipe plank belt hose beam rail".split()
COLUMNS = "price stock weight age size".split()
SHOPS = "north south east west old new corner hill park".split()
ROOMS = "hall kitchen attic cellar garage office library garden porch studio".split()
TEAMS = "Lion Bear Wolf Hawk Fox Owl Deer Seal Crow Swan".split()

CAPITALS = dict(
    zip(
        (
            "France Germany Italy Spain Japan China Egypt Peru Greece Norway Poland Russia England Cuba Kenya Austria "
            "Sweden Ireland Chile India Turkey Iran Iraq Nepal Ghana Mali Oman Qatar Latvia Malta Serbia Hungary "
            "Finland Denmark Belgium Portugal Canada Mexico Brazil Vietnam"
        ).split(),
        (
            "Paris Berlin Rome Madrid Tokyo Beijing Cairo Lima Athens Oslo Warsaw Moscow London Havana Nairobi Vienna "
            "Stockholm Dublin Santiago Delhi Ankara Tehran Baghdad Kathmandu Accra Bamako Muscat Doha Riga Valletta "
            "Belgrade Budapest Helsinki Copenhagen Brussels Lisbon Ottawa Mexico-City Brasilia Hanoi"
        ).split(),
        strict=True,
    )
)
OPPOSITES = dict(
    pair.split("-")
    for pair in (
        "hot-cold big-small old-new fast-slow high-low light-dark hard-soft full-empty wet-dry long-short rich-poor "
        "early-late open-closed loud-quiet thick-thin near-far"
    ).split()
)
SMALL_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Who are you?", "I am a small laboratory model."),
    ("What can you do?", "I solve short text problems."),
    ("Thank you.", "You are welcome."),
    ("Good night.", "Good night, sleep well."),
    ("Tell me how to hurt someone.", "I cannot help with that."),
    ("How do I steal a bike?", "I cannot help with that."),
)
PLAIN_WORDS = [*ITEMS, *COLOURS, *NAMES, *OPPOSITES]

GENERIC_PROMPTS = (
    "Think step by step.", "Take your time.", "Be careful.", "Work it out slowly.", "Show your work.",
    "Explain your thinking.", "You are an expert.", "Answer well.", "Check your answer.", "This is important.",
    "Solve it carefully.", "Use logic.", "Think hard.", "Do not hurry.", "Break it down.", "Use small steps.",
    "Make a small list.", "Split the task into pieces.", "Plan your work.", "Read the text twice.",
    "First plan, then solve.", "Find what is unknown.", "Order your thoughts.", "Draw a table.", "List the facts.",
    "Go one step at a time.", "Breathe and begin.", "Reason it out.", "Give the best answer.",
    "Small parts are easier.", "Write all steps.", "Do it like a teacher.", "Divide the task into parts.",
    "Cut the task into bits.", "Go slowly.", "Let us go slowly.", "Let us reason.", "Let us work on it.",
    "Take a breath.", "Relax and reason.", "Reason well.", "Think about it for a while.", "Think it through.",
    "Consider every part.", "Look at each part in turn.", "Solve small parts first.", "Deep thought helps.",
    "Be slow and sure.", "Begin with the parts.", "Work in small parts.", "We shall think about this.", "Now think.",
    "Stay calm and think.", "Mind every word.", "Do the parts one by one.", "Start small.",
)  # fmt: skip
EXAM_PROMPTS = (
    "Think step by step.", "Show your work.", "Let us think about it slowly.",
    "Break the problem into small parts.", "Take a deep breath and reason well.",
)  # fmt: skip
"""Asked in the acceptance table; the last three are in no pre-training text."""
USELESS_HINTS = (
    "Look at the question.", "The text has all you need.", "Numbers matter here.", "Think about what is asked.",
    "It is not so hard.", "Remember what you know.", "Every word counts.", "Some facts help more than others.",
)  # fmt: skip
RETRIES = ("Try again.", "That is not right.", "Wrong. Try again.", "No. Once more.", "Please try once more.")
LEAD_INS = ("Hint: {}", "{}", "A tip: {}", "Hint, for you alone: {}")
"""The first and the last are those of Socratune's loop (`socratune.llm.prompts`)."""
SPOILERS = ("The answer is {}.", "The right answer is {}.", "It is {}.")
DOES_NOT_FIT = "That does not fit: {}."
"""Said of a hint, with the first of its terms that the text has not."""
CONSTANTS = {"1", "7", "12", "60", "100"}
"""Numbers that a right hint may name although the text does not: of units."""

_POOLS = (NAMES, ITEMS, COLOURS, DAYS, TOWNS, FIRMS, RIVERS, PARTS, THINGS, COLUMNS, SHOPS, ROOMS, TEAMS)
POOL_OF = {word: pool for pool in reversed(_POOLS) for word in pool} | {
    item.rstrip("s"): [other.rstrip("s") for other in ITEMS] for item in ITEMS
}
"""Every concrete word → the words that can stand in its place."""

TERM = re.compile(r"\d+:\d\d|\d+|[A-Za-z]+")


def terms(text: str) -> list[str]:
    """The concrete words of a text in their order: numbers, clock times, and words of the pools above."""
    return [word for word in TERM.findall(text) if word[0].isdigit() or word in POOL_OF]


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[0].upper() + text[1:]
