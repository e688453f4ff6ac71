//! What services use, against their limits.

use super::*;
use crate::core::event::InvocationId;
use crate::core::sample::Sample;

impl Engine {
    /// Takes in a round of measuring; figures of an older run are dropped.
    pub(super) fn sampled(&mut self, samples: BTreeMap<Id, (InvocationId, Sample)>) {
        for (id, (invocation, sample)) in samples {
            let current =
                self.services.get(&id).is_some_and(|s| s.invocation == Some(invocation) && s.is_active());
            if current {
                self.measured(&id, invocation, sample);
            }
        }
    }

    fn measured(&mut self, id: &Id, run: InvocationId, sample: Sample) {
        let now = self.now.mono;
        let Some(service) = self.touch(id) else { return };
        service.usage = Some(sample);
        let plan = Arc::clone(&service.plan);
        for crossing in service.strain.take(&plan, run, &sample, now) {
            let level = if crossing.high { Level::Warning } else { Level::Info };
            let details = [("resource", crossing.kind.as_str().into()), ("near_limit", crossing.high.into())];
            let message = format!("{id}: {}", crossing.words);
            self.record(id, EntryKind::ResourceLimit, level, message, details);
        }
    }
}
