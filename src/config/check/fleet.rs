//! What only shows between services: groups, dependencies, cycles, ports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::service::exec_hash;
use super::{Context, ids, limits};
use crate::config::place::At;
use crate::config::raw;
use crate::core::plan::{GroupPlan, Id, ServicePlan};
use crate::spelling::nearest;

/// A service of one of the files.
pub(in crate::config) struct Entry<'d> {
    pub at: At<'d>,
    pub plan: ServicePlan,
}

/// All services that are known, also those whose own text is wrong.
pub(in crate::config) struct Fleet<'d> {
    pub services: BTreeMap<Id, Entry<'d>>,
    pub groups: BTreeMap<Id, (At<'d>, raw::Group)>,
    /// Ids that stand in a file whether or not their service can be used.
    pub named: BTreeSet<String>,
    /// Whether every file could be read, so that an id that is not named is not there.
    pub complete: bool,
}

type Checked = (BTreeMap<Id, Arc<ServicePlan>>, BTreeMap<Id, GroupPlan>);

impl Fleet<'_> {
    /// Runs all checks and gives the services and groups of the plan.
    pub(in crate::config) fn check(mut self, ctx: &mut Context<'_>) -> Checked {
        let groups = self.join_groups(ctx);
        self.unknown_dependencies(ctx);
        self.disabled_dependencies(ctx);
        self.cycles(ctx);
        self.ports(ctx);
        let finish = |(id, entry): (Id, Entry<'_>)| {
            let mut plan = entry.plan;
            plan.exec_hash = exec_hash(&plan.exec, plan.groups.first());
            (id, Arc::new(plan))
        };
        (self.services.into_iter().map(finish).collect(), groups)
    }

    /// Joins both ways to say that a service is in a group.
    fn join_groups(&mut self, ctx: &mut Context<'_>) -> BTreeMap<Id, GroupPlan> {
        let mut plans = BTreeMap::new();
        for (group, (at, raw)) in &self.groups {
            for (index, service) in ids(&raw.services).into_iter().enumerate() {
                let services_at = at.key("services");
                let at = services_at.index(index);
                match self.services.get_mut(&service) {
                    Some(entry) if !entry.plan.groups.contains(group) => {
                        entry.plan.groups.push(group.clone())
                    }
                    Some(_) => {}
                    None if self.complete && !self.named.contains(service.as_str()) && ctx.report.room() => {
                        unknown(ctx, &at, &service, &self.named);
                    }
                    None => {}
                }
            }
            let l = &raw.resource_limits;
            let limits = limits(l.max_memory_mb, l.max_cpu_percent, l.max_tasks);
            plans.insert(group.clone(), GroupPlan { limits });
        }
        for entry in self.services.values() {
            for group in &entry.plan.groups {
                plans.entry(group.clone()).or_default();
            }
        }
        plans
    }

    fn unknown_dependencies(&self, ctx: &mut Context<'_>) {
        for entry in self.services.values().filter(|_| self.complete) {
            for on in &entry.plan.dependencies {
                if !self.named.contains(on.service.as_str()) && ctx.report.room() {
                    with_dependency(entry, &on.service, |at| unknown(ctx, at, &on.service, &self.named));
                }
            }
        }
    }

    /// Only a warning: a service that is switched off for an hour should not stop all others from being loaded.
    fn disabled_dependencies(&self, ctx: &mut Context<'_>) {
        for entry in self.services.values().filter(|e| e.plan.enabled) {
            for on in &entry.plan.dependencies {
                if self.services.get(&on.service).is_some_and(|e| !e.plan.enabled) {
                    let message = format!("{} waits for {}, which is not enabled", entry.plan.id, on.service);
                    let help = format!(
                        "it will not start until {0} is started; enable {0}, or remove the dependency",
                        on.service
                    );
                    with_dependency(entry, &on.service, |at| ctx.report.warn(at, message, help));
                }
            }
        }
    }

    /// Each knot of services that wait for each other is reported once, by a shortest cycle in it.
    fn cycles(&self, ctx: &mut Context<'_>) {
        let nodes: Vec<&Id> = self.services.keys().collect();
        let edges: Vec<Vec<usize>> = self
            .services
            .values()
            .map(|e| {
                e.plan.dependencies.iter().filter_map(|d| nodes.binary_search(&&d.service).ok()).collect()
            })
            .collect();
        for knot in knots(&edges) {
            let Some(&start) = knot.iter().min() else { continue };
            let cycle = shortest_cycle(start, &edges, &knot);
            let names: Vec<&str> = cycle.iter().chain([&start]).map(|&n| nodes[n].as_str()).collect();
            let Some(entry) = self.services.get(nodes[start]) else { continue };
            let next = cycle.get(1).map_or(nodes[start], |&n| nodes[n]);
            let message = format!("services wait for each other: {}", names.join(" -> "));
            let help = "none of them could ever start; remove one of these dependencies";
            with_dependency(entry, next, |at| ctx.report.error(at, message, help));
        }
    }

    fn ports(&self, ctx: &mut Context<'_>) {
        let mut owners: BTreeMap<u16, &Entry<'_>> = BTreeMap::new();
        // In the order of the files, so that the second one is the one that is reported.
        let mut entries: Vec<_> = self.services.values().filter(|e| e.plan.enabled).collect();
        entries.sort_by(|a, b| (&a.at.doc.file, a.at.key_offset()).cmp(&(&b.at.doc.file, b.at.key_offset())));
        for entry in entries {
            let Some(port) = entry.plan.port else { continue };
            let Some(first) = owners.get(&port) else {
                owners.insert(port, entry);
                continue;
            };
            let check = entry.at.key("health_check");
            let places = [entry.at.key("port"), check.key("port"), check.key("endpoint")];
            let place = places.iter().find(|at| at.node().is_some()).unwrap_or(&entry.at);
            let message = format!("port {port} is taken by {}", first.plan.id);
            let help =
                "give each its own port; a service that only asks another's port says so with \"port\": 0";
            ctx.report.error(place, message, help);
        }
    }
}

