//! The incremental planner against the full one: whatever is edited, both come to the same plan.

use super::{
    set,
    world::{Edit, edits},
};
use crate::{
    inventory::{Change, admit},
    plan::{PlanDelta, Planner, plan},
};
use proptest::prelude::*;

fn change(edit: &Edit) -> Change {
    match edit {
        Edit::Set(object) => set(object),
        Edit::Remove(object) => Change::Remove(admit(&mut object.clone()).expect("the world is readable").key),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn replanning_what_changed_gives_the_full_plan(edits in edits(60), batch in 1..4_usize) {
        let mut planner = Planner::new("heddle");
        let mut mesh = planner.plan().mesh.clone();
        let mut statuses = planner.plan().statuses.clone();
        for edits in edits.chunks(batch) {
            let PlanDelta { resources, statuses: said } = planner.apply(edits.iter().map(change));
            // The delta alone leads from plan to plan.
            for (id, resource) in resources {
                match resource {
                    Some(resource) => {
                        prop_assert_eq!(&id, &resource.id());
                        mesh.insert(resource);
                    }
                    None => prop_assert!(mesh.remove(&id).is_some(), "removes what was not there"),
                }
            }
            for (key, status) in said {
                match status {
                    Some(status) => statuses.insert(key, status),
                    None => statuses.remove(&key),
                };
            }
            let full = plan(planner.inventory(), "heddle");
            prop_assert_eq!(planner.plan(), &full);
            prop_assert_eq!(&mesh, &full.mesh);
            prop_assert_eq!(&statuses, &full.statuses);
        }
    }

    #[test]
    fn nothing_dangles_in_the_mesh(edits in edits(60)) {
        let mut planner = Planner::new("heddle");
        planner.apply(edits.iter().map(change));
        let mesh = &planner.plan().mesh;
        for resource in mesh.iter() {
            for id in super::isolation::points_to(resource) {
                prop_assert!(mesh.contains(&id), "{} points to {id}, which is not there", resource.id());
            }
        }
    }
}
