//! The indexes of one snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use protocol::directory::{Chute, Directory, Instance, Template};
use protocol::ids::{ChuteId, InstanceId, UserId};
use protocol::sealing::{DirectoryKey, InstanceKey};

use crate::llm;

/// Everything a call is routed by.
#[derive(Default)]
pub struct Routes {
    by_id: HashMap<ChuteId, Arc<ChuteRoute>>,
    by_slug: HashMap<String, Arc<ChuteRoute>>,
    /// Chutes of one template and name: official ones first, then those called most.
    by_name: HashMap<(Template, String), Vec<Arc<ChuteRoute>>>,
    /// The body of the model list, made once per snapshot.
    model_list: Bytes,
    aliases: BTreeMap<String, String>,
    instances: HashSet<InstanceId>,
    unopened: usize,
}

/// One chute and where it runs.
pub struct ChuteRoute {
    /// The chute as control describes it.
    pub chute: Chute,
    /// Its instances, without those whose key cannot be opened.
    pub instances: Vec<Arc<Target>>,
    official: bool,
}

/// One instance, ready to be called.
pub struct Target {
    /// The instance as control describes it.
    pub instance: Instance,
    /// Its key.
    pub key: InstanceKey,
}

impl Routes {
    /// Indexes a directory. Chutes and instances that are as they were keep their place in memory.
    #[must_use]
    pub fn build(directory: Directory, key: &DirectoryKey, previous: Option<&Self>) -> Self {
        let official: HashSet<UserId> = directory.official_users.iter().copied().collect();
        let model_list = llm::models(&directory.chutes, &directory.official_users);
        let mut routes = Self { aliases: directory.aliases, model_list, ..Self::default() };
        for chute in directory.chutes {
            let official = official.contains(&chute.owner);
            let old = previous.and_then(|previous| previous.by_id.get(&chute.id));
            let route = match old {
                Some(old) if old.chute == chute && old.official == official => Arc::clone(old),
                Some(_) | None => Arc::new(ChuteRoute::open(chute, official, key, old.map(AsRef::as_ref))),
            };
            routes.add(route);
        }
        for routes in routes.by_name.values_mut() {
            routes.sort_by_key(|route| (!route.official, route.popularity()));
        }
        routes
    }

    /// The chute with this identifier.
    #[must_use]
    pub fn by_id(&self, id: ChuteId) -> Option<&Arc<ChuteRoute>> {
        self.by_id.get(&id)
    }

    /// The chute with this label.
    #[must_use]
    pub fn by_slug(&self, slug: &str) -> Option<&Arc<ChuteRoute>> {
        self.by_slug.get(slug)
    }

    /// The chute of a façade that this user means by a name or its alias: an official one before others.
    #[must_use]
    pub fn by_name(&self, template: Template, name: &str, user: UserId) -> Option<&Arc<ChuteRoute>> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        let routes = self.by_name.get(&(template, name.to_owned()))?;
        routes.iter().find(|route| route.is_visible_to(user))
    }

    /// The body of the public model list.
    #[must_use]
    pub fn model_list(&self) -> Bytes {
        self.model_list.clone()
    }

    /// Whether this chute is there.
    #[must_use]
    pub fn has_chute(&self, id: ChuteId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether this instance is one that calls may go to.
    #[must_use]
    pub fn has_instance(&self, id: InstanceId) -> bool {
        self.instances.contains(&id)
    }

    /// Number of instances left out because their key cannot be opened.
    #[must_use]
    pub fn unopened(&self) -> usize {
        self.unopened
    }

    fn add(&mut self, route: Arc<ChuteRoute>) {
        let chute = &route.chute;
        self.unopened += chute.instances.len() - route.instances.len();
        self.instances.extend(route.instances.iter().map(|target| target.instance.id));
        self.by_slug.insert(chute.slug.as_str().to_owned(), Arc::clone(&route));
        if let Some(template) = chute.template {
            self.by_name.entry((template, chute.name.clone())).or_default().push(Arc::clone(&route));
        }
        self.by_id.insert(chute.id, route);
    }
}

impl ChuteRoute {
    /// Whether this user may know of it and call it.
    #[must_use]
    pub fn is_visible_to(&self, user: UserId) -> bool {
        self.chute.public || self.chute.owner == user || self.chute.shares.contains(&user)
    }

    fn open(chute: Chute, official: bool, key: &DirectoryKey, old: Option<&Self>) -> Self {
        let old: HashMap<InstanceId, &Arc<Target>> =
            old.into_iter().flat_map(|old| &old.instances).map(|target| (target.instance.id, target)).collect();
        let instances = chute.instances.iter().filter_map(|instance| {
            if let Some(target) = old.get(&instance.id).filter(|target| target.instance == *instance) {
                return Some(Arc::clone(target));
            }
            match key.open(&instance.key, instance.id, instance.version) {
                Ok(key) => Some(Arc::new(Target { instance: instance.clone(), key })),
                Err(error) => {
                    tracing::warn!(instance.id = %instance.id, chute.id = %chute.id, %error, "left an instance out");
                    None
                }
            }
        });
        let instances = instances.collect();
        Self { chute, instances, official }
    }

    /// Sorts those called most first; the identifier makes it the same on every gateway.
    fn popularity(&self) -> (std::cmp::Reverse<u64>, ChuteId) {
        (std::cmp::Reverse(self.chute.invocations), self.chute.id)
    }
}

#[cfg(test)]
mod tests;
