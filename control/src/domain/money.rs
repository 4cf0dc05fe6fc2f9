//! Amounts in whole pico-dollars, read from decimal text without rounding.

use std::fmt;
use std::str::FromStr;

/// Decimals of a dollar that are kept.
const DECIMALS: usize = 12;
/// One dollar.
const DOLLAR: i128 = 1_000_000_000_000;
/// The largest amount of either sign: 38 digits, as many as the database keeps.
const LARGEST: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// An amount of money in pico-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

/// A text that is no exact amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount is decimal dollars with at most {DECIMALS} decimals, such as -1.25")]
pub struct InvalidAmount;

impl Amount {
    /// The amount of so many pico-dollars; `None` when the database could not hold it.
    #[must_use]
    pub fn from_pico(pico: i128) -> Option<Self> {
        (-LARGEST..=LARGEST).contains(&pico).then_some(Self(pico))
    }

    /// The number of pico-dollars.
    #[must_use]
    pub fn pico(self) -> i128 {
        self.0
    }
}

impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(part) || part.len() > DECIMALS {
            return Err(InvalidAmount);
        }
        let pico = format!("{whole}{part:0<DECIMALS$}").parse::<i128>().map_err(|_| InvalidAmount)?;
        Self::from_pico(sign * pico).ok_or(InvalidAmount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.abs() / DOLLAR, self.0.abs() % DOLLAR);
        let part = format!("{part:0DECIMALS$}");
        let part = part.trim_end_matches('0');
        if part.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{part}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimal_dollars_are_read_exactly_or_not_at_all() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1.25", Some(1_250_000_000_000)),
            ("-0.000000000001", Some(-1)),
            ("12345678901234567890", Some(12_345_678_901_234_567_890 * DOLLAR)),
            ("0.0000000000001", None),
            ("1.", None),
            (".5", None),
            ("1e3", None),
            ("+1", None),
            ("--1", None),
            ("", None),
            ("100000000000000000000000000", None),
            ("99999999999999999999999999999999999999999999", None),
        ];
        for (text, pico) in cases {
            assert_eq!(text.parse::<Amount>().ok().map(Amount::pico), pico, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_reads_what_it_writes(pico in -LARGEST..=LARGEST) {
            let amount = Amount::from_pico(pico).unwrap();
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        }
    }
}
