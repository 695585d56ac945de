//! What a process's first context takes of a device.
//!
//! Measured, it is what the device used once the context was there, less what others used of that. On a card that
//! others use, too, that is true only by chance: others come and go, and while two contexts are made at once the
//! driver holds memory for them that it gives back within seconds (H100, driver 580: 1,281 MiB where 518 stay;
//! NVML counts it to the process, too). What stays can't be more than what the process's number ever left
//! unexplained by everything else, so there the least of that is believed where the two contradict each other.
//! Of a process that was never seen beside another one the measurement is believed.

/// More than this of a device that is not the process's is not the driver's alone: another process is
/// there. The driver counts some 9 MiB to nobody (H100, driver 580).
const ANOTHER: u64 = 64 << 20;
/// So many bytes apart contradict each other.
const APART: u64 = 8 << 20;

/// Whether so many bytes that are not the process's are another process's.
pub fn is_another(others: u64) -> bool {
    others > ANOTHER
}

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Bytes that the device used when the context was there, by whomever.
    pub used_at_start: u64,
    /// Bytes of the device that are not the process's, where that is known.
    pub others: Option<u64>,
    /// The least that the process's number was more than everything else that is known, where there are
    /// numbers of it and another process was seen on the device.
    pub left: Option<i64>,
}

impl Known {
    /// Bytes as measured: less only where others' part is known.
    fn measured(&self) -> i64 {
        signed(self.used_at_start).saturating_sub(self.others.map_or(0, signed))
    }

    /// What was left, if it is to be believed rather than what was measured.
    pub fn contradicted(&self) -> Option<i64> {
        let left = self.left?;
        let others = self.others?;
        let measured = self.measured();
        let apart = measured.abs_diff(left) > APART;
        // More than was measured can be anything, unless others who came since make that too little.
        (apart && (left < measured || is_another(others))).then_some(left)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> i64 {
        self.contradicted().unwrap_or_else(|| self.measured())
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Known;

    const MIB: u64 = 1 << 20;

    fn known(used: u64, others: u64, left: i64) -> Known {
        Known {
            used_at_start: used * MIB,
            others: Some(others * MIB),
            left: Some(left * MIB as i64),
        }
    }

    #[test]
    fn a_process_alone_is_measured() {
        // What nobody explains stays unexplained.
        assert_eq!(known(527, 9, 600).bytes(), 518 * MIB as i64);
        assert_eq!(known(527, 9, 513).bytes(), 518 * MIB as i64);
    }

    #[test]
    fn of_a_process_never_seen_beside_others_the_measurement_is_believed() {
        let alone = Known {
            left: None,
            ..known(527, 9, 430)
        };
        assert_eq!(alone.bytes(), 518 * MIB as i64);
    }

    #[test]
    fn what_was_given_back_is_not_the_contexts() {
        assert_eq!(known(1290, 9, 518).bytes(), 518 * MIB as i64);
        assert_eq!(known(1800, 527, 518).bytes(), 518 * MIB as i64);
    }

    #[test]
    fn others_who_came_or_went_are_not_the_processs() {
        // Came: more is others' now than all that was in use then.
        assert_eq!(known(527, 3000, 518).bytes(), 518 * MIB as i64);
        // Went.
        assert_eq!(known(3000, 9, 518).bytes(), 518 * MIB as i64);
    }

    #[test]
    fn without_a_number_it_is_all_that_was_in_use() {
        let unknown = Known {
            used_at_start: 700 * MIB,
            ..Known::default()
        };
        assert_eq!(unknown.bytes(), 700 * MIB as i64);
        assert_eq!(unknown.contradicted(), None);
    }
}
