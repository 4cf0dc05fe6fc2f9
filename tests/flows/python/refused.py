"""Makes calls that are to be refused and tells what the SDK raises for each."""

import openai
from connect import answer, client, describe, task

job = task()
sdk = client(job)
prompt = job["prompt"] * job.get("repeat", 1)
try:
    sdk.chat.completions.create(
        model=job["model"], messages=[{"role": "user", "content": prompt}], stream=job.get("stream", False)
    )
    answer(error=None)
except openai.APIError as raised:
    answer(error=describe(raised))
