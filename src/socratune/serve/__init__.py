"""The student of the loop behind OpenAI's protocol: `socratune serve MODEL|RUN`."""
