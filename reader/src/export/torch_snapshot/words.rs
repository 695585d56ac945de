//! The texts that come again and again in a snapshot, each of which is written once and then referred to: by
//! number, since a segment alone has more than a dozen.

macro_rules! words {
    ($($word:ident $text:literal)*) => {
        /// A text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Word {
            $($word),*
        }

        impl Word {
            /// How many there are.
            pub const COUNT: usize = [$(Word::$word),*].len();

            /// As it is written.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Word::$word => $text),*
                }
            }
        }
    };
}

words! {
    Action "action"
    Addr "addr"
    DeviceFree "device_free"
    Size "size"
    Stream "stream"
    TimeUs "time_us"
    Frames "frames"
    Name "name"
    Filename "filename"
    Line "line"
    Device "device"
    Address "address"
    TotalSize "total_size"
    AllocatedSize "allocated_size"
    ActiveSize "active_size"
    RequestedSize "requested_size"
    SegmentType "segment_type"
    Small "small"
    Large "large"
    SegmentPoolId "segment_pool_id"
    IsExpandable "is_expandable"
    Blocks "blocks"
    State "state"
    ActiveAllocated "active_allocated"
    Inactive "inactive"
    DeviceTraces "device_traces"
    Segments "segments"
    AllocatorSettings "allocator_settings"
    Alloc "alloc"
    FreeRequested "free_requested"
    FreeCompleted "free_completed"
    SegmentAlloc "segment_alloc"
    SegmentFree "segment_free"
    SegmentMap "segment_map"
    SegmentUnmap "segment_unmap"
    Oom "oom"
}
