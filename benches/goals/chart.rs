//! Charts as SVG, readable on light and dark grounds.

use std::fmt::Write as _;

use crate::account::PassCost;
use crate::first::FirstSync;
use crate::meter::Table;

const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.h{font-weight:600;font-size:15px}\
.m{fill:#57606a}.ax{stroke:#8c959f;stroke-width:1}.g{stroke:#d0d7de;stroke-width:1}.a{fill:#0969da}.b{fill:#8c959f}\
.c{fill:#cf222e}.la{stroke:#0969da}.lb{stroke:#1a7f37}.lc{stroke:#9a6700}.l{fill:none;stroke-width:2}\
.limit{stroke:#cf222e;stroke-width:1.5;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#3d444d}.a{fill:#4493f8}.b{fill:#656c76}\
.c{fill:#f85149}.la{stroke:#4493f8}.lb{stroke:#3fb950}.lc{stroke:#d29922}.limit{stroke:#f85149}}</style>";

fn open(width: u32, height: u32, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\
         {STYLE}<text class=\"h\" x=\"16\" y=\"26\">{title}</text>"
    )
}

/// How much of each goal is used up: a bar that ends before the dashed line reaches its goal. A goal of 0 has no shares.
pub(crate) fn goals(table: &Table) -> String {
    let share = |goal: f64, measured: f64| (goal > 0.0).then(|| measured / goal);
    let rows = table.rows.iter().filter_map(|row| Some((row, share(row.goal?, row.measured)?)));
    let rows: Vec<_> = rows.collect();
    let (left, scale, top) = (480.0, 200.0, 56.0);
    let height = top + 24.0 * rows.len() as f64 + 14.0;
    let mut out = open(870, height as u32, "Share of each goal that is used (shorter is better)");
    let limit = left + scale;
    let _ = write!(
        out,
        "<line class=\"limit\" x1=\"{limit}\" y1=\"{}\" x2=\"{limit}\" y2=\"{}\"/>",
        top - 8.0,
        height - 12.0
    );
    let _ = write!(
        out,
        "<text class=\"m\" x=\"{limit}\" y=\"{}\" text-anchor=\"middle\">goal</text>",
        top - 12.0
    );
    let mut group = "";
    for (n, (row, share)) in rows.iter().enumerate() {
        let y = top + 24.0 * n as f64;
        let label: String = match row.what.strip_prefix("– ") {
            Some(rest) => format!("{} – {rest}", group.split([':', ',']).next().unwrap_or("")),
            None => {
                group = &row.what;
                row.what.clone()
            }
        };
        let short: String =
            if label.chars().count() > 58 { label.chars().take(57).chain(['…']).collect() } else { label };
        let width = (share.min(1.6) * scale).max(1.0);
        let class = if *share <= 1.0 { "a" } else { "c" };
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{short}</text><rect class=\"{class}\" x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"15\" rx=\"2\"/>\
             <text class=\"m\" x=\"{:.1}\" y=\"{}\">{}</text>",
            left - 8.0,
            y + 12.0,
            left + width + 6.0,
            y + 12.0,
            row.unit.show(row.measured)
        );
    }
    out + "</svg>\n"
}

/// What one change costs, by the size of the account.
pub(crate) fn pass(costs: &[PassCost]) -> String {
    let (left, right, top, bottom) = (64.0, 620.0, 48.0, 270.0);
    type Of = fn(&PassCost) -> f64;
    let series: [(&str, &str, Of); 3] = [
        ("la", "pass of a flag", |cost| cost.flag_pass),
        ("lb", "pass of a move", |cost| cost.move_pass),
        ("lc", "a flag written and passed", |cost| cost.flag_write),
    ];
    let most = costs.iter().flat_map(|cost| series.iter().map(|(_, _, of)| of(cost))).fold(1.0, f64::max);
    let step = [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
        .into_iter()
        .find(|step| most / step <= 5.0)
        .unwrap_or(1000.0);
    let most = (most / step).ceil() * step;
    let first = costs.first().map_or(1.0, |cost| (cost.messages as f64).log10());
    let span = (costs.last().map_or(2.0, |cost| (cost.messages as f64).log10()) - first).max(0.1);
    let x = |cost: &PassCost| left + ((cost.messages as f64).log10() - first) / span * (right - left);
    let y = |value: f64| bottom - value / most * (bottom - top);
    let mut out = open(860, 320, "CPU of one change in an account of any size, µs");
    let mut tick = 0.0;
    while tick <= most {
        let _ = write!(
            out,
            "<line class=\"g\" x1=\"{left}\" y1=\"{0:.1}\" x2=\"{right}\" y2=\"{0:.1}\"/><text class=\"m\" x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{tick}</text>",
            y(tick),
            left - 8.0,
            y(tick) + 4.0
        );
        tick += step;
    }
    for cost in costs {
        let _ = write!(
            out,
            "<text class=\"m\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(cost),
            bottom + 20.0,
            cost.messages
        );
    }
    let _ = write!(
        out,
        "<text class=\"m\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">messages in the account</text>",
        bottom + 40.0
    );
    for (class, label, of) in series {
        let points: Vec<String> =
            costs.iter().map(|cost| format!("{:.1},{:.1}", x(cost), y(of(cost)))).collect();
        let _ = write!(out, "<polyline class=\"l {class}\" points=\"{}\"/>", points.join(" "));
        if let Some(last) = costs.last() {
            let _ = write!(out, "<text x=\"{}\" y=\"{:.1}\">{label}</text>", right + 10.0, y(of(last)) + 4.0);
        }
    }
    out + "</svg>\n"
}

/// First sync beside rsync.
pub(crate) fn first_sync(sync: &FirstSync) -> String {
    let mut out = open(620, 190, "First sync of a mailbox");
    let rsync = sync.rsync.unwrap_or((0.0, 0.0));
    let groups = [
        ("CPU of both ends, µs a message", sync.ours.0, rsync.0, 1),
        ("bytes on the wire, % of the raw mail", sync.ours.1 * 100.0, rsync.1 * 100.0, 1),
    ];
    let mut y = 50.0;
    for (label, ours, theirs, digits) in groups {
        let most = ours.max(theirs).max(1e-9);
        let _ = write!(out, "<text class=\"m\" x=\"16\" y=\"{y}\">{label}</text>");
        for (class, who, value) in [("a", "postmerge", ours), ("b", "rsync -az", theirs)] {
            y += 22.0;
            let width = value / most * 400.0;
            let _ = write!(
                out,
                "<text x=\"100\" y=\"{}\" text-anchor=\"end\">{who}</text><rect class=\"{class}\" x=\"108\" y=\"{}\" width=\"{width:.1}\" height=\"15\" rx=\"2\"/>\
                 <text class=\"m\" x=\"{:.1}\" y=\"{}\">{value:.digits$}</text>",
                y,
                y - 12.0,
                114.0 + width,
                y
            );
        }
        y += 28.0;
    }
    out + "</svg>\n"
}
