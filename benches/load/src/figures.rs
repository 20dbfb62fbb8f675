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

    /// A table for people for each part (the scenario's first word): median (minimum–maximum), and Heddle as a multiple of each rival.
    pub fn to_markdown(&self) -> String {
        let mut parts: Vec<&str> = self.rows.keys().map(|(scenario, _)| part(scenario)).collect();
        parts.dedup();
        let mut text = parts.iter().map(|part| self.table(part)).collect::<Vec<_>>().join("\n");
        for missing in &self.missing {
            text.push_str(&format!("\nNot measured: {missing}\n"));
        }
        text
    }

    /// Of one part, with a column for each proxy that is in it.
    fn table(&self, of: &str) -> String {
        let rows = || self.rows.iter().filter(|((scenario, _), _)| part(scenario) == of);
        let mut proxies: Vec<&str> = rows().flat_map(|(_, p)| p.keys().copied()).collect();
        proxies.sort_by_key(|p| (*p != HEDDLE, *p));
        proxies.dedup();
        let rivals: Vec<&str> = proxies.iter().copied().filter(|p| *p != HEDDLE && *p != "direct").collect();
        let mut head: Vec<String> = vec!["scenario".into(), "measure".into()];
        head.extend(proxies.iter().map(|p| (*p).to_owned()));
        head.extend(rivals.iter().map(|p| format!("× {p}")));
        let mut text = format!("## {of}\n\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
        for ((scenario, measure), values) in rows() {
            let mut cells = vec![scenario.clone(), (*measure).to_owned()];
            cells.extend(proxies.iter().map(|proxy| values.get(proxy).map_or_else(String::new, |v| cell(v))));
            let heddle = values.get(HEDDLE);
            for rival in &rivals {
                let ratio = heddle.zip(values.get(rival)).map(|(heddle, rival)| ratio(heddle, rival));
                // Nothing beside nothing is no ratio.
                cells.push(ratio.filter(|r| !r.is_nan()).map_or_else(String::new, |r| format!("{r:.2}")));
            }
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }
}

fn part(scenario: &str) -> &str {
    scenario.split('/').next().unwrap_or_default()
}

fn cell(values: &[f64]) -> String {
    let [min, median, max] = spread(values);
    if values.len() == 1 { short(median) } else { format!("{} ({}–{})", short(median), short(min), short(max)) }
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
    fn each_part_has_a_table_of_those_who_are_in_it() {
        let mut figures = Figures::default();
        for (scenario, proxy, value) in [("a/1", HEDDLE, 0.0), ("a/1", "envoy", 0.0), ("b/1", HEDDLE, 7.0)] {
            figures.add(Sample { scenario: scenario.into(), proxy, measure: "m", value });
        }
        let text = figures.to_markdown();
        assert!(text.starts_with("## a\n\n| scenario | measure | heddle | envoy | × envoy |\n"), "{text}");
        assert!(text.contains("| a/1 | m | 0.00 | 0.00 |  |\n"), "{text}");
        assert!(
            text.ends_with("\n\n## b\n\n| scenario | measure | heddle |\n|---|---|---|\n| b/1 | m | 7.00 |\n"),
            "{text}"
        );
    }

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
