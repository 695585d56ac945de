//! Numbers of Perfetto's protobufs (`protos/perfetto/trace/` in its repository), as far as they are
//! written here. scripts/check-exports compares what comes out with the published descriptors.

/// Clocks; packets without one are on the first.
pub const BOOTTIME: u64 = 6;
pub const REALTIME: u64 = 1;

/// `CounterDescriptor.Unit.UNIT_SIZE_BYTES`.
pub const UNIT_BYTES: u64 = 3;

pub mod field {
    pub mod packet {
        pub const CLOCK_SNAPSHOT: u32 = 6;
        pub const TIMESTAMP: u32 = 8;
        pub const SEQUENCE_ID: u32 = 10;
        pub const TRACK_EVENT: u32 = 11;
        pub const INTERNED_DATA: u32 = 12;
        pub const SEQUENCE_FLAGS: u32 = 13;
        pub const TRACK_DESCRIPTOR: u32 = 60;
    }

    pub mod clock_snapshot {
        pub const CLOCKS: u32 = 1;
    }

    pub mod clock {
        pub const CLOCK_ID: u32 = 1;
        pub const TIMESTAMP: u32 = 2;
    }

    pub mod track {
        pub const UUID: u32 = 1;
        pub const NAME: u32 = 2;
        pub const PROCESS: u32 = 3;
        pub const PARENT_UUID: u32 = 5;
        pub const COUNTER: u32 = 8;
    }

    pub mod process {
        pub const PID: u32 = 1;
        pub const NAME: u32 = 6;
    }

    pub mod counter {
        pub const UNIT: u32 = 3;
    }

    pub mod event {
        pub const CATEGORY_IIDS: u32 = 3;
        pub const DEBUG_ANNOTATIONS: u32 = 4;
        pub const TYPE: u32 = 9;
        pub const NAME_IID: u32 = 10;
        pub const TRACK_UUID: u32 = 11;
        pub const COUNTER_VALUE: u32 = 30;
        pub const CALLSTACK_IID: u32 = 56;
    }

    pub mod annotation {
        pub const NAME_IID: u32 = 1;
        pub const UINT_VALUE: u32 = 3;
        pub const POINTER_VALUE: u32 = 7;
        pub const STRING_VALUE_IID: u32 = 17;
    }

    pub mod interned {
        pub const EVENT_CATEGORIES: u32 = 1;
        pub const EVENT_NAMES: u32 = 2;
        pub const DEBUG_ANNOTATION_NAMES: u32 = 3;
        pub const FUNCTION_NAMES: u32 = 5;
        pub const FRAMES: u32 = 6;
        pub const CALLSTACKS: u32 = 7;
        pub const MAPPING_PATHS: u32 = 17;
        pub const SOURCE_PATHS: u32 = 18;
        pub const MAPPINGS: u32 = 19;
        pub const DEBUG_ANNOTATION_STRING_VALUES: u32 = 29;
    }

    /// EventCategory, EventName, DebugAnnotationName and InternedString alike.
    pub mod name {
        pub const IID: u32 = 1;
        pub const TEXT: u32 = 2;
    }

    pub mod frame {
        pub const IID: u32 = 1;
        pub const FUNCTION_NAME_ID: u32 = 2;
        pub const MAPPING_ID: u32 = 3;
        pub const REL_PC: u32 = 4;
        pub const SOURCE_PATH_IID: u32 = 5;
        pub const LINE_NUMBER: u32 = 6;
    }

    pub mod callstack {
        pub const IID: u32 = 1;
        pub const FRAME_IDS: u32 = 2;
    }

    pub mod mapping {
        pub const IID: u32 = 1;
        pub const PATH_STRING_IDS: u32 = 7;
    }
}

/// What stands before a packet of so many bytes: `Trace.packet`, and its length.
pub fn packet_head(length: usize, head: &mut [u8; 11]) -> &[u8] {
    head[0] = 1 << 3 | 2;
    let mut at = 1;
    let mut rest = length;
    while rest >= 0x80 {
        head[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    head[at] = rest as u8;
    &head[..=at]
}
