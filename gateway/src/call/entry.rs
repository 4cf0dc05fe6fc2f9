//! Lets a caller in to one chute: may he know of it, may he call it, may he now.

use std::sync::Arc;

use protocol::ids::InstanceId;
use protocol::slug::Slug;

use super::Calls;
use super::answer::Stamp;
use super::upstream::Instances;
use crate::auth::Caller;
use crate::directory::{ChuteRoute, Routes, Target};
use crate::limit::{Permit, QuotaHold};
use crate::refusal::Refusal;

/// A caller's way in to a chute; he counts as inside for as long as it lives.
pub(super) struct Entry {
    /// The chute and its instances.
    pub route: Arc<ChuteRoute>,
    /// His place within the daily allowance; none for free accounts.
    pub quota: Option<QuotaHold>,
    _permit: Permit,
}

/// When the daily allowance is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Funds {
    /// At once.
    Now,
    /// When it is known whether the call is made at all.
    Later,
}

impl Entry {
    /// One of the chute's instances.
    pub(super) fn target(&self, instance: InstanceId) -> Option<Arc<Target>> {
        self.route.instances.iter().find(|target| target.instance.id == instance).cloned()
    }
}

impl<I: Instances> Calls<I> {
    /// Asks everything that is asked about a caller and a chute; `unknown` is the answer where he sees none.
    ///
    /// # Errors
    /// When he may not, or not now.
    pub(super) async fn enter(
        &self,
        caller: &Caller,
        route: Option<&Arc<ChuteRoute>>,
        unknown: Refusal,
        stamp: &mut Stamp,
        funds: Funds,
    ) -> Result<Entry, Refusal> {
        let route = route.filter(|route| route.is_visible_to(caller.user.id)).ok_or(unknown)?;
        let chute = &route.chute;
        if !caller.may_invoke(chute.id) {
            return Err(Refusal::OutOfScope);
        }
        if chute.maintenance {
            return Err(Refusal::Maintenance);
        }
        let permit = self.limits.take(&caller.user, chute).await?;
        stamp.standing = permit.standing();
        let quota = match funds {
            Funds::Now => self.quota.check(&caller.user, chute.id, self.clock.now()).await?,
            Funds::Later => None,
        };
        Ok(Entry { route: route.clone(), quota, _permit: permit })
    }
}

/// Whether everybody may know that this label names a chute.
pub(super) fn is_public(routes: &Routes, slug: &Slug) -> bool {
    routes.by_slug(slug.as_str()).is_some_and(|route| route.chute.public)
}
