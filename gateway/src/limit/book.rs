//! What the desk asks for on behalf of callers' limits per minute and at once.

use protocol::ids::{ChuteId, UserId};
use protocol::lease::{Answer, Ask};

use super::{Limits, Use, UserUse};
use crate::lease::{Book, Moment, Subject, Survey};

impl Limits {
    fn with_use<T>(&self, user: UserId, chute: Option<ChuteId>, act: impl FnOnce(&mut Use) -> T) -> Option<T> {
        let mut user_use = self.users.get_mut(&user)?;
        let UserUse { all, chutes } = &mut *user_use;
        let one = match chute {
            None => Some(all),
            Some(chute) => chutes.get_mut(&chute),
        };
        one.map(act)
    }

    fn each(&self, act: impl Fn(&mut Use)) {
        for mut entry in self.users.iter_mut() {
            let UserUse { all, chutes } = entry.value_mut();
            chutes.values_mut().chain([all]).for_each(&act);
        }
    }
}

impl Book for Limits {
    fn ask(&self, subject: &Subject, waiting: u64, moment: Moment) -> Option<Ask> {
        match *subject {
            Subject::Rate(user, chute) => {
                self.with_use(user, chute, |one| one.rate.ask(waiting, moment.with(one.caps.per_minute())))
            }
            Subject::AtOnce(user, chute) => {
                self.with_use(user, chute, |one| one.at_once.ask(waiting, moment.with(one.caps.at_once())))
            }
            Subject::Quota(..) | Subject::Instance(_) => None,
        }
    }

    fn answer(&self, subject: &Subject, asked: &Ask, answer: Option<&Answer>, moment: Moment) {
        match *subject {
            Subject::Rate(user, chute) => self.with_use(user, chute, |one| match answer {
                Some(answer) => one.rate.answer(asked, answer, moment.with(one.caps.per_minute())),
                None => one.rate.unanswered(),
            }),
            Subject::AtOnce(user, chute) => self.with_use(user, chute, |one| match answer {
                Some(answer) => one.at_once.answer(asked, answer, moment.with(one.caps.at_once())),
                None => one.at_once.unanswered(),
            }),
            Subject::Quota(..) | Subject::Instance(_) => None,
        };
    }

    fn survey(&self, all: bool, moment: Moment, survey: &mut Survey) {
        let mut look = |user: UserId, chute: Option<ChuteId>, one: &mut Use| {
            survey.ready += one.rate.holding().free() + one.at_once.holding().free();
            survey.used += one.rate.used() + one.at_once.used();
            let (per_minute, at_once) = (moment.with(one.caps.per_minute()), moment.with(one.caps.at_once()));
            if one.rate.is_due(per_minute) || (all && !one.rate.is_idle(per_minute)) {
                survey.due.push(Subject::Rate(user, chute));
            }
            if one.at_once.is_due(at_once) || (all && !one.at_once.is_idle()) {
                survey.due.push(Subject::AtOnce(user, chute));
            }
        };
        for mut entry in self.users.iter_mut() {
            let user = *entry.key();
            let UserUse { all, chutes } = entry.value_mut();
            look(user, None, all);
            for (chute, one) in chutes {
                look(user, Some(*chute), one);
            }
        }
    }

    fn lapse(&self) {
        self.each(|one| {
            one.rate.lapse();
            one.at_once.lapse();
        });
    }

    fn close(&self) {
        self.each(|one| {
            one.rate.close();
            one.at_once.close();
        });
    }
}
