//! Compares what clients saw of their calls with the rows of those calls.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgPool;
use stack::screen;
use uuid::Uuid;

use super::answered;
use crate::load::{End, Seen};

/// Most tokens in one relay write of a stream of 50 tokens a second: the chunks of 160 ms in which the gateway waited
/// for a processor are joined. Each write is counted before it is sent, and over HTTP/1.1 as over HTTP/2 only once the
/// one before has left the process.
const ONE_WRITE: u64 = 8;
/// From so many cut streams on it shows that almost all writes are single chunks, as their pace has it.
const MANY: usize = 100;

/// A row that counts as a call: its client got something.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Delivered {
    call: Uuid,
    /// Whether it went to a function that streams.
    stream: bool,
    outcome: String,
    tokens: Option<f64>,
}

impl Delivered {
    fn tokens(&self) -> u64 {
        self.tokens.unwrap_or_else(|| panic!("no tokens in {self:?}")) as u64
    }

    /// Whether a gateway that died with this call can have left it. Each write of a stream is counted before it is sent,
    /// an answer in one piece whole before any of it is.
    fn is_lost_of(&self, call: &Seen) -> bool {
        let tokens = match call.in_one_piece {
            Some(all) => all..=all,
            None => call.tokens..=call.tokens + ONE_WRITE,
        };
        self.outcome == "lost" && self.stream == call.in_one_piece.is_none() && tokens.contains(&self.tokens())
    }
}

/// The user's delivered rows.
pub(super) async fn read(db: &PgPool, user: Uuid) -> Vec<Delivered> {
    let text = "select parent_invocation_id as call, right(function_name, 7) = '_stream' as stream, outcome,
            (metrics->>'ot')::float8 as tokens
        from invocations where user_id = $1 and delivered";
    sqlx::query_as(text).bind(user).fetch_all(db).await.unwrap()
}

/// How many answered calls have no row.
pub(super) fn missing(seen: &[Seen], rows: &[Delivered]) -> usize {
    let there: HashSet<Uuid> = rows.iter().map(|row| row.call).collect();
    seen.iter().filter(|call| answered(call) && call.call.is_none_or(|id| !there.contains(&id))).count()
}

/// Fails unless the rows say what clients saw, and say nothing else.
pub(super) fn compare(seen: &[Seen], rows: Vec<Delivered>) {
    let mut by_call = HashMap::new();
    for row in rows {
        if let Some(other) = by_call.insert(row.call, row) {
            panic!("counted twice: {other:?}");
        }
    }
    let mut ahead = BTreeMap::<u64, usize>::new();
    for call in seen {
        let row = call.call.and_then(|id| by_call.remove(&id));
        assert!(agrees(call, row.as_ref()), "{call:?} is recorded as {row:?}");
        if let (End::Cut, None, Some(row)) = (call.end, call.in_one_piece, row) {
            *ahead.entry(row.tokens() - call.tokens).or_default() += 1;
        }
    }
    compare_unknown(seen, &by_call.into_values().collect::<Vec<_>>());
    if !ahead.is_empty() {
        compare_cut(&ahead);
    }
}

/// To the token where the client saw how it ended; where the gateway died, of a stream within one relay write, and of an
/// answer in one piece all or nothing.
fn agrees(call: &Seen, row: Option<&Delivered>) -> bool {
    let Some(row) = row else { return !answered(call) && call.end != End::Whole };
    match call.end {
        // A gateway that dies after the last byte has no time to write down that it was the last.
        End::Whole => ["finished", "lost"].contains(&row.outcome.as_str()) && row.tokens() == call.tokens,
        End::Told => row.outcome == "failed" && row.tokens() == call.tokens,
        End::Cut => row.is_lost_of(call),
        // A row of what its client did not get would be paid.
        End::Refused(_) | End::Nothing => false,
    }
}

/// Rows of calls whose clients never heard their id: a first write that a gateway died with, each of another such call.
fn compare_unknown(seen: &[Seen], rows: &[Delivered]) {
    let mut unknown: Vec<&Seen> = seen.iter().filter(|call| call.end == End::Nothing && call.call.is_none()).collect();
    for row in rows {
        let made = unknown.iter().position(|call| row.is_lost_of(call));
        unknown.swap_remove(made.unwrap_or_else(|| panic!("nobody made this call: {row:?} of {rows:?}")));
    }
}

/// By how much the rows of cut streams are ahead of their clients.
fn compare_cut(ahead: &BTreeMap<u64, usize>) {
    let all: usize = ahead.values().sum();
    screen::say(&format!("of {all} cut streams the record says so many tokens more than the client got: {ahead:?}"));
    let within_one: usize = ahead.range(..=1).map(|(_, count)| count).sum();
    assert!(all < MANY || within_one * 20 >= all * 19, "{within_one} of {all} are within one chunk");
}

mod tests {
    use tokio::time::Instant;

    use super::*;

