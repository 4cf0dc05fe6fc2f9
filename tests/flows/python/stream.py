"""Reads a streamed completion to its end, or until something raises or enough pieces came."""

import time

import openai
from connect import answer, client, describe, task

job = task()
options = {"stream_options": {"include_usage": True}} if job.get("include_usage") else {}
if "key" in job:
    options["extra_headers"] = {"Idempotency-Key": job["key"]}
raw = client(job).chat.completions.with_raw_response.create(
    model=job["model"],
    messages=[{"role": "user", "content": job["prompt"]}],
    max_tokens=job["max_tokens"],
    stream=True,
    **options,
)
stream = raw.parse()
pieces, usages, without_choices, error = [], [], 0, None
left_at = None
try:
    for chunk in stream:
        without_choices += not chunk.choices
        usages += [chunk.usage.model_dump()] if chunk.usage else []
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        if len(pieces) == job.get("leave_after"):
            stream.close()
            left_at = time.time()
            break
except openai.APIError as raised:
    error = describe(raised)
answer(
    invocation=raw.headers["x-chutes-invocationid"],
    content_type=raw.headers["content-type"],
    replayed=raw.headers.get("idempotent-replayed"),
    pieces=pieces,
    usages=usages,
    without_choices=without_choices,
    error=error,
    left_at=left_at,
)
