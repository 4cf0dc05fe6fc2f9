//! What Redis does when a gateway beats or asks: Lua, with [`super::claims`] as its model.
//!
//! Scripts read `now` in milliseconds from Redis's clock, the only one that all gateways share.

use super::{Answer, Ask, DEAD_AFTER, FORGET, LIFE, SETTLE, SILENT_AFTER, parts};

/// Lua: the time of Redis in milliseconds; stands before each script.
const NOW: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
";

/// Lua: `KEYS` beats, since; `ARGV` gateway, dead after, forget after, silent after.
///
/// Where no gateway was heard claims may be taken for those of the dead: there it begins anew to settle. Answers with
/// whether Redis knew the gateway, for how many milliseconds it has been settling or settled, and the gateways alive.
const BEAT: &str = "\
local known = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
local heard = redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[4], '+inf', 'LIMIT', 0, 1)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
local since = tonumber(redis.call('GET', KEYS[2]) or now + 1)
if since > now or #heard == 0 then since = now end
redis.call('SET', KEYS[2], string.format('%d', since), 'PX', ARGV[3])
return {known, now - since, redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[2], '+inf')}";

/// Lua: `KEYS` beats, since, then a hash of claims per question; `ARGV` gateway, sequence, parts, dead after, settle,
/// life, then per question must, need, spare, limit, base, next (-1 for unknown), linger.
///
/// A claim is `{slots} {sequence} {when the next comes free, -1 for unknown}`. Answers with whether Redis has settled,
/// then per question held, left and next.
const ASK: &str = "\
local me, sequence, parts = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local dead, life = tonumber(ARGV[4]), tonumber(ARGV[6])
local since = redis.call('GET', KEYS[2])
local settled = since and now - since >= tonumber(ARGV[5])
local answer = {settled and 1 or 0}
local beats = {}
for question = 3, #KEYS do
  local given = {}
  for field = 1, 7 do given[field] = tonumber(ARGV[6 + (question - 3) * 7 + field]) end
  local must, need, spare, limit, base, free, linger = unpack(given)
  local others, soonest, last = 0, -1, -1
  local fields = redis.call('HGETALL', KEYS[question])
  for field = 1, #fields, 2 do
    local name = fields[field]
    if name == 'base' then
      base = math.max(base, tonumber(fields[field + 1]))
    else
      local held, number, next = string.match(fields[field + 1], '^(%d+) (%d+) (%-?%d+)$')
      if name == me then
        last = tonumber(number)
      else
        beats[name] = beats[name] or tonumber(redis.call('ZSCORE', KEYS[1], name) or '-inf')
        if now - beats[name] > dead + linger then
          redis.call('HDEL', KEYS[question], name)
        else
          others = others + held
          next = tonumber(next)
          if next > now and (soonest < 0 or next < soonest) then soonest = next end
        end
      end
    end
  end
  local room = math.max(0, limit - base - others - must)
  local held = must
  if settled then
    local granted = math.min(need, room)
    held = must + granted + math.min(spare, math.floor((room - granted) / parts))
  end
  if sequence > last then
    local next = free < 0 and -1 or now + free
    redis.call('HSET', KEYS[question], me, string.format('%d %d %d', held, sequence, next))
    if base > 0 then redis.call('HSET', KEYS[question], 'base', string.format('%d', base)) end
    redis.call('PEXPIRE', KEYS[question], life + linger)
  end
  answer[#answer + 1] = held
  answer[#answer + 1] = limit - base - others - held
  answer[#answer + 1] = soonest < 0 and -1 or soonest - now
end
return answer";

/// Largest number that passes through Lua unchanged, with room to add some.
const LARGEST: u64 = 1 << 50;

/// The text of a script; with `at`, for a test that says what time it is.
fn text(body: &str, at: Option<i64>) -> String {
    at.map_or_else(|| format!("{NOW}{body}"), |at| format!("local now = {at}\n{body}"))
}

/// Lua: a gateway says that it is there. Arguments: [`beat_arguments`]. `at` replaces the clock, for tests.
#[must_use]
pub fn beat(at: Option<i64>) -> String {
    text(BEAT, at)
}

/// Lua: a gateway asks for slots. Arguments: [`ask_arguments`]. `at` replaces the clock, for tests.
#[must_use]
pub fn ask(at: Option<i64>) -> String {
    text(ASK, at)
}

/// What [`beat`] is told after the gateway's name.
#[must_use]
pub fn beat_arguments() -> [u64; 3] {
    [DEAD_AFTER, FORGET, SILENT_AFTER].map(millis)
}

/// What [`ask`] is told after the gateway's name; `gateways` are those alive.
#[must_use]
pub fn ask_arguments(sequence: u64, gateways: u32, asks: &[Ask]) -> Vec<i64> {
    let head = [sequence, parts(gateways), millis(DEAD_AFTER), millis(SETTLE), millis(LIFE)];
    let mut arguments: Vec<i64> = head.into_iter().map(number).collect();
    for ask in asks {
        let next = ask.next.map_or(-1, number);
        let [must, need, spare] = [ask.must, ask.need, ask.spare].map(number);
        arguments.extend([must, need, spare, number(ask.limit), number(ask.base), next, number(ask.linger)]);
    }
    arguments
}

/// Reads what [`ask`] returned: whether Redis has settled, and an answer per question. None if it is something else.
#[must_use]
pub fn answers(returned: &[i64]) -> Option<(bool, Vec<Answer>)> {
    let (settled, rest) = returned.split_first()?;
    let (answers, []) = rest.as_chunks::<3>() else { return None };
    let answer = |[held, left, next]: &[i64; 3]| {
        Some(Answer { held: u64::try_from(*held).ok()?, left: *left, next: u64::try_from(*next).ok() })
    };
    Some((*settled == 1, answers.iter().map(answer).collect::<Option<_>>()?))
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(LARGEST)
}

fn number(value: u64) -> i64 {
    i64::try_from(value.min(LARGEST)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_the_clock_of_redis_unless_a_test_says_what_time_it_is() {
        for (script, body) in [(beat as fn(Option<i64>) -> String, BEAT), (ask, ASK)] {
            assert_eq!(script(None), format!("{NOW}{body}"));
            assert_eq!(script(Some(7)), format!("local now = 7\n{body}"));
        }
    }

    #[test]
    fn arguments_stand_in_the_order_in_which_the_scripts_read_them() {
        assert_eq!(beat_arguments(), [3_000, 7_200_000, 1_000]);
        let one = Ask { must: 1, need: 2, spare: 3, limit: 4, base: 5, next: Some(6), linger: 7 };
        let other = Ask { must: u64::MAX, next: None, ..one };
        let right = [9, 8, 3_000, 2_000, 600_000, 1, 2, 3, 4, 5, 6, 7, 1 << 50, 2, 3, 4, 5, -1, 7];
        assert_eq!(ask_arguments(9, 4, &[one, other]), right);
    }

    #[test]
    fn an_answer_is_read_only_if_it_is_whole() {
        let (first, second) = (Answer { held: 3, left: -1, next: Some(0) }, Answer { held: 0, left: 5, next: None });
        assert_eq!(answers(&[1, 3, -1, 0, 0, 5, -1]), Some((true, vec![first, second])));
        assert_eq!(answers(&[0]), Some((false, vec![])));
        for broken in [&[][..], &[1, 3], &[1, 3, 4], &[1, -3, 0, 0], &[1, 3, 0, 0, 1]] {
            assert_eq!(answers(broken), None, "{broken:?}");
        }
    }
}
