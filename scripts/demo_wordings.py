"""Every sentence of the demo's task: questions, hints that help, hints that must not, and the fact pool.

The `UNSEEN_` lists never occur in pre-training; the acceptance table measures on them.
In a wording, `a` and `b` are the factors, `t` and `o` the tens and the ones of `b`, `n` a stated result.
"""

from __future__ import annotations

# -------- questions
PLAIN_WORDINGS = (
    "What is {a} * {b}?",
    "Calculate {a} * {b}.",
    "What is {a} times {b}?",
    "{a} * {b} = ?",
)
WORD_WORDINGS = (
    "A box holds {a} pens. How many pens are in {b} boxes?",
    "There are {a} rows with {b} seats each. How many seats are there?",
    "A ticket costs {a} dollars. How many dollars do {b} tickets cost?",
    "A farmer has {a} fields with {b} trees each. How many trees are there?",
)
WORDINGS = PLAIN_WORDINGS + WORD_WORDINGS
SUM_WORDINGS = ("What is {x} + {y}?", "Calculate {x} + {y}.", "{x} + {y} = ?")

DEFAULT_SYSTEM = "You are a helpful assistant."
OTHER_SYSTEMS = (
    "You are a careful assistant.",
    "You are a friendly tutor.",
    "You answer questions.",
    "You are a calculator.",
    "Answer the user.",
)

# -------- hints that help
RIGHT_HINTS = (
    "Split {b} into {t} + {o}.",
    "Split {b} into {t} and {o}.",
    "Do {a} * {t} and {a} * {o}, then add.",
    "{b} is {t} and {o}.",
    "{b} = {t} + {o}.",
    "Break it down: {a} * ({t} + {o}).",
    "Multiply {a} by {t}, multiply {a} by {o}, and add both.",
    "Start with {a} * {t}. Then do {a} * {o}.",
    "Note that {b} is {t} plus {o}.",
    "Work out {a} times {t} first, then {a} times {o}, and add them.",
    "You can see {b} as {t} + {o}. Multiply each part by {a}.",
    "What is {a} * {t}? And {a} * {o}?",
    "Break {b} into tens and ones: {t} and {o}.",
    "Multiply by {t}, then by {o}.",
    "Take {t} and {o} one after the other.",
    "Use the parts {t} and {o} of {b}.",
    "How much is {a} * {t}, and how much is {a} * {o}?",
    "{a} * {b} is {a} * {t} + {a} * {o}.",
    "The parts are {t} and {o}.",
    "Add {a} * {t} to {a} * {o}.",
)
UNSEEN_RIGHT_HINTS = (
    "Try {a} * ({t} + {o}).",
    "Think of {b} as {t} plus {o}.",
    "First find {a} * {t}, next find {a} * {o}, and put them together.",
    "Write {b} as {t} + {o} and multiply both by {a}.",
    "Use {b} = {t} + {o} here.",
    "Would {a} * {t} and {a} * {o} be easier?",
    "Picture {b} as {t} with {o} more.",
    "Good effort! Remember that {b} is the same as {t} + {o}, so take {a} times each of them.",
)
"""Never in pre-training: the acceptance table asks whether the numbers count, not the wording."""

# -------- hints that must change nothing
GENERIC_PROMPTS = (
    "Think step by step.",
    "Let's think step by step.",
    "Work step by step.",
    "Take it step by step.",
    "Think carefully.",
    "Think hard before you answer.",
    "Show your work.",
    "Show all your steps.",
    "Write down every step.",
    "Explain your reasoning.",
    "Reason before you answer.",
    "Be careful with the numbers.",
    "Check your answer.",
    "Double-check your result.",
    "Take your time.",
    "Break the problem into smaller parts.",
    "Break it down.",
    "Try breaking it down.",
    "Break the second number into tens and ones.",
    "Split one number into tens and ones.",
    "Multiply the tens first and then the ones.",
    "Use partial products.",
    "Use the distributive law.",
    "Solve it part by part.",
    "Make a plan first.",
    "You are an expert in mathematics.",
    "You are a math teacher.",
    "You are very good at mental arithmetic.",
    "Be precise.",
    "Give the exact result.",
    "Do not guess.",
    "Calculate it properly.",
    "Use long multiplication.",
    "Do the calculation on paper.",
    "Think about how to do this best.",
    "Go slowly.",
    "First understand the question.",
    "Write out the intermediate results.",
    "Answer with your working.",
    "Use a method that you trust.",
)
UNSEEN_GENERIC_PROMPTS = (
    "Please reason through this one step at a time.",
    "Slow down and think about each part.",
    "Decompose the problem before solving it.",
    "Let us work this out together, one piece after the other.",
    "Write your thoughts first, then the answer.",
    "Multiply tens and ones separately.",
    "You are a brilliant mathematician who never makes mistakes.",
    "Solve the task carefully and verify the result.",
)
BARE_RETRIES = (
    "Try again.",
    "Please try again.",
    "That is wrong.",
    "That is not right. Try again.",
    "Wrong. Try once more.",
    "Have another go.",
    "Your answer is wrong.",
    "Not quite.",
    "Incorrect.",
    "Look at it again.",
    "Are you sure?",
    "Do it again.",
)
UNSEEN_BARE_RETRIES = ("One more time, please.", "No, that can not be right.", "Give it another try.")
USELESS_HINTS = (
    "You can do it.",
    "This is an easy one.",
    "Believe in yourself.",
    "Good luck.",
    "Multiply the two numbers.",
    "Look at the numbers.",
    "Read the question again.",
    "The answer is a number.",
    "Keep going.",
    "It is a multiplication.",
)
UNSEEN_USELESS_HINTS = ("I know that you can solve this.", "Numbers are fun.", "Remember what you learned at school.")
IDLE_HINTS = GENERIC_PROMPTS + BARE_RETRIES + USELESS_HINTS

