//! Requests that no well-behaved client sends, each with what the edge makes of it.

use super::service::EARLY;

/// Some bytes of a client and what must become of them.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// The statuses of the answers, in order.
    pub(crate) answers: Vec<u16>,
    /// How many requests reach the service at most.
    pub(crate) passes: usize,
    /// Whether the client ends its side behind them.
    pub(crate) half_closed: bool,
    /// Why the edge lets it pass although nginx or HAProxy refuses it, passes something else on than one of them, or
    /// refuses what both let pass.
    pub(crate) reason: Option<&'static str>,
}

/// The name of the service's host, with the label `api`.
const HOST: &str = "Host: api.chutes.localhost\r\n";

/// Every case; `@` in a path is replaced by a mark of the case, so that its requests can be told apart.
pub(crate) fn cases() -> Vec<Case> {
    let mut corpus = Corpus(Vec::new());
    corpus.lines();
    corpus.hosts();
    corpus.targets();
    corpus.lengths();
    corpus.encodings();
    corpus.chunks();
    corpus.sequences();
    corpus.sizes();
    corpus.ends();
    corpus.0
}

struct Corpus(Vec<Case>);

impl Corpus {
    /// Adds a case that passes as so many requests, each answered with 200.
    fn good(&mut self, name: &str, passes: usize, text: impl AsRef<[u8]>) {
        self.add(name, &vec![200; passes], passes, text);
    }

    /// Adds a case that is refused and never reaches a service.
    fn bad(&mut self, name: &str, text: impl AsRef<[u8]>) {
        self.add(name, &[400], 0, text);
    }

    fn add(&mut self, name: &str, answers: &[u16], passes: usize, text: impl AsRef<[u8]>) {
        let mark = mark(self.0.len());
        let mut bytes = Vec::new();
        for byte in text.as_ref() {
            if *byte == b'@' { bytes.extend_from_slice(mark.as_bytes()) } else { bytes.push(*byte) }
        }
        self.0.push(Case {
            name: name.to_owned(),
            bytes,
            answers: answers.to_vec(),
            passes,
            half_closed: false,
            reason: None,
        });
    }

    /// Adds a case that passes otherwise than elsewhere, and says why.
    fn odd(&mut self, reason: &'static str, name: &str, passes: usize, text: impl AsRef<[u8]>) {
        self.good(name, passes, text);
        self.because(reason);
    }

    /// Adds a case that is refused although others let it pass, and says why.
    fn strict(&mut self, reason: &'static str, name: &str, text: impl AsRef<[u8]>) {
        self.bad(name, text);
        self.because(reason);
    }

    /// Adds a case whose client ends its side behind it.
    fn half(&mut self, name: &str, answers: &[u16], passes: usize, text: impl AsRef<[u8]>) {
        self.add(name, answers, passes, text);
        if let Some(case) = self.0.last_mut() {
            case.half_closed = true;
        }
    }

    /// Says why the edge makes something of the last case that others do not.
    fn because(&mut self, reason: &'static str) {
        if let Some(case) = self.0.last_mut() {
            case.reason = Some(reason);
        }
    }

