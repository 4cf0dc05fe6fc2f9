//! What a stack says once it is ready: its addresses and three commands to try.

use chrono::{TimeDelta, Utc};

use crate::description::Description;

/// The lines, in order; `end` is what stops the stack.
pub(super) fn lines(stack: &Description, end: &str) -> Vec<String> {
    let authority = stack.ca.display();
    let (llm, key) = (&stack.urls.llm, &stack.api_key);
    let [curl, python, record] = commands(stack);
    let chute = format!("https://{}:{}", stack.chute.host, stack.https_port);
    let export = export_path(crate::clock::now());
    let gateways = stack.gateways.iter().map(|gateway| gateway.https_port.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        r#"
The platform is ready.

  text         {llm}/v1
  one chute    {chute}/v1
  embeddings   {embed}/v1
  images       {image}
  control      {api}
  gateways     TLS ports {gateways}; plain HTTP of the first on {http}
  API key      {key}
  for tools    stack.json beside {authority}

Three commands to try:

1. Stream a chat with curl:

{curl}

2. The same with OpenAI's Python client, in an environment of its own:

{python}

3. Find the calls in the public record:

{record}

The file of this hour appears some minutes after its end at {api}{export}

To trust the stack in every program of this machine for good:
  sudo cp '{authority}' /usr/local/share/ca-certificates/chutes-local.crt && sudo update-ca-certificates

{end} stops it; the next start goes on with its data."#,
        embed = stack.urls.embed,
        image = stack.urls.image,
        api = stack.urls.api,
        http = stack.http_port,
    );
    text.lines().map(str::to_owned).collect()
}

/// The commands to try: a chat with curl, one with OpenAI's Python client, and the public record.
#[must_use]
pub fn commands(stack: &Description) -> [String; 3] {
    let authority = stack.ca.display();
    // Debian's own Python takes no packages: the client gets an environment beside the stack.
    let client = stack.ca.with_file_name("openai");
    let client = client.display();
    let (llm, api, model, key) = (&stack.urls.llm, &stack.urls.api, &stack.chute.model, &stack.api_key);
    let curl = format!(
        r#"curl -N --cacert '{authority}' {llm}/v1/chat/completions \
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'"#
    );
    let python = format!(
        r#"python3 -m venv '{client}' && '{client}/bin/pip' install --quiet openai && \
  SSL_CERT_FILE='{authority}' '{client}/bin/python' -c '
from openai import OpenAI
client = OpenAI(base_url="{llm}/v1", api_key="{key}")
messages = [{{"role": "user", "content": "Hello"}}]
for chunk in client.chat.completions.create(model="{model}", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()'"#
    );
    [curl, python, format!("curl --cacert '{authority}' {api}/invocations/exports/recent")]
}

/// Where the export of the current hour will be: files are named by the end of their hour.
fn export_path(now: chrono::DateTime<Utc>) -> String {
    (now + TimeDelta::hours(1)).format("/invocations/exports/%Y/%m/%d/%H.csv").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_named_by_its_end() {
        let late: chrono::DateTime<Utc> = "2026-12-31T23:30:00Z".parse().unwrap();
        assert_eq!(export_path(late), "/invocations/exports/2027/01/01/00.csv");
    }
}
