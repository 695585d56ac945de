//! `vramtrace.growth/1`. What is the same as in `vramtrace.leaks/1` has the same name there.

use super::{Shown, common};
use crate::analysis::growth::{Course, Forecast, Known, Shape};
use crate::analysis::leaks::Placed;
use crate::report::age::AgeJson;
use crate::report::frames::ShownFrame;
use crate::report::head::HeadJson;
use crate::report::json::document;
use crate::report::leaks::Omitted;
use crate::report::place::PlaceJson;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    head: HeadJson<'a>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    /// Those that grow, fastest first, then all others, largest first.
    groups: Vec<GroupJson<'a>>,
    omitted: Omitted,
    shapes: BTreeMap<&'static str, ShapeJson>,
    forecasts: Vec<ForecastJson>,
    /// Frames that nearly all of what grows has come through, innermost first; null where there are none.
    common: Option<CommonJson<'a>>,
}

#[derive(Serialize)]
struct CommonJson<'a> {
    share: f64,
    groups: usize,
    frames: &'a [ShownFrame],
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(flatten)]
    place: PlaceJson<'a>,
    bytes: u64,
    count: u64,
    first_ns: u64,
    last_ns: u64,
    #[serde(flatten)]
    age: AgeJson,
    /// What it held over time; null where that is not known.
    course: Option<CourseJson>,
}

#[derive(Serialize)]
struct CourseJson {
    trend: &'static str,
    /// The share of pairs of points of which the later one holds more.
    rises: f64,
    /// By how many bytes a second what it holds at all times grows.
    slope: f64,
    slope_low: f64,
    slope_high: f64,
    from_ns: u64,
    to_ns: u64,
    /// How finely it is known from when on; 0: every change.
    resolution: Vec<ResolutionJson>,
    /// Equal parts of that time.
    points: Vec<PointJson>,
}

#[derive(Serialize)]
struct ResolutionJson {
    from_ns: u64,
    span_ns: u64,
}

#[derive(Serialize)]
struct PointJson {
    min: u64,
    max: u64,
    last: u64,
}

#[derive(Serialize)]
struct ShapeJson {
    groups: usize,
    bytes: u64,
    count: u64,
}

#[derive(Serialize)]
struct ForecastJson {
    process: usize,
    device: usize,
    slope: f64,
    free_bytes: u64,
    cached_bytes: u64,
    /// `asked`: by the driver's last answer; `size`: by the device's size alone.
    known_by: &'static str,
    full_in_ns: u64,
}

/// The document.
pub fn json(shown: &Shown<'_>) -> String {
    let found = shown.growths;
    let growing = found.growing.iter().zip(&shown.growing);
    let others = found.others.iter().zip(&shown.others);
    let shape = |(shape, (groups, sum)): (&Shape, &(usize, crate::analysis::Sum))| {
        let (groups, bytes, count) = (*groups, sum.bytes, sum.count);
        (
            shape.name(),
            ShapeJson {
                groups,
                bytes,
                count,
            },
        )
    };
    let groups: Vec<GroupJson<'_>> = growing
        .chain(others)
        .map(|(placed, stack)| of_group(shown, placed, stack))
        .collect();
    document(&Document {
        schema: "vramtrace.growth/1",
        head: HeadJson::of(&found.head, &shown.symbols),
        from: found.asked.from.as_deref(),
        to: found.asked.to.as_deref(),
        groups,
        omitted: Omitted::new(found.omitted.0, found.omitted.1),
        shapes: found.shapes.iter().map(shape).collect(),
        forecasts: found.forecasts.iter().map(forecast).collect(),
        common: common(shown).map(|common| CommonJson {
            share: common.share,
            groups: common.groups,
            frames: common.frames,
        }),
    })
}

fn of_group<'a>(shown: &Shown<'a>, placed: &'a Placed, stack: &'a [ShownFrame]) -> GroupJson<'a> {
    let group = &placed.group;
    let start = shown.growths.head.processes[placed.process].start_ns;
    GroupJson {
        place: PlaceJson::of(placed, stack),
        bytes: group.bytes,
        count: group.count,
        first_ns: group.first_ns,
        last_ns: group.last_ns,
        age: AgeJson::of(&group.age, start),
        course: group
            .course
            .as_deref()
            .map(|course| of_course(course, start)),
    }
}

fn of_course(course: &Course, start: u64) -> CourseJson {
    let unix = |time: u64| start.saturating_add(time);
    let resolution = course.resolution.iter();
    let points = course.spans.iter();
    CourseJson {
        trend: course.trend.name(),
        rises: course.rises,
        slope: course.slope.median,
        slope_low: course.slope.low,
        slope_high: course.slope.high,
        from_ns: unix(course.from),
        to_ns: unix(course.to),
        resolution: resolution
            .map(|part| ResolutionJson {
                from_ns: unix(part.from),
                span_ns: part.span_ns,
            })
            .collect(),
        points: points
            .map(|span| PointJson {
                min: span.min,
                max: span.max,
                last: span.last,
            })
            .collect(),
    }
}

fn forecast(forecast: &Forecast) -> ForecastJson {
    ForecastJson {
        process: forecast.process,
        device: forecast.device,
        slope: forecast.slope,
        free_bytes: forecast.room.free,
        cached_bytes: forecast.room.cached,
        known_by: match forecast.room.known {
            Known::Asked => "asked",
            Known::Size => "size",
        },
        full_in_ns: forecast.lasts_ns,
    }
}