fn unknown(ctx: &mut Context<'_>, at: &At<'_>, service: &Id, named: &BTreeSet<String>) {
    let help = match nearest(service.as_str(), named.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "name a service of this configuration, or add it".into(),
    };
    ctx.report.error(at, format!("there is no service \"{service}\""), help);
}

/// Finds the place where a service names this dependency.
fn with_dependency(entry: &Entry<'_>, on: &Id, see: impl FnOnce(&At<'_>)) {
    use crate::config::json::Value;
    let list_at = entry.at.key("dependencies");
    let Some(Value::List(list)) = list_at.node().map(|n| &n.value) else { return };
    for (index, node) in list.iter().enumerate() {
        let at = list_at.index(index);
        match (&node.value, node.member("service").map(|m| &m.value.value)) {
            (Value::Text(text), _) if text == on.as_str() => return see(&at),
            (_, Some(Value::Text(text))) if text == on.as_str() => return see(&at.key("service")),
            _ => {}
        }
    }
}

/// Sets of nodes that reach each other (Tarjan), without recursion: a chain of services may be long.
fn knots(edges: &[Vec<usize>]) -> Vec<BTreeSet<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; edges.len()];
    let mut low = vec![UNSEEN; edges.len()];
    let mut open = vec![false; edges.len()];
    let (mut stack, mut knots, mut count) = (Vec::new(), Vec::new(), 0);
    for root in 0..edges.len() {
        if order[root] != UNSEEN {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if *next == 0 {
                order[node] = count;
                low[node] = count;
                count += 1;
                open[node] = true;
                stack.push(node);
            }
            if let Some(&to) = edges[node].get(*next) {
                *next += 1;
                if order[to] == UNSEEN {
                    path.push((to, 0));
                } else if open[to] {
                    low[node] = low[node].min(order[to]);
                }
                continue;
            }
            path.pop();
            if let Some((up, _)) = path.last() {
                low[*up] = low[*up].min(low[node]);
            }
            if low[node] == order[node] {
                let start = stack.iter().rposition(|n| *n == node).unwrap_or(0);
                let knot: BTreeSet<usize> = stack.drain(start..).collect();
                knot.iter().for_each(|n| open[*n] = false);
                if knot.len() > 1 {
                    knots.push(knot);
                }
            }
        }
    }
    knots
}

/// The shortest way from a node back to itself inside its knot.
fn shortest_cycle(start: usize, edges: &[Vec<usize>], knot: &BTreeSet<usize>) -> Vec<usize> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &to in edges[node].iter().filter(|to| knot.contains(to)) {
            if to == start {
                let mut cycle = vec![node];
                let mut at = node;
                while at != start {
                    let Some(&before) = from.get(&at) else { break };
                    cycle.push(before);
                    at = before;
                }
                cycle.reverse();
                return cycle;
            }
            if let std::collections::btree_map::Entry::Vacant(slot) = from.entry(to) {
                slot.insert(node);
                queue.push_back(to);
            }
        }
    }
    vec![start]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn knots_are_what_reaches_each_other(
            edges in prop::collection::vec(prop::collection::vec(0usize..12, 0..4), 12)
        ) {
            let mut reach: Vec<BTreeSet<usize>> = edges.iter().map(|to| to.iter().copied().collect()).collect();
            for _ in 0..12 {
                let before = reach.clone();
                for set in &mut reach {
                    let further: Vec<usize> = set.iter().flat_map(|n| before[*n].iter().copied()).collect();
                    set.extend(further);
                }
            }
            let knots = knots(&edges);
            for (a, b) in (0..12).flat_map(|a| (0..a).map(move |b| (a, b))) {
                let together = knots.iter().any(|k| k.contains(&a) && k.contains(&b));
                prop_assert_eq!(together, reach[a].contains(&b) && reach[b].contains(&a));
            }
            for knot in &knots {
                let start = *knot.first().unwrap();
                let cycle = shortest_cycle(start, &edges, knot);
                prop_assert_eq!(cycle[0], start);
                for (n, from) in cycle.iter().enumerate() {
                    prop_assert!(edges[*from].contains(&cycle[(n + 1) % cycle.len()]));
                }
            }
        }
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let mut edges: Vec<Vec<usize>> = (1..300_000).map(|n| vec![n]).collect();
        edges.push(vec![]);
        assert!(knots(&edges).is_empty());
        edges[299_999].push(0);
        assert_eq!(knots(&edges).len(), 1);
    }
}
