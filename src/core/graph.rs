//! Who comes before whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::{Id, ServicePlan};

/// Start order and reverse dependencies of one plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    /// Dependencies first, then lower priority numbers, then ids.
    pub order: Vec<Id>,
    /// Who names this service as a dependency.
    dependents: BTreeMap<Id, Vec<Id>>,
}

impl Graph {
    /// Kahn's algorithm. A cycle, which a checked plan does not have, is cut at its lowest (priority, id).
    pub fn new<'a>(services: impl Iterator<Item = &'a Arc<ServicePlan>>) -> Self {
        let plans: BTreeMap<&Id, &ServicePlan> = services.map(|plan| (&plan.id, plan.as_ref())).collect();
        let mut dependents: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        let mut missing: BTreeMap<&Id, usize> = BTreeMap::new();
        for plan in plans.values() {
            let known = plan.dependencies.iter().filter(|d| plans.contains_key(&d.service));
            missing.insert(&plan.id, known.clone().count());
            for dependency in known {
                dependents.entry(dependency.service.clone()).or_default().push(plan.id.clone());
            }
        }
        let key = |id: &Id| plans.get(id).map(|plan| (plan.priority, id.clone()));
        let mut ready: BTreeSet<(i32, Id)> =
            missing.iter().filter(|(_, n)| **n == 0).filter_map(|(id, _)| key(id)).collect();
        let mut order = Vec::with_capacity(plans.len());
        while let Some((priority, id)) =
            ready.pop_first().or_else(|| missing.keys().filter_map(|id| key(id)).min())
        {
            let _ = priority;
            if missing.remove(&id).is_none() {
                continue;
            }
            for dependent in dependents.get(&id).into_iter().flatten() {
                if let Some(n) = missing.get_mut(dependent) {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        ready.extend(key(dependent));
                    }
                }
            }
            order.push(id);
        }
        Self { order, dependents }
    }

    /// Services that name `id` as a dependency.
    pub fn dependents(&self, id: &Id) -> &[Id] {
        self.dependents.get(id).map_or(&[], Vec::as_slice)
    }
}
