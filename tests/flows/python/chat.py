"""Asks for one completion in one piece."""

from connect import answer, client, task

job = task()
raw = client(job).chat.completions.with_raw_response.create(
    model=job["model"], messages=[{"role": "user", "content": job["prompt"]}], max_tokens=job["max_tokens"]
)
completion = raw.parse()
answer(
    invocation=raw.headers["x-chutes-invocationid"],
    content_type=raw.headers["content-type"],
    model=completion.model,
    content=completion.choices[0].message.content,
    prompt_tokens=completion.usage.prompt_tokens,
    completion_tokens=completion.usage.completion_tokens,
)
