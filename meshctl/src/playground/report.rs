//! What the playground tells about itself: the values behind `status`, and their text. It must not find anything out.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write;

/// Something in the folder that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// File.
    #[serde(default)]
    pub file: String,
    /// Line in it, from 1.
    #[serde(default)]
    pub line: usize,
    /// `Kind/namespace/name`, empty if it cannot be told.
    #[serde(default)]
    pub object: String,
    /// Path of the field.
    #[serde(default)]
    pub field: String,
    /// What is wrong.
    #[serde(default)]
    pub reason: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        for part in [&self.object, &self.field, &self.reason] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

/// A pod as `status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodReport {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The Deployment, or the pod itself.
    pub owner: String,
    /// Node.
    pub node: String,
    /// Addresses, primary first.
    pub addresses: Vec<String>,
    /// What it is doing.
    pub phase: String,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Restarts of its containers.
    pub restarts: u32,
    /// Path of its network namespace inside the playground.
    pub netns: String,
    /// What went wrong last.
    pub message: String,
}

/// A Service as `status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceReport {
    /// `namespace/name`.
    pub name: String,
    /// ClusterIPs, or `None`.
    pub addresses: Vec<String>,
    /// `80/TCP`, ….
    pub ports: Vec<String>,
    /// Addresses that take traffic.
    pub endpoints: Vec<String>,
}

/// A Gateway as `status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayReport {
    /// `namespace/name`.
    pub name: String,
    /// Addresses in the playground.
    pub addresses: Vec<String>,
    /// Listener port → address on the host.
    pub ports: Vec<(u16, String)>,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whether all that was asked for runs.
    pub ready: bool,
    /// What is missing for that.
    pub waiting_for: Vec<String>,
    /// Nodes.
    pub nodes: Vec<String>,
    /// Pods.
    pub pods: Vec<PodReport>,
    /// Services.
    pub services: Vec<ServiceReport>,
    /// Gateways.
    pub gateways: Vec<GatewayReport>,
    /// Objects with the status that the controller gives them.
    pub objects: Vec<Value>,
    /// Problems of the folder, from us and from the controller, each once.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Puts problems together: the same place and object is told once, in the controller's words (they come first).
    pub fn merge_problems(controller: Vec<Problem>, ours: Vec<Problem>) -> Vec<Problem> {
        // `Kind namespace/name` and `Kind/namespace/name` are the same object.
        let object = |p: &Problem| p.object.replace('/', " ");
        let mut all: Vec<Problem> = Vec::new();
        for problem in controller.into_iter().chain(ours) {
            let same = |p: &Problem| {
                let same_object = !p.object.is_empty() && object(p) == object(&problem);
                same_object && p.reason == problem.reason
                    || p.file == problem.file && (same_object || p.line == problem.line)
            };
            if !all.iter().any(same) {
                all.push(problem);
            }
        }
        all
    }

    /// As text, in the manner of `kubectl get`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let rows = |p: &PodReport| {
            vec![
                format!("{}/{}", p.namespace, p.name),
                if p.ready { "yes" } else { "no" }.to_owned(),
                p.phase.clone(),
                p.restarts.to_string(),
                p.node.clone(),
                p.addresses.join(","),
                p.message.clone(),
            ]
        };
        table(&mut out, &["POD", "READY", "STATUS", "RESTARTS", "NODE", "ADDRESSES", ""], self.pods.iter().map(rows));
        let rows =
            |s: &ServiceReport| vec![s.name.clone(), s.addresses.join(","), s.ports.join(","), s.endpoints.join(",")];
        table(&mut out, &["SERVICE", "CLUSTER-IP", "PORTS", "ENDPOINTS"], self.services.iter().map(rows));
        let rows = |g: &GatewayReport| {
            let host: Vec<String> = g.ports.iter().map(|(p, a)| format!("{p}→{a}")).collect();
            vec![g.name.clone(), g.addresses.join(","), host.join(" ")]
        };
        table(&mut out, &["GATEWAY", "ADDRESSES", "ON THIS MACHINE"], self.gateways.iter().map(rows));
        table(&mut out, &["OBJECT", "PARENT", "CONDITIONS"], self.objects.iter().flat_map(conditions));
        for problem in &self.problems {
            let _ = writeln!(out, "problem: {problem}");
        }
        for what in &self.waiting_for {
            let _ = writeln!(out, "waiting for {what}");
        }
        out
    }
}

/// One row for an object, or one for each of its parents, ancestors or listeners.
fn conditions(object: &Value) -> Vec<Vec<String>> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let name = match text(&object["namespace"]).as_str() {
        "" => format!("{}/{}", text(&object["kind"]), text(&object["name"])),
        ns => format!("{}/{ns}/{}", text(&object["kind"]), text(&object["name"])),
    };
    let told = |conditions: &Value| {
        let each = conditions.as_array().into_iter().flatten().map(|c| {
            let (kind, status) = (text(&c["type"]), text(&c["status"]));
            match status.as_str() {
                "True" => kind,
                _ => format!("{kind}={status} ({}: {})", text(&c["reason"]), text(&c["message"])),
            }
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let status = &object["status"];
    let mut rows = Vec::new();
    if status["conditions"].is_array() {
        rows.push(vec![name.clone(), String::new(), told(&status["conditions"])]);
    }
    for (list, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        for parent in status[list].as_array().into_iter().flatten() {
            let r = &parent[reference];
            let kind = r["kind"].as_str().unwrap_or("Gateway");
            rows.push(vec![name.clone(), format!("{kind}/{}", text(&r["name"])), told(&parent["conditions"])]);
        }
    }
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let routes = &listener["attachedRoutes"];
        let row = format!("{}; {routes} routes", told(&listener["conditions"]));
        rows.push(vec![name.clone(), format!("listener {}", text(&listener["name"])), row]);
    }
    rows
}

/// Appends rows in columns as wide as their widest cell.
pub fn table(out: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    if rows.is_empty() {
        return;
    }
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&rows).collect();
    let width = |column: usize| all.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in all {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_both_report_is_told_once_in_the_controllers_words() {
        let problem = |file: &str, line, object: &str, reason: &str| Problem {
            file: file.into(),
            line,
            object: object.into(),
            field: String::new(),
            reason: reason.into(),
        };
        let theirs = vec![problem("a.yaml", 3, "Service b/web", "must be an integer")];
        let ours = vec![
            problem("a.yaml", 9, "Service/b/web", "invalid type"),
            problem("a.yaml", 40, "Pod/b/c", "invalid type"),
        ];
        let all = Report::merge_problems(theirs, ours);
        assert_eq!(all.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>(), ["must be an integer", "invalid type"]);
        assert_eq!(all[1].object, "Pod/b/c");
    }
}
