"""Reads what a script is to do from the environment and opens the OpenAI client for it."""

import json
import os
import ssl

import httpx2
import openai


def task() -> dict:
    """The JSON object that the Rust test passed."""
    return json.loads(os.environ["TASK"])


def client(task: dict) -> openai.OpenAI:
    """The SDK as a user sets it up, except that it trusts the stack's authority and repeats nothing."""
    trust = ssl.create_default_context(cafile=task["ca"])
    return openai.OpenAI(
        base_url=task["base_url"],
        api_key=task["api_key"],
        http_client=httpx2.Client(verify=trust, trust_env=False, timeout=30),
        max_retries=task.get("max_retries", 0),
    )


def answer(**facts) -> None:
    """Tells the Rust test what was seen."""
    print(json.dumps(facts))


def describe(error: openai.APIError) -> dict:
    """What a program can branch on when the SDK raises."""
    response = getattr(error, "response", None)
    headers = {} if response is None else response.headers
    return {
        "exception": type(error).__name__,
        "status": None if response is None else response.status_code,
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
        "retry_after": headers.get("retry-after"),
        "invocation": headers.get("x-chutes-invocationid"),
        "detail": None if response is None else response.json().get("detail"),
    }
