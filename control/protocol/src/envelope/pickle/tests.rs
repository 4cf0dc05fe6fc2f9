//! Tests of `pickle`.
