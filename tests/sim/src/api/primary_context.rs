//! Primary contexts.

use crate::abi::error::{INVALID_VALUE, PRIMARY_CONTEXT_ACTIVE, R};
use crate::ffi::Out;
use crate::gate::{Call, INIT, driver};

/// Bits that cuDevicePrimaryCtxSetFlags knows.
const FLAGS: u32 = 0xff;

fn is_active(c: &mut Call, dev: i32) -> R<bool> {
    let ctx = c.device(dev)?.primary.ctx;
    Ok(c.contexts.get(ctx).is_some_and(|c| c.active))
}

fn set_flags(c: &mut Call, dev: i32, flags: u32, always: bool) -> R {
    if flags & !FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    if !always && is_active(c, dev)? {
        return Err(PRIMARY_CONTEXT_ACTIVE);
    }
    let ctx = {
        let primary = &mut c.device(dev)?.primary;
        primary.flags = flags;
        primary.ctx
    };
    if let Some(ctx) = c.contexts.get_mut(ctx) {
        ctx.flags = flags;
    }
    Ok(())
}

driver! {
    /// Makes the context on the first retain.
    [INIT] fn cuDevicePrimaryCtxRetain(out: Out<u64>, dev: i32) |c| {
        out.check()?;
        let ctx = c.retain_primary(dev)?;
        out.set(ctx)
    }

    /// The last release resets.
    [INIT] fn cuDevicePrimaryCtxRelease(dev: i32) |c| { c.release_primary(dev) }

    /// The same, since 11.0.
    [INIT] fn cuDevicePrimaryCtxRelease_v2(dev: i32) |c| { c.release_primary(dev) }

    /// Ends everything in it.
    [INIT] fn cuDevicePrimaryCtxReset(dev: i32) |c| { c.reset_primary(dev) }

    /// The same, since 11.0.
    [INIT] fn cuDevicePrimaryCtxReset_v2(dev: i32) |c| { c.reset_primary(dev) }

    /// Before 11.0: only while inactive.
    [INIT] fn cuDevicePrimaryCtxSetFlags(dev: i32, flags: u32) |c| { set_flags(c, dev, flags, false) }

    /// Since 11.0: at any time.
    [INIT] fn cuDevicePrimaryCtxSetFlags_v2(dev: i32, flags: u32) |c| { set_flags(c, dev, flags, true) }

    /// Flags, and whether it is active.
    [INIT] fn cuDevicePrimaryCtxGetState(dev: i32, flags: Out<u32>, active: Out<i32>) |c| {
        let is_active = is_active(c, dev)?;
        let value = c.device(dev)?.primary.flags;
        flags.set(value)?;
        active.set(i32::from(is_active))
    }
}
