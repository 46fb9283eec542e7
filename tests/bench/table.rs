//! What was measured, as medians and ratios; printed, and saved as Markdown and JSON.
use std::fs;

use serde_json::{Value, json};

/// The tables that the plot shows, by the beginning of their names.
const PLOTTED: [&str; 4] = [
    "Decode by SQL, orders",
    "Decode by pg_recvlogical, orders",
    "INSERT of",
    "Single-row updates, context by a setting",
];

/// One measurement of several peers.
pub struct Table {
    name: String,
    unit: &'static str,
    rows: Vec<(&'static str, Vec<f64>)>,
    /// Who is compared with whom.
    ratios: Vec<(&'static str, &'static str)>,
}

impl Table {
    pub fn new(name: String, unit: &'static str) -> Self {
        Self { name, unit, rows: Vec::new(), ratios: Vec::new() }
    }

    /// Adds a run of a peer.
    pub fn add(&mut self, peer: &'static str, value: f64) {
        match self.rows.iter_mut().find(|(name, _)| *name == peer) {
            Some((_, values)) => values.push(value),
            None => self.rows.push((peer, vec![value])),
        }
    }

    /// Has the ratios of a peer to others shown.
    pub fn compare(&mut self, peer: &'static str, others: &[&'static str]) {
        self.ratios.extend(others.iter().map(|other| (peer, *other)));
    }

    fn runs(&self, peer: &str) -> &[f64] {
        self.rows.iter().find(|(name, _)| *name == peer).map_or(&[], |(_, values)| values)
    }

    fn median(&self, peer: &str) -> f64 {
        median(self.runs(peer).to_vec())
    }

    /// Of the runs of two peers one beside the other, since a machine that is shared is fast for a while and slow for a
    /// while; of their medians if one of them has another number of runs.
    fn ratio(&self, peer: &str, other: &str) -> f64 {
        let (runs, others) = (self.runs(peer), self.runs(other));
        if runs.len() != others.len() {
            return self.median(peer) / self.median(other);
        }
        median(runs.iter().zip(others).map(|(run, other)| run / other).collect())
    }

    fn markdown(&self) -> String {
        let mut text =
            format!("### {}\n\n| | median, {} | least | most |\n| --- | ---: | ---: | ---: |\n", self.name, self.unit);
        for (peer, values) in &self.rows {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            text.push_str(&format!("| {peer} | {:.1} | {least:.1} | {most:.1} |\n", self.median(peer)));
        }
        text.push('\n');
        for (peer, other) in &self.ratios {
            text.push_str(&format!("- {peer} / {other}: **{:.2}**\n", self.ratio(peer, other)));
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(peer, values)| json!({"peer": peer, "median": self.median(peer), "runs": values}))
            .collect();
        let ratios: Vec<Value> = self
            .ratios
            .iter()
            .map(|(peer, other)| json!({"peer": peer, "to": other, "ratio": self.ratio(peer, other)}))
            .collect();
        json!({"name": self.name, "unit": self.unit, "rows": rows, "ratios": ratios})
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A plot of the medians: a bar for each peer, in light and dark as the reader's page is.
fn plot(tables: &[&Table]) -> String {
    const WIDTH: f64 = 430.0;
    let mut y = 8;
    let mut body = String::new();
    for table in tables {
        y += 22;
        body.push_str(&format!("<text class=\"t\" x=\"8\" y=\"{y}\">{}, {}</text>\n", table.name, table.unit));
        let most = table.rows.iter().map(|(peer, _)| table.median(peer)).fold(0.0, f64::max);
        for (peer, _) in &table.rows {
            let (median, class) = (table.median(peer), if peer.starts_with("bemi") { "b" } else { "p" });
            let width = (median / most * WIDTH).max(1.0);
            body.push_str(&format!(
                "<text x=\"8\" y=\"{}\">{peer}</text><rect class=\"{class}\" x=\"220\" y=\"{}\" width=\"{width:.0}\" height=\"13\"/><text x=\"{:.0}\" y=\"{}\">{median:.0}</text>\n",
                y + 20, y + 9, 226.0 + width, y + 20
            ));
            y += 18;
        }
        y += 14;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text{{fill:#1f2328}}.t{{font-weight:bold}}.b{{fill:#0969da}}.p{{fill:#afb8c1}}\n\
         @media (prefers-color-scheme: dark){{text{{fill:#e6edf3}}.b{{fill:#4493f8}}.p{{fill:#57606a}}}}</style>\n{body}</svg>\n"
    )
}

/// Prints the tables and saves them under `target/bench`.
pub fn save(tables: &[Table], runs: usize) {
    let text: Vec<String> = tables.iter().map(Table::markdown).collect();
    let text = format!(
        "Medians of {runs} runs, more of short ones; ratios are the medians of the ratios of runs side by side.\n\n{}",
        text.join("\n")
    );
    println!("{text}");
    let all: Vec<Value> = tables.iter().map(Table::json).collect();
    fs::create_dir_all("target/bench").unwrap();
    fs::write("target/bench/results.md", text).unwrap();
    fs::write("target/bench/results.json", serde_json::to_string_pretty(&all).unwrap()).unwrap();
    let shown: Vec<&Table> =
        tables.iter().filter(|table| PLOTTED.iter().any(|name| table.name.starts_with(name))).collect();
    fs::write("target/bench/results.svg", plot(&shown)).unwrap();
    println!("Saved as results.md, results.json and results.svg under target/bench.");
}
