//! Every point at which the connection of one call can be cut, and a check that each of them was reached.

use std::fmt;

use crate::proxy::{Direction, Proxy};

/// Pieces of data of one call: more than any call has, connecting included. [`CutCoverage`] checks that.
const PIECES: i64 = 28;

/// What making a connection takes at least: a greeting and its answer, and the settings of the session.
const CONNECTING: usize = 6;

/// Where a call is to be cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutPoint {
    point: Direction,
    /// How many pieces pass before it.
    passing: i64,
    /// Whether the connection has to be made first.
    is_new: bool,
}

impl CutPoint {
    /// Cuts the next call off here. Call it just before that call.
    pub(crate) fn arm(self, proxy: &Proxy) {
        if self.is_new {
            proxy.cut();
        }
        proxy.cut_at(self.point, self.passing);
    }
}

impl fmt::Display for CutPoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = if self.is_new { "new" } else { "old" };
        write!(out, "{:?}-{}-{connection}", self.point, self.passing)
    }
}

/// Every cut at which a call can be cut off, over a connection that is there and over one that must be made first.
/// The last ones come after it has ended.
pub(crate) fn cut_points() -> impl Iterator<Item = CutPoint> {
    let ways = [false, true]
        .into_iter()
        .flat_map(|is_new| [Direction::Request, Direction::Reply].map(|point| (is_new, point)));
    ways.flat_map(|(is_new, point)| (0..PIECES).map(move |passing| CutPoint { point, passing, is_new }))
}

/// Which cut points were reached, to check that none was left out.
#[derive(Default)]
pub(crate) struct CutCoverage(Vec<bool>);

impl CutCoverage {
    /// Records whether the call was cut off at the next of [`cut_points`].
    pub(crate) fn record(&mut self, proxy: &Proxy) {
        self.0.push(proxy.was_cut());
    }

    /// Each request and each reply of a call was cut off once, and a call has at least `exchanges` of them. At the last
    /// points there was nothing left to cut off. In between, a call that needed more pieces than usual leaves holes.
    pub(crate) fn assert_complete(&self, exchanges: usize) {
        let ways: Vec<String> = self.0.chunks(PIECES as usize).map(show).collect();
        println!("{ways:?}");
        assert_eq!(ways.len(), 4);
        let new = exchanges + CONNECTING;
        for (way, least) in ways.iter().zip([exchanges, exchanges, new, new]) {
            assert!(
                way.starts_with(&"x".repeat(least)),
                "a call has {least} pieces at least: {way}"
            );
            assert!(way.ends_with(".."), "a call has more than {PIECES} pieces: {way}");
        }
    }
}

fn show(way: &[bool]) -> String {
    way.iter().map(|met| if *met { 'x' } else { '.' }).collect()
}
