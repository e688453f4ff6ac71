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
            if current && let Some(service) = self.touch(&id) {
                service.usage = Some(sample);
            }
        }
    }
}
