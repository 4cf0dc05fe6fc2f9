"""Embeds two texts, in the form the SDK asks for by default (base64) and as plain numbers."""

from connect import answer, client, task

job = task()
sdk = client(job)
texts = ["the first text", "another one"]
raw = sdk.embeddings.with_raw_response.create(model=job["model"], input=texts)
default = raw.parse()
plain = sdk.embeddings.create(model=job["model"], input=texts, encoding_format="float")
answer(
    invocation=raw.headers["x-chutes-invocationid"],
    default=[item.embedding for item in default.data],
    plain=[item.embedding for item in plain.data],
    prompt_tokens=default.usage.prompt_tokens,
)
