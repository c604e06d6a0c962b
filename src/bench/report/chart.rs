//! Curves and bars as SVG, drawn with the page's own colours.
//!
//! It knows nothing of loads: points, names and axes go in.

use maud::{Markup, PreEscaped, html};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;

/// Points of one kind, joined in their order.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// CSS class, which has the colour.
    pub(super) class: &'a str,
    /// x, y, and what the mouse shows.
    pub(super) points: Vec<(f64, f64, String)>,
}

/// A vertical line with a name.
pub(super) struct Mark<'a> {
    pub(super) x: f64,
    pub(super) name: &'a str,
}

/// x from 0 upwards, y by powers of ten.
pub(super) fn curves(series: &[Series<'_>], mark: Option<&Mark<'_>>, axes: [&str; 2]) -> Markup {
    let values = |axis: fn(&(f64, f64, String)) -> f64| {
        series.iter().flat_map(|series| &series.points).map(axis).collect::<Vec<_>>()
    };
    let (xs, ys) = (values(|point| point.0), values(|point| point.1));
    let right = xs.iter().copied().chain(mark.map(|mark| mark.x)).fold(0.0, f64::max) * 1.05;
    let low = ys.iter().copied().fold(f64::INFINITY, f64::min).max(1e-3);
    let high = ys.iter().copied().fold(low, f64::max);
    if right <= 0.0 || !low.is_finite() {
        return html! { p { "Nothing was answered." } };
    }
    let decades = decades(low, high);
    let (bottom, top) = (decades[0].log10(), decades[decades.len() - 1].log10());
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / right;
    let y =
        |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value.log10() - bottom) / (top - bottom);
    let [x_name, y_name] = axes;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" {
            @for tick in decades {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at(y(tick))) y2=(at(y(tick))) {}
                text.tick x=(LEFT - 8.0) y=(at(y(tick) + 4.0)) text-anchor="end" { (tick) }
            }
            @for tick in ticks(right) {
                text.tick x=(at(x(tick))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (tick) }
            }
            line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
            text.name x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (x_name) }
            text.name x="14" y=(HEIGHT / 2.0) text-anchor="middle"
                transform=(format!("rotate(-90 14 {})", HEIGHT / 2.0)) { (y_name) }
            @if let Some(Mark { x: value, name }) = mark {
                line.mark x1=(at(x(*value))) x2=(at(x(*value))) y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                text.tick x=(at(x(*value) - 6.0)) y=(TOP + 10.0) text-anchor="end" { (name) }
            }
            @for Series { name, class, points } in series {
                g class=(class) {
                    polyline points=(points.iter().map(|(px, py, _)| format!("{},{} ", at(x(*px)), at(y(*py))))
                        .collect::<String>()) {}
                    @for (px, py, shown) in points {
                        circle cx=(at(x(*px))) cy=(at(y(*py))) r="4" { title { (shown) } }
                    }
                    @if let Some((px, py, _)) = points.last() {
                        text.series x=(at(x(*px) + 10.0)) y=(at(y(*py) + 4.0)) { (name) }
                    }
                }
            }
        }
    }
}

const BAR: f64 = 26.0;
const BARS_HEIGHT: f64 = 90.0;

/// Shares of a whole, each with its name.
pub(super) fn bars(shares: &[(String, f64)]) -> Markup {
    let width = BAR * shares.len().max(1) as f64;
    html! {
        svg.bars width=(width) height=(BARS_HEIGHT + 34.0) role="img" {
            @for (index, (name, share)) in shares.iter().enumerate() {
                @let (left, height) = (BAR * index as f64, BARS_HEIGHT * share);
                rect x=(left + 2.0) y=(at(BARS_HEIGHT - height + 14.0)) width=(BAR - 4.0) height=(at(height)) rx="2" {
                    title { (format!("{name} rows: {:.1} % of the batches", share * 100.0)) }
                }
                @if *share >= 0.005 {
                    text.tick x=(left + BAR / 2.0) y=(at(BARS_HEIGHT - height + 10.0)) text-anchor="middle" {
                        (format!("{:.0}", share * 100.0))
                    }
                }
                text.tick x=(left + BAR / 2.0) y=(BARS_HEIGHT + 28.0) text-anchor="middle" {
                    (name.split('-').next_back().unwrap_or(name))
                }
            }
        }
    }
}

/// A part of a whole.
pub(super) fn gauge(share: f64) -> Markup {
    let width = |share: f64| format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
    html! {
        svg.gauge width="100%" height="18" role="img" {
            rect.whole width="100%" height="18" rx="4" {}
            rect.part width=(width(share)) height="18" rx="4" {}
        }
    }
}

/// The bundled style, which gives the classes their colours in light and dark.
pub(super) fn style() -> PreEscaped<&'static str> {
    PreEscaped(include_str!("page.css"))
}

/// A tenth of a pixel is enough.
fn at(value: f64) -> String {
    format!("{value:.1}")
}

/// Numbers that begin with 1, 2 or 5, from the last that is not above `low` to the first that is not below
/// `high`; powers of ten alone where that would be many.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high > low * 1000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let exponents = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all: Vec<f64> =
        exponents.flat_map(|exponent| steps.iter().map(move |step| step * 10_f64.powi(exponent))).collect();
    let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1);
    all[first..=last.max(first + 1)].to_vec()
}

/// Five to ten round numbers from 0 to below `end`.
fn ticks(end: f64) -> Vec<f64> {
    let decade = 10_f64.powf((end / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0].map(|step| step * decade).into_iter().rfind(|step| end / step >= 5.0);
    let step = step.unwrap_or(decade);
    (0..=(end / step) as u32).map(|tick| f64::from(tick) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round() {
        let check = |end: f64, step: f64| {
            let ticks = ticks(end);
            assert!((5..=11).contains(&ticks.len()), "{end}: {ticks:?}");
            assert!((ticks[1] / step - 1.0).abs() < 1e-9, "{end}: {ticks:?}");
        };
        check(10.0, 2.0);
        check(99.0, 10.0);
        check(731.0, 100.0);
        check(0.7, 0.1);
    }

    #[test]
    fn decades_enclose_their_values() {
        assert_eq!(decades(1.5, 9.0), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(decades(43.0, 967.0), [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(decades(2.0, 2.0), [2.0, 5.0]);
        assert_eq!(decades(1.0, 1.0), [1.0, 2.0]);
        assert_eq!(decades(3.0, 5000.0), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
    }
}