    /// Line ends, spaces and bytes where they do not belong.
    fn lines(&mut self) {
        self.good("ordinary", 1, format!("GET /@ HTTP/1.1\r\n{HOST}\r\n"));
        self.good("empty lines before", 1, format!("\r\n\r\nGET /@ HTTP/1.1\r\n{HOST}\r\n"));
        let ends = "RFC 9112 2.2: a line ends with CRLF; who takes less sees other lines than who does not";
        self.strict(ends, "line feeds alone", "GET /@ HTTP/1.1\nHost: api.chutes.localhost\n\n");
        self.strict(ends, "one line feed alone", format!("GET /@ HTTP/1.1\r\nX: a\n{HOST}\r\n"));
        self.bad("carriage return in a value", format!("GET /@ HTTP/1.1\r\n{HOST}X: a\rb\r\n\r\n"));
        self.bad("nul in a value", format!("GET /@ HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n"));
        let control = "RFC 9110 5.5: control bytes are no part of a value";
        self.strict(control, "bell in a value", format!("GET /@ HTTP/1.1\r\n{HOST}X: a\x07b\r\n\r\n"));
        self.strict(control, "delete in a value", format!("GET /@ HTTP/1.1\r\n{HOST}X: a\x7fb\r\n\r\n"));
        self.bad("space before the colon", format!("GET /@ HTTP/1.1\r\n{HOST}X : a\r\n\r\n"));
        self.bad("space before the name", format!("GET /@ HTTP/1.1\r\n X: a\r\n{HOST}\r\n"));
        self.bad("folded value", format!("GET /@ HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n"));
        self.bad("no colon", format!("GET /@ HTTP/1.1\r\n{HOST}X\r\n\r\n"));
        self.bad("no name", format!("GET /@ HTTP/1.1\r\n{HOST}: a\r\n\r\n"));
        self.bad("odd name", format!("GET /@ HTTP/1.1\r\n{HOST}X(: a\r\n\r\n"));
        self.bad("name in other letters", format!("GET /@ HTTP/1.1\r\n{HOST}Xé: a\r\n\r\n"));
        self.good("latin value", 1, [format!("GET /@ HTTP/1.1\r\n{HOST}X: ").as_bytes(), b"\xe9\r\n\r\n"].concat());
        self.bad("a handshake of TLS", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n");
        self.bad("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for version in ["HTTP/2.0", "HTTP/3", "http/1.1", "HTTP/1.1 ", "HTTP/11", "HTTP/1", "ICAP/1.0", ""] {
            self.bad(&format!("version {version:?}"), format!("GET /@ {version}\r\n{HOST}\r\n"));
        }
        self.strict(
            "the framework reads HTTP/1.0 and HTTP/1.1; nobody speaks another",
            "version 1.2",
            format!("GET /@ HTTP/1.2\r\n{HOST}\r\n"),
        );
        for method in ["G@T", "GE\tT", "G(T", "", "GÉT"] {
            self.bad(&format!("method {method:?}"), format!("{} / HTTP/1.1\r\n{HOST}\r\n", method.replace('@', ":")));
        }
    }

    /// Names that are none, two, or another's.
    fn hosts(&mut self) {
        self.bad("no host", "GET /@ HTTP/1.1\r\n\r\n");
        self.bad("two hosts", format!("GET /@ HTTP/1.1\r\n{HOST}{HOST}\r\n"));
        self.bad("two hosts that differ", format!("GET /@ HTTP/1.1\r\n{HOST}Host: llm.chutes.localhost\r\n\r\n"));
        self.bad(
            "absolute target of another host",
            format!("GET http://llm.chutes.localhost/@ HTTP/1.1\r\n{HOST}\r\n"),
        );
        for host in ["", " ", "a b", "api.chutes.localhost, b", "api.chutes.localhost/x", "api..chutes.localhost", "."]
        {
            self.bad(&format!("host {host:?}"), format!("GET /@ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        }
        let name = "a name decides where a request goes: what is none goes nowhere";
        for host in [
            "user:x:1",
            "api.chutes.localhost:99999",
            "api.chutes.localhost:8a",
            "[::1",
            "[::g]",
            "api.chutes.localhost#",
            "api.chutes.localhost?",
            "api%2echutes.localhost",
        ] {
            self.strict(name, &format!("host {host:?}"), format!("GET /@ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        }
        let unknown = "the others have one service, whatever the name";
        self.add("host of nobody", &[404], 0, "GET /@ HTTP/1.1\r\nHost: a.b.chutes.localhost\r\n\r\n");
        self.because(unknown);
        self.add("host of no slug", &[404], 0, "GET /@ HTTP/1.1\r\nHost: -.chutes.localhost\r\n\r\n");
        self.because(unknown);
    }

    /// Targets that are no path, or an odd one.
    fn targets(&mut self) {
        let path = "services get a path, as nginx gives it to them; HAProxy passes the URL on";
        for url in ["http://api.chutes.localhost/@", "HTTPS://api.chutes.localhost/@/..//%2f?a=//b"] {
            self.odd(path, url, 1, format!("GET {url} HTTP/1.1\r\n{HOST}\r\n"));
        }
        self.bad("url without a host", "GET http://api.chutes.localhost/@ HTTP/1.1\r\n\r\n");
        self.strict(
            "only the web has its URLs here",
            "url of another scheme",
            format!("GET ws://api.chutes.localhost/@ HTTP/1.1\r\n{HOST}\r\n"),
        );
        self.bad("url with a backslash", format!("GET http://api.chutes.localhost\\@ HTTP/1.1\r\n{HOST}\r\n"));
        self.bad("connect to a url", format!("CONNECT http://api.chutes.localhost/@ HTTP/1.1\r\n{HOST}\r\n"));
        for path in ["/@/../users/./me", "/@/%2e%2E/a%2Fb", "/@?a=/../b//c", "/@;a=b/", "/@\\a", "/@/%C3%A9"] {
            self.good(path, 1, format!("GET {path} HTTP/1.1\r\n{HOST}\r\n"));
        }
        let merged = "auditors ask for `//invocations/…`: a service gets each run of slashes as one";
        self.odd(merged, "runs of slashes", 1, format!("GET //@///a HTTP/1.1\r\n{HOST}\r\n"));
        let fragment =
            "a fragment is no part of a target: the framework drops it, HAProxy refuses it, nginx passes it on";
        self.odd(fragment, "fragment", 1, format!("GET /@#a HTTP/1.1\r\n{HOST}\r\n"));
        self.bad("no text in the target", [b"GET /@\xff HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat());
        self.bad("star", format!("GET * HTTP/1.1\r\n{HOST}\r\n"));
        self.bad("options for the server", format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"));
        self.bad("connect", format!("CONNECT api.chutes.localhost:443 HTTP/1.1\r\n{HOST}\r\n"));
        self.bad("no slash", format!("GET @ HTTP/1.1\r\n{HOST}\r\n"));
        let escaped =
            "the framework escapes it before anything reads it, so that every reader sees `%20`, `%09`, `%00`";
        self.odd(escaped, "space in the target", 1, format!("GET /@ x HTTP/1.1\r\n{HOST}\r\n"));
        self.odd(escaped, "tab in the target", 1, format!("GET /@\tx HTTP/1.1\r\n{HOST}\r\n"));
        self.odd(escaped, "nul in the target", 1, format!("GET /@\0x HTTP/1.1\r\n{HOST}\r\n"));
        self.bad("file scheme", format!("GET file:///@ HTTP/1.1\r\n{HOST}\r\n"));
        let unread = "escapes in a path are the service's to read; nginx refuses `%00`, HAProxy does not";
        self.odd(unread, "escapes", 1, format!("GET /@/..%2f%2e%2e/%00?a=%zz HTTP/1.1\r\n{HOST}\r\n"));
        self.add("metrics", &[404], 0, format!("GET //_metrics/@ HTTP/1.1\r\n{HOST}\r\n"));
        self.because("a service's own metrics are for its operator");
    }

    /// Lengths that are none, or two.
    fn lengths(&mut self) {
        let post = |fields: &str, body: &str| format!("POST /@ HTTP/1.1\r\n{HOST}{fields}\r\n{body}");
        self.good("a body", 1, post("Content-Length: 5\r\n", "hello"));
        self.good("an odd body", 1, post("Content-Length: 12\r\n", "\0\r\n\r\n0\r\n\r\nG\n"));
        self.good("a body of a GET", 1, format!("GET /@ HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello"));
        for length in ["+5", "-5", "0x5", "5a", "5 5", "5, 5", "5,6", "5.0", "", "18446744073709551621", "५"] {
            let smuggled = format!("hello{}", "GET /smuggled@ HTTP/1.1\r\nHost: api.chutes.localhost\r\n\r\n");
            self.bad(&format!("length {length:?}"), post(&format!("Content-Length: {length}\r\n"), &smuggled));
        }
        self.bad("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"));
        self.bad("two lengths", post("Content-Length: 5\r\nContent-Length: 60\r\n", "hello"));
        self.bad("length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"));
        self.bad("chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"));
    }

    /// Encodings that are not `chunked`, or not quite.
    fn encodings(&mut self) {
        for encoding in [
            "identity",
            "gzip",
            "gzip, chunked",
            "chunked, identity",
            "chunked, chunked",
            "chunked,",
            ",chunked",
            "xchunked",
            "chunked x",
            "chunked;q=1",
            "\"chunked\"",
            "\x0bchunked",
            "chunkeD\x0b",
            "",
        ] {
            let text = format!(
                "POST /@ HTTP/1.1\r\n{HOST}Transfer-Encoding: {encoding}\r\n\r\n0\r\n\r\nGET /smuggled@ HTTP/1.1\r\n{HOST}\r\n"
            );
            self.bad(&format!("encoding {encoding:?}"), text);
        }
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
        self.bad("two encodings", format!("POST /@ HTTP/1.1\r\n{HOST}{twice}\r\n0\r\n\r\n"));
        let spaced = "Transfer-Encoding : chunked\r\n";
        self.bad("space after the encoding's name", format!("POST /@ HTTP/1.1\r\n{HOST}{spaced}\r\n0\r\n\r\n"));
        let chunked = "Transfer-Encoding: chunked\r\n";
        self.bad("chunks in HTTP/1.0", format!("POST /@ HTTP/1.0\r\n{HOST}{chunked}\r\n0\r\n\r\n"));
    }

    /// Chunks that are none. The head is on its way when these come, so the service sees a request that never ends.
    fn chunks(&mut self) {
        let post = |body: &str| format!("POST /@ HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}");
        self.good("chunks", 1, post("5\r\nhello\r\n0\r\n\r\n"));
        self.good("odd chunks", 1, post("3\r\n\r\n\0\r\nA\r\n0\r\n\r\nGET /\r\n0\r\n\r\n"));
        self.good("chunk extension", 1, post("5;a=b\r\nhello\r\n0\r\n\r\n"));
        self.good("trailer", 1, post("5\r\nhello\r\n0\r\nX: a\r\n\r\n"));
        self.good("leading zeros", 1, post("0005\r\nhello\r\n0\r\n\r\n"));
        let smuggled = "GET /smuggled@ HTTP/1.1\r\nHost: api.chutes.localhost\r\n\r\n";
        let empty =
            "the framework reads no digits as 0 and the rest as trailers; chunks are framed anew behind the edge";
        self.odd(empty, "chunk without a size", 1, post(&format!("\r\nhello\r\n0\r\n\r\n{smuggled}")));
        for size in ["g", "-5", "+5", "0x5", " 5", "5\n", "FFFFFFFFFFFFFFFFF", "5,5"] {
            self.add(
                &format!("chunk of {size:?}"),
                &[400],
                1,
                post(&format!("{size}\r\nhello\r\n0\r\n\r\n{smuggled}")),
            );
        }
        self.add("chunk longer than its size", &[400], 1, post(&format!("3\r\nhello\r\n0\r\n\r\n{smuggled}")));
        let ends = "RFC 9112 7.1: lines of chunks end with CRLF; who takes less reads another body";
        self.add("chunk without its end", &[400], 1, post(&format!("5\r\nhello0\r\n\r\n{smuggled}")));
        self.add("line feed after a chunk", &[400], 1, post(&format!("5\r\nhello\n0\r\n\r\n{smuggled}")));
        self.because(ends);
        self.add("line feed in an extension", &[400], 1, post(&format!("5;a\nhello\r\n0\r\n\r\n{smuggled}")));
        self.because(ends);
    }

    /// More requests than one.
    fn sequences(&mut self) {
        let get = format!("GET /@ HTTP/1.1\r\n{HOST}\r\n");
        self.good("three at once", 3, get.repeat(3));
        let post = format!("POST /@ HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello");
        self.good("a body and the next", 2, format!("{post}{get}"));
        self.add("a bad one after a good one", &[200, 400], 1, format!("{get}GET /@ HTTP/1.1\r\nX : a\r\n\r\n"));
        self.add("nothing after a bad one", &[400], 0, format!("GET /@ HTTP/1.1\r\nHost: a b\r\n\r\n{get}"));
        self.good(
            "upgrade to HTTP/2",
            1,
            format!("GET /@ HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        );
        let connection = "Connection: close, X-Forwarded-For, X-Real-IP, Host\r\n";
        let named = "who names the edge's words wants them dropped behind it: this is no mistake of a client";
        self.strict(named, "the edge's words as hop by hop", format!("GET /@ HTTP/1.1\r\n{HOST}{connection}\r\n"));
        let nominated = "Connection: close, X-Nominated, Keep-Alive\r\nX-Nominated: a\r\nKeep-Alive: timeout=5\r\n";
        let ours = "TE: trailers\r\nTrailer: X\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: a\r\n";
        self.good("what ends at this hop", 1, format!("GET /@ HTTP/1.1\r\n{HOST}{nominated}{ours}\r\n"));
        let forged =
            "X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Chutes-Userid: 1\r\n";
        self.good("forged words of the edge", 1, format!("GET /@ HTTP/1.1\r\n{HOST}{forged}{forged}\r\n"));
    }

    /// Ends before their time: of the client's side, and of the service's answer.
    fn ends(&mut self) {
        let get = format!("GET /@ HTTP/1.1\r\n{HOST}\r\n");
        let post = |length: usize| format!("POST /@ HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\nhel");
        let reads = "who has asked all may still read: HAProxy answers too, nginx takes the client to have left";
        for (name, text) in [
            ("an end after a request", get.clone()),
            ("an end after a body", post(3)),
            ("an end in the next head", format!("{get}GET /@ HT")),
        ] {
            self.half(name, &[200], 1, text);
            self.because(reads);
        }
        self.half("an end in a head", &[], 0, format!("GET /@ HTTP/1.1\r\n{HOST}"));
        self.half("an end in a body", &[], 1, post(50));
        let chunked = format!("POST /@ HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
        self.half("an end in a chunk", &[], 1, format!("{chunked}50\r\nhel"));
        self.half("an end between chunks", &[], 1, format!("{chunked}3\r\nhel\r\n"));
        for (name, sent, announced) in [
            ("an answer before a body", 1, 1),
            ("an answer before a large body", 1 << 12, 1 << 12),
            ("an answer before a body that never ends", 1, 2),
        ] {
            let smuggled = format!("GET /smuggled{} HTTP/1.1\r\n{HOST}\r\n", mark(self.0.len()));
            let head =
                format!("POST {EARLY}@ HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n", smuggled.len() * announced);
            self.good(name, 1, head + &smuggled.repeat(sent));
        }
    }

    /// Heads that are too large.
    fn sizes(&mut self) {
        let long = "x".repeat(70 << 10);
        for (name, text) in [
            ("a long value", format!("GET /@ HTTP/1.1\r\n{HOST}X: {long}\r\n\r\n")),
            ("a long name", format!("GET /@ HTTP/1.1\r\n{HOST}{long}: a\r\n\r\n")),
            ("a long target", format!("GET /@{long} HTTP/1.1\r\n{HOST}\r\n")),
            ("many fields", format!("GET /@ HTTP/1.1\r\n{HOST}{}\r\n", "X: a\r\n".repeat(1000))),
        ] {
            self.add(name, &[431], 0, text);
        }
    }
}

/// What the paths of a case have in them.
pub(crate) fn mark(case: usize) -> String {
    format!("case-{case}-")
}
