"""Reads a stream line by line with the HTTP client under the SDK and tells what lines there were."""

from connect import answer, client, task

job = task()
sdk = client(job)
body = {
    "model": job["model"],
    "messages": [{"role": "user", "content": job["prompt"]}],
    "max_tokens": job["max_tokens"],
    "stream": True,
}
comments, events, others = 0, 0, []
with sdk._client.stream("POST", f"{job['base_url']}/chat/completions", json=body, headers=sdk.auth_headers) as response:
    for line in response.iter_lines():
        if line == ": keepalive":
            comments += 1
        elif line.startswith("data: "):
            events += 1
        elif line:
            others.append(line)
answer(comments=comments, events=events, others=others)