    fn seen(id: u128, end: End, tokens: u64) -> Seen {
        Seen { call: Some(Uuid::from_u128(id)), tokens, end, ..Seen::nothing(Instant::now()) }
    }

    fn row(id: u128, outcome: &str, tokens: u64) -> Delivered {
        Delivered { call: Uuid::from_u128(id), stream: true, outcome: outcome.to_owned(), tokens: Some(tokens as f64) }
    }

    /// The same of an answer in one piece, with so many tokens in all.
    fn seen_whole(id: u128, end: End, tokens: u64, all: u64) -> Seen {
        Seen { in_one_piece: Some(all), ..seen(id, end, tokens) }
    }

    fn row_whole(id: u128, outcome: &str, tokens: u64) -> Delivered {
        Delivered { stream: false, ..row(id, outcome, tokens) }
    }

    #[test]
    fn rows_that_say_what_clients_saw_are_right() {
        let calls = [
            seen(1, End::Whole, 20),
            seen(2, End::Told, 3),
            seen(3, End::Cut, 5),
            seen(4, End::Cut, 0),
            seen(5, End::Cut, 0),
            seen(6, End::Refused(503), 0),
            Seen::nothing(Instant::now()),
        ];
        let rows =
            [row(1, "finished", 20), row(2, "failed", 3), row(3, "lost", 6), row(4, "lost", 1), row(9, "lost", 2)];
        compare(&calls, rows.to_vec());
    }

    #[test]
    fn rows_of_answers_in_one_piece_have_all_their_tokens() {
        let nothing = Seen { in_one_piece: Some(40), ..Seen::nothing(Instant::now()) };
        let calls = [
            seen_whole(1, End::Whole, 20, 20),
            seen_whole(2, End::Cut, 30, 30),
            seen_whole(3, End::Cut, 0, 30),
            seen_whole(4, End::Cut, 0, 30),
            Seen::nothing(Instant::now()),
            nothing.clone(),
            nothing,
        ];
        let rows = [
            row_whole(1, "finished", 20),
            row_whole(2, "lost", 30),
            row_whole(3, "lost", 30),
            row_whole(8, "lost", 40),
            row(9, "lost", 1),
        ];
        compare(&calls, rows.to_vec());
    }

    #[test]
    fn a_row_of_what_no_client_got_is_wrong() {
        for (call, wrong) in [
            (seen(1, End::Refused(503), 0), row(1, "finished", 1)),
            (seen(1, End::Refused(503), 0), row(1, "lost", 1)),
            (seen(1, End::Cut, 0), row(1, "lost", 500)),
            (seen(1, End::Cut, 0), row(1, "finished", 1)),
            (seen(1, End::Cut, 5), row(1, "lost", 4)),
            (seen(1, End::Cut, 5), row(1, "lost", 5 + ONE_WRITE + 1)),
            (seen(1, End::Whole, 5), row(1, "finished", 6)),
            (seen(1, End::Told, 5), row(1, "finished", 5)),
            (seen_whole(1, End::Cut, 5, 5), row_whole(1, "lost", 4)),
            (seen_whole(1, End::Cut, 0, 5), row_whole(1, "lost", 0)),
            (seen_whole(1, End::Cut, 0, 5), row_whole(1, "lost", 6)),
            (seen_whole(1, End::Cut, 0, 5), row_whole(1, "finished", 5)),
        ] {
            assert!(!agrees(&call, Some(&wrong)), "{call:?} {wrong:?}");
        }
        assert!(!agrees(&seen(1, End::Whole, 5), None));
        assert!(!agrees(&seen_whole(1, End::Cut, 5, 5), None));
    }

    #[test]
    #[should_panic(expected = "nobody made this call")]
    fn a_row_more_than_calls_without_an_id_is_wrong() {
        compare(&[Seen::nothing(Instant::now())], vec![row(1, "lost", 1), row(2, "lost", 1)]);
    }

    #[test]
    #[should_panic(expected = "nobody made this call")]
    fn an_unknown_call_that_was_finished_is_wrong() {
        compare(&[Seen::nothing(Instant::now())], vec![row(1, "finished", 1)]);
    }

    #[test]
    #[should_panic(expected = "nobody made this call")]
    fn an_unknown_answer_in_one_piece_with_a_part_of_its_tokens_is_wrong() {
        let nothing = Seen { in_one_piece: Some(5), ..Seen::nothing(Instant::now()) };
        compare(&[nothing], vec![row_whole(1, "lost", 4)]);
    }

    #[test]
    #[should_panic(expected = "counted twice")]
    fn a_second_row_of_a_call_is_wrong() {
        compare(&[seen(1, End::Whole, 1)], vec![row(1, "finished", 1), row(1, "finished", 1)]);
    }

    #[test]
    #[should_panic(expected = "150 of 200 are within one chunk")]
    fn writes_of_more_than_a_chunk_are_rare() {
        compare_cut(&BTreeMap::from([(0, 50), (1, 100), (2, 50)]));
    }
}
