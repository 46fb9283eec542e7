//! What was measured, as medians and ratios; printed, and saved as Markdown and JSON.
use std::fs;

use serde_json::{Value, json};

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

    fn median(&self, peer: &str) -> f64 {
        let mut values =
            self.rows.iter().find(|(name, _)| *name == peer).map_or(Vec::new(), |(_, values)| values.clone());
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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
            text.push_str(&format!("- {peer} / {other}: **{:.2}**\n", self.median(peer) / self.median(other)));
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
            .map(|(peer, other)| json!({"peer": peer, "to": other, "ratio": self.median(peer) / self.median(other)}))
            .collect();
        json!({"name": self.name, "unit": self.unit, "rows": rows, "ratios": ratios})
    }
}

/// Prints the tables and saves them under `target/bench`.
pub fn save(tables: &[Table], runs: usize) {
    let text: Vec<String> = tables.iter().map(Table::markdown).collect();
    let text = format!("Medians of {runs} runs.\n\n{}", text.join("\n"));
    println!("{text}");
    let all: Vec<Value> = tables.iter().map(Table::json).collect();
    fs::create_dir_all("target/bench").unwrap();
    fs::write("target/bench/results.md", text).unwrap();
    fs::write("target/bench/results.json", serde_json::to_string_pretty(&all).unwrap()).unwrap();
    println!("Saved as target/bench/results.md and target/bench/results.json.");
}
