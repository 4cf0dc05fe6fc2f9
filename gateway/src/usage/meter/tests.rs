//! What is counted, and what is kept back.

use proptest::prelude::*;

use super::*;

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const HEL: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}],\"usage\":null}\n\n";
const LO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo \u{e4}\"}}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What the client gets of a stream in these pieces.
fn relayed(meter: &mut Meter, pieces: &[&[u8]]) -> Vec<u8> {
    let mut shown = Vec::new();
    for (millisecond, piece) in (0..).zip(pieces) {
        shown.extend_from_slice(&meter.push(&Bytes::copy_from_slice(piece), at(millisecond)));
    }
    shown.extend_from_slice(&meter.end(at(1000)));
    shown
}

fn hidden(text: &str) -> (String, Meter) {
    let mut meter = Meter::new(Kind::Stream, true);
    let shown = relayed(&mut meter, &[text.as_bytes()]);
    (String::from_utf8(shown).unwrap(), meter)
}

fn counters(text: &str) -> Counters {
    hidden(text).1.counters()
}

#[test]
fn a_stream_is_counted_and_its_forced_usage_chunk_is_not_shown() {
    let (shown, meter) = hidden(&[ROLE, HEL, LO, USAGE, DONE].concat());
    assert_eq!(shown, [ROLE, HEL, LO, DONE].concat());
    let counted = meter.counters();
    assert_eq!((counted.chunks, counted.claimed), (2, Some(Claim { prompt: 7, completion: 2 })));
    assert_eq!(meter.error(), None);
}

#[test]
fn a_usage_chunk_that_was_asked_for_is_shown() {
    let mut meter = Meter::new(Kind::Stream, false);
    let all = [HEL, USAGE, DONE].concat();
    assert_eq!(relayed(&mut meter, &[all.as_bytes()]), all.as_bytes());
    assert_eq!(meter.counters().claimed, Some(Claim { prompt: 7, completion: 2 }));
}

#[test]
fn content_is_shown_at_once_and_only_a_possible_usage_line_waits() {
    let mut meter = Meter::new(Kind::Stream, true);
    let mut push = |text: &'static str| meter.push(&Bytes::from_static(text.as_bytes()), at(0));
    assert_eq!(push(": ping"), ": ping");
    assert_eq!(push("\n\n"), "\n\n");
    assert_eq!(push(HEL), HEL);
    assert_eq!(push("da"), "");
    assert_eq!(push("ten: x"), "daten: x");
    assert_eq!(push("\n\ndata: {\"choices\""), "\n\n");
    assert_eq!(push(":[]}\n"), "data: {\"choices\":[]}\n");
    assert_eq!(push("\r"), "\r");
}

#[test]
fn without_anything_to_hide_every_byte_passes_at_once() {
    let mut meter = Meter::new(Kind::Stream, false);
    for piece in ["da", "ta: {\"cho", "ices\":[{\"text\":\"x\"}]}", "\n"] {
        assert_eq!(meter.push(&Bytes::from_static(piece.as_bytes()), at(0)), piece);
    }
    assert_eq!(meter.end(at(0)), "");
    assert_eq!(meter.counters().chunks, 1);
}

#[test]
fn the_time_of_the_first_content_is_kept() {
    let mut meter = Meter::new(Kind::Stream, true);
    for (text, millisecond) in [(ROLE, 10), (HEL, 20), (LO, 30)] {
        meter.push(&Bytes::from_static(text.as_bytes()), at(millisecond));
    }
    assert_eq!(meter.counters().first, Some(at(20)));
}

