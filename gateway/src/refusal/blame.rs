//! Whose fault it is that a call is turned away.

use super::Refusal;
use crate::idempotent::{Full, Owner};
use crate::instance::verdict::Blame;

impl Refusal {
    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownChute
            | Self::UnknownModel(_)
            | Self::UnknownCord
            | Self::UnknownPage
            | Self::MethodNotAllowed(_)
            | Self::Misdirected
            | Self::Unauthenticated
            | Self::InvalidCredential(_)
            | Self::ExpiredSession
            | Self::ReplayedSignature
            | Self::OutOfScope
            | Self::RateLimited { .. }
            | Self::TooManyAtOnce { .. }
            | Self::QuotaExceeded { .. }
            | Self::BadRequest(_)
            | Self::RefusedByInstance(_)
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout
            | Self::HeadTooLarge { .. }
            | Self::HeadTimeout
            | Self::Again(_)
            | Self::AnswersFull(Full { whose: Owner::User, .. }) => Blame::Client,
            Self::Exhausted | Self::EmptyAnswer | Self::BadAnswer | Self::UpstreamTimeout => Blame::Instance,
            Self::Overloaded(_)
            | Self::Maintenance
            | Self::NoInstance(_)
            | Self::AtCapacity
            | Self::NotReady(_)
            | Self::AnswersFull(Full { whose: Owner::All, .. })
            | Self::LogUnwritable
            | Self::NoService(_)
            | Self::ServiceFailed(_)
            | Self::ServiceTimeout(_)
            | Self::Internal => Blame::Platform,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use protocol::ids::ChuteId;

    use super::*;
    use crate::refusal::{Scarce, Standing, Whose};

    #[test]
    fn limits_are_the_clients_own_but_a_lack_of_instances_is_ours() {
        let standing = Standing { limit: 1, remaining: 0, reset: 1 };
        let limited = Refusal::RateLimited { whose: Whose::User, standing };
        assert_eq!((limited.status(), limited.blame()), (StatusCode::TOO_MANY_REQUESTS, Blame::Client));
        let answers = Refusal::AnswersFull(Full { whose: Owner::User, free_in: None });
        assert_eq!((answers.status(), answers.blame()), (StatusCode::TOO_MANY_REQUESTS, Blame::Client));
        let full = Refusal::AtCapacity;
        assert_eq!((full.status(), full.blame()), (StatusCode::TOO_MANY_REQUESTS, Blame::Platform));
        assert_eq!(Refusal::NoInstance(ChuteId::random()).blame(), Blame::Platform);
    }

    #[test]
    fn no_server_error_is_a_clients_fault() {
        let errors = [
            Refusal::Overloaded(Scarce::Memory),
            Refusal::NotReady("redis"),
            Refusal::AnswersFull(Full { whose: Owner::All, free_in: None }),
            Refusal::LogUnwritable,
            Refusal::NoService("ws"),
            Refusal::ServiceFailed("api"),
            Refusal::ServiceTimeout("api"),
            Refusal::Internal,
            Refusal::Exhausted,
            Refusal::EmptyAnswer,
            Refusal::BadAnswer,
            Refusal::UpstreamTimeout,
        ];
        for error in errors {
            assert!(error.status().is_server_error(), "{error:?}");
            assert_ne!(error.blame(), Blame::Client, "{error:?}");
        }
    }

    #[test]
    fn instances_that_do_not_answer_are_to_blame_themselves() {
        assert_eq!(Refusal::UpstreamTimeout.blame(), Blame::Instance);
        assert_eq!(Refusal::RefusedByInstance(StatusCode::BAD_REQUEST).blame(), Blame::Client);
    }
}
