//! The table: a row for what is measured, a column for who.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ours::NAME;

/// How a figure is written.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Seconds,
    Micros,
    Bytes,
    Megabytes,
    Share,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds if value >= 1.0 => format!("{value:.2} s"),
            Unit::Seconds if value >= 0.1 => format!("{:.0} ms", value * 1e3),
            Unit::Seconds => format!("{:.1} ms", value * 1e3),
            Unit::Micros => format!("{:.0} µs", value * 1e6),
            Unit::Bytes if value.abs() >= 1e6 => format!("{:.2} MB", value / 1e6),
            Unit::Bytes if value.abs() >= 10_000.0 => format!("{:.1} kB", value / 1e3),
            Unit::Bytes => format!("{value:.0} B"),
            Unit::Megabytes => format!("{value:.1} MB"),
            Unit::Share => format!("{value:.3}"),
        }
    }
}

/// What a figure of ours must not be above.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    Value(f64),
    /// The smallest of those that synchronize: rsync does not.
    Best,
    None,
}

struct Row {
    /// What it says more about, if it begins with a dash.
    of: &'static str,
    what: &'static str,
    unit: Unit,
    goal: Goal,
    figures: BTreeMap<String, f64>,
}

impl Row {
    /// What the goal comes to, as far as it is known.
    fn limit(&self) -> Option<f64> {
        match self.goal {
            Goal::Value(limit) => Some(limit),
            Goal::Best => {
                let theirs = self.figures.iter().filter(|(who, _)| *who != NAME && !who.starts_with("rsync"));
                theirs.map(|(_, figure)| *figure).min_by(f64::total_cmp)
            }
            Goal::None => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    who: Vec<String>,
    notes: Vec<String>,
    /// The last figure that did not begin with a dash.
    of: &'static str,
}

impl Table {
    /// A figure. Rows stand in the order in which they first come.
    pub(crate) fn figure(&mut self, who: &str, what: &'static str, unit: Unit, goal: Goal, figure: f64) {
        eprintln!("{who}: {what}: {}", unit.show(figure));
        if !self.who.iter().any(|known| known == who) {
            self.who.push(who.to_owned());
        }
        if !what.starts_with('–') {
            self.of = what;
        }
        let of = self.of;
        let at = self.rows.iter().position(|row| (row.of, row.what) == (of, what)).unwrap_or_else(|| {
            self.rows.push(Row { of, what, unit, goal, figures: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[at].figures.insert(who.to_owned(), figure);
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("| | goal | {} | reached |\n", self.who.join(" | "));
        let _ = writeln!(out, "|---|---|{}---|", "---|".repeat(self.who.len()));
        for row in &self.rows {
            let goal = match (row.goal, row.limit()) {
                (Goal::Value(limit), _) => format!("≤ {}", row.unit.show(limit)),
                (Goal::Best, _) => "≤ the best synchronizer's".to_owned(),
                (Goal::None, _) => "–".to_owned(),
            };
            let reached = match (row.figures.get(NAME), row.limit()) {
                (Some(ours), Some(limit)) if *ours <= limit => "yes",
                (Some(_), Some(_)) => "**no**",
                _ => "–",
            };
            let show =
                |who: &String| row.figures.get(who).map_or("–".to_owned(), |figure| row.unit.show(*figure));
            let figures: Vec<String> = self.who.iter().map(show).collect();
            let _ = writeln!(out, "| {} | {goal} | {} | {reached} |", row.what, figures.join(" | "));
        }
        for note in &self.notes {
            let _ = write!(out, "\n* {note}");
        }
        out.push('\n');
        out
    }
}
