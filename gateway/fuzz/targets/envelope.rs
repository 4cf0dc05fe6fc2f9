//! The envelope: what an instance sends opens or is refused, and what is sealed opens as it was.

use protocol::envelope::instance::{open_request, seal_json_reply, seal_typed_reply};
use protocol::envelope::{Generation, seal_request};
use protocol::sealing::InstanceKey;

/// `data` is a path and a body; and, as it is, an answer, a line and a request of somebody hostile.
pub(crate) fn run(data: &[u8]) {
    let key = InstanceKey::from([7; 16]);
    let opened = |path: &str, body: &[u8]| {
        let sealed = seal_request(Generation::Sdk03, &key, path, body, false, &[]).ok()?;
        let opened = open_request(&key, &sealed.path, &sealed.body).expect("what was sealed opens");
        Some((sealed, opened))
    };
    let (sealed, request) = opened("/chat", b"{}").expect("an empty object is JSON");
    // Answers and lines out of nothing: refused, or no longer than they came.
    if let Ok(reply) = sealed.opener.open_reply(data) {
        assert!((200..600).contains(&reply.status) && reply.body.len() <= data.len());
    }
    assert!(
        sealed.opener.open_line(data).is_ok_and(|line| line.len() <= data.len())
            || sealed.opener.open_line(data).is_err()
    );
    let (path, body) = super::line(data);
    if let Ok(path) = std::str::from_utf8(path) {
        let _ = open_request(&key, path, body);
        if let Some((_, request)) = opened(&format!("/{path}"), body) {
            // Paths are filled up with question marks, which none has.
            assert_eq!(request.path, format!("/{path}").trim_end_matches('?'));
        }
    }
    let typed = seal_typed_reply(&key, &request.iv, 200, "image/png", data);
    let reply = sealed.opener.open_reply(typed.as_bytes()).expect("what was sealed opens");
    assert_eq!((reply.status, &reply.body[..]), (200, data));
    let json = seal_json_reply(&key, &request.iv, data);
    assert_eq!(&sealed.opener.open_reply(json.as_bytes()).expect("what was sealed opens").body[..], data);
}
