"""Embeds two texts, in the form the SDK asks for by default (base64) and as plain numbers."""

from connect import answer, client, task

job = task()
sdk = client(job)
texts = ["the first text", "another one"]
default = sdk.embeddings.create(model=job["model"], input=texts)
plain = sdk.embeddings.create(model=job["model"], input=texts, encoding_format="float")
answer(
    default=[item.embedding for item in default.data],
    plain=[item.embedding for item in plain.data],
    prompt_tokens=default.usage.prompt_tokens,
)
