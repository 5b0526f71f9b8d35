"""Step 2 of the guide on five questions: the student tries, the judge checks, the teacher hints.

    python src/unsloth/examples/enhance_rows.py

Takes five seconds.
"""

from tempfile import TemporaryDirectory

import socratune
from socratune import StudentTeacherConfig

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {first} * {second}?"},
            {"role": "assistant", "content": f"{first} * {second} = {first * second}."},
        ],
        "metadata": {"source": f"{first}"},
    }
    for first, second in ((15, 13), (47, 83), (22, 41), (63, 18), (91, 37))
]

if __name__ == "__main__":
    loop = StudentTeacherConfig(
        teacher_model="rules/arithmetic",  # or "anthropic/max"
        judge_model="rules/mechanical",  # or "gpt-4o-mini"
        max_iterations=3,
        thinking_format="direct",
    )
    with TemporaryDirectory() as folder:
        result = socratune.run(model="demo", dataset=ROWS, output=f"{folder}/run", enhance=loop, until="enhance")
        for trace in result.traces():
            print(f"\n{trace.row.question}")
            for attempt in trace.attempts:
                print(f"  student: {attempt.response} ({attempt.verdict})")
                if attempt.hint:
                    print(f"  teacher: {attempt.hint}")
