"""Asks for an image as OpenAI's users do, or for one that is to be refused."""

import base64

import openai
from connect import answer, client, describe, task

job = task()
try:
    raw = client(job).images.with_raw_response.generate(model=job["model"], prompt="a lighthouse", **job["options"])
    images = raw.parse()
    answer(
        error=None,
        invocation=raw.headers["x-chutes-invocationid"],
        content_type=raw.headers["content-type"],
        created=images.created,
        images=[base64.b64decode(image.b64_json).hex() for image in images.data],
    )
except openai.APIError as raised:
    answer(error=describe(raised))