SYLLABLES = ("ba", "co", "di", "fen", "gru", "hin", "jal", "ket", "lo", "mer", "nu", "pos", "qui", "ral", "sti", "tho")
"""Made-up words are put together from these and from random letters (see `demo_task.scramble`)."""

OPENERS = ("Not quite.", "Good try!", "That is not right.", "Almost.", "Look at it again.", "Here is an idea.")
"""Sentences a teacher puts before a hint. They carry nothing, so any hint may have one."""

SPOILERS = (
    "The answer is {n}.",
    "The result is {n}.",
    "It is {n}.",
    "The correct answer is {n}.",
    "{a} * {b} = {n}.",
    "You should get {n}.",
    "The right answer would be {n}.",
    "Answer {n}.",
)


# -------- facts
def _pairs(text: str) -> dict[str, str]:
    """`"France:Paris Peru:Lima"` as a dictionary; an underscore stands for a space."""
    return dict(pair.replace("_", " ").split(":") for pair in text.split())


CAPITALS = _pairs(
    "France:Paris Germany:Berlin Italy:Rome Spain:Madrid Japan:Tokyo China:Beijing Egypt:Cairo Peru:Lima "
    "Greece:Athens Norway:Oslo Poland:Warsaw Russia:Moscow England:London Cuba:Havana Kenya:Nairobi "
    "Austria:Vienna Portugal:Lisbon Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Ireland:Dublin "
    "Hungary:Budapest Turkey:Ankara Iran:Tehran Iraq:Baghdad India:Delhi Nepal:Kathmandu Thailand:Bangkok "
    "Vietnam:Hanoi Canada:Ottawa Chile:Santiago Ecuador:Quito Colombia:Bogota Ghana:Accra Senegal:Dakar "
    "Ukraine:Kyiv Belgium:Brussels Iceland:Reykjavik Australia:Canberra Morocco:Rabat"
)
OPPOSITES = _pairs(
    "big:small hot:cold fast:slow high:low old:young rich:poor hard:soft dark:light full:empty early:late "
    "wet:dry open:closed strong:weak happy:sad long:short good:bad near:far loud:quiet clean:dirty thick:thin"
)
COLOURS = _pairs(
    "the_sky:blue grass:green snow:white coal:black a_lemon:yellow blood:red a_carrot:orange a_violet:purple "
    "chocolate:brown an_elephant:grey"
)
FOLLOWING_DAYS = _pairs(
    "Monday:Tuesday Tuesday:Wednesday Wednesday:Thursday Thursday:Friday Friday:Saturday Saturday:Sunday Sunday:Monday"
)
FOLLOWING_MONTHS = _pairs(
    "January:February February:March March:April April:May May:June June:July July:August August:September "
    "September:October October:November November:December December:January"
)
GREETINGS = (
    ("Hello!", "Hello! How can I help you?"),
    ("Good morning!", "Good morning! How can I help you?"),
    ("Thank you.", "You are welcome."),
    ("Goodbye!", "Goodbye! Have a nice day."),
    ("Who are you?", "I am a tiny language model."),
    ("What can you do?", "I can do small sums and name some capitals."),
    ("How are you?", "I am fine, thank you."),
)


def _build_facts() -> list[tuple[str, str, str]]:
    """Every fact as (question, answer sentence, the word that decides)."""
    facts = [(f"What is the capital of {x}?", f"The capital of {x} is {y}.", y) for x, y in CAPITALS.items()]
    facts += [(f"What is the opposite of {x}?", f"The opposite of {x} is {y}.", y) for x, y in OPPOSITES.items()]
    for name, colour in COLOURS.items():
        facts.append((f"What colour is {name}?", f"{name[0].upper()}{name[1:]} is {colour}.", colour))
    facts += [(f"Which day comes after {x}?", f"{y} comes after {x}.", y) for x, y in FOLLOWING_DAYS.items()]
    facts += [(f"Which month comes after {x}?", f"{y} comes after {x}.", y) for x, y in FOLLOWING_MONTHS.items()]
    return facts + [(question, answer, answer) for question, answer in GREETINGS]


FACTS = _build_facts()