#[test]
fn text_reasoning_and_tool_calls_are_content_and_empty_ones_are_not() {
    for (choice, chunks) in [
        (r#"{"text":"x"}"#, 1),
        (r#"{"text":""}"#, 0),
        (r#"{"delta":{"reasoning_content":"x","content":null}}"#, 1),
        (r#"{"delta":{"reasoning":"x"}}"#, 1),
        (r#"{"delta":{"tool_calls":[{"index":0}]}}"#, 1),
        (r#"{"delta":{"tool_calls":[],"content":""}}"#, 0),
        (r#"{"delta":null,"finish_reason":"stop"}"#, 0),
        (r#"{"delta":{}},{"delta":{"content":"second"}}"#, 1),
        (r#"{"delta":{"content":5}}"#, 0),
        (r#"7"#, 0),
    ] {
        assert_eq!(counters(&format!("data: {{\"choices\":[{choice}]}}\n\n")).chunks, chunks, "{choice}");
    }
}

#[test]
fn the_last_usage_wins_also_beside_content() {
    let early = HEL.replace("null", "{\"prompt_tokens\":1,\"completion_tokens\":1}");
    let (shown, meter) = hidden(&[&early, USAGE].concat());
    assert_eq!(shown, early);
    assert_eq!(meter.counters().claimed, Some(Claim { prompt: 7, completion: 2 }));
    assert_eq!(counters(&[USAGE, &early].concat()).claimed, Some(Claim { prompt: 1, completion: 1 }));
}

#[test]
fn a_usage_nobody_can_read_is_shown_and_not_believed() {
    for usage in ["-1", "1.5", "\"7\"", "99999999999999999999", "[]"] {
        let text = format!("data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{usage}}}}}\n\n");
        let (shown, meter) = hidden(&text);
        assert_eq!((shown, meter.counters().claimed), (text, None));
    }
}

#[test]
fn carriage_returns_and_missing_line_ends_do_not_matter() {
    let crlf = [HEL, USAGE, DONE].concat().replace('\n', "\r\n");
    assert_eq!(hidden(&crlf).0, [HEL, DONE].concat().replace('\n', "\r\n"));
    assert_eq!(hidden(&[HEL, USAGE.trim_end()].concat()).0, HEL);
    assert_eq!(hidden("data: [DONE]").0, "data: [DONE]");
    assert_eq!(hidden(&USAGE.replace("data: ", "data:")).0, "");
}

#[test]
fn a_usage_line_inside_a_larger_event_is_shown() {
    let event = format!("event: usage\n{USAGE}");
    assert_eq!(hidden(&event).0, event);
}

#[test]
fn an_error_event_is_noticed_and_shown() {
    let event = "data: {\"error\":{\"message\":\"too long\",\"code\":400}}\n\n";
    let (shown, meter) = hidden(&[event, DONE].concat());
    assert_eq!(shown, [event, DONE].concat());
    let error = meter.error().unwrap();
    assert_eq!((error.code, error.event.as_str()), (Some(400), &event[6..event.len() - 2]));
    assert_eq!(hidden("data: {\"error\":\"boom\"}\n\n").1.error().unwrap().code, None);
    assert_eq!(hidden("data: {\"error\":{\"code\":\"x\"}}\n\n").1.error().unwrap().code, None);
}

#[test]
fn a_line_too_long_to_read_passes_and_counts_as_one_chunk() {
    let long = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(LONGEST_LINE));
    for size in [1, 1000, 60_000, long.len()] {
        let mut meter = Meter::new(Kind::Stream, true);
        let all = [&long, USAGE, DONE].concat();
        let pieces: Vec<&[u8]> = all.as_bytes().chunks(size).collect();
        assert_eq!(relayed(&mut meter, &pieces), [&long, DONE].concat().as_bytes(), "{size}");
        assert_eq!(meter.counters().chunks, 1);
        assert!(meter.counters().claimed.is_some());
    }
}

#[test]
fn what_is_held_back_is_bounded() {
    let mut meter = Meter::new(Kind::Stream, true);
    let mut shown = 0;
    for _ in 0..100 {
        shown += meter.push(&Bytes::from(format!("data: {}", "x".repeat(10_000))), at(0)).len();
    }
    assert!(100 * 10_006 - shown <= LONGEST_LINE);
}

#[test]
fn an_answer_in_one_piece_is_counted_by_its_text_and_claims_its_usage() {
    let whole = |text: &'static str| {
        let mut meter = Meter::new(Kind::Complete, false);
        assert_eq!(meter.push(&Bytes::from_static(text.as_bytes()), at(5)), text);
        (meter.counters().bytes, meter.counters().claimed)
    };
    let usage = Some(Claim { prompt: 3, completion: 5 });
    let chat = r#"{"choices":[{"message":{"role":"assistant","content":"12345","reasoning_content":"678"}}],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#;
    assert_eq!(whole(chat), (8, usage));
    assert_eq!(whole(r#"{"choices":[{"text":"\u00e4"},{"text":"x"}]}"#), (3, None));
    let call =
        r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#;
    assert_eq!(whole(call), (3, None));
    assert_eq!(whole("no json at all"), (14, None));
    assert_eq!(whole(r#"{"data":[1]}"#), (12, None));
}

#[test]
fn only_answers_measured_in_tokens_are_read() {
    for kind in [Kind::Steps, Kind::Time] {
        let mut meter = Meter::new(kind, true);
        assert_eq!(meter.push(&Bytes::from_static(USAGE.as_bytes()), at(0)), USAGE);
        assert_eq!(meter.counters(), Counters::default());
    }
}

fn events() -> impl Strategy<Value = Vec<&'static str>> {
    let event = prop_oneof![
        Just(ROLE),
        Just(HEL),
        Just(LO),
        Just(USAGE),
        Just(DONE),
        Just(": comment\n\n"),
        Just("\n"),
        Just("\r\n"),
        Just("data: {broken\n\n"),
        Just("event: x\n"),
    ];
    prop::collection::vec(event, 0..12)
}

proptest! {
    /// Wherever a stream is split, the client gets the same bytes, and those are the stream without usage chunks.
    #[test]
    fn splits_change_nothing(events in events(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let all = events.concat();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len() + 1)).chain([0, all.len()]).collect();
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &all.as_bytes()[pair[0]..pair[1]]).collect();

        let (whole, reference) = hidden(&all);
        let mut split = Meter::new(Kind::Stream, true);
        prop_assert_eq!(relayed(&mut split, &pieces), whole.clone().into_bytes());
        let (left, right) = (split.counters(), reference.counters());
        prop_assert_eq!((left.chunks, left.bytes, left.claimed), (right.chunks, right.bytes, right.claimed));

        let mut open = Meter::new(Kind::Stream, false);
        prop_assert_eq!(relayed(&mut open, &pieces), all.clone().into_bytes());
        if !events.contains(&"event: x\n") {
            prop_assert_eq!(whole, all.replace(USAGE, ""));
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_none_get_lost(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 0..24)) {
        for kind in [Kind::Stream, Kind::Complete, Kind::Steps, Kind::Time] {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut meter = Meter::new(kind, true);
            prop_assert_eq!(relayed(&mut meter, &pieces), pieces.concat());
        }
    }
}
