//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

/// What Prometheus may expect of a figure.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Rises, and begins anew when the program does.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A page that is being written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a figure; its samples follow.
    pub(super) fn figure(&mut self, name: &'static str, kind: Kind, help: &str) -> Figure<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes text");
        Figure { page: &mut self.0, name }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A figure that is being written.
pub(super) struct Figure<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Figure<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.page.push_str(self.name);
        for (place, (label, value)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            write!(self.page, "{before}{label}=\"{}\"", escaped(value)).expect("a string takes text");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        writeln!(self.page, "{end} {value}").expect("a string takes text");
    }
}

/// The value of a label, in which three characters mean something.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_their_figure_and_labels_are_escaped() {
        let mut page = Page::default();
        page.figure("a_total", Kind::Counter, "What a is.").sample(&[], 7);
        let mut b = page.figure("b", Kind::Gauge, "What b is.");
        b.sample(&[("peer", "a\"b\\c\nd"), ("x", "")], 0);
        b.sample(&[("peer", "東京")], 1);
        let expected = "# HELP a_total What a is.\n# TYPE a_total counter\na_total 7\n\
                        # HELP b What b is.\n# TYPE b gauge\n\
                        b{peer=\"a\\\"b\\\\c\\nd\",x=\"\"} 0\nb{peer=\"東京\"} 1\n";
        assert_eq!(page.into_text(), expected);
    }
}
