//! Figures: samples of every scenario and proxy, as minimum, median and maximum, and as ratios of Heddle to each. Pure.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The product, in the first column of every ratio.
pub const HEDDLE: &str = "heddle";

/// One measured value of one round.
#[derive(Clone, Debug)]
pub struct Sample {
    /// For example `ingress/h1/100B/c32`.
    pub scenario: String,
    /// Which proxy.
    pub proxy: &'static str,
    /// For example `cpu_us_per_request`.
    pub measure: &'static str,
    /// Its value.
    pub value: f64,
}

/// Scenario and measure; then the proxies' samples.
type Rows = BTreeMap<(String, &'static str), BTreeMap<&'static str, Vec<f64>>>;

/// All samples, what failed, and what this machine does not allow to be measured.
#[derive(Debug, Default)]
pub struct Figures {
    rows: Rows,
    failures: Vec<String>,
    missing: Vec<String>,
}

/// Minimum, median, maximum.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    [at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1))]
}

/// Heddle as a multiple of a rival: the median of the rounds' own ratios, because what is slow in a round is slow for both. Where a round is
/// missing, of the medians.
fn ratio(heddle: &[f64], rival: &[f64]) -> f64 {
    if heddle.len() != rival.len() {
        return spread(heddle)[1] / spread(rival)[1];
    }
    let rounds: Vec<f64> = heddle.iter().zip(rival).map(|(heddle, rival)| heddle / rival).collect();
    spread(&rounds)[1]
}

impl Figures {
    /// Adds one.
    pub fn add(&mut self, sample: Sample) {
        self.rows
            .entry((sample.scenario, sample.measure))
            .or_default()
            .entry(sample.proxy)
            .or_default()
            .push(sample.value);
    }

    /// Adds all of another.
    pub fn extend(&mut self, others: Self) {
        for (row, proxies) in others.rows {
            let here = self.rows.entry(row).or_default();
            for (proxy, values) in proxies {
                here.entry(proxy).or_default().extend(values);
            }
        }
        self.failures.extend(others.failures);
        self.missing.extend(others.missing);
    }

    /// Something could not be measured; the rest of the run goes on, and its end says so.
    pub fn fail(&mut self, failure: String) {
        eprintln!("failed: {failure}");
        self.failures.push(failure);
    }

    /// What could not be measured.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Notes what this machine does not allow to be measured.
    pub fn missing(&mut self, what: String) {
        eprintln!("not measured: {what}");
        self.missing.push(what);
    }

    /// Whether nothing was measured, nor missed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.failures.is_empty() && self.missing.is_empty()
    }

    /// Everything, with every sample.
    pub fn to_json(&self) -> Value {
        let row = |((scenario, measure), proxies): (&(String, &'static str), &BTreeMap<&'static str, Vec<f64>>)| {
            let heddle = proxies.get(HEDDLE);
            let of = |(proxy, values): (&&str, &Vec<f64>)| {
                let [min, median, max] = spread(values);
                let ratio = heddle.map(|heddle| ratio(heddle, values));
                (
                    (*proxy).to_owned(),
                    json!({"min": min, "median": median, "max": max, "heddle_to_this": ratio, "samples": values}),
                )
            };
            json!({"scenario": scenario, "measure": measure, "proxies": proxies.iter().map(of).collect::<serde_json::Map<_, _>>()})
        };
        json!({ "figures": self.rows.iter().map(row).collect::<Vec<_>>(), "failures": self.failures, "not_measured": self.missing })
    }

    /// A table for people: median (minimum–maximum), and Heddle as a multiple of each rival.
    pub fn to_markdown(&self) -> String {
        let mut proxies: Vec<&str> = self.rows.values().flat_map(|p| p.keys().copied()).collect();
        proxies.sort_by_key(|p| (*p != HEDDLE, *p));
        proxies.dedup();
        let rivals: Vec<&str> = proxies.iter().copied().filter(|p| *p != HEDDLE && *p != "direct").collect();
        let mut head: Vec<String> = vec!["scenario".into(), "measure".into()];
        head.extend(proxies.iter().map(|p| (*p).to_owned()));
        head.extend(rivals.iter().map(|p| format!("× {p}")));
        let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
        for ((scenario, measure), values) in &self.rows {
            let mut cells = vec![scenario.clone(), (*measure).to_owned()];
            for proxy in &proxies {
                cells.push(values.get(proxy).map_or_else(String::new, |v| {
                    let [min, median, max] = spread(v);
                    format!("{} ({}–{})", short(median), short(min), short(max))
                }));
            }
            let heddle = values.get(HEDDLE);
            for rival in &rivals {
                let ratio = heddle.zip(values.get(rival)).map(|(heddle, rival)| ratio(heddle, rival));
                cells.push(ratio.map_or_else(String::new, |r| format!("{r:.2}")));
            }
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        for missing in &self.missing {
            text.push_str(&format!("\nNot measured: {missing}\n"));
        }
        text
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let mut figures = Figures::default();
        for (proxy, values) in [(HEDDLE, [8.0, 10.0, 30.0]), ("envoy", [20.0, 40.0, 100.0])] {
            for value in values {
                figures.add(Sample { scenario: "s".into(), proxy, measure: "cpu", value });
            }
        }
        let json = figures.to_json();
        assert_eq!(json["figures"][0]["proxies"]["envoy"]["heddle_to_this"], 0.3);
        assert_eq!(json["figures"][0]["proxies"]["heddle"]["max"], 30.0);
        assert!(figures.to_markdown().ends_with("| s | cpu | 10.0 (8.00–30.0) | 40.0 (20.0–100) | 0.30 |\n"));
    }
}
