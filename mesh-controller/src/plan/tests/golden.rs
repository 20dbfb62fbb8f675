//! Golden files: `tests/golden/plan/NAME.yaml` is planned to `NAME.txt`; again, shuffled, and step by step, it is the same.

use super::{check_golden, documents, golden_folder, render, set};
use crate::{
    inventory::Inventory,
    plan::{Planner, plan},
};
use std::path::PathBuf;

fn cases() -> Vec<(PathBuf, Vec<serde_json::Value>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(golden_folder())
        .expect("tests/golden/plan is there")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "only {} golden cases", files.len());
    let read = |p: &PathBuf| documents(&std::fs::read_to_string(p).expect("a golden case can be read"));
    files.into_iter().map(|p| (p.clone(), read(&p))).collect()
}

#[test]
fn plans_are_as_the_golden_files_say() {
    for (file, objects) in cases() {
        let mut inventory = Inventory::new();
        objects.iter().for_each(|o| drop(inventory.apply(set(o))));
        check_golden(&file.with_extension("txt"), &render::plan(&plan(&inventory, "heddle")));
    }
}

#[test]
fn planning_twice_gives_the_same() {
    for (file, objects) in cases() {
        let mut inventory = Inventory::new();
        objects.iter().for_each(|o| drop(inventory.apply(set(o))));
        assert_eq!(plan(&inventory, "heddle"), plan(&inventory, "heddle"), "{}", file.display());
    }
}

#[test]
fn the_order_of_objects_does_not_matter() {
    for (file, objects) in cases() {
        let mut inventory = Inventory::new();
        objects.iter().for_each(|o| drop(inventory.apply(set(o))));
        let expected = plan(&inventory, "heddle");
        for rotation in 0..objects.len() {
            let mut planner = Planner::new("heddle");
            let (front, back) = objects.split_at(rotation);
            // Every object is a change of its own, so this is also the incremental planner against the full one.
            for object in back.iter().chain(front) {
                planner.apply([set(object)]);
            }
            assert_eq!(*planner.plan(), expected, "{} from object {rotation}", file.display());
            let mut planner = Planner::new("heddle");
            planner.apply(objects.iter().rev().map(set));
            assert_eq!(*planner.plan(), expected, "{} backwards", file.display());
        }
    }
}

#[test]
fn every_condition_bears_the_generation_and_status_json_has_the_form_of_the_crds() {
    for (file, objects) in cases() {
        let mut inventory = Inventory::new();
        objects.iter().for_each(|o| drop(inventory.apply(set(o))));
        for (key, status) in plan(&inventory, "heddle").statuses {
            let json = status.to_json();
            let mut conditions = 0;
            each_condition(&json, &mut |condition| {
                conditions += 1;
                assert_eq!(condition["observedGeneration"], status.generation, "{key} in {}", file.display());
                let message = condition["message"].as_str().unwrap();
                assert!(message.len() < 32_768 && !message.contains('\n'), "{key}: {message}");
            });
            assert!(conditions > 0, "{key} has no condition in {}", file.display());
        }
    }
}

fn each_condition(value: &serde_json::Value, check: &mut impl FnMut(&serde_json::Value)) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, field) in map {
                if name == "conditions" {
                    field.as_array().unwrap().iter().for_each(&mut *check);
                }
                each_condition(field, check);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|item| each_condition(item, check)),
        _ => {}
    }
}
